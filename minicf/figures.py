"""Every figure of the project: data in, matplotlib figure out. Nothing here computes a result.

Titles state what was found, in numbers from the data. Colours are those of Okabe and Ito (2008), which
colour-blind readers can tell apart; a line is labelled where it ends rather than in a legend.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666"
)  # fmt: skip


def _panels(*titles: str, width: float = 5.2, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A row of titled panels without the box's upper and right side."""
    figure = Figure(figsize=(width * len(titles), height), layout="constrained")
    axes = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axis, title in zip(axes, titles):
        axis.set_title(title, loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def learning_curve(pretraining: list[dict], start: int, history: list[dict]) -> Figure:
    """Exact success along pretraining (entries with step, success) and RL from step `start` on."""
    before, after = history[0]["success"], history[-1]["success"]
    figure, (left, right) = _panels(
        f"Pretraining reaches {pretraining[-1]['success']:.2f}",
        f"GRPO from step {start} goes from {before:.2f} to {after:.2f}",
    )
    left.plot([e["step"] for e in pretraining], [e["success"] for e in pretraining], "o-", color=BLUE)
    left.plot(start, before, "o", color=RED, markersize=10, fillstyle="none")
    left.annotate(
        "RL starts here", (start, before), (10, -14), textcoords="offset points", color=RED
    )
    left.set(xlabel="pretraining step", ylabel="exact success, mean over prompts", ylim=(0, 1.03))
    right.plot([e["step"] for e in history], [e["success"] for e in history], "o-", color=RED)
    right.set(xlabel="rollout (every prompt × one group)", ylim=(0, 1.03))
    return figure


ROADMAP = (
    ("01", "a world\nto count"), ("02", "policy\ngradient"), ("03", "PPO's clip"), ("04", "GRPO"),
    ("05", "backprop is\nan adjoint"), ("06", "costates in\na transformer"),
    ("07", "when a costate\nis wrong"), ("08", "when should\nRL start?"), ("09", "critic or\nno critic"),
)  # fmt: skip


def roadmap(current: int) -> Figure:
    """The nine lessons in a row, 1 to 9, with lesson `current` marked."""
    figure = Figure(figsize=(10.4, 1.5), layout="constrained")
    axis = figure.subplots()
    parts = ((0, 4, "losses", BLUE), (4, 7, "costates", ORANGE), (7, 9, "decisions", GREEN))
    for start, end, part, color in parts:
        axis.plot([start + 0.06, end - 0.06], [0.92, 0.92], color=color, linewidth=3)
        axis.text((start + end) / 2, 1.04, part, ha="center", va="bottom", color=color, fontsize=9)
        for i in range(start, end):
            here = i + 1 == current
            style = dict(facecolor=color if here else "white", edgecolor=color)
            axis.add_patch(Rectangle((i + 0.06, 0), 0.88, 0.8, linewidth=1.5, **style))
            number, title = ROADMAP[i]
            text = f"{number}\n{title}"
            ink = "white" if here else "black"
            axis.text(i + 0.5, 0.4, text, ha="center", va="center", color=ink, fontsize=8.5)
    axis.annotate("you are here", (current - 0.5, 0), (current - 0.5, -0.3), ha="center", fontsize=9)
    axis.set(xlim=(0, 9), ylim=(-0.35, 1.3))
    axis.axis("off")
    return figure
