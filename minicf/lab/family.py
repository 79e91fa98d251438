"""The family of methods, exactly (C9): where each one's update points, and how noisy it is.

In the world of two terms every completion y of a prompt can be enumerated. What one completion
leaves on the prompt's activations is a weighted sum of its tokens' scores, the gradients of
log π(y_t | …); a method chooses the weights. So means and variances of an update are finite sums:
over completions, and over what the other samples of the group do, which for rewards of 0 and 1 is
a binomial. Gradients are those at the prompt's tokens entering the first block, as training.align
reads them. Where a method divides by something of the whole batch (its tokens, mean or standard
deviation), the large batch's limit is taken, and batches of the real size are drawn beside it.
"""

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..bounds import next_token_jacobians, text_states
from ..costate import alignment
from ..env import SumGame
from ..exact import completions, prefix_values, success, value_gradients
from ..gpt import GPT
from ..grpo import group_advantages, kl_penalty
from ..ppo import clipped_surrogate, gae
from ..rollout import Rollout, completion_logits, completion_mask
from ..tap import tap
from ..training import (
    METHODS, Method, clip_gradients, method_advantages, method_loss, optimizer_for
)  # fmt: skip

GROUP_SIZE = 8
PROMPTS = [9, 3, 15]  # the targets asked about
LAGS = (0, 1, 2, 4, 8)
LEARNING_RATE = 1e-3  # of the steps between the policy that sampled and the policy of now


def advantage_moments(
    value: float, group_size: int, baseline: str = "mean", scale: str = "std"
) -> tuple[Tensor, Tensor, Tensor]:
    """What a sample's advantage A is, over what its group-mates do, for rewards r of 0 and 1.

    `value` is the prompt's success probability. Returns E[A | r] (2,), E[A² | r] (2,) and, for two
    samples of a group, E[A·A' | r, r'] (2, 2).
    """
    if not 0 <= value <= 1:
        raise ValueError(f"value must be a probability, 0 to 1, not {value}")
    G = group_size
    table = torch.zeros(2, G + 1, dtype=torch.float64)  # A of reward r in a group of K successes
    for K in range(G + 1):
        group = torch.tensor([0] * (G - K) + [1] * K, dtype=torch.float64)
        advantages = group_advantages(group, G, baseline, scale)
        table[0, K], table[1, K] = advantages[0], advantages[-1]

    def chances(n: int) -> Tensor:
        k = torch.arange(n + 1, dtype=torch.float64)
        ways = torch.tensor([math.comb(n, i) for i in range(n + 1)], dtype=torch.float64)
        return ways * value**k * (1 - value) ** (n - k)

    mates = chances(G - 1)
    given = torch.stack([table[r, r : G + r] for r in (0, 1)])  # (2, G), over mates' successes
    first, second = given @ mates, given.square() @ mates
    pairs = torch.zeros(2, 2, dtype=torch.float64)
    if G > 1:
        others = chances(G - 2)
        for r in (0, 1):
            for s in (0, 1):
                both = table[r, r + s : G - 1 + r + s] * table[s, r + s : G - 1 + r + s]
                pairs[r, s] = both @ others
    return first, second, pairs


def expected_advantages(
    value: float, group_size: int, baseline: str = "mean", scale: str = "std"
) -> tuple[float, float]:
    """Mean advantage of a wrong and of a right sample, over what its group-mates do.

    The difference of the two, c, is the factor by which the expected costate is longer than ∇V: 1
    for leave-one-out, 1 − 1/G for the group's mean, and towards 1/√(V(1 − V)) with the std.
    """
    wrong, right = advantage_moments(value, group_size, baseline, scale)[0].tolist()
    return wrong, right


# One table of switches in which only the baseline differs.
BASELINES = {
    name: Method(name, scale="none", aggregate="constant", clip=(0.2, 0.2), epochs=2, **switches)
    for name, switches in {
        "group mean": {"baseline": "mean"},
        "batch mean": {"baseline": "batch"},
        "learned critic": {"baseline": "critic"},
        "exact critic, λ = 0": {"baseline": "exact critic", "gae_lambda": 0.0},
        "exact critic, λ = .95": {"baseline": "exact critic"},
        "exact critic, λ = 1": {"baseline": "exact critic", "gae_lambda": 1.0},
    }.items()
}


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
    """The completions of a world of two terms."""
    tokens, V, T = completions(env), len(env.vocab), env.completion_length
    states, depth = text_states(env, tokens[0, :0])
    powers = V ** torch.arange(T)
    place = torch.zeros(V**T, dtype=torch.long)
    place[states @ powers] = torch.arange(len(states))
    mask, edges = completion_mask(tokens, env.eos), torch.zeros_like(tokens)
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

    def each(self, weights: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Sum over tokens of weights (m, T) × score, for each of the texts `rows`: (m, P·D)."""
        weights = weights.masked_fill(~self.texts.mask[rows], 0.0)
        columns = zip(self.texts.edges[rows].unbind(1), weights.unbind(1))
        return sum(weight[:, None] * self.scores[edge] for edge, weight in columns)


def enumerate_prompt(policy: GPT, env: SumGame, prompt: Tensor, texts: Texts) -> Prompt:
    """Every text of a prompt (P,), with the score of each edge entering the first block."""
    logits, jacobian, _ = next_token_jacobians(
        policy, prompt, texts.states, texts.depth, policy.blocks[0]
    )
    jacobian = jacobian[:, :, : len(prompt)].flatten(2)  # (S, V, P·D)
    scores = (jacobian - logits.softmax(1).unsqueeze(1) @ jacobian).flatten(0, 1)
    logprobs = logits.log_softmax(1).flatten()[texts.edges].masked_fill(~texts.mask, 0.0)
    prompts, chances = prompt.expand(len(logprobs), -1), logprobs.sum(1).exp()
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
    p, r, mask = prompt.chances, prompt.rewards, prompt.texts.mask
    if method.baseline in ("critic", "exact critic", "batch"):
        advantages = batch_advantages(method, prompt, batch)
        rows = prompt.each(advantages)
        mean, square = p @ rows, (p @ rows.square().sum(1)).item()
        return mean, square / G + (1 - 1 / G) * mean.square().sum().item()
    weights = mask.double()
    if method.aggregate == "sequence":
        weights = weights * batch["length"] / mask.sum(1, keepdim=True)
    rows = prompt.each(weights)
    share = torch.stack([p * (1 - r), p * r])  # (2, M)
    first, second, pairs = advantage_moments(prompt.value, G, method.baseline, method.scale)
    parts = share @ rows  # P(r)·E[u | r], (2, P·D)
    mean = first @ parts
    square = (second @ (share @ rows.square().sum(1))) / G
    square = square + (1 - 1 / G) * (pairs * (parts @ parts.T)).sum()
    factor = draws(method, prompt.value, G)
    return factor * mean, factor * square.item()


def draws(method: Method, value: float, G: int) -> float:
    """How often a group is drawn on average: dead ones anew, up to method.redraws times."""
    dead = value**G + (1 - value) ** G
    return sum(dead**i for i in range(method.redraws + 1))


def batch_advantages(method: Method, prompt: Prompt, batch: dict) -> Tensor:
    """Advantages (M, T) of a batch mean or of a critic, in a large batch."""
    if method.baseline == "batch":
        advantages = (prompt.rewards - batch["mean"])[:, None].expand_as(prompt.logprobs)
        return advantages / batch["std"] if method.scale == "std" else advantages
    advantages = critic_advantages(method, prompt)
    return (advantages - batch["mean"]) / batch["std"] if method.scale == "std" else advantages


def critic_advantages(method: Method, prompt: Prompt) -> Tensor:
    """Advantages (M, T) of a critic, before any normalisation."""
    values, mask = prompt.critic_values(method), prompt.texts.mask
    return gae(prompt.rewards, values, mask, gae_lambda=method.gae_lambda)[0]


def batch_limits(method: Method, prompts: list[Prompt]) -> dict[str, float]:
    """What a large batch's means tend to: `length`, tokens a text; `mean` and `std` of the rewards,
    or of a critic's advantages over live tokens."""
    tokens = total = squares = count = 0.0
    for prompt in prompts:
        weights = prompt.chances[:, None] * prompt.texts.mask  # (M, T)
        tokens += weights.sum().item()
        if "critic" in method.baseline:
            each = critic_advantages(method, prompt)
        else:
            weights, each = prompt.chances, prompt.rewards
        count += weights.sum().item()
        total += (weights * each).sum().item()
        squares += (weights * each.square()).sum().item()
    mean = total / count
    std = math.sqrt(squares / count - mean**2)
    return {"length": tokens / len(prompts), "mean": mean, "std": std}


def drawn_update(
    method: Method, prompts: list[Prompt], G: int, generator: torch.Generator
) -> Tensor:
    """One update of the real batch size, drawn from the enumerated texts: (Q·P·D,).

    The method's own advantages and loss give the weights, by autograd through log π.
    """
    rows = [draw_group(method, prompt, G, generator) for prompt in prompts]
    rewards = torch.cat([each.rewards[r] for each, r in zip(prompts, rows)])
    logprobs = torch.cat([each.logprobs[r] for each, r in zip(prompts, rows)])
    values = torch.cat([each.critic_values(method)[r] for each, r in zip(prompts, rows)])
    texts, every = prompts[0].texts, torch.cat(rows)
    rollout = Rollout(every, texts.tokens[every], texts.mask[every], logprobs, rewards, G)
    advantages, _ = method_advantages(method, rollout, values)
    leaf = logprobs.clone().requires_grad_()
    plain = replace(method, kl_coef=0.0)  # at the first update the KL's gradient is 0
    loss, _ = method_loss(plain, leaf, logprobs, advantages, rollout)
    (weights,) = torch.autograd.grad(-loss, leaf)
    groups = zip(prompts, weights.split(G), rows)
    return torch.cat([prompt.each(weight, row).sum(0) for prompt, weight, row in groups])


def draw_group(method: Method, prompt: Prompt, G: int, generator: torch.Generator) -> Tensor:
    """The rows (G,) of a group's texts; a dead group is drawn anew if the method does so."""
    for _ in range(method.redraws + 1):
        rows = torch.multinomial(prompt.chances, G, replacement=True, generator=generator)
        rewards = prompt.rewards[rows]
        if rewards.amax() != rewards.amin():
            break
    return rows


def methods_table(
    methods: dict[str, Method], prompts: list[Prompt], truth: Tensor, G: int,
    generator: torch.Generator, batches: int = 100,
) -> list[dict]:  # fmt: skip
    """A row for each method: its first update beside ∇V (Q, P, D), as one vector.

    `cosine` and `length` are those of the mean update, what infinitely many samples would leave;
    lengths are compared per token of a completion. `prompt_cosine`: mean of single prompts'
    cosines. `noise`: trace of the covariance of one sample's share, over ‖mean update‖². A batch
    of n samples a prompt then has a cosine of about cosine/√(1 + noise/n); `batch_cosine` is that
    for one group, `drawn_cosine` the mean of `batches` of that size, `samples` the n for a
    cosine of .9, None where none is enough. `limit` marks a large batch's limit. Redrawn samples
    count.
    """
    rows = []
    for name, method in methods.items():
        batch = batch_limits(method, prompts)
        moments = [update_moments(method, prompt, G, batch) for prompt in prompts]
        mean = torch.stack([mean for mean, _ in moments])  # (Q, P·D)
        square = sum(square for _, square in moments)
        cosine, length = (x.item() for x in alignment(mean.flatten(), truth.flatten()))
        by_prompt, _ = alignment(mean, truth.flatten(1))
        used = sum(draws(method, prompt.value, G) for prompt in prompts) / len(prompts)
        noise = used * G * (square / mean.square().sum().item() - 1)
        drawn = torch.stack([drawn_update(method, prompts, G, generator) for _ in range(batches)])
        rows.append({
            "method": name, "cosine": cosine, "prompt_cosine": by_prompt.mean().item(),
            "length": length, "noise": noise,
            "samples": noise / ((cosine / 0.9) ** 2 - 1) if cosine > 0.9 else None,
            "batch_cosine": cosine / math.sqrt(1 + noise / (used * G)),
            "drawn_cosine": alignment(drawn, truth.flatten())[0].mean().item(),
            "limit": method.aggregate == "token",
        })  # fmt: skip
    return rows


# Stale data, and the leash.

# How clipped_surrogate is called; with both sides of the weight cut at 1 there is no ratio.
SURROGATES = {
    "no ratio": {"clip": (0.0, 0.0), "surrogate": "cispo"},
    "token ratio": {"clip": (math.inf, math.inf)},
    "PPO clip": {"clip": (0.2, 0.2)},
    "clip-higher": {"clip": (0.2, 0.28)},
    "CISPO": {"clip": (math.inf, 0.2), "surrogate": "cispo"},
    "GSPO": {"clip": (0.2, 0.2), "ratio": "sequence", "aggregate": "sequence"},
    "whole-sequence ratio": {"clip": (0.0, 0.0), "surrogate": "cispo"},
}


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
        (left,) = torch.autograd.grad(self.edges, self.activations, per_edge, retain_graph=True)
        return left.flatten()

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


def surrogate_gradients(now: Graph, old: Tensor, length: float) -> dict[str, Tensor]:
    """Exact mean of what each surrogate leaves (P·D,), and ∇J: `truth`, the policy being `now`.

    The data have log-probabilities `old` (M, T) and `length` tokens on average. With the group's
    mean as baseline, up to its factor 1 − 1/G; lengths as in the methods' table.
    """
    mask, chances = now.texts.mask, old.sum(1).exp()
    weights = chances * (now.rewards - chances @ now.rewards)  # positive times A: no clip differs
    whole = (now.logprobs.detach() - old).sum(1).exp()
    left = {"truth": now.truth()}
    for name, options in SURROGATES.items():
        advantages = weights * whole if name == "whole-sequence ratio" else weights
        options = {"aggregate": "constant"} | options
        loss, _ = clipped_surrogate(now.logprobs, old, advantages, mask, **options)
        size = len(mask) * (length if options["aggregate"] == "sequence" else mask.size(1))
        left[name] = now.gradient(-size * loss)
    return left


def leash_gradients(now: Graph, old: Tensor) -> dict[str, Tensor]:
    """What a KL to the reference leaves (P·D,), by place and estimator; `exact` ∇KL, and `truth`.

    `old` (M, T) are the reference's log-probabilities. In a reward the log-ratio is held fixed.
    """
    logprobs, p = now.logprobs, now.chances.detach()
    d = (logprobs - old).detach()
    to_go = d.flip(1).cumsum(1).flip(1)
    each = {
        "k1 in the loss": kl_penalty(logprobs, old, "k1").sum(1),
        "k2 in the loss": kl_penalty(logprobs, old, "k2").sum(1),
        "k3 in the loss": kl_penalty(logprobs, old, "k3").sum(1),
        "k2 of the whole text": kl_penalty(logprobs.sum(1), old.sum(1), "k2"),
        "k1 in the reward": d.sum(1) * logprobs.sum(1),
        "k1 in the reward to go": (to_go * logprobs).sum(1),
    }
    left = {name: now.gradient(p @ penalty) for name, penalty in each.items()}
    exact = now.gradient(now.chances @ (logprobs - old).sum(1))
    return left | {"exact": exact, "truth": now.truth()}


def climb(policy: GPT, env: SumGame, steps: int) -> GPT:
    """A copy of the policy after steps of ascent on its exact success."""
    policy = copy.deepcopy(policy)
    optimizer = optimizer_for([policy], LEARNING_RATE, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = -success(policy, env).mean()
        loss.backward()
        clip_gradients([policy], loss, "climbing")
        optimizer.step()
    return policy


def together(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The gradients of several prompts as one vector, by name."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def staleness_rows(left: dict[str, Tensor]) -> list[dict]:
    """`surrogate`, `cosine` and `length` beside ∇J."""
    truth, rows = left.pop("truth"), []
    for name, gradient in left.items():
        cosine, length = (x.item() for x in alignment(gradient, truth))
        rows.append({"surrogate": name, "cosine": cosine, "length": length})
    return rows


def leash_rows(left: dict[str, Tensor]) -> list[dict]:
    """`kl_cosine` and `kl_length` of its own part beside ∇KL, the cosine nan where nothing is left;
    `cosine` of ∇J less that part beside ∇J − β∇KL, with β such that both pull equally."""
    truth, exact, rows = left.pop("truth"), left.pop("exact"), []
    beta = truth.norm() / exact.norm()
    for name, part in left.items():
        cosine, length = (x.item() for x in alignment(part, exact))
        both, _ = alignment(truth - beta * part, truth - beta * exact)
        cosine = cosine if length > 1e-9 else math.nan
        rows.append({"kl": name, "kl_cosine": cosine, "kl_length": length, "cosine": both.item()})
    return rows


def family(
    policies: dict[int, GPT], env: SumGame, targets: list[int], generator: torch.Generator
) -> dict[str, list]:
    """C9 for policies in float64 by pretraining step, at the prompts of some targets.

    `methods`: see methods_table. `staleness`: rows of a surrogate's mean gradient beside that of
    today's J, by `lag`, the number of exact updates since the policy that sampled. `leash`: of the
    policy after the largest lag to the one before. Each has `step`.
    """
    prompts, texts = env.prompts[targets], every_text(env)
    methods = {name: method for name, method in METHODS.items() if method.sampled}
    result = {"methods": [], "staleness": [], "leash": []}
    for step, policy in policies.items():
        each = [enumerate_prompt(policy, env, prompt, texts) for prompt in prompts]
        truth = value_gradients(policy, env, policy.blocks[0], prompts)
        rows = methods_table(methods, each, truth, GROUP_SIZE, generator)
        result["methods"] += [{"step": step} | row for row in rows]
        old = [(prompt.rewards, prompt.logprobs) for prompt in each]
        length = batch_limits(METHODS["GSPO"], each)["length"]
        del each
        for lag in LAGS:
            later, left, tied = climb(policy, env, lag), [], []
            for prompt, (rewards, logprobs) in zip(prompts, old):
                now = graph_of(later, prompt, texts, rewards)
                left.append(surrogate_gradients(now, logprobs, length))
                tied.append(leash_gradients(now, logprobs) if lag == LAGS[-1] else {})
            rows = staleness_rows(together(left))
            result["staleness"] += [{"step": step, "lag": lag} | row for row in rows]
        result["leash"] += [{"step": step} | row for row in leash_rows(together(tied))]
    return result
