import math
from dataclasses import replace

import pytest
import torch
from conftest import cosine, make_policy

from minicf.costate import (
    RELAXATIONS, alignment, attention_share, empirical_costates, error_bound, fisher_estimate,
    martingale_terms, mean_square_gap, own_logit_bias, own_logit_costates, relaxed_costates,
    sampling_gap, spread, state_jacobians, token_entropy,
)  # fmt: skip
from minicf.exact import expected_advantages, outcomes, prefix_values, success, value_gradient
from minicf.grpo import group_advantages
from minicf.rollout import completion_logprobs, sample

LAYERS = [0, 1, 2]
CASES = [(9, "", 1), *((9, "4", layer) for layer in LAYERS), (12, "9+", 0)]  # target, prefix, layer
G = 4


@pytest.fixture(scope="module")
def start(trained, env):
    """Every completion of `09=`, its probability and score: the costate per unit of advantage."""
    rollout, p = outcomes(trained, env, env.prompts[9])
    scores = empirical_costates(trained, rollout, torch.ones(len(p)), 1)[:, 2]
    exact = value_gradient(trained, env, env.prompts[9], env.encode(""), 1)
    return rollout, p, scores, exact


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


def place(env, text):
    """The position of the last token of a state."""
    return env.prompt_length + len(text) - 1


def expected_costate(policy, env, target, text, layer, advantages=None):
    """Exact mean of the empirical costate at the state's last token; default advantage: reward."""
    rollout, p = outcomes(policy, env, env.prompts[target], env.encode(text))
    scores = rollout.rewards if advantages is None else advantages(rollout, p)
    return p @ empirical_costates(policy, rollout, scores, layer)[:, place(env, text)]


def truth(policy, env, target, text, layer):
    return value_gradient(policy, env, env.prompts[target], env.encode(text), layer)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


# C2: the mean of the costate is the value gradient.


@pytest.mark.parametrize("target, text, layer", CASES)
@pytest.mark.parametrize("baseline", [0.0, 0.5, 1.0])
def test_expected_costate_is_the_value_gradient(trained, env, layer, target, text, baseline):
    got = expected_costate(trained, env, target, text, layer, lambda r, p: r.rewards - baseline)
    assert relative(got, truth(trained, env, target, text, layer)) < 1e-10


def test_it_is_so_at_earlier_positions_too_and_not_off_by_one(trained, env):
    prompt, prefix = env.prompts[9], env.encode("4")
    rollout, p = outcomes(trained, env, prompt, prefix)
    later = torch.ones(len(p), 4)
    later[:, 0] = 0  # its own term is no part of what follows the state
    costates = empirical_costates(trained, rollout, later * rollout.rewards[:, None], 1)
    for position in range(4):
        got = p @ costates[:, position]
        exact = value_gradient(trained, env, prompt, prefix, 1, position)
        assert relative(got, exact) < 1e-10
        others = [q for q in range(4) if q != position]
        assert min(relative(p @ costates[:, q], exact) for q in others) > 0.02


def test_a_baseline_per_token_may_see_the_tokens_before(trained, env):
    """b_t = V(s_t), what a perfect critic would say."""

    def advantages(rollout, p):
        values = prefix_values(trained, env, rollout.prompts, rollout.completions)
        return rollout.rewards[:, None] - values

    got = expected_costate(trained, env, 9, "", 1, advantages)
    assert relative(got, truth(trained, env, 9, "", 1)) < 1e-10


def test_a_batch_in_one_pass_is_row_by_row(trained, env, generator):
    rollout = sample(trained, env, env.prompts[[3, 9]], 3, generator)
    advantages = torch.randn(6, generator=generator).double()
    together = empirical_costates(trained, rollout, advantages, 1)
    assert together.shape == (6, 6, 16)
    for b in range(6):
        delta = torch.zeros(1, 6, 16, dtype=torch.float64, requires_grad=True)
        logprobs = completion_logprobs(
            trained, rollout.prompts[[b]], rollout.completions[[b]], nudge={1: delta}
        )
        surrogate = advantages[b] * logprobs[rollout.mask[[b]]].sum()
        (alone,) = torch.autograd.grad(surrogate, delta)
        torch.testing.assert_close(together[[b]], alone)


def test_causality_terms_before_a_position_contribute_exactly_zero(trained, env, generator):
    rollout = sample(trained, env, env.prompts[[9]], 6, generator)
    early = torch.zeros(6, 4)
    early[:, :2] = 1.0  # the advantage of the first two tokens only
    costates = empirical_costates(trained, rollout, early, 0)
    assert (costates[:, 2 + 2 :] == 0).all() and (costates[:, 3].norm(dim=1) > 0).any()


def test_costates_after_the_stop_are_zero(trained, env, generator):
    rollout = sample(trained, env, env.prompts[[5]], 20, generator)
    costates = empirical_costates(trained, rollout, torch.ones(20), 1)[:, 2:]  # (20, T, D)
    assert (costates[~rollout.mask] == 0).all() and not rollout.mask.all()
    assert (costates[rollout.mask].norm(dim=1) > 0).all()


# C2's negative controls. Each is a silent bug, and each turns the mean costate.


def test_shuffled_rewards_point_nowhere(trained, env, start, generator):
    """2,000 samples, 200 shuffles: the mean cosine is 0, z below 3, false alarm .003."""
    rollout, exact = sample(trained, env, env.prompts[[9]], 2000, generator), start[-1]
    scores = empirical_costates(trained, rollout, torch.ones(2000), 1)[:, 2]
    advantages, cosines = rollout.rewards - rollout.rewards.mean(), []
    for _ in range(200):
        order = torch.randperm(2000, generator=generator)
        cosines.append(cosine(advantages[order].double() @ scores, exact))
    cosines = torch.tensor(cosines)
    assert abs(cosines.mean() / (cosines.std() / 200**0.5)) < 3
    assert cosine(advantages.double() @ scores, exact) > 0.8


def test_the_flipped_sign_is_seen(start):
    rollout, p, scores, exact = start
    assert cosine(p * -rollout.rewards @ scores, exact) == pytest.approx(-1)


def test_a_baseline_that_peeks_at_its_own_sample_is_seen(start):
    """The exact value *after* the first token, subtracted before it."""
    rollout, p, scores, exact = start
    seen = rollout.completions[:, 0]
    mass, hits = (p.new_zeros(13).index_add(0, seen, w) for w in (p, p * rollout.rewards))
    assert relative(p * (rollout.rewards - (hits / mass)[seen]) @ scores, exact) > 0.1


def test_dividing_by_the_own_length_is_seen(start):
    rollout, p, scores, exact = start
    lengths = rollout.mask.sum(1)
    for baseline in (0.0, 0.5):
        got = cosine(p * ((rollout.rewards - baseline) / lengths) @ scores, exact)
        assert got < 1 - 1e-4  # undivided it is 1 to twelve digits


def test_a_mask_one_token_short_is_seen(trained, env):
    """The stop left untrained: its term misses from the sum."""

    def stop_dropped(rollout, p):
        last = rollout.mask & ~torch.nn.functional.pad(rollout.mask[:, 1:], (0, 1))
        return rollout.rewards[:, None] * ~last

    got = expected_costate(trained, env, 9, "4", 1, stop_dropped)
    assert relative(got, truth(trained, env, 9, "4", 1)) > 0.01


# C3: what the advantage does, group-mates entering through a binomial.


@pytest.mark.parametrize(
    "baseline, scale", [("mean", "none"), ("leave-one-out", "none"), ("mean", "std")]
)
def test_group_advantages_scale_the_costate_and_do_not_turn_it(start, baseline, scale):
    rollout, p, scores, exact = start
    V = (p @ rollout.rewards.double()).item()
    wrong, right = expected_advantages(V, G, baseline, scale)
    factor = right - wrong
    advantages = wrong + (right - wrong) * rollout.rewards.double()
    assert relative(p * advantages @ scores, factor * exact) < 1e-10
    expected = {"mean": 1 - 1 / G, "leave-one-out": 1.0}[baseline]
    assert scale == "std" and factor > 1 or factor == pytest.approx(expected, rel=1e-12)


def test_the_std_factor_tends_to_one_over_the_rewards_std():
    V, factors = 0.3, {}
    for size in (4, 64, 512):
        wrong, right = expected_advantages(V, size)
        factors[size] = right - wrong
    limit = 1 / math.sqrt(V * (1 - V))
    assert factors[512] == pytest.approx(limit, rel=0.01)
    assert abs(factors[4] / limit - 1) > 0.05


def test_the_group_factor_by_sampled_groups(trained, env, generator):
    """Binomial shortcut beside 8,000 sampled groups: mean advantage of right and wrong, z < 4."""
    rollout = sample(trained, env, env.prompts[[9]], 8_000 * G, generator)
    rewards = rollout.rewards.double()
    advantages = group_advantages(rewards, G)
    means = expected_advantages(success(trained, env)[9].item(), G, "mean", "std")
    for reward in (0, 1):
        some = advantages[rewards == reward]
        z = (some.mean() - means[reward]) / (some.std() / len(some) ** 0.5)
        assert abs(z) < 4


# C4: own logit and attention.


@pytest.mark.parametrize("target, text, layer", CASES)
def test_the_two_parts_are_the_terms_of_the_product_rule(trained, env, layer, target, text):
    prompt, prefix, here = env.prompts[target], env.encode(text), place(env, text)
    rollout, p = outcomes(trained, env, prompt, prefix)
    own = p @ own_logit_costates(trained, rollout, rollout.rewards, layer)[:, here]
    whole = p @ empirical_costates(trained, rollout, rollout.rewards, layer)[:, here]

    delta = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    last = (torch.arange(here + 1) == here).double()[:, None]
    state = torch.cat([prompt, prefix])[None]
    policy_here = trained(state, nudge={layer: last * delta})[0][0, -1].softmax(0)
    first, second = torch.zeros(16).double(), torch.zeros(16).double()
    for v in range(13):
        nxt = torch.cat([prefix, torch.tensor([v])])
        (slope,) = torch.autograd.grad(policy_here[v], delta, retain_graph=True)
        if v == env.eos:
            answer = torch.full((1, 4), env.eos)
            answer[0, : len(prefix)] = prefix
            first += env.reward(prompt[None], answer)[0] * slope
            continue
        branch, q = outcomes(trained, env, prompt, nxt)
        first += (q @ branch.rewards.double()) * slope
        second += policy_here[v].detach() * value_gradient(trained, env, prompt, nxt, layer, here)
    torch.testing.assert_close(own, first, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole - own, second, rtol=1e-9, atol=1e-12)
    share = attention_share(whole - own, whole) + attention_share(own, whole)
    assert share.item() == pytest.approx(1)


def test_nothing_is_transported_above_the_last_block(trained, env, generator):
    """Negative control of the attention share."""
    rollout = sample(trained, env, env.prompts, 2, generator)
    ones = torch.ones(len(rollout.rewards))
    for layer in LAYERS:
        whole = empirical_costates(trained, rollout, ones, layer)
        own = own_logit_costates(trained, rollout, ones, layer)
        assert (whole == own).all() if layer == 2 else (whole - own).norm() > 0
        assert (own[:, :2] == 0).all()  # no own logit before the prompt's last token
        assert (whole[:, :2] == 0).all() == (layer == 2)


# C5: the error.


NAMES = ("random", "trained", "wide", "cold", "hot")


@pytest.mark.parametrize(
    "name, text, layer",
    [(name, "4", layer) for name in NAMES for layer in (0, 2)]
    + [("trained", "", 0)],
)
def test_both_identities_and_the_order_of_the_bounds(policies, env, name, layer, text):
    policy, prompt, prefix = policies[name], env.prompts[9], env.encode(text)
    rollout, p = outcomes(policy, env, prompt, prefix)
    exact = truth(policy, env, 9, text, layer)
    scores = empirical_costates(policy, rollout, torch.ones(len(p)), layer)[:, place(env, text)]
    for baseline in (0.5, 0.0, 0.3):
        costates = (rollout.rewards - baseline).double()[:, None] * scores
        error = (p @ (costates - exact).square().sum(1)).item()
        steps = martingale_terms(rollout, p, costates, len(text))
        assert steps.sum().item() == pytest.approx(error, rel=1e-12)
        assert (steps >= -1e-12 * error).all() and (steps[: len(text)] == 0).all()
        bound = error_bound(policy, env, prompt, layer, prefix, baseline)
        if baseline == 0.5:
            assert bound["gap"] == pytest.approx(error, rel=1e-12)
        assert error <= bound["gap"] * (1 + 1e-12)
        assert bound["gap"] < bound["collision"] < bound["entropy"]


def test_the_martingale_terms_against_their_definition(trained, env):
    """½ Σ π_u π_v ‖W(u) − W(v)‖² in plain loops, at one state and at the one before."""
    rollout, p = outcomes(trained, env, env.prompts[9], env.encode("4"))
    costates = empirical_costates(trained, rollout, rollout.rewards, 1)[:, 3]
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
    exact = truth(trained, env, 9, "", 1)
    rollout = sample(trained, env, env.prompts[[9]], 16 * 1000, generator)
    costates = empirical_costates(trained, rollout, rollout.rewards - 0.5, 1)[:, 2]
    one = (costates - exact).square().sum(1).mean()
    many = (costates.view(1000, 16, 16).mean(1) - exact).square().sum(1)
    assert 4 * many.std() / 1000**0.5 < 0.2 * many.mean()
    assert (16 * many.mean() / one).item() == pytest.approx(1, abs=0.2)


def test_fisher_estimate_has_the_exact_mean(trained, env, generator):
    exact = error_bound(trained, env, env.prompts[9], 1)["fisher"]
    rollout = sample(trained, env, env.prompts[[9]], 20_000, generator)
    estimate = fisher_estimate(trained, rollout, 1, generator)
    assert estimate.shape == (20_000, 6)
    here = estimate[:, 2]
    z = (here.mean() - exact) / (here.std() / 20_000**0.5)
    assert abs(z) < 4


def test_fisher_estimate_counts_nothing_after_the_stop(trained, env, generator):
    """Where one token is live, the mean is the spread at the prompt; z below 4."""
    rollout, _ = outcomes(trained, env, env.prompts[9])
    stopped = rollout.mask.sum(1) == 1
    rows = {name: value[stopped].expand(20_000, -1) for name, value in vars(rollout).items()
            if name in ("prompts", "completions", "mask")}  # fmt: skip
    _, (logits, *_), (jacobian, *_) = state_jacobians(trained, env, env.prompts[9], 1)
    estimate = fisher_estimate(trained, replace(rollout, **rows), 1, generator)
    assert stopped.sum() == 1 and (estimate[:, 3:] == 0).all()
    here = estimate[:, 2]
    z = (here.mean() - spread(logits.softmax(0), jacobian)) / (here.std() / 20_000**0.5)
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
    reached, logits, jacobian = state_jacobians(trained, env, env.prompts[9], 1)
    assert reached[0] == 1 and len(reached) == 1 + 12 + 144 + 1728
    delta = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    last = (torch.arange(3) == 2).double()[:, None]
    logprobs = trained(env.prompts[[9]], nudge={1: last * delta})[0][0, -1].log_softmax(0)
    for y in (0, 5, 12):
        (score,) = torch.autograd.grad(logprobs[y], delta, retain_graph=True)
        gap = sampling_gap(logits[0], torch.tensor(y))
        torch.testing.assert_close(gap @ jacobian[0], score, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["random", "trained", "cold", "hot"])
@pytest.mark.parametrize("text", ["4", "4+"])
def test_dropping_the_own_logit_leaves_the_covariance(policies, env, name, text):
    policy, prompt, prefix = policies[name], env.prompts[9], env.encode(text)
    rollout, p = outcomes(policy, env, prompt, prefix)
    here = place(env, text)
    whole = empirical_costates(policy, rollout, rollout.rewards, 1)[:, here]
    own = own_logit_costates(policy, rollout, rollout.rewards, 1)[:, here]
    _, logits, jacobian = state_jacobians(policy, env, prompt, 1, prefix)
    pi = logits[0].softmax(0)
    first = rollout.completions[:, len(text)]
    Q = p.new_zeros(13).index_add(0, first, p * rollout.rewards) / pi
    bias, bounds = own_logit_bias(Q, pi, jacobian[0])
    torch.testing.assert_close(p @ (whole - own) - truth(policy, env, 9, text, 1), bias)
    size = bias.norm().item()
    slack = 1 + 1e-9
    assert 0 < size <= bounds["cauchy"] <= bounds["gap"] * slack <= bounds["entropy"] * slack


def test_biased_relatives_are_biased(trained, env, generator):
    """Mean of 4,000 against ∇V: each misses by a tenth and by 4 standard errors."""
    exact, n = truth(trained, env, 9, "", 1), 4000
    for relaxation in RELAXATIONS:
        each = relaxed_costates(trained, env, env.prompts[9], 1, relaxation, n, generator)
        miss = (each.mean(0) - exact).norm()
        noise = (each.var(0).sum() / n).sqrt()
        assert miss > 4 * noise and miss > 0.1 * exact.norm()


def test_hard_inputs_against_the_sum_it_stands_for(trained, env, generator):
    """E Σ_t Σ_v r(y with y_t := v)·∇π_t(v): the later tokens were drawn after y_t, not after v."""
    # the mean over all texts, the stop not absorbing; 20,000 samples, z below 5 for each of 16
    texts = torch.cartesian_prod(*[torch.arange(13)] * 4)
    prompts = env.prompts[9].expand(len(texts), -1)
    delta = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    last = (torch.arange(6) == 2).double()[:, None]
    tokens = torch.cat([prompts, texts[:, :-1]], 1)
    pi = trained(tokens, nudge={1: last * delta})[0][:, 2:].softmax(-1)
    p = pi.gather(-1, texts[..., None])[..., 0].prod(1).detach()
    rewards, total = env.reward(prompts, texts).view(13, 13, 13, 13), 0.0
    for t in range(4):  # the rewards of the 13 texts that differ in token t only
        swapped = rewards.movedim(t, -1)[..., None, :].expand(13, 13, 13, 13, 13).movedim(-2, t)
        total = total + (p[:, None] * swapped.reshape(-1, 13) * pi[:, t]).sum()
    (expected,) = torch.autograd.grad(total, delta)
    each = relaxed_costates(trained, env, env.prompts[9], 1, "hard inputs", 20_000, generator)
    z = (each.mean(0) - expected) / (each.std(0) / 20_000**0.5)
    assert z.abs().max() < 5


def test_alignment_gives_cosine_and_length():
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert [x.item() for x in alignment(-a, b)] == pytest.approx([-1, 3])


def test_bad_input_is_refused(trained, env, generator):
    rollout = sample(trained, env, env.prompts[:2], 2, generator)
    with pytest.raises(ValueError, match="advantages must be .* not \\(3,\\)"):
        empirical_costates(trained, rollout, torch.ones(3), 0)
    with pytest.raises(ValueError, match="layer must be 0 to 2, not -1"):
        empirical_costates(trained, rollout, torch.ones(4), -1)
    with pytest.raises(ValueError, match="baseline must be between 0 and 1, not 2"):
        error_bound(trained, env, env.prompts[0], 0, baseline=2)
    with pytest.raises(ValueError, match="relaxation must be .* not 'gumbel'"):
        relaxed_costates(trained, env, env.prompts[0], 0, "gumbel", 2, generator)
