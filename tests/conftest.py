"""Policies and worlds that the tests share. Random policies are far from uniform on purpose."""

import math
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "lessons")]

from minicf.env import SumGame  # noqa: E402
from minicf.gpt import GPT  # noqa: E402
from minicf.pretrain import pretrain  # noqa: E402

torch.set_num_threads(1)  # quicker for tensors this small, and the same on every machine


def pytest_collection_finish(session):
    """In a whole run, what needs processes of its own starts now, beside the tests in this one."""
    modules = list(dict.fromkeys(item.module for item in session.items))
    for module in modules if len(modules) > 10 else []:
        getattr(module, "start_early", lambda: None)()


def make_policy(env, seed=0, spread=0.3, dtype=torch.float64, n_layer=2, d_model=16, n_head=2):
    """A small random policy; the larger `spread`, the lower its entropy."""
    generator = torch.Generator().manual_seed(seed)
    policy = GPT.for_world(env, n_layer, n_head, d_model, generator).to(dtype)
    with torch.no_grad():
        for weight in policy.parameters():
            weight += spread * torch.randn(weight.shape, generator=generator).to(dtype)
    return policy


def flat_gradient(loss, module):
    """The gradient of a loss with respect to all parameters, as one vector."""
    gradients = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


@contextmanager
def added(module, delta):
    """A hook of the tests' own, beside tap's: every input of `module` within the block + delta."""
    hook = module.register_forward_pre_hook(lambda _, args: (args[0] + delta, *args[1:]))
    try:
        yield
    finally:
        hook.remove()


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


def expected_advantages(value, group_size, advantages):
    """Mean of `advantages(rewards, group_size)` of a wrong and a right sample, at success `value`.

    Over how many of its group-mates succeed, which is binomial.
    """
    others, means = group_size - 1, []
    for own in (0.0, 1.0):
        mean = 0.0
        for k in range(group_size):
            chance = math.comb(others, k) * value**k * (1 - value) ** (others - k)
            group = torch.tensor([own] + [1.0] * k + [0.0] * (others - k), dtype=torch.float64)
            mean += chance * advantages(group, group_size)[0].item()
        means.append(mean)
    return means


@pytest.fixture(scope="session")
def env():
    return SumGame(2)


@pytest.fixture(scope="session")
def policy(env):
    return make_policy(env)


@pytest.fixture(scope="session")
def trained(env):
    """A half-trained policy in float64: its success differs much from prompt to prompt."""
    policy = make_policy(env, spread=0.0, dtype=torch.float32)
    pretrain(policy, env, 120, torch.Generator().manual_seed(1), learning_rate=1e-2, warmup=10)
    return policy.double()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


class Steps(list):
    """Every step of every AdamW: weights before and after, the gradient that it saw, its lr."""

    def record(self, optimizer, step):
        (settings,) = optimizer.param_groups
        before = [weight.detach().clone() for weight in settings["params"]]
        left = [weight.grad.clone() for weight in settings["params"]]
        step()
        after = [weight.detach().clone() for weight in settings["params"]]
        self.append(SimpleNamespace(**settings | {"before": before, "left": left, "after": after}))


@pytest.fixture
def steps(monkeypatch):
    """What the optimisers of the loops have done, step by step."""
    seen = Steps()

    class Recorded(torch.optim.AdamW):
        def step(self):
            seen.record(self, super().step)

    monkeypatch.setattr(torch.optim, "AdamW", Recorded)
    return seen


def norm(tensors):
    """Of all of them as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors]).norm().item()
