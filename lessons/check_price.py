"""What usual mistakes in lesson 11's exercises lead to: a sentence, and the value that it names."""

import torch
from torch import Tensor


def mistakes_in_noise(p: Tensor, r: Tensor, s: Tensor, b: float) -> dict[str, Tensor]:
    """Wrong values of E‖(r − b)·s − g‖², where g = E[r·s]."""
    g = (p * r) @ s
    estimates = (r - b)[:, None] * s
    distances = (estimates - g).square().sum(1)
    signal = g.square().sum()
    noise = p @ distances
    advantages = (r - b).square()
    return {
        "g is E[r s]; you have E[r² s]": p @ (estimates - (p * r * r) @ s).square().sum(1),
        "‖g‖² is not taken off; subtract g before you square": noise + signal,
        "‖g‖² is taken off twice": noise - signal,
        "this is divided by ‖g‖², as in lesson 02; here it is not": noise / signal,
        "this is the root of the noise": noise.sqrt(),
        "a sign is turned; use r − b, neither b − r nor r + b": noise + 4 * signal,
        "all answers count the same; weight them with p": distances.mean(),
        "answers are added up without p": distances.sum(),
        "the mean over the D numbers is taken, not their sum": noise / s.size(1),
        "E[(r − b)²]: the scores are missing, or multiplied along the wrong axis": p @ advantages,
        "the length of the distance is not squared": p @ distances.sqrt(),
        "p is missing in g = E[r s]": p @ (estimates - r @ s).square().sum(1),
        "the baseline is missing": p @ (r[:, None] * s - g).square().sum(1),
        "the baseline is V; use the one that is given": (
            p @ ((r - p @ r)[:, None] * s - g).square().sum(1)
        ),
    }


def mistakes_in_price(p: Tensor, r: Tensor, s: Tensor, G: int) -> dict[str, Tensor]:
    """Wrong values of (Var(r)·E‖s‖² + ‖g‖²)/(G − 1)."""
    V = p @ r
    variance = p @ (r - V).square()
    squares = s.square().sum(1)
    joint = p @ ((r - V).square() * squares)
    length = p @ squares
    g = (p * r) @ s
    signal = g.square().sum()
    first = variance * length
    both = first + signal
    noise = p @ ((r - V)[:, None] * s - g).square().sum(1)
    mates = G - 1
    D = s.size(1)
    return {
        "this is divided by G, not G − 1": both / G,
        "this is not divided by G − 1": both,
        "this is divided by (G − 1)²; a member has G − 1 partners": both / mates**2,
        "the second part is missing, in which members see each other": first / mates,
        "the first part is missing, or 0: E‖s‖² is the mean of squares, and E s itself is 0": (
            signal / mates
        ),
        "only the first part is divided by G − 1": first / mates + signal,
        "only the second part is divided by G − 1": first + signal / mates,
        "in the second part a member has G − 1 partners": first / mates + signal / mates**2,
        "‖g‖ is not squared": (first + signal.sqrt()) / mates,
        "‖s‖ is not squared": (variance * (p @ squares.sqrt()) + signal) / mates,
        "the mean over the D numbers of s and g is taken, not their sum": both / mates / D,
        "the mean over the D numbers of s is taken, not their sum": (first / D + signal) / mates,
        "the mean over the D numbers of g is taken, not their sum": (first + signal / D) / mates,
        "the parts are subtracted; add them": (first - signal) / mates,
        "you have one mean, E[(r − V)² ‖s‖²], or E|r − V| for Var(r); multiply Var(r) by E‖s‖²": (
            (joint + signal) / mates
        ),
        "this has the std of the reward; take its variance": (
            (variance.sqrt() * length + signal) / mates
        ),
        "E‖s‖² is a mean without p": (variance * squares.mean() + signal) / mates,
        "E‖s‖² is a sum without p": (variance * squares.sum() + signal) / mates,
        "this has (E‖s‖)², not E‖s‖²": (variance * (p @ squares.sqrt()) ** 2 + signal) / mates,
        "`r.var()` does not weight with p": (r.var() * length + signal) / mates,
        "Var(r) is not weighted with p": (r.var(correction=0) * length + signal) / mates,
        "V or E[r²] stands where Var(r) belongs": (V * length + signal) / mates,
        "this is the whole noise; take off the noise with V": both / mates + noise,
        "this is divided by ‖g‖²": both / signal / mates,
        "g is not weighted with p": (first + (r @ s).square().sum()) / mates,
        "this is the variance of a group's mean, not G times it": both / mates / G,
    }


def mistakes_in_interval(ours: list, theirs: list, factor: float) -> dict[str, list[float]]:
    """Wrong intervals [mean, low, high] of the differences ours − theirs."""
    a = torch.tensor(ours, dtype=torch.float64)
    b = torch.tensor(theirs, dtype=torch.float64)
    d = a - b
    n = len(d)
    mean = d.mean().item()
    middle = (d.min() + d.max()).item() / 2
    error = d.std().item() / n**0.5
    half = factor * error
    with_n = d.std(correction=0).item()
    unpaired = ((a.var() + b.var()) / n).item() ** 0.5
    of_sorted = factor * (a.sort().values - b.sort().values).std().item() / n**0.5
    of_all = torch.cat([a, b]).std().item() / (2 * n) ** 0.5

    def around(middle: float, half_width: float) -> list[float]:
        return [middle, middle - half_width, middle + half_width]

    return {
        "the sign is turned; it is ours − theirs": around(-mean, half),
        "the median stands where the mean belongs": around(d.quantile(0.5).item(), half),
        "the middle of least and largest stands where the mean belongs": around(middle, half),
        "do not sort; what stands at the same place belongs together": around(mean, of_sorted),
        "the lists are not paired; take differences first": around(mean, factor * unpaired),
        "this is the std of all numbers; take differences first": around(mean, factor * of_all),
        "std divides by n; it must divide by n − 1": around(mean, factor * with_n / n**0.5),
        "std divides by n, not n − 1, and is not divided by √n": around(mean, factor * with_n),
        "the std is not divided by √n": around(mean, half * n**0.5),
        "the std is divided by n, not √n": around(mean, half / n**0.5),
        "the std is divided by √(n − 1), not √n": around(mean, half * (n / (n - 1)) ** 0.5),
        "the factor is missing": around(mean, error),
        "the factor is always 1.96; use the one that is given": around(mean, 1.96 * error),
        "the factor is always 2.36; use the one that is given": around(mean, 2.36 * error),
        "the variance stands where the std belongs": around(mean, half * error * n**0.5),
        "this is the smallest and the largest difference": [mean, d.min().item(), d.max().item()],
        "the order is mean, low, high": [mean, mean + half, mean - half],
        "the mean comes first": [mean - half, mean, mean + half],
        "low and high are distances from the mean; add the mean": [mean, -half, half],
    }
