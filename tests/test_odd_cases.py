"""Smallest and odd cases: worlds of one token, rewards of any type, rows in another order."""

import copy
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, make_policy

from minicf.exact import success
from minicf.gpt import GPT
from minicf.grpo import group_advantages
from minicf.ppo import aggregate_tokens
from minicf.readiness import sampled_readiness
from minicf.rollout import completion_logprobs, sample
from train import METHODS, improve


class Parity:
    """Asked 0 or 1, write 0 or 1: a world whose completions have one token, all of them counted."""

    vocab = "01."
    prompts = torch.tensor([[0], [1]])
    prompt_length = 1
    completion_length = 1
    eos = 2

    def reward(self, prompts, completions):
        return (completions[:, 0] == prompts[:, 0]).float()

    def solutions(self, prompt):
        return prompt[None]


@pytest.mark.parametrize("method", [*METHODS, "exact"])
def test_a_world_of_one_token_can_be_trained_in(method):
    env, generator = Parity(), torch.Generator().manual_seed(0)
    policy = GPT.for_world(env, n_layer=1, d_model=8)
    history = improve(policy, env, method, 20, generator, 8, learning_rate=1e-2)
    assert history[-1]["success"] > history[0]["success"] + 0.1
    batch = sample(policy, env, env.prompts, 4, generator)
    scored = completion_logprobs(policy, env.prompts, batch.completions, 4)
    assert torch.allclose(scored, batch.logprobs, atol=1e-5)
    assert math.isfinite(sampled_readiness(policy, env, batch)["readiness"])


def test_one_live_token_gives_a_critic_no_nan():
    env, generator = Parity(), torch.Generator().manual_seed(0)
    policy = GPT.for_world(env, n_layer=1, d_model=8)
    history = improve(policy, env, "ppo", 1, generator, 1, prompts=env.prompts[:1])
    assert math.isfinite(history[-1]["success"])


def test_advantages_are_computed_in_float64_and_come_in_the_rewards_type():
    near = group_advantages(torch.tensor([0.7] * 4 + [0.70000005] * 4), 8)
    assert near.tolist() == pytest.approx([-0.935414] * 4 + [0.935414] * 4, abs=1e-5)
    small = torch.tensor([1, 1, 1, 1.0078125], dtype=torch.bfloat16)
    advantages = group_advantages(small, 4)
    assert advantages.dtype == torch.bfloat16
    assert advantages.tolist() == [-0.5, -0.5, -0.5, 1.5]
    large = torch.tensor([9000, 9008] * 4, dtype=torch.float16)
    advantages = group_advantages(large, 8, "leave-one-out", "none")
    assert advantages.tolist() == pytest.approx([-32 / 7, 32 / 7] * 4, abs=1e-2)
    for rewards in ([1, 0], torch.tensor([1, 0]), torch.tensor([True, False])):
        advantages = group_advantages(rewards, 2, scale="none")
        assert advantages.dtype == torch.float32
        assert advantages.tolist() == [0.5, -0.5]


def test_a_constant_normaliser_does_not_follow_padding():
    value = torch.tensor([[1.0, 1.0]])
    for T in (4, 8, 16):
        padded = torch.nn.functional.pad(value, (0, T - 2))
        mask = torch.arange(T)[None] < 2
        assert aggregate_tokens(padded, mask, "constant", length=4).item() == 0.5
        assert aggregate_tokens(padded, mask, "constant").item() == 2 / T


def test_prompts_asked_twice_count_twice(env):
    policy = make_policy(env)
    prompts = env.prompts[[3, 3, 9]]
    history = improve(policy, env, "rloo", 1, torch.Generator().manual_seed(0), 2, prompts=prompts)
    fresh = make_policy(env)
    assert history[0]["success"] == pytest.approx(success(fresh, env, prompts).mean().item())


def test_a_rollout_whose_rows_were_shuffled_is_refused(policy, env, generator):
    batch = sample(policy, env, env.prompts[:3], 4, generator)
    order = torch.randperm(12, generator=generator)
    with pytest.raises(ValueError, match="rows of a rollout must be in groups of 4"):
        replace(batch, prompts=batch.prompts[order])


def test_a_frozen_policy_is_refused(policy, env, generator):
    frozen = copy.deepcopy(policy).requires_grad_(False)
    with pytest.raises(ValueError, match="no weight that requires a gradient"):
        improve(frozen, env, "grpo", 1, generator)


def test_a_model_that_drops_its_cache_under_checkpointing_is_refused(env, generator):
    pytest.importorskip("transformers")
    from test_huggingface import make

    policy = make("GPT-2", env)
    policy.model.activation_checkpointing_enable()
    policy.model.transformer.train()  # the model alone still says that it is in eval()
    with pytest.raises(ValueError, match="cache holds 0"):
        sample(policy, env, env.prompts, 2, generator)


def test_dropout_left_on_is_found(env, generator):
    pytest.importorskip("transformers")
    from test_huggingface import make

    policy = make("GPT-2", env)
    for module in policy.model.modules():
        module.train(isinstance(module, torch.nn.Dropout))
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
        torch.manual_seed(0)
        with pytest.raises(ValueError, match="sampling and scoring differ"):
            improve(policy, env, "grpo", 1, generator)


def test_the_world_of_ones_own_learns_to_copy():
    command = [sys.executable, str(ROOT / "lessons" / "copy_world.py")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    rewards = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert rewards[-1] > 0.8 > rewards[0]
