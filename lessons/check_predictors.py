"""The checks of lesson 10: pass@k from counts, and a predictor compared with a rival.

Each knows the usual wrong answers by their values, and says in one sentence what was done.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from kit import check_answer
from minicf.readiness import headroom, pass_at_k


def check_pass_at_k(function: Callable, correct: list[int], n: int, k: int) -> None:
    """Refuse function(correct, n, k) where it is not the share of subsets with a right answer."""
    hint = f"counts {correct} of n = {n}, k = {k}, one number each"
    shares = [share_by_listing(c, n, k) for c in correct]
    check_answer(
        function, (list(correct), n, k), shares, hint, pass_at_k, headroom,
        mistakes=wrong_shares(correct, n, k, shares),
    )  # fmt: skip


def share_by_listing(c: int, n: int, k: int) -> float:
    """The share of size-k subsets of n answers, c of them right, that hold a right one: listed."""
    answers = [True] * c + [False] * (n - c)
    hits = [any(subset) for subset in itertools.combinations(answers, k)]
    return sum(hits) / len(hits)


def wrong_shares(correct: list[int], n: int, k: int, shares: list[float]) -> dict:
    """Usual wrong values for each prompt, by the sentence that says what was done."""
    subsets = math.comb(n, k)
    total = sum(correct)
    pooled = 1 - math.comb(n * len(correct) - total, k) / math.comb(n * len(correct), k)
    wrong = {
        "c/n was put in the place of V in 1 − (1 − V)^k, which is biased; count subsets":
            [1 - (1 - c / n) ** k for c in correct],
        "C(c, k) counts subsets of only right answers; the subsets of only wrong ones are asked":
            [1 - math.comb(c, k) / subsets for c in correct],
        "C(c, k) / C(n, k) is the share of subsets in which all are right":
            [math.comb(c, k) / subsets for c in correct],
        "this is the share of subsets without a right answer; take it from 1":
            [math.comb(n - c, k) / subsets for c in correct],
        "pass@1 is still subtracted; pass@k alone is asked":
            [share - c / n for share, c in zip(shares, correct)],
        "this is pass@1, c/n: subsets of one answer, not of k": [c / n for c in correct],
        "this is k · c/n, which counts a subset with two right answers twice":
            [k * c / n for c in correct],
        "k right answers are not enough for a share of 1: a subset of k wrong ones may be left":
            [1.0 if c >= k else share for c, share in zip(correct, shares)],
        "with n − c = k wrong answers one subset holds no right one, so the share is below 1":
            [1.0 if n - c <= k else share for c, share in zip(correct, shares)],
        "the shares are rounded; return all their digits": [round(share, 2) for share in shares],
        "the subsets have one answer too few":
            [1 - math.comb(n - c, k - 1) / math.comb(n, k - 1) for c in correct],
        "the prompts were thrown together; each has its own share": [pooled] * len(correct),
    }  # fmt: skip
    return {sentence: values for sentence, values in wrong.items() if far(values, shares)}


def far(values, truth) -> bool:
    """Whether a mistake's values differ from the truth, so that it can be told from it."""
    differences = torch.as_tensor(values).double() - torch.as_tensor(truth).double()
    return bool((differences.abs() > 1e-4).any())


def check_lead(
    function: Callable, scores: Tensor, rival_scores: Tensor, gains: Tensor, hint: str,
    parts: tuple[int, ...] = (0, 1),
) -> None:  # fmt: skip
    """Refuse function(scores, rival_scores, gains) -> [mean lead, its standard error].

    All three are (S, C). Part 0 is the lead, part 1 the standard error.
    """
    given = (scores, rival_scores, gains)
    lead, error = lead_by_loops(*given)
    wrong_leads = {
        "the sign is wrong: it is our share minus the rival's": -lead,
        "the gains at the picks are not divided by their seed's largest gain":
            lead_by_loops(*given, share=False)[0],
        "the largest gain is taken over all seeds; each seed has its own":
            lead_by_loops(*given, whole=True)[0],
        "the checkpoint with the smallest score was picked":
            lead_by_loops(-scores, -rival_scores, gains)[0],
        "the leads are added up over seeds; their mean is asked": lead * len(gains),
        "one checkpoint is picked for all seeds, by mean scores; each seed has its own pick":
            lead_by_loops(common(scores), common(rival_scores), gains)[0],
        "this is the share that our own picks miss; the lead is our share minus the rival's":
            1 - picked(scores, gains).mean(),
        "the picks run along the seeds; each is among the checkpoints of one seed, dimension 1":
            lead_by_loops(scores.T, rival_scores.T, gains.T)[0],
        "this is the largest score, not the gain at that checkpoint":
            (scores.amax(1) - rival_scores.amax(1)).mean(),
        "this is our own mean share; the rival's is not taken off": picked(scores, gains).mean(),
        "this is the median of the leads; their mean is asked":
            (picked(scores, gains) - picked(rival_scores, gains)).median(),
        "argmax(0) runs along the seeds; each seed picks a checkpoint, so it is argmax(1)":
            along_seeds(scores, gains) - along_seeds(rival_scores, gains),
        "an index such as gains[:, picks] takes each seed's pick for all seeds; take one gain "
        "for each seed, with `gather`":
            for_all(scores, gains, False) - for_all(rival_scores, gains, False),
        "gains[picks] takes whole rows, a seed's, not a checkpoint's; take one gain for each seed, "
        "with `gather`":
            for_all(scores, gains, True) - for_all(rival_scores, gains, True),
        "the two numbers are exchanged; the mean lead comes first": error,
    }  # fmt: skip
    count = len(gains)
    ours = picked(scores, gains)
    theirs = picked(rival_scores, gains)
    wrong_errors = {
        "the two standard deviations were put together as if the seeds were not the same; "
        "take the standard deviation of the differences":
            ((ours.var() + theirs.var()) / count) ** 0.5,
        "this is the standard deviation of the differences; divide it by the root of the number "
        "of seeds": error * count**0.5,
        "it is divided by the number of seeds, or by the root of the number of all gains, not by "
        "the root of the number of seeds": error / count**0.5,
        "it is divided by the root of the number of checkpoints, not of seeds":
            error * (count / gains.size(1)) ** 0.5,
        "the standard deviation has S below its squares, where S − 1 is asked":
            error * ((count - 1) / count) ** 0.5,
        "this is a variance; take the root": error**2,
        "this is the standard error of our own shares, not of the differences":
            ours.std() / count**0.5,
        "the two numbers are exchanged; the standard error comes second": lead,
    }  # fmt: skip
    for part, expected, wrong in ((0, lead, wrong_leads), (1, error, wrong_errors)):
        if part in parts:
            mistakes = {text: value for text, value in wrong.items() if far(value, expected)}
            what = f"{hint}, {('the lead', 'the standard error')[part]}"
            check_answer(number_of(function, part), given, expected, what, mistakes=mistakes)


def number_of(function: Callable, part: int) -> Callable:
    """The function, returning only one of its two numbers, under its own name."""

    def one_number(*arguments):
        arguments = [argument.clone() for argument in arguments]
        got = function(*arguments)
        assert got is not None, f"`{function.__name__}` returns None: is a `return` missing?"
        two = hasattr(got, "__len__") and not (isinstance(got, Tensor) and got.dim() != 1)
        two = two and len(got) == 2
        assert two, f"`{function.__name__}` must return two numbers: [mean lead, standard error]"
        return got[part]

    one_number.__name__ = function.__name__
    return one_number


def picked(scores: Tensor, gains: Tensor) -> Tensor:
    """For each seed the gain where the score is largest, as a share of the largest gain: (S,)."""
    shares = []
    for score, gain in zip(scores.tolist(), gains.tolist()):
        shares.append(gain[score.index(max(score))] / max(gain))
    return torch.tensor(shares, dtype=torch.float64)


def along_seeds(scores: Tensor, gains: Tensor) -> Tensor:
    """The mean share if argmax runs along the seeds; nan where the shapes would not fit."""
    if len(scores) != scores.size(1):
        return torch.tensor(math.nan)
    picks = scores.argmax(0)[:, None]
    return (gains.gather(1, picks)[:, 0] / gains.amax(1)).double().mean()


def for_all(scores: Tensor, gains: Tensor, rows: bool) -> Tensor:
    """The mean share if the picks take whole columns of the gains, or whole `rows`."""
    picks = scores.argmax(1)
    taken = gains[picks] if rows else gains[:, picks]
    if taken.size(1) != len(gains):
        return torch.tensor(math.nan)
    return (taken / gains.amax(1)).double().mean()


def lead_by_loops(scores, rival_scores, gains, share=True, whole=False) -> tuple[Tensor, Tensor]:
    """Mean lead in picks and its standard error. Not as a `share`, or of the `whole` maximum."""
    factor = torch.ones(len(gains), dtype=torch.float64)
    if not share:
        factor = gains.amax(1).double()
    if whole:
        factor = gains.amax(1).double() / gains.max()
    leads = (picked(scores, gains) - picked(rival_scores, gains)) * factor
    return leads.mean(), leads.std() / len(leads) ** 0.5


def common(scores: Tensor) -> Tensor:
    """The mean scores over seeds, for every seed."""
    return scores.mean(0, keepdim=True).expand_as(scores)
