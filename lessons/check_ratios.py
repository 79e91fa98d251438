"""What usual mistakes in lesson 06's exercises lead to: a sentence, and the value that it names."""

from collections.abc import Callable

import torch
from torch import Tensor


def mistakes_in_ratios(new: Tensor, old: Tensor, mask: Tensor, level: str) -> dict[str, Tensor]:
    """Wrong ratios (B, T) of log-probabilities new and old (B, T), at one of the three levels."""
    difference = (new - old).masked_fill(~mask, 0.0)
    logs = {name: log_ratios(difference, name) for name in ("token", "prefix", "sequence")}
    log = logs[level]
    length = mask.sum(1, keepdim=True)
    mistakes = {
        "the ratio is upside down: divide the trainer's probability by the sampler's": -log,
        "the trainer's log-probabilities alone are used": new - 0 * old,
    }
    if level == "prefix":
        before = log - difference
        to_go = difference.flip(1).cumsum(1).flip(1)
        mistakes["the token itself belongs to its prefix; you stop before it"] = before
        mistakes["this multiplies the ratios from the token to the end, not from the start"] = to_go
        mistakes["the product runs down the batch; it belongs along the tokens"] = (
            difference.cumsum(0)
        )
        mistakes["the sampler's log-probabilities are not added up"] = new.cumsum(1) - old
        mistakes["the mean over the prefix is taken; take the sum"] = (
            log / torch.arange(1, new.size(1) + 1)
        )
    if level == "sequence":
        mistakes["the mean over the tokens is taken, as GSPO does; take the sum"] = log / length
        mistakes["the mean is taken over all T positions; take the sum"] = log / new.size(1)
        mistakes["answers are multiplied with each other; multiply along the tokens"] = (
            difference.sum(0, keepdim=True).expand_as(new)
        )
    results = {sentence: exp_where(mask, wrong) for sentence, wrong in mistakes.items()}
    results["these are logarithms; take exp"] = log.masked_fill(~mask, 0.0)
    results["what stands after the stop must be 0"] = log.exp()
    if level == "token":
        results["what stands after the stop is not left out"] = (new - old).exp()
        results["this divides the logarithms; subtract them and take exp"] = (
            (new / old).masked_fill(~mask, 0.0)
        )
        results["this is the difference of the probabilities, not their ratio"] = (
            (new.exp() - old.exp()).masked_fill(~mask, 0.0)
        )
    else:
        added = difference.exp().masked_fill(~mask, 0.0)
        added = added.cumsum(1) if level == "prefix" else added.sum(1, keepdim=True)
        results["ratios are added; they must be multiplied"] = exp_where(mask, added.log())
    if level == "prefix":
        unmasked = (new - old).cumsum(1)
        results["what stands after the stop must be 0 (and is multiplied in)"] = unmasked.exp()
    if level == "sequence":
        unmasked = (new - old).sum(1, keepdim=True).expand_as(new)
        results["what stands after the stop is multiplied in"] = exp_where(mask, unmasked)
        results["what stands after the stop is multiplied in, and not set to 0"] = unmasked.exp()
        down = (new - old).sum(0, keepdim=True)
        answers = "answers are multiplied with each other"
        results[f"{answers}, behind stops, too; multiply along the tokens"] = exp_where(mask, down)
        down = difference.sum(0, keepdim=True).expand_as(new)
        results[f"{answers}, and what stands after the stop is not 0"] = down.exp()
        down = (difference.exp() * mask).prod(0, keepdim=True)
        results[f"{answers}, and so are the 0 after their stops"] = down * mask
        zeros = (1.0 * mask).prod(1, keepdim=True) * log.exp() * mask
        results["the 0 after the stop is multiplied in"] = zeros
        results["return (B, T): repeat the ratio of an answer at its tokens"] = log[:, :1].exp()
        results["return (B, T): repeat the ratio of an answer at its tokens "] = log[:, 0].exp()
        whole_batch = difference.sum().expand_as(new)
        results["this multiplies over the whole batch; multiply along the tokens of an answer"] = (
            exp_where(mask, whole_batch)
        )
        to_go = difference.flip(1).cumsum(1).flip(1)
        results["this multiplies from the token to the end; the whole answer is asked"] = (
            exp_where(mask, to_go)
        )
    for other, wrong in logs.items():
        if other != level:
            sentence = f"these are the ratios for level {other!r}"
            results[sentence] = exp_where(mask, wrong)

    turned = "the mask is the wrong way round: it is True up to the stop, and ~mask is behind it"
    behind = log_ratios((new - old).masked_fill(mask, 0.0), level)
    for space, wrong in enumerate((
        behind.exp() * ~mask, behind.exp() * mask, behind.exp(), log.exp() * ~mask
    )):  # fmt: skip
        results[turned + " " * space] = wrong
    short = mask & (mask.cumsum(1) < length)
    before_stop = log_ratios((new - old).masked_fill(~short, 0.0), level)
    results["the stop itself belongs to the answer; you leave it out"] = exp_where(
        short, before_stop
    )
    results["the stop itself belongs to the answer; you leave its ratio out"] = exp_where(
        mask, before_stop
    )
    return results


def log_ratios(difference: Tensor, level: str) -> Tensor:
    """The logarithms (B, T) of the ratios at a level, of differences (B, T) at each token."""
    if level == "prefix":
        return difference.cumsum(1)
    if level == "sequence":
        return difference.sum(1, keepdim=True).expand_as(difference)
    return difference


def old_logprobs_of_colleagues(engine: Tensor, trainer: Tensor) -> dict[str, Tensor]:
    """What the colleagues of "Break it" subtract; engine and trainer are log-probabilities."""
    return {"first": engine, "second": trainer.clone()}


def exp_where(mask: Tensor, logs: Tensor) -> Tensor:
    """exp of logs (B, T), and 0 where the mask is False."""
    return logs.exp().expand_as(mask).masked_fill(~mask, 0.0)


def mistakes_in_errors(
    ratio: Tensor, limits: list, mode: str, samples: int, judge: Callable
) -> dict[str, list[float]]:
    """Wrong lists of bias² + variance/samples, one number for each limit."""
    capped = [judge(ratio.clamp(max=limit)) for limit in limits]
    masked = [judge(ratio.masked_fill(ratio > limit, 0.0)) for limit in limits]
    used = capped if mode == "cap" else masked
    other = masked if mode == "cap" else capped
    turned = [judge(ratio.clamp(min=limit)) for limit in limits]
    if mode == "mask":
        turned = [judge(ratio.masked_fill(ratio <= limit, 0.0)) for limit in limits]
    kept_as_one = [judge((ratio <= limit).to(ratio)) for limit in limits]
    set_to_one = [judge(ratio.masked_fill(ratio > limit, 1.0)) for limit in limits]

    in_order = []
    for limit in sorted(limits):
        in_order.append(used[limits.index(limit)])
    below = [judge(ratio.masked_fill(ratio >= limit, 0.0)) for limit in limits]

    both_sides = []
    whole_rows = []
    for limit in limits:
        outside = (ratio > limit) | (ratio < 1 / limit)
        inside = ratio.clamp(min(limit, 1 / limit), limit)
        both_sides.append(judge(inside if mode == "cap" else ratio.masked_fill(outside, 0.0)))
        above = (ratio > limit).any(1, keepdim=True)
        whole_rows.append(judge(ratio.masked_fill(above, 0.0)))

    again = []
    for i in range(len(limits)):
        lowest = min(limits[: i + 1])
        again.append(used[limits.index(lowest)])

    def errors(pairs: list) -> list[float]:
        return [bias**2 + variance / samples for bias, variance in pairs]

    if mode == "cap":
        exchanged = "a ratio above the limit must become the limit, not 0"
    else:
        exchanged = "a ratio above the limit must become 0, not the limit"
    return {
        exchanged: errors(other),
        "return a number for each limit; this is the first alone": errors(used[:1]),
        "return a list with a number for each limit; this is the first alone": errors(used)[0],
        "return a number for each limit; this is the last alone": errors(used)[-1],
        "return the error of each limit, not the smallest error": min(errors(used)),
        "return the errors, not the best limit": limits[errors(used).index(min(errors(used)))],
        "each limit must be used on the ratios as they were given": errors(again),
        "the limit is used from below; ratios *above* it must change": errors(turned),
        "return the errors in the order in which the limits are given": errors(in_order),
        "a ratio equal to the limit is not above it, and stays": errors(below),
        "masked weights keep their ratio; you replace it by 1": errors(kept_as_one),
        "a ratio above the limit must not become 1, as it does in yours": errors(set_to_one),
        "only a ratio above the limit changes; you also change those below 1/limit":
            errors(both_sides),
        "only the ratio above the limit becomes 0, not all ratios of its answer":
            errors(whole_rows),
        "divide by the `samples` that are given, not by 5":
            [bias**2 + variance / 5 for bias, variance in used],
        "take the bias that the judge returns, not your own":
            own_bias(ratio, limits, used, mode, samples),
        "return one number for each limit, not bias and variance apart":
            [[bias**2, variance / samples] for bias, variance in used],
        "the judge's bias is the distance already; you subtract it from 1":
            [(1 - bias) ** 2 + variance / samples for bias, variance in used],
        "some or all of the ratios above the limit stay as they are":
            errors([judge(ratio) for _ in limits]),
        "the bias is not squared": [bias + variance / samples for bias, variance in used],
        "the variance is not divided by the number of samples":
            [bias**2 + variance for bias, variance in used],
        "the bias does not shrink with the number of samples; divide the variance alone":
            [(bias**2 + variance) / samples for bias, variance in used],
        "the variance is divided by the root of the number of samples":
            [bias**2 + variance / samples**0.5 for bias, variance in used],
        "the variance is divided by samples - 1; it is of one sample, so divide by samples":
            [bias**2 + variance / (samples - 1) for bias, variance in used],
        "the variance is divided by the square of the number of samples":
            [bias**2 + variance / samples**2 for bias, variance in used],
        "the root of the variance is taken; take the variance":
            [bias**2 + variance**0.5 / samples for bias, variance in used],
        "the standard error is taken; its square is variance / samples":
            [bias**2 + (variance / samples) ** 0.5 for bias, variance in used],
        "the variance is squared; it is a square already":
            [bias**2 + (variance / samples) ** 2 for bias, variance in used],
        "this is the root of the squared error": [error**0.5 for error in errors(used)],
        "the variance is missing": [bias**2 for bias, _ in used],
        "the bias is missing": [variance / samples for _, variance in used],
        "the judge returns the bias first, then the variance":
            [variance**2 + bias / samples for bias, variance in used],
    }  # fmt: skip


def own_bias(ratio: Tensor, limits: list, used: list, mode: str, samples: int) -> list[float]:
    """Errors with the distance from the unlimited mean in place of the judge's bias."""
    results = []
    for limit, (_, variance) in zip(limits, used):
        limited = ratio.clamp(max=limit)
        if mode == "mask":
            limited = ratio.masked_fill(ratio > limit, 0.0)
        results.append((limited - ratio).mean().item() ** 2 + variance / samples)
    return results
