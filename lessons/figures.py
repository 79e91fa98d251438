"""The figures of the lessons: data in, matplotlib figure out. Nothing here computes a result.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from statistics import median

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666"
)  # fmt: skip

ROADMAP = (
    ("01", "a world\nto count"), ("02", "policy\ngradient"), ("03", "PPO"), ("04", "GRPO"),
    ("05", "a leash and\nrelatives"), ("06", "stale\ndata"), ("07", "backprop is\nan adjoint"),
    ("08", "costates and\nthe real run"), ("09", "when is it\nwrong?"),
    ("10", "when should\nRL start?"), ("11", "critic or\nno critic?"),
)  # fmt: skip


def panels(*titles: str, width: float = 5.2, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A row of titled panels without the box's upper and right side."""
    figure = Figure(figsize=(width * len(titles), height), layout="constrained")
    axes = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axis, title in zip(axes, titles):
        axis.set_title(title, loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def roadmap(current: int) -> Figure:
    """The eleven lessons in a row, 1 to 11, with lesson `current` marked."""
    count = len(ROADMAP)
    figure = Figure(figsize=(11, 1.5), layout="constrained")
    axis = figure.subplots()
    parts = ((0, 6, "losses", BLUE), (6, 9, "costates", ORANGE), (9, count, "decisions", GREEN))
    for start, end, part, color in parts:
        axis.plot([start + 0.06, end - 0.06], [0.92, 0.92], color=color, linewidth=3)
        axis.text((start + end) / 2, 1.04, part, ha="center", va="bottom", color=color, fontsize=9)
        for i in range(start, end):
            marked = i + 1 == current
            style = dict(facecolor=color if marked else "white", edgecolor=color)
            axis.add_patch(Rectangle((i + 0.06, 0), 0.88, 0.8, linewidth=1.5, **style))
            number, title = ROADMAP[i]
            text = f"{number}\n{title}"
            ink = "white" if marked else "black"
            axis.text(i + 0.5, 0.4, text, ha="center", va="center", color=ink, fontsize=8.5)
    place = current - 0.5
    axis.annotate("you are here", (place, 0), (place, -0.3), ha="center", fontsize=9)
    axis.set(xlim=(0, count), ylim=(-0.35, 1.3))
    axis.axis("off")
    return figure


def noisy_costates(starts: Tensor, noisy: Tensor, noise_free: Tensor, truth: Tensor) -> Figure:
    """Costates of noisy rollouts (S, N) from starts (S,), without noise, and truth (S,)."""
    title = "Noisy costates average to ∇V; the costate without noise is something else"
    figure, (axis,) = panels(title, width=7.6, height=4.2)
    axis.axhline(0, color=GREY, linewidth=0.6)
    axis.plot(starts, noisy[:, :12], ".", color=SKY, markersize=4, alpha=0.7)
    axis.plot(starts, noise_free, color=RED, linewidth=2)
    axis.plot(starts, truth, color=BLUE, linewidth=2)
    axis.plot(starts, noisy.mean(1), "o", color="black", markersize=5)
    style = dict(textcoords="offset points", va="center")
    axis.annotate("without noise", (starts[-1], noise_free[-1]), (9, 0), color=RED, **style)
    axis.annotate("∇V, exact", (starts[-1], truth[-1]), (9, 0), color=BLUE, **style)
    labels = ((f"● mean of {noisy.shape[1]:,} noisy rollouts", 0.11, "black"),
              ("· 12 of these rollouts", 0.04, SKY))  # fmt: skip
    for label, height, color in labels:
        axis.annotate(label, (0.02, height), xycoords="axes fraction", color=color)
    axis.set(xlabel="state s where the rollout starts (radians)", xlim=(-3.2, 4.4))
    axis.set(xticks=range(-3, 4), ylabel="costate at the start (reward per radian)")
    return figure


def _boxes(texts: list[str], chances: list[float], right: list[bool]) -> list[tuple]:
    """(text, chance, right or not, left, bottom, width, height) of each text in a unit square.

    The first and third token split a box from left to right, the others from bottom to top, so
    that a text's area is its chance. Texts that begin alike follow one another.
    """
    boxes = []

    def place(first: int, last: int, depth: int, box: tuple) -> None:
        x, y, width, height = box
        if last - first == 1:
            boxes.append((texts[first], chances[first], right[first], *box))
            return
        whole, start = sum(chances[first:last]), first
        while start < last and whole > 0:
            end = start + 1
            while end < last and texts[end][depth] == texts[start][depth]:
                end += 1
            part = sum(chances[start:end]) / whole
            if depth % 2 == 0:
                place(start, end, depth + 1, (x, y, width * part, height))
                x += width * part
            else:
                place(start, end, depth + 1, (x, y, width, height * part))
                y += height * part
            start = end

    place(0, len(texts), 0, (0.0, 0.0, 1.0, 1.0))
    return boxes


def square_of_answers(
    prompt: str, texts: list[str], right: Tensor, players: dict[str, Tensor]
) -> Figure:  # fmt: skip
    """All completions (M,) of a prompt in a square, a panel for each player: area is probability.

    `players` maps a name to the completions' probabilities (M,); the right ones are green.
    """
    figure, axes = panels(*players, width=3.8, height=4.5)
    figure.suptitle(f"All that can be written after {prompt} (area: probability, green: right)")
    for axis, probabilities in zip(axes, players.values()):
        boxes = _boxes(texts, probabilities.tolist(), (right > 0).tolist())
        for text, chance, good, x, y, width, height in boxes:
            speck = chance < 1e-3
            if speck and not good:
                continue  # too small to see, and the ground is grey as well
            color, edge = GREEN if good else "#DDDDDD", GREEN if speck else "white"
            style = dict(facecolor=color, edgecolor=edge, linewidth=1 if speck else 0.4)
            axis.add_patch(Rectangle((x, y), width, height, **style))
            if max(width, height) > 0.065 and min(width, height) > 0.035:
                label = text[: text.find(".") + 1] or text  # without the fill-up
                label = "only a stop" if label == "." else label
                middle = (x + width / 2, y + height / 2)
                turned = 90 if height > 2 * width and width < 0.12 else 0
                size = 16 if min(width, height) > 0.3 else 8
                style = dict(color="white" if good else "black", fontsize=size, rotation=turned)
                axis.text(*middle, label, ha="center", va="center", **style)
        axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", facecolor="#DDDDDD")
        axis.set(xticks=[], yticks=[], xlabel="from left to right: first token, then third")
    axes[0].set_ylabel("from bottom to top: second token, then fourth")
    return figure


def loss_and_success(curve: list[dict], floor: float) -> Figure:
    """Loss in nats an answer with its floor, and success with what the loss promises.

    The curve has entries with step, loss, mean success and promise.
    """
    titles = ("Loss (nats an answer)", "Success, mean over the corpus's prompts")
    figure, (losses, successes) = panels(*titles, width=4.6, height=3.4)
    steps = [entry["step"] for entry in curve]
    losses.plot(steps, [entry["loss"] for entry in curve], color=GREY, linewidth=2.2)
    losses.axhline(floor, color=RED, linewidth=1.2)
    losses.text(steps[-1], floor - 0.15, "floor", ha="right", va="top", color=RED)
    losses.set(ylim=(0, None))
    success = [entry["mean success"] for entry in curve]
    promise = [entry["promise"] for entry in curve]
    successes.plot(steps, success, color=BLUE, linewidth=2.2, label="success, counted")
    successes.plot(steps, promise, "--", color=RED, linewidth=1.6, label="at least, by the loss")
    successes.set(ylim=(0, 1.03))
    successes.legend(loc="lower right", frameon=False)
    for axis in (losses, successes):
        axis.set(xlabel="pretraining step", xlim=(0, steps[-1]))
    return figure


def clip_objective(
    ratios: list[float], curves: dict[float, tuple], marks: dict[float, dict[str, float]]
) -> Figure:
    """PPO's objective against the ratio, its slope written beside the line; a panel per advantage.

    `curves` maps an advantage to (objectives, slopes) along `ratios`, and `marks` to answers: each
    name with its ratio, which must be one of `ratios`.
    """
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    axes = figure.subplots(1, len(curves), sharex=True, sharey=True)
    for axis, (advantage, (objectives, slopes)) in zip(axes, curves.items()):
        kind, side = ("right", "high") if advantage > 0 else ("wrong", "low")
        number = f"{advantage:+.1f}".replace("-", "−")
        title = f"A {kind} answer (A = {number}):\nno gradient once the ratio is {side}"
        axis.set_title(title, loc="left", fontsize=11)
        flat = [ratio for ratio, slope in zip(ratios, slopes) if slope == 0]
        axis.axvspan(flat[0], flat[-1], color="#EEEEEE", zorder=0)
        axis.plot(ratios, objectives, color=BLUE, linewidth=2.5)
        for name, ratio in marks[advantage].items():
            place = (ratio, objectives[ratios.index(ratio)])
            axis.plot(*place, "o", color="black", markersize=7)
            style = dict(textcoords="offset points", ha="center", fontsize=11)
            axis.annotate(name, place, (0, 9), family="monospace", **style)
            slope = f"slope {slopes[ratios.index(ratio)]:+.1f}".replace("-", "−")
            slope = slope.replace("+0.0", "0").replace("−0.0", "0")
            axis.annotate(slope, place, (0, -24), color=RED, **style)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.08, y=0.2)
        axis.set_xlabel("ratio ρ, new probability / old probability")
    axes[0].set_ylabel("objective (reward)")
    return figure


def ends_of_runs(ends: dict[str, list[float]], start: float) -> Figure:
    """V at the end of runs: a line for each way to learn, a dot for each seed, a bar: the mean."""
    title = "Five ways to learn from one start: V at the end, a dot for each seed"
    figure, (axis,) = panels(title, width=7.6, height=3.2)
    places = range(len(ends), 0, -1)
    for place, values in zip(places, ends.values()):
        mean = sum(values) / len(values)
        axis.plot([mean, mean], [place - 0.3, place + 0.3], color="black", linewidth=1.5)
        axis.plot(values, [place] * len(values), "o", color=BLUE, markersize=7, alpha=0.7)
    axis.axvline(start, color=GREY, linewidth=1, linestyle="--")
    style = dict(color=GREY, fontsize=9, ha="center", va="bottom")
    axis.text(start, len(ends) + 0.55, "start", **style)
    axis.set_yticks(places, ends)
    axis.set(xlabel="V, the mean over prompts (bar: the mean over seeds)")
    axis.set_ylim(0.4, len(ends) + 0.55)
    axis.set_title(title, loc="left", fontsize=11, pad=16)
    return figure


def live_groups(curves: dict[int, tuple], dots: dict[str, dict[int, tuple]]) -> Figure:
    """Share of live groups against V: exact curves, and sampled dots.

    `curves` maps two group sizes, the smaller one first, to (V, share); `dots` maps the label of a
    policy to the same by group size, with a place for each prompt. A policy has one colour, and the
    dots of the larger groups are hollow.
    """
    title = "A group is live if it has both right and wrong answers"
    figure, (axis,) = panels(title, width=7.4, height=4.0)
    heights = (-26, 7)  # of the labels, in points: under the lower curve and over the upper one
    for (size, (success, share)), height in zip(curves.items(), heights):
        axis.plot(success, share, color="black", linewidth=1.2)
        place = (0.5, share.max())
        label = f"groups of {size}"
        axis.annotate(label, place, (0, height), textcoords="offset points", ha="center")
    for (label, sizes), color in zip(dots.items(), (ORANGE, BLUE)):
        for (success, share), inside in zip(sizes.values(), (color, "white")):
            style = dict(color=color, markersize=5, markerfacecolor=inside)
            axis.plot(success, share, "o", label=label, **style)
            label = None  # one entry in the legend
    axis.legend(loc="lower center", frameon=False)
    axis.set(xlabel="V, the probability of a right answer to the prompt (exact)")
    axis.set(ylabel="share of live groups", xlim=(0, 1), ylim=(0, 1.12))
    axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    return figure


def weights_by_ratio(ratios: Tensor, curves: dict[float, dict[str, Tensor]]) -> Figure:
    """What three losses multiply a token's score by, against its ratio (N,), by advantage 1 and −1.

    `curves` maps the advantage to the weights (N,) by name: GRPO, DAPO, CISPO.
    """
    titles = ("A token of a better answer, A = +1", "A token of a worse answer, A = −1")
    figure, axes = panels(*titles, width=4.8, height=3.4)
    labels = (  # text and place, by panel; where two lines coincide they share one label
        {"GRPO": ("GRPO", (1.18, 0.12), "right"), "DAPO": ("DAPO", (1.3, 0.5), "left"),
         "CISPO": ("CISPO", (1.35, 1.25), "left")},
        {"GRPO": ("GRPO and DAPO", (1.3, -1.52), "right"),
         "CISPO": ("CISPO", (1.3, -1.12), "left")},
    )  # fmt: skip
    styles = {"CISPO": (GREEN, 5), "DAPO": (ORANGE, 3.2), "GRPO": (BLUE, 1.6)}  # widest at the back
    for axis, weights, texts in zip(axes, curves.values(), labels):
        for name, (color, width) in styles.items():
            axis.plot(ratios, weights[name], color=color, linewidth=width)
        for name, (text, place, side) in texts.items():
            axis.text(*place, text, color=styles[name][0], ha=side)
        axis.set(xlabel="the token's ratio ρ")
        axis.set(ylabel="what its score is multiplied by")
    axes[0].text(0.62, 0.9, "all three", ha="left")
    axes[0].set(ylim=(-0.1, 1.75))
    axes[1].text(1.0, -0.92, "all three", ha="left")
    axes[1].set(ylim=(-1.75, 0.1))
    return figure


def noise_by_baseline(
    baselines: list[float], noise: list[float], marks: dict[str, tuple[float, float]]
) -> Figure:
    """The noise of one sample against a constant baseline; marks name (baseline, noise) points."""
    figure, (axis,) = panels("Noise of one sample's policy gradient", width=6.4, height=3.6)
    axis.plot(baselines, noise, color=BLUE, linewidth=2.2)
    styles = (("black", (-12, 76), 5), (GREEN, (10, 42), 10), (RED, (16, -12), 10))
    for (name, point), (color, place, size) in zip(marks.items(), styles):
        axis.plot(*point, "o", color=color, markersize=size, zorder=13 - size)
        text = f"{name} = {point[0]:.2f}: noise {point[1]:.1f}"
        line = dict(arrowstyle="-", color=color, relpos=(0, 0))
        style = dict(color=color, fontsize=11, arrowprops=line)
        axis.annotate(text, point, place, textcoords="offset points", **style)
    axis.set(xlabel="constant baseline b", ylabel="noise (in squared lengths of ∇V)")
    axis.set(xlim=(min(baselines), max(baselines)), ylim=(-0.04 * max(noise), None))
    return figure


def predictors_by_corpus(
    summary: dict, with_gradient: dict[str, str], without_gradient: dict[str, str]
) -> Figure:
    """Rank correlation of each predictor with the gain, and its interval; a panel for each corpus.

    `summary` has by corpus and predictor a `rank` (mean, low, high). The dicts map a predictor to
    its label; those with a gradient stand on top, in another colour.
    """
    titles = {"clean": "clean: true sums", "wrong": "wrong: a third with a false target",
              "narrow": "narrow: targets up to 9"}  # fmt: skip
    labels = with_gradient | without_gradient
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, len(titles), sharey=True)
    places = range(len(labels))[::-1]
    for axis, (corpus, title) in zip(axes, titles.items()):
        for name, place in zip(labels, places):
            mean, low, high = summary[corpus][name]["rank"]
            color = BLUE if name in with_gradient else ORANGE
            axis.barh(place, high - low, 0.45, low, color=color, alpha=0.35)
            axis.plot(mean, place, "o", color=color, markersize=4)
        axis.set_title(title, loc="left", fontsize=11)
        axis.axvline(0, color=GREY, linewidth=0.8)
        axis.set(xlim=(-1.06, 1.06), xlabel="rank correlation with the gain")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color=GREY, alpha=0.2)
    axes[0].set_yticks(places, labels.values())
    for text, place in zip(axes[0].get_yticklabels(), places):
        text.set_color(BLUE if place >= len(without_gradient) else "#8A5A00")
    figure.suptitle(
        "Positive: it ranks the checkpoints as the gain does. Blue needs ∇V, orange does not."
    )
    return figure


def _dots(axis: Axes, values: dict[str, list[float]], colors: dict[str, str]) -> None:
    """A row of dots for each name, from the top down, with a bar at its mean."""
    for height, (name, dots) in zip(range(len(values))[::-1], values.items()):
        if dots:
            axis.plot(dots, [height] * len(dots), "o", color=colors[name], alpha=0.4, markersize=5)
            mean = sum(dots) / len(dots)
            axis.plot([mean] * 2, [height - 0.3, height + 0.3], color=colors[name], linewidth=3)
    axis.set_yticks(range(len(values))[::-1], values)
    axis.set_ylim(-0.6, len(values) - 0.4)


def noise_against_none(ratios: dict[str, dict[str, dict[int, list[float]]]]) -> Figure:
    """Noise with each baseline over that with none: place -> baseline -> step -> ratios."""
    titles = [f"Noise of the gradient {place}" for place in ratios]
    figure, axes = panels(*titles, width=4.8, height=3.5)
    for axis, by_name in zip(axes, ratios.values()):
        for shift, (name, by_step) in zip((-0.25, 0, 0.25), by_name.items()):
            color = {"V": RED, "token critic": BLUE}.get(name, GREY)
            for place, values in enumerate(by_step.values()):
                x = place + shift
                axis.plot([x] * len(values), values, "o", color=color, alpha=0.4, markersize=5)
                middle = torch.tensor(values).quantile(0.5).item()
                label = name if place == 0 else None  # one entry in the legend
                ends = [x - 0.1, x + 0.1]
                axis.plot(ends, [middle] * 2, color=color, linewidth=3, label=label)
        axis.axhline(1, color="black", linewidth=1, linestyle=":")
        beside = {"x": len(by_step) - 0.6, "fontsize": 9}
        axis.text(y=1.06, s="↑ noisier", va="bottom", **beside)
        axis.text(y=0.94, s="↓ quieter", va="top", **beside)
        axis.set_xlim(-0.45, len(by_step) + 0.05)
        axis.set_xticks(range(len(by_step)), [f"after {step} steps" for step in by_step])
        axis.set(yscale="log", ylabel="noise / noise with no baseline")
        axis.set_yticks([0.5, 1, 2, 5, 10, 20], ["½", "none: 1", "2", "5", "10", "20"])
        axis.minorticks_off()
    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(low, high)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def paired_differences(titled: dict[str, dict[str, list[float]]]) -> Figure:
    """Differences from a method seed by seed; a dot is a seed, a bar their mean.

    Each dict has a panel with its own scale, because differences of .01 matter in one of them.
    """
    figure, axes = panels(*titled, width=4.9, height=3.4)
    for axis, (title, values) in zip(axes, titled.items()):
        _dots(axis, values, dict.fromkeys(values, BLUE))
        axis.axvline(0, color="black", linewidth=1, linestyle=":")
        axis.set_xlabel(f"area minus that of leave-one-out,\n{title} (dotted)")
        axis.margins(x=0.08)
        axis.grid(axis="y", color=GREY, alpha=0.2)
    return figure


def cosine_of_means(sizes: list[int], curves: dict[str, tuple[list, list]]) -> Figure:
    """The cosine to ∇V of the mean of n backward passes: measured and predicted, by checkpoint."""
    figure, (axis,) = panels("Signal and noise say what an average shows", width=7.0, height=3.9)
    styles = ((SKY, "o", "-"), (BLUE, "s", "-"), (ORANGE, "^", "--"))
    for (name, (measured, predicted)), (color, marker, line) in zip(curves.items(), styles):
        axis.plot(sizes, predicted, line, color=color, linewidth=1.8)
        axis.plot(sizes, measured, marker, color=color, markersize=7)
        axis.plot([], [], line + marker, color=color, linewidth=1.8, label=name)
    axis.axhline(1, color=GREY, linewidth=0.6, linestyle=":")
    axis.set(xscale="log", xlabel="backward passes in the mean, n (8 answers to every prompt)")
    axis.set(ylabel="cosine of the mean to ∇V", ylim=(0, 1.05))
    axis.set_xticks(sizes, [str(n) for n in sizes])
    axis.minorticks_off()
    axis.legend(frameon=False, loc="lower right", title="lines predicted, marks measured")
    return figure


def probe_in_trl(cosines: list[dict], steps: list[dict]) -> Figure:
    """SmolLM2: the cosine of a mean of costates, and what the probe logged in a run of TRL."""
    figure, (left, right) = panels(
        "SmolLM2, b = 1/2: the mean turns to ∇V", "A run of TRL: exact and logged",
        width=4.8, height=3.5,
    )  # fmt: skip
    sizes = [row["size"] for row in cosines]
    left.plot(sizes, [row["predicted"] for row in cosines], color=BLUE, label="predicted")
    left.plot(sizes, [row["found"] for row in cosines], "o", color=BLUE, label="measured")
    left.axhline(1, color=GREY, linewidth=0.6, linestyle=":")
    left.set(xscale="log", xlabel="costates in the mean, n", ylim=(0, 1.05))
    left.set(ylabel="cosine of the mean to ∇V")
    left.set_xticks(sizes, [str(n) for n in sizes])
    left.minorticks_off()
    left.legend(frameon=False, loc="lower right")
    places = range(1, len(steps) + 1)
    exact = [row["squared_signal"] for row in steps]
    logged = [row["logged squared_signal"] for row in steps]
    right.plot(places, exact, color=BLUE, linewidth=2, label="exact, by counting")
    right.plot(places, logged, "o", color=ORANGE, label="logged, from 8 answers a prompt")
    right.set(yscale="log", xlabel="training step", ylabel="signal, squared length of ∇V")
    right.set_yticks((0.3, 1, 3, 10), ("0.3", "1", "3", "10"))
    right.minorticks_off()
    right.set(ylim=(0.15, 20))
    right.legend(frameon=False, loc="lower left")
    return figure


def error_and_signal(rows: list[dict]) -> Figure:
    """Absolute error of a costate and ‖∇V‖², from heated to cooled; their ratio at five rows.

    A row has factor, nats, absolute, signal and relative.
    """
    title = "Dotted: the ratio of the curves, which is the number of costates needed"
    figure, (axis,) = panels(title, width=7.4)
    factors = [row["factor"] for row in rows]
    axis.plot(factors, [row["absolute"] for row in rows], "o-", color=RED, linewidth=2)
    axis.plot(factors, [row["signal"] for row in rows], "o-", color=BLUE, linewidth=2)
    middle = rows[len(rows) // 4]
    above = dict(textcoords="offset points", ha="center", fontsize=11)
    label = "absolute error of one costate"
    axis.annotate(label, (middle["factor"], middle["absolute"]), (0, 14), color=RED, **above)
    label = "‖∇V‖²"
    axis.annotate(label, (middle["factor"], middle["signal"]), (26, -14), color=BLUE, **above)
    shown = [row for row in rows if row["factor"] in (0.25, 0.5, 1, 2, 4)]
    for row in shown:
        ends = [row["signal"] * 1.3, row["absolute"] / 1.3]
        axis.plot([row["factor"]] * 2, ends, ":", color=GREY, linewidth=1.5)
        centre = (row["signal"] * row["absolute"]) ** 0.5
        digits = 0 if row["relative"] > 10 else 1
        text = f" × {row['relative']:,.{digits}f}"
        axis.text(row["factor"], centre, text, va="center", color=GREY)
    labels = []
    for row in shown:
        digits = 2 if row["nats"] > 0.1 else 1
        labels.append(f"× {row['factor']:g}\n{row['nats']:.{digits}g} nats")
    axis.set(xscale="log", yscale="log", ylabel="squared length (logarithmic)")
    axis.set(xlim=(0.22, 6.5), ylim=(5e-9, 30))
    axis.set_xlabel("factor on the logits, and entropy of what follows")
    axis.set_xticks([row["factor"] for row in shown], labels)
    axis.minorticks_off()
    return figure


CORRECTIONS = {  # lesson 06's names: those in study.json
    "none": "none", "token": "token", "token, capped": "TIS", "token, masked": "IcePop",
    "prefix": "prefix", "sequence": "sequence", "sequence, capped": "sequence TIS",
    "sequence, masked": "MIS", "token, PPO's clip": "PPO clip",
}  # fmt: skip


def squared_errors(study: list[dict], ages: tuple = (64, 256), step: int = 100) -> Figure:
    """A bar for each correction, of medians over policies: bias², and variance of a mean of 64.

    A panel for each age of the sampler, in updates; the policies had `step` steps of pretraining.
    """
    groups = {}
    for age in ages:
        wanted = ("age", age, step)
        rows = [row for row in study if (row["kind"], row["level"], row["step"]) == wanted]
        groups[f"{age} updates old, KL {median(row['kl'] for row in rows):.2f}"] = rows
    figure, axes = panels(*groups, width=4.8, height=3.9)
    for axis, rows in zip(axes, groups.values()):
        biases = []
        variances = []
        for name in CORRECTIONS.values():
            biases.append(median(row["V"][name][0] for row in rows) ** 2)
            variances.append(median(row["V"][name][1] for row in rows) / 64)
        names = list(CORRECTIONS)
        axis.barh(names, biases, color=RED)
        axis.barh(names, variances, left=biases, color=SKY)
        for row, (bias, variance) in enumerate(zip(biases, variances)):
            axis.text(bias + variance, row, f" {bias + variance:.1f}", va="center", fontsize=9)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set_xlabel("squared error of a mean of 64, over ‖∇V‖²")
    style = dict(ha="right", transform=axes[0].transAxes)
    axes[0].text(0.98, 0.8, "left part: bias²", color=RED, **style)
    axes[0].text(0.98, 0.73, "right part: variance / 64", color=BLUE, **style)
    return figure


def samplers_of_study(study: list[dict]) -> list[dict]:
    """Lesson 06's table: a row for each sampler, with the range over all policies of the study."""
    groups = {}
    for row in study:
        sampler = row["kind"] if row["kind"] == "bfloat16" else f"{row['kind']} {row['level']}"
        groups.setdefault(sampler, []).append(row)
    table = []
    for sampler, rows in groups.items():
        best = []
        quotients = []
        for row in rows:
            by_cap = row["caps"]["sequence"]  # squared error by cap
            cap = min(by_cap, key=by_cap.get)
            best.append(float(cap))
            quotients.append(by_cap["inf"] / by_cap[cap])
        columns = {
            "KL": [row["kl"] for row in rows],
            "bias: none": [row["V"]["none"][0] for row in rows],
            "bias: token": [row["V"]["token"][0] for row in rows],
            "best cap": best,
            "error: no cap / best cap": quotients,
        }
        line = {"sampler": sampler}
        for name, numbers in columns.items():
            low, high = f"{min(numbers):.2g}", f"{max(numbers):.2g}"
            line[name] = low if low == high else f"{low} to {high}"
        table.append(line)
    return table
