import copy
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import flat_gradient, make_policy

from minicf.env import SumGame
from minicf.exact import completions
from minicf.pretrain import pretrain
from minicf.rollout import completion_logprobs, completion_mask, sample
from train import improve


def loop_logprobs(policy, prompt, completion):
    """One token at a time, the whole text fed anew for each."""
    text, result = prompt.tolist(), []
    for token in completion.tolist():
        logits = policy(torch.tensor([text]))[0][0, -1]
        result.append(logits.log_softmax(0)[token])
        text.append(token)
    return torch.stack(result)


def test_mask_ends_with_the_first_stop_against_a_loop(env):
    every = completions(env)
    expected = []
    for row in every.tolist():
        end = row.index(env.eos) if env.eos in row else len(row) - 1
        expected.append([t <= end for t in range(len(row))])
    assert torch.equal(completion_mask(every, env.eos), torch.tensor(expected))


def test_logprobs_against_a_token_by_token_loop(policy, env, generator):
    rollout = sample(policy, env, env.prompts[[3, 11]], 3, generator)
    for b in range(6):
        slow = loop_logprobs(policy, rollout.prompts[b], rollout.completions[b])
        live = rollout.mask[b]
        torch.testing.assert_close(
            rollout.logprobs[b][live], slow.detach()[live], rtol=1e-10, atol=1e-10
        )


def test_sharing_the_prompt_changes_neither_values_nor_gradients(policy, env, generator):
    rollout = sample(policy, env, env.prompts[[1, 5, 9]], 4, generator)
    some = rollout.completions[[0, 4, 8, 0] + [0, 4, 0, 0] + [4, 4, 0, 8]]  # twice, and elsewhere
    for answers in (rollout.completions, some):
        check_sharing(policy, env.prompts[[1, 5, 9]], answers, generator)


def check_sharing(policy, prompts, answers, generator):
    shared = completion_logprobs(policy, prompts, answers, 4)
    single = completion_logprobs(policy, prompts.repeat_interleave(4, 0), answers)
    torch.testing.assert_close(shared, single, rtol=1e-10, atol=1e-10)
    weight = torch.randn(shared.shape, generator=generator).double()
    a, b = (flat_gradient((weight * each).sum(), policy) for each in (shared, single))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype, rounding", [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_what_is_sampled_is_what_is_scored(env, generator, dtype, rounding):
    policy = make_policy(env, dtype=dtype)
    rollout = sample(policy, env, env.prompts, 4, generator)
    logprobs = completion_logprobs(policy, env.prompts, rollout.completions, 4)
    assert (logprobs - rollout.logprobs)[rollout.mask].abs().max() <= rounding


def test_probabilities_of_all_completions_sum_to_one(policy, env):
    every = completions(env)
    assert len(every) == 22621 == len(every.unique(dim=0))
    logprobs = completion_logprobs(policy, env.prompts[[8]], every, len(every))
    total = (logprobs * completion_mask(every, env.eos)).sum(1).exp().sum()
    assert abs(total.item() - 1) < 1e-12


def test_samples_follow_the_scored_distribution(env, generator):
    """First two tokens of 20,000 samples: 5 sigma for each of 157 cells, false alarm below 1e-4."""
    policy, n = make_policy(env, seed=4), 20_000
    rollout = sample(policy, env, env.prompts[[6]], n, generator)
    every = completions(env)
    logprobs = completion_logprobs(policy, env.prompts[[6]], every, len(every))
    p = (logprobs * completion_mask(every, env.eos)).sum(1).exp().detach()
    cells = torch.zeros(169).double().index_add(0, every[:, 0] * 13 + every[:, 1], p)
    codes = rollout.completions[:, 0] * 13 + rollout.completions[:, 1]
    counts = torch.bincount(codes, minlength=169)
    z = (counts - n * cells) / (n * cells * (1 - cells)).clamp(min=1).sqrt()
    assert z.abs().max() < 5


def test_samples_are_independent_of_each_other(env, generator):
    """The chance that two begin alike, of one prompt and of two, is Σ π_a π_b: z below 4."""
    policy, n = make_policy(env, seed=4), 10_000
    rollout = sample(policy, env, env.prompts[[6, 7]], n, generator)
    first = rollout.completions[:, 0].view(2, n)
    pi = policy(env.prompts[[6, 7]])[0][:, -1].softmax(-1).detach()
    pairs = {
        "next": (first[0, 0::2], first[0, 1::2], pi[0] @ pi[0]),
        "far": (first[0, : n // 2], first[0, n // 2 :], pi[0] @ pi[0]),
        "other prompt": (first[0], first[1], pi[0] @ pi[1]),
    }
    for a, b, chance in pairs.values():
        z = ((a == b).double().mean() - chance) / (chance * (1 - chance) / len(a)).sqrt()
        assert abs(z) < 4


def test_rows_are_prompt_major_and_filled_with_stops(policy, env, generator):
    rollout = sample(policy, env, env.prompts[[2, 7]], 5, generator)
    assert torch.equal(rollout.prompts, env.prompts[[2, 7]].repeat_interleave(5, 0))
    assert (rollout.completions[~rollout.mask] == env.eos).all() and not rollout.mask.all()
    assert torch.equal(rollout.rewards, env.reward(rollout.prompts, rollout.completions))
    assert (rollout.logprobs[~rollout.mask] == 0).all() and not rollout.logprobs.requires_grad


def test_sampling_repeats_with_its_generator_and_leaves_the_global_one_alone(policy, env):
    before = torch.random.get_rng_state()
    a, b = (sample(policy, env, env.prompts, 3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a.completions, b.completions)
    assert torch.equal(before, torch.random.get_rng_state())


def test_bad_input_is_refused(policy, env, generator):
    answers = torch.zeros(4, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="2 prompts with group_size 3 need 6 completions, not 4"):
        completion_logprobs(policy, env.prompts[:2], answers, 3)
    with pytest.raises(ValueError, match=r"prompts must be \(Q, 3\) .* not \(19, 2\)"):
        sample(policy, env, env.prompts[:, :2], 2, generator)
    with pytest.raises(ValueError, match="group_size must be at least 1, not 0"):
        sample(policy, env, env.prompts, 0, generator)
    with pytest.raises(ValueError, match="do not fit a context of 6"):
        sample(policy, SumGame(3), env.prompts, 2, generator)


class Forgetful(torch.nn.Module):
    """A policy that gives its cache away, or not, and has dropout, or not."""

    def __init__(self, policy, dropout=0.0, forgets=False):
        super().__init__()
        self.policy, self.blocks, self.head = policy, policy.blocks, policy.head
        self.dropout, self.forgets = torch.nn.Dropout(dropout), forgets

    def forward(self, tokens, cache=None):
        logits, cache = self.policy(tokens, None if self.forgets else cache)
        cache = [(k[:, :, -1:], v[:, :, -1:]) for k, v in cache] if self.forgets else cache
        return self.dropout(logits), cache


def test_a_policy_whose_cache_or_dropout_would_spoil_a_run_is_refused(trained, env, generator):
    prompts, answers = env.prompts[:2], torch.zeros(4, 4, dtype=torch.long)
    forgetful, noisy = (Forgetful(copy.deepcopy(trained), *some) for some in ((0, True), (0.9,)))
    for call in (lambda: sample(forgetful, env, prompts, 2, generator),
                 lambda: completion_logprobs(forgetful, prompts, answers, 2)):  # fmt: skip
        with pytest.raises(ValueError, match="after prompts of 3 tokens .* cache holds 1"):
            call()
    with pytest.raises(ValueError, match=r"sampling and scoring differ .* policy.eval\(\)"):
        improve(noisy, env, "grpo", 1, generator, 4)
    assert len(improve(noisy.eval(), env, "grpo", 1, generator, 4)) == 2


def world_with(env, **others):
    names = ("vocab", "prompts", "prompt_length", "completion_length", "eos", "reward")
    return SimpleNamespace(**{name: getattr(env, name) for name in names} | others)


@pytest.mark.parametrize("reward, says", [
    (lambda q, y: None, "returned None"),
    (lambda q, y: torch.ones(len(y), 1), r"must be \(8,\), not \(8, 1\)"),
    (lambda q, y: torch.full((len(y),), math.nan), "must be finite"),
])  # fmt: skip
def test_rewards_that_are_none_are_refused(reward, says, policy, env, generator):
    with pytest.raises(ValueError, match=says):
        sample(policy, world_with(env, reward=reward), env.prompts[:4], 2, generator)


def test_rewards_may_be_whole_numbers_and_a_list_and_cannot_change_the_answers(
    policy, env, generator
):
    def reward(prompts, completions):
        completions.zero_()
        return [index % 2 for index in range(len(prompts))]

    drawn = sample(policy, env, env.prompts, 2, torch.Generator().manual_seed(0))
    rollout = sample(policy, world_with(env, reward=reward), env.prompts, 2, generator)
    assert torch.equal(rollout.completions, drawn.completions)
    assert rollout.rewards.dtype == torch.float32
    assert torch.equal(rollout.rewards, torch.tensor([0.0, 1.0] * 19))


@pytest.mark.parametrize("name", ["prompts", "completion_length", "eos", "reward"])
def test_what_a_world_lacks_is_named(name, policy, env, generator):
    world = world_with(env)
    delattr(world, name)
    with pytest.raises(ValueError, match=f"the world SimpleNamespace has no {name}"):
        sample(policy, world, env.prompts, 2, generator)
    with pytest.raises(ValueError, match="has no corpus"):
        pretrain(policy, world_with(env), 1, generator)


class Biased(torch.nn.Module):
    """A policy with a constant added to the logit of the stop."""

    def __init__(self, policy, eos, bias):
        super().__init__()
        self.policy, self.eos, self.bias = policy, eos, bias

    def forward(self, tokens, cache=None):
        logits, cache = self.policy(tokens, cache)
        stop = torch.arange(logits.size(-1)) == self.eos
        return logits + self.bias * stop, cache


@pytest.mark.parametrize("bias, lengths", [(100.0, {1}), (-100.0, {4}), (0.0, None)])
def test_whoever_stops_sampling_and_scoring_agree_with_the_slow_path(
    trained, env, generator, bias, lengths
):
    """All completions stop at once, none does, or some do; many of them are the same."""
    policy = Biased(trained, env.eos, bias)
    prompts = env.prompts[[5, 9]]
    rollout = sample(policy, env, prompts, 40, generator)
    found = set(rollout.mask.sum(1).tolist())
    assert found == lengths if lengths else len(found) > 1
    assert len(rollout.completions.unique(dim=0)) < 80  # so that some texts are shared
    scored = completion_logprobs(policy, prompts, rollout.completions, 40)
    for b in range(0, 80, 3):
        slow = loop_logprobs(policy, rollout.prompts[b], rollout.completions[b])
        live = rollout.mask[b]
        for fast in (rollout.logprobs[b], scored[b]):
            torch.testing.assert_close(fast[live], slow[live], rtol=1e-10, atol=1e-10)


def test_texts_that_came_twice_add_up_their_gradients(trained, env, generator):
    """Against a plain pass for each row; one text is there 30 times."""
    prompts, G = env.prompts[[5, 9]], 30
    answers = sample(trained, env, prompts, G, generator).completions
    answers[:G] = answers[0]
    weight = torch.randn(answers.shape, generator=generator).double()
    shared = completion_logprobs(trained, prompts, answers, G)
    single = completion_logprobs(trained, prompts.repeat_interleave(G, 0), answers)
    torch.testing.assert_close(shared, single, rtol=1e-10, atol=1e-10)
    a, b = (flat_gradient((weight * each).sum(), trained) for each in (shared, single))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_work_is_done_once_for_what_is_shared(trained, env, generator):
    """The rows that the network is given: prompts, then only states and texts that differ."""
    rows = []
    hook = trained.register_forward_pre_hook(lambda module, args: rows.append(tuple(args[0].shape)))
    rollout = sample(trained, env, env.prompts[[5, 9]], 50, generator)
    sampled = list(rows)
    rows.clear()
    completion_logprobs(trained, env.prompts[[5, 9]], rollout.completions, 50)
    hook.remove()
    assert sampled[0] == rows[0] == (2, 3)
    for t, (count, length) in enumerate(sampled[1:], 1):
        begun = torch.cat([rollout.prompts, rollout.completions[:, :t]], 1).unique(dim=0)
        assert (count, length) == (len(begun), 1)
    fed = torch.cat([rollout.prompts, rollout.completions[:, :-1]], 1).unique(dim=0)
    assert rows[1:] == [(len(fed), 3)] and len(fed) < 100
