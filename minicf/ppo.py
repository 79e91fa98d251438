"""PPO: the clipped surrogate and generalised advantage estimation, on tensors alone.

For token t of completion i, with ratio ρ = π(y)/π_old(y) and advantage A
(Schulman et al. 2017, eq. 7):

    objective = min(ρ·A, clip(ρ, 1 − low, 1 + high)·A),    loss = −mean of the objective.

The minimum is pessimistic: it removes the incentive to move ρ further out in the direction that A
favours, and never the incentive to come back. Rewards are in reward units, log-probabilities in
nats.

Left out on purpose: value-function clipping and an entropy bonus. The critic is in critic.py.
"""

import math

import torch
from torch import Tensor


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: tuple[float, float] = (0.2, 0.2),
    aggregate: str = "token",
    length: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's policy loss (to minimise), and stats without gradient.

    logprobs, old_logprobs and mask are (B, T); advantages (B,) or (B, T); clip = (low, high), each
    at least 0, inf for none. Gradient flows through `logprobs` alone. `aggregate` and `length` are
    those of `aggregate_tokens`.

    Stats are means over live tokens: `ratio`; `clip_fraction`, the share of tokens whose gradient
    the clip cuts off; `approx_kl`, an estimate of KL(old‖new) in nats per token.
    """
    advantages, live = per_token(advantages, logprobs, old_logprobs, mask, clip)
    low, high = clip
    logratio = (logprobs - old_logprobs.detach()).masked_fill(~live, 0.0)
    ratio = no_overflow(logratio, advantages, high).exp()
    clipped = ratio.clamp(1 - low, 1 + high)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    loss = -aggregate_tokens(objective, live, aggregate, length)

    with torch.no_grad():
        ratio = logratio.exp()
        too_high = (ratio > 1 + high) & (advantages > 0)
        too_low = (ratio < 1 - low) & (advantages < 0)
        stats = {
            "ratio": aggregate_tokens(ratio, live, "token"),
            "clip_fraction": aggregate_tokens((too_high | too_low).to(ratio), live, "token"),
            "approx_kl": aggregate_tokens(ratio - 1 - logratio, live, "token"),
        }
    return loss, stats


def aggregate_tokens(
    values: Tensor, mask: Tensor, aggregate: str, length: int | None = None
) -> Tensor:
    """One number from per-token values (B, T); those where mask (B, T) is false do not count.

    "token": the mean over all live tokens. "sequence": the mean over each completion's live tokens,
    then over completions, so that a token of a long completion weighs less. "constant": the sum
    over live tokens divided by B·length, so that a token weighs the same however long its
    completion is; `length` is the most tokens that a completion can have, by default T.
    """
    live = mask.bool()
    values = values.masked_fill(~live, 0.0)
    if aggregate == "token":
        return values.sum() / live.sum()
    if aggregate == "sequence":
        return (values.sum(1) / live.sum(1)).mean()
    if aggregate == "constant":
        return values.sum() / (len(values) * (length or values.size(1)))
    raise ValueError(f'aggregate must be "token", "sequence" or "constant", not {aggregate!r}')


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    discount: float = 1.0,
    gae_lambda: float = 0.95,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16), backwards in time.

        δ_t = r_t + discount·V_{t+1} − V_t,    A_t = δ_t + discount·gae_lambda·A_{t+1}

    rewards are (B, T), or (B,) where they arrive with a completion's last live token; nothing is
    bootstrapped past it. values (B, T) are those of the states before each token. Returns the
    advantages (B, T), zero after the stop, and the critic's targets, returns = advantages + values.
    λ = 1 gives return − V, λ = 0 the one-step error.
    """
    live = _check_gae(rewards, values, mask, discount, gae_lambda)
    values = values.masked_fill(~live, 0.0)
    if rewards.dim() == 1:
        rewards = at_last_token(rewards, live)
    advantages = torch.zeros_like(values)
    next_value = torch.zeros_like(values[:, 0])  # nothing follows the last token
    next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.size(1))):
        delta = rewards[:, t] + discount * next_value - values[:, t]
        advantage = delta + discount * gae_lambda * next_advantage
        advantages[:, t] = advantage.where(live[:, t], 0.0)
        # A token that does not count is passed over, at the end or in between.
        next_advantage = advantage.where(live[:, t], next_advantage)
        next_value = values[:, t].where(live[:, t], next_value)
    return advantages, advantages + values


def at_last_token(rewards: Tensor, mask: Tensor) -> Tensor:
    """Rewards (B,) of completions as rewards of tokens (B, T), all at the last live token."""
    following = mask.flip(1).cumsum(1).flip(1)  # live tokens from this one on
    return rewards.unsqueeze(1) * (mask & (following == 1))


def no_overflow(logratio: Tensor, advantages: Tensor, high: float) -> Tensor:
    """Log-ratios (B, T), cut where that changes no objective, so that it is never 0 times inf.

    Where A > 0 nothing above 1 + high counts, and where A = 0 nothing does. The exponential of a
    larger one may be inf, and 0·inf, in the objective or its gradient, would be nan.
    """
    most = torch.full_like(logratio, math.inf)
    most = most.masked_fill(advantages > 0, math.log1p(high)).masked_fill(advantages == 0, 0.0)
    return logratio.minimum(most)


def per_token(
    advantages: Tensor, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, clip: tuple
) -> tuple[Tensor, Tensor]:
    """Advantages (B, T) without gradient, 0 where mask is false, and the mask as bool.

    Raises ValueError for what would give a wrong number in silence: shapes that broadcast, a clip
    below 0, no completion, a completion without a live token.
    """
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1).expand(-1, logprobs.size(1))
    for name, tensor in (
        ("old_logprobs", old_logprobs), ("advantages", advantages), ("mask", mask)
    ):  # fmt: skip
        if tensor.shape != logprobs.shape:
            shapes = f"{tuple(logprobs.shape)}, not {tuple(tensor.shape)}"
            raise ValueError(f"{name} must have the shape of logprobs {shapes}")
    if not isinstance(clip, tuple | list) or len(clip) != 2 or not all(side >= 0 for side in clip):
        raise ValueError(f"clip must be two numbers of at least 0, not {clip}")
    live = mask.bool()
    if len(live) == 0 or not live.any(1).all():
        raise ValueError("every completion needs at least one live token")
    return advantages.detach().masked_fill(~live, 0.0), live


def _check_gae(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float, gae_lambda: float
) -> Tensor:
    if values.shape != mask.shape or rewards.shape not in (values.shape, values.shape[:1]):
        shapes = f"{tuple(rewards.shape)}, {tuple(values.shape)} and {tuple(mask.shape)}"
        raise ValueError(f"rewards (B,) or (B, T), values and mask (B, T) do not fit: {shapes}")
    for name, number in (("discount", discount), ("gae_lambda", gae_lambda)):
        if not 0 <= number <= 1:
            raise ValueError(f"{name} must be between 0 and 1, not {number}")
    return mask.bool()
