"""The exact noise of a policy gradient under a baseline, and the exact price of having no critic.

One prompt has M completions with probabilities p (M,), rewards r (M,) and scores s (M, D), the
derivatives of log π: with respect to the weights, or to an activation. V = E[r], g = E[r·s] = ∇V
and E[s] = 0. A sample's estimate of g with a baseline b is (r − b)·s. Its mean is g for any b that
does not see the sample, so that a baseline, and with it a critic, can only change the noise:

    noise(b) = E‖(r − b)·s − g‖²,  least at  b* = E[r‖s‖²] / E[‖s‖²]     (Greensmith et al. 2004).

V is not b*: wherever right answers have smaller scores than wrong ones, V > b*. With no critic, a
sample's baseline is the mean reward of the G − 1 others. The mean of a group is then a U-statistic
(Hoeffding 1948) with kernel ½(r_i − r_j)(s_i − s_j), and G times its variance is exactly

    noise(V) + (Var(r)·E‖s‖² + ‖g‖²) / (G − 1).

The second term is the price of having no critic, against one that knows the prompt's V.

Left out on purpose: baselines that differ from token to token; see lessons/counting.py.
"""

from torch import Tensor


def noise(p: Tensor, r: Tensor, s: Tensor, baseline: float | Tensor) -> Tensor:
    """E‖(r − b)·s − g‖², the variance of one sample's estimate with a constant baseline b: ()."""
    _check(p, r, s)
    estimates = (r - baseline)[:, None] * s  # (M, D)
    return p @ estimates.square().sum(1) - (p @ estimates).square().sum()


def best_baseline(p: Tensor, r: Tensor, s: Tensor) -> Tensor:
    """b* = E[r‖s‖²]/E[‖s‖²], the constant baseline of least noise, in units of reward: ()."""
    _check(p, r, s)
    squares = s.square().sum(1)
    return (p * r) @ squares / (p @ squares)


def price_of_no_critic(p: Tensor, r: Tensor, s: Tensor, group_size: int) -> Tensor:
    """What a group's leave-one-out baseline adds to the noise of a baseline that knows V: ().

    (Var(r)·E‖s‖² + ‖g‖²)/(G − 1). Multiply by nothing to compare with `noise`: both are the
    variance of a group's mean times G.
    """
    _check(p, r, s)
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2 to leave one out, not {group_size}")
    s = s - p @ s  # its mean is 0; for samples in place of an enumeration only nearly
    variance = p @ (r - p @ r).square()
    gradient = (p * r) @ s
    return (variance * (p @ s.square().sum(1)) + gradient.square().sum()) / (group_size - 1)


def leave_one_out_noise(p: Tensor, r: Tensor, s: Tensor, group_size: int) -> Tensor:
    """G times the variance of the mean gradient of a group of G with leave-one-out: ()."""
    price = price_of_no_critic(p, r, s, group_size)
    return noise(p, r, s - p @ s, p @ r) + price


def _check(p: Tensor, r: Tensor, s: Tensor) -> None:
    if s.dim() != 2 or p.shape != r.shape or p.shape != s.shape[:1]:
        shapes = f"{tuple(p.shape)}, {tuple(r.shape)} and {tuple(s.shape)}"
        raise ValueError(f"p, r and s must be (M,), (M,) and (M, D), not {shapes}")
    if not (p >= 0).all() or not abs(p.sum().item() - 1) < 1e-3:
        raise ValueError(f"p must be probabilities that sum to 1, not to {p.sum().item():.4f}")
