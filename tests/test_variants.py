"""Each relative of GRPO beside a loop over tokens, and beside PPO's clip where they must agree."""

import math

import pytest
import torch
from conftest import expected_advantages

from minicf.grpo import group_advantages
from minicf.ppo import clipped_surrogate
from minicf.variants import cispo_loss, dapo_loss, gspo_loss, maxrl_advantages

INF = math.inf
LOSSES = {"dapo": dapo_loss, "gspo": gspo_loss, "cispo": cispo_loss}
CLIPS = {  # the function's own first
    "dapo": [(0.2, 0.28), (0.1, 0.4)], "gspo": [(0.2, 0.2), (0.05, 0.1)],
    "cispo": [(INF, 0.2), (0.3, 0.1)],
}  # fmt: skip
each_loss = pytest.mark.parametrize("name", LOSSES)


def random_batch(seed=0, B=12, T=5, spread=0.4):
    """Log-probabilities, old ones, advantages (B,) and a mask of prefixes, with ratios off 1."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(B, T, generator=generator).double() * 2 - 0.1
    logprobs = old + spread * torch.randn(B, T, generator=generator).double()
    advantages = torch.randn(B, generator=generator).double()
    lengths = torch.randint(1, T + 1, (B,), generator=generator)
    lengths[0] = T
    return logprobs.requires_grad_(), old, advantages, torch.arange(T) < lengths[:, None]


def loop(name, logprobs, old, advantages, mask, clip):
    """Token by token: the loss with gradients, and the stats."""
    low, high = 1 - clip[0], 1 + clip[1]
    B, tokens, total = len(mask), int(mask.sum()), 0.0
    stats = {"ratio": 0.0, "clip_fraction": 0.0, "approx_kl": 0.0}
    for b in range(B):
        n, A = int(mask[b].sum()), advantages[b].item()
        logratios = [logprobs[b, t] - old[b, t].item() for t in range(n)]
        if name == "gspo":  # one factor for the completion
            logratios, share = [sum(logratios) / n], 1 / B
        else:
            share = 1 / tokens
        for t, logratio in enumerate(logratios):
            rho = logratio.exp()
            capped = min(max(rho.item(), low), high)
            if name == "cispo":
                total, cut = total - share * capped * A * logprobs[b, t], capped != rho.item()
            else:
                cut = A > 0 and rho.item() > high or A < 0 and rho.item() < low
                total = total - share * (capped * A if cut else rho * A)
            approx_kl = rho.item() - 1 - logratio.item()
            for key, value in zip(stats, (rho.item(), float(cut), approx_kl)):
                stats[key] += share * value
    return total, stats


@each_loss
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_gradient_and_stats_against_a_loop(name, seed):
    batch = random_batch(seed)
    for clip in (None, *CLIPS[name]):
        loss, stats = LOSSES[name](*batch, *(() if clip is None else (clip,)))
        expected, means = loop(name, *batch, clip or CLIPS[name][0])
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        gradients = [torch.autograd.grad(each, batch[0])[0] for each in (loss, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
        assert {key: value.item() for key, value in stats.items()} == pytest.approx(means)
        assert 0 < means["clip_fraction"] < 1  # the batch tells the cases apart


@each_loss
def test_at_ratio_one_each_has_the_gradient_of_ppos_loss(name):
    """As in the first update of a rollout; what differs then is how tokens are weighed."""
    logprobs, _, advantages, mask = random_batch(2)
    aggregate = "sequence" if name == "gspo" else "token"
    loss, stats = LOSSES[name](logprobs, logprobs.detach(), advantages, mask)
    ppo, _ = clipped_surrogate(logprobs, logprobs.detach(), advantages, mask, aggregate=aggregate)
    gradients = [torch.autograd.grad(each, logprobs)[0] for each in (loss, ppo)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
    assert [stats[key].item() for key in ("ratio", "clip_fraction", "approx_kl")] == [1, 0, 0]


def test_off_policy_each_differs_from_ppos_loss_and_from_each_other():
    """Negative control of the tests around it."""
    batch = random_batch(3)
    losses = [loss(*batch)[0].item() for loss in LOSSES.values()]
    for aggregate in ("token", "sequence"):
        losses.append(clipped_surrogate(*batch, aggregate=aggregate)[0].item())
    assert min(abs(a - b) for i, a in enumerate(losses) for b in losses[:i]) > 1e-3


def test_for_completions_of_one_token_gspo_is_ppo():
    logprobs, old, advantages, _ = random_batch(4)
    mask = (torch.arange(5) == 0).expand(12, 5)
    for clip in CLIPS["gspo"]:
        ours, stats = gspo_loss(logprobs, old, advantages, mask, clip)
        ppo, means = clipped_surrogate(logprobs, old, advantages, mask, clip)
        assert ours.item() == pytest.approx(ppo.item(), rel=1e-12)
        gradients = [torch.autograd.grad(each, logprobs)[0] for each in (ours, ppo)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
        for key, value in means.items():
            assert stats[key].item() == pytest.approx(value.item())


def test_dapo_with_one_clip_for_both_sides_is_ppo():
    batch = random_batch(5)
    same, wide, ppo = (dapo_loss(*batch, (0.2, 0.2)), dapo_loss(*batch), clipped_surrogate(*batch))
    assert torch.equal(same[0], ppo[0]) and not torch.equal(wide[0], ppo[0])


def test_cispo_without_a_cap_is_the_importance_weighted_policy_gradient():
    """Its gradient is then PPO's without a clip, whose ratio is differentiated."""
    batch = random_batch(6)
    pair = cispo_loss(*batch, (INF, INF))[0], clipped_surrogate(*batch, (INF, INF))[0]
    gradients = [torch.autograd.grad(each, batch[0])[0] for each in pair]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
    assert abs(pair[0] - pair[1]) > 1e-2  # the values are others


def test_cispo_keeps_the_gradient_that_the_clip_cuts_off():
    """Ratio 2, to go up further: weight 1.2 of the cap, not 0, and not 2 or the ratio's slope."""
    one, got = torch.ones(1, 1), {}
    for name in ("dapo", "cispo"):
        logprobs = torch.full((1, 1), -0.3, requires_grad=True)
        old = logprobs.detach() - math.log(2)
        loss, stats = LOSSES[name](logprobs, old, one[0], one.bool())
        loss.backward()
        got[name] = (loss.item(), logprobs.grad.item())
        assert stats["clip_fraction"] == 1
    assert got["dapo"] == pytest.approx((-1.28, 0.0))
    assert got["cispo"] == pytest.approx((0.36, -1.2))


def test_gspos_ratio_is_of_the_mean_and_clips_whole_completions():
    """One token far up, one as far down, one between: ratio 1, and no token is cut off."""
    logratio = torch.tensor([[1.0, -1.0, 0.0], [0.6, 0.0, 9.9]], requires_grad=True)
    old, mask = torch.full((2, 3), -2.0), torch.tensor([[True] * 3, [True, True, False]])
    loss, stats = gspo_loss(old + logratio, old, torch.ones(2), mask)
    assert loss.item() == pytest.approx(-(1 + 1.2) / 2)
    assert stats["ratio"].item() == pytest.approx((1 + math.exp(0.3)) / 2)
    assert stats["clip_fraction"].item() == 0.5  # the second, whole
    (gradient,) = torch.autograd.grad(loss, logratio)
    torch.testing.assert_close(gradient, torch.tensor([[-1 / 6] * 3, [0.0] * 3]))


@each_loss
@pytest.mark.parametrize("garbage", [7.0, math.nan, INF, -INF])
def test_nothing_after_the_stop_changes_loss_or_gradient(name, garbage):
    logprobs, old, advantages, mask = random_batch(1)
    loss, stats = LOSSES[name](logprobs, old, advantages, mask)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    dirty = [x.detach().masked_fill(~mask, garbage) for x in (logprobs, old)]
    dirty[0].requires_grad_()
    loss2, stats2 = LOSSES[name](*dirty, advantages, mask)
    (gradient2,) = torch.autograd.grad(loss2, dirty[0])
    assert torch.equal(loss, loss2) and torch.equal(gradient, gradient2)
    assert (gradient[~mask] == 0).all() and gradient.abs().sum() > 0
    assert all(torch.equal(stats[key], stats2[key]) for key in stats)


@each_loss
def test_a_ratio_that_overflows_has_no_nan(name):
    """Where the advantage is 0, or the clip is reached, it does not count; e^−1000 is 0."""
    logprobs = torch.tensor([[1000.0], [1000.0], [-1000.0]], requires_grad=True)
    loss, _ = LOSSES[name](
        logprobs, torch.zeros(3, 1), torch.tensor([0.0, 1.0, 1.0]), torch.ones(3, 1).bool()
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert loss.isfinite() and gradient.isfinite().all()
    assert gradient[1].item() == pytest.approx(-1.2 / 3 if name == "cispo" else 0)
    free, _ = LOSSES[name](
        logprobs[:1], torch.zeros(1, 1), torch.zeros(1), torch.ones(1, 1).bool(), (INF, INF)
    )
    assert free == 0


@each_loss
def test_gradient_flows_through_logprobs_alone(name):
    logprobs, old, advantages, mask = random_batch()
    old.requires_grad_(), advantages.requires_grad_()
    loss, stats = LOSSES[name](logprobs, old, advantages, mask)
    loss.backward()
    assert logprobs.grad.abs().sum() > 0 and old.grad is None and advantages.grad is None
    assert not any(value.requires_grad for value in stats.values())


# MaxRL's advantages.


@pytest.mark.parametrize("group_size", [2, 3, 8])
def test_maxrl_against_a_loop(group_size, generator):
    rewards = torch.rand(4 * group_size, generator=generator).double()
    expected = []
    for group in rewards.view(4, group_size).tolist():
        mean = sum(group) / group_size
        expected += [(reward - mean) / mean for reward in group]
    assert maxrl_advantages(rewards, group_size).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 0.3, 1 / 3, 1e-9, 1e9])
def test_maxrl_of_identical_rewards_is_exactly_zero_in_float32(value):
    assert torch.equal(maxrl_advantages(torch.full((14,), value), 7), torch.zeros(14))


@pytest.mark.parametrize("V", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("G", [2, 3, 8])
def test_maxrl_is_the_gradient_of_log_success_cut_off(V, G):
    """∇log V = Σ_k (1 − V)^k·∇V: the mean update has G − 1 terms of it; Dr. GRPO's is 1 − 1/G."""

    def mean_slope(advantages):
        wrong, right = expected_advantages(V, G, advantages)
        return right - wrong

    series = sum((1 - V) ** k for k in range(G - 1))
    assert mean_slope(maxrl_advantages) == pytest.approx(series, rel=1e-12)
    centred = mean_slope(lambda rewards, G: group_advantages(rewards, G, "mean", "none"))
    assert centred == pytest.approx(1 - 1 / G, rel=1e-12)
