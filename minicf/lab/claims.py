"""The claims of train.py, by kind.

* identity: holds for every policy, so on every run and processor, up to rounding.
* existence: something can be so, shown on a case that no training touches.
* statistical: a sample beside an exact value, with the rate at which chance alone breaks it.
* empirical: about trained runs. One run shows its number beside the range over the stored study's
  seeds; the verdict is the study's, of its mean.

Thresholds were set before the runs that are quoted.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .runner import ROOT, Units, study_digest

START_AT_MOST = 0.60  # exact success of the checkpoint that RL starts from
EXACT = 1e-8  # relative error of an identity in float64; some gradients are themselves 1e-6
AT_LEAST_ONE = 1 - 1e-9  # of a ratio that may be exactly 1
Z_AT_MOST = 4.5  # standard errors, for the largest of 13 sample means; chance: 9 in 100,000
CONTROL_Z = 10.0  # standard errors by which the noise-free costate must miss, away from s = 0
VANISHED = 0.01  # what may be left of the error and of the signal
STUDY = ROOT / "lessons" / "study.json"

# Empirical: what a run measures, the relation and threshold of the study's mean.
EMPIRICAL = {
    "rank": ("C6", "readiness ranks real gains, two corpora", "≥", 0.6),
    "parabola": ("C6", "and better than the parabola p(1 − p), by", "≥", 0.0),
    "pick": ("C6", "its pick's share of the best gain, clean", "≥", 0.85),
    "grpo": ("C7", f"GRPO from success ≤ {START_AT_MOST} reaches", "≥", 0.95),
    "critic": ("C7", "the critic's lead over the best method without", "≤", 0.02),
    "aligned": ("C8", "Dr. GRPO leaves ∇V up to noise, mean cosine", "≥", 0.5),
}


def starting_point(entries: list[dict]) -> int:
    """The clean checkpoint that readiness picks among those of success at most START_AT_MOST."""
    clean = [entry for entry in entries if entry["corpus"] == "clean"]
    low = [entry for entry in clean if entry["success"] <= START_AT_MOST] or clean[:1]
    return max(low, key=lambda entry: entry["readiness"])["step"]


def claims(report: dict, study: dict | None) -> list[dict]:
    """Each claim of a report: claim, statement, kind, measured, relation, threshold, holds.

    An empirical one has the `interval` of the study's mean and the `range` of its seeds, and
    `inside`: whether this run is in that range; None for all of them without a study.
    """
    return verdicts(report) + empirical_claims(report, study)


def verdicts(report: dict) -> list[dict]:
    """The claims that every run decides: those that are not empirical."""
    return [
        *control_claims(report["control"]),
        *costate_claims(report["costates"], report["config"]["n_layer"]),
        *family_claims(report["family"]),
    ]


def count_verdicts(config, units: Units, audit: Callable, family: Callable) -> list[dict]:
    """How often each verdict holds over `config.verdicts` seeds, and the worst that was measured.

    `audit` and `family` are the units of work that verdicts come from.
    """
    seeds = [replace(config, seed=config.seed + i) for i in range(config.verdicts)]
    todo = [(each, *work) for each in seeds for work in (("audit", audit), ("family", family))]
    results = iter(units.run(todo))
    every = []
    for each in seeds:
        report = next(results) | {"config": {"n_layer": each.n_layer}}
        every.append(verdicts(report | {"family": next(results)}))
    rows = []
    for same in zip(*every):
        values = [row["measured"] for row in same]
        worst = max(values) if same[0]["relation"] == "≤" else min(values)
        row = {key: same[0][key] for key in ("claim", "kind", "statement", "relation", "threshold")}
        held = sum(row["holds"] for row in same)
        rows.append(row | {"held": f"{held} of {len(same)}", "worst": worst})
    return rows


def claim(
    name: str, kind: str, statement: str, measured: float, relation: str, threshold: float
) -> dict:
    """One row; `relation` is "≤" or "≥"."""
    row = {"claim": name, "kind": kind, "statement": statement, "measured": measured}
    holds = within(measured, relation, threshold)
    return row | {"relation": relation, "threshold": threshold, "holds": holds}


def within(value: float, relation: str, threshold: float) -> bool:
    """Whether value ≤ or ≥ threshold."""
    return value <= threshold if relation == "≤" else value >= threshold


def control_claims(found: dict) -> list[dict]:
    """C1: the differentiable world."""
    z = max(abs(row["z"]) for row in found["scatter"])
    miss = min(abs(row["noise_free_z"]) for row in found["scatter"] if abs(row["s"]) > 0.1)
    ratio = {(row["gain"], row["horizon"]): row["ratio"] for row in found["variance"]}
    regimes = min(ratio[-0.2, 20], 1 / ratio[0.1, 20])
    z_text, miss_text = "noisy costates average to ∇V, worst z", "the noise-free costate is not ∇V"
    return [
        claim("C1", "statistical", z_text, z, "≤", Z_AT_MOST),
        claim("C1", "existence", miss_text + ", least z", miss, "≥", CONTROL_Z),
        claim("C1", "existence", "each estimator has its regime, least ratio", regimes, "≥", 1.0),
    ]


def costate_claims(found: dict, top: int) -> list[dict]:
    """C2 to C5 and C8: the transformer's costates, over all audited states; `top` is above the
    blocks. What can happen to the error is shown on an untrained policy."""
    states = found["states"]
    worst = {key: max(row[key] for row in states) for key in states[0] if key != "prefix"}
    above = max(abs(row["attention_share"]) for row in states if row["layer"] == top)
    order = min(min(row["collision"], row["entropy"] / row["collision"]) for row in states)
    bound = min(row["attention_bound"] for row in states)
    shifting, cooling = found["untrained"]["shifting"], found["untrained"]["cooling"]
    left = max(shifting[-1][key] / shifting[0][key] for key in ("error", "signal"))
    cooler = cooling[-1]["nats"] < cooling[0]["nats"]
    growth = cooling[-1]["error"] / cooling[0]["error"] if cooler else 0.0
    left_there = dict(found["backward_pass"])
    oracle = left_there.pop("oracle")
    exact = {
        ("C2", "E[costate] = ∇V, relative error"): worst["unbiased"],
        ("C3", "group mean shrinks it by 1 − 1/G, error"): worst["own_mean"],
        ("C3", "leave-one-out leaves it, error"): worst["leave_one_out"],
        ("C3", "the std does not turn a prompt's costate, 1 − cosine"): worst["std_turn"],
        ("C4", "own logit + attention = product rule, error"): worst["product_rule"],
        ("C5", "error = sum of sampling gaps (martingale)"): worst["martingale"],
        ("C5", "error = ¼ΣE[κ(1 − Σπ²)] − ‖∇V‖² for b = ½"): worst["gap"],
        ("C8", "loss.backward() leaves the group's costates, error"): max(left_there.values()),
        ("C8", "the oracle leaves ∇V itself, 1 − cosine"): oracle,
    }
    return [
        *(claim(name, "identity", text, value, "≤", EXACT)
          for (name, text), value in exact.items()),
        claim("C4", "identity", "no share of attention above the blocks", above, "≤", 0.0),
        claim("C5", "identity", "entropy bounds stay above the error, least ratio", order, "≥",
              AT_LEAST_ONE),
        claim("C5b", "identity", "attention alone is biased by less than its bound", bound, "≥",
              AT_LEAST_ONE),
        claim("C5", "existence", "error and signal vanish where one logit takes all", left, "≤",
              VANISHED),
        claim("C5", "existence", "but cooling lowers entropy and raises the error", growth, "≥",
              1.0),
    ]  # fmt: skip


def family_claims(found: dict) -> list[dict]:
    """C9: what is exact about the methods, at every policy counted."""
    plain = ("REINFORCE", "RLOO", "Dr. GRPO")
    first = max(1 - row["cosine"] for row in found["methods"] if row["method"] in plain)
    whole = [row for row in found["staleness"] if row["surrogate"] == "whole-sequence ratio"]
    stale = max(max(1 - row["cosine"], abs(row["length"] - 1)) for row in whole)
    exact = ("k2 of the whole text", "k1 in the reward", "k1 in the reward to go")
    leash = max(max(1 - row["kl_cosine"], abs(row["kl_length"] - 1))
                for row in found["leash"] if row["kl"] in exact)  # fmt: skip
    texts = {
        "REINFORCE, RLOO, Dr. GRPO are along ∇V on average, error": first,
        "the whole sequence's ratio makes stale data exact, error": stale,
        "k1 in the reward, k2 of the whole text leave ∇KL, error": leash,
    }
    return [claim("C9", "identity", text, value, "≤", EXACT) for text, value in texts.items()]


def measures(ranks: dict, board: list[dict]) -> dict[str, float]:
    """What a seed's run says to each of EMPIRICAL."""
    rank, parabola = (ranks["pooled"][name]["rank"] for name in ("readiness", "p(1 − p)"))
    final = {row["method"]: row["success"] for row in board if row["method"] != "oracle"}
    critics = [name for name in final if name.endswith("critic") and "without" not in name]
    without = max(value for name, value in final.items() if name not in critics)
    aligned = {row["method"]: row["alignment"] for row in board}
    return {
        "rank": rank, "parabola": rank - parabola, "pick": ranks["clean"]["readiness"]["pick"],
        "grpo": final["GRPO"], "critic": final["PPO with critic"] - without,
        "aligned": aligned["Dr. GRPO"],
    }  # fmt: skip


def empirical_claims(report: dict, study: dict | None) -> list[dict]:
    """C6, C7 and C8 of this run, beside the study's seeds."""
    here = measures(report["rank_correlation"], report["leaderboard"])
    rows = []
    for key, (name, statement, relation, threshold) in EMPIRICAL.items():
        row = {"claim": name, "kind": "empirical", "statement": statement, "measured": here[key]}
        row |= {"relation": relation, "threshold": threshold}
        row |= {"holds": None, "interval": None, "range": None, "inside": None}
        if study is not None:
            mean, *interval = study["empirical"][key]["mean"]
            low, high = study["empirical"][key]["range"]
            row |= {"holds": within(mean, relation, threshold), "interval": interval}
            row |= {"range": [low, high], "inside": low <= here[key] <= high}
        rows.append(row)
    return rows


SIZES = ("max_terms", "d_model", "n_layer", "n_head", "pretrain_steps", "checkpoints",
         "gain_steps", "rl_steps", "group_size", "learning_rate")  # fmt: skip


def stored_study(config: dict, path: Path = STUDY) -> tuple[dict | None, str]:
    """The stored study, if it is there and of this code and these sizes; else None, and why."""
    try:
        study = json.loads(path.read_text())
        there, digest, _ = study["config"], study["digest"], study["empirical"]["rank"]["range"]
    except FileNotFoundError:
        return None, f"no study: {path} is missing"
    except (ValueError, KeyError, TypeError):
        return None, f"no study: {path} is damaged or of another shape"
    if digest != study_digest():
        return None, f"no study: {path} was made by other code"
    differ = [size for size in SIZES if there.get(size) != config[size]]
    if differ:
        return None, f"too small to tell: the study has other sizes ({', '.join(differ)})"
    return study, f"the study: {study['command']}"
