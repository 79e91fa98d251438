"""C5: what the error of a costate is, what bounds it, and what its biased relatives miss."""

import copy
from dataclasses import replace

import pytest
import torch
from conftest import added, make_policy

from minicf.bounds import (
    RELAXATIONS, error_bound, fisher_estimate, martingale_terms, mean_square_gap, own_logit_bias,
    relaxed_costates, sampling_gap, spread, state_jacobians, token_entropy,
)  # fmt: skip
from minicf.costate import empirical_costates, own_logit_costates
from minicf.exact import entropy, outcomes, value_gradient
from minicf.rollout import sample


@pytest.fixture(scope="module")
def policies(policy, trained, env):
    """Random and trained policies, and the trained one cooled and heated."""
    result = {"random": policy, "trained": trained, "wide": make_policy(env, seed=2, spread=0.05)}
    for name, factor in (("cold", 3.0), ("hot", 0.3)):
        other = make_policy(env)
        other.load_state_dict(trained.state_dict())
        with torch.no_grad():
            other.head.weight *= factor
        result[name] = other
    return result


def last(env, text):
    """The position of the last token of a state."""
    return env.prompt_length + len(text) - 1


NAMES = ("random", "trained", "wide", "cold", "hot")


@pytest.mark.parametrize(
    "name, text, layer",
    [(name, "4", layer) for layer, name in zip((0, 2, 0, 2, 0), NAMES)]
    + [("trained", "4", 0), ("trained", "", 0)],
)
def test_both_identities_and_the_order_of_the_bounds(policies, env, name, layer, text):
    policy, prompt, prefix = policies[name], env.prompts[9], env.encode(text)
    rollout, p = outcomes(policy, env, prompt, prefix)
    at = policy.stream[layer]
    exact = value_gradient(policy, env, prompt, prefix, at)
    scores = empirical_costates(policy, rollout, torch.ones(len(p)), at)[:, last(env, text)]
    for baseline in (0.5, 0.0, 0.3) if text else (0.5,):
        costates = (rollout.rewards - baseline).double()[:, None] * scores
        error = (p @ (costates - exact).square().sum(1)).item()
        steps = martingale_terms(rollout, p, costates, len(text))
        assert steps.sum().item() == pytest.approx(error, rel=1e-12)
        assert (steps >= -1e-12 * error).all() and (steps[: len(text)] == 0).all()
        bound = error_bound(policy, env, prompt, at, prefix, baseline)
        if baseline == 0.5:
            assert bound["gap"] == pytest.approx(error, rel=1e-12)
        assert error <= bound["gap"] * (1 + 1e-12)
        assert bound["gap"] < bound["collision"] < bound["entropy"]


@pytest.mark.parametrize("way", ["shifting", "cooling"])
def test_entropy_does_not_rule_the_error_alone(way, env):
    """An untrained policy made harder. One logit raised: error and signal vanish. All logits
    scaled: entropy falls too, yet the error grows, since ∂z/∂x does."""
    soft, prompt, prefix = make_policy(env, spread=0.0), env.prompts[9], env.encode("4")
    hard, found = copy.deepcopy(soft), []
    with torch.no_grad():
        if way == "shifting":  # the read-out of this is 16 for the stop, and next to 0 elsewhere
            hard.norm.bias += 16 * torch.linalg.pinv(hard.head.weight)[:, env.eos]
        else:
            hard.head.weight *= 9
    for each in (soft, hard):
        at = each.blocks[0]
        signal = value_gradient(each, env, prompt, prefix, at).square().sum().item()
        nats = entropy(each, env, prompt[None]).item()
        found.append((error_bound(each, env, prompt, at, prefix)["gap"], signal, nats))
    (error, signal, nats), (error2, signal2, nats2) = found
    assert nats2 < nats
    if way == "shifting":
        assert error2 < 1e-3 * error and signal2 < 1e-3 * signal
    else:
        assert error2 > 10 * error


def test_the_martingale_terms_against_their_definition(trained, env):
    """½ Σ π_u π_v ‖W(u) − W(v)‖² in plain loops, at one state and at the one before."""
    rollout, p = outcomes(trained, env, env.prompts[9], env.encode("4"))
    costates = empirical_costates(trained, rollout, rollout.rewards, trained.blocks[1])[:, 3]
    first = rollout.completions[:, 1]
    total, mass = 0.0, [p[first == v].sum() for v in range(13)]
    W = [p[first == v] @ costates[first == v] / mass[v] for v in range(13)]
    for u in range(13):
        for v in range(13):
            total += 0.5 * mass[u] * mass[v] * (W[u] - W[v]).square().sum()
    terms = martingale_terms(rollout, p, costates, 1)
    assert terms[0] == 0 and terms[1].item() == pytest.approx(total.item(), rel=1e-10)


def test_the_error_of_a_mean_of_costates_is_an_nth(trained, env, generator):
    """1,000 means of 16 samples each: the ratio of errors is 1/16 within 20%, above 4 sd."""
    prompt, at = env.prompts[9], trained.blocks[1]
    exact = value_gradient(trained, env, prompt, prompt[:0], at)
    rollout = sample(trained, env, prompt[None], 16 * 1000, generator)
    costates = empirical_costates(trained, rollout, rollout.rewards - 0.5, at)[:, 2]
    one = (costates - exact).square().sum(1).mean()
    many = (costates.view(1000, 16, 16).mean(1) - exact).square().sum(1)
    assert 4 * many.std() / 1000**0.5 < 0.2 * many.mean()
    assert (16 * many.mean() / one).item() == pytest.approx(1, abs=0.2)


def test_fisher_estimate_has_the_exact_mean(trained, env, generator):
    exact = error_bound(trained, env, env.prompts[9], trained.blocks[1])["fisher"]
    rollout = sample(trained, env, env.prompts[[9]], 8000, generator)
    estimate = fisher_estimate(trained, rollout, trained.blocks[1], generator)
    assert estimate.shape == (8000, 6)
    here = estimate[:, 2]
    z = (here.mean() - exact) / (here.std() / 8000**0.5)
    assert abs(z) < 4


def test_fisher_estimate_counts_nothing_after_the_stop(trained, env, generator):
    """Where one token is live, the mean is the spread at the prompt; z below 4."""
    rollout, _ = outcomes(trained, env, env.prompts[9])
    stopped = rollout.mask.sum(1) == 1
    rows = {name: value[stopped].expand(8000, -1) for name, value in vars(rollout).items()
            if name in ("prompts", "completions", "mask")}  # fmt: skip
    at, rows["group_size"] = trained.blocks[1], 8000
    _, logits, jacobian = state_jacobians(trained, env, env.prompts[9], at)
    estimate = fisher_estimate(trained, replace(rollout, **rows), at, generator)
    assert stopped.sum() == 1 and (estimate[:, 3:] == 0).all()
    here = estimate[:, 2]
    z = (here.mean() - spread(logits[0].softmax(0), jacobian[0])) / (here.std() / 8000**0.5)
    assert abs(z) < 4


def test_sampling_gap_and_its_mean_square(generator):
    logits = 2 * torch.randn(50, 13, generator=generator).double()
    pi = logits.softmax(-1)
    gaps = torch.stack([sampling_gap(logits, torch.full((50,), v)) for v in range(13)], 1)
    torch.testing.assert_close((pi[..., None] * gaps).sum(1), torch.zeros(50, 13).double())
    mean_square = (pi * gaps.square().sum(-1)).sum(1)
    torch.testing.assert_close(mean_square_gap(logits), mean_square)
    H = token_entropy(logits)
    torch.testing.assert_close(H, torch.distributions.Categorical(logits=logits).entropy())
    assert (mean_square <= 1 - torch.exp(-H)).all() and (1 - torch.exp(-H) <= H).all()


def test_spread_is_half_the_mean_squared_distance_of_two_draws(generator):
    pi = torch.rand(5, generator=generator).double()
    J = torch.randn(5, 3, generator=generator).double()
    pi = pi / pi.sum()
    pairs = sum(
        0.5 * pi[u] * pi[v] * (J[u] - J[v]).square().sum() for u in range(5) for v in range(5)
    )
    torch.testing.assert_close(spread(pi, J), pairs)


def test_jacobians_turn_gaps_into_scores(trained, env):
    """J_tᵀ(e_y − π) at the first state is the gradient of log π(y)."""
    at = trained.blocks[1]
    reached, logits, jacobian = state_jacobians(trained, env, env.prompts[9], at)
    assert reached[0] == 1 and len(reached) == 1 + 12 + 144 + 1728
    delta = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    with added(at, (torch.arange(3) == 2).double()[:, None] * delta):
        logprobs = trained(env.prompts[[9]])[0][0, -1].log_softmax(0)
    for y in (0, 5, 12):
        (score,) = torch.autograd.grad(logprobs[y], delta, retain_graph=True)
        gap = sampling_gap(logits[0], torch.tensor(y))
        torch.testing.assert_close(gap @ jacobian[0], score, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["random", "trained", "cold", "hot"])
@pytest.mark.parametrize("text", ["4", "4+"])
def test_dropping_the_own_logit_leaves_the_covariance(policies, env, name, text):
    policy, prompt, prefix = policies[name], env.prompts[9], env.encode(text)
    rollout, p = outcomes(policy, env, prompt, prefix)
    here, at = last(env, text), policy.blocks[1]
    whole = empirical_costates(policy, rollout, rollout.rewards, at)[:, here]
    own = own_logit_costates(policy, rollout, rollout.rewards, at)[:, here]
    _, logits, jacobian = state_jacobians(policy, env, prompt, at, prefix)
    pi = logits[0].softmax(0)
    first = rollout.completions[:, len(text)]
    Q = p.new_zeros(13).index_add(0, first, p * rollout.rewards) / pi
    bias, bounds = own_logit_bias(Q, pi, jacobian[0])
    exact = value_gradient(policy, env, prompt, prefix, at)
    torch.testing.assert_close(p @ (whole - own) - exact, bias)
    size = bias.norm().item()
    slack = 1 + 1e-9
    assert 0 < size <= bounds["cauchy"] <= bounds["gap"] * slack <= bounds["entropy"] * slack


def test_biased_relatives_are_biased(trained, env, generator):
    """Mean of 4,000 against ∇V: each misses by a tenth and by 4 standard errors."""
    prompt, at, n = env.prompts[9], trained.blocks[1], 4000
    exact = value_gradient(trained, env, prompt, prompt[:0], at)
    for relaxation in RELAXATIONS:
        each = relaxed_costates(trained, env, prompt, at, relaxation, n, generator)
        miss = (each.mean(0) - exact).norm()
        noise = (each.var(0).sum() / n).sqrt()
        assert miss > 4 * noise and miss > 0.1 * exact.norm()


def test_hard_inputs_against_the_sum_it_stands_for(trained, env, generator):
    """E Σ_t Σ_v r(y with y_t := v)·∇π_t(v): the later tokens were drawn after y_t, not after v."""
    # the mean over all texts, the stop not absorbing; 20,000 samples, z below 5 for each of 16
    texts = torch.cartesian_prod(*[torch.arange(13)] * 4)
    prompts = env.prompts[9].expand(len(texts), -1)
    delta = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    at, tokens = trained.blocks[1], torch.cat([prompts, texts[:, :-1]], 1)
    with added(at, (torch.arange(6) == 2).double()[:, None] * delta):
        pi = trained(tokens)[0][:, 2:].softmax(-1)
    p = pi.gather(-1, texts[..., None])[..., 0].prod(1).detach()
    rewards, total = env.reward(prompts, texts).view(13, 13, 13, 13), 0.0
    for t in range(4):  # the rewards of the 13 texts that differ in token t only
        swapped = rewards.movedim(t, -1)[..., None, :].expand(13, 13, 13, 13, 13).movedim(-2, t)
        total = total + (p[:, None] * swapped.reshape(-1, 13) * pi[:, t]).sum()
    (expected,) = torch.autograd.grad(total, delta)
    each = relaxed_costates(trained, env, env.prompts[9], at, "hard inputs", 20_000, generator)
    z = (each.mean(0) - expected) / (each.std(0) / 20_000**0.5)
    assert z.abs().max() < 5


def feed(policy, x, cache, delta=0.0):
    """Logits after embeddings x (B, L, D) that continue `cache`; delta enters the second block."""
    start = cache[0][0].size(2) if cache else 0
    x = x + policy.position_embedding.weight[start : start + x.size(1)]
    first, second = policy.blocks
    x, a = first(x, cache[0] if cache else None)
    x, b = second(x + delta, cache[1] if cache else None)
    return policy.head(policy.norm(x)), [a, b]


@pytest.mark.parametrize("relaxation", ["soft rollout", "straight-through"])
def test_relatives_that_feed_back_against_a_network_fed_with_mixtures(trained, env, relaxation):
    """The same draws; mixtures of embeddings are fed, and the reward is multiplied out by hand."""
    prompt, embedding, n, mixtures = env.prompts[9], trained.token_embedding.weight, 200, []
    draws = torch.Generator().manual_seed(1)
    delta = torch.zeros(n, 3, 16, dtype=torch.float64, requires_grad=True)
    logits, cache = feed(trained, embedding[prompt].expand(n, -1, -1), None, delta)
    for t in range(4):
        p = logits[:, -1].softmax(-1)
        drawn = torch.multinomial(p.detach(), 1, generator=draws)[:, 0]
        one_hot = torch.eye(13, dtype=torch.float64)[drawn]
        mixtures.append(p if relaxation == "soft rollout" else one_hot + p - p.detach())
        if t < 3:
            logits, cache = feed(trained, (mixtures[t] @ embedding)[:, None], cache)
    total = torch.zeros(n, dtype=torch.float64)
    for answer in env.solutions(prompt).tolist():
        product = torch.ones(n, dtype=torch.float64)
        for t in range(answer.index(env.eos) + 1):
            product = product * mixtures[t][:, answer[t]]
        total = total + product
    (expected,) = torch.autograd.grad(total.sum(), delta)
    draws.manual_seed(1)
    got = relaxed_costates(trained, env, prompt, trained.blocks[1], relaxation, n, draws)
    torch.testing.assert_close(got, expected[:, -1], rtol=1e-8, atol=1e-10)
    assert (got.norm(dim=1) > 0).any()


def test_bad_input_is_refused(trained, env, generator):
    prompt = env.prompts[0]
    with pytest.raises(ValueError, match="baseline must be between 0 and 1, not 2"):
        error_bound(trained, env, prompt, trained.norm, baseline=2)
    with pytest.raises(ValueError, match="relaxation must be .* not 'gumbel'"):
        relaxed_costates(trained, env, prompt, trained.norm, "gumbel", 2, generator)
