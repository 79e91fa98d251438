"""What surrounds a run of train.py: its options, the lines it prints, the files it writes."""

import argparse
import json
import math
import os
import platform
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import torch

from .picture import draw
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
    option("--out", type=Path, help="folder for results; runs/demo, or runs/ and the method's name")
    args = parser.parse_args(arguments)
    args.out = args.out or Path("runs") / (args.method or "demo")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out {args.out} is a file; name a folder")
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    devices += ["mps"] * torch.backends.mps.is_available()
    if args.device == "auto":
        args.device = "cuda" if "cuda" in devices else "cpu"
    if args.device not in devices:
        parser.error(f"--device {args.device} is unknown here; choose {' or '.join(devices)}")
    compares = args.method not in ("reinforce", "ppo", "perfect", "exact")
    smallest = {"steps": 1, "group_size": 1 + compares, "pretrain_steps": 8, "d_model": 1}
    for name, least in smallest.items():
        if getattr(args, name) < least:
            value = getattr(args, name)
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
    if args.d_model % 4:
        parser.error(f"--d-model must be a multiple of 4, not {args.d_model}")
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


def save_weights(out: Path, policy) -> None:
    """The weights, as out/policy.pt."""
    save(out / "policy.pt", lambda path: torch.save(policy.state_dict(), path))


def save_run(args: argparse.Namespace, report: dict, policy) -> None:
    """The report, the weights and the figure of a run, and where they are."""
    report["options"] = {name: str(value) for name, value in vars(args).items()}
    report["versions"] = {"python": platform.python_version(), "torch": torch.__version__}
    text = json.dumps(report, indent=1)
    save(args.out / "report.json", lambda path: path.write_text(text, encoding="utf-8"))
    save_weights(args.out, policy)
    save(args.out / "figure.png", draw(report).savefig)
    print(f"\n{report['seconds']:.0f} s. report.json, policy.pt and figure.png are in {args.out}.")


def print_utf8() -> None:
    """∇ and ✓ can be printed from here on, wherever the output goes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")


def print_opening(env, gains: bool) -> None:
    """How large the world is, and what the table of pretraining shows."""
    answers = sum(len(env.solutions(prompt)) for prompt in env.prompts)
    print(
        f"The world: {len(env.prompts)} prompts such as 12= and {answers:,} right answers in all."
    )
    print("\n1. Pretraining on right sums, with eight checkpoints. From which should RL start?\n")
    print("   signal     how steeply success rises: the length of ∇V at a prompt, on average")
    print("   headroom   chance that at least one of 16 answers is right, less that of one answer")
    print("   readiness  signal × headroom, a guess at the gain")
    if gains:
        print("   gain       what 20 rollouts of GRPO from there, in small steps, add to success")


def print_checkpoint(row: dict) -> None:
    """A line of the table of pretraining."""
    line = f"{row['step']:5}  {row['loss']:5.3f}  {row['success']:7.3f}  {row['signal']:6.2f}"
    line += f"  {row['headroom']:8.2f}  {row['readiness']:9.2f}"
    print(line + (f"  {row['gain']:6.3f}" if "gain" in row else ""), flush=True)


def print_entry(entry: dict) -> None:
    """A live line of a run."""
    print(f"{entry['step']:7}  {entry['success']:7.3f}  {entry['cosine']:6.2f}", flush=True)


def print_method(method: str, history: list[dict]) -> None:
    """A method's line in the table of all."""
    success = mean_along(history, "success")
    cosine = mean_along(history[1:], "cosine")
    end = history[-1]["success"]
    print(f"{method:9}  {success:22.3f}  {end:10.3f}    {cosine:21.2f}", flush=True)


def print_answers(policy, env) -> None:
    """Two answers to each of five prompts, always from the same noise; ✓ where it is right."""
    prompts = env.prompts[torch.linspace(1, len(env.prompts) - 2, 5).long()]
    batch = sample(policy, env, prompts, 2, torch.Generator().manual_seed(0))
    lines = ["   ", "   "]
    for row, (tokens, live) in enumerate(zip(batch.completions, batch.mask)):
        text = env.decode(batch.prompts[row]) + env.decode(tokens[live])
        lines[row % 2] += (text + (" ✓" if batch.rewards[row] == 1 else "")).ljust(14)
    print("\n".join(line.rstrip() for line in lines))


def conclusions(report: dict) -> list[str]:
    """Six sentences about one run, its disagreements included, wrapped for a terminal."""
    rows = report["checkpoints"]
    histories = report["histories"]
    gains = [row["gain"] for row in rows]
    ours = rank_correlation([row["readiness"] for row in rows], gains)
    rival = rank_correlation([row["success"] * row["headroom"] for row in rows], gains)
    picked = max(rows, key=lambda row: row["readiness"])
    best = max(rows, key=lambda row: row["gain"])
    largest = f"the largest, {best['gain']:.2f}, was at step {best['step']}"
    grpo = histories["grpo"]
    cosines = [entry["cosine"] for entry in grpo[1:]]
    means = {method: mean_along(history, "success") for method, history in histories.items()}
    exact = means.pop("exact")
    below = sum(mean < exact for mean in means.values())
    sentences = [
        f"GRPO took the exact success from {grpo[0]['success']:.2f} to {grpo[-1]['success']:.2f}.",
        f"Its cosine to ∇V was {mean_along(grpo[1:], 'cosine'):.2f} on average over {len(cosines)} "
        f"single rollouts, from {min(cosines):.2f} to {max(cosines):.2f}. How much of the rest is "
        "noise, and how much GRPO changes the direction, a run cannot tell; lesson 08 does.",
        f"Rank correlation with the gains at the eight checkpoints: readiness {ours:.2f}, "
        f"success × headroom, which needs no gradient, {rival:.2f}. Over 16 seeds neither leads "
        "by rank.",
        f"The gain at the readiest checkpoint, step {picked['step']}, was {picked['gain']:.2f}; "
        + ("no other was larger." if picked is best else largest + "."),
        f"The six methods' mean success along the run was {min(means.values()):.3f} to "
        f"{max(means.values()):.3f}; with a learned critic {means['ppo']:.3f}, with a perfect one "
        f"{means['perfect']:.3f}. One seed cannot rank them.",
        f"Ascent on the exact success had a mean of {exact:.3f}, above {below} of the six, and "
        f"ended at {histories['exact'][-1]['success']:.3f}. A right direction is not yet a right "
        "step: lesson 08.",
    ]
    return [textwrap.fill("* " + text, 88, subsequent_indent="  ") for text in sentences]


def mean_along(history: list[dict], key: str) -> float:
    """The mean of an entry's number along a run; for success, the area under its curve."""
    values = [entry[key] for entry in history]
    return sum(values) / len(values)
