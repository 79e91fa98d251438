"""The policy: a decoder-only transformer in one file, read from leaf to root.

Pre-norm blocks of causal attention and a two-layer perceptron write into the residual stream x; the
logits are a linear read-out of its normalised end (Vaswani et al. 2017; Radford et al. 2019). The
key/value cache carries gradients, so that a prompt can run once for a whole group of completions.

Left out on purpose: dropout (the sampled and the scored distribution must be the same), weight
tying, and fused attention (the plain form reads like the formula).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

Cache = list[tuple[Tensor, Tensor]]  # a layer's keys and values, (B, heads, tokens so far, D/heads)


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a transformer. Raises ValueError for a size below 1 or an uneven split by heads."""

    vocab_size: int
    context: int  # most tokens of one sequence that can be fed
    n_layer: int = 2
    n_head: int = 4
    d_model: int = 64

    def __post_init__(self):
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.d_model % self.n_head:
            raise ValueError(f"d_model {self.d_model} is not divisible by n_head {self.n_head}")


class CausalSelfAttention(nn.Module):
    """Each position mixes the values of the positions up to it, weighted by softmax(q·k/√d)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple]:
        """x (B, L, D) after the keys and values in `past` -> (B, L, D) and the extended pair."""
        B, L, D = x.shape
        qkv = self.qkv(x).view(B, L, 3, self.n_head, D // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, D/heads)
        if past is not None:
            k = torch.cat([past[0], k], 2)
            v = torch.cat([past[1], v], 2)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (B, heads, L, all)
        if L > 1:  # a query sees all of the cache, itself, and nothing after
            before = k.size(2) - L
            hidden = torch.ones(L, k.size(2), dtype=torch.bool, device=x.device).triu(before + 1)
            scores = scores.masked_fill(hidden, -math.inf)
        # A CPU is ten times faster at softmax over the first dimension than over a short last one.
        scores = scores.movedim(-1, 0)
        weights = scores.softmax(0).movedim(0, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(B, L, D)), (k, v)


class Block(nn.Module):
    """Attention, then a perceptron; each reads the normalised stream and adds to it."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model)
        self.attention = CausalSelfAttention(config)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.up = nn.Linear(config.d_model, 4 * config.d_model, bias=False)
        self.down = nn.Linear(4 * config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple]:
        """x (B, L, D) -> (B, L, D) and the layer's extended keys and values."""
        attended, past = self.attention(self.norm1(x), past)
        x = x + attended
        return x + self.down(F.gelu(self.up(self.norm2(x)))), past


class GPT(nn.Module):
    """The transformer. Weights are drawn from `generator`, by default a new one with seed 0."""

    def __init__(self, config: GPTConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):  # nn.Linear fills itself from the global generator
            self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
            self.position_embedding = nn.Embedding(config.context, config.d_model)
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
            self.norm = nn.LayerNorm(config.d_model)
            self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        generator = generator or torch.Generator().manual_seed(0)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                writes = name.endswith(("out.weight", "down.weight"))  # 2·n_layer writers add up
                std = 0.02 / math.sqrt(2 * config.n_layer) if writes else 0.02
                nn.init.normal_(weight, std=std, generator=generator)

    @classmethod
    def for_world(
        cls, env, n_layer: int = 2, n_head: int = 4, d_model: int = 64,
        generator: torch.Generator | None = None,
    ) -> "GPT":  # fmt: skip
        """A policy for a world: its vocabulary, and a context for its prompt and completion."""
        context = env.prompt_length + env.completion_length - 1  # the last token is never fed
        return cls(GPTConfig(len(env.vocab), context, n_layer, n_head, d_model), generator)

    @property
    def stream(self) -> list[nn.Module]:
        """The modules that read the residual stream, in order: each block, then the final norm."""
        return [*self.blocks, self.norm]

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits (B, L, V) of the token after each of `tokens`, and the cache that includes them.

        tokens (B, L) continue the sequences in `cache`. Raises ValueError when the sequence
        outgrows the context.
        """
        if tokens.dim() != 2 or tokens.size(1) < 1:
            raise ValueError(f"tokens must be (B, L) with L at least 1, not {tuple(tokens.shape)}")
        before = cache[0][0].size(2) if cache else 0
        L = tokens.size(1)
        if before + L > self.config.context:
            raise ValueError(f"{before + L} tokens do not fit a context of {self.config.context}")
        positions = torch.arange(before, before + L, device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)  # (B, L, D)
        new_cache = []
        for layer, block in enumerate(self.blocks):
            x, past = block(x, cache[layer] if cache else None)
            new_cache.append(past)
        return self.head(self.norm(x)), new_cache
