"""Baselines over seeds and nothing else, for worlds in which the whole study would take too long:

    python train.py --critics 3 --max-terms 4

A longer horizon gives a critic more to do. Does the answer of the study move?
"""

from collections.abc import Callable
from dataclasses import replace

from .answers import Interval, critic_rows
from .claims import starting_point
from .runner import Units
from .study import SMALL_GROUP, critic_unit
from .tables import table

COMPARED = ("group mean", "learned critic", "exact critic, λ = .95")


def critics(config, units: Units, pretrain_units: Callable) -> str:
    """Final success of COMPARED on `config.critics` seeds, as a table."""
    seeds = [replace(config, seed=config.seed + i) for i in range(config.critics)]
    runs = units.run([unit for each in seeds for unit in pretrain_units(each, ["clean"])])
    todo = [
        (each, f"critic {baseline} of {size}", critic_unit, start, baseline, size)
        for each, run in zip(seeds, runs)
        for start in [starting_point(run["entries"])]
        for size in (config.group_size, SMALL_GROUP)
        for baseline in COMPARED
    ]
    rows = [result["row"] for result in units.run(todo)]
    shown = critic_rows(rows, [], Interval(config.seed))
    shown.sort(key=lambda row: -int(row["samples a prompt"]))
    kept = ("samples a prompt", "baseline", "success", "mean along the run")
    return table(shown, dict.fromkeys(kept, ""))
