import atexit
import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import train
from minicf.lab import claims, figures, runner, tables
from minicf.lab.lesson_figures import leaderboard_over_seeds
from minicf.training import METHODS, Method

TINY = (
    "--max-terms 2 --d-model 8 --n-layer 1 --n-head 2 --pretrain-steps 20 --checkpoints 2"
    " --gain-steps 2 --gain-seeds 1 --rl-steps 3 --group-size 2 --audits 1 --counted 1 --jobs 2"
    " --device cpu"
).split()


def run(*arguments, cwd=ROOT, **options):
    command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, **options)


def parse(*arguments):
    return runner.parse(train.Config, "", train.FAST, [str(each) for each in arguments])


def without_timings(thing):
    if isinstance(thing, dict):
        return {k: without_timings(v) for k, v in thing.items() if k != "seconds"}
    return [without_timings(v) for v in thing] if isinstance(thing, list) else thing


def report(folder):
    return without_timings(json.loads((folder / "report.json").read_text()))


def in_memory(thing):
    """A report as it was before it was written: null is nan again."""
    if isinstance(thing, dict):
        return {k: in_memory(v) for k, v in thing.items()}
    if isinstance(thing, list):
        return [in_memory(v) for v in thing]
    return math.nan if thing is None else thing


KINDS = ("identity", "existence", "statistical", "empirical")

# Runs of train.py that take a while. In a whole run of the tests they start early, one after the
# other, beside the tests of this process.

FOLDER = Path(tempfile.mkdtemp(prefix="minicf-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
started = {}


def start_early():
    """Called by conftest.py at the start of a whole run."""
    pool = ThreadPoolExecutor(1)
    for function in (whole_story, killed_story, small_study):
        started[function] = pool.submit(function)
    pool.shutdown(wait=False)


def result_of(function):
    return started[function].result() if function in started else function()


def whole_story():
    """The story at its smallest: the finished process, and the folder it left."""
    return run(*TINY, "--out", FOLDER / "one"), FOLDER / "one"


def killed_story():
    """Kill the parent alone once a unit is done, see the workers end, and run the command again."""
    folder = FOLDER / "killed"
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list(folder.glob("units/*.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.perf_counter() + 20
    while alive(process.pid):
        assert time.perf_counter() < deadline, "a worker outlives its parent"
        time.sleep(0.05)
    assert not (folder / "report.json").exists()
    return run(*TINY, "--out", folder, "--jobs", 1), folder  # nor does the job count matter


def small_study():
    """Two seeds at the smallest size."""
    return run(*TINY, "--out", FOLDER / "study", "--study", 2, "--seed", 5), FOLDER / "study"


def alive(group):
    """Whether a process group has a member left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def finished():
    return result_of(whole_story)


def test_the_whole_story_in_one_command(finished):
    result, folder = finished
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found = json.loads((folder / "report.json").read_text())
    assert set(found) == {
        "config", "versions", "seconds", "pretraining", "readiness", "rank_correlation",
        "leaderboard", "family", "costates", "control", "claims",
    }  # fmt: skip
    assert {row["method"] for row in found["leaderboard"]} == set(METHODS)
    row_keys = {"method", "seed", "curve", "success", "samples", "seconds", "distinct", "alignment"}
    assert all(row_keys <= set(row) for row in found["leaderboard"])
    assert {"betas", "weight_decay", "gradient_clip", "value_coef"} <= set(found["config"])
    keys = {"corpus", "step", "loss", "success", "pass_at_k", "signal", "headroom", "readiness"}
    assert all(keys | {"reward_std", "gain"} <= set(row) for row in found["readiness"])
    names = {row["claim"] for row in found["claims"]}
    assert names == {"C1", "C2", "C3", "C4", "C5", "C5b", "C6", "C7", "C8", "C9"}
    for row in found["claims"]:
        assert row["statement"] in result.stdout
    drawn = {path.name for path in (folder / "figures").iterdir()}
    assert {"learning_curve.png", "alignment.png", "leaderboard.png"} <= drawn
    assert not list(folder.rglob("*.partial"))


def test_exact_claims_hold_even_in_the_smallest_run(finished):
    rows = json.loads((finished[1] / "report.json").read_text())["claims"]
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
    assert {kind: len(some) for kind, some in kinds.items()} == {
        "identity": 15, "existence": 4, "statistical": 1, "empirical": 6
    }  # fmt: skip
    for row in kinds["identity"] + kinds["existence"] + kinds["statistical"]:
        assert row["holds"], row["statement"]
    for row in kinds["empirical"]:  # the study has other sizes
        assert row["holds"] is None and row["interval"] is None
    assert "too small to tell" in finished[0].stdout


def test_the_same_command_again_serves_what_is_there(finished, capsys):
    before = report(finished[1])
    train.main([*TINY, "--out", str(finished[1])])
    out, errors = capsys.readouterr()
    assert ": " not in out.split("1. Pretraining")[1].split("2. RL")[0]  # no unit ran
    assert report(finished[1]) == before and errors == ""


def test_a_killed_run_ends_its_workers_and_continues_to_the_same_report(finished):
    again, folder = result_of(killed_story)
    assert again.returncode == 0, again.stderr
    assert report(folder) == report(finished[1])


def test_ctrl_c_says_how_to_continue(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "--out", str(tmp_path / "x")]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while not list((tmp_path / "x").glob("units/*.pt")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines() == [
        "train.py: interrupted; the same command continues from the units that are done"
    ]


def test_a_damaged_file_is_named(finished, tmp_path, capsys):
    folder = tmp_path / "damaged"
    shutil.copytree(finished[1], folder)
    unit = folder / "units" / "pretrain-clean.pt"
    unit.write_bytes(unit.read_bytes()[:1000])
    with pytest.raises(SystemExit) as stop:
        train.main([*TINY, "--out", str(folder)])
    errors = capsys.readouterr().err
    assert stop.value.code == 1 and len(errors.splitlines()) == 1
    assert "pretrain-clean.pt is damaged; delete it" in errors


def test_another_configuration_is_refused_and_fresh_starts_over(finished, tmp_path, capsys):
    folder = tmp_path / "other"
    shutil.copytree(finished[1], folder)
    with pytest.raises(SystemExit) as stop:
        train.main([*TINY, "--out", str(folder), "--seed", "1"])
    assert stop.value.code == 2 and "seed 0 there, 1 now" in capsys.readouterr().err
    assert report(folder) == report(finished[1])
    runner.prepare(parse(*TINY, "--out", folder, "--seed", 1, "--fresh"))
    assert not (folder / "report.json").exists() and not (folder / "units").exists()


def test_a_study_over_seeds():
    result, folder = result_of(small_study)
    assert result.returncode == 0, result.stderr
    study = json.loads((folder / "study.json").read_text())
    assert len(study["checkpoints"]) == 2 * 3 * 2
    assert len(study["leaderboard"]) == 2 * len(METHODS)
    assert {row["seed"] for row in study["checkpoints"]} == {5, 6}
    runs = {(row["seed"], row["method"], row["group_size"]) for row in study["alignment"]}
    expected = itertools.product((5, 6), ("GRPO", "Dr. GRPO"), (2, 64))
    assert runs == set(expected) and len(study["alignment"]) == len(runs)
    assert all("alignment" in row["curve"][-1] for row in study["alignment"])
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    assert {"alignment", "predictors", "switch", "critic", "reach", "held_out"} <= drawn
    mean, low, high = study["ranks"]["pooled"]["readiness of 8"]["rank"]
    assert low <= mean <= high
    assert {row["corpus"] for row in study["switch"]} == {"clean", "wrong"}
    assert {row["group_size"] for row in study["critic"]} == {1, 2}
    assert study["digest"] == runner.study_digest()
    assert {"reach", "held_out", "noise", "family", "checkpoints", "answers"} <= set(study)
    for row in study["claims"]:
        assert row["statement"] in result.stdout and "certain" in row


def test_the_order_of_methods_changes_no_curve(finished, tmp_path):
    """A method's unit alone, in another process, gives the curve of the full run."""
    folder = tmp_path / "alone"
    shutil.copytree(finished[1], folder)
    config = parse(*TINY, "--out", folder)
    rows = {row["method"]: row for row in report(finished[1])["leaderboard"]}
    start = claims.starting_point(report(finished[1])["readiness"])
    again = train.method_unit(config, "method RLOO of 2", "clean", start, "RLOO", 2)["row"]
    assert without_timings(runner.strict(again)) == rows["RLOO"]


def test_a_row_added_to_the_methods_runs_through_everything(finished, tmp_path, monkeypatch):
    """Its unit, the tables and every figure, here and in the lessons' leaderboard."""
    folder = tmp_path / "added"
    shutil.copytree(finished[1], folder)
    monkeypatch.setitem(METHODS, "Mine", Method("a reader", baseline="mean", aggregate="token"))
    found = in_memory(json.loads((finished[1] / "report.json").read_text()))
    start = claims.starting_point(found["readiness"])
    config = parse(*TINY, "--out", folder)
    row = train.method_unit(config, "mine", "clean", start, "Mine", 2)["row"]
    found["leaderboard"].append(row)
    found["claims"] = claims.claims(found, None)
    tables.print_report(found, "no study")
    assert set(figures.of_demonstration(found)) >= {"alignment", "leaderboard"}
    leaderboard_over_seeds(found["leaderboard"])
    assert figures.method_style("Mine")["color"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--nonsense"], "--nonsense"),
        (["--rl-steps", "-3"], "--rl-steps must be at least 1, not -3"),
        (["--rl-steps", "many"], "invalid int value: 'many'"),
        (["--rl-steps", "1.5"], "invalid int value: '1.5'"),
        (["--pretrain-steps", "0"], "--pretrain-steps must be at least 1, not 0"),
        (["--group-size", "1"], "--group-size must be at least 2, not 1"),
        (["--d-model", "30"], "--d-model 30 is not divisible by --n-head 4"),
        (["--n-head", "0"], "--n-head must be at least 1, not 0"),
        (["--n-layer", "0"], "--n-layer must be at least 1, not 0"),
        (["--max-terms", "6"], "--max-terms must be at most 5, not 6"),
        (["--max-terms", "0"], "--max-terms must be at least 1, not 0"),
        (["--checkpoints", "900"], "--checkpoints must be at most --pretrain-steps 800, not 900"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--learning-rate", "nan"], "--learning-rate must be at least 1e-09, not nan"),
        (["--learning-rate", "inf"], "--learning-rate must be finite, not inf"),
        (["--learning-rate", "0"], "--learning-rate must be at least"),
        (["--jobs", "0"], "--jobs must be at least 1, not 0"),
        (["--audits", "9"], "--audits must be at most 3, not 9"),
        (["--counted", "4"], "--counted must be at most 3, not 4"),
        (["--study", "-1"], "--study must be at least 0, not -1"),
        (["--study", "1"], "--study must be at least 2"),
        (["--gain-seeds", "0"], "--gain-seeds must be at least 1, not 0"),
        (["--device", "tpu"], "--device must be auto or one of cpu"),
        (["--out", "/proc/none"], "/proc/none"),
    ],
)
def test_bad_input_ends_with_one_line_and_status_2(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        train.main(arguments)
    out, errors = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert errors.startswith("train.py: ") and says in errors and len(errors.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_help_explains_every_field_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    options = dataclasses.fields(train.Config)
    assert all(runner.flag(each.name) in text for each in options)
    assert text.count("(default:") >= len(options)


def test_a_device_that_is_there_is_chosen(monkeypatch):
    assert runner.available_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runner.available_device("auto") == runner.available_device("cuda") == "cuda"


def test_the_five_completions_and_the_alignment_are_printed(finished):
    result, folder = finished
    text = result.stdout.split("Five completions before and after GRPO")[1]
    row = next(r for r in report(folder)["leaderboard"] if r["method"] == "GRPO")
    assert len(row["completions"]["before"]) == len(row["completions"]["after"]) == 5
    for side in ("before", "after"):
        assert all(each in text for each in row["completions"][side])
    header = result.stdout.split("Leaderboard")[1].splitlines()[2]
    assert "alignment" in header.split()


def test_claims_report_what_does_not_hold(finished):
    """Turn each measured value to the wrong side: the verdict must follow."""
    found = json.loads((finished[1] / "report.json").read_text())
    worse = json.loads(json.dumps(found))
    for row in worse["costates"]["states"]:
        row.update(unbiased=1.0, own_mean=1.0, leave_one_out=1.0, std_turn=1.0, product_rule=1.0)
        row.update(martingale=1.0, gap=1.0, collision=0.9, attention_bound=0.9, attention_share=0.5)
    for way, error in (("shifting", 1.0), ("cooling", 1e-9)):
        worse["costates"]["untrained"][way][-1]["error"] = error
    for row in worse["control"]["scatter"]:
        row.update(z=9.0, noise_free_z=0.1)
    for row in worse["control"]["variance"]:
        row["ratio"] = 1.5 if row["gain"] > 0 else 0.5
    worse["rank_correlation"]["pooled"]["readiness"]["rank"] = -1.0
    worse["rank_correlation"]["pooled"]["p(1 − p)"]["rank"] = 1.0
    worse["rank_correlation"]["clean"]["readiness"]["pick"] = 0.0
    for row in worse["leaderboard"]:
        row["success"] = 0.9 if row["method"] == "PPO with critic" else 0.1
        row["alignment"] = row["curve"][-1]["alignment"] = 0.1
    worse["costates"]["backward_pass"] = {"token": 1.0, "oracle": 1.0}
    for row in worse["family"]["methods"] + worse["family"]["staleness"]:
        row["cosine"] = 0.5
    for row in worse["family"]["leash"]:
        row["kl_length"] = 2.0
    assert not any(row["holds"] for row in claims.claims(worse, None))
