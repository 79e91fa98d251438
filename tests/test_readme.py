"""The README's Python runs as it stands there, and its table is that of the lessons."""

import json
import re

from conftest import ROOT

LESSONS = sorted((ROOT / "lessons").glob("[0-9][0-9]_*.ipynb"))
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def block(word):
    (found,) = [text for text in BLOCKS if word in text]
    return found


def test_the_loop_runs_and_prints_success_and_cosine(capsys):
    """Shorter: 60 steps of pretraining and 11 of RL, whose numbers are those of a real run."""
    text = block("loss.backward()")
    text = text.replace("env, 300,", "env, 60,").replace("range(41)", "range(11)")
    exec(compile(text, "README.md", "exec"), {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["step  0", "step 10"]
    for line in lines:
        success, cosine = map(float, re.findall(r"(-?\d\.\d\d)", line))
        assert 0 < success < 1 and -1 <= cosine <= 1


def test_minutes_are_those_that_the_lessons_state():
    rows = re.findall(r"^\| (\d\d) \|.*?\| (\d+) \|", README, re.M)
    assert [number for number, _ in rows] == [path.stem[:2] for path in LESSONS]
    for (number, minutes), path in zip(rows, LESSONS):
        first = "".join(json.loads(path.read_text())["cells"][0]["source"])
        assert f"about {minutes} minutes" in first, number


def test_the_licence_is_0bsd():
    text = " ".join(README.split())
    assert "SPDX-License-Identifier: 0BSD" in text
    assert "for any purpose with or without fee is hereby granted" in text
