"""Parts of single lessons, in the lessons' order: longer runs and tables, under a name."""

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from counting import (
    METHODS, Method, batch_limits, climb, graph_of, leash_gradients, leash_rows, optimizer_for,
    staleness_rows, surrogate_gradients, together,
)  # fmt: skip
from figures import SURROGATE_TITLES
from kit import print_columns, print_rows
from minicf.bounds import error_bound
from minicf.control import CosineTrack
from minicf.costate import alignment, attention_share, empirical_costates, own_logit_costates
from minicf.env import SumGame, World
from minicf.exact import outcomes, success, value_gradient
from minicf.gpt import GPT
from minicf.ppo import clipped_surrogate, gae
from minicf.pretrain import pretrain
from minicf.rollout import Rollout, completion_logprobs
from minicf.tap import tap


def pretrained_copies(
    policy: nn.Module, env: SumGame, steps: int, stops: tuple[int, ...], seed: int, **options
) -> dict[int, nn.Module]:
    """Pretrain the policy in place; returns a copy of it after each of the steps in `stops`."""
    copies: dict[int, nn.Module] = {}

    def keep(step: int, loss: float) -> None:
        copies[step] = copy.deepcopy(policy)

    generator = torch.Generator().manual_seed(seed)
    pretrain(policy, env, steps, generator, checkpoints=stops, at_checkpoint=keep, **options)
    return copies


def clip_curve(ratios: list[float], advantage: float, clip=(0.2, 0.2)) -> tuple[list, list]:
    """PPO's surrogate of one token at each of the ratios, and its slope in the ratio there."""
    surrogates, slopes = [], []
    for value in ratios:
        ratio = torch.tensor([[value]], requires_grad=True)  # (B, T) = (1, 1)
        one = torch.ones(1, 1)
        loss, _ = clipped_surrogate(ratio.log(), 0 * one, advantage * one, one, clip)
        surrogates.append(-loss.item())
        slopes.append(-torch.autograd.grad(loss, ratio)[0].item())
    return surrogates, slopes


def gae_table(text: str, reward: float, values: Tensor) -> dict[str, list | Tensor]:
    """Columns: a text's tokens, the values (1, T) before them, and GAE's advantages by lambda."""
    table = {"token": list(text), "V before": values[0]}
    for gae_lambda in (1.0, 0.95, 0.0):
        mask = torch.ones_like(values, dtype=torch.bool)
        advantages, _ = gae(torch.tensor([reward]), values, mask, 1.0, gae_lambda)
        table[f"A, lambda {gae_lambda}"] = advantages[0]
    return table


def reuse_batch(
    start: nn.Module, env: World, batch: Rollout, advantages: Tensor, clip: tuple, updates: int
) -> list[dict[str, float]]:  # fmt: skip
    """Update a copy of `start` many times on one batch; one row of numbers before each update."""
    policy = copy.deepcopy(start)
    optimizer = optimizer_for(policy, 3e-4)
    old_logprobs = batch.logprobs  # stored when the batch was sampled
    rows = []
    for update in range(updates + 1):
        logprobs = completion_logprobs(policy, env.prompts, batch.completions, batch.group_size)
        loss, stats = clipped_surrogate(logprobs, old_logprobs, advantages, batch.mask, clip)
        row = {"update": update, "success": success(policy, env).mean().item()}
        row["loss"] = loss.item()
        for name, value in stats.items():
            row[name] = value.item()
        rows.append(row)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rows


def print_switches(methods: dict[str, Method]) -> None:
    """What methods set: a row for each, a column for each switch."""
    rows = []
    for name, how in methods.items():
        low, high = how.clip
        clip = "none" if low == high == math.inf else f"{low:.2g}, {high:.2g}"
        clip = clip.replace("inf", "none")
        row = {"method": name, "baseline": how.baseline, "scale": how.scale}
        row |= {"aggregate": how.aggregate, "clip": clip, "ratio": how.ratio}
        rows.append(row | {"surrogate": how.surrogate})
    print_rows(rows)


def print_counted(rows: list[dict]) -> None:
    """A table of methods_table's rows: direction, length, and samples for a cosine of .9."""
    columns = {key: [row[key] for row in rows] for key in ("method", "cosine", "length")}
    needed = [math.ceil(row["samples"]) if row["samples"] else "never" for row in rows]
    print_columns(columns | {"samples a prompt for cosine .9": needed})


def print_ranges(rows: list[dict]) -> None:
    """Over policies: each method's range of cosines, and of the samples for a cosine of .9."""
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method]
        cosines = [row["cosine"] for row in of_method]
        samples = [row["samples"] or math.inf for row in of_method]
        table.append({"method": method, "cosine": f"{min(cosines):.3f} to {max(cosines):.3f}"})
        most = "never" if math.isinf(max(samples)) else f"{max(samples):.0f}"
        table[-1]["samples for .9"] = f"{min(samples):.0f} to {most}"
    print_rows(table)


def count_wins(rows: list[dict], one: str, other: str) -> int:
    """At how many policies method `one` needs fewer samples for a cosine of .9 than `other`."""
    samples = [
        [row["samples"] or math.inf for row in rows if row["method"] == method]
        for method in (one, other)
    ]
    return sum(first < second for first, second in zip(*samples, strict=True))


def count_stale(
    policy: nn.Module, env: SumGame, prompts: Tensor, counted: list, ages: tuple[int, ...]
) -> list[dict]:
    """Exact cosine to ∇J of each surrogate on data of `policy`, by age: updates made since.

    `counted` are the prompts under `policy`, of counting.enumerate_prompt.
    """
    length = batch_limits(METHODS["GSPO"], counted)["length"]
    rows = []
    for age in ages:
        later, parts = climb(policy, env, age), []
        for prompt, old in zip(prompts, counted):
            now = graph_of(later, prompt, old.texts, old.rewards)
            parts.append(surrogate_gradients(now, old.logprobs, length))
        rows += [row | {"lag": age} for row in staleness_rows(together(parts))]
    return rows


def print_stale(rows: list[dict]) -> None:
    """A table of count_stale's rows: a surrogate a line, an age a column."""
    table = {name: {"surrogate": title} for name, title in SURROGATE_TITLES.items()}
    for row in rows:
        table[row["surrogate"]][f"age {row['lag']}"] = row["cosine"]
    print_rows(list(table.values()))


def print_leash(now: nn.Module, prompts: Tensor, counted: list) -> None:
    """What each KL to the reference leaves, beside ∇KL: by estimator and place, exactly.

    `counted` are the prompts under the reference, of counting.enumerate_prompt.
    """
    parts = []
    for prompt, old in zip(prompts, counted):
        graph = graph_of(now, prompt, old.texts, old.rewards)
        parts.append(leash_gradients(graph, old.logprobs))
    rows = []
    for row in leash_rows(together(parts)):
        if row["kl"] == "k1 in the reward to go":  # the same gradient again
            continue
        cosine = "none" if math.isnan(row["kl_cosine"]) else f"{row['kl_cosine']:.3f}"
        length = f"{row['kl_length']:.2f}"
        form = row["kl"].replace("k2 of the whole text", "k2 in the loss, of the whole completion")
        rows.append({"form": form, "cosine to ∇KL": cosine, "length / ∇KL": length})
    print_rows(rows)


def costates_around(
    track: CosineTrack, starts: Tensor, count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """At each of starts (S,): `costates` (S, count) of noisy rollouts, that of the `noise_free`
    rollout (S,), and the exact value gradient, `truth` (S,)."""
    eps = torch.randn(len(starts) * count, track.horizon, generator=generator, dtype=starts.dtype)
    noisy = track.costates(track.rollout(starts.repeat_interleave(count), eps))[:, 0]
    noise_free = track.costates(track.rollout(starts, torch.zeros_like(eps[: len(starts)])))[:, 0]
    truth = track.value_gradient(starts)
    return {"costates": noisy.view(-1, count), "noise_free": noise_free, "truth": truth}


def standard_errors_off(samples: Tensor, truth: Tensor) -> Tensor:
    """How many standard errors the mean of samples (…, N) is away from the truth (…): (…)."""
    standard_error = samples.std(-1) / samples.size(-1) ** 0.5
    return (samples.mean(-1) - truth).abs() / standard_error


def compare_estimators(
    tracks: dict[str, float], horizons: list[int], count: int, generator: torch.Generator
) -> list[dict]:
    """Both estimators of dJ/dtheta from s_0 = 1, noise 0.5, on tracks given by name and gain.

    A row has `track`, `horizon`, `variance ratio`, that of the score function over that of
    pathwise, and `standard errors off`, by which a mean misses the closed form, the larger of two.
    """
    rows = []
    for name, gain in tracks.items():
        for horizon in horizons:
            track = CosineTrack(horizon, gain, noise=0.5)
            eps = torch.randn(count, horizon, generator=generator, dtype=torch.float64)
            states = track.rollout(torch.ones(count, dtype=torch.float64), eps)
            pathwise = track.pathwise_gradient(states)
            score = track.score_function_gradient(states, eps)
            estimates = torch.stack([pathwise, score])
            off = standard_errors_off(estimates, track.objective_gradient(states[0, 0])).max()
            ratio = (score.var() / pathwise.var()).item()
            row = {"track": name, "horizon": horizon, "variance ratio": ratio}
            rows.append(row | {"standard errors off": off.item()})
    return rows


def heated_or_cooled(policy: GPT, factor: float) -> GPT:
    """A copy of the policy whose logits are multiplied: below 1 it is less sure, above 1 surer."""
    copied = copy.deepcopy(policy)
    with torch.no_grad():
        copied.head.weight *= factor
    return copied


def mean_cosines(
    costates: Tensor, probabilities: Tensor, truth: Tensor, sizes: list[int], total: int,
    generator: torch.Generator,
) -> list[float]:  # fmt: skip
    """Cosine to the truth (D,) of the mean of n costates, averaged over many draws, for n in sizes.

    `total` of the enumerated costates (M, D) are drawn by their probabilities (M,).
    """
    drawn = costates[torch.multinomial(probabilities, total, True, generator=generator)]
    cosines = []
    for n in sizes:
        means = drawn.view(-1, n, drawn.size(1)).mean(1)  # one of only zeros has cosine 0
        cosines.append(alignment(means, truth)[0].mean().item())
    return cosines


def costates_of_rewards(policy: GPT, rollout: Rollout, at: nn.Module) -> Tensor:
    """`empirical_costates` with the reward as advantage; rows without one are 0 and not run."""
    rows, right = rewarded(rollout)
    of_right = empirical_costates(policy, rows, rows.rewards, at)
    costates = of_right.new_zeros(len(right), *of_right.shape[1:])
    costates[right] = of_right
    return costates


def policy_that_prefers(env: SumGame, prompt: Tensor, text: str, strength: float) -> GPT:
    """A GPT that nobody trained: random weights, and a read-out written by hand, in float64.

    Along `text` after the prompt, the logit of its next token is `strength`, those of others 0.
    """
    policy = GPT.for_world(env, n_head=2, d_model=16).double()
    tokens = env.encode(text)
    sequence = torch.cat([prompt, tokens[:-1]])[None]
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.dim() == 2:
                weight *= 10  # so that attention and the perceptrons matter
    with tap(policy.head) as inputs:
        policy(sequence)
    features = inputs[0][0, len(prompt) - 1 :].detach()  # (len(text), D), each predicts a token
    wanted = strength * torch.eye(len(env.vocab), dtype=torch.float64)[tokens]  # (len(text), V)
    with torch.no_grad():
        policy.head.weight.copy_((torch.linalg.pinv(features) @ wanted).T)
    return policy


def costate_errors(policy: GPT, env: SumGame, prompt: Tensor, prefix: Tensor) -> dict[str, float]:
    """Exact errors of one costate at a state's last token, entering block 0, with baseline 1/2.

    By enumeration of all that can follow: `absolute` and `relative` error and the `signal`, the
    squared length of the value gradient. From the logits and their Jacobians: what the sampling
    `gap` says, and the bounds `collision` (1 - exp(-H)) and `entropy` (H). Besides: the `value`
    and the entropy of the rest in `nats`.
    """
    at, place = policy.blocks[0], len(prompt) + len(prefix) - 1
    rollout, probabilities = outcomes(policy, env, prompt, prefix)
    gradient = value_gradient(policy, env, prompt, prefix, at)
    costates = empirical_costates(policy, rollout, rollout.rewards - 0.5, at)[:, place]
    absolute = (probabilities @ (costates - gradient).square().sum(1)).item()
    signal = gradient.square().sum().item()
    return error_bound(policy, env, prompt, at, prefix) | {
        "absolute": absolute,
        "relative": absolute / signal,
        "signal": signal,
        "value": (probabilities @ rollout.rewards.to(probabilities)).item(),
        "nats": torch.special.entr(probabilities).sum().item(),
    }


TINY = 1e-6  # of ‖∇V‖


def relative_error(estimate: Tensor, truth: Tensor) -> float:
    """‖estimate − truth‖ / ‖truth‖, the latter at least TINY, where rounding is all there is."""
    return ((estimate - truth).norm() / truth.norm().clamp(min=TINY)).item()


def action_values(pi: Tensor, tokens: Tensor, rewards: Tensor) -> Tensor:
    """Q (V,) of the policy pi (V,) from the next tokens (M,) and their weighted rewards (M,)."""
    return torch.zeros_like(pi).index_add(0, tokens, rewards) / pi


def rewarded(rollout: Rollout) -> tuple[Rollout, Tensor]:
    """The rewarded rows of one prompt's rollout, and which they are (B,).

    With the reward as advantage the other rows add nothing.
    """
    right = rollout.rewards > 0
    names = ("prompts", "completions", "mask", "logprobs", "rewards")
    rows = {name: getattr(rollout, name)[right] for name in names}
    return replace(rollout, **rows, group_size=int(right.sum())), right


def shares_by_layer(policy: GPT, states: list[tuple[Rollout, Tensor]]) -> list[list[float]]:
    """Attention's share of the exact value gradient at each token that is fed, a row per layer.

    `states` are `exact.outcomes` of a prompt with 0, 1, 2 … tokens of an answer. At a token of the
    prompt the state is the whole prompt, at one of the answer all up to it. Nan where no credit
    arrives: entering the final norm before the prompt's last token.
    """
    columns = []
    for j, (rollout, p) in enumerate(states):
        rows, right = rewarded(rollout)
        first = rollout.prompts.size(1) - 1
        for place in range(first + 1) if j == 0 else [first + j]:
            column = []
            for at in policy.stream:
                whole = p[right] @ empirical_costates(policy, rows, rows.rewards, at)[:, place]
                own = p[right] @ own_logit_costates(policy, rows, rows.rewards, at)[:, place]
                column.append(attention_share(whole - own, whole).item())
            columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)]
