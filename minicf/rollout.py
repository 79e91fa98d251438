"""Sampling completions and scoring them, from one and the same distribution.

B = Q·G sequences: Q prompts, G completions each, prompt-major, so that row q·G + g is sample g of
prompt q. P prompt tokens, T completion tokens. Position P−1+t of a sequence predicts completion
token t. Sampling is at temperature 1 without top-k, because only then is the scored probability the
probability of having been sampled. A prompt runs through the network once for its whole group:
the cache of its keys and values is shared, and gradients add up in it. So does a beginning, in
sampling, and a whole text, in scoring, that several completions of a group have in common.

A policy is a module that is called as policy(tokens (B, L), cache=None) -> (logits (B, L, V),
cache), where the cache is a list of (keys, values), batch first.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from .env import World, check_world


@dataclass(frozen=True)
class Rollout:
    """A batch of sampled completions, rows prompt-major."""

    prompts: Tensor  # (B, P)
    completions: Tensor  # (B, T), filled up with stops
    mask: Tensor  # (B, T) bool, true up to and including the first stop
    logprobs: Tensor  # (B, T) nats, of the policy that sampled, without gradient
    rewards: Tensor  # (B,)
    group_size: int

    def __post_init__(self):
        G = self.group_size
        prompts = self.prompts
        if not torch.equal(prompts[::G].repeat_interleave(G, 0), prompts):
            raise ValueError(f"rows of a rollout must be in groups of {G} with the same prompt")


def completion_mask(completions: Tensor, eos: int) -> Tensor:
    """(B, T) bool: true up to and including the first stop, which is an action and is trained."""
    stops = (completions == eos).long()
    return stops.cumsum(-1) - stops == 0  # no stop strictly before this token


def group_rows(prompts: Tensor, group_size: int) -> Tensor:
    """The row of prompts (Q, P) that each of Q·group_size completions follows: 0, 0, …, 1, 1, …"""
    return torch.arange(len(prompts), device=prompts.device).repeat_interleave(group_size)


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability (nats) under logits (…, V) of the tokens (…): (…)."""
    return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def completion_logits(
    policy: nn.Module, prompts: Tensor, completions: Tensor, rows: Tensor | None = None
) -> Tensor:
    """Logits (B, T, V) that the policy has for each token of completions (B, T).

    `rows` (B,) names the row of `prompts` (Q, P) that each completion follows; the policy is called
    twice, for the prompts (Q, P) and for the completions that differ, (at most B, T−1). Without it,
    completion b follows prompts[b] in one plain call, (B, P+T−1).
    """
    if rows is None:
        tokens = torch.cat([prompts, completions[:, :-1]], 1)  # (B, P+T-1)
        return policy(tokens)[0][:, prompts.size(1) - 1 :]
    logits, cache = policy(prompts)
    check_cache(cache, prompts)
    first = logits[:, -1:].index_select(0, rows)  # (B, 1, V)
    if completions.size(1) == 1:
        return first
    texts = torch.cat([rows[:, None], completions[:, :-1]], 1)  # (B, 1+T-1)
    texts, place = texts.unique(dim=0, return_inverse=True)  # (S, T), the S different ones
    row = texts[:, 0]
    tokens = texts[:, 1:]
    cache = [(k.index_select(0, row), v.index_select(0, row)) for k, v in cache]
    later, _ = policy(tokens, cache)  # (S, T-1, V)
    return torch.cat([first, later.index_select(0, place)], 1)


def completion_logprobs(
    policy: nn.Module, prompts: Tensor, completions: Tensor, group_size: int = 1
) -> Tensor:
    """Log-probability (nats) of each token of completions (B, T), with gradients: (B, T).

    prompts is (Q, P) with B = Q·group_size. Values after the first stop mean nothing; mask them.
    Raises ValueError if the rows do not match.
    """
    if group_size < 1 or len(prompts) * group_size != len(completions):
        raise ValueError(
            f"{len(prompts)} prompts with group_size {group_size} need "
            f"{len(prompts) * group_size} completions, not {len(completions)}"
        )
    rows = group_rows(prompts, group_size) if group_size > 1 else None
    return token_logprobs(completion_logits(policy, prompts, completions, rows), completions)


def check_cache(cache: list, prompts: Tensor) -> None:
    """Raise ValueError for a cache that does not hold the prompts (Q, P), as later calls need."""
    P = prompts.size(1)
    lengths = {keys.size(-2) for keys, _ in cache} or {0}
    if lengths != {P}:
        raise ValueError(
            f"after prompts of {P} tokens the policy's cache holds {max(lengths)}: what follows "
            "would not see them (gradient checkpointing switches the cache of many models off)"
        )


def check_sampled(batch: Rollout, scored: Tensor, most: float = 0.5) -> None:
    """Raise ValueError where a rollout's log-probabilities differ from those scored (B, T).

    They agree to 1e-6 in float32 and .03 in bfloat16; `most` is far from both, in nats a token.
    """
    difference = (batch.logprobs - scored).masked_fill(~batch.mask, 0.0).abs().max()
    if not difference < most:
        raise ValueError(
            f"sampling and scoring differ by {difference.item():.1f} nats at a token. Is dropout "
            "on (call policy.eval())? Does the policy ignore its cache (as under gradient "
            "checkpointing), or do its mask or positions depend on the batch?"
        )


def check_rewards(rewards: Tensor, B: int) -> Tensor:
    """Rewards as a tensor (B,) with fractions. Raises ValueError for what is no finite (B,)."""
    if rewards is None:
        raise ValueError("the world's reward returned None: is a `return` missing?")
    rewards = torch.as_tensor(rewards, device=getattr(rewards, "device", "cpu"))
    if rewards.shape != (B,) or not rewards.isfinite().all():
        kind = "finite" if rewards.shape == (B,) else f"({B},), not {tuple(rewards.shape)}"
        raise ValueError(f"the world's rewards must be {kind}")
    return rewards if rewards.is_floating_point() else rewards.to(torch.get_default_dtype())


def check_prompts(env: World, prompts: Tensor) -> None:
    """Raise ValueError for a world that lacks something, or prompts (Q, P) of another length."""
    check_world(env)
    P = env.prompts.size(1)
    if prompts.dim() != 2 or len(prompts) == 0 or prompts.size(1) != P:
        raise ValueError(f"prompts must be (Q, {P}) with Q at least 1, not {tuple(prompts.shape)}")


@torch.no_grad()
def sample(
    policy: nn.Module, env: World, prompts: Tensor, group_size: int, generator: torch.Generator
) -> Rollout:
    """Draw group_size completions of each of prompts (Q, P), token by token, and reward them.

    Draws are made on the generator's device. The log-probabilities are those of the distributions
    that were drawn from; `completion_logprobs` agrees with them up to rounding.
    """
    check_prompts(env, prompts)
    if group_size < 1:
        raise ValueError(f"group_size must be at least 1, not {group_size}")
    device = next(policy.parameters()).device
    prompts = prompts.to(device)
    logits, cache = policy(prompts)
    check_cache(cache, prompts)
    logits = logits[:, -1]  # (S, V): a row for each text so far; at first those are the prompts
    state = group_rows(prompts, group_size)  # (B,): the text that each completion is at
    B = len(state)
    V = logits.size(-1)
    T = env.completion_length
    completions = torch.full((B, T), env.eos, device=device)
    logprobs = logits.new_zeros(B, T)
    stopped = torch.zeros(B, dtype=torch.bool, device=device)
    for t in range(T):
        next_logprobs = logits.log_softmax(-1)[state]  # (B, V)
        chances = next_logprobs.exp().to(generator.device)
        tokens = torch.multinomial(chances, 1, generator=generator)[:, 0].to(device)
        tokens = tokens.masked_fill(stopped, env.eos)
        completions[:, t] = tokens
        token_logprob = next_logprobs.gather(1, tokens[:, None])[:, 0]
        logprobs[:, t] = token_logprob.masked_fill(stopped, 0.0)
        stopped = stopped | (tokens == env.eos)
        if t == T - 1 or stopped.all():
            break
        # Completions that have the same text so far run through the network as one row.
        texts, state = (state * V + tokens).unique(return_inverse=True)
        before = texts // V
        last = texts % V
        cache = [(k[before], v[before]) for k, v in cache]
        logits, cache = policy(last[:, None], cache)
        logits = logits[:, -1]
    prompts = prompts.repeat_interleave(group_size, 0)
    rewards = env.reward(prompts, completions.clone())  # a copy: it may change what it is given
    rewards = check_rewards(rewards, B).to(device)
    mask = completion_mask(completions, env.eos)
    return Rollout(prompts, completions, mask, logprobs, rewards, group_size)
