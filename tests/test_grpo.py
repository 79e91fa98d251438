import copy
import math

import numpy
import pytest
import torch
from conftest import cosine, flat_gradient

from minicf.exact import outcomes
from minicf.grpo import group_advantages, grpo_loss, kl_penalty
from minicf.ppo import aggregate_tokens, clipped_surrogate
from minicf.rollout import completion_logprobs


@pytest.mark.parametrize("baseline", ["mean", "leave-one-out", "none"])
@pytest.mark.parametrize("scale", ["std", "none"])
@pytest.mark.parametrize("group_size", [2, 3, 8])
def test_advantages_against_a_numpy_loop(baseline, scale, group_size):
    rewards = numpy.random.default_rng(0).random(4 * group_size)
    expected = []
    for group in rewards.reshape(4, group_size):
        for i, reward in enumerate(group):
            others = numpy.delete(group, i)
            centre = {"mean": group.mean(), "leave-one-out": others.mean(), "none": 0.0}[baseline]
            size = {"std": group.std(ddof=1), "none": 1.0}[scale]
            expected.append((reward - centre) / size)
    got = group_advantages(torch.tensor(rewards), group_size, baseline, scale)
    assert got.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 0.3, 1 / 3, 1e-9, 1e9])
@pytest.mark.parametrize("baseline", ["mean", "leave-one-out"])
@pytest.mark.parametrize("scale", ["std", "none"])
def test_identical_rewards_give_exactly_zero_in_float32(value, baseline, scale):
    rewards = torch.full((14,), value, dtype=torch.float32)
    assert torch.equal(group_advantages(rewards, 7, baseline, scale), torch.zeros(14))


def test_with_neither_baseline_nor_scale_equal_rewards_still_count():
    rewards = torch.tensor([0.3] * 7 + [0.0] * 7)
    assert torch.equal(group_advantages(rewards, 7, "none", "none"), rewards)
    assert torch.equal(group_advantages(rewards, 7, "none", "std"), torch.zeros(14))
    assert torch.equal(group_advantages(rewards, 1, "none", "none"), rewards)


def test_the_guard_touches_nothing_else():
    """An epsilon in the division would shrink the advantages of rewards that differ by little."""
    rewards = torch.tensor([0.5, 0.5 + 1e-6], dtype=torch.float64)
    root = math.sqrt(0.5)
    assert group_advantages(rewards, 2).tolist() == pytest.approx([-root, root], rel=1e-9)


def test_own_mean_is_the_leave_one_out_shrunk(generator):
    rewards = torch.rand(40, generator=generator).double()
    own, others = (group_advantages(rewards, 5, b, "none") for b in ("mean", "leave-one-out"))
    torch.testing.assert_close(own, (1 - 1 / 5) * others)


def test_leave_one_out_does_not_see_its_own_sample():
    rewards = torch.tensor([0.2, 0.9, 0.4], dtype=torch.float64)
    before = group_advantages(rewards, 3, "leave-one-out", "none")
    for i in range(3):  # r_i enters A_i as itself only, and those of the others as a half
        more = rewards + torch.eye(3, dtype=torch.float64)[i]
        change = group_advantages(more, 3, "leave-one-out", "none") - before
        assert change.tolist() == pytest.approx([1.0 if j == i else -0.5 for j in range(3)])


def test_groups_do_not_mix():
    rewards = torch.tensor([0.0, 1, 1, 0, 0, 0])
    a = group_advantages(rewards, 3)
    assert torch.equal(a[3:], torch.zeros(3)) and a[0] < 0 < a[1]


# KL: a policy over five tokens, every token enumerated.


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    logits, ref = torch.randn(2, 5, generator=generator).double()
    return logits.requires_grad_(), ref.log_softmax(0)


def kl(a, b):
    """KL(a‖b) of log-probabilities."""
    return (a.exp() * (a - b)).sum()


def test_means_of_k1_and_k3_are_the_kl_and_of_k2_is_not(pair):
    logprobs, ref = pair[0].log_softmax(0), pair[1]
    truth = kl(logprobs, ref).item()
    mean = {
        k: (logprobs.exp() * kl_penalty(logprobs, ref, k)).sum().item() for k in ("k1", "k2", "k3")
    }
    assert mean["k1"] == pytest.approx(truth, rel=1e-12)
    assert mean["k3"] == pytest.approx(truth, rel=1e-12)
    assert abs(mean["k2"] / truth - 1) > 0.05
    assert abs(kl(ref, logprobs).item() / truth - 1) > 0.05  # the pair tells the directions apart


def test_gradients_of_the_estimators_in_a_loss(pair):
    """Samples are weighted by their probability as constants, as a mean over samples would."""
    logits, ref = pair
    logprobs = logits.log_softmax(0)
    forward, reverse = (
        torch.autograd.grad(value, logits, retain_graph=True)[0]
        for value in (kl(logprobs, ref), kl(ref, logprobs))
    )
    expected = {"k1": torch.zeros(5).double(), "k2": forward, "k3": reverse}
    for estimator, truth in expected.items():
        mean = (logprobs.exp().detach() * kl_penalty(logprobs, ref, estimator)).sum()
        (gradient,) = torch.autograd.grad(mean, logits, retain_graph=True)
        torch.testing.assert_close(gradient, truth, rtol=1e-12, atol=1e-14)


def test_k3_is_never_negative_and_the_reference_has_no_gradient(generator):
    logprobs, ref = -3 * torch.rand(2, 100, generator=generator)
    ref.requires_grad_()
    logprobs = logprobs.detach().requires_grad_()
    penalty = kl_penalty(logprobs, ref, "k3")
    assert (penalty >= 0).all()
    penalty.sum().backward()
    assert ref.grad is None and logprobs.grad.abs().sum() > 0


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("aggregate", ["token", "sequence", "constant"])
def test_grpo_loss_is_the_surrogate_plus_the_penalty(estimator, aggregate, generator):
    old, ref = -torch.rand(2, 4, 3, generator=generator)
    logprobs = old + 0.3 * torch.randn(4, 3, generator=generator)
    mask = torch.arange(3) < torch.tensor([1, 3, 2, 3])[:, None]
    advantages = torch.tensor([1.0, -1, 0.5, 0])
    options = {"clip": (0.2, 0.3), "aggregate": aggregate, "length": 5}
    plain, without = clipped_surrogate(logprobs, old, advantages, mask, **options)
    each = kl_penalty(logprobs, ref, estimator)
    options["kl_estimator"] = estimator
    loss, stats = grpo_loss(logprobs, old, advantages, mask, ref, 0.5, **options)
    torch.testing.assert_close(loss, plain + 0.5 * aggregate_tokens(each, mask, aggregate, 5))
    torch.testing.assert_close(stats["kl"], each[mask].mean())  # whatever the aggregation
    dirty = [x.masked_fill(~mask, math.nan) for x in (logprobs, old, ref)]
    again, _ = grpo_loss(*dirty[:2], advantages, mask, dirty[2], 0.5, **options)
    assert torch.equal(loss, again)
    free, stats = grpo_loss(logprobs, old, advantages, mask, ref, 0.0, **options)
    assert torch.equal(free, plain) and set(stats) == set(without)


# KL: whole completions under a trained policy and a moved copy of it, every completion enumerated.


@pytest.fixture(scope="module")
def every(trained, env):
    """Policy, all M completions of a prompt, their log-probabilities (M, T) under it, with graph,
    and under the copy, 0 after the stop; their probabilities (M,)."""
    prompt, reference = env.prompts[9], copy.deepcopy(trained)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in reference.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    rollout, chances = outcomes(trained, env, prompt)
    scored = (
        completion_logprobs(each, prompt[None], rollout.completions, len(chances))
        for each in (trained, reference)
    )
    logprobs, ref = (each.masked_fill(~rollout.mask, 0.0) for each in scored)
    return trained, rollout, logprobs, ref.detach(), chances


def exact_kl(logprobs, ref):
    return kl(logprobs.sum(1), ref.sum(1))


def test_which_estimator_in_the_loss_has_the_gradient_of_the_completions_kl(every):
    """k2 of the summed log-ratio; k1 leaves nothing; per token k2 and k3 point elsewhere."""
    policy, _, logprobs, ref, chances = every
    truth = flat_gradient(exact_kl(logprobs, ref), policy)

    def mean_gradient(estimator, whole):
        pair = (logprobs.sum(1), ref.sum(1)) if whole else (logprobs, ref)
        each = kl_penalty(*pair, estimator)
        return flat_gradient(chances @ (each if whole else each.sum(1)), policy)

    torch.testing.assert_close(mean_gradient("k2", True), truth, rtol=1e-8, atol=1e-10)
    for whole in (False, True):
        assert mean_gradient("k1", whole).norm() < 1e-10 * truth.norm()
    for estimator in ("k2", "k3"):  # what a token does to later tokens is not seen
        assert cosine(mean_gradient(estimator, False), truth) < 0.99
    reverse = flat_gradient((ref.sum(1).exp() * (ref - logprobs).sum(1)).sum(), policy)
    torch.testing.assert_close(mean_gradient("k3", True), reverse, rtol=1e-8, atol=1e-10)


def test_k1_in_the_reward_has_the_gradient_of_the_reward_less_the_kl(every):
    """Of the whole answer, and to go: what the tokens so far have cost is a baseline."""
    policy, rollout, logprobs, ref, chances = every
    rewards, beta, p = rollout.rewards.double(), 0.3, logprobs.sum(1).exp()
    truth = flat_gradient(p @ rewards - beta * exact_kl(logprobs, ref), policy)
    cost = beta * (logprobs - ref).detach()
    to_go = cost.flip(1).cumsum(1).flip(1)
    for advantages in ((rewards - cost.sum(1))[:, None].expand_as(cost), rewards[:, None] - to_go):
        weighed = advantages * chances[:, None] * cost.numel()  # the loss divides by B·T
        loss, _ = grpo_loss(
            logprobs, logprobs.detach(), weighed, rollout.mask, aggregate="constant"
        )
        torch.testing.assert_close(-flat_gradient(loss, policy), truth, rtol=1e-8, atol=1e-10)
    plain = flat_gradient(p @ rewards, policy)
    assert (truth - plain).norm() > 0.1 * plain.norm()  # so that the KL is seen


def test_bad_input_is_refused():
    rewards, ones = torch.ones(6), torch.ones(6, 2)
    with pytest.raises(ValueError, match='baseline must be .* not "?\'?median'):
        group_advantages(rewards, 3, "median")
    with pytest.raises(ValueError, match="scale must be .* not 'var'"):
        group_advantages(rewards, 3, scale="var")
    with pytest.raises(ValueError, match="group_size must be at least 2, not 1"):
        group_advantages(rewards, 1)
    with pytest.raises(ValueError, match="group_size must be at least 2, not 1"):
        group_advantages(rewards, 1, "none", "std")
    with pytest.raises(ValueError, match="multiple of group_size 4"):
        group_advantages(rewards, 4)
    with pytest.raises(ValueError, match="estimator must be .* not 'k4'"):
        kl_penalty(ones, ones, "k4")
    with pytest.raises(ValueError, match="one shape"):
        kl_penalty(ones, ones[:, :1])
    with pytest.raises(ValueError, match="kl_coef 0.1 .* ref_logprobs"):
        grpo_loss(ones, ones, rewards, ones.bool(), kl_coef=0.1)
