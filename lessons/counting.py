"""The exact noise of baselines, and what corrections for another policy's samples do, by counting.

In the world of two terms every completion y of a prompt can be enumerated. What one completion
leaves on the prompt's activations is a weighted sum of its tokens' scores, the gradients of
log π(y_t | …), and a baseline or a correction chooses the weights; so means and variances are
finite sums. Gradients are those at the prompt's tokens entering the first block, or over all
weights. study.py stores what is counted here; lesson 06 writes the corrections itself.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from minicf.bounds import next_token_jacobians, text_states
from minicf.env import SumGame
from minicf.exact import completions, prefix_values, success
from minicf.gpt import GPT
from minicf.ppo import gae
from minicf.rollout import completion_logits, completion_mask, token_logprobs

# Every completion of a prompt, under one policy.


@dataclass(frozen=True)
class Texts:
    """Every completion of the world: tokens (M, T), mask (M, T), and the edge that each token is.

    An edge is a state and its next token; there are S·V of them, far fewer than M·T.
    """

    tokens: Tensor
    mask: Tensor
    edges: Tensor
    states: Tensor
    depth: Tensor


def every_text(env: SumGame) -> Texts:
    """The completions of a world of one or two terms."""
    tokens = completions(env)
    V = len(env.vocab)
    T = env.completion_length
    states, depth = text_states(env, tokens[0, :0])
    powers = V ** torch.arange(T)
    place = torch.zeros(V**T, dtype=torch.long)
    place[states @ powers] = torch.arange(len(states))
    mask = completion_mask(tokens, env.eos)
    edges = torch.zeros_like(tokens)
    for t in range(T):
        before = torch.cat([tokens[:, :t], torch.full_like(tokens[:, t:], env.eos)], 1)
        edges[:, t] = place[before @ powers] * V + tokens[:, t]
    return Texts(tokens, mask, edges.masked_fill(~mask, 0), states, depth)


@dataclass(frozen=True)
class Prompt:
    """A prompt under a policy, in float64: of every text the reward (M,), log-probabilities (M, T),
    probability `chances` (M,) and exact values (M, T) of the states before its tokens; success
    `value`; the scores (S·V, P·D) of the edges."""

    texts: Texts
    rewards: Tensor
    logprobs: Tensor
    chances: Tensor
    values: Tensor
    value: float
    scores: Tensor

    def weighted_scores(self, weights: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Sum over tokens of weights (m, T) × score, for each of the texts `rows`: (m, P·D)."""
        weights = weights.masked_fill(~self.texts.mask[rows], 0.0)
        columns = zip(self.texts.edges[rows].unbind(1), weights.unbind(1))
        return sum(weight[:, None] * self.scores[edge] for edge, weight in columns)

    def scores_of_texts(self) -> Tensor:
        """The score of each text: (M, P·D)."""
        return self.weighted_scores(torch.ones_like(self.logprobs))

    def blocks(self, weights: Tensor) -> Iterator[Tensor]:
        """`weighted_scores` of all texts, as one block for `noise_of_baselines`."""
        yield self.weighted_scores(weights)


def enumerate_prompt(policy: GPT, env: SumGame, prompt: Tensor, texts: Texts) -> Prompt:
    """Every text of a prompt (P,), with the score of each edge entering the first block."""
    logits, jacobian, _ = next_token_jacobians(
        policy, prompt, texts.states, texts.depth, policy.blocks[0]
    )
    jacobian = jacobian[:, :, : len(prompt)].flatten(2)  # (S, V, P·D)
    scores = (jacobian - logits.softmax(1).unsqueeze(1) @ jacobian).flatten(0, 1)
    logprobs = logits.log_softmax(1).flatten()[texts.edges].masked_fill(~texts.mask, 0.0)
    prompts = prompt.expand(len(logprobs), -1)
    chances = logprobs.sum(1).exp()
    rewards = env.reward(prompts, texts.tokens).double()
    with torch.no_grad():
        values = prefix_values(policy, env, prompts, texts.tokens)
    value = (chances @ rewards).item()
    return Prompt(texts, rewards, logprobs, chances, values, value, scores)


# An older policy.


def climb(policy: GPT, env: SumGame, steps: int, learning_rate: float = 1e-3) -> GPT:
    """A copy of the policy after steps of ascent on its exact success, as train.improve makes."""
    policy = copy.deepcopy(policy)
    optimizer = torch.optim.AdamW(
        policy.parameters(), learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    for _ in range(steps):
        optimizer.zero_grad()
        loss = -success(policy, env).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    return policy


# The noise of each baseline, and of a critic that knows the value of every state.


def noise_of_baselines(prompt: Prompt, blocks_of: Callable[[Tensor], Iterator[Tensor]]) -> dict:
    """Exact noise over ‖∇V‖² of one sample's gradient at a prompt, for rewards of 0 and 1.

    blocks_of(weights (M, T)) gives, in blocks (m, D) of the texts' order, the sums over tokens of
    weight × score: `prompt.blocks` at the activations, `weight_blocks` over all weights. By
    baseline: "none", "V" (the prompt's success), "best" (the constant of least noise), "token
    critic" (advantages Q − V at every state), "leave-one-out of 8". The result also has `value`,
    the prompt's success, and `best_baseline`. The formulas are those of minicf/baselines.py. They
    need only ‖s‖² of each text and ∇V, so that the scores may come in blocks.
    """
    p = prompt.chances
    r = prompt.rewards
    mask = prompt.texts.mask
    squares, gradient = squares_and_mean(blocks_of(mask.double()), p * r)
    advantages, _ = gae(r, prompt.values, mask, gae_lambda=0.0)  # with exact values: Q − V
    critic_squares, _ = squares_and_mean(blocks_of(advantages), p)
    signal = gradient.square().sum()
    total = p @ squares
    right = (p * r) @ squares  # E‖s‖² and E[r‖s‖²]
    value = p @ r
    best = right / total

    def noise(b: Tensor | float) -> float:  # E[(r − b)²‖s‖²] − ‖g‖², where r² = r
        return ((right - 2 * b * right + b * b * total) / signal - 1).item()

    price = ((value * (1 - value) * total / signal + 1) / (8 - 1)).item()
    return {
        "value": value.item(),
        "best_baseline": best.item(),
        "none": noise(0.0),
        "V": noise(value),
        "best": noise(best),
        "token critic": (p @ critic_squares / signal - 1).item(),
        "leave-one-out of 8": noise(value) + price,
    }


def squares_and_mean(blocks: Iterator[Tensor], chances: Tensor) -> tuple[Tensor, Tensor]:
    """‖row‖² of the rows of all blocks (M,), and Σ chance × row (D,)."""
    squares = []
    mean = 0.0
    start = 0
    for block in blocks:
        squares.append(block.square().sum(1))
        mean = mean + chances[start : start + len(block)] @ block
        start += len(block)
    return torch.cat(squares), mean


def weight_blocks(
    policy: GPT, prompt: Tensor, texts: Texts, weights: Tensor, size: int = 125
) -> Iterator[Tensor]:
    """∂/∂θ of Σ_t weight·log π(y_t) for each text, θ all of the policy's weights: (size, D)."""
    parameters = {name: weight.detach() for name, weight in policy.named_parameters()}
    sequences = torch.cat([prompt.expand(len(texts.tokens), -1), texts.tokens], 1)
    P = len(prompt)

    def objective(parameters: dict, sequence: Tensor, weight: Tensor) -> Tensor:
        logits, _ = functional_call(policy, parameters, (sequence[None, :-1],))
        return weight @ token_logprobs(logits[0, P - 1 :], sequence[P:])

    gradients_of = vmap(grad(objective), in_dims=(None, 0, 0))
    for sequence, weight in zip(sequences.split(size), weights.split(size)):
        gradients = gradients_of(parameters, sequence, weight)
        yield torch.cat([gradient.flatten(1) for gradient in gradients.values()], 1)


# Data from another policy: what each correction does to the gradient's bias and variance.

CAPS = (1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, math.inf)  # of a ratio


def correction_weights(
    logratio: Tensor, advantages: Tensor, mask: Tensor, length: float
) -> dict[str, Tensor]:
    """The weight of each token's A·∇log π under each correction: tensors (M, T).

    logratio (M, T) is log π/μ of trainer π and sampler μ, 0 after the stop; advantages (M, T). TIS
    caps a ratio, IcePop and MIS drop what is outside their range, PPO's clip and GSPO drop what
    the clip cuts off. GSPO's division by the length is undone on average, by the mean `length`.
    """
    token = logratio.exp()
    prefix = logratio.cumsum(1).exp()
    sequence = prefix[:, -1:].expand_as(token)
    lengths = mask.sum(1, keepdim=True)
    geometric = (logratio.sum(1, keepdim=True) / lengths).exp().expand_as(token)
    return {
        "none": torch.ones_like(token),
        "token": token,
        "TIS": token.clamp(max=2),
        "IcePop": token.where((token >= 0.5) & (token <= 5), 0.0),
        "prefix": prefix,
        "sequence": sequence,
        "sequence TIS": sequence.clamp(max=2),
        "MIS": sequence.where(sequence <= 2, 0.0),
        "PPO clip": unclipped(token, advantages),
        "GSPO": unclipped(geometric, advantages) * length / lengths,
    }


def unclipped(ratio: Tensor, advantages: Tensor, clip: float = 0.2) -> Tensor:
    """The ratios, 0 where PPO's clip cuts the gradient off."""
    too_high = (ratio > 1 + clip) & (advantages > 0)
    too_low = (ratio < 1 - clip) & (advantages < 0)
    return ratio.masked_fill(too_high | too_low, 0.0)


def bias_and_variance(pairs: list[tuple[Prompt, Tensor]]) -> dict:
    """Exact bias over ‖∇V‖ and variance over ‖∇V‖² of one sample, by advantages and correction.

    A pair is a prompt under the trainer and the sampler's log-probabilities (M, T); the gradients
    of several prompts count as one vector. Advantages are "V", r − V of the trainer's prompt, or
    "exact", Q − V at every state. The result also has `kl`, the mean KL(sampler‖trainer) in nats,
    and `caps`, the mean squared error, over ‖∇V‖², of a mean of 64 samples with baseline V by each
    of CAPS, for the token's and the sequence's ratio.
    """
    signal = 0.0
    result = {"kl": 0.0, "V": {}, "exact": {}, "caps": {"token": {}, "sequence": {}}}
    moments = {}
    for prompt, old in pairs:
        truth = prompt.chances * prompt.rewards @ prompt.scores_of_texts()
        signal = signal + truth.square().sum()
        p = old.sum(1).exp()
        mask = prompt.texts.mask
        logratio = prompt.logprobs - old
        result["kl"] += -(p @ logratio.sum(1)).item() / len(pairs)
        length = (p @ mask.sum(1).double()).item()
        constant = (prompt.rewards - prompt.value)[:, None].expand_as(old)
        exact, _ = gae(prompt.rewards, prompt.values, mask, gae_lambda=0.0)
        for kind, advantages in (("V", constant), ("exact", exact)):
            weights = correction_weights(logratio, advantages, mask, length)
            for name, weight in weights.items():
                rows = prompt.weighted_scores(weight * advantages)
                add_moments(moments, (kind, name), p, rows, truth)
        for cap in CAPS:
            for name, ratio in (("token", weights["token"]), ("sequence", weights["sequence"])):
                rows = prompt.weighted_scores(ratio.clamp(max=cap) * constant)
                add_moments(moments, ("caps", name, cap), p, rows, truth)
    for key, (bias, variance) in moments.items():
        if key[0] == "caps":
            result["caps"][key[1]][str(key[2])] = ((bias + variance / 64) / signal).item()
        else:
            result[key[0]][key[1]] = [(bias / signal).sqrt().item(), (variance / signal).item()]
    return result


def add_moments(moments: dict, key: tuple, p: Tensor, rows: Tensor, truth: Tensor) -> None:
    """Add a prompt's ‖bias‖² and variance of one sample to those under `key`.

    The samples' gradients rows (M, P·D) have probabilities p (M,); their mean should be `truth`.
    """
    mean = p @ rows
    bias = (mean - truth).square().sum()
    variance = p @ rows.square().sum(1) - mean.square().sum()
    before = moments.get(key, (0.0, 0.0))
    moments[key] = (before[0] + bias, before[1] + variance)


@torch.no_grad()
def noisy_logprobs(
    policy: GPT, prompt: Tensor, texts: Texts, sigma: float | None, seed: int
) -> Tensor:
    """Log-probabilities (M, T) of a sampler with other logits: another engine's rounding.

    Normal noise of standard deviation `sigma` on the logits of every state; None: bfloat16.
    """
    if sigma is None:
        policy = copy.deepcopy(policy).bfloat16()
    all_logits = completion_logits(policy, prompt.expand(len(texts.states), -1), texts.states)
    logits = all_logits[torch.arange(len(texts.states)), texts.depth].double()
    if sigma is not None:
        generator = torch.Generator().manual_seed(seed)
        logits = logits + sigma * torch.randn(logits.shape, generator=generator)
    edges = logits.log_softmax(1).flatten()
    return edges[texts.edges].masked_fill(~texts.mask, 0.0)
