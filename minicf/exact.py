"""The truth, by enumeration. A policy's success is a finite sum over all right answers:

    V(prompt) = Σ_{right y} π(y | prompt),

one forward pass for every prompt together, and differentiable like any other output of the network:
the value gradient ∇_δ V is one backward pass. Expectations of other quantities (an entropy, the
mean of an estimator) need every completion, right or wrong, which two terms allow (22,621) and
three do not.
"""

import math

import torch
from torch import Tensor

from .env import SumGame
from .gpt import GPT
from .grpo import group_advantages
from .rollout import (
    Rollout, completion_logits, completion_logprobs, completion_mask, token_logprobs
)  # fmt: skip

MAX_COMPLETIONS = 100_000


def completions(env: SumGame) -> Tensor:
    """Every completion of the world, right or wrong, stopped or cut off at the horizon: (M, T).

    The stop absorbs: what follows it is filled up with stops and counted once. Raises ValueError,
    with the count, for a world that is too large.
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


def solution_probabilities(
    policy: GPT,
    env: SumGame,
    prompts: Tensor | None = None,
    nudge: dict[int, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The probability of every right answer (R,) and the row of `prompts` that it answers (R,)."""
    device = next(policy.parameters()).device
    prompts = env.prompts if prompts is None else prompts
    solutions = [env.solutions(prompt) for prompt in prompts]
    counts = torch.tensor([len(rows) for rows in solutions], device=device)
    rows = torch.arange(len(prompts), device=device).repeat_interleave(counts)
    completions, prompts = torch.cat(solutions).to(device), prompts.to(device)
    if nudge:
        shape = (len(prompts), prompts.size(1) + completions.size(1) - 1, policy.config.d_model)
        nudge = {layer: delta.expand(shape)[rows] for layer, delta in nudge.items()}
        logits = completion_logits(policy, prompts[rows], completions, nudge=nudge)
    else:
        logits = completion_logits(policy, prompts, completions, rows)
    dead = ~completion_mask(completions, env.eos)
    return token_logprobs(logits, completions).masked_fill(dead, 0.0).sum(1).exp(), rows


def success(
    policy: GPT,
    env: SumGame,
    prompts: Tensor | None = None,
    nudge: dict[int, Tensor] | None = None,
) -> Tensor:
    """Exact success probability of each of prompts (N, P), by default all of the world's: (N,).

    Differentiable in the policy's parameters and in `nudge`, whose vectors broadcast to (N, P+T−1,
    D): a nudge of prompt q is felt by every completion of prompt q, at its position.
    """
    probabilities, rows = solution_probabilities(policy, env, prompts, nudge)
    count = len(env.prompts if prompts is None else prompts)
    return probabilities.new_zeros(count).index_add(0, rows, probabilities)


@torch.no_grad()
def distinct_solutions(policy: GPT, env: SumGame, samples: int = 64) -> Tensor:
    """Exact expected number of different right answers in `samples` draws, per prompt: (N,)."""
    probabilities, rows = solution_probabilities(policy, env)
    seen = 1 - (1 - probabilities) ** samples
    return seen.new_zeros(len(env.prompts)).index_add(0, rows, seen)


def prefix_values(policy: GPT, env: SumGame, prompts: Tensor, completions: Tensor) -> Tensor:
    """Exact value of the state before each token of completions (B, T) of prompts (B, P): (B, T).

    It is what a critic should have learnt. After the first stop it means nothing.
    """
    values = torch.zeros_like(completions, dtype=next(policy.parameters()).dtype)
    for prompt in prompts.unique(dim=0):
        rows = (prompts == prompt).all(1)
        solutions = env.solutions(prompt.cpu()).to(completions.device)  # (K, T)
        logprobs = completion_logprobs(policy, prompt[None], solutions, len(solutions))
        live = completion_mask(solutions, env.eos)
        onward = logprobs.masked_fill(~live, 0.0).flip(1).cumsum(1).flip(1)  # from token t on
        same = (completions[rows, None] == solutions).long().cumprod(-1)  # (b, K, T)
        shares = torch.cat([torch.ones_like(same[..., :1]), same[..., :-1]], -1)  # before token t
        values[rows] = (shares * onward.exp()).sum(1).to(values.dtype)
    return values


def value_gradient(
    policy: GPT,
    env: SumGame,
    prompt: Tensor,
    prefix: Tensor,
    layer: int,
    position: int | None = None,
) -> Tensor:
    """∇_δ V(s) of state s = prompt (P,) and prefix (j,), in reward per unit of the stream: (D,).

    δ is added entering block `layer` at `position` of the sequence, by default the state's last
    token, and stays for all that follows. Raises ValueError for a prefix that has stopped or is too
    long.
    """
    _check_prefix(env, prefix)
    j, last = len(prefix), len(prompt) + len(prefix) - 1
    position = last if position is None else position
    if not 0 <= position <= last:
        raise ValueError(f"position must be 0 to {last}, the state's last token, not {position}")
    solutions = env.solutions(prompt)
    solutions = solutions[(solutions[:, :j] == prefix).all(1)]  # (K, T)
    weight = next(policy.parameters())
    delta = torch.zeros(policy.config.d_model, dtype=weight.dtype, device=weight.device)
    delta.requires_grad_()
    length = len(prompt) + env.completion_length - 1
    here = (torch.arange(length) == position).to(delta)[:, None]  # (P+T-1, 1)
    prompts = prompt.expand(len(solutions), -1).to(weight.device)
    solutions = solutions.to(weight.device)
    logprobs = completion_logprobs(policy, prompts, solutions, nudge={layer: here * delta})
    dead = ~completion_mask(solutions, env.eos)
    value = logprobs.masked_fill(dead, 0.0)[:, j:].sum(1).exp().sum()
    return torch.autograd.grad(value, delta)[0]


def _check_prefix(env: SumGame, prefix: Tensor) -> None:
    if len(prefix) >= env.completion_length or (prefix == env.eos).any():
        raise ValueError(f"prefix {env.decode(prefix)!r} leaves no token to choose")


@torch.no_grad()
def outcomes(
    policy: GPT, env: SumGame, prompt: Tensor, prefix: Tensor | None = None
) -> tuple[Rollout, Tensor]:
    """Every completion of prompt (P,) that continues `prefix`, as one Rollout of M rows.

    Returns it with the rows' probabilities (M,) given the state; they sum to 1, so that the exact
    mean of any estimator is `probabilities @ estimates`. The probabilities carry no gradient.
    """
    device = next(policy.parameters()).device
    prefix = prompt[:0] if prefix is None else prefix
    _check_prefix(env, prefix)
    j, rows = len(prefix), completions(env)
    rows = rows[(rows[:, :j] == prefix).all(1)]
    rows, prompt = rows.to(device), prompt.to(device)
    mask = completion_mask(rows, env.eos)
    logprobs = completion_logprobs(policy, prompt[None], rows, len(rows))
    prompts = prompt.expand(len(rows), -1)
    rollout = Rollout(prompts, rows, mask, logprobs, env.reward(prompts, rows), len(rows))
    return rollout, logprobs.masked_fill(~mask, 0.0)[:, j:].sum(1).exp()


def entropy(policy: GPT, env: SumGame, prompts: Tensor | None = None) -> Tensor:
    """Exact entropy (nats) of the policy over whole completions of prompts (N, P): (N,)."""
    prompts = env.prompts if prompts is None else prompts
    return torch.stack([torch.special.entr(outcomes(policy, env, q)[1]).sum() for q in prompts])


def kl(policy: GPT, reference: GPT, env: SumGame, prompts: Tensor | None = None) -> Tensor:
    """Exact KL(policy‖reference) in nats over whole completions of prompts (N, P): (N,)."""
    prompts = env.prompts if prompts is None else prompts
    pairs = [[outcomes(each, env, q)[1] for each in (policy, reference)] for q in prompts]
    return torch.stack(
        [(torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum() for p, q in pairs]
    )


def expected_advantages(
    value: float, group_size: int, baseline: str = "mean", scale: str = "std"
) -> tuple[float, float]:
    """Mean advantage of a wrong and of a right sample, over what its group-mates do.

    `value` is the success probability of the prompt; K ~ Binomial(G − 1, value) mates succeed. The
    difference of the two, c, is the factor by which the expected costate is longer than ∇V: 1 for
    leave-one-out, 1 − 1/G for the group's mean, and towards 1/√(V(1 − V)) with the std.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"value must be a probability, 0 to 1, not {value}")
    means, mates = [0.0, 0.0], group_size - 1
    for k in range(group_size):
        chance = math.comb(mates, k) * value**k * (1 - value) ** (mates - k)
        for reward in (0, 1):
            group = torch.tensor([reward] + [1] * k + [0] * (mates - k), dtype=torch.float64)
            means[reward] += chance * group_advantages(group, group_size, baseline, scale)[0].item()
    return means[0], means[1]
