import copy
import math

import pytest
import torch
from conftest import cosine, flat_gradient, make_policy

from minicf import training
from minicf.env import SumGame
from minicf.exact import prefix_values, success
from minicf.grpo import grpo_loss
from minicf.training import METHODS, improve, pretrain

G = 4


def clipped(ratio, advantage):
    return torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)


def formula(method, policy, reference, rollout, values, group_rewards):
    """The loss of the method's source, completion by completion and token by token."""
    B, T = rollout.mask.shape
    rewards = rollout.rewards.tolist()
    flat = torch.tensor(rewards)
    lengths = [int(row.sum()) for row in rollout.mask]
    total = 0.0
    if method == "PPO with critic":
        table = []
        for b, n in enumerate(lengths):
            row, following = [0.0] * n, 0.0
            for t in reversed(range(n)):
                target = rewards[b] if t == n - 1 else values[b, t + 1].item()
                row[t] = following = target - values[b, t].item() + 0.95 * following
            table.append(row)
        every = torch.tensor([a for row in table for a in row])
        mean, std = every.mean().item(), every.std().item()
    for b, n in enumerate(lengths):
        text = torch.cat([rollout.prompts[b], rollout.completions[b]])
        logits = policy(text[None, :-1])[0][0, -T:].log_softmax(-1)
        ref_logits = reference(text[None, :-1])[0][0, -T:].log_softmax(-1).detach()
        group = group_rewards[b // G]
        others = [group[i] for i in range(G) if i != b % G]
        mine, centre = rewards[b], sum(group) / G
        for t in range(n):
            token = rollout.completions[b, t]
            ratio = (logits[t, token] - rollout.logprobs[b, t]).exp()
            if method == "REINFORCE":
                total -= logits[t, token] * mine / (B * T)
            elif method == "RLOO":
                total -= logits[t, token] * (mine - sum(others) / (G - 1)) / (B * T)
            elif method == "GRPO":
                std = torch.tensor(group).std().item()
                advantage = (mine - centre) / std if std > 0 else 0.0
                d = ref_logits[t, token] - logits[t, token]
                total -= (clipped(ratio, advantage) - 0.001 * (d.exp() - d - 1)) / (n * B)
            elif method == "Dr. GRPO":
                total -= clipped(ratio, mine - centre) / (B * T)
            elif method == "PPO without critic":
                advantage = (mine - flat.mean().item()) / flat.std().item()
                total -= clipped(ratio, advantage) / sum(lengths)
            elif method == "PPO with critic":
                total -= clipped(ratio, (table[b][t] - mean) / std) / sum(lengths)
    return total


@pytest.mark.parametrize("method", [name for name in METHODS if name != "oracle"])
def test_a_preset_is_the_formula_of_its_source(method, trained, env, monkeypatch, generator):
    """Every update of one rollout; the policy is moved in between, so later ratios are not 1."""
    policy, start = copy.deepcopy(trained), copy.deepcopy(trained)
    rollouts, updates, values = [], [], []
    sample = training.sample

    def recording_sample(*arguments):
        rollouts.append(sample(*arguments))
        return rollouts[-1]

    def recording_descend(optimizer, loss, networks, where):
        rollout = rollouts[0]
        if len(networks) == 2:
            now = networks[1](rollout.prompts, rollout.completions).detach()
            values.append(now)
            critic_gradient = flat_gradient(loss, networks[1])
        groups = rollout.rewards.view(-1, G).tolist()
        first = values[0] if values else None
        expected = formula(method, networks[0], start, rollout, first, groups)
        updates.append((flat_gradient(loss, networks[0]), flat_gradient(expected, networks[0])))
        if len(networks) == 2:
            returns = training.gae(rollout.rewards, first, rollout.mask)[1]
            predicted = networks[1](rollout.prompts, rollout.completions)
            value_loss = 0.5 * (predicted - returns)[rollout.mask].square().mean()
            updates.append((critic_gradient, flat_gradient(value_loss, networks[1])))
        with torch.no_grad():
            for network in networks:
                for weight in network.parameters():
                    weight += 0.02 * torch.randn(weight.shape, generator=generator).double()

    monkeypatch.setattr(training, "sample", recording_sample)
    monkeypatch.setattr(training, "_descend", recording_descend)
    history = improve(policy, env, method, 1, torch.Generator().manual_seed(2), G)
    assert len(updates) == METHODS[method].epochs * (2 if "with critic" in method else 1)
    for got, expected in updates:
        assert expected.norm() > 0
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
    if METHODS[method].epochs > 1:
        assert history[-1]["ratio"] != 1 and history[-1]["clip_fraction"] > 0


def test_first_ratio_is_exactly_one(env, trained, generator, monkeypatch):
    """In float32 too, bit for bit; the second update of the same rollout has moved on."""
    seen = []

    def record(logprobs, old_logprobs, *arguments, **options):
        seen.append((logprobs.detach(), old_logprobs))
        return grpo_loss(logprobs, old_logprobs, *arguments, **options)

    monkeypatch.setattr(training, "grpo_loss", record)
    improve(copy.deepcopy(trained).float(), env, "GRPO", 2, generator, G)
    for first, second in (seen[:2], seen[2:]):
        assert torch.equal(*first) and not first[1].requires_grad
        assert torch.equal(second[1], first[0]) and not torch.equal(*second)


def test_the_oracle_ascends_the_exact_gradient(trained, env, monkeypatch, generator):
    policy, gradients = copy.deepcopy(trained), []
    monkeypatch.setattr(
        training, "_descend", lambda _, loss, *rest: gradients.append(flat_gradient(loss, policy))
    )
    improve(policy, env, "oracle", 1, generator)
    exact = flat_gradient(success(policy, env).mean(), policy)
    torch.testing.assert_close(-gradients[0], exact)


def test_presets_update_as_often_as_they_say_and_name_a_source():
    for name, method in METHODS.items():
        clips = name.startswith(("PPO", "GRPO", "Dr."))
        assert (method.epochs >= 2) == clips == math.isfinite(method.clip[0])
        assert method.source


@pytest.mark.parametrize("method", METHODS)
def test_every_method_improves_the_policy(method, trained, env):
    policy = copy.deepcopy(trained).float()
    history = improve(policy, env, method, 60, torch.Generator().manual_seed(0), 16, 5e-3)
    assert history[0]["step"] == 0 and history[-1]["step"] == 60
    assert history[-1]["samples"] == (0 if method == "oracle" else 60 * 19 * 16)
    assert history[-1]["success"] == pytest.approx(success(policy, env).mean().item())
    assert history[-1]["success"] > history[0]["success"] + 0.1


def test_shuffled_rewards_teach_nothing(trained, env, monkeypatch):
    """Negative control: the same run with rewards dealt out at random."""
    deal = torch.Generator().manual_seed(0)
    true_reward = SumGame.reward

    def shuffled(self, prompts, completions):
        rewards = true_reward(self, prompts, completions)
        return rewards[torch.randperm(len(rewards), generator=deal)]

    monkeypatch.setattr(SumGame, "reward", shuffled)
    policy = copy.deepcopy(trained).float()
    history = improve(policy, env, "GRPO", 60, torch.Generator().manual_seed(0), 16, 5e-3)
    assert history[-1]["success"] < history[0]["success"] + 0.03


def test_pretraining_lowers_the_loss_and_calls_back(env):
    policy, seen = make_policy(env, spread=0.0, dtype=torch.float32), []
    losses = pretrain(
        policy, env, 60, torch.Generator().manual_seed(0), learning_rate=1e-2, warmup=10,
        checkpoints=(20, 60), at_checkpoint=lambda step, loss: seen.append((step, loss)),
    )
    assert len(losses) == 60 and [step for step, _ in seen] == [20, 60]
    assert losses[0] == pytest.approx(math.log(13), abs=0.05)  # an untrained policy is uniform
    assert sum(losses[-20:]) / 20 == pytest.approx(seen[1][1]) and seen[1][1] < 0.7 * losses[0]


def test_pretraining_trains_the_stop(env):
    """After imitation a single digit is followed by a stop or a plus, about as in the corpus."""
    policy = make_policy(env, spread=0.0, dtype=torch.float32)
    pretrain(policy, env, 100, torch.Generator().manual_seed(0), learning_rate=1e-2, warmup=10)
    logits, _ = policy(env.encode("05=2+3")[None])
    assert logits[0, -1].softmax(0)[env.eos] > 0.8


def test_the_same_seed_gives_the_same_run(trained, env):
    runs = []
    for _ in range(2):
        policy = copy.deepcopy(trained).float()
        history = improve(policy, env, "PPO with critic", 3, torch.Generator().manual_seed(4))
        runs.append([{k: v for k, v in entry.items() if k != "seconds"} for entry in history])
        runs[-1].append([weight.tolist() for weight in policy.parameters()])
    assert runs[0] == runs[1]


def test_the_reference_stays_where_the_run_began(trained, env, generator):
    """A reference that moves along would leave the penalty at 0 for ever."""
    policy = copy.deepcopy(trained).float()
    history = improve(policy, env, "GRPO", 6, generator, G, evaluate_every=3)
    assert history[2]["kl"] > history[1]["kl"] > 0


def test_the_loss_of_pretraining_is_a_mean_over_live_tokens(env):
    """Against a token-by-token loop over the batch that a generator of the same seed draws."""
    policy = make_policy(env, dtype=torch.float32)
    prompts, completions = env.corpus(8, torch.Generator().manual_seed(3))
    total, count = 0.0, 0
    for prompt, completion in zip(prompts, completions):
        for t in range(env.decode(completion).index(".") + 1):
            logits = policy(torch.cat([prompt, completion[:t]])[None])[0][0, -1]
            total, count = total - logits.log_softmax(0)[completion[t]].item(), count + 1
    losses = pretrain(policy, env, 1, torch.Generator().manual_seed(3), batch_size=8)
    assert losses == [pytest.approx(total / count, rel=1e-5)]


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_loss_stops_the_run_too(trained, env, generator, monkeypatch, value):
    monkeypatch.setattr(training, "success", lambda *arguments: success(*arguments) * value)
    with pytest.raises(FloatingPointError, match="oracle, step 1: the loss is"):
        improve(copy.deepcopy(trained).float(), env, "oracle", 1, generator)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_policy(trained, env, monkeypatch):
    policy, calls = copy.deepcopy(trained).float(), []
    true_loss = training.grpo_loss

    def breaking(*arguments, **options):
        loss, stats = true_loss(*arguments, **options)
        calls.append([weight.clone() for weight in policy.parameters()])
        return loss * (float("nan") if len(calls) == 5 else 1.0), stats

    monkeypatch.setattr(training, "grpo_loss", breaking)
    with pytest.raises(FloatingPointError, match="GRPO, step 3: the loss is nan"):
        improve(policy, env, "GRPO", 10, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(calls[-1], policy.parameters()))


def test_value_error_is_the_distance_to_the_exact_values(trained, env, monkeypatch):
    """A critic that says 0 everywhere is off by the root mean square of the exact values."""
    monkeypatch.setattr(training, "_descend", lambda *arguments: None)
    rollouts, sample = [], training.sample
    monkeypatch.setattr(training, "sample", lambda *a: rollouts.append(sample(*a)) or rollouts[-1])
    history = improve(trained, env, "PPO with critic", 1, torch.Generator().manual_seed(0))
    values = prefix_values(trained, env, rollouts[0].prompts, rollouts[0].completions)
    expected = values[rollouts[0].mask].square().mean().sqrt().item()
    assert history[-1]["value_error"] == pytest.approx(expected)


def test_bad_input_is_refused(policy, env, generator):
    with pytest.raises(ValueError, match="method must be one of REINFORCE, .* not 'A2C'"):
        improve(policy, env, "A2C", 1, generator)
    with pytest.raises(ValueError, match="steps .* at least 1, not -3"):
        improve(policy, env, "GRPO", -3, generator)
    with pytest.raises(ValueError, match="group_size must be at least 2 .* not 1"):
        improve(policy, env, "GRPO", 1, generator, group_size=1)
    with pytest.raises(ValueError, match="steps .* not 0"):
        pretrain(policy, env, 0, generator)
