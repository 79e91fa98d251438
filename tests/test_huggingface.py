"""Somebody else's models: Hugging Face's GPT-2 and Llama with random weights, in one small class.

Skipped where transformers is not installed, which minicf does not need. Llama computes its norms
and its softmax in float32, whatever the weights are: hence the two roundings, and no finite
differences.
"""

import math
import re

import pytest
import torch
import torch.nn as nn
from conftest import flat_gradient

from minicf.costate import empirical_costates
from minicf.exact import outcomes, success, value_gradient, value_gradients
from minicf.pretrain import pretrain
from minicf.readiness import readiness, sampled_signal, signal
from minicf.rollout import completion_logprobs, completion_mask, sample, token_logprobs
from train import improve

pytest.importorskip("transformers")
from transformers import (  # noqa: E402
    GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
)  # fmt: skip

from minicf.huggingface import HuggingFacePolicy, WorkedSums  # noqa: E402

ROUNDING = {"GPT-2": 1e-10, "Llama": 1e-5}
both = pytest.mark.parametrize("name", ROUNDING)


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
            return HuggingFacePolicy(model.to(dtype))
        sizes |= {"intermediate_size": 4 * width, "num_key_value_heads": 1}
        model = LlamaForCausalLM(LlamaConfig(**sizes, attention_dropout=0.1))
        return HuggingFacePolicy(model.to(dtype))


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
def test_what_is_sampled_is_what_is_scored(name, env):
    policy = make(name, env)
    rollout = sample(policy, env, env.prompts, 4, torch.Generator().manual_seed(0))
    scored = completion_logprobs(policy, env.prompts, rollout.completions, 4)
    error = relative_error(rollout.logprobs[rollout.mask], scored[rollout.mask])
    assert error < ROUNDING[name]


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


# A world of sums for a tokenizer.


def tokenizer_of(words):
    """A tokenizer that knows these words and joins the longest first."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=words[0]))
    pattern = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=words[0])


def small_world(**options):
    return WorkedSums(tokenizer_of("?0123456789+= \n"), [(8, 7), (2, 2), (9, 9)], **options)


def test_worked_sums_are_a_world_with_one_right_answer():
    world = small_world()
    assert world.decode(world.prompts[0]).replace(" ", "") == "2+3=5\n8+7="
    assert world.completion_length == 3  # two digits and the line break
    right = torch.cat([world.solutions(prompt) for prompt in world.prompts])
    assert world.reward(world.prompts, right).tolist() == [1, 1, 1]
    assert [world.decode(row).replace(" ", "") for row in right] == ["15\n", "4\n\n", "18\n"]
    wrong = right.roll(1, 0)
    assert world.reward(world.prompts, wrong).tolist() == [0, 0, 0]
    behind = right.clone()
    behind[1, 2] = 5  # what stands behind the stop is not read
    assert world.reward(world.prompts, behind).tolist() == [1, 1, 1]
    assert world.answer(world.prompts[1]) == right[1, :2].tolist()


@pytest.mark.parametrize("stop", [True, False])
def test_success_and_value_gradient_are_those_of_one_answer(stop):
    world = small_world(stop=stop)
    policy = make("Llama", world, width=8)
    V = success(policy, world)
    for prompt, value in zip(world.prompts, V):
        answer = world.solutions(prompt)
        live = completion_mask(answer, world.eos)
        logprobs = completion_logprobs(policy, prompt[None], answer).masked_fill(~live, 0.0)
        assert value.item() == pytest.approx(logprobs.sum().exp().item(), rel=1e-6)
    gradients = value_gradients(policy, world, policy.blocks[0])
    assert gradients.shape == (3, world.prompt_length, 8) and gradients.any()
    history = improve(policy, world, "rloo", 1, torch.Generator().manual_seed(0), 4)
    assert 0 < history[-1]["success"] < 1


def test_what_is_no_policy_and_no_world_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="has no list of num_hidden_layers"):
        HuggingFacePolicy(nn.Linear(2, 2))
    policy = make("GPT-2", small_world())
    policy.model.train()
    with pytest.raises(ValueError, match=r"train\(\): call model.eval"):
        policy(torch.zeros(1, 2, dtype=torch.long))
    tokenizer = tokenizer_of("?0123456789+= \n")
    with pytest.raises(ValueError, match="prompts must have one length"):
        WorkedSums(tokenizer, [(8, 7), (12, 3)])
    joined = tokenizer_of(["?", *"0123456789+= \n", "5\n"])
    with pytest.raises(ValueError, match="joins the answer of 8"):
        WorkedSums(joined, [(8, 7)], examples=((1, 1),))
