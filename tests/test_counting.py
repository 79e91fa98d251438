"""The exact bias and noise of methods beside the real code, by enumeration and by samples.

Samples are compared with z-scores; each must be below 4.5, which chance alone would break in one of
150,000 (a few dozen are taken here).
"""

import itertools
import math
from decimal import Decimal, getcontext

import pytest
import torch
from conftest import cosine, make_policy
from counting import (
    METHODS, SURROGATES, Method, advantage_moments, batch_limits, climb, enumerate_prompt,
    every_text, graph_of, leash_gradients, method_advantages, method_loss, methods_table,
    surrogate_gradients, surrogate_objective, update_moments,
)  # fmt: skip
from parts import DRAWS, reach

from minicf.costate import empirical_costates
from minicf.exact import outcomes, solution_probabilities, success, value_gradients
from minicf.grpo import grpo_loss, kl_penalty
from minicf.ppo import aggregate_tokens
from minicf.rollout import completion_logprobs
from minicf.tap import tap

Z = 4.5
EXACT = ["REINFORCE", "RLOO", "GRPO", "Dr. GRPO", "GSPO", "MaxRL"]
LIMITS = ["DAPO", "CISPO", "PPO without critic", "PPO with critic", "PPO with exact critic"]


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


@pytest.fixture(scope="module")
def later(trained, env):
    """The policy after eight exact updates: ratios leave the clip on both sides."""
    return climb(trained, env, 8)


@pytest.fixture(scope="module")
def graph(later, prompt, texts, counted):
    return graph_of(later, prompt, texts, counted.rewards)


def test_scores_of_texts_are_the_costates_of_one_backward_pass(trained, env, prompt, counted):
    rollout, p = outcomes(trained, env, prompt)
    assert torch.equal(rollout.completions, counted.texts.tokens)
    torch.testing.assert_close(counted.chances, p)
    weights = torch.rand(rollout.mask.shape, dtype=torch.float64)
    costates = empirical_costates(trained, rollout, weights, trained.blocks[0])[:, : len(prompt)]
    torch.testing.assert_close(
        counted.weighted_scores(weights), costates.flatten(1), rtol=1e-9, atol=1e-10
    )


def test_the_graph_gives_the_value_gradient(later, env, prompt, graph):
    truth = value_gradients(later, env, later.blocks[0], prompt[None])
    torch.testing.assert_close(graph.truth(), truth.flatten(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("baseline", ["none", "mean", "leave-one-out"])
@pytest.mark.parametrize("scale", ["none", "std", "mean"])
def test_moments_of_advantages_against_every_group(baseline, scale):
    """All 2⁴ groups of four, each with its probability."""
    V, G = 0.3, 4
    groups = torch.tensor(list(itertools.product([0.0, 1.0], repeat=G))).double()
    p = (V**groups * (1 - V) ** (1 - groups)).prod(1)
    method = Method("", baseline, scale)
    A = torch.stack([method_advantages(method, group, G) for group in groups])
    first, second, pairs = advantage_moments(V, G, baseline, scale)
    for r in (0, 1):
        q = p * (groups[:, 0] == r)
        assert (q @ A[:, 0] / q.sum()).item() == pytest.approx(first[r].item(), abs=1e-12)
        assert (q @ A[:, 0] ** 2 / q.sum()).item() == pytest.approx(second[r].item(), abs=1e-12)
        for s in (0, 1):
            both = q * (groups[:, 1] == s)
            mean = (both @ (A[:, 0] * A[:, 1]) / both.sum()).item()
            assert mean == pytest.approx(pairs[r, s].item(), abs=1e-12)


def drawn_update(method, prompts, G, generator):
    """One update of the real batch size, drawn from the enumerated texts: (Q·P·D,).

    The method's own advantages and loss give the weights, by autograd through log π.
    """
    rows = [torch.multinomial(p.chances, G, replacement=True, generator=generator) for p in prompts]
    pairs = list(zip(prompts, rows))
    rewards = torch.cat([prompt.rewards[row] for prompt, row in pairs])
    logprobs = torch.cat([prompt.logprobs[row] for prompt, row in pairs])
    values = torch.cat([prompt.critic_values(method)[row] for prompt, row in pairs])
    mask = prompts[0].texts.mask[torch.cat(rows)]
    advantages = method_advantages(method, rewards, G, mask, values)
    leaf = logprobs.clone().requires_grad_()
    loss = method_loss(method, leaf, logprobs, advantages, mask)
    (weights,) = torch.autograd.grad(-loss, leaf)
    groups = zip(prompts, weights.split(G), rows)
    return torch.cat([prompt.weighted_scores(weight, row).sum(0) for prompt, weight, row in groups])


def scale_of(method, batch):
    """From a loss to what update_moments counts: a sum over tokens, averaged over samples."""
    return batch["T"] if method.aggregate == "constant" else batch["length"]


@pytest.mark.parametrize("name", EXACT)
def test_mean_and_noise_of_a_group_against_groups_that_were_drawn(name, counted, generator):
    """The method's own advantages and loss, on 1,000 groups of 4."""
    method, G = METHODS[name], 4
    batch = batch_limits(method, [counted]) | {"T": 4}
    mean, square = update_moments(method, counted, G, batch)
    groups = [drawn_update(method, [counted], G, generator) for _ in range(1000)]
    groups = scale_of(method, batch) * torch.stack(groups)
    assert z_score(groups @ mean / mean.norm(), mean.norm()) < Z
    assert z_score(groups.square().sum(1), square) < Z


@pytest.mark.parametrize("name", LIMITS)
def test_a_large_batch_tends_to_the_limit(name, counted, generator):
    """Ten batches of 4,000: the distance to the limit is what the exact noise says, within half."""
    method, n = METHODS[name], 4000
    batch = batch_limits(method, [counted])
    G = 8 if method.baseline == "mean" else n
    mean, square = update_moments(method, counted, G, batch)
    variance = (square - mean.square().sum()) * G / n
    errors = []
    for _ in range(10):
        prompts = [counted] * (n // G)  # so that a group has G samples, and the batch n
        update = drawn_update(method, prompts, G, generator).view(len(prompts), -1).sum(0)
        errors.append((batch["length"] * update - mean).square().sum().item())
    assert sum(errors) / 10 == pytest.approx(variance.item(), rel=0.5)


def test_the_own_length_bends_and_the_rest_does_not(counted):
    """A prompt's mean update is along ∇V for every method but those with aggregate "sequence"."""
    truth = (counted.chances * counted.rewards) @ counted.weighted_scores(
        counted.texts.mask.double()
    )
    for name, method in METHODS.items():
        mean, _ = update_moments(method, counted, 8, batch_limits(method, [counted]))
        bend = 1 - cosine(mean, truth)
        if method.aggregate == "sequence" or method.baseline == "critic":  # its λ, with V = 0
            assert 1e-4 < bend < 0.5, name
        else:
            assert abs(bend) < 1e-10, name


def chunks_of_gradients(policy, env, prompt, rows, texts, loss_of):
    """−∂loss/∂x at the prompt for 100 chunks of drawn texts: (100, P·D)."""
    gradients = []
    for chunk in rows.split(len(rows) // 100):
        with tap(policy.blocks[0]) as inputs:
            logprobs = completion_logprobs(policy, prompt[None], texts.tokens[chunk], len(chunk))
        loss = loss_of(logprobs, chunk)
        gradients.append(-torch.autograd.grad(loss, inputs[0])[0].flatten())
    return torch.stack(gradients)


@pytest.mark.parametrize("name", SURROGATES)
def test_gradients_on_stale_data_against_samples(name, later, env, prompt, counted, graph, texts):
    """10,000 texts of the old policy, scored by the new one through the real loss."""
    length = batch_limits(METHODS["GSPO"], [counted])["length"]
    exact = surrogate_gradients(graph, counted.logprobs, length)[name]
    generator = torch.Generator().manual_seed(3)
    rows = torch.multinomial(counted.chances, 10_000, replacement=True, generator=generator)

    def loss_of(logprobs, chunk):
        advantages = counted.rewards[chunk] - counted.value
        old, mask = counted.logprobs[chunk], texts.mask[chunk]
        return -surrogate_objective(name, logprobs, old, advantages, mask, length)

    gradients = chunks_of_gradients(later, env, prompt, rows, texts, loss_of)
    assert z_score(gradients @ exact / exact.norm(), exact.norm()) < Z


def test_only_the_whole_ratio_makes_stale_data_exact(counted, graph, prompt, texts, trained):
    gradients = surrogate_gradients(graph, counted.logprobs, 3.0)
    truth = gradients.pop("truth")
    torch.testing.assert_close(gradients.pop("whole-sequence ratio"), truth, rtol=1e-8, atol=1e-10)
    assert all(1 - cosine(gradient, truth) > 1e-5 for gradient in gradients.values())
    now = graph_of(trained, prompt, texts, counted.rewards)  # fresh data: no ratio is needed
    gradients = surrogate_gradients(now, counted.logprobs, 3.0)
    truth = gradients.pop("truth")
    bent = {name for name, gradient in gradients.items() if 1 - cosine(gradient, truth) > 1e-8}
    assert bent == {"GSPO"}


def test_which_leash_has_the_gradient_of_the_kl(counted, graph):
    gradients = leash_gradients(graph, counted.logprobs)
    exact = gradients["exact"]
    for name in ("k2 of the whole text", "k1 in the reward", "k1 in the reward to go"):
        torch.testing.assert_close(gradients[name], exact, rtol=1e-8, atol=1e-10)
    assert gradients["k1 in the loss"].norm() < 1e-10 * exact.norm()
    for name in ("k2 in the loss", "k3 in the loss"):
        assert 1 - cosine(gradients[name], exact) > 1e-5


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_gradients_of_the_leash_against_samples(
    estimator, later, env, prompt, counted, graph, texts
):
    """10,000 texts of the policy of now, through kl_penalty and the sum over tokens."""
    name = f"{estimator} in the loss"
    exact = leash_gradients(graph, counted.logprobs)
    generator = torch.Generator().manual_seed(4)
    chances = graph.chances.detach()
    rows = torch.multinomial(chances, 10_000, replacement=True, generator=generator)

    def loss_of(logprobs, chunk):
        mask = texts.mask[chunk]
        penalty = kl_penalty(logprobs.masked_fill(~mask, 0.0), counted.logprobs[chunk], estimator)
        return -mask.size(1) * aggregate_tokens(penalty, mask, "constant")

    gradients = chunks_of_gradients(later, env, prompt, rows, texts, loss_of)
    direction = exact["exact"] / exact["exact"].norm()
    assert z_score(gradients @ direction, exact[name] @ direction) < Z


def test_the_table_says_what_it_counts(counted, trained, env, prompt):
    truth = value_gradients(trained, env, trained.blocks[0], prompt[None])
    rows = methods_table(METHODS, [counted], truth, 8)
    assert [row["method"] for row in rows] == list(METHODS)
    for row in rows:
        assert (row["samples"] is None) == (row["cosine"] <= 0.9)
        if row["samples"] is not None:
            at = row["cosine"] / math.sqrt(1 + row["noise"] / row["samples"])
            assert at == pytest.approx(0.9)
    by_name = {row["method"]: row for row in rows}
    same = [(row["cosine"], row["noise"]) for row in (by_name["GSPO"], by_name["GRPO"])]
    assert same[0] == pytest.approx(same[1])  # at the first update every ratio is 1
    assert by_name["REINFORCE"]["length"] == pytest.approx(1)
    assert by_name["Dr. GRPO"]["length"] == pytest.approx(1 - 1 / 8)


def test_the_loss_of_grpo_leaves_no_kl_at_the_first_update(counted):
    """So that the table may leave it out: k3 has slope 0 where policy and reference agree."""
    logprobs = counted.logprobs[:8].clone().requires_grad_()
    same, mask = logprobs.detach(), counted.texts.mask[:8]
    gradients = []
    for kl_coef in (0.0, 0.5):
        loss, _ = grpo_loss(logprobs, same, torch.arange(8.0), mask, same, kl_coef)
        gradients.append(torch.autograd.grad(loss, logprobs)[0])
    assert torch.equal(*gradients)


def test_reach_against_long_arithmetic(env):
    """With 60 digits, on a policy whose answers have probabilities down to 1e-30."""
    getcontext().prec = 60
    policy = make_policy(env, spread=2.0)
    counted = reach(policy, env)
    p, rows = solution_probabilities(policy, env)
    assert p.min() < 1e-15
    one = Decimal(1)
    values = [sum((Decimal(x.item()) for x in p[rows == q]), Decimal(0)) for q in range(19)]
    for place, k in enumerate(DRAWS):
        passes = sum(one - (one - value) ** k for value in values) / 19
        answers = sum(one - (one - Decimal(x.item())) ** k for x in p) / 19
        assert counted["pass_at_k"][place] == pytest.approx(float(passes), rel=1e-9)
        assert counted["coverage"][place] == pytest.approx(float(answers), rel=1e-9)
    assert counted["pass_at_k"][0] == pytest.approx(success(policy, env).mean().item())
