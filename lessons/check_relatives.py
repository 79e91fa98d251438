"""What usual mistakes in lesson 05's exercises lead to: a sentence, and the value that it names."""

import torch
from torch import Tensor


def mistakes_in_cispo(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, high: float
) -> dict[str, Tensor]:
    """Wrong values of CISPO's loss; logprobs, old and mask are (B, T), advantages (B,)."""
    logprobs = logprobs.detach()
    A = advantages.unsqueeze(1)
    ratio = (logprobs - old).exp()
    capped = ratio.clamp(max=1 + high)

    def mean(values: Tensor) -> Tensor:
        return values[mask].mean()

    objective = capped * A * logprobs
    live = objective.masked_fill(~mask, 0.0)
    clipped = torch.minimum(ratio * A, ratio.clamp(1 - high, 1 + high) * A)
    upside_down = (old - logprobs).exp().clamp(max=1 + high)
    whole = (logprobs - old).masked_fill(~mask, 0.0).sum(1, keepdim=True)
    geometric = (whole / mask.sum(1, keepdim=True)).exp().clamp(max=1 + high)
    return {
        "the sign is turned; a loss is made smaller, the objective larger": mean(objective),
        "the ratio is not capped": -mean(ratio * A * logprobs),
        "the cap is at `high`; it belongs at 1 + high": -mean(
            ratio.clamp(max=high) * A * logprobs
        ),
        "the ratio is also cut from below; here it is only capped from above": -mean(
            ratio.clamp(1 - high, 1 + high) * A * logprobs
        ),
        "the ratio is capped only where the advantage is positive; cap it everywhere": -mean(
            torch.where(A > 0, capped, ratio) * A * logprobs
        ),
        "this is GRPO's objective with minimum and clip; CISPO has weight times A times log π":
            -mean(clipped),
        "log π is missing: this is the weight times the advantage": -mean(capped * A),
        "there is no ratio in it": -mean(A * logprobs),
        "minimum and maximum are exchanged; the ratio may not be larger than 1 + high": -mean(
            ratio.clamp(min=1 + high) * A * logprobs
        ),
        "above the cap the weight is 0, as in PPO; CISPO keeps it at 1 + high": -mean(
            ratio.masked_fill(ratio > 1 + high, 0.0) * A * logprobs
        ),
        "the cap is always 1.2; it is 1 + high": -mean(ratio.clamp(max=1.2) * A * logprobs),
        "the ratio stands where log π belongs": -mean(capped * A * ratio),
        "the log-ratio stands where log π belongs": -mean(capped * A * (logprobs - old)),
        "the ratio is upside down; it is π/π_old": -mean(upside_down * A * logprobs),
        "the exponential is missing: this caps the log-ratio": -mean(
            (logprobs - old).clamp(max=1 + high) * A * logprobs
        ),
        "π stands where log π belongs": -mean(capped * A * logprobs.exp()),
        "log π_old stands where log π belongs": -mean(capped * A * old),
        "an answer has one ratio, as in GSPO; here each token has its own": -mean(
            geometric * A * logprobs
        ),
        "the advantage is missing": -mean(capped * logprobs),
        "each answer is averaged over its own tokens; take one mean over all tokens":
            -(live.sum(1) / mask.sum(1)).mean(),
        "places after the stop count in the mean": -objective.mean(),
        "places after the stop are 0, but they count in the mean": -live.mean(),
        "the tokens are added up; take their mean": -live.sum(),
        "the sum is divided by 9; divide it by the number of tokens": -live.sum() / 9,
        "the tokens of an answer are added up; take one mean over all tokens": (
            -live.sum(1).mean()
        ),
        "places after the stop count in the sum": -objective.sum() / mask.sum(),
        "the sum is divided by the width T; divide it by the number of tokens":
            -live.sum() / mask.shape[1],
        "the log-ratio is capped at `high`; cap the ratio, at 1 + high": -mean(
            (logprobs - old).clamp(max=high).exp() * A * logprobs
        ),
        "weight times advantage is capped; cap the weight alone": -mean(
            (ratio * A).clamp(max=1 + high) * logprobs
        ),
        "the cap is at 1 - high; it belongs at 1 + high": -mean(
            ratio.clamp(max=1 - high) * A * logprobs
        ),
        "the advantage has lost its sign": -mean(capped * A.abs() * logprobs),
        "the ratios of an answer are multiplied; here each token has its own": -mean(
            whole.exp().clamp(max=1 + high) * A * logprobs
        ),
    }  # fmt: skip


def mistakes_in_cispo_gradient(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, high: float
) -> dict[str, Tensor]:
    """Wrong gradients (B, T) by the log-probabilities of a loss whose value is right."""
    logprobs = logprobs.detach()
    ratio = (logprobs - old).exp()
    capped = ratio.clamp(max=1 + high)
    scale = (-advantages.unsqueeze(1) * mask) / mask.sum()
    by_weight = scale * logprobs * ratio.masked_fill(ratio > 1 + high, 0.0)
    by_logprob = scale * capped
    return {
        "the value is right, but no gradient reaches the log-probabilities": 0 * scale,
        "the value is right, but the weight is not held fixed: a gradient flows through the ratio":
            by_weight + by_logprob,
        "the value is right, but the gradient flows through the ratio in place of log π": by_weight,
        "the value is right, but the gradient is that of log π without its weight": scale,
        "the value is right, but above the cap there is no gradient; CISPO keeps it there":
            by_logprob.masked_fill(ratio > 1 + high, 0.0),
    }  # fmt: skip


def mistakes_in_leash(
    rewards: Tensor, logprobs: Tensor, reference: Tensor, mask: Tensor, beta: float
) -> dict[str, Tensor]:
    """Wrong rewards (B,) less β times what an answer adds to the KL; the others are (B, T)."""
    everywhere = (logprobs - reference).detach()
    d = everywhere.masked_fill(~mask, 0.0)
    whole = d.sum(1)
    k3 = (-d).exp() - 1 + d
    change = (logprobs.exp() - reference.exp()).detach().masked_fill(~mask, 0.0).sum(1)
    again = logprobs.exp().detach() * d
    last = d.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]
    return {
        "the rewards are unchanged": rewards,
        "the sign is turned: this rewards a move away from the reference": rewards + beta * whole,
        "beta is missing": rewards - whole,
        "tokens after the stop count": rewards - beta * everywhere.sum(1),
        "an answer's tokens are averaged; add them up": rewards - beta * whole / mask.sum(1),
        "the tokens are averaged over T; add them up": rewards - beta * d.mean(1),
        "every answer pays the batch's mean; each pays its own": rewards - beta * whole.mean(),
        "every answer pays for the whole batch; each pays its own": rewards - beta * whole.sum(),
        "this is k2 of the whole answer; the reward needs k1": rewards - beta * whole**2 / 2,
        "this is k2 of each token; the reward needs k1": rewards - beta * (d**2 / 2).sum(1),
        "this is k3 of each token; the reward needs k1": rewards - beta * k3.sum(1),
        "this is the absolute value of k1; the reward needs k1 with its sign":
            rewards - beta * whole.abs(),
        "this has probabilities in place of log-probabilities": rewards - beta * change,
        "only the last token pays; all tokens of an answer do": rewards - beta * last,
        "only the last column pays; all tokens of an answer do": rewards - beta * d[:, -1],
        "this is k3 of the whole answer; the reward needs k1":
            rewards - beta * ((-whole).exp() - 1 + whole),
        "the samples already come from the policy; do not weight by π again":
            rewards - beta * again.sum(1),
        "only right answers pay the penalty; all answers do": rewards - beta * whole * rewards,
        "negative values are cut off; k1 keeps its sign": rewards - beta * whole.clamp(min=0),
        "tokens with a negative value are cut off; k1 keeps its sign":
            rewards - beta * d.clamp(min=0).sum(1),
        "this has log π alone; compare it with the reference":
            rewards - beta * logprobs.detach().masked_fill(~mask, 0.0).sum(1),
        "this is what is paid; subtract it from the reward": beta * whole,
        "the ratio π/π_ref is paid, not its logarithm": rewards - beta * whole.exp(),
        "the mask is the wrong way round; it is true where a token counts":
            rewards - beta * (everywhere - d).sum(1),
        "the mask reaches `logprobs` alone; `ref_logprobs` needs it, too":
            rewards - beta * (d - reference.masked_fill(mask, 0.0)).sum(1),
        "only the first token pays; all tokens of an answer do": rewards - beta * d[:, 0],
        "beta divides; multiply by it": rewards - whole / beta,
        "beta is multiplied in twice": rewards - beta**2 * whole,
        "the penalty is divided by the number of answers; each answer pays its own in full":
            rewards - beta * whole / len(rewards),
    }  # fmt: skip
