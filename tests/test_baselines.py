"""The noise of baselines and the price of no critic, against every group that there is."""

import itertools

import pytest
import torch
from conftest import make_policy

from minicf.baselines import best_baseline, leave_one_out_noise, noise, price_of_no_critic
from minicf.costate import empirical_costates
from minicf.env import SumGame
from minicf.exact import outcomes, value_gradient
from minicf.grpo import group_advantages

GRADED = torch.tensor([0.0, 0.3, 1.0, 0.7, -0.2], dtype=torch.float64)
RIGHT_OR_WRONG = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)


def case(rewards, seed=0):
    """Five completions with scores of mean 0: p (5,), r (5,), s (5, 3)."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(5, generator=generator, dtype=torch.float64)
    p = p / p.sum()
    s = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    return p, rewards, s - p @ s


def every_group(p, r, s, G, advantages_of):
    """G × the variance of a group's mean gradient, and its mean, over all M^G ordered groups."""
    mean, square = torch.zeros(s.size(1), dtype=p.dtype), 0.0
    for rows in itertools.product(range(len(p)), repeat=G):
        rows = list(rows)
        gradient = (advantages_of(r[rows])[:, None] * s[rows]).mean(0)
        chance = p[rows].prod()
        mean += chance * gradient
        square += chance * gradient.square().sum()
    return G * (square - mean.square().sum()), mean


@pytest.mark.parametrize("rewards", [RIGHT_OR_WRONG, GRADED], ids=["0 and 1", "graded"])
@pytest.mark.parametrize("G", [2, 3, 4])
def test_leave_one_out_is_the_variance_over_every_group(rewards, G):
    p, r, s = case(rewards)
    found, mean = every_group(
        p, r, s, G, lambda group: group_advantages(group, G, "leave-one-out", "none")
    )
    assert torch.allclose(mean, (p * r) @ s, atol=1e-12)
    assert leave_one_out_noise(p, r, s, G).item() == pytest.approx(found.item(), abs=1e-12)
    price = found - noise(p, r, s, p @ r)
    assert price_of_no_critic(p, r, s, G).item() == pytest.approx(price.item(), abs=1e-12)


def test_a_baseline_that_sees_its_own_sample_is_told_apart():
    """Negative control: the group's mean shortens the gradient, and its noise is another number."""
    p, r, s = case(RIGHT_OR_WRONG)
    found, mean = every_group(p, r, s, 3, lambda group: group - group.mean())
    assert torch.allclose(mean, (1 - 1 / 3) * (p * r) @ s, atol=1e-12)
    assert abs(found - leave_one_out_noise(p, r, s, 3)) > 0.1 * found


def test_leave_one_out_of_eight_by_sampling(generator):
    p, r, s = case(GRADED)
    N, G = 200_000, 8
    rows = torch.multinomial(p, N * G, replacement=True, generator=generator)
    advantages = group_advantages(r[rows], G, "leave-one-out", "none")
    means = (advantages[:, None] * s[rows]).view(N, G, -1).mean(1)
    squares = G * (means - (p * r) @ s).square().sum(1)
    off = (squares.mean() - leave_one_out_noise(p, r, s, G)) / (squares.std() / N**0.5)
    assert abs(off) < 4.5


@pytest.mark.parametrize("rewards", [RIGHT_OR_WRONG, GRADED], ids=["0 and 1", "graded"])
def test_the_price_falls_like_one_over_the_group_and_the_rest_is_v(rewards):
    p, r, s = case(rewards)
    prices = [price_of_no_critic(p, r, s, G).item() for G in (2, 3, 9, 10**9)]
    assert prices[1] == pytest.approx(prices[0] / 2) and prices[2] == pytest.approx(prices[0] / 8)
    limit = leave_one_out_noise(p, r, s, 10**9).item()
    assert limit == pytest.approx(noise(p, r, s, p @ r).item(), rel=1e-7)


def test_noise_is_the_variance_and_b_star_its_least():
    p, r, s = case(GRADED)
    for b in (0.0, 0.4, 1.0):
        by_hand = sum(p[i] * ((r[i] - b) * s[i] - (p * r) @ s).square().sum() for i in range(5))
        assert noise(p, r, s, b).item() == pytest.approx(by_hand.item(), abs=1e-12)
    b = best_baseline(p, r, s).requires_grad_()
    (slope,) = torch.autograd.grad(noise(p, r, s, b), b)
    assert abs(slope) < 1e-12
    cost = noise(p, r, s, p @ r) - noise(p, r, s, b)  # (V − b*)²·E‖s‖²
    expected = (p @ r - b).square() * (p @ s.square().sum(1))
    assert cost.item() == pytest.approx(expected.item(), abs=1e-12)


def test_the_scores_of_a_gpt_are_those_that_the_formulas_want():
    """Their mean is 0 and E[r·s] is ∇V, at the prompt's last token."""
    env = SumGame(1)
    policy = make_policy(env)
    every, p = outcomes(policy, env, env.prompts[4])
    at, place = policy.blocks[0], env.prompt_length - 1
    s = empirical_costates(policy, every, torch.ones_like(p), at)[:, place]
    gradient = value_gradient(policy, env, env.prompts[4], env.prompts[4][:0], at)
    assert torch.allclose(p @ s, torch.zeros_like(gradient), atol=1e-12)
    assert torch.allclose((p * every.rewards) @ s, gradient, atol=1e-12)
    b = best_baseline(p, every.rewards.double(), s)
    assert noise(p, every.rewards.double(), s, b) <= noise(p, every.rewards.double(), s, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, r, s: price_of_no_critic(p, r, s, 1), "group_size must be at least 2"),
        (lambda p, r, s: noise(2 * p, r, s, 0.0), "sum to 1"),
        (lambda p, r, s: noise(p, r[1:], s, 0.0), "must be"),
        (lambda p, r, s: best_baseline(p, r, s[:, 0]), "must be"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        change(*case(GRADED))
