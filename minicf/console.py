"""What surrounds a run of train.py: its options, the lines it prints, the files it writes."""

import argparse
import math
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import torch

from .readiness import rank_correlation
from .rollout import sample


def parse(description: str, methods: list[str], arguments: list[str] | None) -> argparse.Namespace:
    """The options of train.py. What cannot be is said in one line, and ends with status 2."""
    parser = argparse.ArgumentParser(
        prog="train.py", usage=argparse.SUPPRESS, description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    option = parser.add_argument
    option("--method", choices=methods, help="one alone; by default the whole story")
    option("--seed", type=int, default=0, help="of all that is random; 0")
    option("--steps", type=int, default=120, help="rollouts of RL; 120")
    option("--group-size", type=int, default=8, help="answers to each prompt; 8")
    option("--learning-rate", type=float, default=5e-4, help="of RL, its peak; .0005")
    option("--pretrain-steps", type=int, default=800, help="800")
    option("--max-terms", type=int, default=3, help="terms of a sum, 1 to 5; 3")
    option("--d-model", type=int, default=64, help="width, a multiple of 4; 64")
    option(
        "--device", default="auto", help="cpu, cuda, mps; auto: CUDA where there is one, else CPU"
    )
    option("--out", type=Path, default=Path("runs/demo"), help="folder for results; runs/demo")
    args = parser.parse_args(arguments)
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    devices += ["mps"] * torch.backends.mps.is_available()
    if args.device == "auto":
        args.device = "cuda" if "cuda" in devices else "cpu"
    if args.device not in devices:
        parser.error(f"--device {args.device} is not there, only {', '.join(devices)}")
    compares = args.method not in ("reinforce", "ppo", "perfect", "exact")
    smallest = {"steps": 1, "group_size": 1 + compares, "pretrain_steps": 8, "d_model": 1}
    for name, least in smallest.items():
        if getattr(args, name) < least:
            value = getattr(args, name)
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
    if not 0 < args.learning_rate < math.inf:
        parser.error(f"--learning-rate must be positive and finite, not {args.learning_rate}")
    return args


def save(path: Path, write: Callable[[Path], None]) -> None:
    """Make a file by write(path), so that it appears whole or not at all."""
    unfinished = path.with_name("unfinished-" + path.name)
    write(unfinished)
    os.replace(unfinished, path)


def fail(status: int, message: object) -> int:
    """Print one line where errors go; returns the exit status."""
    print(f"train.py: {message}", file=sys.stderr)
    return status


def print_stop(row: dict) -> None:
    """A line of the table of pretraining."""
    line = f"{row['step']:5}  {row['loss']:5.3f}  {row['success']:7.3f}  {row['signal']:6.2f}"
    line += f"  {row['headroom']:8.2f}  {row['readiness']:9.2f}"
    print(line + (f"  {row['gain']:6.3f}" if "gain" in row else ""), flush=True)


def print_entry(entry: dict) -> None:
    """A live line of a run."""
    print(f"{entry['step']:7}  {entry['success']:7.3f}  {entry['cosine']:6.2f}", flush=True)


def print_method(method: str, history: list[dict]) -> None:
    """A method's line in the table of all."""
    success, cosine = mean_along(history, "success"), mean_along(history[1:], "cosine")
    end = history[-1]["success"]
    print(f"{method:9}  {success:13.3f}  {end:10.3f}    {cosine:12.2f}", flush=True)


def print_answers(policy, env) -> None:
    """One answer to each of five prompts, always from the same noise; ✓ where it is right."""
    prompts = env.prompts[torch.linspace(1, len(env.prompts) - 2, 5).long()]
    batch = sample(policy, env, prompts, 1, torch.Generator().manual_seed(0))
    line = "   "
    for prompt, tokens, live, reward in zip(prompts, batch.completions, batch.mask, batch.rewards):
        text = env.decode(prompt) + env.decode(tokens[live]) + " ✓" * (reward == 1)
        line += text.ljust(14)
    print(line.rstrip())


def conclusions(report: dict) -> list[str]:
    """Six sentences about one run, its disagreements included, wrapped for a terminal."""
    rows, histories = report["checkpoints"], report["histories"]
    gains = [row["gain"] for row in rows]
    picked = max(rows, key=lambda row: row["readiness"])
    best = max(rows, key=lambda row: row["gain"])
    ranks = {
        "readiness": rank_correlation([row["readiness"] for row in rows], gains),
        "rival": rank_correlation([row["success"] * row["headroom"] for row in rows], gains),
    }
    grpo = histories["grpo"]
    cosines, cosine = [entry["cosine"] for entry in grpo[1:]], mean_along(grpo[1:], "cosine")
    means = {method: mean_along(history, "success") for method, history in histories.items()}
    exact = means.pop("exact")
    ahead = sum(mean > exact for mean in means.values())
    leader = max(("reinforce", "rloo", "drgrpo", "grpo"), key=means.get)
    critics = f"{means['ppo']:.3f} with a learned critic, {means['perfect']:.3f} with a perfect one"
    sentences = [
        f"GRPO took the exact success from {grpo[0]['success']:.2f} to {grpo[-1]['success']:.2f}.",
        f"What its backward pass left on the prompts had a cosine to ∇V of {cosine:.2f} on average "
        f"(from {min(cosines):.2f} to {max(cosines):.2f}): one rollout shows ∇V through the noise "
        "of its samples, and GRPO bends it a little.",
        f"Readiness ranked the gains at the eight stops {compared(*ranks.values())} success × "
        f"headroom, which needs no gradient: rank correlation {ranks['readiness']:.2f} against "
        f"{ranks['rival']:.2f}.",
        f"The readiest stop, step {picked['step']}, gained {picked['gain']:.2f}; the largest gain "
        f"was {best['gain']:.2f}, at step {best['step']}.",
        f"Mean success along the run was {critics}, and {means[leader]:.3f} for the best method "
        f"without a critic, {leader}.",
        f"Ascent on the exact success had a mean of {exact:.3f} and ended at "
        f"{histories['exact'][-1]['success']:.3f}; {ahead or 'none'} of the {len(means)} sampled "
        "methods had a higher mean. " + ("A better direction is not always a better step." if ahead else
                             "The difference is the price of sampling."),
    ]  # fmt: skip
    return [textwrap.fill("* " + text, 88, subsequent_indent="  ") for text in sentences]


def mean_along(history: list[dict], key: str) -> float:
    """The mean of an entry's number along a run; for success, the area under its curve."""
    values = [entry[key] for entry in history]
    return sum(values) / len(values)


def compared(ours: float, rival: float) -> str:
    """How one rank correlation stands to another."""
    if abs(ours - rival) < 0.005:
        return "as well as"
    return "better than" if ours > rival else "worse than"
