"""The figures of the lessons: data in, matplotlib figure out. Nothing here computes a result."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from .figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, method_style, panels

ROADMAP = (
    ("01", "a world\nto count"), ("02", "policy\ngradient"), ("03", "PPO"), ("04", "GRPO"),
    ("05", "a leash and\na family"), ("06", "backprop is\nan adjoint"),
    ("07", "costates in a\ntransformer"), ("08", "the real\nrun"),
    ("09", "when is it\nwrong?"), ("10", "when should\nRL start?"), ("11", "critic or\nno critic?"),
)  # fmt: skip


def roadmap(current: int) -> Figure:
    """The eleven lessons in a row, 1 to 11, with lesson `current` marked."""
    count = len(ROADMAP)
    figure = Figure(figsize=(11, 1.5), layout="constrained")
    axis = figure.subplots()
    parts = ((0, 5, "losses", BLUE), (5, 9, "costates", ORANGE), (9, count, "decisions", GREEN))
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
    place = current - 0.5
    axis.annotate("you are here", (place, 0), (place, -0.3), ha="center", fontsize=9)
    axis.set(xlim=(0, count), ylim=(-0.35, 1.3))
    axis.axis("off")
    return figure


def noisy_costates(starts: Tensor, cases: list[dict]) -> Figure:
    """Costates at starts (S,) around ∇V, and without noise: one panel per number of steps left.

    A case has steps, costates (S, N) of N rollouts from each start, truth and noise_free (S,).
    """
    figure, axes = panels(*[""] * len(cases), width=4.8, height=3.5)
    for axis, case in zip(axes, cases):
        costates, truth, noise_free = case["costates"], case["truth"], case["noise_free"]
        axis.plot(starts, costates[:, :12], ".", color=SKY, markersize=3)
        for label, line, color in (("no noise", noise_free, RED), ("∇V, exact", truth, BLUE)):
            axis.plot(starts, line, color=color, linewidth=2)
            end = (starts[-1], line[-1])
            axis.annotate(label, end, (7, -3), textcoords="offset points", color=color)
        mean = costates.mean(1)
        axis.plot(starts, mean, "o", color="black", markersize=3.5)
        off, wrong = (mean - truth).abs().max(), (noise_free - truth).abs().max()
        title = f"{case['steps']} steps left: noisy costates average to ∇V\n"
        title += f"(within {off:.2f}); without noise it is {wrong:.2f} off"
        axis.set_title(title, loc="left", fontsize=11)
        axis.set(xlabel="state s (radians)", xlim=(-3.2, 4.6), xticks=range(-3, 4))
    labels = (("one rollout each", 0.1, SKY), (f"mean of {costates.shape[1]:,}", 0.03, "black"))
    for label, height, color in labels:
        axes[0].annotate(label, (0.02, height), xycoords="axes fraction", color=color)
    axes[0].set_ylabel("costate (reward per radian)")
    return figure


def estimator_variances(horizons: list[int], ratios: dict[str, list[float]]) -> Figure:
    """Variance of the score function over that of pathwise at each horizon, a line per track."""
    last = ", ".join(f"{ratio[-1]:.2g} ({track})" for track, ratio in ratios.items())
    figure, (axis,) = panels(f"Variance ratio at T = {horizons[-1]}: {last}", height=3.1)
    axis.axhline(1, color=GREY, linewidth=1)
    for text, height in (("pathwise varies less", 1.15), ("score function varies less", 0.55)):
        axis.annotate(text, (horizons[-1] * 2, height), ha="right", color=GREY, fontsize=9)
    for (track, ratio), color in zip(ratios.items(), (BLUE, RED)):
        axis.loglog(horizons, ratio, "o-", color=color)
        end = (horizons[-1], ratio[-1])
        axis.annotate(track, end, (8, -3), textcoords="offset points", color=color)
    axis.set(xlabel="horizon T (steps)", xlim=(horizons[0] * 0.9, horizons[-1] * 2.2))
    axis.set_ylabel("variance, score function / pathwise")
    axis.set_xticks(horizons, [str(horizon) for horizon in horizons])
    axis.minorticks_off()
    return figure


def loss_and_success(curve: list[dict], floor: float, k: int) -> Figure:
    """Loss above its floor, success and pass@k (entries with step, loss, success, pass_at_k)."""
    steps, near = [e["step"] for e in curve], floor + 0.1 * (curve[0]["loss"] - floor)
    late = next((e for e in curve if e["loss"] < near), curve[-1])
    figure, (left, right) = panels(
        f"Nine tenths of the loss's fall are over by step {late['step']}",
        f"There, exact success is {late['success']:.2f} and pass@{k} {late['pass_at_k']:.2f}",
        width=4.5, height=3.2,
    )  # fmt: skip
    left.plot(steps, [e["loss"] for e in curve], color=GREY, linewidth=2)
    left.axhline(floor, color=GREY, linewidth=1, linestyle="--")
    left.annotate(f"floor {floor:.2f}", (steps[-1], floor), (-45, -13), textcoords="offset points")
    left.set(xlabel="pretraining step", ylabel="loss, nats per token", ylim=(0, None))
    for name, color, height in (("pass_at_k", GREEN, 0.85), ("success", BLUE, 0.7)):
        right.plot(steps, [e[name] for e in curve], color=color, linewidth=2)
        at = next((e for e in curve if e[name] > height), curve[-1])
        label = f"pass@{k}" if name == "pass_at_k" else "exact success (pass@1)"
        right.annotate(
            label, (at["step"], at[name]), (9, -7), textcoords="offset points", color=color
        )
    right.set(xlabel="pretraining step", ylabel="mean over prompts", ylim=(0, 1.03))
    for axis in (left, right):
        axis.axvline(late["step"], color=ORANGE, linewidth=1)
    return figure


def clip_objective(
    grid: list[float], curves: dict[float, list[tuple]], marks: dict[float, dict[str, float]]
) -> Figure:
    """PPO's objective and its gradient, its derivative by the ratio, for a panel per advantage.

    `curves` maps an advantage to (objective, gradient) along `grid`; `marks` names ratios of it.
    """
    titles = []
    for advantage, points in curves.items():
        live = [ratio for ratio, (_, gradient) in zip(grid, points) if gradient != 0]
        side, edge = ("above", live[-1]) if live[0] == grid[0] else ("below", live[0])
        titles.append(f"A = {advantage:+.0f}: no gradient {side} {edge:.2f}")
    figure, axes = panels(*titles, width=4.4, height=3.0)
    for axis, (advantage, points) in zip(axes, curves.items()):
        for name, curve, color in zip(("objective", "its gradient"), zip(*points), (BLUE, ORANGE)):
            axis.plot(grid, curve, color=color, linewidth=2)
            axis.text(grid[-1] + 0.03, curve[-1], name, color=color, va="center")
        for text, ratio in marks[advantage].items():
            point = (ratio, points[min(range(len(grid)), key=lambda i: abs(grid[i] - ratio))][0])
            axis.plot(*point, "o", color=RED)
            shift = (4, -14 if advantage > 0 else 6)
            axis.annotate(text, point, shift, textcoords="offset points", color=RED)
        axis.set(xlabel="ratio, new probability over old", xlim=(grid[0], 1.35 * grid[-1]))
    axes[0].set_ylabel("of one token")
    return figure


def one_batch_reused(runs: dict[str, list[float]]) -> Figure:
    """Exact success after each of many updates on one batch; a label and a curve per run."""
    ends = ", ".join(f"{curve[-1]:.2f} {label}" for label, curve in runs.items())
    start = next(iter(runs.values()))[0]
    figure, (axis,) = panels(f"Success: {start:.2f} to {ends}", width=6.0, height=3.0)
    for (label, curve), color in zip(runs.items(), (BLUE, RED)):
        axis.plot(curve, color=color, linewidth=2)
        axis.annotate(
            label, (len(curve) - 1, curve[-1]), (4, -3), textcoords="offset points", color=color
        )
    axis.axhline(start, color=GREY, linewidth=0.6)
    axis.set(xlabel="updates on the same batch", ylabel="exact success", ylim=(0, 0.8))
    axis.set_xlim(0, 1.3 * (len(curve) - 1))
    return figure


def live_groups(success: Tensor, shares: dict, grid: Tensor, curves: dict) -> Figure:
    """Share of groups with right and wrong answers, by group size, against the prompt's success.

    `shares` has a sampled share for each of `success` (N,), `curves` the exact one along `grid`.
    """
    size, rare = max(shares), int((grid - 0.05).abs().argmin())
    share = curves[size][rare]
    title = f"At success {grid[rare]:.2f}, {share:.0%} of groups of {size} carry a signal"
    figure, (axis,) = panels(title, width=6.4)
    for G, color in zip(shares, (GREEN, BLUE, ORANGE)):
        axis.plot(grid, curves[G], color=color, linewidth=1.2)
        axis.plot(success, shares[G], ".", color=color)
        axis.text(0.53, curves[G].max() - 0.09, f"G = {G}", color=color)
    axis.set(xlabel="exact success of the prompt", ylabel="share of live groups", ylim=(0, 1.03))
    return figure


def noise_by_baseline(baselines: list[float], curves: list[dict]) -> Figure:
    """Exact noise of a sample against a constant baseline, per checkpoint, two baselines marked.

    A curve has success, noise (a list over baselines), at_success and at_best, points (b, noise).
    """
    last = curves[-1]
    times = last["at_success"][1] / last["noise"][0]
    title = f"At success {last['success']:.2f}, b = success is {times:.0f} times noisier than b = 0"
    figure, (axis,) = panels(title, width=6.4, height=3.4)
    for curve, color in zip(curves, (GREEN, BLUE, PURPLE)):
        axis.plot(baselines, curve["noise"], color=color, linewidth=2)
        axis.plot(*curve["at_success"], "o", color=color, markersize=8)
        axis.plot(*curve["at_best"], "v", color=color, markersize=8)
        end, label = (baselines[-1], curve["noise"][-1]), f"success {curve['success']:.2f}"
        axis.annotate(label, end, (6, -4), textcoords="offset points", color=color)
    marks = "circle: b = success\ntriangle: the best b"
    axis.text(0.98, 0.04, marks, transform=axis.transAxes, ha="right")
    axis.set(
        xlabel="baseline b, the same for every prompt", ylabel="noise of one sample", yscale="log"
    )
    return figure


def readiness_along(checkpoints: list[dict]) -> Figure:
    """Real gain and readiness along pretraining, mean and range over seeds; a panel per corpus.

    Entries have corpus, step, gain and readiness. One factor for all panels scales readiness.
    """
    corpora = list(dict.fromkeys(e["corpus"] for e in checkpoints))
    steps = list(dict.fromkeys(e["step"] for e in checkpoints))
    figure, axes = panels(*corpora, width=3.6, height=3.2)
    ranges, mean = {}, {}
    for place in ((key, corpus) for corpus in corpora for key in ("gain", "readiness")):
        some = [(e["step"], e[place[0]]) for e in checkpoints if e["corpus"] == place[1]]
        ranges[place] = [[value for at, value in some if at == step] for step in steps]
        mean[place] = [sum(values) / len(values) for values in ranges[place]]
    gain, ready = (max(max(mean[key, c]) for c in corpora) for key in ("gain", "readiness"))
    units = {"gain": (1.0, "real gain", BLUE), "readiness": (gain / ready, "readiness", ORANGE)}
    for (key, corpus), line in mean.items():
        (unit, label, color), axis = units[key], axes[corpora.index(corpus)]
        low, high = ([unit * end(values) for values in ranges[key, corpus]] for end in (min, max))
        axis.fill_between(steps, low, high, color=color, alpha=0.2, lw=0)
        axis.plot(steps, [unit * y for y in line], "o-", color=color, markersize=4)
        title = f"{axis.get_title('left')}\n{label} peaks at step {steps[line.index(max(line))]}"
        axis.set_title(title, loc="left", fontsize=11)
        axis.set(xlabel="pretraining step", ylim=(-0.02, 2.1 * gain))
    for y, (unit, label, color) in zip((0.9, 0.82), units.values()):
        note = label if unit == 1 else f"{label} × {unit:.3f}"
        axes[-1].annotate(note, (0.04, y), xycoords="axes fraction", color=color)
    axes[0].set_ylabel("gain in exact success")
    return figure


def _dots(axis: Axes, values: dict[str, list[float]], label: str) -> None:
    """A row of dots for each method, with a bar at its mean."""
    for i, (method, some) in enumerate(values.items()):
        color = method_style(method)["color"]
        axis.plot(some, [i] * len(some), "o", color=color, alpha=0.5, markersize=5)
        axis.plot(sum(some) / len(some), i, "|", color="black", markersize=16)
    axis.set_yticks(range(len(values)), values)
    for tick in axis.get_yticklabels():
        tick.set_color(method_style(tick.get_text())["color"])
    axis.set(xlabel=label)


def leaderboard_over_seeds(board: list[dict]) -> Figure:
    """Success against samples and seconds, mean over seeds; below, each seed's end and diversity.

    Rows have method, seed, curve (step, success), samples, seconds, success, distinct. The oracle
    draws nothing and stands at the others' steps. Samples are those of every rollout, without what
    DAPO draws anew. Seconds are the quickest seed's, the least disturbed, spread over the steps.
    """
    rows = {row["method"]: [r for r in board if r["method"] == row["method"]] for row in board}
    order = sorted(rows, key=lambda method: sum(row["success"] for row in rows[method]))
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    size = sorted(row["samples"] for row in board)[len(board) // 2]
    axes = figure.subplot_mosaic([["samples", "seconds"], ["success", "distinct"]])
    for method in order:
        style = method_style(method)
        at = list(zip(*(row["curve"] for row in rows[method])))  # entries, each over the seeds
        success = [sum(e["success"] for e in entries) / len(entries) for entries in at]
        shares = [entries[0]["step"] / at[-1][0]["step"] for entries in at]
        axes["samples"].plot([size * share for share in shares], success, **style)
        seconds = min(row["seconds"] for row in rows[method])
        axes["seconds"].plot([seconds * share for share in shares], success, **style)
    for key, label in (
        ("success", "final success; a dot per seed, a bar at the mean"),
        ("distinct", "distinct right answers in 64 samples, at the end"),
    ):
        _dots(axes[key], {m: [row[key] for row in rows[m]] for m in order}, label)
    means = {
        m: sum(row["success"] for row in rows[m]) / len(rows[m]) for m in order if m != "oracle"
    }
    second, first = list(means)[-2:]
    title = f"{first} ends highest, {means[first] - means[second]:.3f} above {second}"
    axes["samples"].set_title(title, loc="left", fontsize=11)
    axes["samples"].set(xlabel="samples (the oracle draws none)", ylabel="success, mean over seeds")
    axes["seconds"].set(xlabel="seconds on one thread")
    for axis in axes.values():
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def costate_cosines(text: str, sizes: list[int], curves: list[list[float]]) -> Figure:
    """Cosine to ∇V of a mean of n costates, n in sizes, a curve per token; the first n with .9."""
    needed = [next((n for n, c in zip(sizes, curve) if c >= 0.9), sizes[-1]) for curve in curves]
    most, least = max(zip(needed, text)), min(zip(needed, text))
    figure, (left, right) = panels(
        "One costate is mostly noise; their mean turns to ∇V",
        f"Cosine .9 takes {most[0]} costates at `{most[1]}`, {least[0]} at `{least[1]}`",
        width=4.6,
    )
    colors = (GREY, "black", RED, ORANGE, SKY, BLUE)
    for i, (n, curve, color) in enumerate(zip(needed, curves, colors)):
        left.plot(sizes, curve, color=color, linewidth=2)
        right.bar(i, n, 0.6, bottom=0.7, color=color)
        right.annotate(n, (i, n + 0.7), (0, 3), textcoords="offset points", ha="center")
    left.axhline(0.9, color=GREY, linewidth=0.6, linestyle="--")
    left.set(
        xscale="log", xlabel="costates averaged, n", ylabel="mean cosine to ∇V", ylim=(0, 1.03)
    )
    right.set(yscale="log", xlabel="token that carries the nudge", ylabel="n for cosine .9")
    right.set_xticks(range(len(text)), text, family="monospace", fontsize=14, weight="bold")
    for label, color in zip(right.get_xticklabels(), colors):
        label.set_color(color)
    return figure


def credit_map(text: str, rows: dict[str, list[float]]) -> Figure:
    """First-order effects of a text's tokens, a row per estimate; the last is the truth."""
    name, first, truth = next(iter(rows)), next(iter(rows.values())), list(rows.values())[-1]
    wrong = sum(a * b < 0 for a, b in zip(first, truth))
    title = f"The map of {name} has the wrong sign at {wrong} of {len(text)} tokens"
    figure, (axis,) = panels(title, width=6.4, height=2.2)
    for i, (label, effects) in enumerate(rows.items()):
        axis.text(-0.15, -i, label, ha="right", va="center")
        for x, (token, effect) in enumerate(zip(text, effects)):
            strength = 0.75 * abs(effect) / max(map(abs, effects))  # of the row's largest
            style = dict(color=BLUE if effect > 0 else RED, alpha=strength, linewidth=0)
            axis.add_patch(Rectangle((x, -i - 0.45), 0.95, 0.9, **style))
            axis.text(x + 0.3, -i, token, ha="center", va="center", family="monospace", fontsize=15)
            axis.text(x + 0.68, -i, f"{effect:+.2f}", ha="center", va="center", fontsize=8)
    note = "blue: scaling the token up helps; red: it hurts"
    axis.annotate(note, (0, -len(rows) + 0.35), fontsize=8)
    axis.set(xlim=(-2.1, len(text)), ylim=(-len(rows) + 0.2, 0.5))
    axis.axis("off")
    return figure


def error_and_entropy(families: dict[str, list[dict]]) -> Figure:
    """Exact error of a costate against entropy, a line per family of policies, and its predictions.

    A row has nats, error, and the predictions gap, collision and entropy.
    """
    runs, (first, *_, last) = sum(families.values(), []), next(iter(families.values()))
    times = last["error"] / first["error"]
    worst = max(row["entropy"] / row["error"] for row in runs)
    figure, (left, right) = panels(
        f"{first['nats']:.1f} to {last['nats']:.1f} nats: {times:,.0f} times the error",
        f"Gaps give it exactly, entropy within a factor of {worst:.1f}",
        width=4.8,
    )
    for (name, rows), color in zip(families.items(), (BLUE, RED)):
        points = [(row["nats"], row["error"]) for row in rows]
        left.plot(*zip(*points), "o-", color=color)
        style = dict(textcoords="offset points", color=color, ha="right")
        left.annotate(name, points[0], (-6, -12), **style)
    left.margins(y=0.13)
    left.set(xlabel="entropy of the policy at the state (nats)", ylabel="E‖λ̂ − ∇V‖²", yscale="log")
    names = {"entropy": ("H", SKY, -3), "collision": ("1 − exp(−H)", GREEN, 4)}
    for key, (name, color, up) in (names | {"gap": ("the gap", "black", -11)}).items():
        points = sorted((row["nats"], row[key] / row["error"]) for row in runs)
        right.plot(*zip(*points), "o", color=color, markersize=4)
        label = f"from {name}"
        right.annotate(label, points[-1], (8, up), textcoords="offset points", color=color)
    right.set(xlabel="entropy (nats)", ylabel="prediction / exact error", ylim=(0.8, None))
    right.set_xlim(0, 1.6 * max(row["nats"] for row in runs))
    return figure
