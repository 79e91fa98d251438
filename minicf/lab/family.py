"""The family of methods, exactly: what a method's advantage does to the mean of an estimator."""

import math

import torch

from ..grpo import group_advantages


def expected_advantages(
    value: float, group_size: int, baseline: str = "mean", scale: str = "std"
) -> tuple[float, float]:
    """Mean advantage of a wrong and of a right sample, over what its group-mates do.

    `value` is the success probability of the prompt; K ~ Binomial(G − 1, value) mates succeed. The
    difference of the two, c, is the factor by which the expected costate is longer than ∇V: 1 for
    leave-one-out, 1 − 1/G for the group's mean, and towards 1/√(V(1 − V)) with the std.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"value must be a probability, 0 to 1, not {value}")
    means, mates = [0.0, 0.0], group_size - 1
    for k in range(group_size):
        chance = math.comb(mates, k) * value**k * (1 - value) ** (mates - k)
        for reward in (0, 1):
            group = torch.tensor([reward] + [1] * k + [0] * (mates - k), dtype=torch.float64)
            means[reward] += chance * group_advantages(group, group_size, baseline, scale)[0].item()
    return means[0], means[1]
