import copy
import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from minicf.costate import empirical_costates
from minicf.exact import success
from minicf.readiness import (
    headroom, measure, pass_at_k, rank_correlation, readiness, sampled_readiness, sampled_signal,
    signal, squared_signal,
)  # fmt: skip
from minicf.rollout import sample
from minicf.tap import tap


def test_signal_against_finite_differences_at_all_prompt_positions(trained, env):
    prompts = env.prompts[[4, 11]]
    total = 0.0
    for prompt in prompts:
        square, step = 0.0, 1e-5
        for position, channel in itertools.product(range(3), range(16)):
            values = []
            for sign in (1, -1):
                delta = torch.zeros(3, 16, dtype=torch.float64)
                delta[position, channel] = sign * step
                with tap(trained.blocks[0], delta):  # the prompt is the first call
                    values.append(success(trained, env, prompt[None]).item())
            square += ((values[0] - values[1]) / (2 * step)) ** 2
        total += math.sqrt(square)
    assert signal(trained, env, prompts).item() == pytest.approx(total / 2, rel=1e-6)


def test_doubling_the_stream_halves_the_signal_and_changes_no_success(trained, env):
    """The signal has units. The final norm reads a doubled stream as the same one."""
    single, doubled = copy.deepcopy(trained), copy.deepcopy(trained)
    for policy in (single, doubled):
        for module in policy.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 0.0  # it would not be doubled
    with torch.no_grad():
        doubled.token_embedding.weight *= 2
        doubled.position_embedding.weight *= 2
        for block in doubled.blocks:
            block.attention.out.weight *= 2
            block.down.weight *= 2
    torch.testing.assert_close(success(doubled, env), success(single, env), rtol=1e-9, atol=1e-12)
    assert (signal(doubled, env) / signal(single, env)).item() == pytest.approx(0.5, rel=1e-9)


def test_headroom_and_readiness(trained, env):
    p = torch.tensor([0.0, 0.1, 0.5, 1.0])
    expected = sum(1 - (1 - x) ** 16 - x for x in p.tolist()) / 4
    assert headroom(p).item() == pytest.approx(expected)
    assert headroom(p, 1).item() == pytest.approx(0, abs=1e-7)
    product = signal(trained, env) * headroom(success(trained, env).detach())
    torch.testing.assert_close(readiness(trained, env), product)


def test_a_checkpoint_is_measured_by_what_the_names_say(trained, env):
    entry, p = measure(trained, env), success(trained, env).detach()
    assert entry["success"] == pytest.approx(p.mean().item())
    assert entry["pass_at_k"] == pytest.approx((1 - (1 - p) ** 16).mean().item())
    assert entry["headroom"] == pytest.approx(entry["pass_at_k"] - entry["success"])
    assert entry["readiness"] == pytest.approx(readiness(trained, env).item())
    assert entry["reward_std"] == pytest.approx((p * (1 - p)).sqrt().mean().item())


@pytest.mark.parametrize("n, c, k", [(5, 2, 3), (6, 0, 2), (6, 6, 2), (7, 5, 4), (4, 1, 4)])
def test_pass_at_k_against_all_subsets(n, c, k):
    outcomes = [1] * c + [0] * (n - c)
    subsets = list(itertools.combinations(outcomes, k))
    expected = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(torch.tensor([c]), n, k).item() == pytest.approx(expected)


def test_pass_at_k_is_unbiased_and_plugging_in_is_not():
    n, k, p = 8, 4, 0.2
    c = torch.arange(n + 1)
    chance = torch.tensor(
        [math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)]
    ).double()
    truth = 1 - (1 - p) ** k
    assert (chance @ pass_at_k(c, n, k)).item() == pytest.approx(truth, abs=1e-7)
    plugged = 1 - (1 - c / n) ** k
    assert abs((chance @ plugged.double()).item() - truth) > 0.03


def test_the_noise_bias_is_removed(trained, env, generator):
    """200 groups of 16: the corrected norm² is right on average, the plain one far too large."""
    prompt = env.prompts[[4]]
    exact = signal(trained, env, prompt).item() ** 2
    rollout = sample(trained, env, prompt, 200 * 64, generator)
    costates = empirical_costates(trained, rollout, rollout.rewards - 0.5, trained.blocks[0])
    costates = costates[:, :3].flatten(1)
    groups = costates.view(200, 64, -1)
    plain = groups.mean(1).square().sum(-1)
    corrected = plain - groups.var(1).sum(-1) / 64
    z = (corrected.mean() - exact) / (corrected.std() / 200**0.5)
    assert abs(z) < 3 and plain.mean() > 1.5 * exact
    rows = sample(trained, env, prompt.expand(3, -1), 8, generator)
    one = empirical_costates(trained, rows, rows.rewards - 0.5, trained.blocks[0])
    one = one[:, :3].flatten(1).view(3, 8, -1)
    expected = (one.mean(1).square().sum(-1) - one.var(1).sum(-1) / 8).clamp(min=0).sqrt().mean()
    torch.testing.assert_close(sampled_signal(trained, rows), expected)


def test_readiness_from_samples_against_the_exact_one(trained, env, generator):
    """8,000 completions of each of two prompts: every part within a tenth."""
    prompts = env.prompts[[4, 11]]
    rollout = sample(trained, env, prompts, 8000, generator)
    found = sampled_readiness(trained, env, rollout)
    p = success(trained, env, prompts)
    assert found["headroom"] == pytest.approx(headroom(p).item(), rel=0.1)
    assert found["signal"] == pytest.approx(signal(trained, env, prompts).item(), rel=0.1)
    assert found["reward_std"] == pytest.approx((p * (1 - p)).sqrt().mean().item(), rel=0.1)
    assert found["readiness"] == found["signal"] * found["headroom"]


def test_readiness_from_samples_in_small_numbers(trained, env, generator):
    """k is at most G, where pass@k is whether one of the group is right; the verifier decides."""
    rollout = sample(trained, env, env.prompts, 4, generator)
    found = sampled_readiness(trained, env, rollout)
    groups = rollout.rewards.view(-1, 4)
    expected = groups.amax(1).mean() - groups.mean()
    assert found["headroom"] == pytest.approx(expected.item())
    assert found["signal"] == sampled_signal(trained, rollout).item()
    shaped = replace(rollout, rewards=rollout.rewards - 0.3)
    assert sampled_readiness(trained, env, shaped) == found
    at_two = sampled_readiness(trained, env, rollout, k=2)["headroom"]
    assert 0 < at_two < found["headroom"]


def ranks_by_a_loop(values):
    """Its place among the sorted ones, from 1; the mean of the places of equal ones."""
    places = [[i for i, other in enumerate(sorted(values), 1) if other == x] for x in values]
    return [sum(some) / len(some) for some in places]


@pytest.mark.parametrize("x, y", [
    ([1, 2, 3], [10, 20, 90]), ([1, 2, 3, 4], [9, 8, 3, -1]), ([3, 1, 2, 2], [0.1, 0.1, 0.3, 0.2]),
    ([0.5, 0.25, 0.125, 4, 4], [1, 0, 0, 2, 0]),
])  # fmt: skip
def test_rank_correlation_is_that_of_ranks(x, y):
    a, b = (torch.tensor(ranks_by_a_loop(values), dtype=torch.float64) for values in (x, y))
    expected = torch.corrcoef(torch.stack([a, b]))[0, 1].item()
    assert rank_correlation(x, y) == pytest.approx(expected, abs=1e-6)
    assert rank_correlation(y, [math.exp(value) for value in x]) == rank_correlation(x, y)
    assert rank_correlation(x, [7] * len(x)) == 0


def test_bad_input_is_refused(trained, env, generator):
    one = sample(trained, env, env.prompts, 1, generator)
    with pytest.raises(ValueError, match="at least 2 completions a prompt, not 1"):
        sampled_readiness(trained, env, one)
    half = SimpleNamespace(reward=lambda prompts, completions: torch.full((len(prompts),), 0.5))
    with pytest.raises(ValueError, match="rewards of 0 and 1"):
        sampled_readiness(trained, half, sample(trained, env, env.prompts, 2, generator))
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        headroom(torch.tensor([0.5]), 0)
    with pytest.raises(ValueError, match="p must hold probabilities"):
        headroom(torch.tensor([1.5]))
    with pytest.raises(ValueError, match="k must be 1 to 4, .* not 5"):
        pass_at_k(torch.tensor([1]), 4, 5)
    with pytest.raises(ValueError, match="counts from 0 to 4"):
        pass_at_k(torch.tensor([5]), 4, 2)
    with pytest.raises(ValueError, match="at least 2 completions a prompt, not 1"):
        sampled_signal(trained, sample(trained, env, env.prompts[:2], 1, generator))


@pytest.mark.parametrize("G", [3, 4])
@pytest.mark.parametrize("wiped", [True, False])
def test_the_squared_signal_is_unbiased_over_every_group(G, wiped):
    """Three answers, all 3^G groups; with and without the scores of groups of equal rewards."""
    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    r = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    s = torch.eye(3, dtype=torch.float64) - p
    mean, with_group_mean = 0.0, 0.0
    for rows in itertools.product(range(3), repeat=G):
        rows = list(rows)
        rewards, scores = r[rows], s[rows]
        if wiped and rewards.amax() == rewards.amin():
            scores = torch.zeros_like(scores)
        mean += p[rows].prod() * squared_signal(scores, rewards)
        costates = (rewards - rewards.mean())[:, None] * scores
        pairs = costates.sum(0).square().sum() - costates.square().sum()
        with_group_mean += p[rows].prod() * pairs / (G * (G - 1))
    truth = ((p * r) @ s).square().sum()
    assert mean.item() == pytest.approx(truth.item(), rel=1e-12)
    assert abs(with_group_mean - truth) > 0.2 * truth  # negative control: the group's mean is not


def test_the_squared_signal_of_equal_rewards_is_zero_whatever_the_scores(generator):
    scores = torch.randn(5, 4, generator=generator)
    assert squared_signal(scores, torch.ones(5)) == 0
    with pytest.raises(ValueError, match="G ≥ 3"):
        squared_signal(scores[:2], torch.ones(2))
