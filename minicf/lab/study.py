"""The study: what one seed cannot decide, summed up over seeds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ..training import METHODS
from .claims import starting_point
from .runner import Units, draw, identity, strict, write_json
from .statistics import PREDICTORS, bootstrap_interval, ranking
from .tables import study_table, table

ALIGNED_METHODS = ("GRPO", "Dr. GRPO")
LARGE_GROUP = 64  # beside the group size of the leaderboard


def study(
    config, units: Units, corpora: list[str],
    pretrain_units: Callable, gain_units: Callable, method_units: Callable,
) -> None:  # fmt: skip
    """Readiness, the leaderboard and alignment over `config.study` seeds; writes study.json.

    The three functions give the units of work of one seed.
    """
    seeds = [replace(config, seed=config.seed + i) for i in range(config.study)]
    runs = iter(units.run([unit for each in seeds for unit in pretrain_units(each, corpora)]))
    promised = [[e for _ in corpora for e in next(runs)["entries"]] for _ in seeds]
    todo = []
    for each, entries in zip(seeds, promised):
        start = starting_point(entries)
        todo += method_units(each, start, list(METHODS), config.group_size)
        todo += method_units(each, start, list(ALIGNED_METHODS), LARGE_GROUP)
        todo += gain_units(each, entries)
    results = iter(units.run(todo))
    checkpoints, ranks, board, aligned = [], [], [], []
    for each, entries in zip(seeds, promised):
        rows = [next(results)["row"] for _ in METHODS]
        board += rows
        aligned += [row for row in rows if row["method"] in ALIGNED_METHODS]
        aligned += [next(results)["row"] for _ in ALIGNED_METHODS]
        entries = [entry | next(results) for entry in entries]
        ranks.append(ranking(entries))
        checkpoints += [{"seed": each.seed} | entry for entry in entries]
    report = {
        "command": f"python train.py --study {config.study} --seed {config.seed}",
        "config": identity(config),
        "checkpoints": checkpoints,
        "ranks": ranks_summary(ranks, config.seed),
        "methods": methods_summary(board, config.seed),
        "leaderboard": [slim(row, ("step", "success", "seconds")) for row in board],
        "alignment": [slim(row, ("step", "success", "alignment")) for row in aligned],
    }
    stored = strict(report, digits=4)
    write_json(Path(config.out, "study.json"), stored)
    draw(config.out, stored)
    print(study_table(report["ranks"], "rank"), study_table(report["ranks"], "pick"), sep="\n\n")
    columns = {"method": "", "success": ".3f", "interval": "", "alignment": ".2f"}
    print("\n" + table(report["methods"], columns))


def slim(row: dict, kept: tuple[str, ...]) -> dict:
    """A leaderboard's row with only these keys of its curve, and no completions."""
    curve = [{key: entry[key] for key in kept if key in entry} for entry in row["curve"]]
    return {key: value for key, value in row.items() if key != "completions"} | {"curve": curve}


def interval(values: list[float], generator: torch.Generator) -> list[float]:
    """Mean, and the ends of its 95 % bootstrap interval."""
    return [sum(values) / len(values), *bootstrap_interval(torch.tensor(values), generator)]


def ranks_summary(ranks: list[dict], seed: int) -> dict:
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


def methods_summary(board: list[dict], seed: int) -> list[dict]:
    """Mean final success and alignment of each method over seeds, best first."""
    generator, rows = torch.Generator().manual_seed(seed), []
    for method in METHODS:
        some = [row for row in board if row["method"] == method]
        mean, low, high = interval([row["success"] for row in some], generator)
        aligned = sum(row["alignment"] for row in some) / len(some)
        rows.append(
            {"method": method, "success": mean, "interval": f"{low:.3f} to {high:.3f}"}
            | {"alignment": aligned}
        )
    return sorted(rows, key=lambda row: -row["success"])
