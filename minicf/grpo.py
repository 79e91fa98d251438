"""GRPO: advantages from a group of completions of the same prompt, and a KL penalty; no critic.

    A_i = (r_i − mean of the group) / std of the group          (Shao et al. 2024, section 4.1)

The variants differ in two switches here, and in those of ppo.clipped_surrogate. The baseline that
leaves the sample's own reward out (RLOO, Kool et al. 2019; Ahmadian et al. 2024) keeps the gradient
unbiased; the group's mean multiplies it by exactly 1 − 1/G. Dividing by the std re-weights prompts;
Dr. GRPO (Liu et al. 2025) leaves it out. Dividing by the mean of 0/1 rewards (MaxRL, Tajwar et al.
2026) gives, on average, the gradient of log V instead of V, its series in 1 − V cut off at G − 1.

Left out on purpose: per-token (process) rewards.
"""

import torch
from torch import Tensor

from .ppo import aggregate_tokens, clipped_surrogate


def group_advantages(
    rewards: Tensor, group_size: int, baseline: str = "mean", scale: str = "std"
) -> Tensor:
    """Advantages (B,) of rewards (B,), rows prompt-major, in groups of `group_size` G.

    baseline "mean" (of the group), "leave-one-out" (mean of the other G−1) or "none"; scale "std"
    (of the group, ddof 1), "mean" (of the group's rewards, ≥ 0; MaxRL) or "none". A group whose
    rewards are all equal has exactly zero advantage, whatever the rounding; with baseline "none"
    and scale "none" or "mean" only rewards of 0 have.
    """
    if baseline not in ("mean", "leave-one-out", "none"):
        raise ValueError(f'baseline must be "mean", "leave-one-out" or "none", not {baseline!r}')
    if scale not in ("std", "mean", "none"):
        raise ValueError(f'scale must be "std", "mean" or "none", not {scale!r}')
    plain = baseline == "none" and scale == "none"
    if group_size < (1 if plain else 2):
        raise ValueError(f"group_size must be at least 2 to compare rewards, not {group_size}")
    if rewards.dim() != 1 or len(rewards) == 0 or len(rewards) % group_size:
        raise ValueError(
            f"rewards must be (B,) with B a multiple of group_size {group_size}, "
            f"not {tuple(rewards.shape)}"
        )
    if not rewards.isfinite().all():
        raise ValueError(f"rewards must be finite, not {rewards[~rewards.isfinite()][0].item()}")
    if scale == "mean" and (rewards < 0).any():
        raise ValueError(f'scale "mean" needs rewards of at least 0, not {rewards.min().item()}')
    groups = rewards.view(-1, group_size)  # (Q, G)
    advantages = groups
    if baseline == "mean":
        advantages = groups - groups.mean(1, keepdim=True)
    if baseline == "leave-one-out":
        others = groups.sum(1, keepdim=True) - groups
        advantages = groups - others / (group_size - 1)
    if plain:
        return advantages.flatten()
    dead = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
    if baseline == "none" and scale == "mean":
        dead = groups.amax(1, keepdim=True) == 0  # equal successes still count
    if scale != "none":  # a dead group would divide 0 by 0
        size = groups.std(1, keepdim=True) if scale == "std" else groups.mean(1, keepdim=True)
        advantages = advantages / size.masked_fill(dead, 1.0)
    return advantages.masked_fill(dead, 0.0).flatten()


def kl_penalty(logprobs: Tensor, ref_logprobs: Tensor, estimator: str = "k3") -> Tensor:
    """Estimates of KL(policy‖reference) in nats from the policy's own samples, elementwise.

    With d = logprobs − ref_logprobs: k1 = d; k2 = d²/2; k3 = e^{−d} − 1 + d (Schulman 2020). The
    means of k1 and k3 are the KL. What they do *in a loss* is another matter, because autograd does
    not see that the samples come from the policy: the mean gradient of k1 is zero, of k2 the
    gradient of KL(policy‖reference), of k3 that of KL(reference‖policy). Per token these hold at
    fixed states; they hold for whole completions if whole completions' log-probabilities are given.
    """
    if logprobs.shape != ref_logprobs.shape:
        raise ValueError(
            f"logprobs and ref_logprobs must have one shape, not {tuple(logprobs.shape)} "
            f"and {tuple(ref_logprobs.shape)}"
        )
    difference = logprobs - ref_logprobs.detach()
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    if estimator == "k3":
        return torch.exp(-difference) - 1 + difference
    raise ValueError(f'estimator must be "k1", "k2" or "k3", not {estimator!r}')


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    clip: tuple[float, float] = (0.2, 0.2),
    aggregate: str = "sequence",
    ratio: str = "token",
    surrogate: str = "clip",
) -> tuple[Tensor, dict[str, Tensor]]:
    """GRPO's loss (Shao et al. 2024, eq. 3): clipped surrogate + kl_coef · KL to the reference.

    Shapes and switches as in `ppo.clipped_surrogate`; ref_logprobs (B, T) are those of the frozen
    reference and are needed where kl_coef > 0. Stats gain `kl`, in nats per token.
    """
    if kl_coef < 0 or (kl_coef > 0 and ref_logprobs is None):
        raise ValueError(f"kl_coef {kl_coef} must be 0, or positive with ref_logprobs given")
    loss, stats = clipped_surrogate(
        logprobs, old_logprobs, advantages, mask, clip, aggregate, ratio, surrogate
    )
    if kl_coef > 0:
        live = mask.bool()
        kl = kl_penalty(
            logprobs.masked_fill(~live, 0.0), ref_logprobs.masked_fill(~live, 0.0), kl_estimator
        )
        loss = loss + kl_coef * aggregate_tokens(kl, live, aggregate)
        stats["kl"] = aggregate_tokens(kl.detach(), live, "token")
    return loss, stats
