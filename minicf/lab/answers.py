"""The study's answers: means over seeds with 95 % bootstrap intervals, and verdicts.

The thresholds were set on other seeds than those of the stored study, before those ran.
"""

import math

import torch

from ..training import METHODS
from .claims import measures, within
from .statistics import bootstrap_interval, pick_share, rank_correlation, ranking
from .tables import interval_text

RANK_AT_LEAST = 0.8
PICK_AT_LEAST = 0.85
SAMPLED_RANK_AT_LEAST = 0.8  # of readiness from 8 samples a prompt
SWITCH_WITHIN = 0.1  # of success: what readiness' pick loses to the best switch, clean corpus
SWITCH_MISSES = 0.05  # at least, on the corpus of wrong sums
CRITIC_LEADS_BY = 0.02  # at most, with 8 samples a prompt
GROUP_TRAILS_BY = 0.05  # at least, with 2
SINGLE_TRAILS_BY = 0.05  # at least: the batch mean with 1 sample a prompt, to an exact critic
FEWER_ANSWERS = 0.6  # at most: different right answers in 2²⁰ samples, after GRPO over before
NARROW_LOSES = 0.1  # at least: of pass@2²⁰ after GRPO from the narrow corpus
UNSEEN_LOSES = 0.2  # at least: of success on prompts left out, from the late checkpoint


class Interval:
    """Means of values that come one a seed, with bootstrap intervals, from one generator."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, values: list[float]) -> list[float]:
        """Mean, and both ends of the interval; nan, for what a seed has not, is left out."""
        values = [value for value in values if not math.isnan(value)]
        if not values:
            return [math.nan] * 3
        low, high = bootstrap_interval(torch.tensor(values), self.generator)
        return [sum(values) / len(values), low, high]


def answers(report: dict) -> dict:
    """`ranks`, `answers` by question, and `claims`, of the study's rows."""
    over = Interval(report["config"]["seed"])
    ranks = {
        pool: {
            name: {
                kind: over([rank[pool][name][kind] for rank in report["ranks"]])
                for kind in ("rank", "pick")
            }
            for name in report["ranks"][0][pool]
        }
        for pool in report["ranks"][0]
    }
    known = {kind: over(values) for kind, values in ceiling(report["checkpoints"]).items()}
    for pool in ranks:
        unknown = {kind: [math.nan] * 3 for kind in known}
        ranks[pool]["gain of other RL seeds"] = known if pool == "pooled" else unknown
    tables = {
        "methods": methods_rows(report["leaderboard"], over),
        "critic": critic_rows(report["critic"], report["noise"], over),
        "switch": switch_rows(report["switch"], over),
        "reach": reach_rows(report["reach"], over),
        "held_out": held_out_rows(report["held_out"], over),
    }
    empirical = empirical_ranges(report["checkpoints"], report["leaderboard"], over)
    claims = verdicts(report, over)
    return {"ranks": ranks, "answers": tables, "empirical": empirical, "claims": claims}


def empirical_ranges(entries: list[dict], board: list[dict], over: Interval) -> dict[str, dict]:
    """What one run of the demonstration measures, over the seeds: `mean` with interval, `range`."""
    by_seed = []
    for (seed,), rows in groups(board, "seed").items():
        some = [e for e in entries if e["seed"] == seed and e["corpus"] in ("clean", "narrow")]
        by_seed.append(measures(ranking(some), rows))
    values = {key: [each[key] for each in by_seed] for key in by_seed[0]}
    return {key: {"mean": over(each), "range": [min(each), max(each)]}
            for key, each in values.items()}  # fmt: skip


def groups(rows: list[dict], *keys: str) -> dict[tuple, list[dict]]:
    """Rows by the values of keys, in order of appearance."""
    result: dict[tuple, list[dict]] = {}
    for row in rows:
        result.setdefault(tuple(row[key] for key in keys), []).append(row)
    return result


def ceiling(entries: list[dict]) -> dict[str, list[float]]:
    """What a predictor would score that is the gain itself, measured with other RL seeds.

    One half of the RL seeds predicts the other half's mean, both noisier than the whole; nan with a
    single RL seed.
    """
    result: dict[str, list[float]] = {"rank": [], "pick": []}
    for some in groups(entries, "seed").values():
        half = len(some[0]["gains"]) // 2
        if half == 0:
            return {"rank": [math.nan], "pick": [math.nan]}
        gains = torch.tensor([entry["gains"] for entry in some])
        known, gain = gains[:, half:].mean(1), gains[:, :half].mean(1)
        result["rank"].append(rank_correlation(known, gain))
        result["pick"].append(pick_share(known, gain))
    return result


def methods_rows(board: list[dict], over: Interval) -> list[dict]:
    """Final success and alignment of each method, best first."""
    rows = []
    for method in METHODS:
        some = [row for row in board if row["method"] == method]
        mean, low, high = over([row["success"] for row in some])
        aligned, _, _ = over([row["alignment"] for row in some])
        row = {"method": method, "success": f"{mean:.3f}", "interval": f"{low:.3f} to {high:.3f}"}
        rows.append((mean, row | {"alignment": f"{aligned:.2f}"}))
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


def critic_rows(rows: list[dict], noise: list[dict], over: Interval) -> list[dict]:
    """Each baseline at each group size: final success, area under the curve, exact noise."""
    result = []
    for (size, method), some in groups(rows, "group_size", "method").items():
        noises = [r["noise"] for r in noise if (r["group_size"], r["method"]) == (size, method)]
        result.append({
            "samples a prompt": str(size), "baseline": method,
            "success": interval_text(*over([row["success"] for row in some])),
            "mean along the run": interval_text(*over([row["area"] for row in some])),
            "noise": f"{min(noises):.0f} to {max(noises):.0f}" if noises else "-",
        })  # fmt: skip
    return result


def switch_rows(rows: list[dict], over: Interval) -> list[dict]:
    """Final success by the step at which RL took over, and where readiness' pick ends."""
    result = []
    for (corpus,), some in groups(rows, "corpus").items():
        for (step,), each in groups(some, "step").items():
            best = [pick_of(seed)[1] for seed in groups(some, "seed").values()]
            result.append({
                "corpus": corpus, "switch at": str(step), "rollouts": str(each[0]["rollouts"]),
                "before RL": interval_text(*over([row["before"] for row in each])),
                "in the end": interval_text(*over([row["success"] for row in each])),
                "best on": f"{best.count(step)} seeds",
                "readiness' pick on": f"{picks(some).count(step)} seeds",
            })  # fmt: skip
    return result


def pick_of(rows: list[dict]) -> tuple[dict, int]:
    """Of one seed's switches: the one that readiness picks, and the step of the best."""
    picked = max(rows, key=lambda row: row["readiness"])
    return picked, max(rows, key=lambda row: row["success"])["step"]


def picks(rows: list[dict]) -> list[int]:
    """The step that readiness picks, seed by seed."""
    return [pick_of(some)[0]["step"] for some in groups(rows, "seed").values()]


def reach_rows(rows: list[dict], over: Interval) -> list[dict]:
    """pass@1, 64 and 2²⁰, and different right answers in 64 and 2²⁰ samples."""
    result = []
    for (corpus, method), some in groups(rows, "corpus", "method").items():
        row = {"corpus": corpus, "policy": method}
        for place, k in ((0, "1"), (3, "64"), (-1, "2²⁰")):
            row[f"pass@{k}"] = f"{over([each['pass_at_k'][place] for each in some])[0]:.3f}"
        for place, k in ((3, "64"), (-1, "2²⁰")):
            row[f"answers in {k}"] = f"{over([each['coverage'][place] for each in some])[0]:.1f}"
        result.append(row)
    return result


def held_out_rows(rows: list[dict], over: Interval) -> list[dict]:
    """Success before and after RL: on trained prompts, and on those never seen, by place."""
    result = []
    for (start,), some in groups(rows, "start").items():
        trained = [(row["curve"][0]["success"], row["curve"][-1]["success"]) for row in some]
        places = {"trained": trained}
        for name, inside in (("held out, inside", True), ("held out, at an end", False)):
            places[name] = [change for row in some if (change := held_out_change(row, inside))]
        for name, pairs in places.items():
            if pairs:
                before, after = zip(*pairs)
                result.append({
                    "from step": str(start), "prompts": name,
                    "before": interval_text(*over(list(before))),
                    "after": interval_text(*over(list(after))),
                })  # fmt: skip
    return result


def held_out_change(row: dict, inside: bool) -> tuple[float, float] | None:
    """Mean success before and after, of the held-out prompts inside the range or at its ends."""
    some = [p for p in row["prompts"] if is_inside(p["target"], row["largest"]) == inside]
    if not some:
        return None
    return tuple(sum(p[key] for p in some) / len(some) for key in ("before", "after"))


def is_inside(target: int, largest: int, ends: int = 3) -> bool:
    """Whether a target is not one of the `ends` at either end, which few sums reach."""
    return ends <= target <= largest - ends


def verdicts(report: dict, over: Interval) -> list[dict]:
    """Each claim of the study: measured is the mean over seeds, its interval beside it."""
    ranks = report["ranks"]

    def rank(name: str, kind: str = "rank") -> list[float]:
        return [each["pooled"][name][kind] for each in ranks]

    def less(a: list[float], b: list[float]) -> list[float]:
        return [x - y for x, y in zip(a, b)]

    def success_of(size: int, *names: str) -> list[float]:
        table = groups([row for row in report["critic"] if row["group_size"] == size], "seed")
        by_name = [{row["method"]: row["success"] for row in some} for some in table.values()]
        means = {name: sum(each[name] for each in by_name) / len(by_name) for name in names}
        best = max(names, key=means.get)  # one method for all seeds, not the best of each
        return [each[best] for each in by_name]

    exact = ("exact critic, λ = 0", "exact critic, λ = .95", "exact critic, λ = 1")
    G = report["config"]["group_size"]
    lead = less(success_of(G, *exact), success_of(G, "group mean", "batch mean"))
    trail = less(success_of(2, "batch mean"), success_of(2, "group mean"))
    single = less(success_of(1, exact[1]), success_of(1, "batch mean"))
    lost = {}
    for (corpus,), some in groups(report["switch"], "corpus").items():
        seeds = groups(some, "seed").values()
        lost[corpus] = [max(r["success"] for r in each) - pick_of(each)[0]["success"]
                        for each in seeds]  # fmt: skip
    late = max(row["start"] for row in report["held_out"])
    curves = [row["curve"] for row in report["held_out"] if row["start"] == late]
    unseen = [curve[0]["held_out"] - curve[-1]["held_out"] for curve in curves]
    found = {corpus: [{row["method"]: row for row in each}
                      for each in groups(some, "seed").values()]
             for (corpus,), some in groups(report["reach"], "corpus").items()}  # fmt: skip
    kept = [each["GRPO"]["coverage"][-1] / each["before RL"]["coverage"][-1]
            for each in found["clean"]]  # fmt: skip
    narrow = [each["before RL"]["pass_at_k"][-1] - each["GRPO"]["pass_at_k"][-1]
              for each in found["narrow"]]  # fmt: skip
    parabola = less(rank("readiness"), rank("p(1 − p)"))
    fair = less(rank("readiness of 8"), rank("reward std of 8"))
    rows = [
        ("C6", "readiness ranks gains over corpora", rank("readiness"), "≥", RANK_AT_LEAST),
        ("C6", "and better than the parabola p(1 − p), by", parabola, "≥", 0.0),
        ("C6", "its pick's share of the best gain", rank("readiness", "pick"), "≥", PICK_AT_LEAST),
        ("C6s", "so does readiness from 8 samples a prompt", rank("readiness of 8"), "≥",
         SAMPLED_RANK_AT_LEAST),
        ("C6s", "and better than the same samples' reward std, by", fair, "≥", 0.0),
        ("C6t", "clean: the best switch leads readiness' pick by", lost["clean"], "≤",
         SWITCH_WITHIN),
        ("C6t", "wrong sums: it does not find the switch, and loses", lost["wrong"], "≥",
         SWITCH_MISSES),
        ("C7", f"a perfect critic's lead with {G} samples a prompt", lead, "≤", CRITIC_LEADS_BY),
        ("C7", "the batch mean's lead over the group's, with 2", trail, "≥", GROUP_TRAILS_BY),
        ("C7", "a perfect critic's lead over the batch mean, with 1", single, "≥",
         SINGLE_TRAILS_BY),
        ("C10", "share of right answers left in 2²⁰ samples after GRPO", kept, "≤", FEWER_ANSWERS),
        ("C10", "narrow corpus: GRPO lowers pass@2²⁰ by", narrow, "≥", NARROW_LOSES),
        ("C10", "success lost on prompts left out, from the end", unseen, "≥", UNSEEN_LOSES),
    ]  # fmt: skip
    return [verdict(*row[:2], over(row[2]), *row[3:]) for row in rows]


def verdict(
    name: str, statement: str, interval: list[float], relation: str, threshold: float
) -> dict:
    """One row; it holds if the mean does, and `certain` says whether the whole interval does."""
    mean, low, high = interval
    worst = high if relation == "≤" else low
    return {
        "claim": name, "kind": "empirical", "statement": statement, "measured": mean,
        "interval": [low, high], "relation": relation, "threshold": threshold,
        "holds": within(mean, relation, threshold), "certain": within(worst, relation, threshold),
    }  # fmt: skip
