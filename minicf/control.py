"""A differentiable world with a closed form: the mean costate is the value gradient (claim C1).

States in radians, additive noise, and a reward for being near a crest of the cosine:

    s_{t+1} = s_t + a_t,   a_t = θ·s_t + σ·ε_t,   ε_t ~ N(0, 1),   reward cos(s_t) for t = 1 … T.

With ρ = 1 + θ, the state k steps after s is N(ρᵏs, σ²A_k), A_k = Σ_{i<k} ρ²ⁱ. The mean of the
cosine of N(m, v) is cos(m)·exp(−v/2), so the value with n steps left and its gradient are

    V(s) = Σ_{k=1…n} cos(ρᵏs)·exp(−½σ²A_k),    ∇V(s) = −Σ_{k=1…n} ρᵏ·sin(ρᵏs)·exp(−½σ²A_k).

The costate of one rollout is λ_t = ∂/∂s_t Σ_{k>t} cos s_k, the noise held fixed; backwards in time,
λ_T = 0 and λ_t = ρ·(λ_{t+1} − sin s_{t+1}). Claim: E[λ_t | s_t] = ∇V_t(s_t), T − t steps left.
Proof, back from λ_T = 0 = ∇V_T: V_t(s) = E[cos s' + V_{t+1}(s')] at s' = ρs + σε, and therefore
∇V_t(s) = ρ·E[∇V_{t+1}(s') − sin s'] = ρ·E[λ_{t+1} − sin s' | s_t = s] = E[λ_t | s_t = s].

The costate of the noise-free rollout is not ∇V: it lacks the factors exp(−½σ²A_k), because the mean
of a sine is not the sine of the mean. A linear-quadratic problem would hide this: its costate is
linear in the states, so its mean over the noise is the costate without noise.

Two estimators of dJ/dθ, J = V_0(s_0), have one mean, by Stein's lemma E[ε·f(ε)] = E[f'(ε)]: the
pathwise one carries costates, the score function only returns. Pathwise varies less on a track that
contracts with small noise; the score function where |ρ| ≥ 1 and T is large, or where σ is large.

Sources: arXiv:2605.21654, the idea; Pontryagin et al. 1962 and Bryson & Ho 1969, the adjoint;
Glasserman 1991 (pathwise), Williams 1992 (score function), Mohamed et al. 2020, "Monte Carlo
Gradient Estimation in Machine Learning" (both).

Left out on purpose: non-linear or unknown dynamics, costs of actions, a discount, and a baseline
for the score function, which would change its variance and not its mean.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class CosineTrack:
    """The world and its linear policy; s in radians. Bad shapes and numbers raise ValueError."""

    horizon: int  # T
    gain: float  # θ; the track contracts for −2 < θ < 0
    noise: float  # σ, radians per step

    def __post_init__(self):
        if not isinstance(self.horizon, int) or self.horizon < 1:
            raise ValueError(f"horizon must be a whole number of at least 1, not {self.horizon!r}")
        if not math.isfinite(self.gain):
            raise ValueError(f"gain must be a finite number, not {self.gain}")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be a finite number of at least 0, not {self.noise}")

    @property
    def rho(self) -> float:
        """ρ = 1 + θ, by which one step multiplies the state."""
        return 1 + self.gain

    def value(self, s: Tensor, steps: int | None = None) -> Tensor:
        """V, the expected sum of rewards from s (any shape) with `steps` left, by default all T."""
        k, damping = self._damping(s, steps)
        return (damping * torch.cos(self.rho**k * s.unsqueeze(-1))).sum(-1)

    def value_gradient(self, s: Tensor, steps: int | None = None) -> Tensor:
        """∇V, the derivative of `value` in s (any shape), in reward per radian."""
        k, damping = self._damping(s, steps)
        return -(damping * self.rho**k * torch.sin(self.rho**k * s.unsqueeze(-1))).sum(-1)

    def objective_gradient(self, s: Tensor) -> Tensor:
        """dJ/dθ of J = V_0(s), s of any shape: through the mean ρᵏs and the variance σ²A_k."""
        k, damping = self._damping(s, None)
        mean = self.rho**k * s.unsqueeze(-1)  # (…, T)
        mean_slope = k * self.rho ** (k - 1) * s.unsqueeze(-1)
        sum_slope = (2 * k * self.rho ** (2 * k - 1)).cumsum(0)  # dA_{k+1}/dρ, and dA_1/dρ = 0
        variance_slope = self.noise**2 * F.pad(sum_slope[:-1], (1, 0))  # (T,)
        slope = -torch.sin(mean) * mean_slope - 0.5 * torch.cos(mean) * variance_slope
        return (damping * slope).sum(-1)

    def _damping(self, s: Tensor, steps: int | None) -> tuple[Tensor, Tensor]:
        """k = 1 … steps, and exp(−½σ²A_k), by which noise shrinks the mean of a cosine or sine."""
        steps = self.horizon if steps is None else steps
        if steps not in range(self.horizon + 1):
            raise ValueError(f"steps must be 0 to horizon {self.horizon}, not {steps}")
        k = torch.arange(1, steps + 1, dtype=torch.result_type(s, 1.0), device=s.device)
        return k, torch.exp(-0.5 * self.noise**2 * (self.rho ** (2 * k - 2)).cumsum(0))

    def rollout(self, s: Tensor, eps: Tensor) -> Tensor:
        """States (B, T+1) from s (B,) under standard normal eps (B, T); zeros for no noise."""
        _check_shape("s", s, (s.numel(),))
        _check_shape("eps", eps, (len(s), self.horizon))
        states = [s]
        for t in range(self.horizon):
            action = self.gain * states[t] + self.noise * eps[:, t]
            states.append(states[t] + action)
        return torch.stack(states, 1)

    def costates(self, states: Tensor) -> Tensor:
        """λ (B, T+1) along states (B, T+1), in reward per radian: the adjoint recursion."""
        _check_shape("states", states, (*states.shape[:1], self.horizon + 1))
        costates = torch.zeros_like(states)  # λ_T = 0: no reward is left
        for t in reversed(range(self.horizon)):
            costates[:, t] = self.rho * (costates[:, t + 1] - torch.sin(states[:, t + 1]))
        return costates

    @torch.enable_grad()
    def costates_by_autograd(self, s: Tensor, eps: Tensor) -> Tensor:
        """λ (B, T+1) of `rollout(s, eps)`: restart at each s_t, differentiate the rewards left."""
        states = self.rollout(s, eps).detach()
        costates = torch.zeros_like(states)
        for t in range(self.horizon):
            start = states[:, t].clone().requires_grad_()
            rest = replace(self, horizon=self.horizon - t).rollout(start, eps[:, t:])
            total = torch.cos(rest[:, 1:]).sum()  # over rollouts too, which do not mix
            (costates[:, t],) = torch.autograd.grad(total, start)
        return costates

    def pathwise_gradient(self, states: Tensor) -> Tensor:
        """Σ_t s_t·(λ_{t+1} − sin s_{t+1}): dJ/dθ (B,) estimated from each of states (B, T+1)."""
        action_costates = self.costates(states)[:, 1:] - torch.sin(states[:, 1:])  # (B, T)
        return (states[:, :-1] * action_costates).sum(1)

    def score_function_gradient(self, states: Tensor, eps: Tensor) -> Tensor:
        """Σ_t s_t·(ε_t/σ)·Σ_{k>t} cos s_k: dJ/dθ (B,) estimated from each of states (B, T+1).

        eps (B, T) made the states; s_t·ε_t/σ is d log π(a_t | s_t)/dθ. ValueError without noise.
        """
        if self.noise == 0:
            raise ValueError("noise must be above 0 for a score function, not 0")
        _check_shape("states", states, (*states.shape[:1], self.horizon + 1))
        _check_shape("eps", eps, (*states.shape[:1], self.horizon))
        returns = torch.cos(states[:, 1:]).flip(1).cumsum(1).flip(1)  # (B, T), rewards after t
        return (states[:, :-1] * eps / self.noise * returns).sum(1)


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, not {tuple(tensor.shape)}")
