"""The study's own arithmetic: budgets, reach, halves, intervals, verdicts; and its stored file."""

import ast
import dataclasses
import json
import math
import re
from decimal import Decimal, getcontext

import pytest
import torch
from conftest import ROOT, make_policy
from test_train import TINY, parse
from torch.utils.flop_counter import FlopCounterMode

import train
from minicf.exact import solution_probabilities, success
from minicf.lab import answers, claims, family, runner, study
from minicf.training import METHODS


def config(*arguments):
    return parse(*TINY, *arguments)


def test_flops_of_a_step_are_those_of_its_batch():
    """All 128 sequences of a pretraining step at once, and a rollout's passes added up."""
    pretraining, rollout = study.step_flops(config())
    env = train.SumGame(2)
    policy = study.new_policy(config(), env)

    def count(sequences, backward):
        with FlopCounterMode(display=False) as counter:
            logits, _ = policy(torch.zeros(sequences, 3 + 4 - 1, dtype=torch.long))
            if backward:
                logits.sum().backward()
        return counter.get_total_flops()

    assert pretraining == count(128, backward=True) > 0
    B = 19 * 2  # prompts × TINY's group; sampled, scored by the reference, two updates
    assert METHODS["GRPO"].epochs == 2 and METHODS["GRPO"].kl_coef > 0
    assert rollout == 2 * count(B, backward=False) + 2 * count(B, backward=True)


def test_a_budget_is_spent_and_not_overspent():
    some = config("--pretrain-steps", 50)
    pretraining, rollout = study.step_flops(some)
    for step in (1, 17, 50):
        n = study.rollouts_left(some, step)
        spent = step * pretraining + n * rollout
        assert spent <= 50 * pretraining < spent + rollout
    assert study.rollouts_left(some, 50) == 0
    for step in (0, 51):
        with pytest.raises(ValueError, match=f"step 1 to 50, not {step}"):
            study.rollouts_left(some, step)


def test_a_study_that_cannot_be_is_refused_with_one_line(capsys):
    for arguments, says in (
        (["--study", 1], "--study must be at least 2"),
        (["--study", 2, "--pretrain-steps", 3, "--group-size", 64], "too small for one rollout"),
    ):
        with pytest.raises(SystemExit) as stop:
            config(*arguments)
        errors = capsys.readouterr().err
        assert stop.value.code == 2 and says in errors and len(errors.splitlines()) == 1


def test_reach_against_long_arithmetic(env):
    """With 60 digits, on a policy whose answers have probabilities down to 1e-30."""
    getcontext().prec = 60
    policy = make_policy(env, spread=2.0)
    found = study.reach(policy, env)
    p, rows = solution_probabilities(policy, env)
    assert p.min() < 1e-15
    one = Decimal(1)
    values = [sum((Decimal(x.item()) for x in p[rows == q]), Decimal(0)) for q in range(19)]
    for place, k in enumerate(study.DRAWS):
        passes = sum(one - (one - value) ** k for value in values) / 19
        answers_found = sum(one - (one - Decimal(x.item())) ** k for x in p) / 19
        assert found["pass_at_k"][place] == pytest.approx(float(passes), rel=1e-9)
        assert found["coverage"][place] == pytest.approx(float(answers_found), rel=1e-9)
    assert found["pass_at_k"][0] == pytest.approx(success(policy, env).mean().item())


def test_only_the_baseline_differs_where_baselines_are_compared():
    plain = [dataclasses.replace(method, source="", baseline="none", gae_lambda=0.0)
             for method in family.BASELINES.values()]  # fmt: skip
    assert all(each == plain[0] for each in plain) and plain[0].scale == "none"
    assert {m.baseline for m in family.BASELINES.values()} == {
        "mean", "batch", "critic", "exact critic"
    }  # fmt: skip


def test_the_ceiling_is_the_gain_of_one_half_against_the_other():
    entries = [{"seed": 0, "gains": [a, b]} for a, b in ((1.0, 3.0), (2.0, 1.0), (4.0, 2.0))]
    known = answers.ceiling(entries)  # predicted by 3, 1, 2; the gains are 1, 2, 4
    assert known["pick"] == [1 / 4] and known["rank"] == [pytest.approx(-0.5)]
    single = answers.ceiling([{"seed": 0, "gains": [1.0]}])
    assert all(math.isnan(value) for values in single.values() for value in values)


def test_verdicts_know_the_side_of_their_threshold():
    row = answers.verdict("C", "", [0.5, 0.4, 0.6], "≥", 0.45)
    assert row["holds"] and not row["certain"]
    row = answers.verdict("C", "", [0.5, 0.4, 0.6], "≤", 0.45)
    assert not row["holds"] and not row["certain"]
    assert answers.verdict("C", "", [0.5, 0.4, 0.6], "≤", 0.6)["certain"]


def test_intervals_leave_out_what_a_seed_has_not():
    over = answers.Interval(0)
    mean, low, high = over([1.0, 2.0, math.nan, 3.0])
    assert mean == 2 and 1 <= low < 2 < high <= 3
    assert all(math.isnan(value) for value in over([math.nan]))


def test_held_out_prompts_are_split_by_their_place():
    prompts = [{"target": t, "before": t / 100, "after": t / 50} for t in (2, 3, 24, 25)]
    row = {"prompts": prompts, "largest": 27}
    assert answers.held_out_change(row, True) == (pytest.approx(0.135), pytest.approx(0.27))
    assert answers.held_out_change(row, False) == (pytest.approx(0.135), pytest.approx(0.27))
    assert answers.held_out_change({"prompts": prompts[1:3], "largest": 27}, False) is None


# The stored study.


def test_the_digest_sees_code_and_nothing_else():
    def digest(source):
        return runner.syntax(ast.parse(source))

    code = 'def f(x):\n    "Doc."\n    return x + 1\n'
    same = '"A module."\n\ndef f(x):  # a comment\n    """Another."""\n    return (x + 1)\n'
    assert digest(code) == digest(same)
    for other in ("x + 0", "x - 1", "y + 1", "x + 1.5", "x + None"):
        assert digest(code) != digest(code.replace("x + 1", other))


def test_the_stored_study_was_made_by_this_code():
    stored = json.loads((ROOT / "lessons" / "study.json").read_text())
    assert stored["digest"] == runner.study_digest(), (
        "code that the study depends on has changed; make it again with: " + stored["command"]
    )


def test_a_study_that_cannot_stand_beside_a_run_is_refused_in_one_line(tmp_path):
    """Missing, damaged, of another shape, made by other code, of other sizes."""
    text = (ROOT / "lessons" / "study.json").read_text()
    stored, file = json.loads(text), tmp_path / "study.json"
    whole = stored["config"]
    assert claims.stored_study(whole)[0] == stored
    cases = [
        (None, whole, "is missing"),
        (text[:1000], whole, "damaged or of another shape"),
        (json.dumps({"config": {}, "digest": ""}), whole, "damaged or of another shape"),
        (json.dumps(stored | {"digest": "other"}), whole, "made by other code"),
        (text, whole | {"rl_steps": 3}, r"too small to tell: .*rl_steps"),
    ]
    for content, config_of_run, says in cases:
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        study_there, why = claims.stored_study(config_of_run, file)
        assert study_there is None and re.search(says, why) and len(why.splitlines()) == 1
