"""Readiness: when along pretraining reinforcement learning pays most (arXiv:2605.21654, claim C6).

    readiness = signal × headroom,
    signal = mean over prompts of ‖∇_δ V‖,    headroom = pass@k − pass@1

δ is a nudge of the residual stream entering the first block, a separate one for each prompt
position. The product is the rate of a relaxation model, dV/dt = κ · signal · (headroom left), not a
theorem. The signal is in the stream's own units: doubling the embeddings and all block outputs
halves it and changes no V, so that only checkpoints of one architecture can be compared. It fails
for long runs, for prompts whose gradients oppose each other, and near V = 0 or 1.

For policies too large to enumerate, `pass_at_k` and `sampled_signal` estimate these from samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .costate import empirical_costates
from .env import SumGame
from .exact import success
from .gpt import GPT
from .rollout import Rollout


def signal(policy: GPT, env: SumGame, prompts: Tensor | None = None) -> Tensor:
    """Mean over prompts (N, P) of ‖∇_δ V‖, the norm over all of (P, D), exact: a scalar."""
    prompts = env.prompts if prompts is None else prompts
    weight = policy.token_embedding.weight
    delta = weight.new_zeros(*prompts.shape, weight.size(1)).requires_grad_()
    nudge = {0: F.pad(delta, (0, 0, 0, env.completion_length - 1))}  # none at completion positions
    (gradient,) = torch.autograd.grad(success(policy, env, prompts, nudge).sum(), delta)
    return gradient.flatten(1).norm(dim=1).mean()


def headroom(success: Tensor, k: int = 16) -> Tensor:
    """Mean pass@k − pass@1 from exact success (N,) of prompts: what k draws can reach, a scalar."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if not ((success >= -1e-6) & (success <= 1 + 1e-6)).all():
        raise ValueError(f"success must hold probabilities, not {success.min()} to {success.max()}")
    return (1 - (1 - success) ** k - success).mean()


def readiness(policy: GPT, env: SumGame, k: int = 16) -> Tensor:
    """signal × headroom of a policy over all prompts of the world: a scalar."""
    with torch.no_grad():
        reach = headroom(success(policy, env), k)
    return signal(policy, env) * reach


def measure(policy: GPT, env: SumGame, k: int = 16) -> dict[str, float]:
    """What a checkpoint is asked, exactly: an entry of `ranking`, save for its loss and gain."""
    with torch.no_grad():
        p = success(policy, env)
    slope, reach = signal(policy, env).item(), headroom(p, k).item()
    return {
        "success": p.mean().item(),
        "pass_at_k": p.mean().item() + reach,
        "signal": slope,
        "headroom": reach,
        "readiness": slope * reach,
        "reward_std": (p * (1 - p)).clamp(min=0).sqrt().mean().item(),
    }


PREDICTORS = {  # of the gain, from an entry: readiness and what might do as well
    "readiness": lambda entry: entry["readiness"],
    "signal": lambda entry: entry["signal"],
    "headroom": lambda entry: entry["headroom"],
    "reward std": lambda entry: entry["reward_std"],
    "p(1 − p)": lambda entry: entry["success"] * (1 - entry["success"]),
    "1 − p": lambda entry: 1 - entry["success"],
    "loss": lambda entry: entry["loss"],
}


def pass_at_k(correct: Tensor, samples: int, k: int) -> Tensor:
    """Unbiased pass@k from counts: of `samples` n completions, c are correct (N,): (N,).

    1 − C(n − c, k) / C(n, k), the chance that k of the n, drawn without putting back, hold a
    correct one (Chen et al. 2021, eq. 1). Plugging c/n into 1 − (1 − p)^k instead is biased.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k must be 1 to {samples}, the number of samples, not {k}")
    if not ((correct >= 0) & (correct <= samples)).all():
        raise ValueError(f"correct must hold counts from 0 to {samples}")
    draws = torch.arange(k, device=correct.device)
    wrong_left = (samples - correct[:, None] - draws).clamp(min=0)  # (N, k)
    return 1 - (wrong_left.double() / (samples - draws)).prod(1)


def sampled_signal(policy: GPT, rollout: Rollout, baseline: float = 0.5) -> Tensor:
    """The signal estimated from a rollout of G ≥ 2 completions a prompt: a scalar.

    The mean of G costates has ‖mean‖² too large by its own variance, which is subtracted, so that
    each prompt's squared norm is unbiased; it is cut off at 0 before the root. `baseline` is a
    constant, since one computed from the group would make its costates dependent.
    """
    G, P = rollout.group_size, rollout.prompts.size(1)
    if G < 2:
        raise ValueError(f"rollout must have at least 2 completions a prompt, not {G}")
    costates = empirical_costates(policy, rollout, rollout.rewards - baseline, layer=0)
    groups = costates[:, :P].flatten(1).unflatten(0, (-1, G))  # (Q, G, P·D)
    square = groups.mean(1).square().sum(-1) - groups.var(1).sum(-1) / G
    return square.clamp(min=0).sqrt().mean()


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation of two vectors (n,); equal values share their mean rank.

    0 where one of them is constant and ranks nothing.
    """
    if x.shape != y.shape or x.dim() != 1 or len(x) < 2:
        raise ValueError(f"x and y must be (n,) with n ≥ 2, not {tuple(x.shape)}, {tuple(y.shape)}")
    ranks = []
    for values in (x, y):
        below = (values[:, None] > values).sum(1)
        equal = (values[:, None] == values).sum(1)
        ranks.append(below + (equal + 1) / 2.0)
    a, b = (rank - rank.mean() for rank in ranks)
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return (a @ b / scale).item() if scale > 0 else 0.0


def pick_share(predictor: Tensor, gain: Tensor) -> float:
    """The gain (n,) of the checkpoint where `predictor` (n,) is largest, as a share of the best."""
    return (gain[predictor.argmax()] / gain.max()).item()


def ranking(entries: list[dict]) -> dict[str, dict[str, dict[str, float]]]:
    """Each predictor's rank correlation with the real gain, and its pick's share of the best gain.

    result[pool][predictor] = {"rank": …, "pick": …}; a pool is one corpus alone, or all: "pooled".
    """
    corpora = list(dict.fromkeys(entry["corpus"] for entry in entries))
    result: dict[str, dict[str, dict[str, float]]] = {}
    for pool in [*corpora, "pooled"]:
        some = [entry for entry in entries if pool in (entry["corpus"], "pooled")]
        gain = torch.tensor([entry["gain"] for entry in some])
        result[pool] = {}
        for name, predict in PREDICTORS.items():
            x = torch.tensor([predict(entry) for entry in some])
            rank = rank_correlation(x, gain) if len(some) > 1 else 0.0
            result[pool][name] = {"rank": rank, "pick": pick_share(x, gain)}
    return result


def bootstrap_interval(
    values: Tensor, generator: torch.Generator, level: float = 0.95, draws: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of independent values (n,), such as one a seed."""
    if values.dim() != 1 or len(values) == 0 or not 0 < level < 1:
        raise ValueError(
            f"values must be (n,), level in (0, 1), not {tuple(values.shape)}, {level}"
        )
    rows = torch.randint(len(values), (draws, len(values)), generator=generator)
    means = values.double()[rows].mean(1)
    tail = (1 - level) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
