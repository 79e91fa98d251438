"""Statistics of the study: rank correlation, the pick of a predictor, bootstrap intervals."""

import torch
from torch import Tensor

SAMPLES = (8, 16, 64)  # completions a prompt that the sampled predictors are given
PREDICTORS = {  # of the gain, from an entry: readiness and what might do as well
    "readiness": lambda entry: entry["readiness"],
    "signal": lambda entry: entry["signal"],
    "headroom": lambda entry: entry["headroom"],
    "reward std": lambda entry: entry["reward_std"],
    "p(1 − p)": lambda entry: entry["success"] * (1 - entry["success"]),
    "1 − p": lambda entry: 1 - entry["success"],
    "loss": lambda entry: entry["loss"],
}
SAMPLED_PREDICTORS = {  # the same from samples, which any model allows
    f"{name} of {G}": lambda entry, key=key, G=G: entry["sampled"][str(G)][key]
    for name, key in (("readiness", "readiness"), ("reward std", "reward_std"))
    for G in SAMPLES
}


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
    Predictors from samples are included where the entries have `sampled`.
    """
    predictors = PREDICTORS | (SAMPLED_PREDICTORS if "sampled" in entries[0] else {})
    corpora = list(dict.fromkeys(entry["corpus"] for entry in entries))
    result: dict[str, dict[str, dict[str, float]]] = {}
    for pool in [*corpora, "pooled"]:
        some = [entry for entry in entries if pool in (entry["corpus"], "pooled")]
        gain = torch.tensor([entry["gain"] for entry in some])
        result[pool] = {}
        for name, predict in predictors.items():
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
