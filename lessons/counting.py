"""Exact mean and noise of methods: where each one's update points, and how noisy it is.

In the world of two terms every completion y of a prompt can be enumerated. What one completion
leaves on the prompt's activations is a weighted sum of its tokens' scores, the gradients of
log π(y_t | …); a method chooses the weights. So means and variances of an update are finite sums:
over completions, and over what the other samples of the group do, which for rewards of 0 and 1 is
a binomial. Gradients are those at the prompt's tokens entering the first block, where train.improve
reads them. Where a method divides by something of the whole batch (its tokens, mean or standard
deviation), the large batch's limit is taken.

Left out on purpose: the KL term, whose gradient at the first update is 0, and the groups that
DAPO's paper draws anew.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from minicf.bounds import next_token_jacobians, text_states
from minicf.costate import alignment
from minicf.env import SumGame
from minicf.exact import completions, prefix_values, success
from minicf.gpt import GPT
from minicf.grpo import group_advantages, kl_penalty
from minicf.ppo import clipped_surrogate, gae
from minicf.rollout import completion_logits, completion_mask, token_logprobs
from minicf.tap import tap
from minicf.variants import cispo_loss, gspo_loss, maxrl_advantages

LEARNING_RATE = 1e-3  # of the steps between the policy that sampled and the policy of now
UNCLIPPED = (math.inf, math.inf)


# Methods, as settings of switches.


@dataclass(frozen=True)
class Method:
    """How a method turns rewards into a loss."""

    source: str
    baseline: str = "none"  # "leave-one-out", "mean" (of the group), "batch" (mean), "critic",
    # or "exact critic": the exact value of each state, in a world with solutions
    scale: str = "none"  # or "std", "mean": of the group; std of the batch for batch and critics
    aggregate: str = "constant"  # see ppo.aggregate_tokens
    clip: tuple[float, float] = UNCLIPPED  # of the ratio, below and above 1
    ratio: str = "token"  # or "sequence"
    surrogate: str = "clip"  # or "cispo"
    gae_lambda: float = 0.95  # of a critic's advantages, see ppo.gae


METHODS = {
    "REINFORCE": Method("Williams 1992"),
    "RLOO": Method("Ahmadian et al. 2024", baseline="leave-one-out"),
    "GRPO": Method("Shao et al. 2024", "mean", "std", "sequence", (0.2, 0.2)),
    "Dr. GRPO": Method("Liu et al. 2025", "mean", "none", "constant", (0.2, 0.2)),
    "DAPO": Method("Yu et al. 2025", "mean", "std", "token", (0.2, 0.28)),
    "GSPO": Method("Zheng et al. 2025", "mean", "std", "sequence", (0.2, 0.2), ratio="sequence"),
    "CISPO": Method("MiniMax 2025", "mean", "std", "token", (math.inf, 0.2), surrogate="cispo"),
    "MaxRL": Method("Tajwar et al. 2026", "mean", "mean", "constant", (0.2, 0.2)),
    "PPO without critic": Method("Hu 2025", "batch", "std", "token", (0.2, 0.2)),
    "PPO with critic": Method("Schulman et al. 2017", "critic", "std", "token", (0.2, 0.2)),
    "PPO with exact critic": Method("this project", "exact critic", "std", "token", (0.2, 0.2)),
}


def method_advantages(
    method: Method, rewards: Tensor, group_size: int, mask: Tensor | None = None,
    values: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A method's advantages of rewards (B,): (B,), or (B, T) for a critic.

    A critic needs mask (B, T) and its values (B, T) of the states before each token. Its scale
    "std" normalises the advantages over the live tokens of the batch, mean included.
    """
    if method.scale == "mean":
        return maxrl_advantages(rewards, group_size)
    if method.baseline == "batch":
        return group_advantages(rewards, len(rewards), "mean", method.scale)
    if "critic" not in method.baseline:
        return group_advantages(rewards, group_size, method.baseline, method.scale)
    advantages, _ = gae(rewards, values, mask, gae_lambda=method.gae_lambda)
    if method.scale == "std":
        live = advantages[mask]
        advantages = (advantages - live.mean()) / (live.std() + 1e-8)
    return advantages


def method_loss(
    method: Method, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor
) -> Tensor:
    """A method's loss for the policy, a scalar; shapes as in `ppo.clipped_surrogate`."""
    given = (logprobs, old_logprobs, advantages, mask, method.clip)
    if method.surrogate == "cispo":
        return cispo_loss(*given)[0]
    if method.ratio == "sequence":
        return gspo_loss(*given)[0]
    return clipped_surrogate(*given, method.aggregate)[0]


def optimizer_for(policy: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """The optimiser of train.improve."""
    return torch.optim.AdamW(
        policy.parameters(), learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )


def advantage_moments(
    value: float, group_size: int, baseline: str = "mean", scale: str = "std"
) -> tuple[Tensor, Tensor, Tensor]:
    """What a sample's advantage A is, over what its group-mates do, for rewards r of 0 and 1.

    `value` is the prompt's success probability. Returns E[A | r] (2,), E[A² | r] (2,) and, for two
    samples of a group, E[A·A' | r, r'] (2, 2).
    """
    G = group_size
    method = Method("", baseline, scale)
    table = torch.zeros(2, G + 1, dtype=torch.float64)  # A of reward r in a group of K successes
    for K in range(G + 1):
        group = torch.tensor([0] * (G - K) + [1] * K, dtype=torch.float64)
        advantages = method_advantages(method, group, G)
        table[0, K] = advantages[0]
        table[1, K] = advantages[-1]

    mates = binomial(G - 1, value)
    given = torch.stack([table[r, r : G + r] for r in (0, 1)])  # (2, G), over mates' successes
    first = given @ mates
    second = given.square() @ mates
    pairs = torch.zeros(2, 2, dtype=torch.float64)
    if G > 1:
        others = binomial(G - 2, value)
        for r in (0, 1):
            for s in (0, 1):
                both = table[r, r + s : G - 1 + r + s] * table[s, r + s : G - 1 + r + s]
                pairs[r, s] = both @ others
    return first, second, pairs


def binomial(n: int, value: float) -> Tensor:
    """The chance of 0, 1, …, n successes in n samples, in float64: (n + 1,)."""
    k = torch.arange(n + 1, dtype=torch.float64)
    ways = torch.tensor([math.comb(n, i) for i in range(n + 1)], dtype=torch.float64)
    return ways * value**k * (1 - value) ** (n - k)


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

    def critic_values(self, method: Method) -> Tensor:
        """What a critic says of the states (M, T): the exact values, or 0 before it has learnt."""
        exact = method.baseline == "exact critic"
        return self.values if exact else torch.zeros_like(self.values)

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


# The first update of a method.


def update_moments(method: Method, prompt: Prompt, G: int, batch: dict) -> tuple[Tensor, float]:
    """Mean E[g] (P·D,) and E‖g‖² of what a group of G leaves on a prompt at the first update.

    Scaled so that a plain sum over tokens, averaged over samples, has factor 1. `batch` holds the
    large batch's limits, see batch_limits.
    """
    p = prompt.chances
    r = prompt.rewards
    mask = prompt.texts.mask
    if method.baseline in ("critic", "exact critic", "batch"):
        rows = prompt.weighted_scores(batch_advantages(method, prompt, batch))
        mean = p @ rows
        square = (p @ rows.square().sum(1)).item()
        return mean, square / G + (1 - 1 / G) * mean.square().sum().item()
    weights = mask.double()
    if method.aggregate == "sequence":
        weights = weights * batch["length"] / mask.sum(1, keepdim=True)
    rows = prompt.weighted_scores(weights)
    share = torch.stack([p * (1 - r), p * r])  # (2, M)
    first, second, pairs = advantage_moments(prompt.value, G, method.baseline, method.scale)
    parts = share @ rows  # P(r)·E[u | r], (2, P·D)
    mean = first @ parts
    square = (second @ (share @ rows.square().sum(1))) / G
    square = square + (1 - 1 / G) * (pairs * (parts @ parts.T)).sum()
    return mean, square.item()


def batch_advantages(method: Method, prompt: Prompt, batch: dict) -> Tensor:
    """Advantages (M, T) of a batch mean or of a critic, in a large batch."""
    if method.baseline == "batch":
        advantages = (prompt.rewards - batch["mean"])[:, None].expand_as(prompt.logprobs)
        return advantages / batch["std"] if method.scale == "std" else advantages
    advantages = critic_advantages(method, prompt)
    return (advantages - batch["mean"]) / batch["std"] if method.scale == "std" else advantages


def critic_advantages(method: Method, prompt: Prompt) -> Tensor:
    """Advantages (M, T) of a critic, before any normalisation."""
    values = prompt.critic_values(method)
    mask = prompt.texts.mask
    return gae(prompt.rewards, values, mask, gae_lambda=method.gae_lambda)[0]


def batch_limits(method: Method, prompts: list[Prompt]) -> dict[str, float]:
    """What a large batch's means tend to.

    `length`: tokens a text; `mean` and `std` of the rewards, or of a critic's advantages over live
    tokens.
    """
    tokens = 0.0
    total = 0.0
    squares = 0.0
    count = 0.0
    for prompt in prompts:
        weights = prompt.chances[:, None] * prompt.texts.mask  # (M, T)
        tokens += weights.sum().item()
        if "critic" in method.baseline:
            numbers = critic_advantages(method, prompt)
        else:
            weights = prompt.chances
            numbers = prompt.rewards
        count += weights.sum().item()
        total += (weights * numbers).sum().item()
        squares += (weights * numbers.square()).sum().item()
    mean = total / count
    std = math.sqrt(squares / count - mean**2)
    return {"length": tokens / len(prompts), "mean": mean, "std": std}


def methods_table(
    methods: dict[str, Method], prompts: list[Prompt], truth: Tensor, G: int
) -> list[dict]:
    """A row for each method: its first update beside ∇V (Q, P, D), as one vector.

    `cosine` and `length` are those of the mean update, what infinitely many samples would leave;
    lengths are compared per token of a completion. `noise`: trace of the covariance of one sample's
    share, over ‖mean update‖². A batch of n samples a prompt then has a cosine of about
    cosine/√(1 + noise/n); `samples` is the n for a cosine of .9, None where none is enough.
    """
    rows = []
    for name, method in methods.items():
        batch = batch_limits(method, prompts)
        moments = [update_moments(method, prompt, G, batch) for prompt in prompts]
        mean = torch.stack([mean for mean, _ in moments])  # (Q, P·D)
        square = sum(square for _, square in moments)
        cosine, length = (x.item() for x in alignment(mean.flatten(), truth.flatten()))
        noise = G * (square / mean.square().sum().item() - 1)
        row = {"method": name, "cosine": cosine, "length": length, "noise": noise}
        row["samples"] = noise / ((cosine / 0.9) ** 2 - 1) if cosine > 0.9 else None
        rows.append(row)
    return rows


# Stale data, and the leash.


@dataclass(frozen=True)
class Graph:
    """A prompt under a policy, for gradients: log-probabilities (M, T) of every text, a leaf, those
    of the edges (S·V,), and the activations (1, P, D) entering the first block that they are of."""

    texts: Texts
    rewards: Tensor
    logprobs: Tensor
    edges: Tensor
    activations: Tensor

    @property
    def chances(self) -> Tensor:
        """Probability of each text (M,)."""
        return self.logprobs.sum(1).exp()

    def gradient(self, objective: Tensor) -> Tensor:
        """∂objective/∂x at the prompt's tokens (P·D,), for a function of the log-probabilities."""
        (weights,) = torch.autograd.grad(objective, self.logprobs, retain_graph=True)
        weights = weights.masked_fill(~self.texts.mask, 0.0)
        per_edge = torch.zeros_like(self.edges)
        per_edge.index_add_(0, self.texts.edges.flatten(), weights.flatten())
        (gradient,) = torch.autograd.grad(self.edges, self.activations, per_edge, retain_graph=True)
        return gradient.flatten()

    def truth(self) -> Tensor:
        """∇V (P·D,)."""
        return self.gradient(self.chances @ self.rewards)


def graph_of(policy: GPT, prompt: Tensor, texts: Texts, rewards: Tensor) -> Graph:
    """Every text of a prompt (P,); the prompt runs once, and each state."""
    S = len(texts.states)
    with tap(policy.blocks[0], calls=2) as inputs:
        logits = completion_logits(
            policy, prompt[None], texts.states, torch.zeros(S, dtype=torch.long)
        )
    edges = logits[torch.arange(S), texts.depth].log_softmax(1).flatten()
    logprobs = edges.detach()[texts.edges].masked_fill(~texts.mask, 0.0)
    return Graph(texts, rewards, logprobs.requires_grad_(), edges, inputs[0])


CLIPS = {"token ratio": UNCLIPPED, "PPO clip": (0.2, 0.2), "clip-higher": (0.2, 0.28)}
SURROGATES = ("no ratio", *CLIPS, "CISPO", "GSPO", "whole-sequence ratio")


def surrogate_objective(
    name: str, logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, length: float
) -> Tensor:
    """What a surrogate climbs, a sum over tokens averaged over the completions; a scalar.

    logprobs, old and mask are (B, T), advantages (B,). GSPO, which divides by the own length, is
    multiplied by the mean `length`, so that all have one scale.
    """
    given = (logprobs, old, advantages, mask)
    if name in CLIPS:
        loss, _ = clipped_surrogate(*given, CLIPS[name], "constant")
        return -mask.size(1) * loss
    if name == "GSPO":
        loss, _ = gspo_loss(*given)
        return -length * loss
    if name == "CISPO":
        loss, _ = cispo_loss(*given)
        return -loss * mask.sum().item() / len(mask)
    if name == "whole-sequence ratio":
        whole = (logprobs.detach() - old).masked_fill(~mask, 0.0).sum(1).exp()
        advantages = advantages * whole
    loss, _ = cispo_loss(logprobs, old, advantages, mask, clip=(0.0, 0.0))  # a weight of 1
    return -loss * mask.sum().item() / len(mask)


def surrogate_gradients(now: Graph, old: Tensor, length: float) -> dict[str, Tensor]:
    """Exact mean of what each surrogate leaves (P·D,), and ∇J: `truth`, the policy being `now`.

    The data have log-probabilities `old` (M, T) and `length` tokens on average. With the group's
    mean as baseline, up to its factor 1 − 1/G; lengths as in the methods' table.
    """
    mask = now.texts.mask
    chances = old.sum(1).exp()
    weights = chances * (now.rewards - chances @ now.rewards)  # positive times A: no clip differs
    gradients = {"truth": now.truth()}
    for name in SURROGATES:
        objective = surrogate_objective(name, now.logprobs, old, weights, mask, length)
        gradients[name] = now.gradient(len(mask) * objective)
    return gradients


def leash_gradients(now: Graph, old: Tensor) -> dict[str, Tensor]:
    """What a KL to the reference leaves (P·D,), by place and estimator, and the `exact` ∇KL.

    `old` (M, T) are the reference's log-probabilities. In a reward the log-ratio is held fixed.
    """
    logprobs = now.logprobs
    p = now.chances.detach()
    d = (logprobs - old).detach()
    to_go = d.flip(1).cumsum(1).flip(1)
    penalties = {
        "k1 in the loss": kl_penalty(logprobs, old, "k1").sum(1),
        "k2 in the loss": kl_penalty(logprobs, old, "k2").sum(1),
        "k3 in the loss": kl_penalty(logprobs, old, "k3").sum(1),
        "k2 of the whole text": kl_penalty(logprobs.sum(1), old.sum(1), "k2"),
        "k1 in the reward": d.sum(1) * logprobs.sum(1),
        "k1 in the reward to go": (to_go * logprobs).sum(1),
    }
    gradients = {name: now.gradient(p @ penalty) for name, penalty in penalties.items()}
    gradients["exact"] = now.gradient(now.chances @ (logprobs - old).sum(1))
    return gradients


def climb(policy: GPT, env: SumGame, steps: int, learning_rate: float = LEARNING_RATE) -> GPT:
    """A copy of the policy after steps of ascent on its exact success."""
    policy = copy.deepcopy(policy)
    optimizer = optimizer_for(policy, learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = -success(policy, env).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    return policy


def together(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The gradients of several prompts as one vector, by name."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def staleness_rows(gradients: dict[str, Tensor]) -> list[dict]:
    """`surrogate`, `cosine` and `length` beside ∇J, the gradient called `truth`."""
    rows = []
    for name in SURROGATES:
        cosine, length = (x.item() for x in alignment(gradients[name], gradients["truth"]))
        rows.append({"surrogate": name, "cosine": cosine, "length": length})
    return rows


def leash_rows(gradients: dict[str, Tensor]) -> list[dict]:
    """`kl_cosine` and `kl_length` beside ∇KL; the cosine is nan where nothing remains."""
    rows = []
    for name, part in gradients.items():
        if name == "exact":
            continue
        cosine, length = (x.item() for x in alignment(part, gradients["exact"]))
        cosine = cosine if length > 1e-9 else math.nan
        rows.append({"kl": name, "kl_cosine": cosine, "kl_length": length})
    return rows


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
    """Exact bias over ‖∇J‖ and variance over ‖∇J‖² of one sample, by advantages and correction.

    A pair is a prompt under the trainer and the sampler's log-probabilities (M, T); the gradients
    of several prompts count as one vector. Advantages are "V", r − V of the trainer's prompt, or
    "exact", Q − V at every state. The result also has `kl`, the mean KL(sampler‖trainer) in nats,
    and `caps`, the mean squared error, over ‖∇J‖², of a mean of 64 samples with baseline V by each
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
