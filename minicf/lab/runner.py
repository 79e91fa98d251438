"""Running the story: the command line, and units of work side by side that can be continued.

A unit of work is a function of the configuration, the seed and its own name. It runs on one thread
and leaves one file, so the result does not depend on how many run at once, and the same command
continues where it was stopped.
"""

import argparse
import ast
import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from tqdm import tqdm

from .. import training

ROOT = Path(__file__).resolve().parent.parent.parent
CHANGE_NO_RESULT = ("figures", "lesson_figures", "lesson", "tables", "bench")


# The command line.


def option(default, text: str, least: float | None = None, run: bool = False):
    """A field of the configuration; `run` marks those that say how, not what, is computed."""
    return dataclasses.field(default=default, metadata={"help": text, "least": least, "run": run})


def flag(name: str) -> str:
    """The command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def check_options(config) -> None:
    """Raise ValueError for a field below its least value or not finite; resolve `device`."""
    for each in dataclasses.fields(config):
        value, least = getattr(config, each.name), each.metadata["least"]
        if least is not None and not value >= least:
            raise ValueError(f"{flag(each.name)} must be at least {least}, not {value}")
        if value == math.inf:
            raise ValueError(f"{flag(each.name)} must be finite, not {value}")
    object.__setattr__(config, "device", available_device(config.device))


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
    """A parser whose errors are one line."""

    def error(self, message: str):
        """End with status 2 and the message."""
        fail(message, status=2)


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every flag, the description as it is written."""


def fail(message: object, status: int) -> None:
    """End the program with one line."""
    print(f"train.py: {message}", file=sys.stderr)
    sys.exit(status)


def parse(config_class: type, description: str, fast: dict, arguments: list[str] | None = None):
    """The configuration the command line asks for; a bad one ends with status 2 and one line.

    The flags are the fields of the dataclass `config_class`; --fast changes defaults to `fast`.
    """
    parser = OneLineParser(description=description, allow_abbrev=False, formatter_class=Help)
    parser.add_argument("--fast", action="store_true", help="the same story, smaller")
    for each in dataclasses.fields(config_class):
        if isinstance(each.default, bool):
            kind = {"action": "store_true"}
        else:
            kind = {"type": type(each.default), "default": each.default}
        parser.add_argument(flag(each.name), help=each.metadata["help"], **kind)
    if "--fast" in (sys.argv[1:] if arguments is None else arguments):
        parser.set_defaults(**fast)
    chosen = vars(parser.parse_args(arguments))
    del chosen["fast"]
    try:
        return config_class(**chosen)
    except ValueError as error:
        fail(error, status=2)


# The folder of a run.


def identity(config) -> dict:
    """What results depend on: the fields that are no run options, constants, PyTorch, the code."""
    chosen = {e.name: getattr(config, e.name) for e in dataclasses.fields(config)
              if not e.metadata["run"]}  # fmt: skip
    digest = hashlib.sha256()
    for path in [ROOT / "train.py", *sorted((ROOT / "minicf").rglob("*.py"))]:
        if path.stem not in CHANGE_NO_RESULT:
            digest.update(path.read_bytes())
    names = ("BETAS", "WEIGHT_DECAY", "GRADIENT_CLIP", "LEARNING_RATE_FLOOR", "VALUE_COEF")
    constants = {name.lower(): getattr(training, name) for name in names}
    code = {"torch": torch.__version__, "code": digest.hexdigest()[:16]}
    return json.loads(json.dumps(chosen | constants | code))


MAKE_THE_STUDY = (
    "gpt", "env", "tap", "rollout", "ppo", "grpo", "critic", "exact", "costate", "training",
    "readiness", "lab/policies", "lab/study",
)  # fmt: skip


def study_digest() -> str:
    """Of the code that computes the study; comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for name in MAKE_THE_STUDY:
        source = (ROOT / "minicf" / f"{name}.py").read_text()
        digest.update(repr(syntax(ast.parse(source))).encode())
    return digest.hexdigest()[:16]


def syntax(node) -> object:
    """A syntax tree as nested lists, without docstrings and places."""
    if isinstance(node, list):
        kept = [each for each in node if not _is_text(each)]
        return [syntax(each) for each in kept]
    if not isinstance(node, ast.AST):
        return node
    there = [(key, value) for key, value in ast.iter_fields(node) if value not in (None, [])]
    fields = [[key, syntax(value)] for key, value in there]
    return [type(node).__name__, fields]


def _is_text(node) -> bool:
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant and isinstance(node.value.value, str)


def unit_path(config, name: str) -> Path:
    """The file that the unit of this name leaves."""
    over_seeds = config.study or config.verdicts or config.critics
    name = f"{config.seed} {name}" if over_seeds else name
    return Path(config.out, "units", name.replace(" ", "-") + ".pt")


def load(config, name: str) -> dict:
    """What a unit left; RuntimeError for a damaged file."""
    path = unit_path(config, name)
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        raise RuntimeError(
            f"{path} is damaged; delete it and run the same command again"
        ) from error


def generator_of(config, name: str) -> torch.Generator:
    """A unit's own generator; nothing that another unit draws changes it."""
    return torch.Generator().manual_seed(zlib.crc32(f"{config.seed} {name}".encode()))


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file whole or not at all: save to a temporary name, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, thing) -> None:
    """Write a report: what is not a number becomes null, which every reader knows."""
    text = json.dumps(strict(thing), indent=1)
    write(path, lambda path: path.write_text(text))


def write_rows(path: Path, report: dict) -> None:
    """Write a report of many rows, each on a line of its own."""
    def line(thing) -> str:
        return json.dumps(thing, separators=(",", ":"))

    parts = []
    for key, value in report.items():
        rows = isinstance(value, list)
        text = "[\n" + ",\n".join(map(line, value)) + "\n]" if rows else line(value)
        parts.append(f"{line(key)}: {text}")
    text = "{\n" + ",\n".join(parts) + "\n}\n"
    write(path, lambda path: path.write_text(text))


def strict(thing, digits: int | None = None):
    """A report without nan, and with that many significant digits if asked."""
    if isinstance(thing, float):
        return None if math.isnan(thing) else float(f"{thing:.{digits}g}") if digits else thing
    if isinstance(thing, dict):
        return {key: strict(value, digits) for key, value in thing.items()}
    return [strict(value, digits) for value in thing] if isinstance(thing, list) else thing


def prepare(config) -> None:
    """Make the output folder, or check that what is there belongs to this configuration."""
    out, now = Path(config.out), identity(config)
    marker = out / "config.json"
    if config.fresh:
        for folder in ("units", "figures"):
            shutil.rmtree(out / folder, ignore_errors=True)
        for file in ("report.json", "study.json", "config.json"):
            (out / file).unlink(missing_ok=True)
    if marker.exists():
        there = json.loads(marker.read_text())
        differ = [key for key in now if there.get(key) != now[key]]
        if differ:
            changes = ", ".join(f"{key} {there.get(key)} there, {now[key]} now" for key in differ)
            raise ValueError(
                f"--out {config.out} holds a run with {changes}; "
                "choose another --out, or add --fresh"
            )
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for left in (out / "units").glob("*.partial"):
        left.unlink(missing_ok=True)
    write_json(marker, now)


def draw(out: str, report: dict) -> None:
    """The figures of a demonstration or of a study, each a file under figures/."""
    from . import figures  # here, so that workers start without matplotlib

    of_report = figures.of_study if "ranks" in report else figures.of_demonstration
    for name, figure in of_report(report).items():
        path = Path(out, "figures", f"{name}.png")
        write(path, lambda path, figure=figure: figure.savefig(path, format="png", dpi=150))


# Running units, one thread each.


def work(config, name: str, function: Callable, *arguments) -> float:
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
    """End this process when its parent does, however that ended."""
    multiprocessing.parent_process().join()
    os._exit(1)


def start_method() -> multiprocessing.context.BaseContext:
    """Workers fork from one process that holds PyTorch, where the system can do that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo"])  # which every optimiser imports
    return context


class Units:
    """Runs units (config, name, function, *arguments) side by side, each in a process.

    As a context it prepares the folder, and ends the program with one line if something fails.
    """

    def __init__(self, config):
        try:
            prepare(config)
        except (ValueError, OSError) as error:
            fail(error, status=2)
        self.pool = ProcessPoolExecutor(config.jobs, start_method(), initializer=start_worker)

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

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _) -> None:
        if kind is None:
            self.pool.shutdown()
            return
        self.stop()
        if issubclass(kind, KeyboardInterrupt):
            fail("interrupted; the same command continues from the units that are done", 130)
        if issubclass(kind, (FloatingPointError, RuntimeError, OSError)):
            fail(error, status=1)
