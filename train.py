"""The whole story in one command: python train.py

1. Pretrain a tiny GPT on a clean and on a narrow corpus of sums, keeping checkpoints.
2. Ask at each checkpoint what RL would gain (readiness), and measure what it does gain.
3. From the checkpoint that readiness picks, run every method beside the exact gradient.
4. Audit the costates against enumerated value gradients.

Each unit of work (a pretraining, an RL run, an audit) is a function of the configuration, the seed
and its own name, runs on one thread, and leaves one file; so units run side by side, the result
does not depend on how many do, and the same command continues where it was stopped.
"""

import argparse
import copy
import hashlib
import json
import math
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy
import torch
from tqdm import tqdm

from minicf.audit import audit, control
from minicf.env import SumGame
from minicf.exact import distinct_solutions, success
from minicf.gpt import GPT, GPTConfig
from minicf.readiness import PREDICTORS, bootstrap_interval, measure, ranking
from minicf.training import METHODS, improve, pretrain

# What pretraining reads, by name of the corpus; the demonstration uses the first two.
CORPORA = {"clean": {}, "narrow": {"max_target": 9}, "wrong": {"wrong": 1 / 3}}
GAIN_OPTIONS = {"learning_rate": 3e-4, "warmup": 5}  # of a short run: small steps, from checkpoints
AUDIT_STEPS = (300, 100, 25)  # pretraining steps of the audited checkpoints

# Thresholds of the claims, set before the run that is quoted.
START_AT_MOST = 0.60  # exact success of the checkpoint that RL starts from
GRPO_REACHES = 0.95
EXACT = 1e-8  # relative error of an identity in float64; some gradients are themselves 1e-6
Z_AT_MOST = 4.0  # standard errors, for the largest of 13 sample means
CONTROL_Z = 10.0  # standard errors by which the noise-free costate must miss, away from s = 0
VANISHED = 0.01  # what may be left of the error and of the signal
RANK_AT_LEAST = 0.6
PICK_AT_LEAST = 0.85
CRITIC_LEADS_BY = 0.02  # at most, in exact success, over the best method without one


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
    pretrain_steps: int = option(800, "steps of each pretraining", 1)
    checkpoints: int = option(8, "checkpoints kept along pretraining, evenly spaced", 1)
    gain_steps: int = option(
        20, "rollouts of the short GRPO run that measures a checkpoint's gain", 1
    )
    gain_seeds: int = option(2, "RL seeds of that run", 1)
    rl_steps: int = option(140, "rollouts of a method in the leaderboard", 1)
    group_size: int = option(8, "completions sampled per prompt and rollout", 2)
    learning_rate: float = option(1e-3, "peak learning rate of RL", 1e-9)
    audits: int = option(3, f"checkpoints to audit, the first of {AUDIT_STEPS}", 1)
    study: int = option(0, "seeds of the study, from --seed on; 0 runs the demonstration", 0)

    def __post_init__(self):
        for each in fields(self):
            value, least = getattr(self, each.name), each.metadata["least"]
            if least is not None and not value >= least:
                raise ValueError(f"{flag(each.name)} must be at least {least}, not {value}")
            if value == float("inf"):
                raise ValueError(f"{flag(each.name)} must be finite, not {value}")
        if self.max_terms > 5:
            raise ValueError(f"--max-terms must be at most 5, not {self.max_terms}")
        if self.audits > len(AUDIT_STEPS):
            raise ValueError(f"--audits must be at most {len(AUDIT_STEPS)}, not {self.audits}")
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
            if path.stem not in ("figures", "lesson", "bench"):  # these change no result
                digest.update(path.read_bytes())
        chosen = {e.name: getattr(self, e.name) for e in fields(self) if not e.metadata["run"]}
        return chosen | {"torch": torch.__version__, "code": digest.hexdigest()[:16]}

    def path(self, *parts: str) -> Path:
        return Path(self.out, *parts)


FAST = dict(
    out="runs/fast", max_terms=2, d_model=32, pretrain_steps=200, checkpoints=4, gain_steps=10,
    gain_seeds=1, rl_steps=40, learning_rate=3e-3, audits=1,
)  # fmt: skip


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
    """The configuration the command line asks for; a bad one ends with status 2 and one line."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False, formatter_class=Help)
    parser.add_argument(
        "--fast", action="store_true", help="the same story, smaller, in under 30 s"
    )
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


def generator_of(config: Config, name: str) -> torch.Generator:
    """The unit's own generator; nothing that another unit draws changes it."""
    return torch.Generator().manual_seed(zlib.crc32(f"{config.seed} {name}".encode()))


def new_policy(config: Config, env: SumGame, generator: torch.Generator, d_model: int) -> GPT:
    context = env.prompt_length + env.completion_length - 1
    sizes = GPTConfig(len(env.vocab), context, config.n_layer, config.n_head, d_model)
    return GPT(sizes, generator).to(config.device)


def checkpoint(config: Config, corpus: str, step: int) -> tuple[GPT, SumGame]:
    """The policy of a pretraining at a step, and its world."""
    env = SumGame(config.max_terms)
    policy = new_policy(config, env, torch.Generator(), config.d_model)
    policy.load_state_dict(load(config, f"pretrain {corpus}")["weights"][step])
    return policy, env


def pretrain_unit(config: Config, name: str, corpus: str) -> dict:
    """Pretraining: losses, and at each checkpoint the weights and all that predicts a gain."""
    env, generator = SumGame(config.max_terms), generator_of(config, name)
    policy = new_policy(config, env, generator, config.d_model)
    steps, count = config.pretrain_steps, config.checkpoints
    grid = tuple(steps * (i + 1) // count for i in range(count))
    entries, weights = [], {}

    def keep(step: int, loss: float) -> None:
        measured = measure(policy, env)
        entries.append({"corpus": corpus, "step": step, "loss": loss} | measured)
        weights[step] = {key: value.cpu().clone() for key, value in policy.state_dict().items()}

    options = CORPORA[corpus]
    losses = pretrain(
        policy, env, steps, generator, checkpoints=grid, at_checkpoint=keep, **options
    )
    return {"losses": losses, "entries": entries, "weights": weights}


def gain_unit(config: Config, name: str, corpus: str, step: int) -> dict:
    """The real gain in exact success of a short GRPO run, and of as many more pretraining steps."""
    policy, env = checkpoint(config, corpus, step)
    gains = []
    for seed in range(config.gain_seeds):  # the same for every checkpoint
        trial, generator = copy.deepcopy(policy), generator_of(config, f"gain {seed}")
        history = improve(
            trial, env, "GRPO", config.gain_steps, generator, config.group_size,
            evaluate_every=config.gain_steps, **GAIN_OPTIONS,
        )  # fmt: skip
        gains.append(history[-1]["success"] - history[0]["success"])
    pretrain(
        policy, env, config.gain_steps, generator_of(config, "more pretraining"),
        **GAIN_OPTIONS, **CORPORA[corpus],
    )  # fmt: skip
    with torch.no_grad():
        more = success(policy, env).mean().item() - history[0]["success"]
    return {"gain": sum(gains) / len(gains), "more_pretraining": more}


def method_unit(config: Config, name: str, step: int, method: str) -> dict:
    """A method of the leaderboard from a clean checkpoint: its row, and the final weights."""
    policy, env = checkpoint(config, "clean", step)
    generator = generator_of(config, name)
    curve = improve(
        policy, env, method, config.rl_steps, generator, config.group_size, config.learning_rate
    )
    last = curve[-1]
    row = {"method": method, "seed": config.seed, "curve": curve}
    shown = ("success", "samples", "seconds", "entropy", "clip_fraction", "value_error")
    row |= {key: last[key] for key in shown if key in last}
    row["distinct"] = distinct_solutions(policy, env).mean().item()
    return {"row": row, "weights": {key: value.cpu() for key, value in policy.state_dict().items()}}


def audit_unit(config: Config, name: str) -> dict:
    """C1 to C5, on a narrow policy of its own in the two-term world, pretrained here."""
    env, generator, checkpoints = SumGame(2), generator_of(config, name), {}
    policy = new_policy(config, env, generator, 4 * config.n_head).cpu()
    steps = sorted(AUDIT_STEPS[: config.audits])

    def keep(step: int, loss: float) -> None:
        checkpoints[step] = copy.deepcopy(policy).double()

    pretrain(
        policy, env, steps[-1], generator, learning_rate=1e-2,
        checkpoints=tuple(steps), at_checkpoint=keep,
    )  # fmt: skip
    return {"costates": audit(checkpoints, env, generator), "control": control(generator)}


# Running units: side by side, one thread each, each leaving one file.


def unit_path(config: Config, name: str) -> Path:
    name = f"{config.seed} {name}" if config.study else name
    return config.path("units", name.replace(" ", "-") + ".pt")


def load(config: Config, name: str) -> dict:
    path = unit_path(config, name)
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        raise RuntimeError(
            f"{path} is damaged; delete it and run the same command again"
        ) from error


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file whole or not at all: save to a temporary name, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def work(config: Config, name: str, function: Callable, *arguments) -> float:
    """Compute one unit and leave its file; the seconds it took."""
    start = time.perf_counter()
    result = function(config, name, *arguments)
    write(unit_path(config, name), lambda path: torch.save(result, path))
    return time.perf_counter() - start


def start_worker() -> None:
    """One thread for each unit; an interrupt is the parent's business, and its death ours."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


class Units:
    """Units of work (config, name, function, *arguments), run side by side, each in a process."""

    def __init__(self, jobs: int):
        spawn = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(jobs, spawn, initializer=start_worker)

    def run(self, units: list[tuple]) -> list[dict]:
        """The units' results in order, computing those that have no file yet."""
        todo = [unit for unit in units if not unit_path(*unit[:2]).exists()]
        futures = {self.pool.submit(work, *unit): unit[1] for unit in todo}
        terminal = sys.stderr.isatty()
        done = len(units) - len(todo)
        with tqdm(total=len(units), initial=done, disable=not terminal, leave=False) as bar:
            for future in as_completed(futures):
                line = f"{futures[future]}: {future.result():.1f} s"
                bar.set_description(line)
                bar.update()
                if not terminal:
                    print(f"  {line}", flush=True)
        return [load(*unit[:2]) for unit in units]

    def stop(self) -> None:
        """End at once, whatever is running; half-computed units leave no file."""
        for process in list((self.pool._processes or {}).values()):
            process.kill()
        self.pool.shutdown(wait=False, cancel_futures=True)


def prepare(config: Config) -> None:
    """Make the output folder, or check that what is there belongs to this configuration."""
    identity = json.loads(json.dumps(config.identity))
    marker = config.path("config.json")
    if config.fresh:
        for folder in ("units", "figures"):
            shutil.rmtree(config.path(folder), ignore_errors=True)
        for file in ("report.json", "study.json", "config.json"):
            config.path(file).unlink(missing_ok=True)
    if marker.exists():
        there = json.loads(marker.read_text())
        differ = [key for key in identity if there.get(key) != identity[key]]
        if differ:
            changes = ", ".join(
                f"{key} {there.get(key)} there, {identity[key]} now" for key in differ
            )
            raise ValueError(
                f"--out {config.out} holds a run with {changes}; "
                "choose another --out, or add --fresh"
            )
    config.path("figures").mkdir(parents=True, exist_ok=True)
    for left in config.path("units").glob("*.partial"):
        left.unlink(missing_ok=True)
    write(marker, lambda path: path.write_text(json.dumps(identity, indent=2)))


# The story.


def main(arguments: list[str] | None = None) -> None:
    config = parse(arguments)
    try:
        prepare(config)
    except (ValueError, OSError) as error:
        fail(error, status=2)
    units = Units(config.jobs)
    try:
        study(config, units) if config.study else demonstrate(config, units)
    except KeyboardInterrupt:
        units.stop()
        fail("interrupted; the same command continues from the units that are done", status=130)
    except (FloatingPointError, RuntimeError, OSError) as error:
        units.stop()
        fail(error, status=1)
    units.pool.shutdown()


def demonstrate(config: Config, units: Units) -> None:
    """Pretraining, readiness, every method, the audit; then the report, figures and claims."""
    started = time.perf_counter()
    world = SumGame(config.max_terms)
    answers = sum(len(world.solutions(prompt)) for prompt in world.prompts)
    print(f"World: {len(world.prompts)} prompts such as 12=, {answers:,} right answers in all.")

    print(f"\n1. Pretraining on a clean and a narrow corpus, {config.pretrain_steps} steps each")
    corpora = ("clean", "narrow")
    runs = units.run([(config, f"pretrain {c}", pretrain_unit, c) for c in corpora])
    entries = [entry for run in runs for entry in run["entries"]]
    start = starting_point(entries)

    print(f"\n2. RL's gain at each checkpoint, 3. every method from step {start}, 4. the audit")
    methods = [(config, f"method {m}", method_unit, start, m) for m in METHODS]
    results = units.run(methods + [(config, "audit", audit_unit)] + gain_units(config, entries))
    board = [result["row"] for result in results[: len(METHODS)]]
    checked, gains = results[len(METHODS)], results[len(METHODS) + 1 :]
    entries = [entry | gain for entry, gain in zip(entries, gains)]
    report = {
        "config": config.identity,
        "versions": {"python": platform.python_version(), "torch": torch.__version__}
        | {"numpy": numpy.__version__},
        "seconds": time.perf_counter() - started,
        "pretraining": [{k: e[k] for k in ("corpus", "step", "loss", "success")} for e in entries],
        "readiness": entries,
        "rank_correlation": ranking(entries),
        "leaderboard": board,
        "costates": checked["costates"],
        "control": checked["control"],
    }
    report["claims"] = claims(report)
    write(config.path("report.json"), lambda path: path.write_text(json.dumps(report, indent=2)))
    draw(config, report, start)
    tell(report)
    print(f"\n{report['seconds']:.0f} s; report and figures in {config.out}")


def gain_units(config: Config, entries: list[dict]) -> list[tuple]:
    places = [(entry["corpus"], entry["step"]) for entry in entries]
    return [(config, f"gain {corpus} {step}", gain_unit, corpus, step) for corpus, step in places]


def starting_point(entries: list[dict]) -> int:
    """The clean checkpoint that readiness picks among those of success at most START_AT_MOST."""
    clean = [entry for entry in entries if entry["corpus"] == "clean"]
    low = [entry for entry in clean if entry["success"] <= START_AT_MOST] or clean[:1]
    return max(low, key=lambda entry: entry["readiness"])["step"]


def claims(report: dict) -> list[dict]:
    """Each claim with what was measured, its threshold, and whether it holds."""
    return [
        *control_claims(report["control"]),
        *costate_claims(report["costates"], report["config"]["n_layer"]),
        *decision_claims(report["rank_correlation"], report["leaderboard"]),
    ]


def claim(name: str, statement: str, measured: float, relation: str, threshold: float) -> dict:
    holds = measured <= threshold if relation == "≤" else measured >= threshold
    row = {"claim": name, "statement": statement, "measured": measured}
    return row | {"relation": relation, "threshold": threshold, "holds": holds}


def control_claims(found: dict) -> list[dict]:
    """C1: the differentiable world."""
    z = max(abs(row["z"]) for row in found["scatter"])
    miss = min(abs(row["noise_free_z"]) for row in found["scatter"] if abs(row["s"]) > 0.1)
    ratio = {(row["gain"], row["horizon"]): row["ratio"] for row in found["variance"]}
    regimes = min(ratio[-0.2, 20], 1 / ratio[0.1, 20])
    return [
        claim("C1", "noisy costates average to ∇V, worst z", z, "≤", Z_AT_MOST),
        claim("C1", "control: the noise-free costate is not ∇V, least z", miss, "≥", CONTROL_Z),
        claim("C1", "each gradient estimator has its regime, least ratio", regimes, "≥", 1.0),
    ]


def costate_claims(found: dict, top: int) -> list[dict]:
    """C2 to C5: the transformer's costates, over all audited states; `top` is above the blocks."""
    states = found["states"]
    worst = {key: max(row[key] for row in states) for key in states[0] if key != "prefix"}
    above = max(abs(row["attention_share"]) for row in states if row["layer"] == top)
    order = min(min(row["collision"], row["entropy"] / row["collision"]) for row in states)
    bound = min(row["attention_bound"] for row in states)
    first, *_, last = found["hardening"]["shifting"]
    left = max(last[key] / first[key] for key in ("error", "signal"))
    first, *_, last = found["hardening"]["cooling"]
    growth = last["error"] / first["error"] if last["nats"] < first["nats"] else 0.0
    exact = {
        "unbiased": ("C2", "E[costate] = ∇V, relative error"),
        "own_mean": ("C3", "group mean shrinks it by 1 − 1/G, error"),
        "leave_one_out": ("C3", "leave-one-out leaves it, error"),
        "std_turn": ("C3", "the std does not turn a prompt's costate, 1 − cosine"),
        "product_rule": ("C4", "own logit + attention = product rule, error"),
        "martingale": ("C5", "error = sum of sampling gaps (martingale)"),
        "gap": ("C5", "error = ¼ΣE[κ(1 − Σπ²)] − ‖∇V‖² for b = ½"),
    }
    return [
        *(claim(*names, worst[key], "≤", EXACT) for key, names in exact.items()),
        claim("C4", "control: no share of attention above the blocks", above, "≤", 0.0),
        claim("C5", "entropy bounds stay above the error, least ratio", order, "≥", 1.0),
        claim("C5", "error and signal vanish where one logit takes all", left, "≤", VANISHED),
        claim("C5", "but cooling lowers entropy and raises the error", growth, "≥", 1.0),
        claim("C5b", "attention alone is biased by less than its bound", bound, "≥", 1.0),
    ]


def decision_claims(ranks: dict, board: list[dict]) -> list[dict]:
    """C6 and C7: when RL pays, and what a critic adds."""
    rank, parabola = (ranks["pooled"][name]["rank"] for name in ("readiness", "p(1 − p)"))
    pick = ranks["clean"]["readiness"]["pick"]
    final = {row["method"]: row["success"] for row in board if row["method"] != "oracle"}
    lead = final.pop("PPO with critic") - max(final.values())
    grpo, reaches = final["GRPO"], f"GRPO from success ≤ {START_AT_MOST} reaches"
    return [
        claim("C6", "readiness ranks real gains, both corpora", rank, "≥", RANK_AT_LEAST),
        claim("C6", "and better than the parabola p(1 − p), by", rank - parabola, "≥", 0.0),
        claim("C6", "its pick's share of the best gain, clean", pick, "≥", PICK_AT_LEAST),
        claim("C7", reaches, grpo, "≥", GRPO_REACHES),
        claim("C7", "the critic's lead over the best method without", lead, "≤", CRITIC_LEADS_BY),
    ]


def draw(config: Config, report: dict, start: int) -> None:
    """The figures, each a file under figures/."""
    from minicf import figures  # here, so that workers start without matplotlib

    entries, board, costates = report["readiness"], report["leaderboard"], report["costates"]
    clean = [entry for entry in entries if entry["corpus"] == "clean"]
    grpo = next(row["curve"] for row in board if row["method"] == "GRPO")
    drawn = {
        "learning_curve": figures.learning_curve(clean, start, grpo),
        "readiness": figures.readiness(entries),
        "leaderboard": figures.leaderboard(board),
        "control": figures.control(report["control"]),
        "samples": figures.samples(costates["samples"]),
        "attention": figures.attention(costates["states"]),
        "error": figures.error(costates["along"]),
        "hardening": figures.hardening(costates["hardening"]),
    }
    for name, figure in drawn.items():
        path = config.path("figures", f"{name}.png")
        write(path, lambda path, figure=figure: figure.savefig(path, format="png", dpi=150))


def tell(report: dict) -> None:
    """The tables and the verdicts, in the terminal."""
    columns = {"corpus": "", "step": "d", "loss": ".3f", "success": ".3f", "pass_at_k": ".3f"}
    columns |= {"signal": ".3f", "headroom": ".3f", "readiness": ".3f", "reward_std": ".3f"}
    print(
        "\nAt each checkpoint; gain is that of a short GRPO run, more_pretraining of as many steps"
    )
    print(table(report["readiness"], columns | {"gain": "+.3f", "more_pretraining": "+.3f"}))
    print("\nRank correlation with the gain, and the pick's share of the best gain")
    print(ranking_table(report["rank_correlation"]))
    print(
        "\nLeaderboard, best first; distinct: right answers per prompt that 64 samples would show"
    )
    print(leaderboard_table(report["leaderboard"]))
    print("\n" + claims_table(report["claims"]))
    if not all(row["holds"] for row in report["claims"]):
        print("NO: not in this run. The thresholds are meant for the default sizes.")


def ranking_table(ranks: dict) -> str:
    rows = [
        {"predictor": name}
        | {f"{pool} {kind}": ranks[pool][name][kind] for pool in ranks for kind in ("rank", "pick")}
        for name in PREDICTORS
    ]
    return table(rows, {key: "" if key == "predictor" else ".2f" for key in rows[0]})


def leaderboard_table(board: list[dict]) -> str:
    """The methods by final success, distance to the oracle, and a line on what it supports."""
    oracle = next(row["success"] for row in board if row["method"] == "oracle")
    rows = [
        {"entropy": math.nan, "clip_fraction": math.nan, "value_error": math.nan}
        | row | {"to_oracle": row["success"] - oracle}
        for row in sorted(board, key=lambda row: -row["success"])
    ]  # fmt: skip
    columns = {
        "method": "", "success": ".3f", "to_oracle": "+.3f", "samples": "d", "seconds": ".1f",
        "distinct": ".1f", "entropy": ".2f", "clip_fraction": ".3f", "value_error": ".3f",
    }  # fmt: skip
    spread = rows[0]["success"] - rows[-1]["success"]
    words = (
        f"One RL seed: an order within {spread:.3f} is no verdict; `--study` has the seeds for one."
    )
    return table(rows, columns) + "\n" + words


def table(rows: list[dict], columns: dict[str, str]) -> str:
    """Rows as text; `columns` maps a key to its format, and text has none. A nan is left out."""
    lines = [[*columns]]
    for row in rows:
        cells = [format(row[key], columns[key]) for key in columns]
        lines.append(["-" if "nan" in cell else cell for cell in cells])
    sizes = [max(map(len, column)) for column in zip(*lines)]
    align = [str.rjust if form else str.ljust for form in columns.values()]
    lines = [[put(cell, n) for put, cell, n in zip(align, line, sizes)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def claims_table(rows: list[dict]) -> str:
    shown = [
        {"claim": row["claim"], "measured": f"{row['measured']:.3g}"}
        | {"threshold": f"{row['relation']} {row['threshold']:g}"}
        | {"holds": "yes" if row["holds"] else "NO", "statement": row["statement"]}
        for row in rows
    ]
    return table(shown, dict.fromkeys(shown[0], ""))


# The study: the demonstration's claims C6 and C7 over seeds, and a third corpus.


def study(config: Config, units: Units) -> None:
    """Pretraining seeds × three corpora, their gains, and the leaderboard from each clean pick."""
    seeds = [replace(config, seed=config.seed + i) for i in range(config.study)]
    runs = units.run(
        [(each, f"pretrain {c}", pretrain_unit, c) for each in seeds for c in CORPORA]
    )
    entries = [run["entries"] for run in runs]
    by_seed = [sum(entries[i : i + len(CORPORA)], []) for i in range(0, len(entries), len(CORPORA))]
    todo = []
    for each, some in zip(seeds, by_seed):
        start = starting_point(some)
        todo += gain_units(each, some)
        todo += [(each, f"method {m}", method_unit, start, m) for m in METHODS]
    results = iter(units.run(todo))
    rows, board, ranks = [], [], []
    for each, some in zip(seeds, by_seed):
        some = [entry | next(results) for entry in some]
        rows += [{"seed": each.seed} | entry for entry in some]
        ranks.append(ranking(some))
        board += [next(results)["row"] for _ in METHODS]
    report = {"command": f"python train.py --study {config.study} --seed {config.seed}"}
    report |= {"config": config.identity, "checkpoints": rows, "ranks": summary(ranks, config.seed)}
    report["methods"] = methods_summary(board, config.seed)
    kept = ("step", "success", "seconds")
    for row in board:
        row["curve"] = [{key: entry[key] for key in kept} for entry in row["curve"]]
    report["leaderboard"] = board
    text = json.dumps(rounded(report), indent=1)
    write(config.path("study.json"), lambda path: path.write_text(text))
    print(study_table(report["ranks"], "rank"), study_table(report["ranks"], "pick"), sep="\n\n")
    print("\n" + table(report["methods"], {"method": "", "success": ".3f", "interval": ""}))


def summary(ranks: list[dict], seed: int) -> dict:
    """Mean over seeds of each predictor's rank correlation and pick, with bootstrap intervals."""
    generator = torch.Generator().manual_seed(seed)
    return {
        pool: {
            name: {
                kind: interval([rank[pool][name][kind] for rank in ranks], generator)
                for kind in ("rank", "pick")
            }
            for name in PREDICTORS
        }
        for pool in ranks[0]
    }


def interval(values: list[float], generator: torch.Generator) -> list[float]:
    """Mean, and the ends of its 95 % bootstrap interval."""
    return [sum(values) / len(values), *bootstrap_interval(torch.tensor(values), generator)]


def methods_summary(board: list[dict], seed: int) -> list[dict]:
    """Mean final success of each method over seeds, with its bootstrap interval, best first."""
    generator, rows = torch.Generator().manual_seed(seed), []
    for method in METHODS:
        values = [row["success"] for row in board if row["method"] == method]
        mean, low, high = interval(values, generator)
        rows.append({"method": method, "success": mean, "interval": f"{low:.3f} to {high:.3f}"})
    return sorted(rows, key=lambda row: -row["success"])


def study_table(ranks: dict, kind: str) -> str:
    rows = []
    for name in PREDICTORS:
        cells = {pool: ranks[pool][name][kind] for pool in ranks}
        shown = {pool: f"{m:.2f} [{low:.2f}, {high:.2f}]" for pool, (m, low, high) in cells.items()}
        rows.append({kind: name} | shown)
    return table(rows, dict.fromkeys(rows[0], ""))


def rounded(thing):
    """Floats to four digits after the point, so that a stored study stays small."""
    if isinstance(thing, float):
        return round(thing, 4)
    if isinstance(thing, dict):
        return {key: rounded(value) for key, value in thing.items()}
    return [rounded(value) for value in thing] if isinstance(thing, list) else thing


if __name__ == "__main__":
    main()
