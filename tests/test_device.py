"""No tensor is made on the default device by accident.

Everything stands on the CPU, as it would on a GPU, while the default device is `meta`, which holds
no data: a tensor made without naming its device ends there, and meeting another one raises.
"""

import copy

import pytest
import torch
from conftest import make_policy
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from minicf.bounds import RELAXATIONS, fisher_estimate, relaxed_costates, sampling_gap
from minicf.control import CosineTrack
from minicf.costate import empirical_costates, own_logit_costates
from minicf.critic import Critic
from minicf.env import SumGame
from minicf.exact import distinct_solutions, prefix_values, success, value_gradient, value_gradients
from minicf.gpt import GPT
from minicf.grpo import group_advantages, grpo_loss, kl_penalty
from minicf.ppo import gae
from minicf.pretrain import pretrain
from minicf.readiness import headroom, pass_at_k, sampled_readiness, sampled_signal, signal
from minicf.rollout import completion_logprobs, completion_mask, sample, token_logprobs
from minicf.tap import tap
from minicf.variants import cispo_loss, dapo_loss, gspo_loss, maxrl_advantages
from train import METHODS, improve


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


def test_a_new_policy_for_a_world(env, elsewhere):
    """Weights are drawn from a generator on the CPU, so the network is made there and moved."""
    with torch.device("cpu"):
        policy = GPT.for_world(env)
    assert policy(env.prompts)[0].isfinite().all()


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
    at = policy.blocks[1]
    for each in (empirical_costates, own_logit_costates):
        assert each(policy, rollout, rollout.rewards, at).isfinite().all()
    assert fisher_estimate(policy, rollout, at, generator).isfinite().all()
    assert sampling_gap(policy(env.prompts)[0], env.prompts).isfinite().all()
    for relaxation in RELAXATIONS:
        got = relaxed_costates(policy, env, env.prompts[3], at, relaxation, 4, generator)
        assert got.isfinite().all()
    p = success(policy, env)
    prompt = env.prompts[3]
    assert value_gradients(policy, env, at).isfinite().all()
    assert value_gradient(policy, env, prompt, prompt[:0], at).isfinite().all()
    assert (headroom(p) + signal(policy, env) + sampled_signal(policy, rollout)).isfinite()
    assert sampled_readiness(policy, env, rollout)["reward_std"] >= 0
    assert prefix_values(policy, env, rollout.prompts, rollout.completions).isfinite().all()
    assert distinct_solutions(policy, env).isfinite().all()
    assert pass_at_k((p > 0).long(), 4, 2).isfinite().all()


@pytest.mark.parametrize("frozen", [False, True])
def test_taps(policy, env, elsewhere, frozen):
    """A part of the graph, and a fresh leaf; what they give stands where the model does."""
    policy = copy.deepcopy(policy).requires_grad_(not frozen)
    delta = policy.head.weight.new_zeros(16)
    with tap(policy.blocks[0], delta) as inputs, tap(policy.norm) as ends:
        policy(env.prompts)[0].square().sum().backward()
    for x in (*inputs, *ends):
        assert x.grad.device.type == "cpu" and x.grad.isfinite().all()
    assert ends[0].is_leaf is False  # of a frozen model too, below the tap that has a leaf


def test_both_loops(env, monkeypatch, elsewhere):
    with torch.device("cpu"):
        start = make_policy(env, dtype=torch.float32)
        generator = torch.Generator(device="cpu").manual_seed(0)
        batch = env.corpus(4, generator)  # drawn on the CPU, by design
    relatives = [{"loss": loss} for loss in (dapo_loss, gspo_loss, cispo_loss)]
    cases = [{"method": method} for method in [*METHODS, "exact"]]
    cases += [{"method": "grpo"} | each for each in [*relatives, {"advantages": maxrl_advantages}]]
    for case in cases:
        policy = copy.deepcopy(start)
        history = improve(
            policy, env, steps=1, generator=generator, group_size=2, prompts=env.prompts[3:9],
            **case,
        )  # fmt: skip
        assert {"success", "cosine"} <= set(history[1])
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
    """Shapes and dtypes of forward, cache and tap on `meta` itself."""
    ghost = copy.deepcopy(policy).to("meta")
    tokens = torch.empty(5, 3, dtype=torch.long, device="meta")
    with tap(ghost.blocks[1], torch.zeros(16, device="meta").double()) as inputs:
        logits, cache = ghost(tokens)
    logits.sum().backward()
    later, _ = ghost(tokens[:, :1], cache)
    assert inputs[0].grad.shape == (5, 3, 16) and inputs[0].grad.is_meta
    assert logits.shape == (5, 3, 13) and later.shape == (5, 1, 13) and later.is_meta


def on_cuda(mode, tensor):
    """A tensor without data that claims to be on a GPU."""
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return FakeTensor(mode, empty, torch.device("cuda"))


def test_tensors_that_claim_to_be_on_a_gpu_stay_there(policy):
    """As far as a PyTorch without CUDA goes: no gradients, slices, or looks at data.

    A tensor made on the CPU by accident meets one on the GPU, which is an error here too.
    """
    mode, ghost = FakeTensorMode(), copy.deepcopy(policy).requires_grad_(False)
    for module in ghost.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({name: on_cuda(mode, each) for name, each in tensors.items()
                            if each is not None})  # fmt: skip
    tokens, one_more = (on_cuda(mode, torch.zeros(5, n).long()) for n in (3, 1))
    with mode, torch.no_grad():
        logits, cache = ghost(tokens)
        later, cache = ghost(one_more, cache)
        logprobs = token_logprobs(logits, tokens)
        made = [logits, later, logprobs, completion_mask(tokens, 12), *cache[0]]
        made += [kl_penalty(logprobs, logprobs, each) for each in ("k1", "k2", "k3")]
        assert all(each.device.type == "cuda" for each in made)
        with pytest.raises(RuntimeError, match="same device"):
            ghost(torch.zeros(5, 3).long())
