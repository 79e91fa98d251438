"""The README's Python runs as it stands there, and its table is that of the lessons."""

import json
import re

import pytest
from conftest import ROOT

LESSONS = sorted((ROOT / "lessons").glob("[0-9][0-9]_*.ipynb"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_code_runs(number, capsys, tmp_path, monkeypatch):
    """Each in a namespace of its own, long ones with fewer steps."""
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"\b(range\(|env, )[1-9]\d+\b", r"\g<1>12", BLOCKS[number])
    exec(compile(text, f"README.md, block {number}", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "nan" not in printed and ("print(" in text) == bool(printed)


def test_there_is_code_to_copy():
    assert any("loss.backward()" in block for block in BLOCKS)


def test_minutes_are_those_that_the_lessons_state():
    rows = re.findall(r"^\| (\d\d) \|.*?\| (\d+) \|", README, re.M)
    assert [number for number, _ in rows] == [path.stem[:2] for path in LESSONS]
    for (number, minutes), path in zip(rows, LESSONS):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert f"about {minutes} minutes" in "".join(cells[0]["source"]), number


def test_the_licence_is_0bsd():
    text = " ".join(README.split())
    assert "SPDX-License-Identifier: 0BSD" in text
    assert "for any purpose with or without fee is hereby granted" in text
