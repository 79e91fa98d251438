"""The truth, by enumeration. A policy's success is a finite sum over all right answers:

    V(prompt) = Σ_{right y} π(y | prompt),

one forward pass for every prompt together, and differentiable like any other output of the network:
the value gradient, with respect to what enters a module, is one backward pass. Expectations of
other quantities (an entropy, the mean of an estimator) need every completion, right or wrong, which
two terms allow (22,621) and three do not.

A policy is any module that `rollout` can sample from; `at` is a module of it whose input is the
activation asked about: a block, or the final norm.
"""

import torch
import torch.nn as nn
from torch import Tensor

from .env import SumGame
from .rollout import (
    Rollout, check_prompts, completion_logits, completion_logprobs, completion_mask, token_logprobs
)  # fmt: skip
from .tap import tap

MAX_COMPLETIONS = 100_000


def completions(env: SumGame) -> Tensor:
    """Every completion of the world, right or wrong, stopped or cut off at the horizon: (M, T).

    The stop absorbs: what follows it is filled up with stops and counted once. Raises ValueError,
    with the count, for a world that is too large.
    """
    size = len(env.vocab)
    T = env.completion_length
    count = sum((size - 1) ** t for t in range(T + 1))  # stopped after t tokens, or cut off at T
    if count > MAX_COMPLETIONS:
        raise ValueError(
            f"max_terms={env.max_terms} has {count:,} completions; "
            f"at most {MAX_COMPLETIONS:,} can be enumerated, so use max_terms of 2 or less"
        )
    texts = torch.cartesian_prod(*[torch.arange(size)] * T)
    after_stop = ~completion_mask(texts, env.eos)
    return texts[(texts == env.eos).logical_or(~after_stop).all(1)]


def solution_logprobs(
    policy: nn.Module, env: SumGame, prompts: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Every right answer (R, T), its tokens' log-probabilities (R, T), 0 after the stop, and the
    row of `prompts` (N, P) that it answers (R,); one pass for all prompts."""
    device = next(policy.parameters()).device
    prompts = env.prompts if prompts is None else prompts
    check_prompts(env, prompts)
    solutions = [env.solutions(prompt) for prompt in prompts.cpu()]
    counts = torch.tensor([len(rows) for rows in solutions], device=device)
    rows = torch.arange(len(prompts), device=device).repeat_interleave(counts)
    answers = torch.cat(solutions).to(device)  # (R, T)
    logits = completion_logits(policy, prompts.to(device), answers, rows)
    dead = ~completion_mask(answers, env.eos)
    return answers, token_logprobs(logits, answers).masked_fill(dead, 0.0), rows


def solution_probabilities(
    policy: nn.Module, env: SumGame, prompts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The probability of every right answer (R,) and the row of `prompts` that it answers (R,)."""
    _, logprobs, rows = solution_logprobs(policy, env, prompts)
    return logprobs.sum(1).exp(), rows


def success(policy: nn.Module, env: SumGame, prompts: Tensor | None = None) -> Tensor:
    """Exact success probability of each of prompts (N, P), by default all of the world's: (N,)."""
    probabilities, rows = solution_probabilities(policy, env, prompts)
    count = len(env.prompts if prompts is None else prompts)
    return probabilities.new_zeros(count).index_add(0, rows, probabilities)


def value_gradients(
    policy: nn.Module, env: SumGame, at: nn.Module, prompts: Tensor | None = None
) -> Tensor:
    """∇V of each of prompts (N, P) with respect to what enters `at` at its tokens: (N, P, D).

    In reward per unit of the activation.
    """
    calls = min(
        env.completion_length, 2
    )  # the prompts, then their right answers but the last token
    with tap(at, calls=calls) as inputs:
        value = success(policy, env, prompts).sum()  # prompts do not touch each other
    return torch.autograd.grad(value, inputs[0])[0]


@torch.no_grad()
def distinct_solutions(policy: nn.Module, env: SumGame, samples: int = 64) -> Tensor:
    """Exact expected number of different right answers in `samples` draws, per prompt: (N,)."""
    probabilities, rows = solution_probabilities(policy, env)
    seen = 1 - (1 - probabilities) ** samples
    return seen.new_zeros(len(env.prompts)).index_add(0, rows, seen)


def prefix_values(policy: nn.Module, env: SumGame, prompts: Tensor, completions: Tensor) -> Tensor:
    """Exact value of the state before each token of completions (B, T) to prompts (B, P): (B, T).

    It is what a critic should have learnt. After the first stop it means nothing.
    """
    prompts, place = prompts.unique(dim=0, return_inverse=True)
    answers, logprobs, rows = solution_logprobs(policy, env, prompts)
    onward = logprobs.flip(1).cumsum(1).flip(1).exp()  # (R, T), an answer's rest from token t on
    begun = place[:, None] == rows  # (B, R): answers this prompt, and begins like this completion
    values = []
    for t in range(completions.size(1)):
        values.append(begun.to(onward.dtype) @ onward[:, t])
        begun = begun & (completions[:, t, None] == answers[:, t])
    return torch.stack(values, 1)


def value_gradient(
    policy: nn.Module,
    env: SumGame,
    prompt: Tensor,
    prefix: Tensor,
    at: nn.Module,
    position: int | None = None,
) -> Tensor:
    """∇V of state s = prompt (P,) and prefix (j,), in reward per unit of the activation: (D,).

    With respect to what enters `at` at `position` of the sequence, by default the state's last
    token, for all that follows. Raises ValueError for a prefix that has stopped, is too long, or
    holds a token that is not there.
    """
    check_prefix(env, prefix)
    j = len(prefix)
    last = len(prompt) + len(prefix) - 1
    position = last if position is None else position
    if not 0 <= position <= last:
        raise ValueError(f"position must be 0 to {last}, the state's last token, not {position}")
    solutions = env.solutions(prompt)
    solutions = solutions[(solutions[:, :j] == prefix).all(1)]  # (K, T)
    device = next(policy.parameters()).device
    prompts = prompt.expand(len(solutions), -1).to(device)
    solutions = solutions.to(device)
    with tap(at, calls=1) as inputs:
        logprobs = completion_logprobs(policy, prompts, solutions)
    dead = ~completion_mask(solutions, env.eos)
    value = logprobs.masked_fill(dead, 0.0)[:, j:].sum(1).exp().sum()
    (gradient,) = torch.autograd.grad(value, inputs)  # (K, P+T-1, D), each answer's own part
    return gradient[:, position].sum(0)


def check_prefix(env: SumGame, prefix: Tensor) -> None:
    """Raise ValueError for tokens that are not there, or that leave none to choose."""
    text = env.decode(prefix)  # refuses tokens that are not there
    if len(prefix) >= env.completion_length or (prefix == env.eos).any():
        raise ValueError(f"prefix {text!r} leaves no token to choose")


@torch.no_grad()
def outcomes(
    policy: nn.Module, env: SumGame, prompt: Tensor, prefix: Tensor | None = None
) -> tuple[Rollout, Tensor]:
    """Every completion of prompt (P,) that continues `prefix`, as one Rollout of M rows.

    Returns it with the rows' probabilities (M,) given the state; they sum to 1, so that the exact
    mean of any estimator is `probabilities @ estimates`. The probabilities carry no gradient.
    """
    device = next(policy.parameters()).device
    prefix = prompt[:0] if prefix is None else prefix
    check_prefix(env, prefix)
    j = len(prefix)
    rows = completions(env)
    rows = rows[(rows[:, :j] == prefix).all(1)]
    rows = rows.to(device)
    prompt = prompt.to(device)
    mask = completion_mask(rows, env.eos)
    logprobs = completion_logprobs(policy, prompt[None], rows, len(rows))
    prompts = prompt.expand(len(rows), -1)
    rollout = Rollout(prompts, rows, mask, logprobs, env.reward(prompts, rows), len(rows))
    return rollout, logprobs.masked_fill(~mask, 0.0)[:, j:].sum(1).exp()


def entropy(policy: nn.Module, env: SumGame, prompts: Tensor | None = None) -> Tensor:
    """Exact entropy (nats) of the policy over whole completions of prompts (N, P): (N,)."""
    prompts = env.prompts if prompts is None else prompts
    return torch.stack([torch.special.entr(outcomes(policy, env, q)[1]).sum() for q in prompts])


def kl(
    policy: nn.Module, reference: nn.Module, env: SumGame, prompts: Tensor | None = None
) -> Tensor:
    """Exact KL(policy‖reference) in nats over whole completions of prompts (N, P): (N,)."""
    prompts = env.prompts if prompts is None else prompts
    divergences = []
    for prompt in prompts:
        p = outcomes(policy, env, prompt)[1]
        q = outcomes(reference, env, prompt)[1]
        divergences.append((torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum())
    return torch.stack(divergences)
