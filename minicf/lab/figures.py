"""The figures of train.py: data in, matplotlib figure out. Nothing here computes a result.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ..training import METHODS
from .claims import starting_point

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666"
)  # fmt: skip
CORPUS_COLORS = {"clean": BLUE, "narrow": RED, "wrong": ORANGE}


def method_style(method: str) -> dict[str, str]:
    """Colour and line of a method: a colour each, dashed from the eighth on, the oracle dotted."""
    if method == "oracle":
        return {"color": "black", "linestyle": ":"}
    palette = (GREY, SKY, BLUE, GREEN, ORANGE, RED, PURPLE)
    place = list(METHODS).index(method)
    return {
        "color": palette[place % len(palette)],
        "linestyle": "-" if place < len(palette) else "--",
    }


def panels(*titles: str, width: float = 5.2, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A row of titled panels without the box's upper and right side."""
    figure = Figure(figsize=(width * len(titles), height), layout="constrained")
    axes = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axis, title in zip(axes, titles):
        axis.set_title(title, loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def of_demonstration(report: dict) -> dict[str, Figure]:
    """Every figure of a report of train.py, by name."""
    entries, board, costates = report["readiness"], report["leaderboard"], report["costates"]
    clean = [entry for entry in entries if entry["corpus"] == "clean"]
    grpo = next(row["curve"] for row in board if row["method"] == "GRPO")
    return {
        "learning_curve": learning_curve(clean, starting_point(entries), grpo),
        "alignment": alignment(board),
        "readiness": readiness(entries),
        "leaderboard": leaderboard(board),
        "staleness": staleness(report["family"]["staleness"]),
        "leash": leash(report["family"]["leash"]),
        "control": control(report["control"]),
        "samples": samples(costates["samples"]),
        "credit": credit_by_layer("09=4+5", costates["credit"]),
        "error": error(costates["along"]),
        "hardening": hardening(costates["untrained"]),
    }


def of_study(report: dict) -> dict[str, Figure]:
    """Every figure of a study, by name."""
    return {
        "alignment": alignment_by_group(report["alignment"]),
        "predictors": predictors(report["ranks"]["pooled"]),
        "switch": switch(report["switch"]),
        "critic": critic(report["critic"]),
        "reach": reach(report["reach"], report["draws"]),
        "held_out": held_out(report["held_out"]),
        "staleness": staleness(report["family"]["staleness"]),
        "leash": leash(report["family"]["leash"]),
    }


def predictors(pooled: dict) -> Figure:
    """Each predictor's rank correlation with the gain and its pick: means, intervals over seeds."""
    names = list(pooled)[::-1]
    figure, axes = panels("Ranks the checkpoints", "Picks one", width=5.4, height=4.6)
    for axis, kind in zip(axes, ("rank", "pick")):
        for height, name in enumerate(names):
            mean, low, high = pooled[name][kind]
            if mean is not None and mean == mean:
                color = RED if name.startswith("readiness") else GREY
                axis.plot([low, high], [height] * 2, color=color, linewidth=3, alpha=0.5)
                axis.plot(mean, height, "o", color=color)
        axis.set(yticks=range(len(names)), ylim=(-0.6, len(names) - 0.4))
    axes[0].set(xlabel="rank correlation with the real gain", yticklabels=names)
    axes[1].set(xlabel="its pick's share of the best gain", yticklabels=[""] * len(names))
    figure.suptitle("What predicts the gain of RL? Over corpora; 95 % intervals over seeds")
    return figure


def switch(rows: list[dict]) -> Figure:
    """Final success of one budget by the step at which RL takes over; bands: seeds' range."""
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    figure, axes = panels(*(f"{corpus} corpus" for corpus in corpora), height=3.4)
    for axis, corpus in zip(axes, corpora):
        curves: dict[int, list[dict]] = {}
        for row in rows:
            if row["corpus"] == corpus:
                curves.setdefault(row["seed"], []).append(row)
        _band(axis, list(curves.values()), "before", GREY, "before RL")
        _band(axis, list(curves.values()), "success", RED, "in the end")
        picked = [max(curve, key=lambda row: row["readiness"]) for curve in curves.values()]
        axis.plot(
            [row["step"] for row in picked], [row["success"] for row in picked], "o", color=BLUE,
            fillstyle="none", label="readiness' pick, a dot a seed",
        )  # fmt: skip
        axis.set(xlabel="steps of pretraining before RL takes over", ylim=(0, 1.03))
    axes[0].set_ylabel("exact success, mean over prompts")
    axes[0].legend(frameon=False, loc="lower right", fontsize=9)
    budget = max(row["step"] for row in rows)
    figure.suptitle(f"When should RL start? Every run costs as much as {budget} pretraining steps")
    return figure


def critic(rows: list[dict]) -> Figure:
    """Final success of each baseline by samples a prompt; a dot a seed, a bar their mean."""
    sizes = sorted({row["group_size"] for row in rows}, reverse=True)
    names = list(dict.fromkeys(row["method"] for row in rows))[::-1]
    titles = [f"{size} sample{'s' if size > 1 else ''} a prompt" for size in sizes]
    figure, axes = panels(*titles, width=4.2, height=3.2)
    for axis, size in zip(axes, sizes):
        for height, name in enumerate(names):
            values = [row["success"] for row in rows
                      if (row["group_size"], row["method"]) == (size, name)]  # fmt: skip
            if values:
                color = BLUE if "exact" in name else ORANGE if "learned" in name else GREY
                axis.plot(values, [height] * len(values), "o", color=color, alpha=0.4)
                mean = sum(values) / len(values)
                axis.plot([mean] * 2, [height - 0.3, height + 0.3], color=color, linewidth=3)
        axis.set(yticks=range(len(names)), yticklabels=[""] * len(names), xlabel="final success")
    axes[0].set_yticklabels(names)
    figure.suptitle("What is a critic worth? Only the baseline differs")
    return figure


def reach(rows: list[dict], ks: list[int]) -> Figure:
    """Exact pass@k and different right answers in k samples, before and after RL; over seeds."""
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, len(corpora), sharex=True, squeeze=False)
    for column, corpus in enumerate(corpora):
        for method in ("before RL", "REINFORCE", "GRPO", "DAPO", "MaxRL"):
            some = [r for r in rows if (r["corpus"], r["method"]) == (corpus, method)]
            style = {"color": "black", "linewidth": 2.5} if method == "before RL" else None
            for axis, key in zip(axes[:, column], ("pass_at_k", "coverage")):
                mean = [sum(values) / len(some) for values in zip(*(row[key] for row in some))]
                axis.plot(ks, mean, label=method, **(style or method_style(method)))
        axes[0, column].set_title(f"{corpus} corpus", loc="left", fontsize=11)
        axes[1, column].set(xlabel="k samples", xscale="log")
    axes[0, 0].set_ylabel("pass@k")
    axes[1, 0].set_ylabel("different right answers found")
    axes[0, 0].legend(frameon=False, fontsize=9)
    for axis in axes.flatten():
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Does RL sharpen or expand? Exact, mean over prompts and seeds")
    return figure


def held_out(rows: list[dict]) -> Figure:
    """Success along GRPO on the prompts it trains on and on those it never sees; seeds' range."""
    starts = list(dict.fromkeys(row["start"] for row in rows))
    figure, axes = panels(*(f"from pretraining step {start}" for start in starts), height=3.4)
    for axis, start in zip(axes, starts):
        curves = [row["curve"] for row in rows if row["start"] == start]
        _band(axis, curves, "success", BLUE, "21 prompts trained on")
        _band(axis, curves, "held_out", RED, "7 prompts never seen")
        axis.set(xlabel="rollout", ylim=(0, 1.03))
    axes[0].set_ylabel("exact success, mean over prompts")
    axes[-1].legend(frameon=False, loc="center right", fontsize=9)
    figure.suptitle("Does what RL teaches carry over to other prompts?")
    return figure


def learning_curve(pretraining: list[dict], start: int, history: list[dict]) -> Figure:
    """Exact success along pretraining (entries with step, success) and RL from step `start` on."""
    before = history[0]["success"]
    figure, (left, right) = panels(
        "Pretraining: imitating sums", f"GRPO from step {start} on: rewarded for right ones"
    )
    steps = [e["step"] for e in pretraining]
    left.plot(steps, [e["success"] for e in pretraining], "o-", color=BLUE)
    left.plot(start, before, "o", color=RED, markersize=10, fillstyle="none")
    left.annotate(
        "RL starts here", (start, before), (10, -14), textcoords="offset points", color=RED
    )
    left.set(xlabel="pretraining step", ylabel="exact success, mean over prompts", ylim=(0, 1.03))
    right.plot([e["step"] for e in history], [e["success"] for e in history], "o-", color=RED)
    right.set(xlabel="rollout (every prompt × one group)", ylim=(0, 1.03))
    return figure


def alignment(board: list[dict]) -> Figure:
    """C8: cosine of each run's own backward pass with ∇V, and exact success; a panel a method."""
    columns = 4
    rows = -(-len(board) // columns)
    figure = Figure(figsize=(12, 0.4 + 2.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis, row in zip(axes, board):
        steps = [entry["step"] for entry in row["curve"]]
        success = [entry["success"] for entry in row["curve"]]
        cosines = [entry["alignment"] for entry in row["curve"][1:]]
        axis.plot(steps, success, color=GREY, linewidth=1, label="exact success")
        axis.plot(steps[1:], cosines, "o-", color=BLUE, markersize=3, label="cosine to ∇V")
        axis.set_title(row["method"], loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set(ylim=(-0.5, 1.08))
    for axis in axes[len(board) :]:
        axis.axis("off")
    handles, labels = axes[0].get_legend_handles_labels()
    place = axes[len(board)] if len(board) < len(axes) else axes[0]
    place.legend(handles, labels, frameon=False, fontsize=9, loc="center")
    figure.suptitle("What loss.backward() leaves on the prompts, beside the exact value gradient")
    figure.supxlabel("rollout", fontsize=10)
    return figure


def alignment_by_group(rows: list[dict]) -> Figure:
    """C8 over seeds: cosine of training's backward pass with ∇V by group size, success beside it.

    Rows have method, group_size, seed and curve; a line is the mean over seeds, a band their range.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    sizes = sorted({row["group_size"] for row in rows})
    figure, axes = panels(*methods, "Success of these runs", width=3.9, height=3.3)
    for place, method in enumerate(methods):
        for size, color in zip(sizes, (ORANGE, BLUE)):
            some = [r["curve"] for r in rows if (r["method"], r["group_size"]) == (method, size)]
            label = f"{size} samples a prompt"
            _band(axes[place], [curve[1:] for curve in some], "alignment", color, label)
            line = "-" if place == 0 else "--"
            _band(axes[-1], some, "success", color, f"{method}, {size}", line)
        axes[place].set(xlabel="rollout", ylim=(-0.5, 1.03))
        axes[place].axhline(0, color=GREY, linewidth=0.6)
        axes[place].legend(frameon=False, loc="lower left", fontsize=9)
    axes[0].set_ylabel("cosine of −∂loss/∂x to ∇V")
    axes[-1].set(xlabel="rollout", ylabel="exact success, mean over prompts", ylim=(0, 1.03))
    axes[-1].legend(frameon=False, loc="lower right", fontsize=9)
    return figure


def _band(
    axis: Axes, curves: list[list[dict]], key: str, color: str, label: str, line: str = "-"
) -> None:
    """Mean of several curves as a line, their range as a band, without what is None (a nan)."""
    points = []
    for entries in zip(*curves):  # one step, over the curves
        values = [entry[key] for entry in entries if entry[key] is not None]
        if values:
            points.append((entries[0]["step"], sum(values) / len(values), min(values), max(values)))
    if points:
        steps, mean, low, high = zip(*points)
        axis.plot(steps, mean, line, color=color, linewidth=2, label=label)
        axis.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)


SURROGATE_COLORS = {
    "whole-sequence ratio": "black", "token ratio": BLUE, "PPO clip": GREEN, "clip-higher": SKY,
    "CISPO": ORANGE, "GSPO": PURPLE, "no ratio": RED,
}  # fmt: skip


def staleness(rows: list[dict]) -> Figure:
    """C9: cosine and length of each surrogate's exact mean gradient against the data's age.

    A panel a surrogate: lines are the means over policies, bands their range.
    """
    figure = Figure(figsize=(12, 5), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True, sharey=True).flatten()
    for axis, (name, color) in zip(axes, SURROGATE_COLORS.items()):
        some = [row | {"step": row["lag"], "policy": row["step"]} for row in rows
                if row["surrogate"] == name]  # fmt: skip
        policies = dict.fromkeys((row.get("seed"), row["policy"]) for row in some)
        curves = [[row for row in some if (row.get("seed"), row["policy"]) == policy]
                  for policy in policies]  # fmt: skip
        _band(axis, curves, "cosine", color, name)
        axis.set_title(name, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.axhline(1, color=GREY, linewidth=0.6, linestyle=":")
        axis.axhline(0, color=GREY, linewidth=0.6)
    axes[-1].axis("off")
    figure.suptitle("Data from an older policy: each surrogate's mean gradient beside today's ∇J")
    figure.supxlabel("updates since the data were sampled", fontsize=10)
    figure.supylabel("cosine to ∇J", fontsize=10)
    return figure


def leash(rows: list[dict]) -> Figure:
    """C9: direction and length of what each form of the KL leaves, beside the exact ∇KL."""
    names = list(dict.fromkeys(row["kl"] for row in rows))[::-1]
    figure, (left, right) = panels("Direction", "Length", width=5.4, height=3.2)
    for axis, key in ((left, "kl_cosine"), (right, "kl_length")):
        for height, name in enumerate(names):
            values = [row[key] for row in rows if row["kl"] == name]
            values = [value for value in values if value is not None and value == value]
            axis.plot(values, [height] * len(values), "o", color=BLUE, markersize=5, alpha=0.6)
            if not values:
                axis.text(0.5, height, "nothing is left", va="center", color=GREY)
        axis.axvline(1, color=GREY, linewidth=0.6, linestyle=":")
        axis.set(xlim=(-0.05, None), ylim=(-0.5, len(names) - 0.5), yticks=range(len(names)))
    left.set(xlabel="cosine to ∇KL", yticklabels=names, xlim=(-0.05, 1.05))
    right.set(xlabel="length over that of ∇KL", yticklabels=[""] * len(names))
    figure.suptitle("What a KL to the reference leaves, by estimator and place; a dot a policy")
    return figure


def readiness(entries: list[dict]) -> Figure:
    """Readiness, and the parabola of success, beside the real gain; both along pretraining."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplots(2, 2)
    (by_readiness, by_parabola), (gains, predicted) = axes
    for corpus in dict.fromkeys(e["corpus"] for e in entries):
        some = [e for e in entries if e["corpus"] == corpus]
        color, steps = CORPUS_COLORS[corpus], [e["step"] for e in some]
        gain, ready = [e["gain"] for e in some], [e["readiness"] for e in some]
        parabola = [e["success"] * (1 - e["success"]) for e in some]
        by_readiness.plot(ready, gain, "o", color=color, label=corpus)
        by_parabola.plot(parabola, gain, "o", color=color)
        gains.plot(steps, gain, "o-", color=color)
        predicted.plot(steps, ready, "o-", color=color)
    by_readiness.legend(frameon=False, title="pretraining corpus")
    gain = "gain of a short GRPO run"
    for axis, title, across, up in (
        (by_readiness, "Where readiness is high, RL gains", "readiness: signal × headroom", gain),
        (by_parabola, "p(1 − p) misses a stuck run", "p(1 − p) of mean success p", gain),
        (gains, "The gain, from each checkpoint", "pretraining step", gain),
        (predicted, "Readiness, before any RL", "pretraining step", "readiness"),
    ):
        axis.set_title(title, loc="left", fontsize=11)
        axis.set(xlabel=across, ylabel=up)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def leaderboard(board: list[dict]) -> Figure:
    """Exact success along each run, best first, with the oracle's (dotted) in every panel."""
    oracle = next((row for row in board if row["method"] == "oracle"), None)
    board = sorted(board, key=lambda row: -row["success"])
    columns = 4
    rows = -(-len(board) // columns)
    figure = Figure(figsize=(12, 0.6 + 2.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis, row in zip(axes, board):
        if oracle:
            steps = [entry["step"] for entry in oracle["curve"]]
            success = [entry["success"] for entry in oracle["curve"]]
            axis.plot(steps, success, ":", color="black", label="oracle: the exact gradient")
        if row is not oracle:
            steps = [entry["step"] for entry in row["curve"]]
            success = [entry["success"] for entry in row["curve"]]
            axis.plot(steps, success, color=BLUE, linewidth=2, label="this method")
        note = f"ends at {row['success']:.3f}\n{row['distinct']:.1f} distinct answers\n"
        note += f"{row['seconds']:.0f} s on one thread"
        axis.annotate(note, (0.97, 0.05), xycoords="axes fraction", ha="right", fontsize=8)
        axis.set_title(row["method"], loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(0, 1.03)
    for axis in axes[len(board) :]:
        axis.axis("off")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper right", ncols=2, fontsize=9)
    figure.supxlabel("rollout (the oracle: update)", fontsize=10)
    figure.supylabel("exact success, mean over prompts", fontsize=10)
    return figure


def control(result: dict) -> Figure:
    """C1: costates around the closed ∇V, the noise-free one beside, and both variance regimes."""
    rows, regimes = result["scatter"], result["variance"]
    figure, (left, right) = panels(
        "Noisy costates average to ∇V; the noise-free one does not", "Each estimator has its regime"
    )
    s = [row["s"] for row in rows]
    for row in rows:
        left.plot([row["s"]] * len(row["some"]), row["some"], ".", color=SKY, markersize=3)
    left.plot(s, [row["truth"] for row in rows], color="black", label="∇V, closed form")
    left.plot(s, [row["mean"] for row in rows], "o", color=BLUE, label="mean costate")
    left.plot(s, [row["noise_free"] for row in rows], "--", color=RED, label="noise-free costate")
    left.legend(frameon=False)
    left.set(xlabel="state s (radians)", ylabel="reward per radian")
    for gain, color in ((-0.2, BLUE), (0.1, RED)):
        some = [row for row in regimes if row["gain"] == gain]
        right.plot([r["horizon"] for r in some], [r["ratio"] for r in some], "o-", color=color)
        end = (some[-1]["horizon"], some[-1]["ratio"])
        label = f"θ = {gain}"
        right.annotate(label, end, (8, -3), textcoords="offset points", color=color)
    right.margins(x=0.25)
    right.axhline(1, color=GREY, linewidth=0.8)
    right.set(yscale="log", xlabel="horizon T", ylabel="variance, score-function / pathwise")
    return figure


def samples(rows: list[dict]) -> Figure:
    """Cosine and relative error of a mean of n costates, beside the exact n^(−1/2) line."""
    figure, (left, right) = panels(
        "The mean of many costates points along ∇V",
        "The error falls as 1/√n, by the exact formula",
    )
    n = [row["n"] for row in rows]
    left.plot(n, [row["cosine"] for row in rows], "o-", color=BLUE)
    left.set(xscale="log", xlabel="costates averaged, n", ylabel="cosine to ∇V", ylim=(0, 1.05))
    right.plot(n, [row["error"] for row in rows], "o", color=BLUE, label="measured")
    right.plot(n, [row["expected"] for row in rows], color="black", label="exact")
    right.legend(frameon=False)
    right.set(xscale="log", yscale="log", xlabel="costates averaged, n", ylabel="‖error‖ / ‖∇V‖")
    return figure


def credit_by_layer(text: str, shares: list[list[float]]) -> Figure:
    """Attention's share of the credit that arrives at each token of the text, a row per layer.

    Rows go from the first block up to the final norm; nan where no credit arrives at all.
    """
    title = "Attention carries all the credit of the early prompt\nand none above the last block"
    figure, (axis,) = panels(title, width=7.6, height=3.6)
    colors = LinearSegmentedColormap.from_list("share", (ORANGE, "white", BLUE))
    image = axis.imshow(shares, cmap=colors, vmin=0, vmax=1, aspect="auto", origin="lower")
    for layer, row in enumerate(shares):
        for place, share in enumerate(row):
            known = share == share  # False for nan
            note = f"{share:.2f}".replace("-0.00", "0.00") if known else "no credit"
            ink = "white" if known and share > 0.7 else "black"
            size = 10 if known else 8
            axis.text(place, layer, note, ha="center", va="center", color=ink, fontsize=size)
    layers = [f"entering block {layer}" for layer in range(len(shares) - 1)]
    axis.set_yticks(range(len(shares)), [*layers, "entering the final norm"])
    axis.set_xticks(range(len(text)), text, family="monospace", fontsize=14, weight="bold")
    axis.set(xlabel="token that receives the credit")
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(length=0)
    bar = figure.colorbar(image, ax=axis, ticks=(0, 1))
    bar.set_ticklabels(["its own\nlogits", "attention"])
    return figure


def error(along: list[dict]) -> Figure:
    """C5: the exact error of a costate and its bounds, and the biased relatives, by checkpoint."""
    along = sorted(along, key=lambda row: row["step"])
    figure, (left, right) = panels(
        "Entropy bounds the error of a costate", "Biased relatives of the costate"
    )
    steps = [row["step"] for row in along]
    lines = (
        ("error", "exact error", "black", "o-"), ("collision", "bound, 1 − exp(−H)", SKY, "--"),
        ("entropy", "bound, H", BLUE, "--"), ("signal", "‖∇V‖²", GREEN, "o-"),
    )  # fmt: skip
    for key, label, color, style in lines:
        left.plot(steps, [row[key] for row in along], style, color=color, label=label)
    left.legend(frameon=False)
    left.set(xlabel="pretraining step", ylabel="E‖λ̂ − ∇V‖² of 09=", yscale="log")
    colors = (("hard inputs", ORANGE), ("soft rollout", RED), ("straight-through", PURPLE))
    for key, color in colors:
        right.plot(steps, [row[key] for row in along], "o-", color=color, label=key)
    right.legend(frameon=False)
    right.set(xlabel="pretraining step", ylabel="cosine of their mean to ∇V", ylim=(-1.05, 1.05))
    return figure


def hardening(result: dict[str, list[dict]]) -> Figure:
    """Entropy, error and signal as a policy hardens, with J bounded (shifting) or not (cooling)."""
    figure, axes = panels(
        "One logit takes all: error and signal vanish", "Cooling lowers entropy, not the error"
    )
    for axis, way in zip(axes, ("shifting", "cooling")):
        rows = result[way]
        strength = [row["strength"] for row in rows]
        for key, label, color in (
            ("nats", "entropy (nats)", GREY), ("error", "E‖λ̂ − ∇V‖²", RED),
            ("signal", "‖∇V‖²", GREEN),
        ):  # fmt: skip
            axis.plot(strength, [row[key] for row in rows], "o-", color=color, label=label)
        axis.set(yscale="log")
    axes[0].set_xlabel("nats added to the stop's logit, about")
    axes[1].set_xlabel("strength s: the logits times 1 + s/2")
    axes[0].legend(frameon=False)
    return figure
