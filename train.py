"""The whole story in one command: python train.py

Pretrain a tiny GPT on sums, reinforce it from a checkpoint, and compare exact success before and
after. Each unit of work (a pretraining, an RL run) is a function of the configuration, the seed and
its own name, runs on one thread, and leaves one file; so units run side by side, the result does not
depend on how many do, and the same command continues where it was stopped.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy
import torch
from tqdm import tqdm

from minicf import figures
from minicf.env import SumGame
from minicf.exact import success
from minicf.gpt import GPT, GPTConfig
from minicf.training import improve, pretrain

# Thresholds of the claims, set before the run that is quoted.
START_AT_MOST = 0.60  # exact success of the checkpoint that RL starts from
GRPO_REACHES = 0.95


def option(default, text: str, least: float | None = None, run: bool = False):
    """A field of the configuration; `run` marks those that say how, not what, is computed."""
    return field(default=default, metadata={"help": text, "least": least, "run": run})


@dataclass(frozen=True)
class Config:
    """The configuration, which is also the command line. Raises ValueError for a bad value."""

    out: str = option("runs/demo", "folder for the report, figures and checkpoints", run=True)
    fresh: bool = option(False, "delete an earlier run in --out and start over", run=True)
    jobs: int = option(os.cpu_count() or 1, "units of work to run side by side", 1, run=True)
    device: str = option("auto", "auto, cpu, cuda or mps")
    seed: int = option(0, "seed of everything that is random", 0)
    max_terms: int = option(3, "most terms of a sum, 1 to 5; sets the horizon", 1)
    d_model: int = option(64, "width of the residual stream", 1)
    n_layer: int = option(2, "number of blocks", 1)
    n_head: int = option(4, "attention heads; must divide --d-model", 1)
    pretrain_steps: int = option(800, "steps of pretraining", 1)
    checkpoints: int = option(10, "checkpoints kept along pretraining, evenly spaced", 1)
    rl_steps: int = option(160, "rollouts of an RL run", 1)
    group_size: int = option(8, "completions sampled per prompt and rollout", 2)
    learning_rate: float = option(1e-3, "peak learning rate of RL", 0.0)

    def __post_init__(self):
        for each in fields(self):
            value, least = getattr(self, each.name), each.metadata["least"]
            if least is not None and not value >= least:
                raise ValueError(f"{flag(each.name)} must be at least {least}, not {value}")
        if self.max_terms > 5:
            raise ValueError(f"--max-terms must be at most 5, not {self.max_terms}")
        if self.d_model % self.n_head:
            raise ValueError(f"--d-model {self.d_model} is not divisible by --n-head {self.n_head}")
        if self.checkpoints > self.pretrain_steps:
            raise ValueError(
                f"--checkpoints must be at most --pretrain-steps {self.pretrain_steps}, "
                f"not {self.checkpoints}"
            )
        object.__setattr__(self, "device", available_device(self.device))

    @property
    def identity(self) -> dict:
        """What the results depend on: the fields that are no run options, PyTorch, and the code."""
        here, digest = Path(__file__).parent, hashlib.sha256()
        for path in [here / "train.py", *sorted((here / "minicf").glob("*.py"))]:
            digest.update(path.read_bytes())
        chosen = {e.name: getattr(self, e.name) for e in fields(self) if not e.metadata["run"]}
        return chosen | {"torch": torch.__version__, "code": digest.hexdigest()[:16]}

    def path(self, *parts: str) -> Path:
        return Path(self.out, *parts)


FAST = dict(out="runs/fast", max_terms=2, d_model=32, pretrain_steps=200, rl_steps=40)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def available_device(name: str) -> str:
    """Resolve "auto"; raise ValueError for a device that is not there."""
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if name != "auto" and name not in there:
        raise ValueError(f"--device must be auto or one of {', '.join(there)} here, not {name}")
    return there[0] if name == "auto" else name


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str):
        fail(message, status=2)


def fail(message: object, status: int) -> None:
    print(f"train.py: {message}", file=sys.stderr)
    sys.exit(status)


def parse(arguments: list[str] | None = None) -> Config:
    """The configuration that the command line asks for; a bad one ends with status 2 and one line."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False, formatter_class=Help)
    parser.add_argument("--fast", action="store_true", help=f"the same story, smaller: {FAST}")
    for each in fields(Config):
        if isinstance(each.default, bool):
            kind = {"action": "store_true"}
        else:
            kind = {"type": type(each.default), "default": each.default}
        parser.add_argument(flag(each.name), help=each.metadata["help"], **kind)
    if "--fast" in (sys.argv[1:] if arguments is None else arguments):
        parser.set_defaults(**FAST)
    chosen = vars(parser.parse_args(arguments))
    del chosen["fast"]
    try:
        return Config(**chosen)
    except ValueError as error:
        fail(error, status=2)


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every flag, the description as it is written."""


# Units of work: each takes the configuration and its own name, and returns what goes into its file.


def new_policy(config: Config, name: str) -> tuple[GPT, SumGame, torch.Generator]:
    """A policy, its world, and the unit's own generator."""
    env = SumGame(config.max_terms)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{config.seed} {name}".encode()))
    context = env.prompt_length + env.completion_length - 1
    sizes = GPTConfig(len(env.vocab), context, config.n_layer, config.n_head, config.d_model)
    return GPT(sizes, generator).to(config.device), env, generator


def pretrain_unit(config: Config, name: str) -> dict:
    """Pretraining: losses, and the weights, loss and exact success at each checkpoint."""
    policy, env, generator = new_policy(config, name)
    steps, count = config.pretrain_steps, config.checkpoints
    grid = tuple(steps * (i + 1) // count for i in range(count))
    entries, weights = [], {}

    @torch.no_grad()
    def keep(step: int, loss: float) -> None:
        entries.append({"step": step, "loss": loss, "success": success(policy, env).mean().item()})
        weights[step] = {key: value.cpu().clone() for key, value in policy.state_dict().items()}

    losses = pretrain(policy, env, steps, generator, checkpoints=grid, at_checkpoint=keep)
    return {"losses": losses, "entries": entries, "weights": weights}


def method_unit(config: Config, name: str, start: int, method: str) -> dict:
    """RL by one method from a checkpoint of pretraining: its history, and the final weights."""
    policy, env, generator = new_policy(config, name)
    policy.load_state_dict(load(config, "pretrain clean")["weights"][start])
    history = improve(
        policy, env, method, config.rl_steps, generator, config.group_size, config.learning_rate
    )
    return {"history": history, "weights": {k: v.cpu() for k, v in policy.state_dict().items()}}


# Running units: side by side, one thread each, each leaving one file.


def unit_path(config: Config, name: str) -> Path:
    return config.path("units", name.replace(" ", "-") + ".pt")


def load(config: Config, name: str) -> dict:
    path = unit_path(config, name)
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        raise RuntimeError(f"{path} is damaged; delete it and run the same command again") from error


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file whole or not at all: save to a temporary name, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    save(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def work(config: Config, name: str, function: Callable, *arguments) -> float:
    """Compute one unit and leave its file; the seconds it took."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    result = function(config, name, *arguments)
    write(unit_path(config, name), lambda path: torch.save(result, path))
    return time.perf_counter() - start


def run(config: Config, units: list[tuple]) -> list[dict]:
    """The results of units (name, function, *arguments), computing those that have no file yet."""
    todo = [unit for unit in units if not unit_path(config, unit[0]).exists()]
    terminal = sys.stderr.isatty()
    with (
        tqdm(total=len(units), initial=len(units) - len(todo), disable=not terminal) as bar,
        ProcessPoolExecutor(
            max(1, min(config.jobs, len(todo))), multiprocessing.get_context("spawn")
        ) as pool,
    ):
        futures = {pool.submit(work, config, *unit): unit[0] for unit in todo}
        for future in as_completed(futures):
            line = f"{futures[future]}: {future.result():.1f} s"
            bar.set_description(line)
            bar.update()
            if not terminal:
                print(f"  {line}")
    return [load(config, unit[0]) for unit in units]


def prepare(config: Config) -> None:
    """Make the output folder, or check that what is there belongs to this configuration."""
    identity = json.loads(json.dumps(config.identity))
    marker = config.path("config.json")
    if config.fresh:
        for folder in ("units", "figures"):
            shutil.rmtree(config.path(folder), ignore_errors=True)
        for file in ("report.json", "config.json"):
            config.path(file).unlink(missing_ok=True)
    if marker.exists():
        there = json.loads(marker.read_text())
        differ = [key for key in identity if there.get(key) != identity[key]]
        if differ:
            changes = ", ".join(f"{key} {there.get(key)} there, {identity[key]} now" for key in differ)
            raise ValueError(
                f"--out {config.out} holds a run with {changes}; choose another --out, or add --fresh"
            )
    config.path("figures").mkdir(parents=True, exist_ok=True)
    write(marker, lambda path: path.write_text(json.dumps(identity, indent=2)))


# The story.


def main(arguments: list[str] | None = None) -> None:
    config = parse(arguments)
    try:
        prepare(config)
    except (ValueError, OSError) as error:
        fail(error, status=2)
    started = time.perf_counter()
    env = SumGame(config.max_terms)
    print(f"World: {len(env.prompts)} prompts such as 12=, answered by sums such as 9+3.")

    print(f"\n1. Pretraining, {config.pretrain_steps} steps")
    (pretraining,) = run(config, [("pretrain clean", pretrain_unit)])
    print(table(pretraining["entries"], {"step": "d", "loss": ".3f", "success": ".3f"}))

    start = starting_point(pretraining["entries"])
    print(f"\n2. GRPO from step {start}, {config.rl_steps} rollouts")
    (grpo,) = run(config, [("method GRPO", method_unit, start, "GRPO")])
    columns = {"step": "d", "samples": "d", "success": ".3f"}
    print(table(grpo["history"], columns))

    report = {
        "config": asdict(config),
        "versions": {"python": platform.python_version(), "torch": torch.__version__}
        | {"numpy": numpy.__version__},
        "seconds": time.perf_counter() - started,
        "pretraining": pretraining["entries"],
        "leaderboard": [leaderboard_entry("GRPO", config.seed, grpo["history"])],
        "claims": claims(grpo["history"]),
    }
    write(config.path("report.json"), lambda path: path.write_text(json.dumps(report, indent=2)))
    figure = figures.learning_curve(pretraining["entries"], start, grpo["history"])
    write(config.path("figures", "learning_curve.png"), lambda path: figure.savefig(path, format="png"))
    print("\n" + claims_table(report["claims"]))
    print(f"\n{report['seconds']:.0f} s; report and figures in {config.out}")


def starting_point(entries: list[dict]) -> int:
    """The last checkpoint whose exact success is at most START_AT_MOST, or the first of all."""
    low = [entry["step"] for entry in entries if entry["success"] <= START_AT_MOST]
    return low[-1] if low else entries[0]["step"]


def leaderboard_entry(method: str, seed: int, history: list[dict]) -> dict:
    last = history[-1]
    return {
        "method": method,
        "seed": seed,
        "curve": history,
        "success": last["success"],
        "samples": last["samples"],
        "seconds": last["seconds"],
    }


def claims(history: list[dict]) -> list[dict]:
    """What the run was to show, and whether it did."""
    after = history[-1]["success"]
    statement = f"GRPO from a checkpoint of success ≤ {START_AT_MOST} reaches the threshold"
    return [
        {
            "claim": "GRPO",
            "statement": statement,
            "measured": after,
            "threshold": GRPO_REACHES,
            "holds": after >= GRPO_REACHES,
        }
    ]


def table(rows: list[dict], columns: dict[str, str]) -> str:
    """Rows as text, right-aligned; `columns` maps a key to its format."""
    lines = [[*columns]] + [[format(row[key], columns[key]) for key in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths)) for line in lines)


def claims_table(rows: list[dict]) -> str:
    lines = [f"{'claim':8}{'measured':>10}{'threshold':>11}  holds  statement"]
    for row in rows:
        holds = "yes" if row["holds"] else "NO"
        numbers = f"{row['measured']:>10.3f}{row['threshold']:>11.3f}"
        lines.append(f"{row['claim']:8}{numbers}  {holds:5}  {row['statement']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
