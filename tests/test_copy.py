"""What may be copied alone is copied alone and used where there is no minicf."""

import ast
import itertools
import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

# What each of these imports besides PyTorch and the standard library: a file beside it, whether
# both are in a package or not.
ALONE = {
    "gpt": set(), "tap": set(), "ppo": set(), "grpo": {".ppo", "ppo"},
    "variants": {".ppo", ".grpo", "ppo", "grpo"},
}  # fmt: skip

PRELUDE = """
import importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
assert importlib.util.find_spec("minicf") is None
try:
    import minicf
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("minicf can be imported here")
import torch
"""

LOSS = """
every = globals().get("every", [])
from PACKAGEgrpo import group_advantages, grpo_loss
from PACKAGEppo import gae
from PACKAGEvariants import dapo_loss

old_logprobs = torch.tensor([[-1.0, -2.0], [-0.5, -1.5], [-2.0, -1.0], [-0.3, -0.7]]).double()
logprobs = old_logprobs.clone().requires_grad_()
mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
advantages = group_advantages(torch.tensor([1.0, 0.0, 1.0, 1.0]).double(), 2, scale="none")
loss, stats = grpo_loss(logprobs, old_logprobs, advantages, mask)
loss.backward()
targets = gae(torch.ones(4).double(), torch.zeros_like(old_logprobs), mask)[1]
same = dapo_loss(logprobs, old_logprobs, advantages, mask)[1]["ratio"]
found = [advantages, loss, logprobs.grad, stats["ratio"] * same, targets]
every.append([each.tolist() for each in found])
"""

COSTATES = """
import torch.nn as nn
from tap import tap

torch.manual_seed(0)
B, L, V, D = 3, 5, 7, 8
layer = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=True)
encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
embedding, head = nn.Embedding(V, D).double(), nn.Linear(D, V).double()
mask = nn.Transformer.generate_square_subsequent_mask(L, dtype=torch.float64)
tokens = torch.randint(0, V, (B, L + 1))
advantages = torch.tensor([1.0, -0.5, 2.0]).double()

def surrogate(x):
    logprobs = head(x).log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return (advantages[:, None] * logprobs).sum()

def through_the_module():
    return surrogate(encoder(embedding(tokens[:, :-1]), mask=mask, is_causal=True))

def by_hand(delta):
    x = encoder.layers[0](embedding(tokens[:, :-1]), mask)
    return surrogate(encoder.layers[1](x + delta, mask))

with tap(encoder.layers[1], calls=1) as inputs:
    total = through_the_module()
total.backward()
costates = inputs[0].grad
delta = torch.zeros(B, L, D, dtype=torch.float64, requires_grad=True)
(expected,) = torch.autograd.grad(by_hand(delta), delta)

shift = 1e-6 * costates / costates.norm()  # uphill
with tap(encoder.layers[1], shift):
    moved = through_the_module()
print(json.dumps({
    "shape": list(costates.shape),
    "size": costates.norm().item(),
    "miss": (costates - expected).norm().item(),
    "slope": ((moved - total) / (costates * shift).sum()).item(),
    "hooks": len(encoder.layers[1]._forward_pre_hooks),
}))
"""


def run_elsewhere(script, folder):
    """Run a script in a fresh interpreter that finds `folder` and installed packages only."""
    command = [sys.executable, "-I", "-c", PRELUDE + script, str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def imports(path):
    """The modules that a file imports, those of its own package with their leading dots."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


@pytest.mark.parametrize("name", ALONE)
def test_files_to_copy_import_nothing_else(name):
    allowed = set(sys.stdlib_module_names) | {"torch"}
    others = {each for each in imports(ROOT / "minicf" / f"{name}.py")
              if each.split(".")[0] not in allowed}  # fmt: skip
    assert others == ALONE[name]


def test_the_losses_alone_in_another_package_and_beside_a_script(tmp_path):
    """Groups (1, 0) and (1, 1): advantages ±½ and nothing; mean over tokens, then completions."""
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    for folder, name in itertools.product((package, tmp_path), ("grpo", "ppo", "variants")):
        shutil.copy(ROOT / "minicf" / f"{name}.py", folder)
    script = LOSS.replace("PACKAGE", "mine.") + LOSS.replace("PACKAGE", "")
    found = run_elsewhere(script + "print(json.dumps(every))", tmp_path)
    assert len(found) == 2 and found[0] == found[1]
    advantages, loss, gradient, ratio, targets = found[0]
    assert advantages == [0.5, -0.5, 0, 0] and ratio == 1
    assert loss == pytest.approx(-(0.5 - 0.5) / 4, abs=1e-12)
    # −A / (tokens of the completion) / (completions), and nothing after the stop
    expected = [[-0.5 / 2 / 4, -0.5 / 2 / 4], [0.5 / 1 / 4, 0], [0, 0], [0, 0]]
    assert [list(map(float, row)) for row in gradient] == [pytest.approx(row) for row in expected]
    whole, short = pytest.approx([0.95, 1]), pytest.approx([1, 0])
    assert targets == [whole, short, whole, whole]


def test_the_tap_alone_on_a_transformer_of_pytorch(tmp_path):
    shutil.copy(ROOT / "minicf" / "tap.py", tmp_path)
    found = run_elsewhere(COSTATES, tmp_path)
    assert found["shape"] == [3, 5, 8] and found["size"] > 0.1 and found["hooks"] == 0
    assert found["miss"] < 1e-12 * found["size"]
    assert found["slope"] == pytest.approx(1, abs=1e-3)
