"""The checks of lesson 03: one half of an answer alone, and what usual mistakes lead to."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from kit import agree
from minicf.ppo import gae


def half_of(function: Callable, half: int) -> Callable:
    """The learner's function, of whose two results the first (0) or the second (1) is returned."""

    @functools.wraps(function)
    def one_half(*arguments):
        try:
            results = function(*arguments)
        except NotImplementedError as error:
            if error.args and "bitwise" in error.args[0]:
                sentence = "`&` and `|` bind tighter than `<` and `>`: put (…) around comparisons"
                raise TypeError(sentence) from error
            raise
        except RuntimeError as error:
            if "ambiguous" in str(error):
                sentence = "a tensor is no single truth value: use `&` and `|`, not `and` and `or`"
                raise TypeError(sentence) from error
            raise
        name = function.__name__
        assert results is not None, f"`{name}` returns None: is a `return` missing?"
        pair = isinstance(results, tuple | list) and len(results) == 2
        assert pair, f"`{name}` must return two things, the loss and `cut`"
        kind = type(results[half]).__name__
        sentence = f"the {('first', 'second')[half]} result of `{name}` is no tensor, but a {kind}"
        assert torch.is_tensor(results[half]), sentence
        return results[half]

    return one_half


def mistakes_in_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip: tuple
) -> dict[str, Tensor]:
    """Wrong values of PPO's loss, by the sentence that says what was done wrong."""
    with torch.no_grad():
        logratio = logprobs - old_logprobs
        ratio = logratio.exp()
        A = advantages.unsqueeze(1)
        low, high = clip
        banded = ratio.clamp(1 - low, 1 + high)

        def objective(inner, outer):
            return torch.minimum(inner * A, outer * A)

        right = objective(ratio, banded)
        back = (-logratio).exp()
        divided = logprobs / old_logprobs
        swapped = objective(ratio, ratio.clamp(1 - high, 1 + low))
        of_answers = right.where(mask, 0.0).sum(1)
        lengths = mask.sum(1)
        at_one = torch.ones_like(ratio) * A
        return {
            "the sign is turned; an optimiser makes a loss small": right[mask].mean(),
            "the maximum is taken, not the minimum":
                -torch.maximum(ratio * A, banded * A)[mask].mean(),
            "only the clipped product is there; take the minimum with the one that is not clipped":
                -(banded * A)[mask].mean(),
            "nothing is clipped": -(ratio * A)[mask].mean(),
            "the minimum is taken of the ratios; multiply by the advantage first":
                -(torch.minimum(ratio, banded) * A)[mask].mean(),
            "low and high of the clip are swapped": -swapped[mask].mean(),
            "the clip is always (0.2, 0.2); use the one that is given":
                -objective(ratio, ratio.clamp(0.8, 1.2))[mask].mean(),
            "the ratio is clipped to (low, high); the band is from 1 − low to 1 + high":
                -objective(ratio, ratio.clamp(low, high))[mask].mean(),
            "tokens after the stop count; use the mask": -right.mean(),
            "the stop does not count; it is a choice, too":
                -right[mask & (mask.flip(1).cumsum(1).flip(1) > 1)].mean(),
            "this is the mean over all B·T places; divide by the number of tokens that count":
                -of_answers.sum() / mask.numel(),
            "this is the sum over tokens; take their mean": -of_answers.sum(),
            "this is the mean over answers of their sums; take the mean over tokens":
                -of_answers.mean(),
            "each answer is averaged by itself; take one mean over all tokens":
                -(of_answers / lengths).mean(),
            "the ratio is upside down; it is new over old":
                -objective(back, back.clamp(1 - low, 1 + high))[mask].mean(),
            "this is the difference of the log-probabilities; its exponential is the ratio":
                -objective(logratio, logratio.clamp(1 - low, 1 + high))[mask].mean(),
            "the log-probabilities are divided; the ratio is the exponential of their difference":
                -objective(divided, divided.clamp(1 - low, 1 + high))[mask].mean(),
            "the ratio is 1 everywhere; use the old log-probabilities that are given":
                -at_one[mask].mean(),
        }  # fmt: skip


def mistakes_in_cut(
    ratio: Tensor, advantages: Tensor, mask: Tensor, clip: tuple
) -> dict[str, Tensor]:
    """Wrong values of `cut` (B, T), by the sentence that says what was done wrong."""
    A = advantages.unsqueeze(1)
    low, high = clip
    outside = (ratio > 1 + high) | (ratio < 1 - low)

    def where(low_side, high_side):
        too_high = (ratio > high_side) & (A > 0)
        too_low = (ratio < low_side) & (A < 0)
        return too_high | too_low

    right = where(1 - low, 1 + high)
    wrong_way = ((ratio > 1 + high) & (A < 0)) | ((ratio < 1 - low) & (A > 0))
    too_high = (ratio > 1 + high) & (A >= 0)
    too_low = (ratio < 1 - low) & (A <= 0)
    logratio = ratio.log()
    return {
        "nothing is marked": torch.zeros_like(mask),
        "this marks tokens that keep their gradient; turn it round": ~right & mask,
        "all ratios outside the band are marked; for half of them the gradient is whole":
            outside & mask,
        "all ratios outside the band with an advantage are marked; the sign of A matters":
            outside & mask & (A != 0),
        "these moved against their advantage, and the gradient brings them back":
            wrong_way & mask,
        "an advantage of 0 has no gradient to cut": (too_high | too_low) & mask,
        "low and high of the clip are swapped": where(1 - high, 1 + low) & mask,
        "the clip is always (0.2, 0.2); use the one that is given": where(0.8, 1.2) & mask,
        "the ratio is compared with low and high, not with 1 − low and 1 + high":
            where(low, high) & mask,
        "the band is laid on the logarithm of the ratio":
            (((logratio > high) & (A > 0)) | ((logratio < -low) & (A < 0))) & mask,
        "all that moved as the advantage asks is marked; the band is missing":
            ((ratio - 1) * A > 0) & mask,
        "ratios that are too low are missing": (ratio > 1 + high) & (A > 0) & mask,
        "ratios that are too high are missing": (ratio < 1 - low) & (A < 0) & mask,
        "tokens after the stop are marked; they never had a gradient": right,
    }  # fmt: skip


def mistakes_in_gae(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float, gae_lambda: float
) -> dict[str, Tensor]:
    """Wrong advantages (B, T), by the sentence that says what was done wrong.

    Those that are right in this example, as a forgotten λ is where λ = 1, are left out.
    """
    lengths = mask.sum(1)
    last = torch.zeros_like(mask)
    last[torch.arange(len(mask)), lengths - 1] = True
    paid = torch.zeros_like(values).masked_fill(last, 1.0) * rewards.unsqueeze(1)
    everywhere = rewards.unsqueeze(1) * mask
    at_the_end = torch.zeros_like(values)
    at_the_end[:, -1] = rewards
    live = values.masked_fill(~mask, 0.0)

    whole = torch.ones_like(mask)  # as if every token counted

    def backwards(
        given, step=discount, trace=discount * gae_lambda, v=live, after=live, counted=mask
    ):
        """GAE with the parts that a mistake changes; after (B, T) holds values of next states."""
        advantages = torch.zeros_like(v)
        later = torch.zeros_like(v[:, 0])
        for t in reversed(range(v.size(1))):
            next_value = after[:, t + 1] if t + 1 < v.size(1) else torch.zeros_like(later)
            delta = given[:, t] + step * next_value - v[:, t]
            later = (delta + trace * later) * counted[:, t]
            advantages[:, t] = later
        return advantages

    def of_lambda(discount, gae_lambda):
        return gae(rewards, values, mask, discount, gae_lambda)[0]

    right = of_lambda(discount, gae_lambda)
    unmasked = backwards(at_the_end, v=values, after=values, counted=whole)
    at_row_end = backwards(at_the_end, counted=whole)
    past_the_stop = backwards(paid, after=values)
    bare = backwards(paid, v=torch.zeros_like(live))
    no_last = backwards(paid, v=live.masked_fill(last, 0.0))
    deltas = of_lambda(discount, 0.0)
    forwards = deltas.clone()
    for t in range(1, values.size(1)):
        forwards[:, t] += discount * gae_lambda * forwards[:, t - 1]
    mistakes = {
        "the sign is turned": -right,
        "λ is missing: this is the return minus V": of_lambda(discount, 1.0),
        "this is the one-step error δ; the later errors are missing": deltas,
        "every token gets the reward; it comes with the last one": backwards(everywhere),
        "the reward comes at the end of the row; it belongs to the answer's last token":
            at_row_end,
        "the reward stands at the end of the row; the answer's last token gets it":
            at_row_end * mask,
        "the reward is missing": backwards(0 * paid),
        "values after the stop are used; after the last token the value is 0": past_the_stop,
        "V of the state before the token is not subtracted": bare,
        "the last token's own V is not subtracted": no_last,
        "γ is missing in δ": backwards(paid, step=1.0),
        "γ is missing beside λ": backwards(paid, trace=gae_lambda),
        "γ is missing everywhere": of_lambda(1.0, gae_lambda),
        "γ and λ are left out beside the later advantage": backwards(paid, trace=1.0),
        "this runs forwards in time; begin with the last token": forwards * mask,
        "this is A + V, the critic's target": (right + values) * mask,
        "the mask is not used": unmasked,
        "the mask is used too late: the reward comes with the last token that counts":
            unmasked * mask,
    }  # fmt: skip
    return {text: wrong for text, wrong in mistakes.items() if not agree(wrong, right, 1e-4)}
