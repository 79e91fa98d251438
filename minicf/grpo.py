"""GRPO: advantages from a group of completions of the same prompt, and a KL penalty; no critic.

    A_i = (r_i − mean of the group) / std of the group          (Shao et al. 2024, section 4.1)

The baseline that leaves the sample's own reward out (RLOO, Kool et al. 2019; Ahmadian et al. 2024)
keeps the gradient unbiased; the group's mean multiplies it by exactly 1 − 1/G. Dividing by the std
re-weights prompts; Dr. GRPO (Liu et al. 2025) leaves it out. Other relatives are in variants.py.

Left out on purpose: per-token (process) rewards.
"""

import torch
from torch import Tensor

if __package__:
    from .ppo import aggregate_tokens, clipped_surrogate
else:  # copied beside a script
    from ppo import aggregate_tokens, clipped_surrogate


def group_advantages(
    rewards: Tensor, group_size: int, baseline: str = "mean", scale: str = "std"
) -> Tensor:
    """Advantages (B,) of rewards (B,), rows prompt-major, in groups of `group_size` G.

    baseline "mean" (of the group), "leave-one-out" (the mean of the other G−1) or "none"; scale
    "std" (of the group, ddof 1) or "none". A group whose rewards are all equal has advantages of
    exactly 0, unless both are "none": then advantages are the rewards. Computed in float64, since
    a small type rounds means badly; rewards that differ in their last bit differ.
    """
    groups = split_groups(rewards, group_size, smallest=1 if baseline == scale == "none" else 2)
    if baseline == "mean":
        advantages = groups - groups.mean(1, keepdim=True)
    elif baseline == "leave-one-out":
        others = groups.sum(1, keepdim=True) - groups
        advantages = groups - others / (group_size - 1)
    elif baseline == "none":
        advantages = groups
    else:
        raise ValueError(f'baseline must be "mean", "leave-one-out" or "none", not {baseline!r}')
    dead = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)  # (Q, 1)
    if scale == "std":
        std = groups.std(1, keepdim=True).masked_fill(dead, 1.0)  # a dead group would divide by 0
        advantages = advantages / std
    elif scale != "none":
        raise ValueError(f'scale must be "std" or "none", not {scale!r}')
    if baseline != "none" or scale != "none":
        advantages = advantages.masked_fill(dead, 0.0)
    return like_rewards(advantages, rewards)


def kl_penalty(logprobs: Tensor, ref_logprobs: Tensor, estimator: str = "k3") -> Tensor:
    """Estimates of KL(policy‖reference) in nats from the policy's own samples, elementwise.

    With d = logprobs − ref_logprobs: k1 = d; k2 = d²/2; k3 = e^{−d} − 1 + d (Schulman 2020). The
    means of k1 and k3 are the KL. What they do *in a loss* is another matter, because autograd does
    not see that the samples come from the policy: the mean gradient of k1 is zero, of k2 the
    gradient of KL(policy‖reference), of k3 that of KL(reference‖policy). Per token these hold at
    fixed states; they hold for whole completions if whole completions' log-probabilities are given.
    """
    if logprobs.shape != ref_logprobs.shape:
        shapes = f"{tuple(logprobs.shape)} and {tuple(ref_logprobs.shape)}"
        raise ValueError(f"logprobs and ref_logprobs must have one shape, not {shapes}")
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
    length: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """GRPO's loss (Shao et al. 2024, eq. 3): clipped surrogate + kl_coef · KL to the reference.

    Shapes and options as in `ppo.clipped_surrogate`; ref_logprobs (B, T) are those of the frozen
    reference and are needed where kl_coef > 0. Stats gain `kl`, in nats per token.
    """
    if not kl_coef >= 0 or (kl_coef > 0 and ref_logprobs is None):
        raise ValueError(f"kl_coef {kl_coef} must be 0, or positive with ref_logprobs given")
    loss, stats = clipped_surrogate(
        logprobs, old_logprobs, advantages, mask, clip, aggregate, length
    )
    if kl_coef > 0:
        dead = ~mask.bool()
        kl = kl_penalty(
            logprobs.masked_fill(dead, 0.0), ref_logprobs.masked_fill(dead, 0.0), kl_estimator
        )
        loss = loss + kl_coef * aggregate_tokens(kl, mask, aggregate, length)
        stats["kl"] = aggregate_tokens(kl.detach(), mask, "token")
    return loss, stats


def split_groups(rewards: Tensor, group_size: int, smallest: int) -> Tensor:
    """Rewards (B,) as groups (Q, G) in float64, on the CPU since not every device has that type.

    Raises ValueError for groups that cannot be compared.
    """
    rewards = torch.as_tensor(rewards, device=getattr(rewards, "device", None))
    rewards = rewards.detach().to("cpu", torch.float64)
    if group_size < smallest:
        raise ValueError(f"group_size must be at least {smallest}, not {group_size}")
    if rewards.dim() != 1 or len(rewards) == 0 or len(rewards) % group_size:
        raise ValueError(
            f"rewards must be (B,) with B a multiple of group_size {group_size}, "
            f"not {tuple(rewards.shape)}"
        )
    if not rewards.isfinite().all():
        raise ValueError(f"rewards must be finite, not {rewards[~rewards.isfinite()][0].item()}")
    return rewards.view(-1, group_size)


def like_rewards(advantages: Tensor, rewards: Tensor) -> Tensor:
    """Advantages (Q, G) as (B,), on the rewards' device and of their type if that has fractions."""
    rewards = torch.as_tensor(rewards, device=getattr(rewards, "device", None))
    dtype = rewards.dtype if rewards.is_floating_point() else torch.get_default_dtype()
    return advantages.flatten().to(rewards.device, dtype)
