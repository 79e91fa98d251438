"""The README's Python runs as it stands there, its table is that of the lessons, and its numbers
are those of the stored results."""

import functools
import json
import re
import statistics
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

LESSONS = sorted((ROOT / "lessons").glob("[0-9][0-9]_*.ipynb"))
PAGES = {
    page: (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "lessons/README.md")
}
README = PAGES["README.md"]
WORDS = " ".join(README.replace("*", "").split())
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_code_runs(number, capsys, tmp_path, monkeypatch):
    """Each in a namespace of its own, long ones with fewer steps."""
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"\b(range\(|env, )[1-9]\d+\b", r"\g<1>12", BLOCKS[number])
    namespace = {"__name__": "readme"}
    if "trl" in text:
        namespace |= for_trl(tmp_path, monkeypatch)
    with torch.random.fork_rng(devices=[]):  # TRL seeds the global generator
        exec(compile(text, f"README.md, block {number}", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "nan" not in printed and ("print(" not in text or printed)


def test_with_many_answers_the_loop_points_along_the_value_gradient(capsys):
    (loop,) = [block for block in BLOCKS if "optimizer.step()" in block]
    many = loop.replace("G = 8 ", "G = 512 ").replace("range(61)", "range(1)")
    exec(compile(many, "README.md with many answers", "exec"), {"__name__": "readme"})
    found = re.search(r"success (0\.\d+), cosine to ∇V (0\.\d+)", capsys.readouterr().out)
    success, cosine = map(float, found.groups())
    assert numbers_in("takes success from # to")[0] == pytest.approx(success, abs=0.03)
    assert numbers_in("the first cosine is #")[0] == pytest.approx(cosine, abs=0.03)


def for_trl(folder, monkeypatch):
    """What the reader's own script has: a model with its tokenizer, a reward, prompts.

    TRL asks those who have no GPU for two more settings.
    """
    trl = pytest.importorskip("trl")
    import test_trl_probe as made

    on_cpu = functools.partial(trl.GRPOConfig, use_cpu=True, bf16=False, max_completion_length=4)
    monkeypatch.setattr(trl, "GRPOConfig", on_cpu)
    made.make_model().save_pretrained(folder / "model")
    made.make_tokenizer().save_pretrained(folder / "model")
    prompts = made.Dataset.from_list([{"prompt": prompt} for prompt in made.PROMPTS])
    return {"model": str(folder / "model"), "reward": made.Seen(), "prompts": prompts}


def test_there_is_code_to_copy():
    assert any("loss.backward()" in block for block in BLOCKS)


@pytest.mark.parametrize("page", PAGES)
def test_minutes_are_those_that_the_lessons_state(page):
    rows = re.findall(r"^\| \**(\d\d)\** \|.*?\| (\d+) \|", PAGES[page], re.M)
    lessons = {path.stem[:2]: json.loads(path.read_text(encoding="utf-8")) for path in LESSONS}
    core = ["01", "02", "04", "08", "11"]  # those of the README
    assert [number for number, _ in rows] == (core if page == "README.md" else list(lessons))
    for number, minutes in rows:
        opening = "".join(lessons[number]["cells"][0]["source"])
        assert f"about {minutes} minutes" in opening, number
        assert ("core" in opening and "skip" not in opening) == (number in core), number


@pytest.mark.parametrize("page", PAGES)
def test_what_the_pages_point_to_exists(page):
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\(([^)]*)\)", PAGES[page]):
        assert link.startswith("https://") or (folder / link).exists(), link
    for path in re.findall(r"`((?:tests|lessons|minicf)/[\w./*]+)`", PAGES[page]):
        assert list(ROOT.glob(path)), path
    for script in re.findall(r"python ([\w/]+\.py)", PAGES[page]):
        assert (ROOT / script).exists(), script


def test_figures_are_exported_as_the_course_page_says(tmp_path):
    (command,) = re.findall(r"`jupyter (nbconvert [^`]*)`", PAGES["lessons/README.md"])
    lesson = str(LESSONS[0])  # one of them
    arguments = command.replace("lessons/*.ipynb", lesson).replace("build/figures", str(tmp_path))
    subprocess.run([sys.executable, "-m", *arguments.split()], check=True, capture_output=True)
    assert list(tmp_path.glob("*/*.png")) and list(tmp_path.glob("*.md"))


def stored(name):
    return json.loads((ROOT / "lessons" / name).read_text(encoding="utf-8"))


def numbers_in(pattern):
    """The numbers of the groups of a pattern that the README matches once."""
    (match,) = re.finditer(pattern.replace("#", r"(\d*\.?\d+)"), WORDS)
    return [float(number) for number in match.groups()]


def agree(found, expected, digits):
    assert found == pytest.approx(expected, abs=0.51 * 10**-digits)


def test_numbers_of_predictors_are_stored():
    corpora = [
        stored("study.json")["summary"]["checkpoints"][name]
        for name in ("clean", "wrong", "narrow")
    ]
    ranks = [
        corpus[name]["rank"][0] for name in ("readiness", "success_headroom") for corpus in corpora
    ]
    found = numbers_in("are #, #, # for readiness and #, #, # for the rival")
    agree(found, ranks, 2)
    picks = [corpora[0][name]["pick"][0] for name in ("readiness", "success_headroom")]
    agree(numbers_in("is better on one corpus, # of the largest gain against #"), picks, 2)


def test_numbers_of_training_are_stored():
    rows = stored("study.json")["summary"]["baselines"]
    areas = {}
    for row in rows:
        if row["learning_rate"] == 5e-4:
            areas[row["baseline"], row["group_size"], row["samples"]] = row["area"][0]
    found = numbers_in(
        "is # without a baseline, # with a learned critic, # with leave-one-out and # with the "
        "exact gradient"
    )
    names = ["none", "learned critic", "leave-one-out", "exact"]
    agree(found, [areas[name, 8, 224] for name in names], 3)
    found = numbers_in("falls behind: # against # without a baseline and # with a learned critic")
    agree(found, [areas[name, 2, 56] for name in ("leave-one-out", "none", "learned critic")], 3)


def test_places_where_v_is_noisier_are_stored():
    rows = [row for row in stored("study.json")["noise"]]
    noisier = sum(row["V"] > row["none"] for row in rows)
    assert numbers_in("baseline in # of # cases") == [noisier, len(rows)]
    ratios = sorted(row["V"] / row["none"] for row in rows)
    agree(numbers_in("over all weights., # times in the median"), [statistics.median(ratios)], 1)


def test_numbers_of_the_real_model_are_stored():
    model = stored("real_model.json")
    found = numbers_in(".over 16 prompts. has a cosine of #, #, #, # with the exact ∇V")
    for number, row, digits in zip(found, model["cosines"], (2, 2, 2, 3), strict=True):
        agree(number, row["found"], digits)
    agree(numbers_in("adds numbers with success #,"), [model["trl"][0]["success"]], 2)
    noise = model["noise"]
    logged = [row["logged squared_signal"] / row["squared_signal"] for row in model["trl"]]
    close = sum(0.5 < ratio < 2 for ratio in logged)
    assert numbers_in("factor of two in # of # steps") == [close, len(logged)]
    agree(numbers_in("of V has # times the noise of none"), [noise["V"] / noise["0"]], 1)


def test_the_cosine_of_many_answers_is_stored():
    many = torch.tensor(stored("front_page.json")["many"]).mean(0)  # over seeds, along the run
    (stated,) = numbers_in("it is about # along the whole run")
    assert (many - stated).abs().max() < 0.1 and (many.mean() - stated).abs() < 0.02


def test_the_licence_is_0bsd():
    assert "SPDX-License-Identifier: 0BSD" in WORDS
    assert "for any purpose with or without fee is hereby granted" in WORDS
