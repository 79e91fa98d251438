"""The audit: claims about costates (C1 to C5) measured on trained checkpoints beside exact answers.

Every number is a plain float, in float64 and by enumeration, unless it is called a sample. The
world has two terms, so that all 22,621 completions of a prompt can be summed. `train.py` puts the
results beside thresholds; the lessons and figures read them.
"""

import copy
import itertools
from dataclasses import replace

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..bounds import (
    RELAXATIONS, error_bound, martingale_terms, next_token_jacobians, own_logit_bias,
    relaxed_costates,
)  # fmt: skip
from ..control import CosineTrack
from ..costate import alignment, attention_share, empirical_costates, own_logit_costates
from ..env import SumGame
from ..exact import entropy, outcomes, success, value_gradient, value_gradients
from ..gpt import GPT
from ..grpo import group_advantages
from ..ppo import clipped_surrogate
from ..rollout import Rollout, completion_logprobs, sample
from ..tap import tap
from .family import expected_advantages

GROUP_SIZE = 4
TINY = 1e-6  # of ‖∇V‖
STATES = ((9, "4"), (9, "4+"), (9, "4+5"), (12, "5+"))  # target and prefix


def relative_error(estimate: Tensor, truth: Tensor) -> float:
    """‖estimate − truth‖ / ‖truth‖, the latter at least TINY, where rounding is all there is."""
    return ((estimate - truth).norm() / truth.norm().clamp(min=TINY)).item()


def action_values(pi: Tensor, tokens: Tensor, rewards: Tensor) -> Tensor:
    """Q (V,) of the policy pi (V,) from the next tokens (M,) and their weighted rewards (M,)."""
    return torch.zeros_like(pi).index_add(0, tokens, rewards) / pi


def identities(
    policy: GPT, env: SumGame, prompt: Tensor, prefix: Tensor, at: nn.Module
) -> dict[str, float]:
    """Each exact claim on one state, as a deviation that should be 0 or a ratio that should be ≥ 1.

    Deviations: `unbiased` (C2), `own_mean`, `leave_one_out`, `std_turn` (C3), `product_rule` (C4),
    `martingale`, `gap` (C5). Ratios: `collision`, `entropy` to the exact error, `attention_bound`
    of C5b to the bias. Besides: `attention_share`, `error` E‖λ̂ − ∇V‖².
    """
    here, (rollout, p) = len(prompt) + len(prefix) - 1, outcomes(policy, env, prompt, prefix)
    rewards, truth = rollout.rewards.to(p), value_gradient(policy, env, prompt, prefix, at)
    scores = empirical_costates(policy, rollout, torch.ones_like(rewards), at)[:, here]
    own = p @ own_logit_costates(policy, rollout, rewards, at)[:, here]
    whole = p * rewards @ scores
    costates = (rewards - 0.5)[:, None] * scores
    steps = martingale_terms(rollout, p, costates, len(prefix)).sum().item()
    error = (p @ (costates - truth).square().sum(1)).item()
    bound = error_bound(policy, env, prompt, at, prefix)

    def grouped(baseline: str, scale: str) -> Tensor:
        wrong, right = expected_advantages((p @ rewards).item(), GROUP_SIZE, baseline, scale)
        return p * (wrong + (right - wrong) * rewards) @ scores

    depth = torch.tensor([len(prefix)])
    state = F.pad(prefix, (0, env.completion_length - len(prefix)), value=env.eos)[None]
    (logits,), (jacobian,), _ = next_token_jacobians(policy, prompt, state, depth, at)
    pi, nxt = logits.softmax(0), rollout.completions[:, len(prefix)]
    bias, bounds = own_logit_bias(action_values(pi, nxt, p * rewards), pi, jacobian[:, here])
    return {
        "unbiased": relative_error(p @ costates, truth),
        "own_mean": relative_error(grouped("mean", "none"), (1 - 1 / GROUP_SIZE) * truth),
        "leave_one_out": relative_error(grouped("leave-one-out", "none"), truth),
        "std_turn": (
            1 - alignment(grouped("mean", "std"), truth)[0].item() if truth.norm() > TINY else 0.0
        ),
        "product_rule": relative_error(own, -bias),
        "martingale": abs(steps / error - 1),
        "gap": abs(bound["gap"] / error - 1),
        "collision": bound["collision"] / error,
        "entropy": bound["entropy"] / error,
        "attention_bound": bounds["cauchy"] / bias.norm().item(),
        "attention_share": attention_share(whole - own, truth).item(),
        "error": error,
    }


def backward_pass(policy: GPT, env: SumGame, generator: torch.Generator) -> dict[str, float]:
    """C8: what loss.backward() leaves on the prompts beside the group's costates λ̂, by aggregate.

    Relative errors of −∂loss/∂x against Σ_g λ̂/(B·T) for "constant", Σ_g λ̂/Σ|y| for "token" and
    Σ_g λ̂/(B·|y|) for "sequence"; ratio 1, no KL. `oracle`: 1 − cosine of what the enumerated
    success leaves to ∇V.
    """
    at, prompts, P = policy.blocks[0], env.prompts, env.prompt_length
    rollout = sample(policy, env, prompts, GROUP_SIZE, generator)
    advantages = group_advantages(rollout.rewards, GROUP_SIZE)
    costates = empirical_costates(policy, rollout, advantages, at)[:, :P]  # (B, P, D)
    lengths = rollout.mask.sum(1).to(costates)  # |y|, (B,)
    B, T = rollout.mask.shape
    factors = {
        "constant": torch.full_like(lengths, 1 / (B * T)),
        "token": torch.full_like(lengths, 1 / lengths.sum().item()),
        "sequence": 1 / (B * lengths),
    }
    errors = {}
    for aggregate, factor in factors.items():
        with tap(at, calls=2) as inputs:
            logprobs = completion_logprobs(policy, prompts, rollout.completions, GROUP_SIZE)
        loss, _ = clipped_surrogate(
            logprobs, logprobs.detach(), advantages, rollout.mask, aggregate=aggregate
        )
        (gradient,) = torch.autograd.grad(-loss, inputs[0])  # (Q, P, D)
        expected = (factor[:, None, None] * costates).unflatten(0, (-1, GROUP_SIZE)).sum(1)
        errors[aggregate] = relative_error(gradient, expected)
    with tap(at, calls=2) as inputs:
        loss = -success(policy, env, prompts).mean()
    (gradient,) = torch.autograd.grad(-loss, inputs[0])
    truth = value_gradients(policy, env, at, prompts)
    return errors | {"oracle": 1 - alignment(gradient.flatten(), truth.flatten())[0].item()}


def sample_curve(
    policy: GPT, env: SumGame, prompt: Tensor, at: nn.Module, generator: torch.Generator
) -> list[dict[str, float]]:
    """Samples: cosine and relative error of a mean of n costates at the prompt's end.

    Each is a root mean square (the cosine a mean) over 4,096 / n means, n = 1, 4, … 1024; b = ½.
    `expected` is the exact relative error, √(E‖λ̂ − ∇V‖² / n) / ‖∇V‖.
    """
    truth = value_gradient(policy, env, prompt, prompt[:0], at)
    exact = error_bound(policy, env, prompt, at)["gap"]
    rollout = sample(policy, env, prompt[None], 2**12, generator)
    costates = empirical_costates(policy, rollout, rollout.rewards - 0.5, at)[:, len(prompt) - 1]
    rows = []
    for n in (4**i for i in range(6)):
        means = costates.unflatten(0, (-1, n)).mean(1)
        cosine, _ = alignment(means, truth)
        error = (means - truth).square().sum(1).mean().sqrt() / truth.norm()
        expected = (exact / n) ** 0.5 / truth.norm().item()
        rows.append({"n": n, "cosine": cosine.mean().item(), "error": error.item()})
        rows[-1]["expected"] = expected
    return rows


def hardening(
    policy: GPT, env: SumGame, prompt: Tensor, prefix: Tensor, layer: int
) -> dict[str, list[dict[str, float]]]:
    """Error and signal while a policy's entropy falls, in two ways.

    "cooling" multiplies the read-out, so that J = ∂z/∂δ grows as the entropy falls. "shifting" adds
    a constant to the logit of the stop (through the final norm's bias), which leaves J as it is.
    """
    head = policy.head.weight.detach()
    push = torch.linalg.pinv(head)[:, env.eos]  # head @ push is about one-hot
    result: dict[str, list[dict[str, float]]] = {"cooling": [], "shifting": []}
    for way, rows in result.items():
        for strength in (0, 2, 4, 6, 8, 12, 16):
            harder = copy.deepcopy(policy)
            with torch.no_grad():
                if way == "cooling":
                    harder.head.weight *= 1 + strength / 2
                else:
                    harder.norm.bias += strength * push
            at = harder.stream[layer]
            bound = error_bound(harder, env, prompt, at, prefix)
            _, p = outcomes(harder, env, prompt, prefix)
            truth = value_gradient(harder, env, prompt, prefix, at)
            row = {"strength": strength, "nats": torch.special.entr(p).sum().item()}
            rows.append(row | {"error": bound["gap"], "signal": truth.square().sum().item()})
    return result


def rewarded(rollout: Rollout) -> tuple[Rollout, Tensor]:
    """The rows with a reward, and which they are (B,); with it as advantage others add nothing."""
    right = rollout.rewards > 0
    names = ("prompts", "completions", "mask", "logprobs", "rewards")
    return replace(rollout, **{name: getattr(rollout, name)[right] for name in names}), right


def shares_by_layer(policy: GPT, states: list[tuple[Rollout, Tensor]]) -> list[list[float]]:
    """Attention's share of the exact value gradient at each token that is fed, a row per layer.

    `states` are `exact.outcomes` of a prompt with 0, 1, 2 … tokens of an answer. At a token of the
    prompt the state is the whole prompt, at one of the answer all up to it. Nan where no credit
    arrives: entering the final norm before the prompt's last token.
    """
    columns = []
    for j, (every, p) in enumerate(states):
        kept, right = rewarded(every)
        first = every.prompts.size(1) - 1
        for place in range(first + 1) if j == 0 else [first + j]:
            column = []
            for at in policy.stream:
                whole = p[right] @ empirical_costates(policy, kept, kept.rewards, at)[:, place]
                own = p[right] @ own_logit_costates(policy, kept, kept.rewards, at)[:, place]
                column.append(attention_share(whole - own, whole).item())
            columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)]


def relatives(
    policy: GPT, env: SumGame, prompt: Tensor, at: nn.Module, generator: torch.Generator
) -> dict[str, float]:
    """Samples: cosine to ∇V of the mean of 4,000 costates of each biased relative."""
    truth = value_gradient(policy, env, prompt, prompt[:0], at)
    means = {
        name: relaxed_costates(policy, env, prompt, at, name, 4000, generator).mean(0)
        for name in RELAXATIONS
    }
    return {name: alignment(mean, truth)[0].item() for name, mean in means.items()}


def audit(
    checkpoints: dict[int, GPT], env: SumGame, generator: torch.Generator
) -> dict[str, list | dict]:
    """All of it, for policies in float64 on the CPU, by pretraining step.

    `states`: `identities` at STATES, every layer. `along`: error, its bounds, entropy and biased
    relatives at `09=`, checkpoint by checkpoint. `credit`: attention's
    share at each token of `09=4+5`. `untrained`: hardening of a policy that nothing has trained.
    The rest is of the last checkpoint.
    """
    prompt, last = env.prompts[9], max(checkpoints)
    none, states, along = prompt[:0], [], []
    for step, policy in checkpoints.items():
        for (target, text), (layer, at) in itertools.product(STATES, enumerate(policy.stream)):
            row = identities(policy, env, env.prompts[target], env.encode(text), at)
            states.append({"step": step, "target": target, "prefix": text, "layer": layer} | row)
        at = policy.blocks[0]
        bound = error_bound(policy, env, prompt, at)
        signal = value_gradient(policy, env, prompt, none, at).square().sum().item()
        nats = entropy(policy, env, prompt[None]).item()
        row = {"step": step, "nats": nats, "error": bound["gap"], "signal": signal} | bound
        along.append(row | relatives(policy, env, prompt, at, generator))
    policy, fed = checkpoints[last], env.encode("4+5")
    along_answer = [outcomes(policy, env, prompt, fed[:j]) for j in range(len(fed) + 1)]
    untrained = GPT.for_world(env, 2, 2, 16, torch.Generator().manual_seed(0)).double()
    return {
        "states": states,
        "along": along,
        "samples": sample_curve(policy, env, prompt, policy.blocks[0], generator),
        "backward_pass": backward_pass(policy, env, generator),
        "credit": shares_by_layer(policy, along_answer),
        "untrained": hardening(untrained, env, prompt, env.encode("4"), 0),
    }


def control(generator: torch.Generator) -> dict[str, list]:
    """Samples of C1's world: costates beside the closed ∇V and noise-free costate, and variances.

    `scatter`: 20,000 rollouts from each start s; `z` is the deviation of their mean costate from ∇V
    in standard errors, `noise_free_z` that of the noise-free costate. `variance`: score over
    pathwise.
    """
    track, n = CosineTrack(20, -0.2, 0.5), 20_000
    scatter, variance = [], []
    for s in torch.linspace(-3, 3, 13, dtype=torch.float64):
        eps = torch.randn(n, track.horizon, dtype=torch.float64, generator=generator)
        costates = track.costates(track.rollout(s.expand(n), eps))[:, 0]
        free = track.costates(track.rollout(s[None], torch.zeros_like(eps[:1])))[0, 0]
        truth, standard_error = track.value_gradient(s), costates.std() / n**0.5
        row = {"s": s, "truth": truth, "mean": costates.mean(), "std": costates.std()}
        row |= {"noise_free": free, "z": (costates.mean() - truth) / standard_error}
        row["noise_free_z"] = (free - truth) / standard_error
        scatter.append({key: value.item() for key, value in row.items()})
        scatter[-1]["some"] = costates[:20].tolist()
    for gain, horizon in ((-0.2, 5), (-0.2, 20), (-0.2, 80), (0.1, 5), (0.1, 20), (0.1, 40)):
        track = CosineTrack(horizon, gain, 0.5)
        eps = torch.randn(n, horizon, dtype=torch.float64, generator=generator)
        states = track.rollout(torch.ones(n, dtype=torch.float64), eps)
        estimates = track.score_function_gradient(states, eps), track.pathwise_gradient(states)
        ratio = (estimates[0].var() / estimates[1].var()).item()
        variance.append({"gain": gain, "horizon": horizon, "ratio": ratio})
    return {"scatter": scatter, "variance": variance}
