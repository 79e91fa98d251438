"""The two loops: `pretrain` imitates a corpus, `improve` climbs the reward by a named method.

A method is a choice of baseline, scale, aggregation and clip, so METHODS is a table to be read line
by line. All of them share one loop, one optimiser and one schedule.

Left out on purpose: mini-batches within a rollout, an entropy bonus, adaptive KL coefficients, and
drawing groups without signal anew.
"""

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from .costate import alignment
from .critic import Critic
from .env import SumGame
from .exact import prefix_values, success, value_gradients
from .grpo import group_advantages, grpo_loss
from .ppo import aggregate_tokens, gae
from .rollout import (
    Rollout, World, completion_logits, completion_logprobs, completion_mask, sample, token_logprobs
)  # fmt: skip
from .tap import tap

BETAS = (0.9, 0.95)  # Adam's; GPT-3's second one forgets in 20 steps (Brown et al. 2020, app. B)
WEIGHT_DECAY = 0.1  # of pretraining alone (the same)
GRADIENT_CLIP = 1.0  # largest norm of a network's gradient (the same)
LEARNING_RATE_FLOOR = 0.1  # of the peak, where pretraining's cosine ends (the same)
VALUE_COEF = 0.5  # weight of the critic's loss; its network is its own (Huang et al. 2022, no. 9)
UNCLIPPED = (math.inf, math.inf)


@dataclass(frozen=True)
class Method:
    """How a method turns rewards into a loss."""

    source: str
    baseline: str = "none"  # or "leave-one-out", "mean" (of the group), "batch" (mean), "critic"
    scale: str = "none"  # or "std": divide by that of the group, of the batch for the last two
    aggregate: str = "constant"  # see ppo.aggregate_tokens
    clip: tuple[float, float] = UNCLIPPED  # of the ratio, below and above 1
    kl_coef: float = 0.0  # weight of k3 to the policy at the start of the run
    epochs: int = 1  # updates per rollout, each on all of it
    sampled: bool = True  # False: the enumerated success itself is differentiated


# Departures from the sources, of every preset: (1) a step is one batch, without mini-batches;
# (2) samples at temperature 1, all of them scored; (3) learning rates and lengths of this world.
METHODS = {
    "REINFORCE": Method("Williams 1992"),
    "RLOO": Method("Ahmadian et al. 2024", baseline="leave-one-out"),
    # (4) kl_coef .04 there; (5) one update per rollout there, which would never clip.
    "GRPO": Method(
        "Shao et al. 2024", "mean", "std", "sequence", clip=(0.2, 0.2), kl_coef=0.001, epochs=2
    ),
    # (6) divided by B·T rather than by the number of completions: a factor, which Adam undoes.
    "Dr. GRPO": Method("Liu et al. 2025", "mean", "none", "constant", clip=(0.2, 0.2), epochs=2),
    # (7) REINFORCE++ with its batch baseline, without the KL in its reward.
    "PPO without critic": Method("Hu 2025", "batch", "std", "token", clip=(0.2, 0.2), epochs=2),
    # (8) no entropy bonus, no clip of the values; (9) 3 to 15 epochs of mini-batches there.
    "PPO with critic": Method(
        "Schulman et al. 2017", "critic", "std", "token", clip=(0.2, 0.2), epochs=2
    ),
    "oracle": Method("ascent on the exact gradient", sampled=False),
}


def pretrain(
    policy: nn.Module, env: SumGame, steps: int, generator: torch.Generator,
    batch_size: int = 128, learning_rate: float = 3e-3, warmup: int = 50,
    wrong: float = 0.0, max_target: int | None = None, checkpoints: tuple[int, ...] = (),
    at_checkpoint: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:  # fmt: skip
    """Imitate `env.corpus` in place: maximum likelihood of the completions' live tokens.

    The learning rate warms up linearly, then follows a cosine to a tenth. Returns the loss of each
    step, in nats per live token. After each step named in `checkpoints` it calls
    at_checkpoint(step, mean loss of the last 20 steps).
    """
    _check(learning_rate, steps=steps, batch_size=batch_size, warmup=warmup)
    device = next(policy.parameters()).device
    optimizer = optimizer_for([policy], learning_rate, WEIGHT_DECAY)
    losses: list[float] = []
    for step in range(1, steps + 1):
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))  # from 1 to 0
        decay = LEARNING_RATE_FLOOR + (1 - LEARNING_RATE_FLOOR) * cosine
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, step / max(warmup, 1)) * decay

        prompts, completions = env.corpus(batch_size, generator, wrong, max_target)
        prompts, completions = prompts.to(device), completions.to(device)
        prompts, rows = prompts.unique(dim=0, return_inverse=True)  # each runs once
        logits = completion_logits(policy, prompts, completions, rows)
        mask = completion_mask(completions, env.eos)
        loss = -aggregate_tokens(token_logprobs(logits, completions), mask, "token")

        optimizer.zero_grad()
        loss.backward()
        clip_gradients([policy], loss, f"pretraining, step {step}")
        optimizer.step()

        losses.append(loss.item())
        if step in checkpoints:
            at_checkpoint(step, sum(losses[-20:]) / len(losses[-20:]))
    return losses


def improve(
    policy: nn.Module, env: World, method: str, steps: int, generator: torch.Generator,
    group_size: int = 8, learning_rate: float = 1e-3, warmup: int = 10, evaluate_every: int = 10,
    prompts: Tensor | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Reinforce the policy in place by one of METHODS; a step samples each prompt group_size times.

    `prompts` (Q, P) are those to train on, by default all of the world's. The learning rate warms
    up linearly and decays linearly to zero. A loss or gradient that is not finite raises
    FloatingPointError and leaves the policy as it was.

    Returns a history, from step 0 on every `evaluate_every` steps and at the end: `step`, `samples`
    so far, `seconds` of training, exact `success` (mean over `prompts`; `held_out`: over the
    world's other prompts), and the means since the entry before of `reward`, `entropy` (nats per
    completion), `ratio`, `clip_fraction`, `approx_kl`, `kl` and `value_loss`, as far as the method
    has them. With a critic also `value_error`, its root mean square distance to the exact value of
    the last rollout's states. From the second entry on, `alignment` and `prompt_alignment` of what
    this step's first backward pass left entering policy.blocks[0]: see `align`. In a world without
    `solutions` success and alignment are nan; for a policy without `blocks` alignment is.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    _check(learning_rate, steps=steps, warmup=warmup, evaluate_every=evaluate_every)
    settings = METHODS[method]
    prompts = (env.prompts if prompts is None else prompts).to(next(policy.parameters()).device)
    critic = Critic(policy) if settings.baseline == "critic" else None
    reference = copy.deepcopy(policy).requires_grad_(False) if settings.kl_coef > 0 else None
    networks = [policy] if critic is None else [policy, critic]
    optimizer = optimizer_for(networks, learning_rate, weight_decay=0.0)
    history = [{"step": 0, "samples": 0, "seconds": 0.0} | _success(policy, env, prompts)]
    values, ref_logprobs, samples, seconds, log = None, None, 0, 0.0, []
    for step in range(1, steps + 1):
        evaluated = step % evaluate_every == 0 or step == steps
        truth = _truth(policy, env, prompts) if evaluated else None
        start = time.perf_counter()
        decay = 1 - (step - 1) / steps
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, step / max(warmup, 1)) * decay

        if settings.sampled:
            rollout = sample(policy, env, prompts, group_size, generator)
            completions, mask = rollout.completions, rollout.mask
            samples += len(completions)
            with torch.no_grad():
                if critic is not None:
                    values = critic(prompts, completions, group_size)
                if reference is not None:
                    ref_logprobs = completion_logprobs(reference, prompts, completions, group_size)
            advantages, returns = method_advantages(settings, rollout, values)
            sampled = _rollout_stats(rollout)

        for epoch in range(settings.epochs):
            with nullcontext() if truth is None else tap(policy.blocks[0]) as inputs:
                if settings.sampled:
                    logprobs = completion_logprobs(policy, prompts, completions, group_size)
                    if epoch == 0:
                        old_logprobs = logprobs.detach()  # so that the first ratio is exactly 1
                    loss, stats = grpo_loss(
                        logprobs, old_logprobs, advantages, mask, ref_logprobs, settings.kl_coef,
                        clip=settings.clip, aggregate=settings.aggregate,
                    )  # fmt: skip
                else:
                    loss, stats, sampled = -success(policy, env, prompts).mean(), {}, {}
            if critic is not None:
                errors = (critic(prompts, completions, group_size) - returns).square()
                stats["value_loss"] = aggregate_tokens(errors, mask, "token")
                loss = loss + VALUE_COEF * stats["value_loss"]

            optimizer.zero_grad()
            loss.backward()
            if epoch == 0 and evaluated:  # what it left, −∂loss/∂x, beside ∂V/∂x, same weights
                aligned = align(inputs, truth)
            clip_gradients(networks, loss, f"{method}, step {step}")
            optimizer.step()
            log.append({name: value.item() for name, value in (stats | sampled).items()})

        seconds += time.perf_counter() - start
        if evaluated:
            entry = {"step": step, "samples": samples, "seconds": seconds}
            entry |= _success(policy, env, prompts) | aligned
            entry |= {name: sum(each[name] for each in log) / len(log) for name in log[0]}
            if critic is not None:
                entry["value_error"] = _value_error(policy, critic, env, rollout)
            history.append(entry)
            log = []
    return history


def method_advantages(
    method: Method, rollout: Rollout, values: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """A method's advantages, (B,) or for a critic (B, T), and the critic's targets (B, T) or None.

    `values` (B, T) are the critic's, before the update. Its advantages are normalised over the live
    tokens of the batch, as PPO implementations do.
    """
    if method.baseline != "critic":
        batch = method.baseline == "batch"
        group_size = len(rollout.rewards) if batch else rollout.group_size
        baseline = "mean" if batch else method.baseline
        return group_advantages(rollout.rewards, group_size, baseline, method.scale), None
    estimates, returns = gae(rollout.rewards, values, rollout.mask)
    live = estimates[rollout.mask]
    return (estimates - live.mean()) / (live.std() + 1e-8), returns


def align(inputs: list[Tensor] | None, truth: Tensor | None) -> dict[str, float]:
    """How far what backpropagation left on the prompts' activations points along ∇V (Q, P, D).

    `inputs` are those of a tap around the scoring; the first, (Q, ≥ P, D), holds the prompts, and
    −∂loss/∂x as its gradient. `alignment`: cosine of all prompts together, as one vector.
    `prompt_alignment`: mean of the cosines of single prompts, of those with a gradient and
    ‖∇V‖ > 1e-12. Both are nan where there is none, or no truth. A KL term counts: it is all that a
    group of equal rewards leaves, and it pulls back to the reference.
    """
    if truth is None:
        return {"alignment": math.nan, "prompt_alignment": math.nan}
    left = -inputs[0].grad[:, : truth.size(1)]
    cosines, _ = alignment(left.flatten(1), truth.flatten(1))
    live = left.flatten(1).any(1) & (truth.flatten(1).norm(dim=1) > 1e-12)
    together, _ = alignment(left.flatten(), truth.flatten())
    return {
        "alignment": together.item() if live.any() else math.nan,
        "prompt_alignment": cosines[live].mean().item(),  # nan for none
    }


def optimizer_for(
    networks: list[nn.Module], learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over all parameters; second moments forget within 20 steps, since runs are short."""
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return torch.optim.AdamW(
        parameters, learning_rate, betas=BETAS, weight_decay=weight_decay, fused=True
    )


def clip_gradients(networks: list[nn.Module], loss: Tensor, where: str) -> None:
    """Clip each network's gradient to norm GRADIENT_CLIP; FloatingPointError if not finite."""
    for network in networks:
        norm = nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP)
        for quantity, value in (("loss", loss), ("gradient norm", norm)):
            if not value.isfinite():
                raise FloatingPointError(f"{where}: the {quantity} is {value.item()}")


def _truth(policy: nn.Module, env: World, prompts: Tensor) -> Tensor | None:
    """The exact ∇V (Q, P, D) entering the first block, or None where it cannot be had."""
    if hasattr(env, "solutions") and hasattr(policy, "blocks"):
        return value_gradients(policy, env, policy.blocks[0], prompts)
    return None


@torch.no_grad()
def _success(policy: nn.Module, env: World, prompts: Tensor) -> dict[str, float]:
    """Exact `success` of the prompts, and `held_out`, that of the world's others, if any."""
    if not hasattr(env, "solutions"):
        return {"success": math.nan}
    trained = (env.prompts[:, None] == prompts.cpu()).all(-1).any(1)  # (N,)
    each = success(policy, env).cpu()
    found = {"success": each[trained].mean().item()}
    return found if trained.all() else found | {"held_out": each[~trained].mean().item()}


def _rollout_stats(rollout: Rollout) -> dict[str, Tensor]:
    """Mean reward, and an estimate of the entropy in nats per completion."""
    logprobs = rollout.logprobs.masked_fill(~rollout.mask, 0.0)
    return {"reward": rollout.rewards.mean(), "entropy": -logprobs.sum(1).mean()}


@torch.no_grad()
def _value_error(policy: nn.Module, critic: Critic, env: World, rollout: Rollout) -> float:
    """Root mean square of the critic's value less the exact one, over a rollout's live states."""
    if not hasattr(env, "solutions"):
        return math.nan
    prompts, completions = rollout.prompts, rollout.completions
    errors = critic(prompts, completions) - prefix_values(policy, env, prompts, completions)
    return aggregate_tokens(errors.square(), rollout.mask, "token").sqrt().item()


def _check(learning_rate: float, **counts: int) -> None:
    for name, value in counts.items():
        smallest = 0 if name == "warmup" else 1
        if not isinstance(value, int) or value < smallest:
            raise ValueError(f"{name} must be a whole number of at least {smallest}, not {value!r}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a positive finite number, not {learning_rate}")
