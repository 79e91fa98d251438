"""Somebody else's models: Hugging Face's GPT-2 and Llama with random weights, in one small class.

Skipped where transformers is not installed, which minicf does not need. Llama computes its norms
and its softmax in float32, whatever the weights are: hence the two roundings, and no finite
differences.
"""

import math

import pytest
import torch
import torch.nn as nn
from conftest import flat_gradient

from minicf.costate import empirical_costates
from minicf.exact import outcomes, value_gradient, value_gradients
from minicf.pretrain import pretrain
from minicf.readiness import readiness, sampled_signal, signal
from minicf.rollout import completion_logprobs, completion_mask, sample, token_logprobs
from train import improve

pytest.importorskip("transformers")
from transformers import (  # noqa: E402
    DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
)  # fmt: skip

ROUNDING = {"GPT-2": 1e-10, "Llama": 1e-5}
both = pytest.mark.parametrize("name", ROUNDING)


class HuggingFacePolicy(nn.Module):
    """A causal language model of transformers, to be called as minicf calls a policy."""

    def __init__(self, model, blocks):
        super().__init__()
        # No dropout: the distribution that is scored must be the one that was sampled from.
        self.model, self.blocks = model.eval(), blocks

    def forward(self, tokens, cache=None):
        past = DynamicCache()
        for layer, (keys, values) in enumerate(cache or []):
            past.update(keys, values, layer)
        logits = self.model(tokens, past_key_values=past, use_cache=True).logits  # (B, L, V)
        return logits, [(layer.keys, layer.values) for layer in past.layers]


def make(name, env, seed=0, spread=0.3, dtype=torch.float64, width=8):
    """A random model with dropout configured; the larger `spread`, the lower its entropy."""
    sizes = {
        "vocab_size": len(env.vocab),
        "max_position_embeddings": env.prompt_length + env.completion_length - 1,
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": spread,
        "attn_implementation": "eager",
        "bos_token_id": None,
        "eos_token_id": env.eos,
    }
    with torch.random.fork_rng(devices=[]):  # transformers draws from the global generator
        torch.manual_seed(seed)
        if name == "GPT-2":
            model = GPT2LMHeadModel(GPT2Config(**sizes))
            return HuggingFacePolicy(model.to(dtype), model.transformer.h)
        sizes |= {"intermediate_size": 4 * width, "num_key_value_heads": 1}
        model = LlamaForCausalLM(LlamaConfig(**sizes, attention_dropout=0.1))
        return HuggingFacePolicy(model.to(dtype), model.model.layers)


def relative_error(estimate, truth):
    return ((estimate - truth).norm() / truth.norm()).item()


@both
def test_the_cache_changes_no_logits_and_is_not_changed(name, env):
    policy = make(name, env)
    tokens = torch.cat([env.prompts, env.prompts.flip(0)], 1)  # (N, 2P)
    whole, _ = policy(tokens)
    _, cache = policy(tokens[:, :3])
    shapes = {tuple(each.shape) for pair in cache for each in pair}
    assert shapes == {(19, 2 if name == "GPT-2" else 1, 3, 4)}  # (B, heads, tokens so far, D/heads)
    for _ in range(2):  # a cache can be used again
        middle, longer = policy(tokens[:, 3:5], cache)
        last, _ = policy(tokens[:, 5:], longer)
        parts = torch.cat([middle, last], 1)
        assert relative_error(parts, whole[:, 3:]) < ROUNDING[name]


@both
def test_sharing_the_prompt_changes_neither_values_nor_gradients(name, env, generator):
    policy = make(name, env)
    rollout = sample(policy, env, env.prompts, 4, generator)
    shared = completion_logprobs(policy, env.prompts, rollout.completions, 4)
    single = completion_logprobs(policy, rollout.prompts, rollout.completions)
    assert relative_error(shared, single) < ROUNDING[name]
    weight = torch.randn(shared.shape, generator=generator).double()
    a, b = (flat_gradient((weight * each).sum(), policy) for each in (shared, single))
    assert relative_error(a, b) < ROUNDING[name]


@both
def test_what_is_sampled_is_what_is_scored_unless_there_is_dropout(name, env):
    policy = make(name, env)

    def error():
        rollout = sample(policy, env, env.prompts, 4, torch.Generator().manual_seed(0))
        scored = completion_logprobs(policy, env.prompts, rollout.completions, 4)
        return relative_error(rollout.logprobs[rollout.mask], scored[rollout.mask])

    assert error() < ROUNDING[name]
    policy.train()
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
        torch.manual_seed(0)
        assert error() > 1e-2


@both
def test_the_value_gradient_is_that_of_the_models_own_hidden_states(name, env):
    """No wrapper, cache or tap on the other side: transformers returns each block's input."""
    policy, prompt = make(name, env), env.prompts[11]
    solutions = env.solutions(prompt)
    tokens = torch.cat([prompt.expand(len(solutions), -1), solutions[:, :-1]], 1)
    output = policy.model(tokens, output_hidden_states=True)
    logprobs = token_logprobs(output.logits[:, 2:], solutions)
    dead = ~completion_mask(solutions, env.eos)
    value = logprobs.masked_fill(dead, 0.0).sum(1).exp().sum()
    for layer, block in enumerate(policy.blocks):
        hidden = output.hidden_states[layer]
        (expected,) = torch.autograd.grad(value, hidden, retain_graph=True)  # (K, P+T-1, D)
        gradient = value_gradients(policy, env, block, prompt[None])[0]  # (P, D)
        assert relative_error(gradient, expected[:, :3].sum(0)) < ROUNDING[name]


@both
@pytest.mark.parametrize("text", ["4", "4+"])
def test_the_mean_costate_is_the_value_gradient(name, env, text):
    """By enumeration, at both blocks, in two states."""
    policy, prompt, prefix = make(name, env), env.prompts[11], env.encode(text)
    rollout, probabilities = outcomes(policy, env, prompt, prefix)
    for block in policy.blocks:
        costates = empirical_costates(policy, rollout, rollout.rewards, block)[:, 2 + len(text)]
        gradient = value_gradient(policy, env, prompt, prefix, block)
        assert relative_error(probabilities @ costates, gradient) < ROUNDING[name]


@both
def test_the_loop_trains_it(name, env):
    """Ascent on the exact success rises along ∇V; a rollout of GRPO is measured like any other.

    Over eight seeds of both models the sampled signal was 0.55 to 1.20 of the exact one.
    """
    policy = make(name, env, spread=0.02, dtype=torch.float32, width=32)
    generator = torch.Generator().manual_seed(0)
    pretrain(policy, env, 150, generator, batch_size=64, learning_rate=1e-2, warmup=10)
    rollout = sample(policy, env, env.prompts, 64, generator)
    assert 0.3 < sampled_signal(policy, rollout) / signal(policy, env) < 2
    assert 0 < readiness(policy, env) < math.inf
    exact = improve(policy, env, "exact", 5, generator, 2, learning_rate=1e-3, warmup=0)
    assert abs(exact[-1]["cosine"] - 1) < 1e-4 and exact[-1]["success"] > exact[0]["success"]
    history = improve(policy, env, "grpo", 2, generator)
    assert -1 < history[-1]["cosine"] < 1 and history[-1]["ratio"] > 0
