"""The command line: what a run leaves and says, and how it ends when something is wrong."""

import contextlib
import copy
import importlib.util
import io
import json
import math
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

import train
from minicf import console
from minicf.env import SumGame
from minicf.gpt import GPT
from minicf.variants import dapo_loss
from train import METHODS

TINY = "--pretrain-steps 8 --steps 2 --max-terms 2 --d-model 16 --group-size 2 --device cpu".split()


def policy_in(folder):
    """The policy that a run left."""
    policy = GPT.for_world(SumGame(2), d_model=16)
    policy.load_state_dict(torch.load(folder / "policy.pt", weights_only=True))
    assert all(weight.isfinite().all() for weight in policy.parameters())
    return policy


def command(*arguments, **options):
    """Python in a process of its own, where text has no encoding but ASCII by default."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The whole story at its smallest, without the gains: what it said, and its folder."""
    folder, said = tmp_path_factory.mktemp("story") / "new" / "folder", io.BytesIO()
    with pytest.MonkeyPatch.context() as patch, io.TextIOWrapper(said, "ascii") as output:
        patch.setattr(train, "gain_of_short_run", lambda policy, *_: policy.norm.bias.sum().item())
        with contextlib.redirect_stdout(output):
            assert train.main([*TINY, "--out", str(folder)]) in (0, None)
        output.flush()
        return said.getvalue().decode("utf-8"), folder


def test_the_whole_story_in_one_command(story):
    output, folder = story
    files = {path.name for path in folder.iterdir()}
    assert files == {"report.json", "policy.pt", "figure.png"}
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert len(report["checkpoints"]) == 8
    assert report["start"] in [row["step"] for row in report["checkpoints"]]
    keys = {"step", "loss", "success", "signal", "headroom", "readiness", "gain"}
    assert all(keys <= set(row) for row in report["checkpoints"])
    assert set(report["histories"]) == {*METHODS, "exact"}
    starts = {history[0]["success"] for history in report["histories"].values()}
    ends = {history[-1]["step"] for history in report["histories"].values()}
    assert len(starts) == 1 and ends == {2}
    assert report["options"]["pretrain_steps"] in (8, "8") and report["seconds"] > 0
    assert report["versions"]["torch"] == torch.__version__
    lines = output.splitlines()
    assert len(lines) <= 90 and max(map(len, lines)) <= 100
    assert all(sentence in output for sentence in report["conclusions"])
    assert all(f"\n{number}. " in "\n" + output for number in range(1, 7))
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert policy_in(folder)(SumGame(2).prompts)[0].isfinite().all()


def test_the_gain_is_the_mean_rise_of_two_short_runs_and_changes_nothing(trained, env):
    policy, before = copy.deepcopy(trained).float(), copy.deepcopy(trained).float()
    gain, rises = train.gain_of_short_run(policy, env, 4, rollouts=3), []
    for seed in (0, 1):
        trial, generator = copy.deepcopy(before), torch.Generator().manual_seed(seed)
        history = train.improve(trial, env, "grpo", 3, generator, 4, 3e-4, warmup=5)
        rises.append(history[-1]["success"] - history[0]["success"])
    assert gain == pytest.approx(sum(rises) / 2) and rises[0] != rises[1]
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), before.parameters()))


def test_a_method_alone_repeats_with_its_seed(tmp_path, capsys):
    ends = []
    for folder, seed in ((tmp_path / "a", 3), (tmp_path / "b", 3), (tmp_path / "c", 4)):
        arguments = [*TINY, "--method", "rloo", "--seed", str(seed), "--out", str(folder)]
        assert train.main(arguments) in (0, None)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        assert list(report["histories"]) == ["rloo"] and "conclusions" not in report
        ends.append(torch.cat([each.flatten() for each in policy_in(folder).parameters()]))
        assert "rloo" in capsys.readouterr().out
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--nonsense"], "--nonsense"),
        (["--method", "a2c"], "a2c"),
        (["--device", "abacus"], "abacus"),
        (["--steps", "0"], "--steps"),
        (["--steps", "-3"], "--steps"),
        (["--steps", "many"], "many"),
        (["--steps", "1.5"], "1.5"),
        (["--pretrain-steps", "7"], "at least 8"),
        (["--group-size", "0", "--method", "ppo"], "--group-size"),
        (["--group-size", "1"], "--group-size must be at least 2"),
        (["--d-model", "0"], "--d-model"),
        (["--d-model", "66"], "66"),
        (["--max-terms", "0"], "0"),
        (["--max-terms", "6"], "max_terms"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--learning-rate", "0"], "--learning-rate"),
        (["--out", "a file"], "a file"),
    ],
)
def test_bad_input_ends_with_one_line_and_status_2(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("mine", encoding="utf-8")
    try:
        status = train.main([*TINY[:4], *arguments])
    except SystemExit as stop:
        status = stop.code
    errors = capsys.readouterr().err
    assert status == 2 and says in errors and len(errors.splitlines()) == 1
    assert errors.startswith("train.py: ")
    assert (tmp_path / "a file").read_text(encoding="utf-8") == "mine"
    assert not list(tmp_path.rglob("*.*"))  # nothing that a run would leave


def test_a_group_of_one_is_enough_where_none_are_compared(tmp_path, capsys):
    arguments = [*TINY, "--method", "ppo", "--group-size", "1", "--out", str(tmp_path)]
    assert train.main(arguments) in (0, None)


def test_a_loss_that_is_not_finite_ends_with_one_line_and_keeps_the_weights(
    tmp_path, capsys, monkeypatch
):
    calls = []

    def breaking(logprobs, old_logprobs, advantages, mask, **options):
        calls.append(None)
        loss, stats = dapo_loss(logprobs, old_logprobs, advantages, mask)
        return loss * (math.nan if len(calls) == 3 else 1.0), stats

    monkeypatch.setattr(train, "grpo_loss", breaking)
    assert train.main([*TINY, "--method", "drgrpo", "--out", str(tmp_path)]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("train.py: step 2: the loss is nan") and errors.count("\n") == 1
    assert "policy.pt" in errors and policy_in(tmp_path)
    assert not (tmp_path / "report.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
def test_ctrl_c_ends_with_one_line_and_status_130(tmp_path):
    arguments = ["--steps", "100000", "--method", "grpo", "--out", tmp_path]
    process = command("-u", ROOT / "train.py", *TINY[:2], *TINY[4:], *arguments)
    while not process.stdout.readline().startswith(b"3."):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"train.py: stopped; nothing was saved\n")
    assert not (tmp_path / "report.json").exists()


def test_nothing_happens_on_import(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = torch.random.get_rng_state(), torch.get_num_threads()
    spec = importlib.util.spec_from_file_location("train_again", ROOT / "train.py")
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert list(again.METHODS) == list(METHODS) and capfd.readouterr() == ("", "")
    assert torch.equal(before[0], torch.random.get_rng_state()) and not list(tmp_path.iterdir())
    assert before[1] == torch.get_num_threads()


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for name in ("method", "seed", "steps", "group-size", "learning-rate", "pretrain-steps",
                 "max-terms", "d-model", "device", "out"):  # fmt: skip
        assert f"--{name}" in text


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "there"
    path.write_text("old", encoding="utf-8")

    def half(unfinished):
        unfinished.write_text("ne", encoding="utf-8")
        raise OSError("the disk is full")

    with pytest.raises(OSError):
        console.save(path, half)
    assert path.read_text(encoding="utf-8") == "old"
    console.save(path, lambda unfinished: unfinished.write_text("new", encoding="utf-8"))
    assert [each.read_text(encoding="utf-8") for each in tmp_path.glob("there")] == ["new"]


# What a run shows is said in sentences of its own numbers: turned round, they say the opposite.


def a_report(better, ahead):
    """Eight checkpoints whose gains follow readiness, or the rival; and histories."""
    rows = []
    for i in range(8):
        by_readiness, by_rival = float(i), float(-i)
        gain = by_readiness if better else by_rival + 0.0
        rows.append({"step": i, "success": by_rival + 8, "headroom": 1.0, "gain": gain / 10})
        rows[-1]["readiness"] = by_readiness
    names, histories = [*METHODS, "exact"], {}
    for i, name in enumerate(names):
        end = 0.5 + i / 100 + (0 if name != "exact" else -0.3 if ahead else 0.3)
        cosines = [math.nan, 0.2, 0.6]
        histories[name] = [
            {"step": step, "success": value, "cosine": cosine}
            for step, value, cosine in zip((0, 10, 20), (0.1, 0.3, end), cosines)
        ]
    return {"checkpoints": rows, "histories": histories}


def numbers(report):
    """Each number in the sentences, as it is written, in order."""
    return re.findall(r"-?\d+(?:\.\d+)?", " ".join(console.conclusions(report)))


def test_conclusions_follow_their_numbers():
    good, bad = numbers(a_report(True, ahead=False)), numbers(a_report(False, ahead=True))
    success, cosines, ranks = ["0.10", "0.53"], {"0.40", "0.20", "0.60"}, ["1.00", "-1.00"]
    for found, order in ((good, ranks), (bad, ranks[::-1])):
        assert found[:2] == success and cosines <= set(found)  # without the nan of step 0
        assert [x for x in found if x in ranks] == order  # readiness, then its rival
        critics = {"0.313", "0.317"}  # the mean along ppo and perfect: of .1, .3 and .54 or .55
        assert critics <= set(found)
    assert {"7", "0.70"} <= set(good) and {"7", "-0.70", "0"} <= set(bad)
    assert good[-3:] != bad[-3:]  # exact is above all the others, or below


def test_answers_are_printed_as_they_were_sampled(env, trained, capsys):
    console.print_answers(trained, env)
    texts = capsys.readouterr().out.split()
    for text, mark in zip(texts, [*texts[1:], ""]):
        if text != "✓":
            prompt, answer = env.encode(text[:3]), env.encode(text[3:])
            right = env.reward(prompt[None], answer[None]).item() == 1
            assert right == (mark == "✓") and len(answer) <= 4
    assert len({text[:3] for text in texts if text != "✓"}) == 5
