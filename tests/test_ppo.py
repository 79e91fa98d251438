import math

import pytest
import torch

from minicf.ppo import aggregate_tokens, clipped_surrogate, gae

INF = (math.inf, math.inf)
AGGREGATES = ("token", "sequence", "constant")
each_aggregate = pytest.mark.parametrize("aggregate", AGGREGATES)


def random_batch(seed=0, B=6, T=5):
    """Log-probabilities, old ones, advantages and a mask of prefixes, with ratios well off 1."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(B, T, generator=generator).double() * 2 - 0.1
    logprobs = old + 0.4 * torch.randn(B, T, generator=generator).double()
    advantages = torch.randn(B, T, generator=generator).double()
    lengths = torch.randint(1, T + 1, (B,), generator=generator)
    return logprobs.requires_grad_(), old, advantages, torch.arange(T) < lengths[:, None]


def loop_loss(batch, low, high, aggregate, length):
    """The definition, token by token, with gradients, and the stats: loss, {name: mean}."""
    logprobs, old, advantages, mask = batch
    B, tokens = len(mask), int(mask.sum())
    total, stats = 0.0, {"ratio": 0.0, "clip_fraction": 0.0, "approx_kl": 0.0}
    for b in range(B):
        n = int(mask[b].sum())
        share = {"token": 1 / tokens, "sequence": 1 / n / B, "constant": 1 / (B * length)}
        for t in range(n):
            A = advantages[b] if advantages.dim() == 1 else advantages[b, t]
            logratio = logprobs[b, t] - old[b, t].item()
            rho = logratio.exp()
            clipped = min(max(rho.item(), 1 - low), 1 + high)
            cut = bool(A > 0 and rho > 1 + high or A < 0 and rho < 1 - low)
            total = total - (clipped * A if cut else rho * A) * share[aggregate]
            approx_kl = (rho - 1 - logratio).item()
            for name, value in zip(stats, (rho.item(), cut, approx_kl)):
                stats[name] += value / tokens
    return total, stats


@pytest.mark.parametrize("clip", [(0.2, 0.2), (0.1, 0.4), (0.0, 0.3), (math.inf, 0.1), INF])
@pytest.mark.parametrize("length", [None, 9])
@each_aggregate
def test_loss_gradient_and_stats_against_a_loop(clip, length, aggregate):
    logprobs, old, advantages, mask = random_batch(B=12)
    for A in (advantages, advantages[:, 0]):
        loss, stats = clipped_surrogate(logprobs, old, A, mask, clip, aggregate, length)
        expected, means = loop_loss((logprobs, old, A, mask), *clip, aggregate, length or 5)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        gradients = [torch.autograd.grad(each, logprobs)[0] for each in (loss, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
        assert {name: value.item() for name, value in stats.items()} == pytest.approx(means)
        assert clip == INF or 0 < means["clip_fraction"] < 1  # the batch tells the cases apart


@each_aggregate
def test_at_ratio_one_the_gradient_is_that_of_the_plain_policy_gradient(aggregate):
    """As in the first update of a rollout: −mean of A·log π."""
    logprobs, _, advantages, mask = random_batch(8)
    A, old = advantages[:, 0], logprobs.detach()
    loss, stats = clipped_surrogate(logprobs, old, A, mask, (0.2, 0.28), aggregate)
    plain = -aggregate_tokens(A[:, None] * logprobs, mask, aggregate)
    gradients = [torch.autograd.grad(each, logprobs)[0] for each in (loss, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
    assert [stats[name].item() for name in ("ratio", "clip_fraction", "approx_kl")] == [1, 0, 0]


@pytest.mark.parametrize("clip", [(0.2, 0.2), (math.inf, 0.2), INF])
def test_a_ratio_that_overflows_has_no_nan(clip):
    """e^1000 is inf. Where A is 0, or the clip is reached, it does not count; e^−1000 is 0."""
    logprobs = torch.tensor([[1000.0, -1000.0, 1000.0, 0.0]], requires_grad=True)
    advantages = torch.tensor([[0.0, 1.0, 1.0 if clip != INF else 0.0, 1.0]])
    loss, stats = clipped_surrogate(logprobs, torch.zeros(1, 4), advantages, advantages >= 0, clip)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    kept = 0.0 if clip == INF else 1.2
    assert loss.item() == pytest.approx(-(1 + kept) / 4)
    assert gradient.tolist() == [pytest.approx([0, 0, 0, -1 / 4])]
    assert stats["ratio"].item() == math.inf


@pytest.mark.parametrize(
    "ratio, advantage, cut",
    [
        (1.5, 1.0, True),  # already up, asked to go up: cut off
        (1.5, -1.0, False),  # up by mistake: may come back
        (0.5, 1.0, False),
        (0.5, -1.0, True),
        (1.1, 1.0, False),  # inside the band nothing is cut
        (0.9, -1.0, False),
    ],
)
def test_which_cases_have_a_gradient(ratio, advantage, cut):
    logprobs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    ones = torch.ones(1, 1)
    loss, stats = clipped_surrogate(logprobs, 0 * ones, advantage * ones, ones.bool())
    loss.backward()
    expected = 0.0 if cut else -advantage * ratio
    assert logprobs.grad.item() == pytest.approx(expected, rel=1e-6)
    assert stats["clip_fraction"].item() == float(cut)
    assert stats["ratio"].item() == pytest.approx(ratio)
    assert stats["approx_kl"].item() == pytest.approx(ratio - 1 - math.log(ratio), abs=1e-6)


def test_low_and_high_clip_are_not_confused():
    ratios, ones = torch.tensor([[1.3, 0.7]]).log(), torch.ones(1, 2)
    for clip, fraction in (((0.2, 0.4), 0.5), ((0.4, 0.2), 0.5), ((0.2, 0.2), 1.0)):
        signs = torch.tensor([[1.0, -1.0]])
        _, stats = clipped_surrogate(ratios, 0 * ones, signs, ones.bool(), clip)
        assert stats["clip_fraction"].item() == fraction
    up = clipped_surrogate(ratios, 0 * ones, torch.tensor([[1.0, 0.0]]), ones.bool(), (0.2, 0.4))
    assert up[1]["clip_fraction"].item() == 0  # 1.3 is inside 1 + 0.4


def test_approx_kl_is_of_old_from_new():
    """Summed over the old policy's own distribution, ratio − 1 − log ratio has mean KL(old‖new)."""
    old, new = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], dtype=torch.float64)
    kl, one = 0.0, torch.ones(1, 1)
    for y in range(3):
        _, stats = clipped_surrogate(
            new[y].log().view(1, 1), old[y].log().view(1, 1), one.double(), one.bool()
        )
        kl += old[y] * stats["approx_kl"]
    assert kl.item() == pytest.approx((old * (old / new).log()).sum().item(), rel=1e-12)


@each_aggregate
def test_gradient_flows_through_logprobs_alone(aggregate):
    logprobs, old, advantages, mask = random_batch()
    advantages = advantages[:, 0].clone()
    old.requires_grad_(), advantages.requires_grad_()
    loss, stats = clipped_surrogate(logprobs, old, advantages, mask, aggregate=aggregate)
    loss.backward()
    assert logprobs.grad.abs().sum() > 0 and old.grad is None and advantages.grad is None
    assert not any(value.requires_grad for value in stats.values())


@each_aggregate
@pytest.mark.parametrize("garbage", [7.0, math.nan, math.inf, -math.inf])
def test_nothing_after_the_stop_changes_loss_or_gradient(garbage, aggregate):
    logprobs, old, advantages, mask = random_batch(1)
    loss, stats = clipped_surrogate(logprobs, old, advantages, mask, aggregate=aggregate)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    dirty = [x.detach().masked_fill(~mask, garbage) for x in (logprobs, old, advantages)]
    dirty[0].requires_grad_()
    loss2, stats2 = clipped_surrogate(*dirty, mask, aggregate=aggregate)
    (gradient2,) = torch.autograd.grad(loss2, dirty[0])
    assert torch.equal(loss, loss2) and torch.equal(gradient, gradient2)
    assert (gradient[~mask] == 0).all() and gradient.abs().sum() > 0
    assert all(torch.equal(stats[name], stats2[name]) for name in stats)


def test_a_batch_is_the_weighted_sum_of_its_micro_batches():
    logprobs, old, advantages, mask = random_batch(2, B=7)
    parts = [slice(0, 2), slice(2, 3), slice(3, 7)]
    weights = {
        "token": lambda m: m.sum().item() / mask.sum().item(),  # live tokens, not rows
        "sequence": lambda m: len(m) / len(mask),
        "constant": lambda m: len(m) / len(mask),
    }
    for aggregate, weight in weights.items():
        whole, _ = clipped_surrogate(logprobs, old, advantages, mask, aggregate=aggregate)
        pieces = sum(
            weight(mask[s])
            * clipped_surrogate(
                logprobs[s], old[s], advantages[s], mask[s], aggregate=aggregate
            )[0]
            for s in parts
        )
        torch.testing.assert_close(whole, pieces, rtol=1e-12, atol=1e-14)
    losses = [clipped_surrogate(logprobs[s], old[s], advantages[s], mask[s])[0] for s in parts]
    naive = sum(losses) / 3
    whole = clipped_surrogate(logprobs, old, advantages, mask)[0]
    assert (whole - naive).abs() > 1e-3  # control: a plain mean of micro-batches is another loss


def test_sequence_advantages_are_those_of_every_token():
    logprobs, old, advantages, mask = random_batch(3)
    row = advantages[:, 0]
    wide = row[:, None].expand_as(mask)
    a, b = (clipped_surrogate(logprobs, old, each, mask)[0] for each in (row, wide))
    assert torch.equal(a, b)


def test_aggregations_weigh_a_long_completion_differently():
    mask = torch.tensor([[True, False, False, False], [True, True, True, True]])
    values = torch.tensor([[1.0, 9, 9, 9], [0, 0, 0, 0]])
    got = [aggregate_tokens(values, mask, each).item() for each in AGGREGATES]
    assert got == pytest.approx([1 / 5, 1 / 2, 1 / 8])
    got = [aggregate_tokens(values, mask, each, length=10).item() for each in AGGREGATES]
    assert got == pytest.approx([1 / 5, 1 / 2, 1 / 20])  # of two, at most ten tokens each


def loop_gae(rewards, values, discount, lam):
    """The definition: A_t = Σ_l (discount·λ)^l δ_{t+l}, the value past the last token being 0."""
    n = len(rewards)
    following = list(values[1:n]) + [0.0]
    deltas = [rewards[t] + discount * following[t] - values[t] for t in range(n)]
    return [sum((discount * lam) ** (u - t) * deltas[u] for u in range(t, n)) for t in range(n)]


@pytest.mark.parametrize("discount, lam", [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.7, 0.0)])
@pytest.mark.parametrize("each_token", [False, True])
def test_gae_against_its_definition(discount, lam, each_token):
    _, token_rewards, values, mask = random_batch(4)
    rewards = token_rewards if each_token else torch.tensor([1.0, 0, 1, 1, 0, 0.5]).double()
    advantages, returns = gae(rewards, values, mask, discount, lam)
    for b in range(len(values)):
        n = int(mask[b].sum())
        row = rewards[b, :n].tolist() if each_token else [0.0] * (n - 1) + [rewards[b].item()]
        expected = loop_gae(row, values[b].tolist(), discount, lam)
        assert advantages[b, :n].tolist() == pytest.approx(expected, rel=1e-12)
        assert (advantages[b, n:] == 0).all()
        assert torch.equal(returns[b, :n], advantages[b, :n] + values[b, :n])


def test_gae_passes_over_tokens_that_do_not_count_also_in_between():
    """As if they were not there: the live ones, closed up, give the same."""
    _, token_rewards, values, _ = random_batch(7)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1]] * 2).bool()
    whole = torch.tensor([1.0, 0, 1, 1, 0, 0.5]).double()
    for rewards in (token_rewards, whole):
        advantages, returns = gae(rewards, values, mask, 0.9, 0.8)
        for b, live in enumerate(mask):
            row = token_rewards[b, live].tolist()
            if rewards is whole:
                row = [0.0] * (len(row) - 1) + [whole[b].item()]
            expected = loop_gae(row, values[b, live].tolist(), 0.9, 0.8)
            assert advantages[b, live].tolist() == pytest.approx(expected, rel=1e-12)
            assert (advantages[b, ~live] == 0).all()
            assert torch.equal(returns[b, live], (advantages + values)[b, live])


def test_gae_ends():
    _, _, values, mask = random_batch(5)
    rewards = torch.tensor([1.0, 0, 1, 1, 0, 1]).double()
    monte_carlo = gae(rewards, values, mask, 1.0, 1.0)[0]
    expected = (rewards[:, None] - values) * mask
    torch.testing.assert_close(monte_carlo, expected, rtol=1e-12, atol=1e-12)
    one_step = gae(rewards, values, mask, 1.0, 0.0)[0]
    inner = mask[:, 1:]  # tokens that have a live successor
    assert torch.equal(one_step[:, :-1][inner], (values[:, 1:] - values[:, :-1])[inner])


@pytest.mark.parametrize("garbage", [100.0, math.nan])
def test_gae_sees_no_value_and_no_reward_past_the_stop(garbage):
    _, token_rewards, values, mask = random_batch(6)
    for rewards in (torch.ones(6).double(), token_rewards):
        (clean, targets), (dirty, targets2) = (
            gae(
                rewards if rewards.dim() == 1 else rewards.masked_fill(~mask, v),
                values.masked_fill(~mask, v), mask,
            )
            for v in (0.0, garbage)
        )  # fmt: skip
        assert torch.equal(clean, dirty) and torch.equal(targets[mask], targets2[mask])


def test_bad_input_is_refused():
    logprobs, old, advantages, mask = random_batch()
    with pytest.raises(ValueError, match="aggregate must be .* not 'mean'"):
        clipped_surrogate(logprobs, old, advantages, mask, aggregate="mean")
    with pytest.raises(ValueError, match="old_logprobs must have the shape"):
        clipped_surrogate(logprobs, old[:2], advantages, mask)
    with pytest.raises(ValueError, match="advantages must have the shape"):
        clipped_surrogate(logprobs, old, advantages[:2], mask)
    with pytest.raises(ValueError, match="clip .* at least 0"):
        clipped_surrogate(logprobs, old, advantages, mask, clip=(-0.1, 0.2))
    with pytest.raises(ValueError, match="at least one live token"):
        clipped_surrogate(logprobs, old, advantages, torch.zeros_like(mask))
    with pytest.raises(ValueError, match="at least one live token"):
        empty = mask & (torch.arange(len(mask)) != 2)[:, None]
        clipped_surrogate(logprobs, old, advantages, empty)
    with pytest.raises(ValueError, match="gae_lambda must be between 0 and 1, not 1.5"):
        gae(torch.ones(6), advantages, mask, gae_lambda=1.5)
    with pytest.raises(ValueError, match=r"rewards \(B,\) or \(B, T\), values and mask"):
        gae(torch.ones(5), advantages, mask)
    with pytest.raises(ValueError, match=r"rewards \(B,\) or \(B, T\), values and mask"):
        gae(torch.ones(6, 4), advantages, mask)
