"""Every figure of the project: data in, matplotlib figure out. Nothing here computes a result.

Titles state what was found, in numbers from the data. Colours are those of Okabe and Ito (2008), which
colour-blind readers can tell apart; a line is labelled where it ends rather than in a legend.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

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


def noisy_costates(starts: Tensor, panels: list[dict]) -> Figure:
    """Costates at starts (S,) around ∇V, and without noise: one panel per number of steps left.

    A panel has steps, costates (S, N) of N rollouts from each start, truth and noise_free (S,).
    """
    figure, axes = _panels(*[""] * len(panels), width=5.0, height=3.9)
    for axis, panel in zip(axes, panels):
        costates, truth, noise_free = panel["costates"], panel["truth"], panel["noise_free"]
        axis.plot(starts, costates[:, :15], ".", color=SKY, markersize=3)
        for label, line, color in (("no noise", noise_free, RED), ("∇V, exact", truth, BLUE)):
            axis.plot(starts, line, color=color, linewidth=2)
            end = (starts[-1], line[-1])
            axis.annotate(label, end, (7, -3), textcoords="offset points", color=color)
        mean = costates.mean(1)
        axis.plot(starts, mean, "o", color="black", markersize=3.5)
        off, wrong = (mean - truth).abs().max(), (noise_free - truth).abs().max()
        title = f"{panel['steps']} steps left: the mean of {costates.shape[1]:,} noisy costates\n"
        title += f"is within {off:.2f} of ∇V; the costate without noise, {wrong:.2f} off"
        axis.set_title(title, loc="left", fontsize=10)
        axis.set(xlabel="state s (radians)", xlim=(-3.2, 4.8))
    axes[0].set_ylabel("costate (reward per radian)")
    return figure


def estimator_variances(horizons: list[int], ratios: dict[str, list[float]]) -> Figure:
    """Variance of the score function over that of pathwise at each horizon, a line per track."""
    last = ", ".join(f"{ratio[-1]:.2g} ({track})" for track, ratio in ratios.items())
    figure, (axis,) = _panels(f"Variance ratio at T = {horizons[-1]}: {last}", width=7.0)
    axis.axhline(1, color=GREY, linewidth=1)
    axis.annotate("above: pathwise varies less", (horizons[0], 1.12), color=GREY, fontsize=9)
    axis.annotate("below: score function varies less", (horizons[0], 0.7), color=GREY, fontsize=9)
    for (track, ratio), color in zip(ratios.items(), (BLUE, RED)):
        axis.loglog(horizons, ratio, "o-", color=color)
        end = (horizons[-1], ratio[-1])
        axis.annotate(track, end, (8, -3), textcoords="offset points", color=color)
    axis.set(xlabel="horizon T (steps)", xlim=(horizons[0] * 0.9, horizons[-1] * 1.9))
    axis.set_ylabel("variance, score function / pathwise")
    axis.set_xticks(horizons, [str(h) for h in horizons], minor=False)
    axis.minorticks_off()
    return figure


def loss_and_success(curve: list[dict], floor: float, k: int) -> Figure:
    """Loss above its floor, success and pass@k (entries with step, loss, success, pass_at_k)."""
    steps = [e["step"] for e in curve]
    fall = curve[0]["loss"] - floor
    late = next((e for e in curve if e["loss"] - floor < 0.1 * fall), curve[-1])
    figure, (left, right) = _panels(
        f"Nine tenths of the loss's fall are over by step {late['step']}",
        f"There, exact success is {late['success']:.2f} and pass@{k} {late['pass_at_k']:.2f}",
    )
    left.plot(steps, [e["loss"] for e in curve], color=GREY, linewidth=2)
    left.axhline(floor, color=GREY, linewidth=1, linestyle="--")
    left.annotate(
        f"floor {floor:.2f}: the corpus has many answers", (steps[-1], floor), (0, -13),
        textcoords="offset points", ha="right", color=GREY,
    )  # fmt: skip
    left.set(xlabel="pretraining step", ylabel="loss, nats per token", ylim=(0, None))
    for name, color, height in (("pass_at_k", SKY, 0.85), ("success", BLUE, 0.4)):
        right.plot(steps, [e[name] for e in curve], color=color, linewidth=2)
        at = next((e for e in curve if e[name] > height), curve[-1])
        label = f"pass@{k}" if name == "pass_at_k" else "exact success (pass@1)"
        right.annotate(label, (at["step"], at[name]), (9, -7), textcoords="offset points", color=color)
    right.set(xlabel="pretraining step", ylabel="mean over prompts", ylim=(0, 1.03))
    for axis in (left, right):
        axis.axvline(late["step"], color=ORANGE, linewidth=1)
    return figure


def clip_objective(
    grid: list[float], curves: dict[float, list[tuple]], marks: dict[float, dict[str, float]]
) -> Figure:
    """PPO's objective and its derivative by the ratio, of one token, a panel per advantage.

    `curves` maps an advantage to (objective, derivative) along `grid`; `marks` names ratios of it.
    """
    titles = []
    for advantage, points in curves.items():
        flat = [ratio for ratio, (_, slope) in zip(grid, points) if slope == 0]
        side, edge = ("above", flat[0]) if flat[-1] == grid[-1] else ("below", flat[-1])
        titles.append(f"A = {advantage:+.0f}: no gradient {side} a ratio of {edge:.2f}")
    figure, axes = _panels(*titles)
    for axis, (advantage, points) in zip(axes, curves.items()):
        objective, slope = zip(*points)
        axis.axhline(0, color=GREY, linewidth=0.6)
        axis.plot(grid, objective, color=BLUE, linewidth=2)
        axis.plot(grid, slope, color=ORANGE, linewidth=2)
        axis.text(grid[8], slope[8] + 0.06, "its gradient", color=ORANGE)
        axis.text(grid[45], objective[45] - 0.22, "objective", color=BLUE)
        for text, ratio in marks[advantage].items():
            height = objective[min(range(len(grid)), key=lambda i: abs(grid[i] - ratio))]
            axis.plot(ratio, height, "o", color=RED)
            axis.annotate(text, (ratio, height), (5, 6), textcoords="offset points", color=RED)
        axis.set(xlabel="ratio, new probability over old")
    return figure


def one_batch_reused(runs: dict[str, list[float]]) -> Figure:
    """Exact success after each of many updates on one batch; a label and a curve per run."""
    ends = ", ".join(f"{curve[-1]:.2f} {label}" for label, curve in runs.items())
    start = next(iter(runs.values()))[0]
    figure, (axis,) = _panels(f"One batch, reused: from {start:.2f} to {ends}", width=6.4, height=3.2)
    for (label, curve), color in zip(runs.items(), (BLUE, RED)):
        axis.plot(curve, color=color, linewidth=2)
        axis.annotate(
            label, (len(curve) - 1, curve[-1]), (4, -3), textcoords="offset points", color=color
        )
    axis.axhline(start, color=GREY, linewidth=0.6)
    axis.set(xlabel="updates on the same batch", ylabel="exact success", ylim=(0, 0.8))
    axis.set_xlim(0, 1.25 * (len(curve) - 1))
    return figure
