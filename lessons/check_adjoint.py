"""What usual mistakes in lesson 07's exercises lead to: a sentence, and the value that it names."""

from collections.abc import Callable

import torch
from torch import Tensor

from minicf.control import CosineTrack


def mistakes_in_adjoint(rho: float, states: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Wrong costates along states (B, T+1), whose right ones are the truth (B, T+1)."""
    slopes = -torch.sin(states)
    gain = rho - 1
    cosines = torch.cos(states)

    def backwards(step: Callable, last: Tensor | float = 0.0) -> Tensor:
        costates = torch.zeros_like(states)
        costates[:, -1] = last
        for t in reversed(range(states.size(1) - 1)):
            costates[:, t] = step(costates[:, t + 1], t)
        return costates

    too_short = torch.zeros_like(states)
    for t in reversed(range(states.size(1) - 2)):
        too_short[:, t] = rho * (too_short[:, t + 1] + slopes[:, t + 1])
    down = torch.zeros_like(states)
    for row in reversed(range(len(states) - 1)):
        down[row] = rho * (down[row + 1] + slopes[row + 1])

    not_to_the_start = truth.clone()
    not_to_the_start[:, 0] = 0.0
    two_steps = torch.zeros_like(states)
    for t in (1, 0):
        two_steps[:, t] = rho * (two_steps[:, t + 1] + slopes[:, t + 1])
    overwritten = states.clone()
    for t in reversed(range(states.size(1) - 1)):
        overwritten[:, t] = rho * (overwritten[:, t + 1] - torch.sin(overwritten[:, t + 1]))
    leaves = slopes.clone()
    leaves[:, 0] = 0.0  # the reward of s_0 is none of the sum

    return {
        "all costates are 0 (if you write into `states`: make a new tensor)": 0 * truth,
        "do not write into `states`: make a new tensor of zeros": overwritten,
        "the loop ends before t = 0": not_to_the_start,
        "only two steps are taken; there are states.size(1) − 1": two_steps,
        "ρ is always .5; use the rho that is given": backwards(
            lambda later, t: 0.5 * (later + slopes[:, t + 1])
        ),
        "these are the slopes of single rewards; a move of s_t moves later states, too": leaves,
        "these are the slopes of single rewards; a move of s_t moves later states": slopes,
        "these are the rewards to come; their slope in s_t is asked": backwards(
            lambda later, t: later + cosines[:, t + 1]
        ),
        "λ_T must be 0; yours is 1": backwards(
            lambda later, t: rho * (later + slopes[:, t + 1]), 1.0
        ),
        "the sign is turned: the slope of cos s is −sin s": -truth,
        "the sine is not in it: the slope of cos s is −sin s": backwards(
            lambda later, t: rho * (later + cosines[:, t + 1])
        ),
        "the cosine is taken; the slope of cos s is −sin s": backwards(
            lambda later, t: rho * (later - cosines[:, t + 1])
        ),
        "the loop begins one step too late: the reward for s_T is missing": too_short,
        "time runs along the columns, not down the rows: a row is a rollout": down,
        "the mean over rollouts is taken; return a row for each rollout": truth.mean(0),
        "the mean over rollouts is taken; return each rollout's own costates":
            truth.mean(0).expand_as(truth),
        "ρ is the factor itself, and you add 1 to it": backwards(
            lambda later, t: (1 + rho) * (later + slopes[:, t + 1])
        ),
        "this takes ρ − 1 (that is θ) where it needs ρ": backwards(
            lambda later, t: gain * (later + slopes[:, t + 1])
        ),
        "ρ is multiplied in twice": backwards(
            lambda later, t: rho**2 * (later + slopes[:, t + 1])
        ),
        "ρ is missing: a move of s_t moves s_{t+1} by ρ times as much": backwards(
            lambda later, t: later + slopes[:, t + 1]
        ),
        "ρ multiplies only the slope; the later costate needs it, too": backwards(
            lambda later, t: later + rho * slopes[:, t + 1]
        ),
        "ρ multiplies only the later costate; the slope needs it, too": backwards(
            lambda later, t: rho * later + slopes[:, t + 1]
        ),
        "this is divided by ρ; multiply": backwards(
            lambda later, t: (later + slopes[:, t + 1]) / rho
        ),
        "the slope at s_t is taken, whose reward is already paid": backwards(
            lambda later, t: rho * (later + slopes[:, t])
        ),
        "λ_t counts the slope at s_t itself, whose reward is already paid": backwards(
            lambda later, t: rho * later + slopes[:, t], slopes[:, -1]
        ),
        "λ_T is not 0: no reward is left after s_T": backwards(
            lambda later, t: rho * (later + slopes[:, t + 1]), slopes[:, -1]
        ),
        "only the next reward counts; is the costate behind it there yet? go backwards": backwards(
            lambda later, t: rho * slopes[:, t + 1]
        ),
        "the order in time is reversed; the first column is λ_0": truth.flip(1),
        "the last column is missing, in which λ_T = 0": truth[:, :-1],
        "rows and columns are exchanged; a row is a rollout": truth.T,
        "only λ_0 is there; all costates are asked": truth[:, 0],
    }  # fmt: skip


def mistakes_in_noise_free(track: CosineTrack, s: float, eps: Tensor) -> dict:
    """Wrong pairs: the mean costate at s under the noise eps (B, T), and that without noise."""
    start = torch.full((len(eps),), s, dtype=eps.dtype)
    noisy = track.costates(track.rollout(start, eps))
    quiet = track.costates(track.rollout(start[:1], 0 * eps[:1]))
    of_average = track.costates(track.rollout(start[:1], eps.mean(0, keepdim=True)))
    mean = noisy[:, 0].mean().item()
    noise_free = quiet[0, 0].item()
    averaged = of_average[0, 0].item()

    def pair(track: CosineTrack, s: float) -> list[float]:
        return [
            track.costates(track.rollout(torch.full_like(start, s), noise))[:, 0].mean().item()
            for noise in (eps[:, : track.horizon], 0 * eps[:, : track.horizon])
        ]

    of_one = pair(track, 1.0)
    short = pair(CosineTrack(min(2, track.horizon), track.gain, track.noise), s)
    of_toy = pair(CosineTrack(2, -0.5, 0.5), s)
    return {
        "both are 0": [0.0, 0.0],
        "only the mean is there; return both numbers": mean,
        "only the costate without noise is there; return both numbers": noise_free,
        "the mean comes first, then the costate without noise": [noise_free, mean],
        "both have no noise; the first is the mean over the noisy rollouts": [noise_free] * 2,
        "both are the noisy mean; the second needs the noise 0": [mean, mean],
        "the second is of the average rollout; without noise means eps = 0": [mean, averaged],
        "the first is the costate of the average rollout, not the mean costate": [
            averaged, noise_free,
        ],
        "the first is the sum of the costates, not their mean": [mean * len(eps), noise_free],
        "the first is one rollout's; take the mean": [noisy[0, 0].item(), noise_free],
        "these are means over all times; take λ_0": [noisy.mean().item(), quiet.mean().item()],
        "these are sums over all times; take λ_0": [
            noisy.sum(1).mean().item(), quiet.sum().item(),
        ],
        "these are of λ_1; take λ_0": [noisy[:, 1].mean().item(), quiet[0, 1].item()],
        "the median is taken; take the mean": [noisy[:, 0].median().item(), noise_free],
        "the second is a noisy rollout's; without noise means eps = 0": [
            mean, noisy[0, 0].item(),
        ],
        "the second is a noisy rollout's; without noise means eps = 0 ": [
            mean, noisy[-1, 0].item(),
        ],
        "the sum is divided by B − 1; a mean is divided by B": [
            noisy[:, 0].sum().item() / max(1, len(eps) - 1), noise_free,
        ],
        "both start at 1; start at the s that is given": of_one,
        "the first starts at 1; start at the s that is given": [of_one[0], noise_free],
        "the second starts at 1; start at the s that is given": [mean, of_one[1]],
        "the second has two steps only; take track.horizon": [mean, short[1]],
        "both have two steps only; take track.horizon": short,
        "these are the toy's costates; use the track that is given": of_toy,
        "the second is of the toy; use the track that is given": [mean, of_toy[1]],
        "the sign is turned": [-mean, -noise_free],
        "only the size is left; keep the sign": [abs(mean), abs(noise_free)],
    }  # fmt: skip
