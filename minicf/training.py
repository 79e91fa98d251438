"""The two loops: `pretrain` imitates a corpus, `improve` climbs the reward by a named method.

A method is a choice of baseline, scale, aggregation and clip, so METHODS is a table to be read line
by line. All of them share one loop, one optimiser and one schedule; the learning rate warms up
linearly and then decays linearly to zero (`pretrain`: along a cosine to a tenth).

Left out on purpose: an entropy bonus, adaptive KL coefficients, resampling groups without signal.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from .env import SumGame
from .exact import prefix_values, success
from .gpt import GPT
from .grpo import group_advantages, grpo_loss
from .ppo import Critic, aggregate_tokens, gae
from .rollout import (
    Rollout, completion_logits, completion_logprobs, completion_mask, sample, token_logprobs
)  # fmt: skip

UNCLIPPED = (math.inf, math.inf)


@dataclass(frozen=True)
class Method:
    """How a method turns rewards into a loss.

    baseline: "none", "leave-one-out" or "mean" (of the prompt's group), "batch" (mean of all
    samples), "critic" (GAE), or "exact": no samples, the enumerated success itself is
    differentiated.
    """

    source: str
    baseline: str
    scale: str = "none"
    aggregate: str = "constant"
    clip: tuple[float, float] = UNCLIPPED
    kl_coef: float = 0.0
    epochs: int = 1  # updates per rollout


METHODS = {
    "REINFORCE": Method("Williams 1992", baseline="none"),
    "RLOO": Method("Ahmadian et al. 2024", baseline="leave-one-out"),
    "GRPO": Method(
        "Shao et al. 2024", "mean", "std", "sequence", clip=(0.2, 0.2), kl_coef=0.001, epochs=2
    ),
    "Dr. GRPO": Method("Liu et al. 2025", "mean", "none", "constant", clip=(0.2, 0.2), epochs=2),
    "PPO without critic": Method("Hu 2025", "batch", "std", "token", clip=(0.2, 0.2), epochs=2),
    "PPO with critic": Method(
        "Schulman et al. 2017", "critic", "std", "token", clip=(0.2, 0.2), epochs=2
    ),
    "oracle": Method("exact gradient", baseline="exact"),
}


def optimizer_for(
    networks: list[nn.Module], learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over all parameters; second moments forget within 20 steps, since runs are short."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return torch.optim.AdamW(
        parameters, learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True
    )


def pretrain(
    policy: GPT, env: SumGame, steps: int, generator: torch.Generator,
    batch_size: int = 128, learning_rate: float = 3e-3, warmup: int = 50,
    wrong: float = 0.0, max_target: int | None = None, checkpoints: tuple[int, ...] = (),
    at_checkpoint: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:  # fmt: skip
    """Imitate `env.corpus` in place: maximum likelihood of the completions' live tokens.

    Returns the loss of each step, in nats per live token. After each step named in `checkpoints` it
    calls at_checkpoint(step, mean loss of the last 20 steps).
    """
    _check(learning_rate, steps=steps, batch_size=batch_size, warmup=warmup)
    device = next(policy.parameters()).device
    optimizer = optimizer_for([policy], learning_rate, weight_decay=0.1)
    losses: list[float] = []
    for step in range(1, steps + 1):
        progress = step / steps
        cosine = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, step / max(warmup, 1)) * cosine
        prompts, completions = env.corpus(batch_size, generator, wrong, max_target)
        prompts, completions = prompts.to(device), completions.to(device)
        prompts, rows = prompts.unique(dim=0, return_inverse=True)  # each runs once
        logits = completion_logits(policy, prompts, completions, rows)
        mask = completion_mask(completions, env.eos)
        loss = -aggregate_tokens(token_logprobs(logits, completions), mask, "token")
        _descend(optimizer, loss, [policy], f"pretraining, step {step}")
        losses.append(loss.item())
        if step in checkpoints:
            at_checkpoint(step, sum(losses[-20:]) / len(losses[-20:]))
    return losses


def improve(
    policy: GPT, env: SumGame, method: str, steps: int, generator: torch.Generator,
    group_size: int = 8, learning_rate: float = 1e-3, warmup: int = 10, evaluate_every: int = 10,
) -> list[dict[str, float]]:  # fmt: skip
    """Reinforce the policy in place by one of METHODS; a step samples each prompt group_size times.

    Returns a history, from step 0 on every `evaluate_every` steps and at the end: `step`, `samples`
    so far, exact `success` (mean over prompts), `seconds` of training, and the means since the
    entry before of `reward`, `entropy` (nats per completion), `ratio`, `clip_fraction`,
    `approx_kl`, `kl` and `value_loss`, as far as the method has them. With a critic also
    `value_error`, its root mean square distance to the exact value of the last rollout's states.
    A loss or gradient that is not finite raises FloatingPointError and leaves the policy as it was.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    _check(learning_rate, steps=steps, warmup=warmup, evaluate_every=evaluate_every)
    settings = METHODS[method]
    critic = Critic(policy) if settings.baseline == "critic" else None
    reference = copy.deepcopy(policy).requires_grad_(False) if settings.kl_coef > 0 else None
    networks = [policy] if critic is None else [policy, critic]
    optimizer = optimizer_for(networks, learning_rate, weight_decay=0.0)
    history, stats, seconds, samples = [_entry(policy, env, 0, 0, 0.0, [])], [], 0.0, 0
    for step in range(1, steps + 1):
        start = time.perf_counter()
        schedule = min(1, step / max(warmup, 1)) * (1 - (step - 1) / steps)
        optimizer.param_groups[0]["lr"] = learning_rate * schedule
        where = f"{method}, step {step}"
        if settings.baseline == "exact":
            _descend(optimizer, -success(policy, env).mean(), networks, where)
        else:
            rollout = sample(policy, env, env.prompts, group_size, generator)
            stats += _update(settings, optimizer, rollout, policy, critic, reference, where)
            samples += len(rollout.rewards)
        seconds += time.perf_counter() - start
        if step % evaluate_every == 0 or step == steps:
            history.append(_entry(policy, env, step, samples, seconds, stats))
            if critic is not None:
                history[-1]["value_error"] = _value_error(policy, critic, env, rollout)
            stats = []
    return history


def advantages(
    settings: Method, rollout: Rollout, values: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """A method's advantages, (B,) or for a critic (B, T), and the critic's targets (B, T) or None.

    `values` (B, T) are the critic's, before the update. Its advantages are normalised over the live
    tokens of the batch, as PPO implementations do.
    """
    if settings.baseline != "critic":
        batch = settings.baseline == "batch"
        group_size = len(rollout.rewards) if batch else rollout.group_size
        baseline = "mean" if batch else settings.baseline
        return group_advantages(rollout.rewards, group_size, baseline, settings.scale), None
    estimates, returns = gae(rollout.rewards, values, rollout.mask)
    live = estimates[rollout.mask]
    return (estimates - live.mean()) / (live.std() + 1e-8), returns


def _update(
    settings: Method, optimizer: torch.optim.Optimizer, rollout: Rollout,
    policy: GPT, critic: Critic | None, reference: GPT | None, where: str,
) -> list[dict[str, float]]:  # fmt: skip
    """One rollout's updates, `settings.epochs` of them on the whole batch; stats of each."""
    G, completions, mask = rollout.group_size, rollout.completions, rollout.mask
    prompts, values, ref_logprobs = rollout.prompts[::G], None, None
    with torch.no_grad():
        if critic is not None:
            values = critic(prompts, completions, G)
        if reference is not None:
            ref_logprobs = completion_logprobs(reference, prompts, completions, G)
    scores, returns = advantages(settings, rollout, values)
    sampled = {
        "reward": rollout.rewards.mean(),
        "entropy": -rollout.logprobs.masked_fill(~mask, 0.0).sum(1).mean(),
    }
    history = []
    for epoch in range(settings.epochs):
        logprobs = completion_logprobs(policy, prompts, completions, G)
        # The policy that sampled, by the operations of later epochs: ratio exactly 1.
        if epoch == 0:
            old_logprobs = logprobs.detach()
        loss, stats = grpo_loss(
            logprobs,
            old_logprobs,
            scores,
            mask,
            ref_logprobs,
            settings.kl_coef,
            clip=settings.clip,
            aggregate=settings.aggregate,
        )
        if critic is not None:
            errors = (critic(prompts, completions, G) - returns).square()
            stats["value_loss"] = aggregate_tokens(errors, mask, "token")
            loss = loss + 0.5 * stats["value_loss"]
        _descend(optimizer, loss, [policy] if critic is None else [policy, critic], where)
        history.append({name: value.item() for name, value in (stats | sampled).items()})
    return history


def _descend(
    optimizer: torch.optim.Optimizer, loss: Tensor, networks: list[nn.Module], where: str
) -> None:
    """One optimiser step, each network's gradient clipped to norm 1. Raises FloatingPointError."""
    optimizer.zero_grad()
    loss.backward()
    for network in networks:
        norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for quantity, value in (("loss", loss), ("gradient norm", norm)):
            if not value.isfinite():
                raise FloatingPointError(f"{where}: the {quantity} is {value.item()}")
    optimizer.step()


@torch.no_grad()
def _value_error(policy: GPT, critic: Critic, env: SumGame, rollout: Rollout) -> float:
    """Root mean square of the critic's value less the exact one, over a rollout's live states."""
    prompts, completions = rollout.prompts, rollout.completions
    errors = critic(prompts, completions) - prefix_values(policy, env, prompts, completions)
    return aggregate_tokens(errors.square(), rollout.mask, "token").sqrt().item()


@torch.no_grad()
def _entry(
    policy: GPT, env: SumGame, step: int, samples: int, seconds: float, stats: list[dict]
) -> dict[str, float]:
    """One line of the history: exact success now, and the means of the stats since the last one."""
    entry = {"step": step, "samples": samples, "seconds": seconds}
    entry["success"] = success(policy, env).mean().item()
    for name in stats[0] if stats else ():
        entry[name] = sum(each[name] for each in stats) / len(stats)
    return entry


def _check(learning_rate: float, **counts: int) -> None:
    for name, value in counts.items():
        smallest = 0 if name == "warmup" else 1
        if not isinstance(value, int) or value < smallest:
            raise ValueError(f"{name} must be a whole number of at least {smallest}, not {value!r}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a positive finite number, not {learning_rate}")
