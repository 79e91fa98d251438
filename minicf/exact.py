"""The truth, by enumeration. A policy's success is a finite sum over all right answers:

    V(prompt) = Σ_{right y} π(y | prompt),

one forward pass for every prompt together, and differentiable like any other output of the network.
"""

import torch
from torch import Tensor

from .env import SumGame
from .gpt import GPT
from .rollout import completion_logits, completion_mask, token_logprobs

MAX_COMPLETIONS = 100_000


def completions(env: SumGame) -> Tensor:
    """Every completion of the world, right or wrong, stopped or cut off at the horizon: (M, T).

    The stop absorbs: what follows it is filled up with stops and counted once. Raises ValueError, with
    the count, for a world that is too large.
    """
    size, T = len(env.vocab), env.completion_length
    count = sum((size - 1) ** t for t in range(T + 1))  # stopped after t tokens, or cut off at T
    if count > MAX_COMPLETIONS:
        raise ValueError(
            f"max_terms={env.max_terms} has {count:,} completions; "
            f"at most {MAX_COMPLETIONS:,} can be enumerated, so use max_terms of 2 or less"
        )
    every = torch.cartesian_prod(*[torch.arange(size)] * T)
    after_stop = ~completion_mask(every, env.eos)
    return every[(every == env.eos).logical_or(~after_stop).all(1)]


def success(
    policy: GPT,
    env: SumGame,
    prompts: Tensor | None = None,
    nudge: dict[int, Tensor] | None = None,
) -> Tensor:
    """Exact success probability of each of prompts (N, P), by default all of the world's: (N,).

    Differentiable in the policy's parameters and in `nudge`, whose vectors broadcast to (N, P+T−1, D):
    a nudge of prompt q is felt by every completion of prompt q, at its position.
    """
    device = next(policy.parameters()).device
    prompts = env.prompts if prompts is None else prompts
    solutions = [env.solutions(prompt) for prompt in prompts]
    counts = torch.tensor([len(rows) for rows in solutions])
    rows = torch.arange(len(prompts)).repeat_interleave(counts).to(device)
    completions, prompts = torch.cat(solutions).to(device), prompts.to(device)
    if nudge:
        shape = (len(prompts), prompts.size(1) + completions.size(1) - 1, policy.config.d_model)
        nudge = {layer: delta.expand(shape)[rows] for layer, delta in nudge.items()}
        logits = completion_logits(policy, prompts[rows], completions, nudge=nudge)
    else:
        logits = completion_logits(policy, prompts, completions, rows)
    dead = ~completion_mask(completions, env.eos)
    probabilities = token_logprobs(logits, completions).masked_fill(dead, 0.0).sum(1).exp()
    return probabilities.new_zeros(len(prompts)).index_add(0, rows, probabilities)
