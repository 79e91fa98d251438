"""PPO: the clipped surrogate and generalised advantage estimation, on tensors alone.

For token t of completion i, with ratio ρ = π(y)/π_old(y) and advantage A
(Schulman et al. 2017, eq. 7):

    objective = min(ρ·A, clip(ρ, 1 − low, 1 + high)·A),    loss = −mean of the objective.

The minimum is pessimistic: it removes the incentive to move ρ further out in the direction that A
favours, and never the incentive to come back. Rewards are in reward units, log-probabilities in
nats.

Left out on purpose: value-function clipping and an entropy bonus. The critic is in critic.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def aggregate_tokens(values: Tensor, mask: Tensor, aggregate: str) -> Tensor:
    """One number from per-token values (B, T); those where mask (B, T) is false do not count.

    "token": mean over all live tokens. "sequence": mean over each completion's live tokens, then
    over completions, so that a token of a long completion weighs less. "constant": sum over live
    tokens, divided by B·T, so that a token weighs the same however long its completion is.
    """
    live = mask.bool()
    values = values.masked_fill(~live, 0.0)
    if aggregate == "token":
        return values.sum() / live.sum()
    if aggregate == "sequence":
        return (values.sum(1) / live.sum(1)).mean()
    if aggregate == "constant":
        return values.sum() / values.numel()
    raise ValueError(f'aggregate must be "token", "sequence" or "constant", not {aggregate!r}')


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: tuple[float, float] = (0.2, 0.2),
    aggregate: str = "token",
    ratio: str = "token",
    surrogate: str = "clip",
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's policy loss (to minimise), or a relative's, and stats without gradient.

    logprobs, old_logprobs, mask (B, T); advantages (B,) or (B, T); clip = (low, high), each ≥ 0,
    inf for none. Gradient flows through `logprobs` alone. ratio "token" is ρ; "sequence" (GSPO) is
    the exponential of a completion's mean log-ratio, one number for all its tokens, and needs
    aggregate "sequence" and advantages (B,). surrogate "clip" is the objective above; "cispo" is
    clip(ρ)·A·log π with the clipped ratio held fixed, so that no token loses its gradient.

    Stats, means over live tokens (over completions for ratio "sequence"): `ratio`; `clip_fraction`,
    the share where the clip cuts the gradient off (above 1 + high with A > 0, below 1 − low with
    A < 0), or for "cispo" where it changes the weight; `approx_kl`, an estimate of KL(old‖new) in
    nats per token. Raises ValueError for wrong shapes and unknown names.
    """
    _check_names(ratio, surrogate, aggregate, advantages)
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1).expand(-1, logprobs.size(1))
    _check(logprobs, clip, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    live, (low, high) = mask.bool(), clip
    advantages = advantages.detach().masked_fill(~live, 0.0)
    logratio = (logprobs - old_logprobs.detach()).masked_fill(~live, 0.0)
    if ratio == "sequence":
        mean = logratio.sum(1) / live.sum(1)
        logratio = mean.unsqueeze(1).expand_as(logratio)
    rho = logratio.exp()
    clipped = rho.clamp(1 - low, 1 + high)
    if surrogate == "cispo":
        objective = clipped.detach() * advantages * logprobs.masked_fill(~live, 0.0)
    else:
        objective = torch.minimum(rho * advantages, clipped * advantages)
    loss = -aggregate_tokens(objective, live, aggregate)

    with torch.no_grad():
        cut = (rho > 1 + high) & (advantages > 0) | (rho < 1 - low) & (advantages < 0)
        if surrogate == "cispo":
            cut = rho != clipped
        stats = {
            "ratio": rho, "clip_fraction": cut.to(rho.dtype), "approx_kl": rho - 1 - logratio
        }  # fmt: skip
        stats = {name: aggregate_tokens(value, live, ratio) for name, value in stats.items()}
    return loss, stats


def _check_names(ratio: str, surrogate: str, aggregate: str, advantages: Tensor) -> None:
    if ratio not in ("token", "sequence"):
        raise ValueError(f'ratio must be "token" or "sequence", not {ratio!r}')
    if surrogate not in ("clip", "cispo"):
        raise ValueError(f'surrogate must be "clip" or "cispo", not {surrogate!r}')
    if ratio == "sequence" and (aggregate != "sequence" or advantages.dim() != 1):
        raise ValueError(
            'ratio "sequence" needs aggregate "sequence" and one advantage a completion (B,), '
            f"not {aggregate!r} and {tuple(advantages.shape)}"
        )


def _check(logprobs: Tensor, clip: tuple[float, float], **others: Tensor) -> None:
    for name, tensor in others.items():
        if tensor.shape != logprobs.shape:
            raise ValueError(
                f"{name} must have the shape of logprobs {tuple(logprobs.shape)}, "
                f"not {tuple(tensor.shape)}"
            )
    if len(clip) != 2 or not all(side >= 0 for side in clip):
        raise ValueError(f"clip must be two numbers of at least 0, not {clip}")
    if len(logprobs) == 0:
        raise ValueError("logprobs must be (B, T) with at least one completion")
    if not others["mask"].any(1).all():
        raise ValueError("mask has a completion without a live token")


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    discount: float = 1.0,
    gae_lambda: float = 0.95,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16), backwards in time.

    δ_t = r_t + discount·V_{t+1} − V_t and A_t = δ_t + discount·gae_lambda·A_{t+1}. rewards are
    (B, T), or (B,) where they arrive with a completion's last live token; nothing is bootstrapped
    past it. values (B, T) are those of the states before each token. Returns advantages (B, T),
    zero after the stop, and the critic's targets, returns = advantages + values. λ = 1 gives
    return − V, λ = 0 the one-step error.
    """
    if values.shape != mask.shape or rewards.shape not in (values.shape, values.shape[:1]):
        raise ValueError(
            "rewards, values and mask must be (B,) or (B, T), (B, T) and (B, T), not "
            f"{tuple(rewards.shape)}, {tuple(values.shape)} and {tuple(mask.shape)}"
        )
    for name, number in (("discount", discount), ("gae_lambda", gae_lambda)):
        if not 0 <= number <= 1:
            raise ValueError(f"{name} must be between 0 and 1, not {number}")
    live = mask.bool()
    values = values.masked_fill(~live, 0.0)
    next_values, next_live = F.pad(values[:, 1:], (0, 1)), F.pad(live[:, 1:], (0, 1))
    if rewards.dim() == 1:
        rewards = rewards.unsqueeze(1) * (live & ~next_live)  # all at the last live token
    token_rewards = rewards.masked_fill(~live, 0.0)
    deltas = token_rewards + discount * next_values - values  # 0 after the stop
    advantages = torch.zeros_like(values)
    following = advantages[:, 0]
    for t in reversed(range(values.size(1))):
        following = deltas[:, t] + discount * gae_lambda * following
        advantages[:, t] = following
    return advantages, advantages + values
