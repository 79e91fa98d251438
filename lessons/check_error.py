"""What usual mistakes in lesson 09's exercises lead to: a sentence, and the value that it names."""

import math

import torch
from torch import Tensor


def mistakes_in_samples(p: Tensor, costates: Tensor, cosine: float) -> dict[str, Tensor]:
    """Wrong values of relative error · cosine² / (1 − cosine²)."""
    gradient = p @ costates
    plain = costates.mean(0)
    signal = gradient.square().sum()
    distances = (costates - gradient).square().sum(1)
    error = p @ distances
    relative = error / signal
    odds = cosine**2 / (1 - cosine**2)
    wrong_errors = {
        "this has the absolute error; divide it by ‖∇V‖²": error,
        "‖∇V‖ is not squared where you divide by it": error / signal.sqrt(),
        "this has the root of the relative error": relative.sqrt(),
        "all costates count the same in the error; weight them with p": distances.mean() / signal,
        "the error is added up without p": distances.sum() / signal,
        "∇V is the mean under p; this takes the plain mean": (
            p @ (costates - plain).square().sum(1) / plain.square().sum()
        ),
        "‖∇V‖² is still in the error; subtract ∇V before you square": relative + 1,
        "the mean over the D numbers is taken, not their sum": relative / costates.size(1),
        "both means, for ∇V and for the error, must be taken under p": (
            (costates - plain).square().sum(1).mean() / plain.square().sum()
        ),
        "the distances are not squared": p @ distances.sqrt() / signal,
        "neither the distances nor ‖∇V‖ are squared": p @ distances.sqrt() / signal.sqrt(),
        "p is squared; weight each squared distance with p once": p.square() @ distances / signal,
        "torch's var counts every costate the same and divides by M - 1; weight them with p": (
            costates.var(0).sum() / signal
        ),
        "the sign is wrong; the factor is cosine² / (1 − cosine²)": -relative,
        "this is upside down: ‖∇V‖² over the absolute error": 1 / relative,
    }
    mistakes = {}
    if abs(odds - 1) < 1e-6 and costates.size(1) == 2:  # two mistakes with one value
        either = "the mean over the two numbers is taken, not their sum, or 1 − cosine² is missing"
        mistakes[f"this is half of it: {either}"] = relative / 2
    for mistake, value in wrong_errors.items():
        mistakes[mistake] = value * odds
    if abs(odds - 1) < 1e-6:  # at a cosine of √½ two more mistakes have one value
        mistakes["this is twice the answer: the factor is cosine² / (1 − cosine²), here 1"] = (
            2 * relative
        )
    else:
        mistakes["the cosine plays no part in this"] = relative
        mistakes["the cosine's share is upside down"] = relative / odds
        mistakes["cosine / √(1 − cosine²) must be squared"] = relative * math.sqrt(odds)
        mistakes["this is divided by cosine²; multiply by cosine² / (1 − cosine²)"] = (
            relative / cosine**2
        )
        mistakes["this is not multiplied by cosine²"] = relative / (1 - cosine**2)
    mistakes["the cosine is not squared"] = relative * cosine / (1 - cosine)
    mistakes["cosine² is squared once more"] = relative * cosine**4 / (1 - cosine**4)
    mistakes["this is not divided by 1 − cosine²"] = relative * cosine**2
    right = (relative * odds).item()
    mistakes["do not round up; less than one costate can be the answer"] = math.ceil(right)
    mistakes["do not round down"] = math.floor(right)
    for digits in range(5):
        mistakes[f"do not round; this has {digits} decimals"] = round(right, digits)
    return mistakes


def mistakes_in_bias(Q: Tensor, pi: Tensor, M: Tensor) -> dict[str, Tensor]:
    """Wrong values of −Cov(Q, M)."""
    scores = M - pi @ M
    dropped = (pi * Q) @ scores
    return {
        "this is the mean of the part that was dropped; the bias has the other sign": dropped,
        "the derivative of log π(v) is the row of M less the mean row under π": -(pi * Q) @ M,
        "π is missing: ∇π = π ∇log π": -Q @ scores,
        "multiply by π instead of dividing: ∇π = π ∇log π": -(Q / pi) @ scores,
        "the mean of M must be taken under π": -(pi * Q) @ (M - M.mean(0)),
        "the means must be taken under π": -(pi * (Q - Q.mean())) @ (M - M.mean(0)),
        "this is a covariance in which every token counts the same": (
            -(Q - Q.mean()) @ (M - M.mean(0)) / (len(Q) - 1)
        ),
        "this is a covariance in which every token has the weight 1/K; weight them with π": (
            -(Q - Q.mean()) @ (M - M.mean(0)) / len(Q)
        ),
        "this is a product of two means; the bias needs the mean of products, too": (
            -(pi @ Q) * (pi @ M)
        ),
        "the product of two means has the other sign, and the mean of products is missing": (
            (pi @ Q) * (pi @ M)
        ),
        "½ is not the mean of Q: subtract Σ π(v) Q(v), or the mean row from M": (
            -(pi * (Q - 0.5)) @ M
        ),
        "the derivative is not divided by V; this is that of log V": dropped / -(pi @ Q),
        "the first token is left out of the sum": -(pi * Q)[1:] @ scores[1:],
        "the mean row of M is taken with Q; take it under π": -(pi * Q) @ (M - Q @ M),
        "the rows of M are added up; take their mean under π": -(pi * Q) @ (M - M.sum(0)),
        "the bias is divided by its length": -dropped / dropped.norm(),
        "K / (K − 1) belongs to samples; π is known exactly": -dropped * len(Q) / (len(Q) - 1),
        "this is the length of the bias; return the vector": dropped.norm(),
        "the mean over tokens is taken, not their sum": -dropped / len(Q),
        "π is there twice": -(pi * pi * Q) @ scores,
        "this is 0, as it would be if Q were missing": torch.zeros_like(dropped),
        "this is the mean of M, not a covariance with Q": -pi @ M,
    }
