"""Readiness: when along pretraining reinforcement learning pays most (arXiv:2605.21654, claim C6).

    readiness = signal × headroom,
    signal = mean over prompts of ‖∇V‖,    headroom = pass@k − pass@1

The gradient is that with respect to the residual stream entering the first block, at all prompt
positions. The product is the rate of a relaxation model, dV/dt = κ · signal · (headroom left), no
theorem. The signal is in the stream's own units: doubling the embeddings and all block outputs
halves it and changes no V, so that only checkpoints of one architecture can be compared. It fails
for long runs, for prompts whose gradients oppose each other, and near V = 0 or 1.

For policies too large to enumerate, `sampled_readiness` estimates it from one rollout.
"""

from dataclasses import replace

import torch
import torch.nn as nn
from torch import Tensor

from .costate import empirical_costates
from .env import SumGame
from .exact import success, value_gradients
from .rollout import Rollout, World


def signal(policy: nn.Module, env: SumGame, prompts: Tensor | None = None) -> Tensor:
    """Mean over prompts (N, P) of ‖∇V‖, the norm over all of (P, D), exact: a scalar.

    Read entering policy.blocks[0].
    """
    gradients = value_gradients(policy, env, policy.blocks[0], prompts)
    return gradients.flatten(1).norm(dim=1).mean()


def headroom(p: Tensor, k: int = 16) -> Tensor:
    """Mean pass@k − pass@1 from exact success p (N,) of prompts: what k draws reach, a scalar."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if not ((p >= -1e-6) & (p <= 1 + 1e-6)).all():
        raise ValueError(f"p must hold probabilities of success, not {p.min()} to {p.max()}")
    return (1 - (1 - p) ** k - p).mean()


def readiness(policy: nn.Module, env: SumGame, k: int = 16) -> Tensor:
    """signal × headroom of a policy over all prompts of the world: a scalar."""
    with torch.no_grad():
        reach = headroom(success(policy, env), k)
    return signal(policy, env) * reach


def measure(policy: nn.Module, env: SumGame, k: int = 16) -> dict[str, float]:
    """What a checkpoint is asked, exactly, with names that say what."""
    with torch.no_grad():
        p = success(policy, env)
    slope = signal(policy, env).item()
    reach = headroom(p, k).item()
    return {
        "success": p.mean().item(),
        "pass_at_k": p.mean().item() + reach,
        "signal": slope,
        "headroom": reach,
        "readiness": slope * reach,
        "reward_std": (p * (1 - p)).clamp(min=0).sqrt().mean().item(),
    }


def pass_at_k(correct: Tensor, samples: int, k: int) -> Tensor:
    """Unbiased pass@k from counts: of `samples` n completions, c are correct (N,): (N,), float64.

    1 − C(n − c, k) / C(n, k), the chance that k of the n, drawn without putting back, hold a
    correct one (Chen et al. 2021, eq. 1). Plugging c/n into 1 − (1 − p)^k instead is biased.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k must be 1 to {samples}, the number of samples, not {k}")
    if not ((correct >= 0) & (correct <= samples)).all():
        raise ValueError(f"correct must hold counts from 0 to {samples}")
    correct = correct.to("cpu", torch.float64)  # not every device has that type
    draws = torch.arange(k, device="cpu")
    wrong_left = (samples - correct[:, None] - draws).clamp(min=0)  # (N, k)
    return 1 - (wrong_left / (samples - draws)).prod(1)


def squared_signal(scores: Tensor, rewards: Tensor) -> Tensor:
    """Unbiased ‖∇V‖² of one prompt from scores ∇log π(y) (G, D) and rewards (G,), G ≥ 3: a scalar.

    The mean over pairs i ≠ j of ⟨(r_i − b)·s_i, (r_j − b)·s_j⟩, where b is the mean of the other
    G − 2 rewards. Where all rewards are equal it is exactly 0, so that the scores of such a group
    are not needed: a trainer whose advantages are 0 there leaves none. Average it over prompts and
    steps before taking the root; one value alone can be below 0.
    """
    G = len(rewards)
    if G < 3 or scores.dim() != 2 or len(scores) != G or rewards.dim() != 1:
        shapes = f"{tuple(scores.shape)} and {tuple(rewards.shape)}"
        raise ValueError(f"scores and rewards must be (G, D) and (G,) with G ≥ 3, not {shapes}")
    others = (rewards.sum() - rewards[:, None] - rewards) / (G - 2)  # (G, G), of a pair's others
    pairs = (rewards[:, None] - others) * (rewards - others) * (scores @ scores.T)
    return (pairs.sum() - pairs.trace()) / (G * (G - 1))


def sampled_signal(policy: nn.Module, rollout: Rollout, baseline: float = 0.5) -> Tensor:
    """The signal estimated from a rollout of G ≥ 2 completions a prompt: a scalar.

    The mean of G costates has ‖mean‖² too large by its own variance, which is subtracted, so that
    each prompt's squared norm is unbiased; it is cut off at 0 before the root. `baseline` is a
    constant, since one computed from the group would make its costates dependent.
    """
    G = rollout.group_size
    P = rollout.prompts.size(1)
    if G < 2:
        raise ValueError(f"rollout must have at least 2 completions a prompt, not {G}")
    costates = empirical_costates(policy, rollout, rollout.rewards - baseline, policy.blocks[0])
    groups = costates[:, :P].flatten(1).unflatten(0, (-1, G))  # (Q, G, P·D)
    square = groups.mean(1).square().sum(-1) - groups.var(1).sum(-1) / G
    return square.clamp(min=0).sqrt().mean()


def sampled_readiness(
    policy: nn.Module, env: World, rollout: Rollout, k: int | None = None
) -> dict[str, float]:
    """Readiness from a rollout of G ≥ 2 completions a prompt, for any policy that `tap` reaches.

    `env` is the verifier that says what is right, with rewards of 0 and 1. Returns `signal`,
    `headroom` (unbiased pass@k − pass@1, k by default the smaller of 16 and G), `readiness`, their
    product, and `reward_std`, the mean over prompts of the rewards' standard deviation. The product
    is biased: both come from the same samples, and the signal's root is cut off at 0.
    """
    G = rollout.group_size
    rewards = env.reward(rollout.prompts, rollout.completions)
    if not ((rewards == 0) | (rewards == 1)).all():
        raise ValueError("the verifier must give rewards of 0 and 1")
    slope = sampled_signal(policy, replace(rollout, rewards=rewards)).item()
    groups = rewards.view(-1, G)
    correct = groups.sum(1).long()
    reach = pass_at_k(correct, G, min(16, G) if k is None else k).mean().item()
    reach -= groups.mean().item()
    return {
        "signal": slope,
        "headroom": reach,
        "readiness": slope * reach,
        "reward_std": groups.std(1).mean().item(),
    }


def rank_correlation(x: list[float], y: list[float]) -> float:
    """Spearman's rank correlation of two lists of n numbers; equal values share their mean rank.

    0 where one of them is constant and ranks nothing.
    """
    ranks = []
    for values in (torch.as_tensor(x), torch.as_tensor(y)):
        below = (values[:, None] > values).sum(1)
        equal = (values[:, None] == values).sum(1)
        rank = below + (equal + 1) / 2
        ranks.append(rank - rank.mean())
    scale = ranks[0].norm() * ranks[1].norm()
    return (ranks[0] @ ranks[1] / scale).item() if scale > 0 else 0.0
