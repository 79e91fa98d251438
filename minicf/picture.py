"""The figure of a run of train.py: four panels, each with a sentence above it.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {
    "reinforce": "#666666", "rloo": "#56B4E9", "drgrpo": "#0072B2", "grpo": "#009E73",
    "ppo": "#E69F00", "perfect": "#D55E00", "exact": "black",
}  # fmt: skip


def draw(report: dict) -> Figure:
    """The run in four panels; in two, for a run of one method."""
    first, *others = report["histories"]
    columns = 2
    height = 7.6 if others else 4.0
    figure = Figure(figsize=(10.4, height), layout="constrained", dpi=120)
    axes = list(figure.subplots(len(others) and 2 or 1, columns, squeeze=False).flat)
    draw_pretraining(axes[0], report)
    draw_run(axes[1], first, report["histories"][first])
    if others:
        draw_gains(axes[2], report["checkpoints"])
        draw_methods(axes[3], report["histories"])
    return figure


def draw_pretraining(axis: Axes, report: dict) -> None:
    """Success and headroom at the checkpoints, and where RL started."""
    rows = report["checkpoints"]
    steps = [row["step"] for row in rows]
    axis.plot(steps, [row["success"] for row in rows], "o-", color="#0072B2", label="success")
    headroom = [row["headroom"] for row in rows]
    axis.plot(steps, headroom, "s-", color="#E69F00", label="headroom: pass@16 − success")
    axis.axvline(report["start"], color="black", linestyle=":", label="RL starts here")
    caption(axis, "pretraining step", "Pretraining makes right answers likelier, and leaves less "
            "for more samples to find.")  # fmt: skip


def draw_run(axis: Axes, method: str, history: list[dict]) -> None:
    """Success and cosine along one method's run."""
    steps = [entry["step"] for entry in history]
    axis.plot(steps, [entry["success"] for entry in history], color="#009E73", label="success")
    cosines = [entry["cosine"] for entry in history[1:]]
    axis.plot(steps[1:], cosines, "o-", color="#D55E00", label="cosine to ∇V", markersize=4)
    axis.set_ylim(top=1.03)
    caption(axis, "rollout", f"Along {method}: what backward left on the prompts points along ∇V, "
            "plus the noise of one rollout.")  # fmt: skip


def draw_gains(axis: Axes, rows: list[dict]) -> None:
    """The real gain of a short RL run against readiness, a dot for each checkpoint."""
    axis.plot([row["readiness"] for row in rows], [row["gain"] for row in rows], "o", color="black")
    for row in rows:
        place = (row["readiness"], row["gain"])
        axis.annotate(f" step {row['step']}", place, fontsize=8, va="center")
    axis.margins(x=0.18)
    axis.set_ylabel("gain in success of a short GRPO run")
    caption(axis, "readiness: signal × headroom", "Where readiness is high, RL should gain much: "
            "a dot for each checkpoint.")  # fmt: skip


def draw_methods(axis: Axes, histories: dict[str, list[dict]]) -> None:
    """Success along the run of every method."""
    for method, history in histories.items():
        style = ":" if method == "exact" else "-"
        steps = [entry["step"] for entry in history]
        values = [entry["success"] for entry in history]
        axis.plot(steps, values, style, color=COLORS[method], label=method)
    axis.set_ylabel("success")
    caption(axis, "rollout", "The same start and as many updates for every method; exact: ascent "
            "on success itself.")  # fmt: skip


def caption(axis: Axes, below: str, text: str) -> None:
    """A sentence above the panel, a name below it, and a legend where lines have names."""
    axis.set_title("\n".join(textwrap.wrap(text, 62)), loc="left", fontsize=10)
    axis.set_xlabel(below)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)
