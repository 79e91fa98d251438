"""The checks of lesson 03: one half of an answer alone, and what usual mistakes lead to."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from kit import agree, derivatives
from minicf.ppo import gae


def half_of(function: Callable, half: int) -> Callable:
    """The learner's function, of whose two results the first (0) or the second (1) is returned."""

    name = function.__name__

    @functools.wraps(function)
    def one_half(*arguments):
        try:
            results = function(*arguments)
        except NotImplementedError as error:
            if error.args and "bitwise" in error.args[0]:
                sentence = "`&` and `|` bind tighter than `<` and `>`: put (…) around comparisons"
                raise AssertionError(f"`{name}`: {sentence}") from error
            raise
        except RuntimeError as error:
            if "ambiguous" in str(error):
                sentence = "a tensor is no single truth value: use `&` and `|`, not `and` and `or`"
                raise AssertionError(f"`{name}`: {sentence}") from error
            raise
        assert results is not None, f"`{name}` returns None: is a `return` missing?"
        pair = isinstance(results, tuple | list) and len(results) == 2
        assert pair, f"`{name}` must return two things, the loss and `cut`"
        kind = type(results[half]).__name__
        sentence = f"the {('first', 'second')[half]} result of `{name}` is no tensor, but a {kind}"
        assert torch.is_tensor(results[half]), sentence
        kind = results[half].dtype
        sentence = f"`cut` must hold True and False: its type must be torch.bool, not {kind}"
        assert half == 0 or kind == torch.bool, sentence
        return results[half]

    return one_half


def slope_of(function: Callable) -> Callable:
    """The derivative of the learner's loss with respect to logprobs, and to nothing else."""

    @functools.wraps(function)
    def slope(logprobs, old_logprobs, advantages, mask, clip):
        loss = half_of(function, 0)(logprobs, old_logprobs, advantages, mask, clip)
        slopes = derivatives(loss, logprobs, old_logprobs, advantages)
        sentence = "no gradient may flow into the old log-probabilities: detach them"
        assert not slopes[1].any(), sentence
        assert not slopes[2].any(), "no gradient may flow into the advantages: detach them"
        return slopes[0]

    return slope


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
        whole = logratio.where(mask, 0.0).sum(1, keepdim=True).exp().expand_as(ratio)
        return {
            "the sign is turned; an optimiser makes a loss small": right[mask].mean(),
            "the maximum is taken, not the minimum":
                -torch.maximum(ratio * A, banded * A)[mask].mean(),
            "only the clipped product is there; take the minimum with the one that is not clipped":
                -(banded * A)[mask].mean(),
            "nothing is clipped": -(ratio * A)[mask].mean(),
            "the minimum is of ratios; take it of the products, because A may be negative":
                -(torch.minimum(ratio, banded) * A)[mask].mean(),
            "low and high of the clip are swapped": -swapped[mask].mean(),
            "the product is clipped; clip the ratio, then multiply by A":
                -torch.minimum(ratio * A, (ratio * A).clamp(1 - low, 1 + high))[mask].mean(),
            "the band is laid on the logarithm of the ratio":
                -objective(ratio, logratio.clamp(-low, high).exp())[mask].mean(),
            "both ends of the band come from low; the upper one is 1 + high":
                -objective(ratio, ratio.clamp(1 - low, 1 + low))[mask].mean(),
            "both ends of the band come from high; the lower one is 1 − low":
                -objective(ratio, ratio.clamp(1 - high, 1 + high))[mask].mean(),
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
            "the ratio is that of the whole answer; each token has its own":
                -objective(whole, whole.clamp(1 - low, 1 + high))[mask].mean(),
            "the ratio is upside down; it is new over old":
                -objective(back, back.clamp(1 - low, 1 + high))[mask].mean(),
            "this is the difference of the log-probabilities; its exponential is the ratio":
                -objective(logratio, logratio.clamp(1 - low, 1 + high))[mask].mean(),
            "the log-probabilities are divided; the ratio is the exponential of their difference":
                -objective(divided, divided.clamp(1 - low, 1 + high))[mask].mean(),
            "the ratio is 1 everywhere; use the old log-probabilities that are given":
                -at_one[mask].mean(),
        }  # fmt: skip


def mistakes_in_slope(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip: tuple
) -> dict[str, Tensor]:
    """Wrong derivatives (B, T) of a loss that has the right value, by what was done wrong."""
    with torch.no_grad():
        ratio = (logprobs - old_logprobs).exp()
        A = advantages.unsqueeze(1)
        low, high = clip
        inside = (ratio >= 1 - low) & (ratio <= 1 + high)
        kept = inside | ((ratio > 1 + high) == (A < 0))
        first_band = torch.where(A > 0, ratio <= 1.4, ratio >= 0.9)  # of the check before
        scores = -(ratio * A).masked_fill(~mask, 0.0) / mask.sum()
        right = scores * kept
        plain = -A.expand_as(ratio).masked_fill(~mask, 0.0) / mask.sum()
        return {
            "inside the band the gradient is halved: do not detach the clipped product":
                right.where(~inside, right / 2),
            "the gradient of answers that moved the wrong way is gone; only the clip may remove it":
                scores * inside,
            "the gradient of the clipped tokens is still there": scores,
            "the clip is always (0.1, 0.4); use the one that is given": scores * first_band,
            "this is the gradient of the plain policy gradient; no clip acts on it": plain,
            "the gradient lacks the ratio: ρ itself must not be detached": plain * kept,
            "no gradient flows into logprobs: something on the way is detached": 0 * scores,
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
        "an advantage of 0 has no gradient to cut: A > 0, not A >= 0":
            (too_high | (right & (A < 0))) & mask,
        "an advantage of 0 has no gradient to cut: A < 0, not A <= 0":
            (too_low | (right & (A > 0))) & mask,
        "low and high of the clip are swapped": where(1 - high, 1 + low) & mask,
        "both ends of the band come from low; the upper one is 1 + high":
            where(1 - low, 1 + low) & mask,
        "both ends of the band come from high; the lower one is 1 − low":
            where(1 - high, 1 + high) & mask,
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

    def carried_over(value, advantage):
        """GAE by a loop over answers that does not begin each of them at 0, but with these."""
        advantages = torch.zeros_like(values)
        next_value = 0.0
        later = 0.0
        for b, length in enumerate(lengths.tolist()):
            next_value = next_value if value else 0.0
            later = later if advantage else 0.0
            for t in reversed(range(length)):
                delta = paid[b, t] + discount * next_value - values[b, t]
                later = delta + discount * gae_lambda * later
                advantages[b, t] = later
                next_value = values[b, t]
        return advantages

    right = of_lambda(discount, gae_lambda)
    unmasked = backwards(at_the_end, v=values, after=values, counted=whole)
    at_row_end = backwards(at_the_end, counted=whole)
    past_the_stop = backwards(paid, after=values)
    bare = backwards(paid, v=torch.zeros_like(live))
    no_last = backwards(paid, v=live.masked_fill(last, 0.0))
    deltas = of_lambda(discount, 0.0)
    at_first = torch.zeros_like(values)
    at_first[:, 0] = rewards
    shorter = mask & ~last  # as if each answer were one token shorter
    short = live.masked_fill(~shorter, 0.0)
    early = rewards.unsqueeze(1) * last.roll(-1, 1) * shorter
    longer = mask | last.roll(1, 1)  # as if each were one token longer
    long = values.masked_fill(~longer, 0.0)
    late = rewards.unsqueeze(1) * last.roll(1, 1)
    forwards = deltas.clone()
    for t in range(1, values.size(1)):
        forwards[:, t] += discount * gae_lambda * forwards[:, t - 1]
    mistakes = {
        "the sign is turned": -right,
        "A is carried over from the answer before; begin each answer with 0":
            carried_over(value=False, advantage=True),
        "V is carried over from the answer before; begin each answer with 0":
            carried_over(value=True, advantage=False),
        "A and V are carried over from the answer before; begin each answer with 0":
            carried_over(value=True, advantage=True),
        "the reward comes with the first token; it belongs to the last": backwards(at_first),
        "V of the state before the token is added in δ; subtract it": backwards(paid, v=-live),
        "γ and λ are swapped": backwards(paid, step=gae_lambda),
        "λ stands in δ; it belongs to the later advantage only":
            backwards(paid, step=discount * gae_lambda),
        "after the last token its own V is used; there the value is 0":
            backwards(paid + discount * live * last),
        "this is the reward minus V, without γ and λ": everywhere - live,
        "the last token is left out; check the length":
            backwards(early, v=short, after=short, counted=shorter),
        "the last token is left out, and its reward with it; check the length":
            backwards(0 * paid, v=short, after=short, counted=shorter),
        "a token after the stop counts; check the length":
            backwards(late, v=long, after=long, counted=longer),
        "λ is missing: this is the return minus V": of_lambda(discount, 1.0),
        "this is the one-step error δ; the later errors are missing, or λ is taken for 1 − λ":
            deltas,
        "γ is always 0.9; use the discount that is given": of_lambda(0.9, gae_lambda),
        "λ is always 0.5; use the one that is given": of_lambda(discount, 0.5),
        "every token gets the reward; it comes with the last one": backwards(everywhere),
        "the reward comes at the end of the row; it belongs to the answer's last token":
            at_row_end,
        "the reward stands at the end of the row; the answer's last token gets it":
            at_row_end * mask,
        "no answer here gets its reward; it comes with the last token inside the mask":
            backwards(0 * paid),
        "the loop passes over the last token": backwards(0 * paid, counted=shorter),
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
