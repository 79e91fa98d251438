"""Lesson 08's visible checks, and the values that usual mistakes lead to, each with a sentence."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kit import answer, check_answer
from minicf.costate import alignment, empirical_costates
from minicf.env import World
from minicf.exact import value_gradient
from minicf.gpt import GPT
from minicf.rollout import Rollout, token_logprobs
from minicf.tap import tap


def check_costates(function: Callable, batch: Rollout, middle: GPT, early: GPT) -> None:
    """Compare a learner's costates with the package's, at two layers, also of shorter prompts."""
    advantages = batch.rewards - 0.3
    for policy, P, layer in ((middle, 3, 0), (early, 3, 1), (middle, 2, 0)):
        rollout = dataclasses.replace(batch, prompts=batch.prompts[:, -P:])
        at = policy.stream[layer]
        given = (policy, rollout.prompts, batch.completions, batch.mask, advantages, at)
        truth = empirical_costates(policy, rollout, advantages, at)
        mistakes = {**mistakes_in_costates(*given), **costates_elsewhere(*given)}
        hint = f"20 completions of prompts of {P} tokens, entering policy.stream[{layer}]"
        check_answer(
            function, given, truth, hint, empirical_costates, tolerance=1e-4, mistakes=mistakes
        )


def compared_with_gradient(
    means: Tensor, completions: int, policy: GPT, env: World, prompt: Tensor, start: Tensor
) -> list[dict]:
    """Mean costates (P+T-1, D) entering block 0 beside ∇V, after a prompt and what is written.

    A row of a table for the last token that stands, and for all of the prompt if `start` is empty.
    """
    standing = torch.cat([prompt, start])
    last = len(standing) - 1
    rows = []
    for position in range(0 if len(start) == 0 else last, last + 1):
        exact = value_gradient(policy, env, prompt, start, policy.blocks[0], position)
        cosine, length = alignment(means[position], exact)
        rows.append({
            "position of": env.decode(standing)[position],
            "completions": completions,
            "cosine": cosine.item(),
            "length ÷ that of ∇V": length.item(),
        })  # fmt: skip
        distance = (means[position] - exact).norm()
        assert distance < 1e-3 * exact.norm(), "the mean should be ∇V"
    return rows


def check_cosines(function: Callable, first: Tensor, second: Tensor, cosines: Tensor) -> None:
    """Compare a learner's cosines with the worked ones; short vectors, right angles, zeros."""
    mixed = torch.tensor([[[1.0, -1], [0, 0]], [[1, 1], [2, 0]]])
    hint = "vectors at right angles have the cosine 0; nan is for vectors that are all zeros"
    check_answer(function, (mixed, mixed.flip(0)), torch.zeros(2), hint, alignment)

    short = ((first * 1e-18, second), (first, second * 1e-18), (first / 1e6, second / 1e6))
    for given in short:
        hint = (
            "one vector or both are short, but not zero: they have a direction; no epsilon is "
            "needed (torch's cosine_similarity and normalize have one), and no threshold"
        )
        check_answer(function, given, cosines, hint, alignment)

    one_dead = torch.cat([first, torch.zeros_like(first[:1])])
    none_dead = torch.cat([second, second[:1]])
    for given in ((one_dead, none_dead), (none_dead, one_dead)):
        left = given[0].clone()
        truth = given[1].clone()
        got = answer(function, left, truth)
        assert torch.is_tensor(got) and got.shape == (5,), "for five prompts the shape must be (5,)"
        assert got[4].isnan(), "zeros, on either side, have no direction: nan, neither 0 nor 1"
        assert not got[:4].isnan().any(), "nan belongs to the prompt of zeros, and to no other"
        unchanged = left.equal(given[0]) and truth.equal(given[1])
        assert unchanged, "`left` or `truth` is changed in place; the caller still needs both"


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
    shifted_mask = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    centred = advantages - advantages.mean()
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
        "the mask stands one place early, so that the last live token does not count":
            left((advantages[:, None] * logprobs * shifted_mask).sum()),
        "the rows of logits begin at the prompt's first token; begin at position P − 1":
            left((weights * token_logprobs(logits[:, :T], completions)).sum()),
        "the advantages are missing": left((logprobs * mask).sum()),
        "their mean stands in the place of the advantages; each completion has its own":
            left((advantages.mean() * logprobs * mask).sum()),
        "the advantages are centred again; take them as they are":
            left((centred[:, None] * logprobs * mask).sum()),
        "the advantages are centred and divided by their std again; take them as they are":
            left((centred[:, None] / advantages.std() * logprobs * mask).sum()),
        "only positive advantages count; a bad completion's term is needed, too":
            left((weights.clamp(min=0) * logprobs).sum()),
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
