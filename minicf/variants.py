"""Relatives of GRPO: what each changes, as a function of its own beside the equation it comes from.

Every loss here has the arguments and the results of `ppo.clipped_surrogate`, so that

    improve(policy, env, "grpo", steps, generator, loss=gspo_loss)

trains with it; `maxrl_advantages` goes in as `advantages=`. ρ = π(y_t)/π_old(y_t) is a token's
ratio and A_i the advantage of its completion.
"""

import math

import torch
from torch import Tensor

if __package__:
    from .grpo import like_rewards, split_groups
    from .ppo import aggregate_tokens, clipped_surrogate, per_token
else:  # copied beside a script
    from grpo import like_rewards, split_groups
    from ppo import aggregate_tokens, clipped_surrogate, per_token


def dapo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: tuple[float, float] = (0.2, 0.28),
) -> tuple[Tensor, dict[str, Tensor]]:
    """DAPO (Yu et al. 2025, eq. 8): a higher upper clip, and a mean over all tokens of the batch.

    The paper also drops the KL penalty, filters out prompts whose rewards are all equal and fills
    the batch with others, and lowers the reward of overlong completions.
    """
    return clipped_surrogate(logprobs, old_logprobs, advantages, mask, clip, aggregate="token")


def gspo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: tuple[float, float] = (0.2, 0.2),
) -> tuple[Tensor, dict[str, Tensor]]:
    """GSPO (Zheng et al. 2025, eq. 5): one ratio for a completion, s = exp(mean_t log ρ_t).

    The objective is PPO's with s for ρ, averaged over completions. The paper clips at 3e-4 and
    4e-4, since there a rollout is used for several small updates.
    """
    live = mask.bool()
    logratio = (logprobs - old_logprobs.detach()).masked_fill(~live, 0.0)
    mean = logratio.sum(1) / live.sum(1)  # (B,)
    one = mean[:, None]  # from here on a completion is a sequence of one token
    return clipped_surrogate(
        one, torch.zeros_like(one), advantages, live.any(1, keepdim=True), clip, "sequence"
    )


def cispo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: tuple[float, float] = (math.inf, 0.2),
) -> tuple[Tensor, dict[str, Tensor]]:
    """CISPO (MiniMax 2025, eq. 4): the objective is clip(ρ)·A·log π, with clip(ρ) held fixed.

    So no token loses its gradient; `clip_fraction` is the share whose weight the clip changes. The
    paper sets only the upper clip, tunes it, does not publish it, and drops the KL penalty.
    """
    _, stats = clipped_surrogate(logprobs, old_logprobs, advantages, mask, clip)
    advantages, live = per_token(advantages, logprobs, old_logprobs, mask, clip)
    low, high = clip
    ratio = (logprobs - old_logprobs).detach().masked_fill(~live, 0.0).exp()
    weight = ratio.clamp(1 - low, 1 + high)
    stats["clip_fraction"] = aggregate_tokens((ratio != weight).to(ratio), live, "token")
    weight = weight.masked_fill(advantages == 0, 0.0)  # where it may be inf
    objective = weight * advantages * logprobs.masked_fill(~live, 0.0)
    return -aggregate_tokens(objective, live, "token"), stats


def maxrl_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """MaxRL (Tajwar et al. 2026): A_i = (r_i − mean)/mean of a group of rewards of at least 0.

    For rewards of 0 and 1 the mean update is the gradient of log V instead of V, its series in
    1 − V cut off at G − 1. The paper takes one update a rollout.
    """
    groups = split_groups(rewards, group_size, smallest=2)  # (Q, G)
    if (groups < 0).any():
        raise ValueError(f"rewards must be at least 0, not {groups.min().item()}")
    mean = groups.mean(1, keepdim=True)
    dead = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
    advantages = (groups - mean) / mean.masked_fill(dead, 1.0)
    return like_rewards(advantages.masked_fill(dead, 0.0), rewards)
