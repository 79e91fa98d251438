"""The study behind the lessons: it repeats over seeds what one run leaves open.

    python lessons/study.py                  takes an hour on two cores
    python lessons/study.py --seeds 2        takes fewer seeds of each part
    python lessons/study.py --sum            only sums up what is there

It has four parts. Each part and seed, from FIRST_SEED on, leaves one file in --out, so that a study
that was stopped goes on where it was:

checkpoints  16 seeds: What predicts the gain of a short RL run along pretraining? The corpora hold
             right sums (clean), a third of wrong targets (wrong), or small targets only (narrow).
baselines     8 seeds: What does a critic add, at the same number of updates and of samples?
noise         5 seeds: What is the exact noise of each baseline, at activations and over weights?
corrections   5 seeds: What are bias and variance when the data come from another policy?

The result is lessons/study.json. It holds all rows and their `summary`, which has means with 95 %
intervals over seeds. Training amplifies rounding: on another processor the rows of a seed differ,
and only the summary stays about the same. A sum of fewer seeds goes to --out instead.
"""

import argparse
import copy
import json
import math
import platform
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from counting import (  # noqa: E402
    bias_and_variance, climb, enumerate_prompt, every_text, noise_of_baselines, noisy_logprobs,
    weight_blocks,
)  # fmt: skip
from minicf.env import SumGame  # noqa: E402
from minicf.exact import solution_logprobs  # noqa: E402
from minicf.gpt import GPT  # noqa: E402
from minicf.pretrain import pretrain  # noqa: E402
from minicf.readiness import measure, rank_correlation, sampled_readiness  # noqa: E402
from minicf.rollout import completion_mask, sample  # noqa: E402
from minicf.tap import tap  # noqa: E402
from train import gain_of_short_run, improve  # noqa: E402

FIRST_SEED = 300
SEEDS = {"checkpoints": 16, "baselines": 8, "noise": 5, "corrections": 5}
CORPORA = {"clean": {}, "wrong": {"wrong": 1 / 3}, "narrow": {"max_target": 9}}
PRETRAIN_STEPS = 800
STOPS = range(100, PRETRAIN_STEPS + 1, 100)


# What predicts the gain?


def checkpoints(seed: int) -> list[dict]:
    """Rows of one seed: corpus, step, every predictor, and the gain of a short RL run."""
    rows = []
    for corpus in CORPORA:
        rows += checkpoints_of(seed, corpus, STOPS)
    return rows


def checkpoints_of(seed: int, corpus: str, stops) -> list[dict]:
    """The rows of one pretraining, at some of its stops."""
    env = SumGame(3)
    rows = []
    draws = torch.Generator().manual_seed(seed)

    def stop(policy: GPT, step: int, loss: float) -> None:
        row = {"seed": seed, "corpus": corpus, "step": step, "loss": loss}
        row.update(predictors(policy, env))
        row["sampled"] = {}  # by samples of a prompt: numbers in the order of SAMPLED
        for G in (8, 16, 64):
            asked = sampled_predictors(policy, env, G, draws)
            row["sampled"][str(G)] = [asked[name] for name in SAMPLED]
        row["gain"] = gain_of_short_run(policy, env, group_size=8)
        rows.append(row)

    pretrain_up_to(env, seed, corpus, stops, stop)
    return rows


def pretrain_up_to(env: SumGame, seed: int, corpus: str, stops, at_stop=lambda *_: None) -> GPT:
    """The policy at the last stop; at every stop, at_stop(policy, step, loss) is called."""
    policy = GPT.for_world(env, generator=torch.Generator().manual_seed(seed))

    def at_checkpoint(step: int, loss: float) -> None:
        at_stop(policy, step, loss)
        if step == max(stops):
            raise StopIteration  # the schedule is that of the whole, but nobody asks for the rest

    generator = torch.Generator().manual_seed(seed)
    try:
        pretrain(
            policy, env, PRETRAIN_STEPS, generator, checkpoints=tuple(stops),
            at_checkpoint=at_checkpoint, **CORPORA[corpus],
        )  # fmt: skip
    except StopIteration:
        pass
    return policy


def predictors(policy: GPT, env: SumGame) -> dict[str, float]:
    """Every predictor that can be counted, exactly."""
    asked = measure(policy, env)
    S = asked["signal"]
    H = asked["headroom"]
    J = asked["success"]
    path, held_out_loss, variance = path_signal(policy, env)
    return {
        "success": J,
        "signal": S,
        "headroom": H,
        "readiness": S * H,
        "path_readiness": path * H,
        "success_headroom": J * H,
        "root_readiness": math.sqrt(S * J) * H,
        "variance": variance,
        "reward_std": asked["reward_std"],
        "parabola": J * (1 - J),
        "held_out_loss": held_out_loss,
    }


def path_signal(policy: GPT, env: SumGame) -> tuple[float, float, float]:
    """The signal along the whole path of an answer, the loss on the clean corpus, mean p(1 − p).

    The signal sums ‖∇V(beginning)‖ × the beginning's probability over all beginnings of a prompt's
    right answers, the prompt itself included, and is averaged over prompts. One backward pass
    through all right answers gives it. The loss is that on fresh sums, in nats a token.
    """
    with tap(policy.blocks[0], calls=2) as inputs:  # the prompts, then the answers' beginnings
        answers, logprobs, rows = solution_logprobs(policy, env)
        chances = logprobs.sum(1).exp()
    at_prompts, at_answers = torch.autograd.grad(chances.sum(), inputs)
    total = at_prompts.flatten(1).norm(dim=1).sum()
    texts = torch.cat([rows[:, None], answers[:, :-1]], 1).unique(dim=0)  # as scoring has them
    for t in range(1, texts.size(1)):  # gradients of answers that begin alike add up
        _, place = texts[:, : t + 1].unique(dim=0, return_inverse=True)
        sums = at_answers.new_zeros(int(place.max()) + 1, at_answers.size(2))
        total = total + sums.index_add(0, place, at_answers[:, t - 1]).norm(dim=1).sum()
    p = logprobs.new_zeros(len(env.prompts)).index_add(0, rows, chances.detach())
    lengths = completion_mask(answers, env.eos).sum(1)
    lengths = lengths.to(logprobs)
    shares = 10.0 ** -(lengths / 2) / env.max_terms  # how often the clean corpus has each answer
    loss = -(shares @ logprobs.detach().sum(1)) / (shares @ lengths)
    return total.item() / len(env.prompts), loss.item(), (p * (1 - p)).mean().item()


def sampled_predictors(policy: GPT, env: SumGame, G: int, generator) -> dict[str, float]:
    """The same from G samples of every prompt, as for a model that cannot be counted."""
    batch = sample(policy, env, env.prompts, G, generator)
    asked = sampled_readiness(policy, env, batch)
    J = batch.rewards.mean().item()
    return {
        "readiness": asked["readiness"],
        "success_headroom": J * asked["headroom"],
        "root_readiness": math.sqrt(asked["signal"] * J) * asked["headroom"],
        "variance": batch.rewards.view(-1, G).var(1).mean().item(),
        "reward_std": asked["reward_std"],
    }


# What does a critic add?

ROLLOUTS = 120
PLAIN = {"scale": "none", "aggregate": "constant"}
METHODS = {
    "none": {"baseline": "none", **PLAIN},
    "group mean": {"baseline": "mean", **PLAIN},
    "leave-one-out": {"baseline": "leave-one-out", **PLAIN},
    "batch mean": {"baseline": "none", **PLAIN},  # with `advantages` below
    "learned critic": {"baseline": "critic", **PLAIN},
    "perfect critic": {"baseline": "perfect critic", **PLAIN},
    "exact": "exact",
}
SETTINGS = [  # baseline, answers in a group, how often each of the 28 prompts is asked
    *[(name, 8, 1) for name in METHODS],
    *[(name, 2, 1) for name in METHODS if name != "exact"],
    *[(name, 1, 1) for name in ("none", "batch mean", "learned critic", "perfect critic")],
    ("group mean", 2, 4),
    ("leave-one-out", 2, 4),
]


def baselines(seed: int) -> list[dict]:
    """Rows of one seed: success along runs that differ in the baseline.

    All of them take one update a rollout.
    """
    start, env = start_of_runs(seed)
    rows = []
    for learning_rate, settings in ((5e-4, SETTINGS), (1e-3, SETTINGS[: len(METHODS)])):
        for name, group_size, times in settings:
            rows.append(baseline_row(start, env, seed, name, group_size, times, learning_rate))
    return rows


def start_of_runs(seed: int) -> tuple[GPT, SumGame]:
    """The policy in the middle of its pretraining."""
    env = SumGame(3)
    return pretrain_up_to(env, seed, "clean", (PRETRAIN_STEPS // 2,)), env


def baseline_row(
    start: GPT, env: SumGame, seed: int, name: str, group_size: int, times: int, rate: float
) -> dict:
    """One run from a copy of the start."""
    advantages = minus_batch_mean if name == "batch mean" else None
    history = improve(
        copy.deepcopy(start), env, METHODS[name], ROLLOUTS, torch.Generator().manual_seed(seed),
        group_size, rate, env.prompts.repeat(times, 1), updates=1, advantages=advantages,
    )  # fmt: skip
    curve = [entry["success"] for entry in history]
    return {
        "seed": seed,
        "baseline": name,
        "group_size": group_size,
        "samples": 28 * times * group_size,
        "learning_rate": rate,
        "curve": curve,
        "area": sum(curve) / len(curve),
        "at_40": curve[4],
        "success": curve[-1],
    }


def minus_batch_mean(rewards, group_size):
    return rewards - rewards.mean()


# The exact noise of each baseline.

NOISE_STAGES = (40, 100, 300)
NOISE_TARGETS = (5, 12)


def noise(seed: int) -> list[dict]:
    """Rows of one seed: pretraining step, target, place, and the noise of each baseline."""
    rows = []
    for step, policy in small_policies(seed, NOISE_STAGES, d_model=32).items():
        for target in NOISE_TARGETS:
            rows += noise_rows(policy, seed, step, target)
    return rows


def noise_rows(policy: GPT, seed: int, step: int, target: int, weights: bool = True) -> list[dict]:
    """The noise at a prompt's activations and, unless `weights` is false, over all weights."""
    env = SumGame(2)
    prompt = env.prompts[target]
    texts = every_text(env)
    counted = enumerate_prompt(policy, env, prompt, texts)
    row = {"seed": seed, "step": step, "target": target}
    places = {"activations": counted.blocks}
    if weights:
        places["weights"] = lambda factors: weight_blocks(policy, prompt, texts, factors)
    return [{**row, "place": place, **noise_of_baselines(counted, blocks)}
            for place, blocks in places.items()]  # fmt: skip


def small_policies(seed: int, steps: tuple[int, ...], d_model: int) -> dict[int, GPT]:
    """Policies of the two-term world by pretraining step, in float64."""
    env = SumGame(2)
    policies = {}
    generator = torch.Generator().manual_seed(seed)
    policy = GPT.for_world(env, d_model=d_model, generator=generator)

    def keep(step: int, loss: float) -> None:
        policies[step] = copy.deepcopy(policy).double()

    pretrain(
        policy, env, max(steps), generator, learning_rate=1e-2, checkpoints=steps,
        at_checkpoint=keep,
    )  # fmt: skip
    return policies


# Data from another policy.

CORRECTION_STAGES = (100, 300)
CORRECTION_TARGETS = (9, 15)
AGES = (4, 16, 64, 256)  # small updates since the data were sampled
LOGIT_NOISE = (0.05, 0.2, 0.5)  # its standard deviation; besides, bfloat16


def corrections(seed: int) -> list[dict]:
    """Rows of one seed: what came between sampler and trainer, its KL, and bias and variance."""
    rows = []
    for step, policy in small_policies(seed, CORRECTION_STAGES, d_model=16).items():
        for kind, level in (*(("age", age) for age in AGES),
                            *(("logit noise", sigma) for sigma in LOGIT_NOISE),
                            ("bfloat16", 0)):  # fmt: skip
            rows.append(correction_row(policy, seed, step, kind, level))
    return rows


def correction_row(policy: GPT, seed: int, step: int, kind: str, level: float) -> dict:
    """One sampler and trainer: `policy` has sampled, or is trained on what a noisy copy samples."""
    env = SumGame(2)
    texts = every_text(env)
    trainer = climb(policy, env, level, learning_rate=1e-5) if kind == "age" else policy
    pairs = []
    for target in CORRECTION_TARGETS:
        counted = enumerate_prompt(trainer, env, env.prompts[target], texts)
        if kind == "age":
            old = enumerate_prompt(policy, env, env.prompts[target], texts).logprobs
        else:
            sigma = level if kind == "logit noise" else None
            old = noisy_logprobs(policy, env.prompts[target], texts, sigma, seed)
        pairs.append((counted, old))
    return {"seed": seed, "step": step, "kind": kind, "level": level, **bias_and_variance(pairs)}


# Files, seeds and sums.

PARTS = {
    "checkpoints": checkpoints, "baselines": baselines, "noise": noise, "corrections": corrections
}  # fmt: skip


def heading(part: str, seed: int) -> dict:
    """What a file is of: its part and seed, and every setting that its rows depend on."""
    settings = {
        "checkpoints": (PRETRAIN_STEPS, list(STOPS), CORPORA),
        "baselines": (PRETRAIN_STEPS, ROLLOUTS, METHODS, SETTINGS),
        "noise": (NOISE_STAGES, NOISE_TARGETS),
        "corrections": (CORRECTION_STAGES, CORRECTION_TARGETS, AGES, LOGIT_NOISE),
    }
    return {"part": part, "seed": seed, "settings": json.dumps(settings[part])}


def commit() -> str:
    """The commit of this checkout, or "unknown" outside one."""
    try:
        command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def work(part: str, seed: int, out: Path) -> None:
    """Make the file of one part and seed, unless it is there."""
    path = out / f"{part}-{seed}.json"
    if not path.exists():
        torch.set_num_threads(1)
        rows = rounded(PARTS[part](seed))
        text = json.dumps({**heading(part, seed), "commit": commit(), "rows": rows})
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)


def rounded(value, digits: int = 4):
    """The same with four significant digits in every number with a fraction."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {name: rounded(part, digits) for name, part in value.items()}
    return [rounded(part, digits) for part in value] if isinstance(value, list) else value


def read(path: Path, part: str, seed: int) -> dict:
    """A file's content. Raises ValueError for one that is damaged or of other settings."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if {**stored, **heading(part, seed)} == stored and "rows" in stored:
            return stored
    except (ValueError, TypeError):
        pass
    raise ValueError(f"{path} is damaged or of other settings: delete it, run the study again")


def interval(values: list[float]) -> list[float]:
    """Mean over seeds and its 95 % bootstrap interval (percentiles of 2,000 means).

    They have six decimals, so that rounding does not part an end from 0.
    """
    x = torch.tensor(values, dtype=torch.float64)
    draws = torch.randint(len(x), (2000, len(x)), generator=torch.Generator().manual_seed(0))
    quantiles = torch.tensor([0.025, 0.975], dtype=torch.float64)
    numbers = [x.mean().item(), *x[draws].mean(1).quantile(quantiles).tolist()]
    return [round(number, 6) + 0.0 for number in numbers]  # + 0.0 makes 0.0 of −0.0


PREDICTORS = (
    "readiness", "path_readiness", "root_readiness", "success_headroom", "signal", "headroom",
    "success", "variance", "reward_std", "parabola", "loss", "held_out_loss",
)  # fmt: skip
SAMPLED = ("readiness", "success_headroom", "root_readiness", "variance", "reward_std")


def predictor_values(rows: list[dict]) -> dict[str, list[float]]:
    """Each predictor of the rows, by name; those from samples as "readiness of 8".

    A loss promises the more, the lower it is, so it is taken with a minus sign.
    """
    values = {}
    for name in PREDICTORS:
        sign = -1 if name.endswith("loss") else 1
        values[name] = [sign * row[name] for row in rows]
    for G in ("8", "16", "64"):
        for name in SAMPLED:
            place = SAMPLED.index(name)
            values[f"{name} of {G}"] = [row["sampled"][G][place] for row in rows]
    return values


def sum_checkpoints(rows: list[dict]) -> dict:
    """How well each predictor ranks the gains, by corpus and, last, "pooled" over corpora.

    `rank` is its rank correlation with the gain, `pick` the gain where it is largest, as a share of
    the seed's largest gain. `rank_lead` and `pick_lead` say by how much readiness is better, seed
    by seed; predictors from samples are compared with readiness from as many.
    """
    result = {}
    for corpus in (*CORPORA, "pooled"):
        ranks = {}
        picks = {}
        for seed in sorted({row["seed"] for row in rows}):
            chosen = [row for row in rows
                      if row["seed"] == seed and corpus in (row["corpus"], "pooled")]  # fmt: skip
            gains = [row["gain"] for row in chosen]
            for name, values in predictor_values(chosen).items():
                ranks.setdefault(name, []).append(rank_correlation(values, gains))
                pick = gains[values.index(max(values))]
                picks.setdefault(name, []).append(pick / max(gains))
        result[corpus] = {}
        for name in ranks:
            ours = "readiness" + name[name.index(" of ") :] if " of " in name else "readiness"
            result[corpus][name] = {
                "rank": interval(ranks[name]),
                "pick": interval(picks[name]),
                "rank_lead": interval([a - b for a, b in zip(ranks[ours], ranks[name])]),
                "pick_lead": interval([a - b for a, b in zip(picks[ours], picks[name])]),
            }
    return result


def sum_baselines(rows: list[dict]) -> list[dict]:
    """Success of each setting: its mean along the run, at rollout 40 and at the end.

    The leads say by how much leave-one-out is better in the first two, seed by seed. With one
    answer a group nothing can be left out, and the lead is that of no baseline.
    """
    by_setting = {}
    for row in rows:
        key = (row["learning_rate"], row["samples"], row["group_size"], row["baseline"])
        by_setting.setdefault(key, {})[row["seed"]] = row
    result = []
    for key, by_seed in by_setting.items():
        rival = by_setting[(*key[:3], "none" if key[2] == 1 else "leave-one-out")]
        summed = dict(zip(("learning_rate", "samples", "group_size", "baseline"), key))
        for name in ("area", "at_40", "success"):
            summed[name] = interval([row[name] for row in by_seed.values()])
        for name in ("area", "at_40"):
            leads = [rival[seed][name] - row[name] for seed, row in by_seed.items()]
            summed[f"{name}_lead"] = interval(leads)
        result.append(summed)
    return result


def sum_noise(rows: list[dict]) -> list[dict]:
    """The noise of each baseline over seeds and prompts, by place and pretraining step.

    Each is a median, the least and the largest value. Two counts say how often V is noisier than
    no baseline, and how often a token critic is quieter.
    """
    names = ("none", "V", "best", "token critic", "leave-one-out of 8")
    result = []
    for place in ("activations", "weights"):
        for step in NOISE_STAGES:
            chosen = [row for row in rows if (row["place"], row["step"]) == (place, step)]
            if not chosen:
                continue
            summed = {"place": place, "step": step, "policies and prompts": len(chosen)}
            for name in ("value", "best_baseline", *names):
                values = sorted(row[name] for row in chosen)
                summed[name] = [median(values), values[0], values[-1]]
            summed["V noisier than none"] = sum(row["V"] > row["none"] for row in chosen)
            summed["token critic quieter than none"] = sum(
                row["token critic"] < row["none"] for row in chosen
            )
            result.append(summed)
    return result


def sum_up(out: Path, seeds: dict[str, int]) -> dict:
    """All rows of all parts that are there, and their summary."""
    parts = {}
    commits = set()
    for part, count in seeds.items():
        parts[part] = []
        for seed in range(FIRST_SEED, FIRST_SEED + count):
            path = out / f"{part}-{seed}.json"
            if path.exists():
                stored = read(path, part, seed)
                commits.add(stored["commit"])
                parts[part] += rounded(stored["rows"], 3)
    summary = {
        "checkpoints": sum_checkpoints(parts["checkpoints"]),
        "baselines": sum_baselines(parts["baselines"]),
        "noise": sum_noise(parts["noise"]),
    }
    return {
        "command": "python lessons/study.py",
        "date": date.today().isoformat(),
        "commits": sorted(commits),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        **parts,
        "summary": rounded(summary, 3),
    }


def main(arguments: list[str] | None = None) -> int:
    """Make what is missing, seed by seed, then sum up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=16, help="at most so many of each part")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at the same time; 2")
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="runs/study")
    parser.add_argument("--sum", action="store_true", help="only sum up what is there")
    args = parser.parse_args(arguments)
    if args.seeds < 2 or args.jobs < 1:
        parser.error("--seeds must be at least 2, for an interval, and --jobs at least 1")
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = {part: min(count, args.seeds) for part, count in SEEDS.items()}
    tasks = []
    for part, count in seeds.items():
        tasks += [(part, FIRST_SEED + i) for i in range(count)]
    if not args.sum:
        with ProcessPoolExecutor(args.jobs) as pool:
            futures = [pool.submit(work, part, seed, args.out) for part, seed in tasks]
            for future in tqdm(futures, unit="seed", disable=None):
                future.result()
    try:
        result = sum_up(args.out, seeds)
    except ValueError as error:
        print(f"study.py: {error}", file=sys.stderr)
        return 2
    files = [args.out / f"{part}-{seed}.json" for part, seed in tasks]
    complete = seeds == SEEDS and all(file.exists() for file in files)
    path = (HERE if complete else args.out) / "study.json"
    text = json.dumps(result, separators=(",", ":"))
    path.write_text(text, encoding="utf-8")
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
