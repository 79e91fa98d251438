"""The exact noise of baselines and corrections beside the real code, by loops and by samples.

Samples are compared with z-scores; each must be below 4.5, which chance alone would break in one of
150,000 (a few dozen are taken here).
"""

import dataclasses
import math
from functools import partial

import pytest
import torch
from conftest import flat_gradient, make_policy
from counting import (
    CAPS, bias_and_variance, climb, correction_weights, enumerate_prompt, every_text,
    noise_of_baselines, noisy_logprobs, squares_and_mean, weight_blocks,
)  # fmt: skip

from minicf.baselines import best_baseline, leave_one_out_noise, noise
from minicf.costate import empirical_costates
from minicf.env import SumGame
from minicf.exact import outcomes, success, value_gradients
from minicf.ppo import clipped_surrogate, gae
from minicf.rollout import completion_logprobs
from minicf.tap import tap
from minicf.variants import cispo_loss, gspo_loss

Z = 4.5


def z_score(samples, expected):
    return abs(samples.mean() - expected) / (samples.std() / len(samples) ** 0.5)


@pytest.fixture(scope="module")
def prompt(env):
    return env.prompts[9]


@pytest.fixture(scope="module")
def texts(env):
    return every_text(env)


@pytest.fixture(scope="module")
def counted(trained, env, prompt, texts):
    return enumerate_prompt(trained, env, prompt, texts)


def test_scores_of_texts_are_the_costates_of_one_backward_pass(trained, env, prompt, counted):
    rollout, p = outcomes(trained, env, prompt)
    assert torch.equal(rollout.completions, counted.texts.tokens)
    torch.testing.assert_close(counted.chances, p)
    weights = torch.rand(rollout.mask.shape, dtype=torch.float64)
    costates = empirical_costates(trained, rollout, weights, trained.blocks[0])[:, : len(prompt)]
    torch.testing.assert_close(
        counted.weighted_scores(weights), costates.flatten(1), rtol=1e-9, atol=1e-10
    )


def chunks_of_gradients(policy, env, prompt, rows, texts, loss_of):
    """−∂loss/∂x at the prompt for 100 chunks of drawn texts: (100, P·D)."""
    gradients = []
    for chunk in rows.split(len(rows) // 100):
        with tap(policy.blocks[0]) as inputs:
            logprobs = completion_logprobs(policy, prompt[None], texts.tokens[chunk], len(chunk))
        loss = loss_of(logprobs, chunk)
        gradients.append(-torch.autograd.grad(loss, inputs[0])[0].flatten())
    return torch.stack(gradients)


# The noise of baselines.


@pytest.fixture(scope="module")
def tiny():
    """A world of one term, with 157 completions, a policy, and a prompt in it."""
    env = SumGame(1)
    return make_policy(env, n_layer=1, d_model=8), env, env.prompts[4]


@pytest.fixture(scope="module")
def tiny_counted(tiny):
    return enumerate_prompt(*tiny, every_text(tiny[1]))


def advantages_by_hand(policy, env, prompt, rollout):
    """Q − V at every token, each V from the outcomes of its own state."""

    def value(tokens):
        every, p = outcomes(policy, env, prompt, tokens)
        return (p @ every.rewards.double()).item()

    advantages = torch.zeros(rollout.mask.shape, dtype=torch.float64)
    for i, tokens in enumerate(rollout.completions):
        states = [value(tokens[:t]) for t in range(int(rollout.mask[i].sum()))]
        after = [*states[1:], rollout.rewards[i].item()]
        for t, (later, now) in enumerate(zip(after, states)):
            advantages[i, t] = later - now
    return advantages


def weight_gradients(policy, prompt, rollout, weights):
    """Σ_t weight·∂log π(y_t)/∂θ over all of θ, one completion after the other: (M, D)."""
    rows = []
    for tokens, mask, weight in zip(rollout.completions, rollout.mask, weights):
        logprobs = completion_logprobs(policy, prompt[None], tokens[None])[0]
        rows.append(flat_gradient((weight * logprobs)[mask].sum(), policy))
    return torch.stack(rows)


def prompt_gradients(policy, prompt, rollout, weights):
    """The same with respect to what enters the first block at the prompt: (M, P·D)."""
    costates = empirical_costates(policy, rollout, weights, policy.blocks[0])
    return costates[:, : len(prompt)].flatten(1)


@pytest.mark.parametrize("place", ["activations", "weights"])
def test_noise_of_baselines_is_that_of_the_explicit_scores(place, tiny, tiny_counted):
    """So is the noise of a critic that knows every state; its mean is ∇V as well."""
    policy, env, prompt = tiny
    rollout, p = outcomes(policy, env, prompt)
    assert len(p) == 157
    r = rollout.rewards.double()
    if place == "weights":
        gradients = weight_gradients
        blocks = partial(weight_blocks, policy, prompt, tiny_counted.texts, size=50)
        truth = flat_gradient(success(policy, env, prompt[None]).sum(), policy)
    else:
        gradients = prompt_gradients
        blocks = tiny_counted.blocks
        truth = value_gradients(policy, env, policy.blocks[0], prompt[None]).flatten()
    critic = advantages_by_hand(policy, env, prompt, rollout)
    s = gradients(policy, prompt, rollout, torch.ones_like(critic))
    rows = gradients(policy, prompt, rollout, critic)
    signal = truth.square().sum()
    expected = {
        "value": p @ r,
        "best_baseline": best_baseline(p, r, s),
        "none": noise(p, r, s, 0.0) / signal,
        "V": noise(p, r, s, p @ r) / signal,
        "best": noise(p, r, s, best_baseline(p, r, s)) / signal,
        "token critic": p @ (rows - truth).square().sum(1) / signal,
        "leave-one-out of 8": leave_one_out_noise(p, r, s, 8) / signal,
    }
    measured = noise_of_baselines(tiny_counted, blocks)
    assert measured == pytest.approx({key: x.item() for key, x in expected.items()}, rel=1e-9)

    _, mean = squares_and_mean(blocks(critic), p)
    torch.testing.assert_close(mean, truth, rtol=1e-9, atol=1e-12)
    # Negative control: values of the state after the token see the token, and bend the mean.
    late = dataclasses.replace(tiny_counted, values=tiny_counted.values.roll(-1, 1))
    assert noise_of_baselines(late, blocks)["token critic"] != pytest.approx(
        measured["token critic"], rel=0.01
    )
    bent, _ = gae(r, late.values, rollout.mask, gae_lambda=0.0)
    _, mean = squares_and_mean(blocks(bent), p)
    assert (mean - truth).norm() > 0.01 * truth.norm()


def test_noise_of_baselines_in_a_world_of_two_terms(counted):
    p = counted.chances
    r = counted.rewards
    s = counted.scores_of_texts()
    g = (p * r) @ s
    measured = noise_of_baselines(counted, counted.blocks)
    for name, b in (("none", 0.0), ("V", p @ r), ("best", best_baseline(p, r, s))):
        exact = noise(p, r, s, b) / g.square().sum()
        assert measured[name] == pytest.approx(exact.item(), rel=1e-9)
    assert measured["best"] < min(measured["none"], measured["V"])


# Data from another policy.


@pytest.fixture(scope="module")
def noisy(trained, prompt, texts):
    """Log-probabilities of a sampler whose logits are far from the trainer's."""
    return noisy_logprobs(trained, prompt, texts, 0.5, seed=0)


@pytest.fixture(scope="module")
def corrected(counted, noisy):
    return bias_and_variance([(counted, noisy)])


def two_advantages(counted):
    """Advantages (M, T) with baseline V, and Q − V of every state."""
    constant = (counted.rewards - counted.value)[:, None].expand_as(counted.logprobs)
    exact, _ = gae(counted.rewards, counted.values, counted.texts.mask, gae_lambda=0.0)
    return {"V": constant, "exact": exact}


def clipped_off(ratio, advantages):
    """Where PPO's objective has no slope: the ratio has left 1 ± .2 in the favoured direction."""
    return ((advantages > 0) & (ratio > 1.2)) | ((advantages < 0) & (ratio < 0.8))


def weights_by_hand(ratio, advantages, mask, length):
    """The corrections, as their papers have them, of ratios π/μ (M, T), 1 after the stop."""
    whole = ratio.prod(1, keepdim=True).expand_as(ratio)
    lengths = mask.sum(1, keepdim=True)
    geometric = whole ** (1 / lengths)
    two = torch.full_like(ratio, 2.0)
    return {
        "none": torch.ones_like(ratio),
        "token": ratio,
        "TIS": ratio.minimum(two),
        "IcePop": ratio * ((ratio >= 0.5) & (ratio <= 5)),
        "prefix": ratio.cumprod(1),
        "sequence": whole,
        "sequence TIS": whole.minimum(two),
        "MIS": whole * (whole <= 2),
        "PPO clip": ratio * ~clipped_off(ratio, advantages),
        "GSPO": geometric * ~clipped_off(geometric, advantages) / lengths * length,
    }


def test_between_equal_policies_there_is_nothing_to_correct(counted):
    mask = counted.texts.mask
    same = torch.zeros_like(counted.logprobs)
    weights = correction_weights(same, two_advantages(counted)["V"], mask, 3.0)
    own = weights.pop("GSPO") * mask.sum(1, keepdim=True) / 3.0
    for weight in (own, *weights.values()):
        torch.testing.assert_close(weight, torch.ones_like(same), rtol=0, atol=1e-12)

    result = bias_and_variance([(counted, counted.logprobs)])
    noises = noise_of_baselines(counted, counted.blocks)
    assert result["kl"] == 0
    for kind, name in (("V", "V"), ("exact", "token critic")):
        assert result[kind].pop("GSPO")[0] > 0.01  # its own length bends it
        for bias, variance in result[kind].values():
            assert bias < 1e-9
            assert variance == pytest.approx(noises[name], rel=1e-9)


def test_which_correction_is_unbiased(corrected):
    assert corrected["V"]["sequence"][0] < 1e-9
    assert corrected["exact"]["sequence"][0] < 1e-9
    assert corrected["exact"]["prefix"][0] < 1e-9
    assert corrected["V"]["prefix"][0] > 0.01  # what comes later is of the other policy
    for kind in ("V", "exact"):
        for name in set(corrected[kind]) - {"sequence", "prefix"}:
            assert corrected[kind][name][0] > 0.01, (kind, name)
    assert corrected["kl"] > 0.05


@pytest.mark.parametrize("kind", ["V", "exact"])
def test_bias_and_variance_of_weights_by_hand(kind, counted, noisy, corrected):
    """The definitions, with each correction's weights written anew."""
    p = noisy.exp().prod(1)
    mask = counted.texts.mask
    advantages = two_advantages(counted)[kind]
    truth = (counted.chances * counted.rewards) @ counted.scores_of_texts()
    ratio = (counted.logprobs - noisy).exp()
    length = (p @ mask.sum(1).double()).item()
    by_hand = weights_by_hand(ratio, advantages, mask, length)
    assert list(by_hand) == list(corrected[kind])
    for name, (bias, variance) in corrected[kind].items():
        rows = counted.weighted_scores(by_hand[name] * advantages)
        mean = p @ rows
        spread = p @ (rows - mean).square().sum(1) / truth.square().sum()
        assert variance == pytest.approx(spread.item(), rel=1e-9), name
        off = (mean - truth).norm() / truth.norm()
        assert bias == pytest.approx(off.item(), rel=1e-7, abs=1e-9), name


@pytest.mark.parametrize("kind, name", [("V", "TIS"), ("V", "PPO clip"), ("exact", "token")])
def test_bias_and_variance_against_samples(
    kind, name, trained, env, prompt, counted, noisy, corrected, generator
):
    """20,000 texts of the sampler, in 100 chunks; the trainer's backward pass leaves the sums."""
    mask = counted.texts.mask
    p = noisy.sum(1).exp()
    rows = torch.multinomial(p, 20_000, replacement=True, generator=generator)
    advantages = two_advantages(counted)[kind]
    ratio = (counted.logprobs - noisy).exp()
    weights = weights_by_hand(ratio, advantages, mask, 1.0)[name] * advantages
    truth = value_gradients(trained, env, trained.blocks[0], prompt[None]).flatten()
    bend = p @ counted.weighted_scores(weights) - truth
    expected, variance = corrected[kind][name]

    def loss_of(logprobs, chunk):
        return -(weights[chunk] * logprobs)[mask[chunk]].sum() / len(chunk)

    means = chunks_of_gradients(trained, env, prompt, rows, counted.texts, loss_of)
    along = (means - truth) @ bend / bend.norm() / truth.norm()
    assert z_score(along, expected) < Z
    squares = 200 * (means - truth - bend).square().sum(1) / truth.square().sum()
    assert z_score(squares, variance) < Z


@pytest.mark.parametrize(
    "kind, name",
    [
        ("V", "token"), ("V", "TIS"), ("V", "PPO clip"), ("V", "GSPO"),
        ("exact", "token"), ("exact", "TIS"), ("exact", "PPO clip"),
    ],
)  # fmt: skip
def test_weights_are_those_of_the_losses(kind, name, counted, noisy):
    """Weight × advantage is −∂loss/∂log π, up to what the loss divides by.

    The loss of GSPO takes one advantage for a completion, so that it has no row with Q − V.
    """
    mask = counted.texts.mask
    M, T = mask.shape
    advantages = two_advantages(counted)[kind]
    length = 3.0
    weights = correction_weights(counted.logprobs - noisy, advantages, mask, length)[name]
    leaf = counted.logprobs.clone().requires_grad_()
    one = advantages[:, 0] if kind == "V" else advantages
    if name == "GSPO":
        loss = M * length * gspo_loss(leaf, noisy, one, mask)[0]
    elif name == "TIS":
        loss = mask.sum() * cispo_loss(leaf, noisy, one, mask, (math.inf, 1.0))[0]
    else:
        clip = (0.2, 0.2) if name == "PPO clip" else (math.inf, math.inf)
        loss = M * T * clipped_surrogate(leaf, noisy, one, mask, clip, "constant")[0]
    (slope,) = torch.autograd.grad(-loss, leaf)
    expected = (weights * advantages).masked_fill(~mask, 0.0)
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-12)
    assert name == "token" or not torch.allclose(weights, (counted.logprobs - noisy).exp())


def test_caps_are_the_mean_squared_error_of_64_samples(corrected):
    for ratio, capped in (("token", "TIS"), ("sequence", "sequence TIS")):
        errors = corrected["caps"][ratio]
        assert list(errors) == [str(cap) for cap in CAPS]
        for cap, name in (("inf", ratio), ("2.0", capped)):
            bias, variance = corrected["V"][name]
            assert errors[cap] == pytest.approx(bias**2 + variance / 64, rel=1e-9)


def test_prompts_are_taken_together(tiny):
    """As one long vector: squares add up."""
    policy, env, _ = tiny
    texts = every_text(env)
    pairs = []
    for target in (4, 7):
        sampler = noisy_logprobs(policy, env.prompts[target], texts, 0.5, seed=target)
        pairs.append((enumerate_prompt(policy, env, env.prompts[target], texts), sampler))
    both = bias_and_variance(pairs)
    first = bias_and_variance(pairs[:1])
    last = bias_and_variance(pairs[1:])
    gradients = value_gradients(policy, env, policy.blocks[0], env.prompts[[4, 7]])
    a, b = (gradients.flatten(1).square().sum(1) / gradients.square().sum()).tolist()
    assert both["kl"] == pytest.approx((first["kl"] + last["kl"]) / 2)
    for kind in ("V", "exact"):
        for name, (bias, variance) in both[kind].items():
            square = a * first[kind][name][0] ** 2 + b * last[kind][name][0] ** 2
            assert bias**2 == pytest.approx(square, rel=1e-9, abs=1e-18)
            sum_of_both = a * first[kind][name][1] + b * last[kind][name][1]
            assert variance == pytest.approx(sum_of_both, rel=1e-9)
    assert abs(first["V"]["none"][1] / last["V"]["none"][1] - 1) > 0.05  # so that it matters


def test_a_noisy_sampler_is_a_policy(trained, prompt, texts, counted, noisy):
    """Its texts' probabilities sum to 1; without noise it is the trainer; it follows its seed."""
    assert noisy.sum(1).exp().sum().item() == pytest.approx(1, abs=1e-12)
    silent = noisy_logprobs(trained, prompt, texts, 0.0, seed=0)
    torch.testing.assert_close(silent, counted.logprobs, rtol=1e-9, atol=1e-10)
    assert torch.equal(noisy_logprobs(trained, prompt, texts, 0.5, seed=0), noisy)
    assert not torch.equal(noisy_logprobs(trained, prompt, texts, 0.5, seed=1), noisy)
    rounded = noisy_logprobs(trained, prompt, texts, None, seed=0)
    assert rounded.sum(1).exp().sum().item() == pytest.approx(1, abs=1e-12)
    off = (rounded - counted.logprobs).abs().max()
    assert 1e-4 < off < 0.5
    assert next(trained.parameters()).dtype == torch.float64  # the copy was rounded, not it


def test_small_steps_climb_and_leave_the_policy_alone(trained, env):
    before = [weight.clone() for weight in trained.parameters()]
    later = climb(trained, env, 1, learning_rate=1e-5)
    assert all(map(torch.equal, before, trained.parameters()))
    moves = [(a - b).abs().max().item() for a, b in zip(before, later.parameters())]
    assert max(moves) == pytest.approx(1e-5, rel=0.01)  # the first step of Adam, in any direction
    with torch.no_grad():
        assert success(later, env).mean() > success(trained, env).mean()
