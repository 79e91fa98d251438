"""The README's Python runs as it stands there."""

import ast
import re

import torch
from conftest import ROOT

from minicf.env import SumGame
from minicf.gpt import GPT

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


def test_a_checkpoint_is_loaded_and_sampled_from(tmp_path, capsys, monkeypatch):
    """From a file as train.py leaves it."""
    path = tmp_path / "runs/demo/units/method-GRPO-of-8.pt"
    path.parent.mkdir(parents=True)
    torch.save({"weights": GPT.for_world(SumGame()).state_dict()}, path)
    monkeypatch.chdir(tmp_path)
    exec(compile(block("method-GRPO-of-8"), "README.md", "exec"), {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(line.startswith("12=") for line in lines)
    assert all(line.endswith((" right", " wrong")) for line in lines)


def test_the_adapter_is_the_one_that_is_tested():
    """Its code in the README is that of test_huggingface.py, but for comments and docstring."""

    def forward(text):
        tree = ast.parse(text)
        (found,) = [n for n in ast.walk(tree) if getattr(n, "name", "") == "HuggingFacePolicy"]
        return [ast.dump(n) for n in found.body if isinstance(n, ast.FunctionDef)]

    tested = (ROOT / "tests" / "test_huggingface.py").read_text()
    assert forward(block("HuggingFacePolicy")) == forward(tested)
