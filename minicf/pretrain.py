"""Pretraining: imitate a corpus by maximum likelihood, and keep checkpoints along the way.

The optimiser's constants are GPT-3's (Brown et al. 2020, appendix B); the second moment of Adam
forgets within 20 steps, since runs here are short. The learning rate is a cosine from its peak to a
tenth of it, times a linear warm-up.

Left out on purpose: epochs over a fixed data set (the corpus is drawn anew at every step) and a
validation split (success is counted exactly).
"""

import math
from collections.abc import Callable

import torch
import torch.nn as nn

from .env import World, check_world
from .ppo import aggregate_tokens
from .rollout import completion_logits, completion_mask, token_logprobs

BETAS = (0.9, 0.95)  # of Adam
WEIGHT_DECAY = 0.1
GRADIENT_CLIP = 1.0  # the largest norm of the gradient
FLOOR = 0.1  # of the peak learning rate, where the cosine ends


def pretrain(
    policy: nn.Module,
    env: World,
    steps: int,
    generator: torch.Generator,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    warmup: int = 50,
    wrong: float = 0.0,
    max_target: int | None = None,
    checkpoints: tuple[int, ...] = (),
    at_checkpoint: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Train the policy in place on `env.corpus`; returns the loss of each step, in nats a token.

    `wrong` and `max_target` are the corpus's: a share of false sums, and the largest target. After
    each step named in `checkpoints`, at_checkpoint(step, mean loss of the last 20 steps) is called.
    A loss or gradient that is not finite raises FloatingPointError before it changes the policy.
    """
    check_world(env, "corpus")
    device = next(policy.parameters()).device
    optimizer = torch.optim.AdamW(
        policy.parameters(), learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    losses: list[float] = []
    for step in range(1, steps + 1):
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))  # from 1 to 0
        decay = FLOOR + (1 - FLOOR) * cosine
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, step / max(warmup, 1)) * decay

        prompts, completions = env.corpus(batch_size, generator, wrong, max_target)
        prompts = prompts.to(device)
        completions = completions.to(device)
        prompts, rows = prompts.unique(dim=0, return_inverse=True)  # each runs once
        logits = completion_logits(policy, prompts, completions, rows)
        mask = completion_mask(completions, env.eos)
        loss = -aggregate_tokens(token_logprobs(logits, completions), mask, "token")

        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(policy.parameters(), GRADIENT_CLIP)
        check_finite(f"pretraining, step {step}", loss, norm)
        optimizer.step()

        losses.append(loss.item())
        if step in checkpoints:
            recent = losses[-20:]
            at_checkpoint(step, sum(recent) / len(recent))
    return losses


def check_finite(where: str, loss: torch.Tensor, norm: torch.Tensor) -> None:
    """Raise FloatingPointError for a loss or gradient norm that is not finite."""
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if not value.isfinite():
            raise FloatingPointError(f"{where}: the {name} is {value.item()}")
