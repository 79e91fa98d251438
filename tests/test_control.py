"""z = |mean − truth| / standard error; z < 4 has a false alarm of 6e-5 per comparison; seeds are
fixed. Quadrature replaces normal noise by nodes and weights, so that means over it are exact."""

import dataclasses
import math

import numpy
import pytest
import torch

from minicf.control import CosineTrack

CONTRACTING, EXPANDING = CosineTrack(20, -0.2, 0.5), CosineTrack(20, 0.1, 0.5)
TRACKS = [CONTRACTING, EXPANDING, CosineTrack(1, 0.3, 0.7), CosineTrack(6, -1.6, 0.4),
          CosineTrack(5, 0.0, 0.5), CosineTrack(5, -1.0, 0.5), CosineTrack(8, -0.1, 0.0)]
SHORT = [CosineTrack(3, -0.2, 0.5), CosineTrack(3, 0.1, 0.8), CosineTrack(3, -1.5, 0.5)]
START = 1.0  # radians


def z_score(samples, truth):
    return ((samples.mean() - truth) / (samples.std() / math.sqrt(len(samples)))).abs().item()


def standard_error(samples):
    return (samples.std() / math.sqrt(len(samples))).item()


def simulate(track, count=20_000, start=START, seed=0):
    """`count` rollouts from one start: states (B, T+1) and their noise (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(count, track.horizon, generator=generator, dtype=torch.float64)
    return track.rollout(torch.full((count,), start).double(), eps), eps


def quadrature(track, start=START, nodes=22):
    """Every combination of Gauss-Hermite nodes as a rollout, and its probability."""
    x, weight = (torch.tensor(a) for a in numpy.polynomial.hermite_e.hermegauss(nodes))
    weight = weight / weight.sum()
    eps = torch.cartesian_prod(*[x] * track.horizon)  # (nodes^T, T)
    probability = torch.cartesian_prod(*[weight] * track.horizon).prod(1)
    return track.rollout(torch.full_like(probability, start), eps), eps, probability


def random_rollouts(track, count=7):
    generator = torch.Generator().manual_seed(1)
    s = 2 * torch.randn(count, generator=generator, dtype=torch.float64)
    return s, torch.randn(count, track.horizon, generator=generator, dtype=torch.float64)


def closed_form(rho, s, horizon, noise):
    """V, written a second time, term by term, with ρ a tensor that can be differentiated."""
    total, variance = torch.zeros_like(s), torch.zeros_like(s)
    for k in range(1, horizon + 1):
        variance = variance + noise**2 * rho ** (2 * (k - 1))
        total = total + torch.cos(rho**k * s) * torch.exp(-variance / 2)
    return total


# Closed forms against autograd, finite differences, quadrature, simulation.


@pytest.mark.parametrize("track", TRACKS)
def test_value_gradient_is_the_derivative_of_value(track):
    s = torch.linspace(-3, 3, 10, dtype=torch.float64).view(2, 5).requires_grad_()
    for steps in {None, 0, 1, track.horizon // 2}:
        (expected,) = torch.autograd.grad(track.value(s, steps).sum(), s)
        got = track.value_gradient(s.detach(), steps)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("track", TRACKS)
def test_objective_gradient_against_autograd_and_finite_differences(track):
    s = torch.linspace(-3, 3, 10, dtype=torch.float64).view(2, 5)
    rho = torch.full_like(s, track.rho).requires_grad_()
    value = closed_form(rho, s, track.horizon, track.noise)
    torch.testing.assert_close(track.value(s), value.detach(), rtol=1e-12, atol=1e-12)
    (expected,) = torch.autograd.grad(value.sum(), rho)
    got = track.objective_gradient(s)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
    up, down = (dataclasses.replace(track, gain=track.gain + h).value(s) for h in (1e-6, -1e-6))
    torch.testing.assert_close(got, (up - down) / 2e-6, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("track", SHORT)
def test_every_closed_form_and_mean_by_quadrature(track):
    """Three steps, 22³ weighted rollouts: V, E[λ_0] = ∇V and both estimators, to rounding."""
    states, eps, probability = quadrature(track)
    s = torch.tensor(START).double()

    def mean(samples):
        return (probability * samples).sum().item()

    assert mean(torch.cos(states[:, 1:]).sum(1)) == pytest.approx(track.value(s).item(), abs=1e-12)
    costate, truth = mean(track.costates(states)[:, 0]), track.value_gradient(s).item()
    assert costate == pytest.approx(truth, abs=1e-12)
    truth = track.objective_gradient(s).item()
    assert mean(track.pathwise_gradient(states)) == pytest.approx(truth, abs=1e-12)
    assert mean(track.score_function_gradient(states, eps)) == pytest.approx(truth, abs=1e-12)


@pytest.mark.parametrize("track", [CONTRACTING, EXPANDING])
def test_value_against_simulation(track):
    returns = torch.cos(simulate(track)[0][:, 1:]).sum(1)
    assert z_score(returns, track.value(torch.tensor(START).double())) < 4
    assert standard_error(returns) < 0.05  # in reward; V is 13.9 and 0.57


def test_value_has_the_shape_of_s_and_ends_at_zero():
    s, track = torch.zeros(2, 3, 4), CONTRACTING
    assert track.value(s).shape == track.objective_gradient(s).shape == (2, 3, 4)
    assert torch.equal(track.value(s, 0), s) and torch.equal(track.value_gradient(s, 0), s)


# The costate: the recursion is autograd, its mean is the value gradient.


@pytest.mark.parametrize("track", TRACKS)
def test_recursion_is_autograd(track):
    s, eps = random_rollouts(track)
    with torch.no_grad():  # as in a lesson that evaluates: autograd switches itself on
        got, expected = track.costates(track.rollout(s, eps)), track.costates_by_autograd(s, eps)
    assert (got - expected).abs().max() <= 1e-12 * (1 + expected.abs().max())
    assert torch.equal(got[:, -1], torch.zeros_like(s))


@pytest.mark.parametrize("t", [0, 1, 7, 13, 18, 19])
def test_mean_costate_is_the_value_gradient(t):
    """Restarted from a fixed s_t with T − t steps left; what came before (nan) must not matter."""
    for track, start in ((CONTRACTING, START), (CONTRACTING, -2.5), (EXPANDING, START)):
        rest = dataclasses.replace(track, horizon=track.horizon - t)
        later, _ = simulate(rest, start=start, seed=t)
        states = torch.cat([torch.full((len(later), t), math.nan), later], 1)
        costates = track.costates(states)[:, t]
        truth = track.value_gradient(torch.tensor(start).double(), track.horizon - t)
        assert z_score(costates, truth) < 4
        if track == CONTRACTING:  # the test has power: a standard error within 1% of the truth
            assert standard_error(costates) < 0.01 * abs(truth)


def test_noise_free_costate_is_not_the_value_gradient():
    """Negative control. Without the factors exp(−½σ²A_k) it is a quarter too long, and z > 30."""
    for start in (START, 2.0, -2.5):
        s = torch.full((1,), start).double()
        noise_free = CONTRACTING.costates_by_autograd(s, torch.zeros(1, 20).double())[0, 0]
        truth = CONTRACTING.value_gradient(s)[0]
        assert 1.2 < noise_free / truth < 1.3
        costates = CONTRACTING.costates(simulate(CONTRACTING, start=start)[0])[:, 0]
        assert z_score(costates, truth) < 4 and z_score(costates, noise_free) > 30


def test_without_noise_they_are_the_same():
    track = dataclasses.replace(CONTRACTING, noise=0.0)
    s, eps = random_rollouts(track)
    costates = track.costates(track.rollout(s, eps))[:, 0]
    torch.testing.assert_close(costates, track.value_gradient(s), rtol=1e-12, atol=1e-12)
    gradient = track.pathwise_gradient(track.rollout(s, eps))  # every rollout is the exact gradient
    torch.testing.assert_close(gradient, track.objective_gradient(s), rtol=1e-12, atol=1e-12)


# A reader's bugs: each is a recursion that runs and looks plausible, and misses the mean by far.

WRONG = {
    "sign flipped": lambda rho, later, here, after: rho * (later + torch.sin(after)),
    "reward one step early": lambda rho, later, here, after: rho * (later - torch.sin(here)),
    "without rho": lambda rho, later, here, after: later - torch.sin(after),
    "rho on one term only": lambda rho, later, here, after: later - rho * torch.sin(after),
}


def recursion(step, track, states):
    costates = torch.zeros_like(states)
    for t in reversed(range(track.horizon)):
        costates[:, t] = step(track.rho, costates[:, t + 1], states[:, t], states[:, t + 1])
    return costates


@pytest.mark.parametrize("bug", WRONG)
def test_wrong_recursions_miss_autograd_and_the_value_gradient(bug):
    states, eps = simulate(CONTRACTING)
    truth = CONTRACTING.value_gradient(states[0, 0])
    wrong = recursion(WRONG[bug], CONTRACTING, states)
    assert z_score(CONTRACTING.costates(states)[:, 0], truth) < 4
    assert z_score(wrong[:, 0], truth) > 20
    autograd = CONTRACTING.costates_by_autograd(states[:5, 0], eps[:5])
    assert (wrong[:5] - autograd).abs().max() > 0.5


# The two estimators of dJ/dθ.


@pytest.mark.parametrize("track", TRACKS)
def test_estimators_rollout_by_rollout_against_autograd(track):
    """Pathwise: through states that depend on θ. Score function: log π times rewards to come."""
    s, eps = random_rollouts(track)
    theta = torch.full_like(s, track.gain).requires_grad_()
    states, actions = [s], []
    for t in range(track.horizon):
        actions.append(theta * states[t] + track.noise * eps[:, t])
        states.append(states[t] + actions[t])
    rewards = [torch.cos(state) for state in states[1:]]  # reward t is that of s_{t+1}
    (expected,) = torch.autograd.grad(sum(rewards).sum(), theta)
    states = torch.stack(states, 1).detach()
    torch.testing.assert_close(track.pathwise_gradient(states), expected, rtol=1e-11, atol=1e-11)
    if track.noise == 0:
        return
    surrogate = torch.zeros_like(s)
    for t in range(track.horizon):
        policy = torch.distributions.Normal(theta * states[:, t], track.noise)
        surrogate += policy.log_prob(actions[t].detach()) * sum(rewards[t:]).detach()
    (expected,) = torch.autograd.grad(surrogate.sum(), theta)
    got = track.score_function_gradient(states, eps)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("track", [CONTRACTING, EXPANDING])
def test_both_estimators_have_the_mean_of_the_closed_form(track):
    states, eps = simulate(track, seed=2)
    truth = track.objective_gradient(states[0, 0])
    assert z_score(track.pathwise_gradient(states), truth) < 4
    assert z_score(track.score_function_gradient(states, eps), truth) < 4


def test_which_estimator_varies_less_depends_on_the_track():
    """Variance of the score function over that of pathwise, from s = 1 with σ = .5 and T = 20."""
    ratio = {}
    for track in (CONTRACTING, EXPANDING):
        states, eps = simulate(track, count=50_000)
        score = track.score_function_gradient(states, eps)
        ratio[track] = (score.var() / track.pathwise_gradient(states).var()).item()
    assert ratio[CONTRACTING] == pytest.approx(7.7, rel=0.1)
    assert ratio[EXPANDING] == pytest.approx(0.13, rel=0.1)


# Why a cosine: with a linear-quadratic world nobody would notice that the noise was left out.


def test_linear_quadratic_costates_hide_the_noise():
    """Reward −s²/2 has λ_t = ρ(λ_{t+1} − s_{t+1}), linear in the states. The noises ε and −ε then
    average to the noise-free costate exactly, which is ∇V = −Σ ρ²ᵏ s. With a cosine they do not."""
    track, (s, eps) = CONTRACTING, random_rollouts(CONTRACTING)
    rollouts = [track.rollout(s, sign * eps) for sign in (1, -1, 0)]

    def quadratic(rho, later, here, after):
        return rho * (later - after)

    plus, minus, noise_free = (recursion(quadratic, track, states)[:, 0] for states in rollouts)
    value_gradient = -sum(track.rho ** (2 * k) for k in range(1, track.horizon + 1)) * s
    torch.testing.assert_close((plus + minus) / 2, noise_free, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(noise_free, value_gradient, rtol=1e-12, atol=1e-12)
    assert (plus - noise_free).abs().min() > 0.01  # the noise is there, and averages out
    plus, minus, noise_free = (track.costates(states)[:, 0] for states in rollouts)
    assert ((plus + minus) / 2 - noise_free).abs().min() > 0.01


# Bad input.


@pytest.mark.parametrize("name, value", [
    ("horizon", 0), ("horizon", -3), ("horizon", 2.5), ("gain", math.nan), ("gain", math.inf),
    ("noise", -0.1), ("noise", math.nan), ("noise", math.inf),
])
def test_bad_tracks_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .* not {value}$"):
        dataclasses.replace(CONTRACTING, **{name: value})


def test_bad_input_is_refused():
    track, ones = CosineTrack(3, 0.1, 0.5), torch.ones(2, 4)
    for steps in (-1, 4, 1.5):
        with pytest.raises(ValueError, match=f"steps must be 0 to horizon 3, not {steps}"):
            track.value(ones, steps)
    with pytest.raises(ValueError, match=r"s must have the shape \(8,\), not \(2, 4\)"):
        track.rollout(ones, ones)
    with pytest.raises(ValueError, match=r"eps must have the shape \(2, 3\), not \(2, 4\)"):
        track.rollout(ones[:, 0], ones)
    with pytest.raises(ValueError, match=r"states must have the shape \(2, 4\), not \(2, 3\)"):
        track.pathwise_gradient(ones[:, :3])
    with pytest.raises(ValueError, match=r"eps must have the shape \(2, 3\), not \(2, 4\)"):
        track.score_function_gradient(ones, ones)
    with pytest.raises(ValueError, match="noise must be above 0 .* not 0"):
        CosineTrack(3, 0.1, 0.0).score_function_gradient(ones, ones[:, :3])
