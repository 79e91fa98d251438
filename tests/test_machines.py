"""Windows, Macs and plain locales, as far as they can be imitated on this machine."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch.overrides import TorchFunctionMode

import train
from minicf import grpo, pretrain, readiness, rollout, variants
from minicf.env import SumGame
from minicf.gpt import GPT

SMALL = ["--max-terms", "2", "--d-model", "16", "--pretrain-steps", "8", "--steps", "2"]

# Text files default to cp1252, and only files opened for writing can be synchronised.
LIKE_WINDOWS = """
import builtins, io, os, sys

real_open, real_fsync = io.open, os.fsync

def cp1252_open(file, mode="r", buffering=-1, encoding=None, *rest, **options):
    if "b" not in mode and encoding in (None, "locale"):
        encoding = "cp1252"
    return real_open(file, mode, buffering, encoding, *rest, **options)

def strict_fsync(descriptor):
    import fcntl
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
    real_fsync(descriptor)

builtins.open = io.open = cp1252_open
os.fsync = strict_fsync
sys.path.insert(0, sys.argv.pop(1))
import train
sys.exit(train.main(sys.argv[1:]))
"""


def run(command, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return done.stdout.decode("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="imitates it")
def test_a_run_where_text_files_default_to_cp1252(tmp_path):
    out = ["--method", "grpo", "--out", str(tmp_path)]
    text = run([sys.executable, "-c", LIKE_WINDOWS, str(ROOT), *SMALL, *out])
    assert "∇V" in text
    assert "report.json" in os.listdir(tmp_path)


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["cp1252", "POSIX"],
)
def test_help_goes_into_a_file_in_any_encoding(variables):
    assert "∇V" in run([sys.executable, "train.py", "--help"], **variables)


class NoFloat64(TorchFunctionMode):
    """Refuses to make a float64 tensor on the policy's device, as a Mac's does.

    The policy's device is imitated by a mark: everything that comes from a marked tensor is marked,
    save by .to("cpu"), .cpu(), .item() and .tolist().
    """

    leave = {"item", "tolist", "size", "shape", "dim", "is_floating_point"}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        result = function(*args, **kwargs)
        to_cpu = name == "cpu" or name == "to" and "cpu" in map(str, (*args[1:], *kwargs.values()))
        marked = any(is_marked(value) for value in flat((args, kwargs)))
        if marked and to_cpu:
            return result.clone()  # a tensor of the CPU, without the mark
        if not marked or name in self.leave:
            return result
        for value in flat(result):
            if isinstance(value, torch.Tensor):
                assert value.dtype != torch.float64, f"{name} makes float64 on the device"
                value.on_device = True
        return result


def is_marked(value):
    return isinstance(value, torch.Tensor) and getattr(value, "on_device", False)


def flat(value):
    """The tensors and other leaves of nested tuples, lists and dicts."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if not isinstance(value, tuple | list):
        return [value]
    leaves = []
    for part in value:
        leaves += flat(part)
    return leaves


def marked_policy(env):
    policy = GPT.for_world(env, n_layer=1, d_model=16)
    for weight in policy.parameters():
        weight.on_device = True
    return policy


def test_the_mode_refuses_float64_on_the_device():
    weight = torch.ones(2)
    weight.on_device = True
    with NoFloat64():
        assert (weight.cpu().double() + 1).dtype == torch.float64
        with pytest.raises(AssertionError, match="float64 on the device"):
            (weight * 2).double()


@pytest.mark.parametrize("method", [*train.METHODS, "exact"])
def test_methods_need_no_float64_on_the_device(method):
    env, generator = SumGame(1), torch.Generator().manual_seed(0)
    policy = marked_policy(env)
    with NoFloat64():
        train.improve(policy, env, method, 1, generator, 2)


def test_pretraining_readiness_and_the_probe_need_no_float64_on_the_device():
    env, generator = SumGame(1), torch.Generator().manual_seed(0)
    policy = marked_policy(env)
    with NoFloat64():
        pretrain.pretrain(policy, env, 2, generator, batch_size=4)
        readiness.measure(policy, env)
        batch = rollout.sample(policy, env, env.prompts, 4, generator)
        readiness.sampled_readiness(policy, env, batch)


def test_statistics_of_rewards_need_no_float64_on_the_device():
    rewards, counts = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([1, 2])
    rewards.on_device = True
    counts.on_device = True
    with NoFloat64():
        grpo.group_advantages(rewards, 2)
        variants.maxrl_advantages(rewards, 2)
        readiness.pass_at_k(counts, 4, 2)
