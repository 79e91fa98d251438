"""The loop: every update, history and report of `train.improve` beside a loop of the test's own."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import added, cosine, flat_gradient, norm

import train
from minicf.critic import Critic
from minicf.env import SumGame
from minicf.exact import prefix_values, success, value_gradients
from minicf.grpo import grpo_loss
from minicf.rollout import sample
from minicf.variants import cispo_loss, dapo_loss, gspo_loss, maxrl_advantages
from train import METHODS, improve

G = 4
SOME = [4, 9, 12, 15]  # rows of prompts
OWN = {"baseline": "leave-one-out", "scale": "std", "aggregate": "token", "kl_coef": 0.3}
CASES = {  # arguments of improve
    **{name: {"method": name} for name in METHODS},
    "a row of one's own": {"method": OWN},
    "dapo": {"method": "grpo", "loss": dapo_loss},
    "gspo": {"method": "grpo", "loss": gspo_loss},
    "cispo": {"method": "grpo", "loss": cispo_loss},
    "maxrl": {"method": "drgrpo", "advantages": maxrl_advantages},
}
SAMPLED = [*METHODS, "a row of one's own"]


@pytest.fixture
def rollouts(monkeypatch):
    """Every rollout of a run, in order."""
    kept = []

    def recording(*arguments):
        kept.append(sample(*arguments))
        return kept[-1]

    monkeypatch.setattr(train, "sample", recording)
    return kept


def with_weights(network, weights):
    """A copy of a network that has these weights."""
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for weight, value in zip(twin.parameters(), weights, strict=True):
            weight.copy_(value)
    return twin.requires_grad_()


def advantages_by_a_loop(case, rollout):
    """A number for each completion, from the rewards of its group."""
    result, rewards = [], rollout.rewards.tolist()
    for i, mine in enumerate(rewards):
        group = rewards[i - i % G : i - i % G + G]
        mean = sum(group) / G
        others = (sum(group) - mine) / (G - 1)
        std = math.sqrt(sum((x - mean) ** 2 for x in group) / (G - 1)) or 1.0
        result.append({
            "reinforce": mine, "rloo": mine - others, "drgrpo": mine - mean,
            "a row of one's own": (mine - others) / std, "maxrl": (mine - mean) / (mean or 1.0),
        }.get(case, (mine - mean) / std))  # fmt: skip
    return result


def gae_by_a_loop(rollout, values):
    """Advantages, normalised over live tokens, and returns: lists of lists."""
    table, returns = [], []
    for reward, row, live in zip(rollout.rewards.tolist(), values.tolist(), rollout.mask):
        n, following = int(live.sum()), 0.0
        line = [0.0] * n
        for t in reversed(range(n)):
            onward = reward if t == n - 1 else row[t + 1]
            line[t] = following = onward - row[t] + 0.95 * following
        table.append(line)
        returns.append([a + v for a, v in zip(line, row)])
    every = torch.tensor([a for line in table for a in line], dtype=torch.float64)
    mean, std = every.mean().item(), every.std().item()
    return [[(a - mean) / std for a in line] for line in table], returns


def loss_by_a_loop(case, policy, start, rollout, table, nudge):
    """The method's formula, a completion at a time in a pass of its own, a token at a time.

    `nudge` (Q, P, D) is added to what the prompts' tokens bring to the first block.
    """
    (B, T), P = rollout.mask.shape, rollout.prompts.size(1)
    tokens, total = int(rollout.mask.sum()), 0.0
    leash = {"grpo": 0.001, "a row of one's own": 0.3}.get(case, 0)
    for b, n in enumerate(rollout.mask.sum(1).tolist()):
        text = torch.cat([rollout.prompts[b], rollout.completions[b, :-1]])[None]
        with added(policy.blocks[0], F.pad(nudge[b // G], (0, 0, 0, T - 1))):
            now = policy(text)[0][0, P - 1 :].log_softmax(-1)
        with torch.no_grad():
            first = start(text)[0][0, P - 1 :].log_softmax(-1) if leash else None
        answer = rollout.completions[b, :n].tolist()
        logratios = [now[t, y] - rollout.logprobs[b, t] for t, y in enumerate(answer)]
        whole = (sum(logratios) / n).exp()
        for t, y in enumerate(answer):
            A = table[b][t] if isinstance(table[b], list) else table[b]
            ratio = logratios[t].exp()
            if case == "gspo":
                ratio = whole
            clipped = ratio.clamp(0.8, 1.28 if case == "dapo" else 1.2)
            objective = torch.minimum(ratio * A, clipped * A)
            if case == "cispo":
                objective = min(ratio.item(), 1.2) * A * now[t, y]
            share = {"grpo": 1 / (n * B), "gspo": 1 / (n * B)}.get(case, 1 / tokens)
            if case in ("reinforce", "rloo", "drgrpo", "maxrl"):
                share = 1 / (B * T)
            if leash:
                d = first[t, y] - now[t, y]
                objective = objective - leash * (d.exp() - d - 1)
            total = total - share * objective
    return total


def values_by_a_loop(critic, rollout):
    pairs = zip(rollout.prompts, rollout.completions)
    return torch.cat([critic(prompt[None], answer[None]) for prompt, answer in pairs])


def adam_by_hand(steps):
    """Weights after each step, from its gradients and rates: no decay, bias corrected."""
    first = [torch.zeros_like(weight) for weight in steps[0].before]
    second = [torch.zeros_like(weight) for weight in steps[0].before]
    for count, step in enumerate(steps, 1):
        after = []
        for i, (weight, gradient) in enumerate(zip(step.before, step.left)):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.95 * second[i] + 0.05 * gradient**2
            size = (second[i] / (1 - 0.95**count)).sqrt() + 1e-8
            after.append(weight - step.lr * first[i] / (1 - 0.9**count) / size)
        yield after


class Worth(SumGame):
    """The world with every reward times a factor."""

    factor = 1.0

    def reward(self, prompts, completions):
        return self.factor * super().reward(prompts, completions)


@pytest.mark.parametrize(
    "case, factor", [*((case, 1.0) for case in CASES), ("reinforce", 100.0), ("ppo", 100.0)]
)
def test_every_update_and_every_cosine_is_that_of_a_loop(case, factor, trained, rollouts, steps):
    """Three rollouts of two updates. Values, gradients, clipping, Adam and rates, all by hand.

    Old log-probabilities, values and the truth are of the weights before a rollout's first update;
    the KL is to the start. Rewards of 100 make gradients that are clipped, each network's alone.
    """
    world, policy, start = Worth(2), copy.deepcopy(trained), copy.deepcopy(trained)
    world.factor = factor
    generator, prompts = torch.Generator().manual_seed(2), world.prompts[SOME]
    history = improve(
        policy, world, steps=3, generator=generator, group_size=G, learning_rate=2e-2,
        prompts=prompts, warmup=2, evaluate_every=1, **CASES[case],
    )  # fmt: skip
    assert len(rollouts) == 3 and len(steps) == 6 and len(history) == 4
    rates = [1 / 2, 2 / 3, 1 / 3]  # half at first, to warm up; and down to 0 after the last
    assert [step.lr for step in steps] == pytest.approx([2e-2 * r for r in rates for _ in "12"])
    assert all(step.betas == (0.9, 0.95) and step.weight_decay == 0 for step in steps)

    count, large = len(list(policy.parameters())), []
    for update, (step, by_hand) in enumerate(zip(steps, adam_by_hand(steps), strict=True)):
        rollout, twin = rollouts[update // 2], with_weights(start, step.before[:count])
        critic = with_weights(Critic(start), step.before[count:]) if case == "ppo" else None
        if update % 2 == 0:  # a new rollout
            table = advantages_by_a_loop(case, rollout)
            truth = value_gradients(twin, world, twin.blocks[0], prompts)
            if case == "ppo":
                table, returns = gae_by_a_loop(rollout, values_by_a_loop(critic, rollout))
            elif case == "perfect":
                values = prefix_values(twin, world, rollout.prompts, rollout.completions)
                table, _ = gae_by_a_loop(rollout, values)
        nudge = torch.zeros_like(truth, requires_grad=True)
        loss = loss_by_a_loop(case, twin, start, rollout, table, nudge)
        if update % 2 == 0:
            (left,) = torch.autograd.grad(-loss, nudge, retain_graph=True)
            entry = history[1 + update // 2]
            assert entry["cosine"] == pytest.approx(cosine(left, truth), abs=1e-6)
        pairs = [(step.left[:count], flat_gradient(loss, twin))]
        if case == "ppo":
            values, total = values_by_a_loop(critic, rollout), 0.0
            for b, row in enumerate(returns):
                total += sum((values[b, t] - row[t]) ** 2 for t in range(len(table[b])))
            worth = flat_gradient(0.5 * total / int(rollout.mask.sum()), critic)
            pairs.append((step.left[count:], worth))
        for found, expected in pairs:
            large.append(expected.norm().item())
            found = torch.cat([each.flatten() for each in found])
            expected = expected / max(1, large[-1])
            assert expected.norm() > 0
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(step.after, by_hand, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), steps[-1].after))
    assert any(entry["clip_fraction"] > 0 for entry in history[1:])
    if factor > 1:  # the policy's, or the critic's
        assert min(large[1::2]) > 1


def test_the_first_ratio_is_exactly_one(env, trained, generator, monkeypatch):
    """In float32 too, bit for bit; the second update of the same rollout has moved on."""
    seen = []

    def record(logprobs, old_logprobs, *arguments, **options):
        seen.append((logprobs.detach(), old_logprobs))
        return grpo_loss(logprobs, old_logprobs, *arguments, **options)

    monkeypatch.setattr(train, "grpo_loss", record)
    improve(copy.deepcopy(trained).float(), env, "grpo", 2, generator, G)
    for first, second in (seen[:2], seen[2:]):
        assert torch.equal(*first) and not first[1].requires_grad
        assert torch.equal(second[1], first[0]) and not torch.equal(*second)


def test_exact_ascends_the_enumerated_success_afresh_at_each_update(trained, env, steps, generator):
    policy, prompts = copy.deepcopy(trained), env.prompts[[3, 9]]
    history = improve(
        policy, env, "exact", 2, generator, G, 1e-2, prompts, warmup=0, evaluate_every=1
    )
    assert len(steps) == 4 and [step.lr for step in steps] == [1e-2, 1e-2, 5e-3, 5e-3]
    for step in steps:
        twin = with_weights(trained, step.before)
        gradient = -flat_gradient(success(twin, env, prompts).mean(), twin)
        expected = gradient / max(1, gradient.norm().item())
        found = torch.cat([each.flatten() for each in step.left])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-10)
    assert [entry["cosine"] for entry in history[1:]] == pytest.approx([1, 1], abs=1e-9)


@pytest.mark.parametrize("updates", [1, 3])
def test_a_rollout_has_as_many_updates_as_asked_for(updates, trained, env, steps, rollouts):
    generator = torch.Generator().manual_seed(0)
    improve(copy.deepcopy(trained), env, "grpo", 2, generator, G, updates=updates)
    assert len(rollouts) == 2 and len(steps) == 2 * updates


# What is reported.


@pytest.mark.parametrize("rows", [None, SOME])
def test_an_entry_is_of_its_own_rollout_and_of_the_weights_after_it(
    rows, trained, env, rollouts, steps, generator
):
    policy, logged = copy.deepcopy(trained), []
    prompts = env.prompts if rows is None else env.prompts[rows]
    history = improve(
        policy, env, "grpo", 5, generator, G, 1e-2, None if rows is None else prompts,
        logged.append, evaluate_every=2,
    )  # fmt: skip
    assert [entry["step"] for entry in history] == [0, 2, 4, 5]
    assert history[1:] == logged and set(history[0]) == {"step", "success"}
    names = {"step", "success", "cosine", "reward", "entropy", "ratio", "clip_fraction"}
    for entry in history:
        after = trained if entry["step"] == 0 else with_weights(
            trained, steps[2 * entry["step"] - 1].after
        )  # fmt: skip
        mean = success(after, env, prompts).mean().item()
        assert entry["success"] == pytest.approx(mean, rel=1e-9)
        if entry["step"] > 0:
            rollout = rollouts[entry["step"] - 1]
            nats = -sum(rollout.logprobs[rollout.mask].tolist()) / len(rollout.rewards)
            assert torch.equal(rollout.prompts, prompts.repeat_interleave(G, 0))
            assert entry["reward"] == pytest.approx(rollout.rewards.mean().item())
            assert entry["entropy"] == pytest.approx(nats, rel=1e-9)
            assert set(entry) == names | {"approx_kl", "kl"}
            assert all(type(value) in (int, float) for value in entry.values())


@pytest.mark.parametrize("method", [*SAMPLED, "exact"])
def test_measuring_changes_no_weight_and_no_random_number(method, trained, env):
    """And the same seed gives the same run, whatever the global generator has drawn."""
    runs, row = [], OWN if method not in [*METHODS, "exact"] else method
    for evaluate_every in (1, 4):
        torch.rand(evaluate_every)
        before = torch.random.get_rng_state()
        policy, generator = copy.deepcopy(trained).float(), torch.Generator().manual_seed(4)
        history = improve(policy, env, row, 4, generator, G, evaluate_every=evaluate_every)
        runs.append((list(policy.parameters()), generator.get_state(), history))
        assert torch.equal(before, torch.random.get_rng_state())
    assert [len(history) for _, _, history in runs] == [5, 2]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][0], runs[1][0]))
    assert torch.equal(runs[0][1], runs[1][1]) and runs[0][2][-1] == runs[1][2][-1]


def bare(env):
    """A world with what `env.World` asks for and nothing else: no answers are listed."""
    names = ("vocab", "prompts", "prompt_length", "completion_length", "eos", "reward")
    return SimpleNamespace(**{name: getattr(env, name) for name in names})


@pytest.mark.parametrize("method", [name for name in METHODS if name != "perfect"])
def test_a_world_without_solutions_is_trained_in_but_not_counted(method, trained, env):
    runs = []
    for world in (env, bare(env)):
        policy, generator = copy.deepcopy(trained).float(), torch.Generator().manual_seed(4)
        runs.append((policy, improve(policy, world, method, 2, generator, G)))
    (policy, counted), (other, history) = runs
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), other.parameters()))
    for with_truth, without in zip(counted, history, strict=True):
        for name, value in with_truth.items():
            unknown = name in ("success", "cosine")
            assert math.isnan(without[name]) if unknown else without[name] == value
    assert history[1]["step"] == 2


@pytest.mark.parametrize("method", ["grpo", "ppo", "rewards dealt out at random"])
def test_a_method_improves_the_policy_by_its_rewards(method, trained, env, monkeypatch):
    """From .23; over ten seeds both rose by .18 to .24, and the control fell by .08 to .17."""
    policy, generator = copy.deepcopy(trained).float(), torch.Generator().manual_seed(0)
    if method not in METHODS:
        reward, deal = SumGame.reward, torch.Generator().manual_seed(0)

        def dealt_out(self, prompts, completions):
            rewards = reward(self, prompts, completions)
            return rewards[torch.randperm(len(rewards), generator=deal)]

        monkeypatch.setattr(SumGame, "reward", dealt_out)
    row = method if method in METHODS else "grpo"
    history = improve(policy, env, row, 40, generator, 16, 5e-3, evaluate_every=40)
    rise = history[-1]["success"] - history[0]["success"]
    assert rise > 0.1 if method in METHODS else rise < 0


# What stops a run.


@pytest.mark.parametrize("broken", ["loss", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stops_the_run_before_it_changes_the_policy(
    broken, value, trained, env, steps
):
    """In the second update of the third rollout."""
    policy = copy.deepcopy(trained).float()

    def breaking(logprobs, *arguments):
        if len(steps) == 5 and broken == "loss":
            return dapo_loss(logprobs, *arguments)[0] * value, {}
        if len(steps) == 5:
            logprobs.register_hook(lambda gradient: gradient * value)
        return dapo_loss(logprobs, *arguments)

    name = "loss" if broken == "loss" else "gradient norm"
    with pytest.raises(FloatingPointError, match=f"step 3: the {name} is"):
        improve(policy, env, "grpo", 9, torch.Generator().manual_seed(0), G, loss=breaking)
    assert len(steps) == 5 and norm(policy.parameters()) < math.inf
    assert all(torch.equal(a, b) for a, b in zip(steps[-1].after, policy.parameters()))


def test_what_cannot_learn_is_refused(trained, env, generator):
    frozen = copy.deepcopy(trained).requires_grad_(False)
    with pytest.raises(ValueError, match="no weight that requires a gradient"):
        improve(frozen, env, "grpo", 1, generator)
    with pytest.raises(ValueError, match="method must be one of reinforce, .* not 'GRPO'"):
        improve(trained, env, "GRPO", 1, generator)
    with pytest.raises(ValueError, match="group_size must be at least 2, not 1"):
        improve(trained, env, "grpo", 1, generator, group_size=1)
