"""The claims of train.py: what was measured, its threshold, and whether it holds."""

# Thresholds, set before the run that is quoted.
START_AT_MOST = 0.60  # exact success of the checkpoint that RL starts from
GRPO_REACHES = 0.95
EXACT = 1e-8  # relative error of an identity in float64; some gradients are themselves 1e-6
ORACLE_TURNS = 1e-4  # 1 − cosine of the oracle's own gradient, in float32
Z_AT_MOST = 4.0  # standard errors, for the largest of 13 sample means
CONTROL_Z = 10.0  # standard errors by which the noise-free costate must miss, away from s = 0
VANISHED = 0.01  # what may be left of the error and of the signal
RANK_AT_LEAST = 0.6
PICK_AT_LEAST = 0.85
CRITIC_LEADS_BY = 0.02  # at most, in exact success, over the best method without one
ALIGNED = 0.5  # mean cosine of Dr. GRPO's backward pass with ∇V along a run


def starting_point(entries: list[dict]) -> int:
    """The clean checkpoint that readiness picks among those of success at most START_AT_MOST."""
    clean = [entry for entry in entries if entry["corpus"] == "clean"]
    low = [entry for entry in clean if entry["success"] <= START_AT_MOST] or clean[:1]
    return max(low, key=lambda entry: entry["readiness"])["step"]


def claims(report: dict) -> list[dict]:
    """Each claim of a report: claim, statement, measured, relation, threshold, holds."""
    return [
        *control_claims(report["control"]),
        *costate_claims(report["costates"], report["config"]["n_layer"]),
        *decision_claims(report["rank_correlation"], report["leaderboard"]),
        *run_claims(report["costates"]["backward_pass"], report["leaderboard"]),
        *family_claims(report["family"]),
    ]


def claim(name: str, statement: str, measured: float, relation: str, threshold: float) -> dict:
    """One row; `relation` is "≤" or "≥"."""
    holds = measured <= threshold if relation == "≤" else measured >= threshold
    row = {"claim": name, "statement": statement, "measured": measured}
    return row | {"relation": relation, "threshold": threshold, "holds": holds}


def control_claims(found: dict) -> list[dict]:
    """C1: the differentiable world."""
    z = max(abs(row["z"]) for row in found["scatter"])
    miss = min(abs(row["noise_free_z"]) for row in found["scatter"] if abs(row["s"]) > 0.1)
    ratio = {(row["gain"], row["horizon"]): row["ratio"] for row in found["variance"]}
    regimes = min(ratio[-0.2, 20], 1 / ratio[0.1, 20])
    return [
        claim("C1", "noisy costates average to ∇V, worst z", z, "≤", Z_AT_MOST),
        claim("C1", "control: the noise-free costate is not ∇V, least z", miss, "≥", CONTROL_Z),
        claim("C1", "each gradient estimator has its regime, least ratio", regimes, "≥", 1.0),
    ]


def costate_claims(found: dict, top: int) -> list[dict]:
    """C2 to C5: the transformer's costates, over all audited states; `top` is above the blocks."""
    states = found["states"]
    worst = {key: max(row[key] for row in states) for key in states[0] if key != "prefix"}
    above = max(abs(row["attention_share"]) for row in states if row["layer"] == top)
    order = min(min(row["collision"], row["entropy"] / row["collision"]) for row in states)
    bound = min(row["attention_bound"] for row in states)
    shifting, cooling = found["hardening"]["shifting"], found["hardening"]["cooling"]
    left = max(shifting[-1][key] / shifting[0][key] for key in ("error", "signal"))
    cooler = cooling[-1]["nats"] < cooling[0]["nats"]
    growth = cooling[-1]["error"] / cooling[0]["error"] if cooler else 0.0
    exact = {
        "unbiased": ("C2", "E[costate] = ∇V, relative error"),
        "own_mean": ("C3", "group mean shrinks it by 1 − 1/G, error"),
        "leave_one_out": ("C3", "leave-one-out leaves it, error"),
        "std_turn": ("C3", "the std does not turn a prompt's costate, 1 − cosine"),
        "product_rule": ("C4", "own logit + attention = product rule, error"),
        "martingale": ("C5", "error = sum of sampling gaps (martingale)"),
        "gap": ("C5", "error = ¼ΣE[κ(1 − Σπ²)] − ‖∇V‖² for b = ½"),
    }
    return [
        *(claim(*names, worst[key], "≤", EXACT) for key, names in exact.items()),
        claim("C4", "control: no share of attention above the blocks", above, "≤", 0.0),
        claim("C5", "entropy bounds stay above the error, least ratio", order, "≥", 1.0),
        claim("C5", "error and signal vanish where one logit takes all", left, "≤", VANISHED),
        claim("C5", "but cooling lowers entropy and raises the error", growth, "≥", 1.0),
        claim("C5b", "attention alone is biased by less than its bound", bound, "≥", 1.0),
    ]


def decision_claims(ranks: dict, board: list[dict]) -> list[dict]:
    """C6 and C7: when RL pays, and what a critic adds."""
    rank, parabola = (ranks["pooled"][name]["rank"] for name in ("readiness", "p(1 − p)"))
    pick = ranks["clean"]["readiness"]["pick"]
    final = {row["method"]: row["success"] for row in board if row["method"] != "oracle"}
    lead = final.pop("PPO with critic") - max(final.values())
    grpo, reaches = final["GRPO"], f"GRPO from success ≤ {START_AT_MOST} reaches"
    return [
        claim("C6", "readiness ranks real gains, both corpora", rank, "≥", RANK_AT_LEAST),
        claim("C6", "and better than the parabola p(1 − p), by", rank - parabola, "≥", 0.0),
        claim("C6", "its pick's share of the best gain, clean", pick, "≥", PICK_AT_LEAST),
        claim("C7", reaches, grpo, "≥", GRPO_REACHES),
        claim("C7", "the critic's lead over the best method without", lead, "≤", CRITIC_LEADS_BY),
    ]


def run_claims(backward_pass: dict, board: list[dict]) -> list[dict]:
    """C8: the backward pass of training itself."""
    aligned = {row["method"]: row["alignment"] for row in board}
    turn = 1 - min(entry["alignment"] for row in board if row["method"] == "oracle"
                   for entry in row["curve"][1:])  # fmt: skip
    factor, along = max(backward_pass.values()), aligned["Dr. GRPO"]
    return [
        claim("C8", "loss.backward() leaves the group's costates, error", factor, "≤", EXACT),
        claim("C8", "the oracle leaves ∇V itself, 1 − cosine", turn, "≤", ORACLE_TURNS),
        claim("C8", "Dr. GRPO leaves it up to noise, mean cosine", along, "≥", ALIGNED),
    ]


def family_claims(found: dict) -> list[dict]:
    """C9: what is exact about the methods, at every policy counted."""
    plain = ("REINFORCE", "RLOO", "Dr. GRPO")
    first = max(1 - row["cosine"] for row in found["methods"] if row["method"] in plain)
    whole = [row for row in found["staleness"] if row["surrogate"] == "whole-sequence ratio"]
    stale = max(max(1 - row["cosine"], abs(row["length"] - 1)) for row in whole)
    exact = ("k2 of the whole text", "k1 in the reward", "k1 in the reward to go")
    leash = max(max(1 - row["kl_cosine"], abs(row["kl_length"] - 1))
                for row in found["leash"] if row["kl"] in exact)  # fmt: skip
    return [
        claim("C9", "REINFORCE, RLOO, Dr. GRPO are along ∇V on average, error", first, "≤", EXACT),
        claim("C9", "the whole sequence's ratio makes stale data exact, error", stale, "≤", EXACT),
        claim("C9", "k1 in the reward, k2 of the whole text leave ∇KL, error", leash, "≤", EXACT),
    ]
