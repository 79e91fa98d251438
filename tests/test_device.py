"""No tensor is made on the default device by accident.

Everything stands on the CPU, as it would on a GPU, while the default device is `meta`, which holds
no data: a tensor made without naming its device ends there, and meeting another one raises.
"""

import copy

import pytest
import torch
from conftest import make_policy

from minicf.control import CosineTrack
from minicf.costate import RELAXATIONS, empirical_costates, fisher_estimate, own_logit_costates
from minicf.costate import relaxed_costates, sampling_gap
from minicf.env import SumGame
from minicf.exact import distinct_solutions, prefix_values, success
from minicf.grpo import group_advantages, grpo_loss
from minicf.ppo import Critic, gae
from minicf.readiness import headroom, pass_at_k, rank_correlation, sampled_signal, signal
from minicf.rollout import completion_logprobs, sample
from minicf.training import METHODS, improve, pretrain


@pytest.fixture(scope="session")
def env():
    with torch.device("cpu"):
        world = SumGame(2)
        world.solutions(world.prompts[0])  # the answers are listed once
        return world


@pytest.fixture
def elsewhere():
    with torch.device("meta"):
        yield


def test_the_guard_works(elsewhere):
    with pytest.raises(RuntimeError):
        torch.ones(3, device="cpu") + torch.arange(3)


def test_sampling_scoring_and_losses(policy, env, generator, elsewhere):
    rollout = sample(policy, env, env.prompts, 2, generator)
    assert rollout.completions.device.type == rollout.rewards.device.type == "cpu"
    logprobs = completion_logprobs(policy, env.prompts, rollout.completions, 2)
    scores = group_advantages(rollout.rewards, 2)
    loss, _ = grpo_loss(logprobs, rollout.logprobs, scores, rollout.mask, rollout.logprobs, 0.1)
    loss.backward()
    values = Critic(policy)(env.prompts, rollout.completions, 2)
    advantages, returns = gae(rollout.rewards, values.detach(), rollout.mask)
    assert (advantages + returns).isfinite().all()


def test_truth_and_costates(policy, env, generator, elsewhere):
    rollout = sample(policy, env, env.prompts[:3], 2, generator)
    for each in (empirical_costates, own_logit_costates):
        assert each(policy, rollout, rollout.rewards, 1).isfinite().all()
    assert fisher_estimate(policy, rollout, 0, generator).isfinite().all()
    assert sampling_gap(policy(env.prompts)[0], env.prompts).isfinite().all()
    for relaxation in RELAXATIONS:
        got = relaxed_costates(policy, env, env.prompts[3], 0, relaxation, 4, generator)
        assert got.isfinite().all()
    p = success(policy, env, nudge={1: rollout.logprobs.new_zeros(16)})
    assert (headroom(p) + signal(policy, env) + sampled_signal(policy, rollout)).isfinite()
    assert prefix_values(policy, env, rollout.prompts, rollout.completions).isfinite().all()
    assert distinct_solutions(policy, env).isfinite().all()
    assert pass_at_k((p > 0).long(), 4, 2).isfinite().all() and rank_correlation(p, -p) < 0


def test_both_loops(env, monkeypatch, elsewhere):
    with torch.device("cpu"):
        start = make_policy(env, dtype=torch.float32)
        generator = torch.Generator(device="cpu").manual_seed(0)
        batch = env.corpus(4, generator)  # drawn on the CPU, by design
    for method in METHODS:
        improve(copy.deepcopy(start), env, method, 1, generator, 2)
    monkeypatch.setattr(env, "corpus", lambda *_: batch)
    pretrain(start, env, 1, generator)


def test_the_differentiable_world(elsewhere):
    track = CosineTrack(4, -0.1, 0.5)
    s, eps = torch.zeros(3, device="cpu"), torch.ones(3, 4, device="cpu")
    states = track.rollout(s, eps)
    every = (track.costates(states), track.costates_by_autograd(s, eps), track.value_gradient(s))
    every += (track.pathwise_gradient(states), track.score_function_gradient(states, eps))
    assert all(each.isfinite().all() for each in (*every, track.objective_gradient(s)))


def test_the_network_runs_on_a_device_without_data(policy, env):
    """Shapes and dtypes of forward, cache and nudge on `meta` itself."""
    ghost = copy.deepcopy(policy).to("meta")
    tokens = torch.empty(5, 3, dtype=torch.long, device="meta")
    logits, cache = ghost(tokens, nudge={1: torch.zeros(16, device="meta").double()})
    later, _ = ghost(tokens[:, :1], cache)
    assert logits.shape == (5, 3, 13) and later.shape == (5, 1, 13) and later.is_meta
