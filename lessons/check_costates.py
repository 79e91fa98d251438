"""What usual mistakes in lesson 08's exercises lead to: a sentence, and the value that it names."""

import torch
from torch import Tensor, nn

from minicf.costate import alignment
from minicf.rollout import token_logprobs
from minicf.tap import tap


def mistakes_in_costates(
    policy: nn.Module, prompts: Tensor, completions: Tensor, mask: Tensor, advantages: Tensor,
    at: nn.Module,
) -> dict[str, Tensor]:  # fmt: skip
    """Wrong costates (B, P+T-1, D) entering `at`."""
    P = prompts.size(1)
    T = completions.size(1)
    with tap(at) as inputs:
        logits, _ = policy(torch.cat([prompts, completions[:, :-1]], 1))
    x = inputs[0]

    def left(surrogate: Tensor) -> Tensor:
        return torch.autograd.grad(surrogate, x, retain_graph=True)[0]

    weights = advantages[:, None] * mask
    logprobs = token_logprobs(logits[:, P - 1 :], completions)
    terms = weights * logprobs
    shifted = token_logprobs(logits[:, P:], completions[:, 1:])
    late = token_logprobs(logits[:, P:], completions[:, :-1])
    early = token_logprobs(logits[:, P - 2 : -1], completions)
    standing = torch.cat([prompts[:, -1:], completions[:, :-1]], 1)  # where each row of logits is
    of_standing = token_logprobs(logits[:, P - 1 :], standing)
    of_prompt = token_logprobs(logits[:, : P - 1], prompts[:, 1:])
    own = torch.zeros_like(x)  # the term of the token that each position itself predicts
    for t in range(T):
        own[:, P - 1 + t] = left(terms[:, t].sum())[:, P - 1 + t]
    stop = logits.size(-1) - 1  # the last token of the vocabulary
    right = left(terms.sum())
    return {
        "the sign is turned; the surrogate is no loss, so it has no minus": -right,
        "the term of the first token is missing; position P − 1 predicts it":
            left((weights[:, 1:] * shifted).sum()),
        "the logits stand one position late; position P − 1 + j predicts token j":
            left((weights[:, :-1] * late).sum()),
        "the logits stand one position early; position P − 1 + j predicts token j":
            left((weights * early).sum()),
        "each row of logits scores the token at its own place; it predicts the next one":
            left((weights * of_standing).sum()),
        "the prompt's own tokens are scored, too; only those of the completion are choices":
            left(terms.sum() + (advantages[:, None] * of_prompt).sum()),
        "each position has only the term of its own token; later tokens depend on it, too":
            own.detach(),
        "the mask is turned round; it is true where a token counts":
            left((advantages[:, None] * logprobs * ~mask).sum()),
        "what stands behind the stop counts; use the mask":
            left((advantages[:, None] * logprobs).sum()),
        "the stop itself does not count; it is a choice, too":
            left((terms * (completions != stop)).sum()),
        "the advantages are missing": left((logprobs * mask).sum()),
        "this is a mean over completions; add them up": right / len(mask),
        "this is a mean over B·T places; add them up": right / mask.numel(),
        "this is a mean over the live tokens; add them up": right / mask.sum(),
        "each completion is divided by its length; add up its tokens":
            left((terms.sum(1) / mask.sum(1)).sum()),
        "each completion is divided by T; add up its tokens": right / T,
        "this has probabilities in the place of log-probabilities":
            left((weights * logprobs.exp()).sum()),
        "this has the probability of the whole completion; take its logarithm":
            left((advantages * (logprobs * mask).sum(1).exp()).sum()),
        "these are logits, not log-probabilities; use token_logprobs":
            left((weights * logits[:, P - 1 :].gather(2, completions[:, :, None])[..., 0]).sum()),
        "only the positions from P − 1 on are returned; keep those of the prompt":
            right[:, P - 1 :],
        "only the prompt's positions are returned; keep all of them": right[:, :P],
        "completions are added up; each row has its own costate": right.sum(0),
        "completions are averaged; each row has its own costate": right.mean(0),
    }  # fmt: skip


def costates_elsewhere(
    policy: nn.Module, prompts: Tensor, completions: Tensor, mask: Tensor, advantages: Tensor,
    at: nn.Module,
) -> dict[str, Tensor]:  # fmt: skip
    """The costates entering other modules than `at`: (B, P+T-1, D)."""
    P = prompts.size(1)
    found = {}
    for number, module in enumerate(policy.stream):
        with tap(module) as inputs:
            logits, _ = policy(torch.cat([prompts, completions[:, :-1]], 1))
        logprobs = token_logprobs(logits[:, P - 1 :], completions)
        surrogate = (advantages[:, None] * logprobs * mask).sum()
        if module is not at:
            sentence = f"these are the costates entering policy.stream[{number}], not `at`"
            found[sentence] = torch.autograd.grad(surrogate, inputs[0])[0]
    return found


def mistakes_in_cosines(left: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Wrong cosines (Q,) of left (Q, P, D) and truth (Q, P, D), none of them zero."""
    a = left.flatten(1)
    b = truth.flatten(1)
    products = (a * b).sum(1)
    lengths = a.norm(dim=1) * b.norm(dim=1)
    cosines = products / lengths
    of_tokens = (left * truth).sum(2) / (left.norm(dim=2) * truth.norm(dim=2))
    return {
        "the sign is turned": -cosines,
        "this is the product; divide by both lengths": products,
        "the lengths are not the roots of the sums of squares": products / lengths.square(),
        "the squared length of `left` is divided by; divide by both lengths":
            products / a.square().sum(1),
        "the squared length of `truth` is divided by; divide by both lengths":
            products / b.square().sum(1),
        "the length of `left` is the root of its sum of squares; the root is missing":
            products / a.square().sum(1) / b.norm(dim=1),
        "the length of `truth` is the root of its sum of squares; the root is missing":
            products / a.norm(dim=1) / b.square().sum(1),
        "only the length of `left` is divided by": products / a.norm(dim=1),
        "only the length of `truth` is divided by": products / b.norm(dim=1),
        "this is a mean of the tokens' cosines; flatten the tokens of a prompt first":
            of_tokens.nan_to_num().mean(1),
        "this is a mean of the tokens' cosines, without those that are nan":
            of_tokens.nanmean(1),
        "the tokens' cosines are added up; flatten the tokens of a prompt first":
            of_tokens.nan_to_num().sum(1),
        "one cosine for each token; flatten the tokens of a prompt first": of_tokens,
        "this is the cosine at the last token only; flatten the tokens of a prompt first":
            of_tokens[:, -1],
        "this is the cosine at the first token only; flatten the tokens of a prompt first":
            of_tokens[:, 0],
        "tokens are added up or averaged first; flatten them, so that each keeps its numbers":
            alignment(left.sum(1), truth.sum(1))[0],
        "the length of a prompt's vector is not the sum of its tokens' lengths":
            products / (left.norm(dim=2).sum(1) * truth.norm(dim=2).sum(1)),
        "this is one cosine for all prompts; one for each is asked":
            (products.sum() / (a.norm() * b.norm())).expand(len(a)),
        "this is one number; one for each prompt is asked": products.sum() / (a.norm() * b.norm()),
        "the lengths are those of all prompts together": products / (a.norm() * b.norm()),
        "this is the angle, not its cosine": cosines.clamp(-1, 1).acos(),
        "this is the cosine's size; keep its sign": cosines.abs(),
    }  # fmt: skip
