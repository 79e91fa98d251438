"""The two loops: `pretrain` imitates a corpus, `improve` climbs the reward by a named method.

A method is a choice of baseline, scale, aggregation and clip, so METHODS is a table to be read line
by line. All of them share one loop, one optimiser and one schedule.

Left out on purpose: mini-batches within a rollout, an entropy bonus, adaptive KL coefficients, and
penalties on length.
"""

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .costate import alignment
from .critic import Critic, value_loss
from .env import SumGame
from .exact import prefix_values, success, value_gradients
from .grpo import group_advantages, grpo_loss, kl_penalty
from .ppo import aggregate_tokens, gae
from .rollout import (
    Rollout, World, check_prompts, completion_logits, completion_logprobs, completion_mask, sample,
    token_logprobs,
)  # fmt: skip
from .tap import tap

# Brown et al. 2020, appendix B, has the first four; OpenAI Baselines' ppo2 has the last.
BETAS = (0.9, 0.95)  # of Adam; the second moment forgets within 20 steps, since runs are short
WEIGHT_DECAY = 0.1  # of pretraining alone; RL has none
GRADIENT_CLIP = 1.0  # largest norm of a network's gradient
LEARNING_RATE_FLOOR = 0.1  # of the peak, where pretraining's cosine ends
VALUE_COEF = 0.5  # weight of the critic's loss; the critic shares no weights with the policy
UNCLIPPED = (math.inf, math.inf)


@dataclass(frozen=True)
class Method:
    """How a method turns rewards into a loss. Raises ValueError for what cannot be."""

    source: str
    baseline: str = "none"  # "leave-one-out", "mean" (of the group), "batch" (mean), "critic",
    # or "exact critic": the exact value of each state, in a world with solutions
    scale: str = "none"  # or "std", "mean": of the group; std of the batch for batch and critics
    aggregate: str = "constant"  # see ppo.aggregate_tokens
    clip: tuple[float, float] = UNCLIPPED  # of the ratio, below and above 1
    ratio: str = "token"  # or "sequence"
    surrogate: str = "clip"  # or "cispo"
    kl_coef: float = 0.0  # weight of the KL to the policy at the start of the run
    kl_place: str = "loss"  # or "reward", where it is k1
    kl_estimator: str = "k3"  # of the KL in the loss
    gae_lambda: float = 0.95  # of a critic's advantages, see ppo.gae
    redraws: int = 0  # how often prompts whose rewards are all equal are drawn anew
    epochs: int = 1  # updates per rollout, each on all of it
    sampled: bool = True  # False: the enumerated success itself is differentiated

    def __post_init__(self):
        of_group = self.baseline in ("none", "leave-one-out", "mean")
        positive = of_group and not (self.kl_place == "reward" and self.kl_coef > 0)
        allowed = {
            "baseline": ("none", "leave-one-out", "mean", "batch", "critic", "exact critic"),
            "scale": ("std", "mean", "none") if positive else ("std", "none"),  # rewards ≥ 0
            "kl_place": ("loss", "reward"),
            "kl_estimator": ("k1", "k2", "k3"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {values}, not {getattr(self, name)!r}")
        if not 0 <= self.kl_coef < math.inf:
            raise ValueError(f"kl_coef must be a finite number of at least 0, not {self.kl_coef}")
        for name, least in (("epochs", 1), ("redraws", 0)):
            count = getattr(self, name)
            if not isinstance(count, int) or count < least:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, not {count!r}"
                )


# Departures from the sources, of every preset: (1) a step is one batch, without mini-batches;
# (2) samples at temperature 1, all of them scored; (3) learning rates and lengths of this world.
METHODS = {
    "REINFORCE": Method("Williams 1992"),
    # (4) no KL in the reward.
    "RLOO": Method("Ahmadian et al. 2024", baseline="leave-one-out"),
    # (5) kl_coef .04 there; (6) one update per rollout there, which would never clip.
    "GRPO": Method(
        "Shao et al. 2024", "mean", "std", "sequence", clip=(0.2, 0.2), kl_coef=0.001, epochs=2
    ),
    # (7) the sum over tokens is divided by B·T, a constant, rather than by B.
    "Dr. GRPO": Method("Liu et al. 2025", "mean", "none", "constant", clip=(0.2, 0.2), epochs=2),
    # (8) a dead prompt is drawn anew, at most three times; there, others fill the batch;
    # (9) no penalty on length.
    "DAPO": Method(
        "Yu et al. 2025", "mean", "std", "token", clip=(0.2, 0.28), redraws=3, epochs=2
    ),
    # (10) clips at 3e-4 and 4e-4 there, over more and smaller updates.
    "GSPO": Method(
        "Zheng et al. 2025", "mean", "std", "sequence", clip=(0.2, 0.2), ratio="sequence", epochs=2
    ),
    # (11) the cap on the weight is not published there.
    "CISPO": Method(
        "MiniMax 2025", "mean", "std", "token", (math.inf, 0.2), surrogate="cispo", epochs=2
    ),
    # (12) one update per rollout there.
    "MaxRL": Method("Tajwar et al. 2026", "mean", "mean", "constant", clip=(0.2, 0.2), epochs=2),
    # (13) REINFORCE++ with its batch baseline, without the KL in its reward.
    "PPO without critic": Method("Hu 2025", "batch", "std", "token", clip=(0.2, 0.2), epochs=2),
    # (14) no entropy bonus, no clip of the values; (15) 3 to 15 epochs of mini-batches there.
    "PPO with critic": Method(
        "Schulman et al. 2017", "critic", "std", "token", clip=(0.2, 0.2), epochs=2
    ),
    # A reference: what could the best critic add? No paper's method.
    "PPO with exact critic": Method(
        "this project", "exact critic", "std", "token", clip=(0.2, 0.2), epochs=2
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

    `wrong` and `max_target` are the corpus's: a share of false sums, and the largest target. The
    learning rate is a cosine from its peak to a tenth, times a linear warm-up. After each step
    named in `checkpoints` it calls at_checkpoint(step, mean loss of the last 20 steps). Returns the
    loss of each step, in nats per live token. A loss or gradient that is not finite raises
    FloatingPointError before that step changes the policy.
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
    policy: nn.Module, env: World, method: str | Method, steps: int, generator: torch.Generator,
    group_size: int = 8, learning_rate: float = 1e-3, warmup: int = 10, evaluate_every: int = 10,
    prompts: Tensor | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Reinforce the policy in place by a method, a name of METHODS or a Method of one's own.

    A step samples each of `prompts` (Q, P), by default all, group_size times. The learning rate is
    a linear decay from its peak to zero, times a linear warm-up. A loss or gradient that is not
    finite raises FloatingPointError before that step changes the policy.

    Returns a history, from step 0 on every `evaluate_every` steps and at the end: `step`, `samples`
    so far, `seconds` of training, exact `success` (mean over `prompts`; `held_out`: over the
    world's other prompts), and the means since the entry before of `reward`, `entropy` (nats per
    completion), `ratio`, `clip_fraction`, `approx_kl`, `kl` and `value_loss`, as far as the method
    has them. With a critic also `value_error`, its root mean square distance to the exact value of
    the last rollout's states. From the second entry on, `alignment` and `prompt_alignment` of what
    this step's first backward pass left entering policy.blocks[0], beside ∇V of the weights before
    the step: see `align`. In a world without `solutions` success and alignment are nan; for a
    policy without `blocks` alignment is.
    """
    name, settings = _settings(method, env)
    _check(learning_rate, steps=steps, warmup=warmup, evaluate_every=evaluate_every)
    prompts = _prompts(policy, env, prompts)
    critic = Critic(policy) if settings.baseline == "critic" else None
    reference = copy.deepcopy(policy).requires_grad_(False) if settings.kl_coef > 0 else None
    networks = [policy] if critic is None else [policy, critic]
    optimizer = optimizer_for(networks, learning_rate, weight_decay=0.0)
    history = [{"step": 0, "samples": 0, "seconds": 0.0} | _exact_entry(policy, env, prompts)]
    rollout, samples, seconds, log = None, 0, 0.0, []
    for step in range(1, steps + 1):
        evaluated = step % evaluate_every == 0 or step == steps
        truth = _exact_gradients(policy, env, prompts) if evaluated else None
        start = time.perf_counter()
        schedule = min(1, step / max(warmup, 1)) * (1 - (step - 1) / steps)
        optimizer.param_groups[0]["lr"] = learning_rate * schedule

        if settings.sampled:
            rollout, drawn = sample_groups(
                policy, env, prompts, group_size, generator, settings.redraws
            )
            samples += drawn
            ref_logprobs = _reference_logprobs(reference, rollout)
            values = _values(settings, policy, critic, env, rollout)
            advantages, returns = method_advantages(settings, rollout, values, ref_logprobs)

        for epoch in range(settings.epochs):
            probe = tap(policy.blocks[0]) if epoch == 0 and truth is not None else nullcontext()
            with probe as inputs:
                if settings.sampled:
                    logprobs = completion_logprobs(policy, prompts, rollout.completions, group_size)
                    if epoch == 0:  # those that sampled, by the same operations: ratio exactly 1
                        old_logprobs = logprobs.detach()
                    loss, stats = method_loss(
                        settings, logprobs, old_logprobs, advantages, rollout, ref_logprobs
                    )
                else:
                    loss, stats = -success(policy, env, prompts).mean(), {}
            if critic is not None:
                stats["value_loss"] = value_loss(critic, rollout, returns)
                loss = loss + VALUE_COEF * stats["value_loss"]

            optimizer.zero_grad()
            loss.backward()
            if epoch == 0 and evaluated:  # −∂loss/∂x, just left there, beside the exact ∂V/∂x
                aligned = align(inputs, truth)
            clip_gradients(networks, loss, f"{name}, step {step}")
            optimizer.step()
            log.append({key: value.item() for key, value in stats.items()})
        seconds += time.perf_counter() - start
        if evaluated:
            entry = {"step": step, "samples": samples, "seconds": seconds} | aligned
            entry |= _exact_entry(policy, env, prompts, critic, rollout) | _means(log)
            history.append(entry)
            log = []
    return history


def sample_groups(
    policy: nn.Module, env: World, prompts: Tensor, group_size: int, generator: torch.Generator,
    redraws: int = 0,
) -> tuple[Rollout, int]:  # fmt: skip
    """A rollout, and the number of samples drawn for it.

    Prompts whose rewards are all equal, from which a group learns nothing, are drawn anew up to
    `redraws` times (DAPO's dynamic sampling); what is still equal then stays in.
    """
    if redraws and group_size < 2:
        raise ValueError(f"group_size must be at least 2 to compare rewards, not {group_size}")
    rollout = sample(policy, env, prompts, group_size, generator)
    drawn = len(rollout.rewards)
    for _ in range(redraws):
        rewards = rollout.rewards.view(-1, group_size)
        dead = rewards.amax(1) == rewards.amin(1)  # (Q,)
        if not dead.any():
            break
        again = sample(policy, env, prompts[dead], group_size, generator)
        drawn += len(again.rewards)
        rows = dead.repeat_interleave(group_size)
        for name in ("completions", "mask", "logprobs", "rewards"):
            getattr(rollout, name)[rows] = getattr(again, name)
    return rollout, drawn


def method_advantages(
    method: Method, rollout: Rollout, values: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """A method's advantages, (B,) or for a critic (B, T), and the critic's targets (B, T) or None.

    `values` (B, T) are a critic's, of the state before each token. With the KL in the reward, each
    live token costs kl_coef·log(π_old/π_ref): a critic sees it token by token, the others summed
    over the completion. Scale "std" normalises a critic's advantages over the live tokens of the
    batch, mean included, as PPO implementations do.
    """
    rewards, has_critic = rollout.rewards, method.baseline in ("critic", "exact critic")
    if method.kl_coef > 0 and method.kl_place == "reward":
        if ref_logprobs is None:
            raise ValueError("the KL in the reward needs the reference's log-probabilities")
        log_ratio = (rollout.logprobs - ref_logprobs).masked_fill(~rollout.mask, 0.0)
        at_end = F.one_hot(rollout.mask.sum(1) - 1, rollout.mask.size(1)) * rewards.unsqueeze(1)
        token_rewards = at_end - method.kl_coef * log_ratio
        rewards = token_rewards if has_critic else token_rewards.sum(1)
    if method.baseline == "batch":
        return group_advantages(rewards, len(rewards), "mean", method.scale), None
    if not has_critic:
        G = rollout.group_size
        return group_advantages(rewards, G, method.baseline, method.scale), None
    if values is None:
        raise ValueError(f"baseline {method.baseline!r} needs the values of the states")
    advantages, returns = gae(rewards, values, rollout.mask, gae_lambda=method.gae_lambda)
    if method.scale == "std":
        live = advantages[rollout.mask]
        advantages = (advantages - live.mean()) / (live.std() + 1e-8)
    return advantages, returns


def method_loss(
    method: Method, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, rollout: Rollout,
    ref_logprobs: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """A method's loss for the policy, and its statistics; shapes as in `grpo.grpo_loss`."""
    in_loss = method.kl_place == "loss"
    loss, stats = grpo_loss(
        logprobs, old_logprobs, advantages, rollout.mask, ref_logprobs,
        method.kl_coef if in_loss else 0.0, method.kl_estimator, method.clip, method.aggregate,
        method.ratio, method.surrogate,
    )  # fmt: skip
    dead = ~rollout.mask
    if ref_logprobs is not None and not in_loss:
        each = kl_penalty(*(x.masked_fill(dead, 0.0) for x in (logprobs.detach(), ref_logprobs)))
        stats["kl"] = aggregate_tokens(each, rollout.mask, "token")
    sampled = rollout.logprobs.masked_fill(dead, 0.0)
    stats |= {"reward": rollout.rewards.mean(), "entropy": -sampled.sum(1).mean()}
    return loss, stats


def align(inputs: list[Tensor] | None, truth: Tensor | None) -> dict[str, float]:
    """How far what backpropagation left on the prompts' activations points along ∇V (Q, P, D).

    `inputs` are those of a tap around the scoring; the first, (Q, ≥ P, D), holds the prompts, and
    its gradient ∂loss/∂x is what was left, to be negated. `alignment`: cosine of all prompts
    together, as one vector.
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
    """AdamW over all parameters of the networks, with BETAS."""
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


def _exact_gradients(policy: nn.Module, env: World, prompts: Tensor) -> Tensor | None:
    """The exact ∇V (Q, P, D) entering the first block, or None where it cannot be had."""
    if hasattr(env, "solutions") and hasattr(policy, "blocks"):
        return value_gradients(policy, env, policy.blocks[0], prompts)
    return None


@torch.no_grad()
def _exact_entry(
    policy: nn.Module, env: World, prompts: Tensor,
    critic: Critic | None = None, rollout: Rollout | None = None,
) -> dict[str, float]:  # fmt: skip
    """What can be counted: `success` and, where there are such, `held_out` and `value_error`."""
    countable = hasattr(env, "solutions")
    entry = {"success": math.nan}
    if countable:
        trained = (env.prompts[:, None] == prompts.cpu()).all(-1).any(1)  # (N,)
        each = success(policy, env).cpu()
        entry["success"] = each[trained].mean().item()
        if not trained.all():
            entry["held_out"] = each[~trained].mean().item()
    if critic is not None:
        entry["value_error"] = _value_error(policy, critic, env, rollout) if countable else math.nan
    return entry


@torch.no_grad()
def _reference_logprobs(reference: nn.Module | None, rollout: Rollout) -> Tensor | None:
    """Log-probabilities (B, T) of the rollout under the frozen reference, where there is one."""
    if reference is None:
        return None
    G = rollout.group_size
    return completion_logprobs(reference, rollout.prompts[::G], rollout.completions, G)


@torch.no_grad()
def _values(
    method: Method, policy: nn.Module, critic: Critic | None, env: World, rollout: Rollout
) -> Tensor | None:
    """A critic's values (B, T) of the rollout's states, learned or exact, where there is one."""
    if method.baseline == "exact critic":
        return prefix_values(policy, env, rollout.prompts, rollout.completions)
    if critic is None:
        return None
    G = rollout.group_size
    return critic(rollout.prompts[::G], rollout.completions, G)


@torch.no_grad()
def _value_error(policy: nn.Module, critic: Critic, env: SumGame, rollout: Rollout) -> float:
    """Root mean square of the critic's value less the exact one, over a rollout's live states."""
    prompts, completions = rollout.prompts, rollout.completions
    errors = critic(prompts, completions) - prefix_values(policy, env, prompts, completions)
    return aggregate_tokens(errors.square(), rollout.mask, "token").sqrt().item()


def _means(log: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each statistic over updates."""
    return {name: sum(each[name] for each in log) / len(log) for name in log[0]}


def _prompts(policy: nn.Module, env: World, prompts: Tensor | None) -> Tensor:
    prompts = env.prompts if prompts is None else prompts
    check_prompts(env, prompts)
    return prompts.to(next(policy.parameters()).device)


def _settings(method: str | Method, env: World) -> tuple[str, Method]:
    name = method.source if isinstance(method, Method) else method
    if name is method and name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {name!r}")
    settings = METHODS[name] if name is method else method
    exact = not settings.sampled or settings.baseline == "exact critic"
    if exact and not hasattr(env, "solutions"):
        raise ValueError(f"method {name!r} needs a world with solutions to count")
    return name, settings


def _check(learning_rate: float, **counts: int) -> None:
    for name, value in counts.items():
        smallest = 0 if name == "warmup" else 1
        if not isinstance(value, int) or value < smallest:
            raise ValueError(f"{name} must be a whole number of at least {smallest}, not {value!r}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a positive finite number, not {learning_rate}")
