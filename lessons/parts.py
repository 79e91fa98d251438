"""Parts of single lessons, in the lessons' order: longer runs and tables, under a name."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from counting import (
    METHODS, Method, batch_limits, climb, graph_of, leash_gradients, leash_rows, optimizer_for,
    staleness_rows, surrogate_gradients, together,
)  # fmt: skip
from figures import SURROGATE_TITLES
from kit import interval_text, print_columns, print_rows
from minicf.bounds import error_bound
from minicf.control import CosineTrack
from minicf.costate import alignment, attention_share, empirical_costates, own_logit_costates
from minicf.env import SumGame, World
from minicf.exact import outcomes, solution_probabilities, success, value_gradient
from minicf.gpt import GPT
from minicf.grpo import group_advantages
from minicf.ppo import clipped_surrogate, gae
from minicf.pretrain import pretrain
from minicf.rollout import Rollout, completion_logprobs, completion_mask, sample
from minicf.tap import tap
from minicf.variants import cispo_loss
from train import improve

PREDICTOR_LABELS = {  # of the study's predictors of RL's gain; J is the mean success
    "readiness": "readiness", "readiness of 8": "readiness, 8 samples", "signal": "signal",
    "headroom": "headroom", "reward std": "reward std", "reward std of 8": "reward std, 8 samples",
    "p(1 − p)": "parabola J(1 − J)", "1 − p": "1 − J", "loss": "pretraining loss",
}  # fmt: skip


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


def print_samples(players: dict[str, nn.Module], env: World, prompt: Tensor, count: int) -> None:
    """What each player, a named policy, writes after one prompt (P,), and whether it is right."""
    generator = torch.Generator().manual_seed(2)
    for name, policy in players.items():
        rollout = sample(policy, env, prompt[None], count, generator)
        written = []
        for row, mask, reward in zip(rollout.completions, rollout.mask, rollout.rewards):
            text = env.decode(row[mask]) + (" ✓" if reward > 0 else "  ")
            written.append(text.ljust(env.completion_length + 4))
        print(f"{name:26}", "".join(written))


def corpus_shares(env: SumGame) -> tuple[Tensor, Tensor]:
    """How often pretraining shows each right answer, in the order of solution_probabilities (R,),
    and how many tokens the answer has (R,)."""
    answers = torch.cat([env.solutions(prompt) for prompt in env.prompts])
    lengths = completion_mask(answers, env.eos).sum(1)  # a sum of n digits has 2n tokens
    return 10.0 ** -(lengths / 2) / env.max_terms, lengths


def corpus_loss(policy: nn.Module, env: SumGame) -> float:
    """Exact pretraining loss in nats a token: the mean over the whole corpus, not over a batch."""
    shares, lengths = corpus_shares(env)
    with torch.no_grad():
        probabilities, _ = solution_probabilities(policy, env)
    return (-(shares @ probabilities.log()) / (shares @ lengths.to(shares))).item()


def corpus_entropy(env: SumGame) -> float:
    """The corpus's entropy in nats a token, the lowest corpus_loss that any policy can have."""
    shares, lengths = corpus_shares(env)
    counts = torch.tensor([len(env.solutions(prompt)) for prompt in env.prompts])
    rows = torch.arange(len(env.prompts)).repeat_interleave(counts)  # which prompt it answers
    asked = torch.zeros(len(env.prompts)).index_add(0, rows, shares)  # how often each prompt comes
    return (-(shares @ (shares / asked[rows]).log()) / (shares @ lengths.to(shares))).item()


def vector_texts(vectors: Tensor, digits: int = 2) -> list[str] | str:
    """Vectors (N, D) as N texts, or one (D,) as a text, for a table."""
    if vectors.dim() == 1:
        numbers = [round(number, digits) + 0.0 for number in vectors.tolist()]  # no -0.0
        return "(" + ", ".join(f"{number:.{digits}f}" for number in numbers) + ")"
    return [vector_texts(vector, digits) for vector in vectors]


def gradient_of(outputs: Tensor, policy: nn.Module) -> Tensor:
    """The gradient of each output with respect to all of the policy's weights.

    outputs () or (M,) -> (1 or M, number of weights).
    """
    one_hot = torch.eye(outputs.numel()).to(outputs).view(-1, *outputs.shape)
    weights = list(policy.parameters())
    gradients = torch.autograd.grad(outputs, weights, one_hot, True, is_grads_batched=True)
    return torch.cat([gradient.flatten(1) for gradient in gradients], 1)


def counted_noise(
    policy: nn.Module, env: SumGame, baselines: list[float], prompts: Tensor
) -> dict:  # fmt: skip
    """Exact noise of one sample's estimate of the gradient, for each constant baseline.

    By enumeration, and a mean over prompts (N, P): `success`, the `noise` of each baseline, the
    `best` baseline with its `least` noise, the noise `at_success`, and the mean squared lengths of
    the scores of `right` and of `wrong` completions.
    """
    sums = []
    for prompt in prompts:
        rollout, chances = outcomes(policy, env, prompt)
        logprobs = completion_logprobs(policy, prompt[None], rollout.completions, len(chances))
        scores = gradient_of(logprobs.masked_fill(~rollout.mask, 0.0).sum(1), policy)  # (M, W)
        lengths, rewards = scores.square().sum(1), rollout.rewards.to(chances)
        gradient = (chances * rewards) @ scores
        means = (rewards, lengths, rewards * lengths)
        sums.append([*(chances @ mean for mean in means), gradient.square().sum()])
    success, squares, right, squared_gradient = torch.tensor(sums).mean(0).tolist()

    def noise(b: float) -> float:  # E[(r - b)^2 |s|^2] - |gradient|^2, where r^2 = r
        return right - 2 * b * right + b * b * squares - squared_gradient

    return {
        "success": success,
        "noise": [noise(b) for b in baselines],
        "best": right / squares,
        "least": noise(right / squares),
        "at_success": noise(success),
        "right": right / success,
        "wrong": (squares - right) / (1 - success),
    }


def loss_of_package(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The plain policy-gradient loss of logprobs and mask (B, T) and advantages (B,).

    By cispo_loss, whose ratio is 1 here: tokens are added up, completions averaged.
    """
    loss, _ = cispo_loss(logprobs, logprobs, advantages, mask)
    return loss * mask.sum().item() / len(mask)  # the loss is a mean over tokens


def descend(policy: nn.Module, env: World, loss_of: Callable, steps: int) -> float:
    """Plain gradient descent in place; returns the last loss_of(logprobs, advantages, mask).

    Each step samples every prompt eight times; the advantages are leave-one-out.
    """
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rollout = sample(policy, env, env.prompts, 8, generator)
        advantages = group_advantages(rollout.rewards, 8, "leave-one-out", "none")
        logprobs = completion_logprobs(policy, env.prompts, rollout.completions, 8)
        loss = loss_of(logprobs, advantages, rollout.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


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


def live_share(value: Tensor | float, group_size: int) -> Tensor | float:
    """The chance that a group has both right and wrong answers, at success `value` of each."""
    return 1 - value**group_size - (1 - value) ** group_size


def sampled_live_share(
    policy: nn.Module, env: World, group_size: int, groups: int, generator: torch.Generator
) -> Tensor:
    """The share of so many sampled groups whose rewards are not all equal, by prompt: (N,)."""
    rollout = sample(policy, env, env.prompts, group_size * groups, generator)
    rewards = rollout.rewards.view(len(env.prompts), groups, group_size)
    live = rewards.amax(2) != rewards.amin(2)
    return live.float().mean(1)


def mean_rise(values: list[float], group_size: int) -> list[float]:
    """How much GRPO's advantage of an answer rises, on average, if it is right and not wrong.

    For each of the values; exact, over the other answers, each right with that probability.
    """
    others, rises = group_size - 1, []
    for right in range(others + 1):
        rest = torch.tensor([1.0] * right + [0.0] * (others - right))
        if_right = group_advantages(torch.cat([torch.ones(1), rest]), group_size)
        if_wrong = group_advantages(torch.cat([torch.zeros(1), rest]), group_size)
        rises.append((if_right[0] - if_wrong[0]).item())
    means = []
    for value in values:
        mean = 0.0
        for right, rise in enumerate(rises):
            ways = math.comb(others, right)
            mean += ways * value**right * (1 - value) ** (others - right) * rise
        means.append(mean)
    return means


def cosine_to_gradient(policy: nn.Module, env: SumGame, prompt: Tensor, aggregate: str) -> float:
    """The cosine of a loss's mean gradient, over all answers to prompt (P,), with that of success.

    The advantages are the reward minus the exact success; `aggregate` is as in `ppo`.
    """
    answers, chance = outcomes(policy, env, prompt)
    value = success(policy, env, prompt[None]).sum()
    logprobs = completion_logprobs(policy, prompt[None], answers.completions, len(chance))
    advantages = (answers.rewards - value.detach()) * chance
    loss, _ = clipped_surrogate(logprobs, logprobs, advantages, answers.mask, aggregate=aggregate)
    directions = gradient_of(-loss, policy), gradient_of(value, policy)
    return torch.cosine_similarity(*directions).item()


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


def predictor_rows(ranks: dict, labels: dict[str, str]) -> list[dict[str, str]]:
    """The study's predictors of RL's gain, by name and label: rank correlations and picks."""
    rows = []
    for name, label in labels.items():
        row = {"predictor": label}
        row["rank, all corpora"] = interval_text(*ranks["pooled"][name]["rank"])
        for corpus in ("clean", "narrow", "wrong"):
            row[corpus] = f"{ranks[corpus][name]['rank'][0]:.2f}"
        rows.append(row | {"pick": interval_text(*ranks["pooled"][name]["pick"])})
    return rows


def claim_rows(study: dict, *names: str) -> list[dict[str, str]]:
    """The study's claims of these names: mean and interval over seeds, and the threshold."""
    rows = []
    for claim in study["claims"]:
        if claim["claim"] in names:
            holds = "no"
            if claim["holds"]:
                holds = "yes" if claim["certain"] else "yes, not certain"
            measured = interval_text(claim["measured"], *claim["interval"])
            threshold = f"{claim['relation']} {claim['threshold']:.2f}"
            statement = claim["statement"].replace("p(1 − p)", "J(1 − J)")
            rows.append({"claim": statement, "measured": measured, "threshold": threshold})
            rows[-1]["holds"] = holds
    return rows


def gain_of_short_run(policy: nn.Module, env: SumGame, rollouts: int, seed: int) -> float:
    """What a short, gentle GRPO run adds to exact success; it trains a copy of the policy."""
    trial, generator = copy.deepcopy(policy), torch.Generator().manual_seed(seed)
    history = improve(
        trial, env, "grpo", rollouts, generator, learning_rate=3e-4, warmup=5,
        evaluate_every=rollouts,
    )  # fmt: skip
    return history[-1]["success"] - history[0]["success"]


def leaderboard_rows(study: dict) -> list[dict[str, str]]:
    """The study's methods, best first: final success, different answers, cost of the rollouts."""
    rows = []
    for method in study["answers"]["methods"]:
        seeds = [row for row in study["leaderboard"] if row["method"] == method["method"]]
        row = {"method": method["method"], "success": method["success"]}
        row["interval"] = method["interval"]
        row["answers in 64"] = f"{sum(run['distinct'] for run in seeds) / len(seeds):.1f}"
        row["samples"] = f"{sum(run['samples'] for run in seeds) / len(seeds):,.0f}"
        row["seconds"] = f"{min(run['seconds'] for run in seeds):.1f}"
        rows.append(row)
    return rows


def print_history(history: list[dict], steps: tuple[int, ...]) -> None:
    """Success, entropy and KL of a run at these steps, as far as the run goes."""
    shown = [entry for entry in history if entry["step"] in steps]
    print_columns({
        "rollout": [entry["step"] for entry in shown],
        "success": [entry["success"] for entry in shown],
        "entropy (nats)": [entry["entropy"] for entry in shown],
        "KL (nats per token)": [entry["approx_kl"] for entry in shown],
    })  # fmt: skip


def history_of(entropies: list[float], successes: list[float]) -> list[dict[str, float]]:
    """A run's history by hand, for checks: step 0, which has no entropy, then one entry in ten."""
    history = [{"step": 0, "success": successes[0]}]
    for i, (nats, share) in enumerate(zip(entropies, successes, strict=True)):
        history.append({"step": 10 * (i + 1), "entropy": nats, "success": share})
    return history


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


DRAWS = tuple(2**i for i in range(0, 21, 2))  # the k of pass@k


@torch.no_grad()
def reach(policy: nn.Module, env: SumGame) -> dict[str, list[float]]:
    """Exact pass@k, and the number of different right answers in k samples, for each k of DRAWS.

    Means over prompts, in float64 and without cancellation where probabilities are tiny.
    """
    p, rows = solution_probabilities(policy.double(), env)
    value = p.new_zeros(len(env.prompts)).index_add(0, rows, p).clamp(max=1 - 1e-15)

    def at_least_once(probability: Tensor, k: int) -> Tensor:
        return -torch.expm1(k * torch.log1p(-probability))

    passes = [at_least_once(value, k).mean().item() for k in DRAWS]
    p = p.clamp(max=1 - 1e-15)
    answers = [at_least_once(p, k).sum().item() / len(env.prompts) for k in DRAWS]
    return {"pass_at_k": passes, "coverage": answers}
