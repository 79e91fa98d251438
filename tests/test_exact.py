import copy
import math

import pytest
import torch
from conftest import added, cosine, flat_gradient, make_policy

from minicf.env import SumGame
from minicf.exact import (
    completions, distinct_solutions, entropy, kl, outcomes, prefix_values, success, value_gradient,
    value_gradients,
)  # fmt: skip
from minicf.grpo import group_advantages
from minicf.ppo import clipped_surrogate
from minicf.rollout import completion_logprobs, completion_mask, sample
from minicf.tap import tap


def enumerate_prompt(policy, env, prompt):
    """Every completion with its per-token log-probabilities, mask and reward."""
    every = completions(env)
    logprobs = completion_logprobs(policy, prompt[None], every, len(every))
    rewards = env.reward(prompt.expand(len(every), -1), every).double()
    return logprobs, completion_mask(every, env.eos), rewards


def test_completions_are_all_and_each_once(env):
    """Against plain recursion: after a stop nothing more is chosen."""

    def grow(prefix):
        if len(prefix) == 4 or env.eos in prefix:
            return [prefix + [env.eos] * (4 - len(prefix))]
        return [row for token in range(13) for row in grow(prefix + [token])]

    assert sorted(grow([])) == sorted(completions(env).tolist())
    truncated = (completions(env) != env.eos).all(1).sum()
    assert truncated == 12**4


def test_success_against_the_sum_over_every_completion(policy, env):
    for target in (0, 9, 14):
        logprobs, mask, rewards = enumerate_prompt(policy, env, env.prompts[target])
        expected = ((logprobs * mask).sum(1).exp() * rewards).sum()
        torch.testing.assert_close(success(policy, env)[target], expected, rtol=1e-10, atol=1e-14)


def test_success_against_sampling(policy, env, generator):
    """A policy of middling success, 20,000 samples a prompt; z below 4 for each of 3 prompts."""
    policy = make_policy(env, seed=3, spread=0.1)
    n, prompts = 20_000, env.prompts[[5, 9, 12]]
    rewards = sample(policy, env, prompts, n, generator).rewards.view(3, n).double()
    p = success(policy, env, prompts).detach()
    z = (rewards.mean(1) - p) / (p * (1 - p) / n).sqrt()
    assert z.abs().max() < 4


def test_distinct_solutions_against_sampling(trained, env, generator):
    """Mean of 400 batches of 64 samples of one prompt; z below 4."""
    rollout = sample(trained, env, env.prompts[[9]], 400 * 64, generator)
    code = (rollout.completions * 13 ** torch.arange(4)).sum(1).view(400, 64)
    right = rollout.rewards.view(400, 64) == 1
    counts = torch.tensor([float(len(row[ok].unique())) for row, ok in zip(code, right)])
    expected = distinct_solutions(trained, env)[9]
    assert abs((counts.mean() - expected) / (counts.std() / 20)) < 4
    torch.testing.assert_close(distinct_solutions(trained, env, 1), success(trained, env).detach())


def test_success_of_some_prompts_is_that_of_all(policy, env):
    some = success(policy, env, env.prompts[[4, 2, 4]])
    torch.testing.assert_close(success(policy, env)[[4, 2, 4]], some)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_value_gradients_against_finite_differences(trained, env, layer, generator):
    """All prompts at once, at all their positions; success moves with what is added there."""
    prompts, at = env.prompts[[6, 11]], trained.stream[layer]
    gradients = value_gradients(trained, env, at, prompts)
    assert gradients.shape == (2, 3, 16)
    direction, step = torch.randn(2, 3, 16, generator=generator).double(), 1e-6
    moved = []
    for sign in (1, -1):
        with tap(at, sign * step * direction):  # the prompts are the first call
            moved.append(success(trained, env, prompts).detach())
    slopes = (moved[0] - moved[1]) / (2 * step)  # prompt by prompt
    expected = (gradients * direction).sum((1, 2))
    torch.testing.assert_close(slopes, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_value_gradients_are_those_of_single_prompts_and_positions(trained, env, layer):
    at, none = trained.stream[layer], env.encode("")
    every = value_gradients(trained, env, at)
    assert every.shape == (19, 3, 16)
    some = value_gradients(trained, env, at, env.prompts[[11, 6]])
    torch.testing.assert_close(some, every[[11, 6]], rtol=1e-9, atol=1e-12)
    for position in range(3):
        alone = value_gradient(trained, env, env.prompts[11], none, at, position)
        torch.testing.assert_close(every[11, position], alone, rtol=1e-9, atol=1e-12)
    assert (every[:, :2] == 0).all() == (layer == 2)  # above the last block nothing is passed on


def test_an_activation_is_felt_by_its_own_prompt_only(policy, env):
    with tap(policy.blocks[1]) as inputs:
        values = success(policy, env, env.prompts[[6, 11]])
    (gradient,) = torch.autograd.grad(values[0], inputs[0])
    assert gradient[0].abs().sum() > 0 and (gradient[1] == 0).all()


def test_too_large_a_world_is_refused_with_the_count():
    with pytest.raises(ValueError, match="3,257,437 completions"):
        completions(SumGame(3))


STATES = [(7, "", None), (7, "3", None), (12, "9+", None), (7, "", 0), (9, "4+", 1), (9, "4", 3)]


def value_by_a_loop(policy, env, prompt, prefix):
    """V(s) by a plain loop over right answers, each fed alone and whole."""
    total, j = 0.0, len(prefix)
    for answer in env.solutions(prompt).tolist():
        if answer[:j] != prefix.tolist():
            continue
        text = torch.tensor([prompt.tolist() + answer])
        logprobs = policy(text[:, :-1])[0][0, len(prompt) - 1 :].log_softmax(-1)
        stop = answer.index(env.eos)
        total += math.exp(sum(logprobs[t, answer[t]].item() for t in range(j, stop + 1)))
    return total


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("target, text, position", STATES)
def test_value_gradient_against_finite_differences(trained, env, layer, target, text, position):
    prompt, prefix, at = env.prompts[target], env.encode(text), trained.stream[layer]
    gradient = value_gradient(trained, env, prompt, prefix, at, position)
    place = len(prompt) + len(prefix) - 1 if position is None else position
    step, generator = 1e-5, torch.Generator().manual_seed(0)
    for _ in range(2):
        direction = torch.randn(16, generator=generator).double()
        moved = []
        for sign in (1, -1):
            delta = torch.zeros(6, 16, dtype=torch.float64)
            delta[place] = sign * step * direction
            with added(at, delta):
                moved.append(value_by_a_loop(trained, env, prompt, prefix))
        slope = (moved[0] - moved[1]) / (2 * step)
        assert slope == pytest.approx((gradient @ direction).item(), rel=1e-5, abs=1e-9)
    assert gradient.norm() > 0 or (layer == 2 and position in (0, 1))


def test_outcomes_are_a_distribution_given_the_prefix(trained, env):
    for text in ("", "4", "4+"):
        prefix = env.encode(text)
        rollout, probabilities = outcomes(trained, env, env.prompts[9], prefix)
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)
        assert (rollout.completions[:, : len(text)] == prefix).all()
        # the mean reward is the value of the state, which prefix_values has from right answers
        # alone
        full = torch.full((1, 4), env.eos)
        full[0, : len(text)] = prefix
        values = prefix_values(trained, env, env.prompts[[9]], full)
        mean = probabilities @ rollout.rewards.double()
        torch.testing.assert_close(values[0, len(text)], mean, rtol=1e-10, atol=1e-12)


def test_prefix_values_are_a_martingale(trained, env):
    """V(s) is the mean of V(s, v) over the next token, with the reward itself after the stop."""
    prompts = env.prompts[[9]].expand(13, -1)
    for text in ("", "4", "4+"):
        j = len(text)
        rows = torch.full((13, 4), env.eos)
        rows[:, :j], rows[:, j] = env.encode(text), torch.arange(13)
        values = prefix_values(trained, env, prompts, rows)
        nxt = values[:, j + 1] if j < 3 else None
        nxt[env.eos] = env.reward(prompts[:1], rows[[env.eos]])[0]
        policy = trained(torch.cat([prompts[0], env.encode(text)])[None])[0][0, -1].softmax(0)
        torch.testing.assert_close(values[0, j], policy @ nxt, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_entropy_and_kl_against_the_chain_rule(trained, policy, env):
    """Over whole completions both are sums over tokens of what is expected at the state."""
    prompts = env.prompts[[14]]
    for i, prompt in enumerate(prompts):
        rollout, p = outcomes(trained, env, prompt)
        tokens = torch.cat([rollout.prompts, rollout.completions[:, :-1]], 1)
        a, b = (each(tokens)[0][:, 2:].log_softmax(-1) for each in (trained, policy))
        per_token = -(a.exp() * a).sum(-1), (a.exp() * (a - b)).sum(-1)
        chain = [(p @ (each * rollout.mask).sum(1)).item() for each in per_token]
        assert entropy(trained, env, prompts)[i].item() == pytest.approx(chain[0], rel=1e-10)
        assert kl(trained, policy, env, prompts)[i].item() == pytest.approx(chain[1], rel=1e-10)
    assert kl(trained, trained, env, prompts).abs().max() == 0


@pytest.mark.parametrize("sharper", [100, 1000])
def test_entropy_and_kl_where_probabilities_underflow(trained, env, sharper):
    hard = copy.deepcopy(trained)
    with torch.no_grad():
        hard.head.weight *= sharper
    prompt = env.prompts[[14]]
    assert 0 <= entropy(hard, env, prompt) < 1 and 0 < kl(hard, trained, env, prompt) < 10


def test_states_that_cannot_be_asked_for_are_refused(policy, env):
    prompt = env.prompts[5]
    for text in ("5.", "2+3."):
        with pytest.raises(ValueError, match="leaves no token to choose"):
            value_gradient(policy, env, prompt, env.encode(text), policy.norm)
    with pytest.raises(ValueError, match="position must be 0 to 3, .* not 4"):
        value_gradient(policy, env, prompt, env.encode("5"), policy.norm, position=4)


# Each estimator's expected gradient, summed over all completions, beside the exact gradient. A
# sample's group-mates enter through how many of them succeed, which is binomial.

G = 4


def expected_gradient(policy, env, prompts, baseline, scale, aggregate="constant"):
    """Exact mean over groups of G of minus the gradient of the package's own loss."""
    total = 0.0
    for prompt in prompts:
        logprobs, mask, rewards = enumerate_prompt(policy, env, prompt)
        probability = (logprobs * mask).sum(1).exp().detach()
        value = (probability * rewards).sum()
        advantages = torch.zeros_like(rewards)
        for others in range(G):
            for reward in (0, 1):
                mates = [1.0] * others + [0.0] * (G - 1 - others)
                group = torch.tensor([float(reward)] + mates, dtype=torch.float64)
                own = group_advantages(group, G, baseline, scale)[0]
                chance = math.comb(G - 1, others) * value**others * (1 - value) ** (G - 1 - others)
                advantages += (rewards == reward) * own * chance
        if aggregate == "constant":
            weights = probability * mask.numel()  # undoes the division by B·T
        elif aggregate == "sequence":
            weights = probability * len(mask)
        loss, _ = clipped_surrogate(
            logprobs, logprobs, advantages * weights, mask, aggregate=aggregate
        )
        total = total - loss
    return flat_gradient(total / len(prompts), policy)


@pytest.fixture(scope="module")
def case(trained, env):
    """Two prompts of different success, and the exact gradient of their mean success."""
    prompts = env.prompts[[0, 18]]
    return trained, prompts, flat_gradient(success(trained, env, prompts).mean(), trained)


@pytest.mark.parametrize(
    "baseline, factor", [("none", 1), ("leave-one-out", 1), ("mean", 1 - 1 / G)]
)
def test_expected_gradient_by_baseline(case, env, baseline, factor):
    policy, prompts, _ = case
    one = prompts[1:]  # the identity holds prompt by prompt
    exact = flat_gradient(success(policy, env, one).mean(), policy)
    got = expected_gradient(policy, env, one, baseline, "none")
    assert (got - factor * exact).norm() < 1e-10 * exact.norm()


def test_dividing_by_the_own_length_turns_the_gradient(case, env):
    policy, prompts, exact = case
    got = expected_gradient(policy, env, prompts, "leave-one-out", "none", "sequence")
    assert cosine(got, exact) < 0.97


def test_dividing_by_the_std_turns_the_mix_of_prompts_only(case, env):
    policy, prompts, exact = case
    each = [expected_gradient(policy, env, prompt[None], "mean", "std") for prompt in prompts]
    for prompt, alone in zip(prompts, each):
        truth = flat_gradient(success(policy, env, prompt[None]).mean(), policy)
        assert cosine(alone, truth) == pytest.approx(1, abs=1e-10)
    together = sum(each) / 2  # the loss is a mean over prompts
    assert cosine(together, exact) < 1 - 5e-5  # .99989; alone it was 1 to ten digits


def test_the_gradient_of_other_prompts_is_another(case, env):
    """Negative control: the oracle can tell a wrong gradient from the right one."""
    policy, prompts, exact = case
    wrong = expected_gradient(policy, env, env.prompts[[4, 9]], "leave-one-out", "none")
    assert cosine(wrong, exact) < 0.9


@pytest.mark.parametrize("ratio", ["whole answer", "token", "none"])
def test_the_ratio_of_whole_answers_makes_stale_data_exact_and_the_tokens_does_not(
    ratio, trained, env
):
    """Answers of an older policy, all of them; no clip. A whole answer is a sequence of one."""
    policy, prompt = copy.deepcopy(trained), env.prompts[9]
    older, generator = copy.deepcopy(trained), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in older.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    rollout, p = outcomes(older, env, prompt)
    logprobs = completion_logprobs(policy, prompt[None], rollout.completions, len(p))
    old, mask = rollout.logprobs, rollout.mask
    if ratio == "whole answer":
        logprobs, old = ((x * mask).sum(1, keepdim=True) for x in (logprobs, old))
        mask = mask[:, :1]
    elif ratio == "none":
        old = logprobs.detach()
    advantages = (rollout.rewards - 0.5) * p * mask.numel()  # the loss divides by B·T
    loss, _ = clipped_surrogate(
        logprobs, old, advantages, mask, (math.inf, math.inf), aggregate="constant"
    )
    exact = flat_gradient(success(policy, env, prompt[None])[0], policy)
    error = ((-flat_gradient(loss, policy) - exact).norm() / exact.norm()).item()
    assert error < 1e-8 if ratio == "whole answer" else error > 0.05


def test_prefix_values_against_a_loop(trained, env, generator):
    """Two prompts in turn, with answers right and wrong."""
    rollout = sample(trained, env, env.prompts[[14, 5]], 3, generator)
    values = prefix_values(trained, env, rollout.prompts, rollout.completions)
    for b, t in rollout.mask.nonzero().tolist():
        prefix = rollout.completions[b, :t]
        expected = value_by_a_loop(trained, env, rollout.prompts[b], prefix)
        assert values[b, t].item() == pytest.approx(expected, rel=1e-10, abs=1e-14)
