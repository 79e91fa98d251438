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
    histories = report["histories"]
    first = next(iter(histories))
    rows = 1 if len(histories) == 1 else 2
    figure = Figure(figsize=(10.4, 3.8 * rows), layout="constrained", dpi=120)
    axes = figure.subplots(rows, 2).flatten()
    draw_pretraining(axes[0], report["checkpoints"], report["start"])
    draw_run(axes[1], first, histories[first])
    if rows == 2:
        draw_gains(axes[2], report["checkpoints"], report["start"])
        draw_methods(axes[3], histories)
    return figure


def draw_pretraining(axis: Axes, rows: list[dict], start: int) -> None:
    """Success and headroom at the checkpoints, and where RL started."""
    steps = [row["step"] for row in rows]
    axis.plot(steps, [row["success"] for row in rows], "o-", color="black", label="success")
    headroom = [row["headroom"] for row in rows]
    axis.plot(
        steps, headroom, "s--", color="#666666", label="headroom: success of 16 tries − success"
    )
    axis.axvline(start, color="black", linestyle=":", label=f"RL starts, at step {start}")
    axis.set_ylabel("probability")
    axis.set_ylim(0, 1)
    caption(axis, "pretraining step", "Pretraining makes right answers likelier, so that more "
            "tries add less.")  # fmt: skip


def draw_run(axis: Axes, method: str, history: list[dict]) -> None:
    """Success and cosine along one method's run."""
    steps = [entry["step"] for entry in history]
    color = COLORS[method]
    axis.plot(steps, [entry["success"] for entry in history], color=color, label="success")
    cosines = [entry["cosine"] for entry in history[1:]]
    axis.plot(steps[1:], cosines, "o", color=color, label="cosine to ∇V of one rollout")
    axis.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axis.set_ylim(top=1.03)
    caption(axis, "rollout", f"Along {method}: the cosine between ∇V and what one backward pass "
            "left on the prompts.")  # fmt: skip


def draw_gains(axis: Axes, rows: list[dict], start: int) -> None:
    """The real gain of a short RL run against readiness, a dot for each checkpoint."""
    for row in rows:
        place = (row["readiness"], row["gain"])
        axis.plot(*place, "o", color="black", fillstyle="full" if row["step"] == start else "none")
        axis.annotate(f"   step {row['step']}", place, fontsize=8, va="center")
    axis.margins(x=0.18)
    axis.set_ylabel("gain in success of a short GRPO run")
    caption(axis, "readiness: signal × headroom", "Does RL gain more where readiness is higher? "
            "A dot for each checkpoint; filled: RL starts.")  # fmt: skip


def draw_methods(axis: Axes, histories: dict[str, list[dict]]) -> None:
    """Success along the run of every method."""
    for method in COLORS:
        history = histories[method]
        style = {"ppo": "--", "perfect": "--", "exact": ":"}
        steps = [entry["step"] for entry in history]
        values = [entry["success"] for entry in history]
        axis.plot(steps, values, style.get(method, "-"), color=COLORS[method], label=method)
    axis.set_ylabel("success")
    caption(axis, "rollout", "The same start and number of updates. Dashed: with a critic. Dotted: "
            "ascent on success itself.")  # fmt: skip


def caption(axis: Axes, below: str, text: str) -> None:
    """A sentence above the panel, a name below it, and a legend where lines have names."""
    axis.set_title("\n".join(textwrap.wrap(text, 56)), loc="left", fontsize=10)
    axis.set_xlabel(below)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)
