"""What train.py prints: tables of a report's rows."""

import math

import torch

from ..env import SumGame
from ..gpt import GPT
from ..rollout import sample


def table(rows: list[dict], columns: dict[str, str]) -> str:
    """Rows as text; `columns` maps a key to its format, and text has none. nan and None are "-"."""
    lines = [[*columns]]
    for row in rows:
        cells = [row[key] if row[key] == row[key] else None for key in columns]  # nan ≠ nan
        forms = columns.values()
        lines.append(["-" if c is None else format(c, form) for c, form in zip(cells, forms)])
    sizes = [max(map(len, column)) for column in zip(*lines)]
    align = [str.rjust if form else str.ljust for form in columns.values()]
    lines = [[put(cell, n) for put, cell, n in zip(align, line, sizes)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def readiness_table(entries: list[dict]) -> str:
    """What each checkpoint promised and what RL gained there."""
    columns = {"corpus": "", "step": "d", "loss": ".3f", "success": ".3f", "pass_at_k": ".3f"}
    columns |= {"signal": ".3f", "headroom": ".3f", "readiness": ".3f", "reward_std": ".3f"}
    title = "At each checkpoint. gain: by a short GRPO run; more_pretraining: by as many steps"
    return title + "\n" + table(entries, columns | {"gain": "+.3f", "more_pretraining": "+.3f"})


def ranking_table(ranks: dict) -> str:
    """Predictors beside the real gain, pool by pool."""
    rows = [
        {"predictor": name}
        | {f"{pool} {kind}": ranks[pool][name][kind] for pool in ranks for kind in ("rank", "pick")}
        for name in ranks["pooled"]
    ]
    title = "Rank correlation with the gain, and the pick's share of the best gain"
    columns = {key: "" if key == "predictor" else ".2f" for key in rows[0]}
    return title + "\n" + table(rows, columns)


def leaderboard_table(board: list[dict]) -> str:
    """The methods by final success, distance to the oracle, and a line on what it supports."""
    oracle = next(row["success"] for row in board if row["method"] == "oracle")
    missing = {"entropy": math.nan, "clip_fraction": math.nan, "value_error": math.nan}
    rows = [
        missing | row | {"to_oracle": row["success"] - oracle}
        for row in sorted(board, key=lambda row: -row["success"])
    ]
    columns = {
        "method": "", "success": ".3f", "to_oracle": "+.3f", "alignment": ".2f", "samples": "d",
        "seconds": ".1f", "distinct": ".1f", "entropy": ".2f", "clip_fraction": ".3f",
        "value_error": ".3f",
    }  # fmt: skip
    spread = rows[0]["success"] - rows[-1]["success"]
    lines = [
        "Leaderboard, best first. alignment: cosine of what loss.backward() left on the prompts",
        "with the exact ∇V, mean over the run; distinct: right answers of 64 samples of a prompt",
        table(rows, columns),
        f"One RL seed: an order within {spread:.3f} is no verdict; `--study` runs several.",
    ]
    return "\n".join(lines)


def examples(policy: GPT, env: SumGame) -> list[str]:
    """One completion of each of five prompts, always from the same noise; ✓ where it is right."""
    prompts = env.prompts[torch.linspace(1, len(env.prompts) - 2, 5).long()]
    rollout = sample(policy, env, prompts, 1, torch.Generator().manual_seed(0))
    texts = []
    for prompt, row, live, reward in zip(
        prompts, rollout.completions, rollout.mask, rollout.rewards
    ):
        mark = " ✓" if reward == 1 else ""
        texts.append(env.decode(prompt) + env.decode(row[live]) + mark)
    return texts


def examples_table(row: dict) -> str:
    """Five completions before and after a method's run."""
    title = f"Five completions before and after {row['method']}; ✓ where the sum is right"
    pairs = zip(row["completions"]["before"], row["completions"]["after"])
    rows = [{"before": before, "after": after} for before, after in pairs]
    return title + "\n" + table(rows, {"before": "", "after": ""})


def family_table(found: dict) -> str:
    """C9: each method's first update beside ∇V, as ranges over the policies counted."""
    rows = []
    for method in dict.fromkeys(row["method"] for row in found["methods"]):
        some = [row for row in found["methods"] if row["method"] == method]
        mark = " *" if some[0]["limit"] else ""
        row = {"method": method + mark}
        for key, form in FAMILY_COLUMNS.items():
            values = [math.inf if each[key] is None else each[key] for each in some]
            row[key] = span(min(values), max(values), form)
        rows.append(row)
    lines = [
        f"Each method's first update, counted exactly, at {len(some)} policies. cosine of its mean",
        "to ∇V; length over ∇V's; noise: variance of a sample over the square of the mean; samples",
        "a prompt for a cosine of .9; batch_cosine of a real batch, drawn_cosine of 100 drawn ones",
        table(rows, dict.fromkeys(rows[0], "")),
        "* divides by the batch's token count: the limit of a large batch",
    ]
    return "\n".join(lines)


FAMILY_COLUMNS = {
    "cosine": ".3f", "length": ".2f", "noise": ".0f", "samples": ".0f", "batch_cosine": ".2f",
    "drawn_cosine": ".2f",
}  # fmt: skip


def span(low: float, high: float, form: str) -> str:
    """A range, or one number where both ends read the same; "never" for infinity."""
    ends = ["never" if end == math.inf else format(end, form) for end in (low, high)]
    return " to ".join(dict.fromkeys(ends))


def claims_table(rows: list[dict]) -> str:
    """The claims that every run decides: kind, what was measured, and the verdict."""
    shown = [
        {"claim": row["claim"], "kind": row["kind"], "measured": f"{row['measured']:.3g}"}
        | {"threshold": f"{row['relation']} {row['threshold']:g}"}
        | {"holds": "yes" if row["holds"] else "NO", "statement": row["statement"]}
        for row in rows
        if row["kind"] != "empirical"
    ]
    return "Verdicts of this run\n" + table(shown, dict.fromkeys(shown[0], ""))


def counts_table(rows: list[dict]) -> str:
    """How often each verdict held over seeds, and the worst that was measured."""
    shown = [
        {"claim": row["claim"], "kind": row["kind"], "held": row["held"]}
        | {"worst": f"{row['worst']:.3g}", "threshold": f"{row['relation']} {row['threshold']:g}"}
        | {"statement": row["statement"]}
        for row in rows
    ]
    return table(shown, dict.fromkeys(shown[0], ""))


def empirical_table(rows: list[dict], study: str) -> str:
    """Claims about trained runs: this one's number beside the study's seeds, and its verdict."""
    shown = []
    for row in (row for row in rows if row["kind"] == "empirical"):
        cells = {"claim": row["claim"], "this run": f"{row['measured']:.3g}"}
        if row["interval"] is None:
            cells |= {"seeds": "no study", "mean": "no study", "threshold": "", "holds": "-"}
        else:
            place = "" if row["inside"] else ", outside"
            cells |= {"seeds": "{:.3g} to {:.3g}".format(*row["range"]) + place}
            cells |= {"mean": "{:.3g} to {:.3g}".format(*row["interval"])}
            cells |= {"threshold": f"{row['relation']} {row['threshold']:g}"}
            cells |= {"holds": "yes" if row["holds"] else "NO"}
        shown.append(cells | {"statement": row["statement"]})
    title = f"About trained runs; the verdict is over seeds, of the mean's interval. {study}"
    return title + "\n" + table(shown, dict.fromkeys(shown[0], ""))


def verdicts_table(rows: list[dict]) -> str:
    """The study's claims: mean and interval over seeds; * where the whole interval agrees."""
    shown = []
    for row in rows:
        low, high = row["interval"]
        shown.append({
            "claim": row["claim"], "mean": f"{row['measured']:.3g}",
            "interval": f"{low:.3g} to {high:.3g}",
            "threshold": f"{row['relation']} {row['threshold']:g}",
            "holds": ("yes" if row["holds"] else "NO") + (" *" if row["certain"] else ""),
            "statement": row["statement"],
        })  # fmt: skip
    return table(shown, dict.fromkeys(shown[0], "")) + "\n* the whole interval does"


def study_table(ranks: dict, kind: str) -> str:
    """Mean and interval of each predictor's `kind` ("rank" or "pick"), pool by pool."""
    rows = []
    for name in ranks["pooled"]:
        cells = {pool: ranks[pool][name][kind] for pool in ranks}
        rows.append({kind: name} | {pool: interval_text(*cells[pool]) for pool in cells})
    return table(rows, dict.fromkeys(rows[0], ""))


def interval_text(mean: float, low: float, high: float) -> str:
    """A mean and its interval, "-" for nan."""
    return "-" if math.isnan(mean) else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def study_report(report: dict) -> str:
    """The study's answers, question by question."""
    titles = {
        "rank": "Does readiness rank checkpoints? Rank correlation with the real gain, by corpus",
        "pick": "Does it pick one to start from? Share of the best gain",
        "methods": "The leaderboard",
        "critic": "Is a critic worth having? Final success and noise, by samples a prompt",
        "switch": "When should RL start, on one budget? Final success by pretraining steps",
        "reach": "Sharpen or expand? pass@k and different right answers before and after RL",
        "held_out": "Does it carry over? GRPO on 21 prompts, success on the other 7",
        "claims": "Verdicts over the seeds; thresholds were fixed before these seeds ran",
    }
    answers, ranks = report["answers"], report["ranks"]
    tables = {"rank": study_table(ranks, "rank"), "pick": study_table(ranks, "pick")}
    tables |= {name: table(answers[name], dict.fromkeys(answers[name][0], ""))
               for name in ("methods", "critic", "switch", "reach", "held_out")}  # fmt: skip
    tables["claims"] = verdicts_table(report["claims"])
    return "\n\n".join(f"{title}\n{tables[name]}" for name, title in titles.items())


def print_report(report: dict, study: str) -> None:
    """Everything that the demonstration has to say; `study` tells what its claims stand beside."""
    grpo = next(row for row in report["leaderboard"] if row["method"] == "GRPO")
    for text in (
        readiness_table(report["readiness"]),
        ranking_table(report["rank_correlation"]),
        leaderboard_table(report["leaderboard"]),
        family_table(report["family"]),
        examples_table(grpo),
        claims_table(report["claims"]),
        empirical_table(report["claims"], study),
    ):
        print("\n" + text)
