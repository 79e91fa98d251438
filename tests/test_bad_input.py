"""Bad input, case by case: one clear ValueError that names the argument and what is allowed.

The command line's cases are in test_train.py, and those of one function beside its other tests.
"""

import math

import pytest
import torch

import train
from minicf import (
    bounds, control, costate, env, exact, gpt, grpo, ppo, readiness, rollout, tap, variants
)  # fmt: skip

NAN, INF = math.nan, math.inf
ONES, MASK = torch.ones(4, 3), torch.ones(4, 3, dtype=torch.bool)
REWARDS = torch.tensor([0.0, 1.0, 1.0, 0.0])
GENERATOR = torch.Generator()
WORLD = env.SumGame(2)
POLICY, OTHER = (gpt.GPT.for_world(WORLD, n_layer=1, n_head=2, d_model=8) for _ in range(2))
BLOCK = POLICY.blocks[0]
PROMPT, NONE = WORLD.prompts[0], WORLD.prompts[0][:0]
ROLLOUT = rollout.sample(POLICY, WORLD, WORLD.prompts[:2], 2, torch.Generator().manual_seed(0))


def tapped(module, body=lambda: POLICY(WORLD.prompts), **options):
    """The policy's forward pass, or another `body`, within a tap."""
    with tap.tap(module, **options):
        body()


@torch.no_grad()
def tapped_without_gradients():
    tapped(BLOCK)


def improve(**options):
    return train.improve(POLICY, WORLD, "grpo", 1, GENERATOR, **options)


CASES = [
    # the world
    (lambda: env.SumGame(-1), "max_terms .* not -1"),
    (lambda: env.SumGame(2.0), "max_terms .* not 2.0"),
    (lambda: env.SumGame("3"), "max_terms .* not '3'"),
    (lambda: env.SumGame(True), "max_terms .* not True"),
    (lambda: WORLD.encode("12=?"), r"\['\?'\]"),
    (lambda: WORLD.reward(WORLD.prompts[0], ONES[0].long()), "must be"),
    (lambda: WORLD.reward(WORLD.prompts[:4, :2], ONES.long()), r"\(B, 3\) .* not \(4, 2\)"),
    (lambda: WORLD.decode(torch.tensor([3, 13])), "tokens must be 0 to 12, not 13"),
    (lambda: WORLD.decode(torch.tensor([-1, 3])), "tokens must be 0 to 12, not -1"),
    (lambda: WORLD.solutions(torch.tensor([0, 99, 11])), "tokens must be 0 to 12, not 99"),
    (lambda: WORLD.corpus(-4, GENERATOR), "batch_size .* not -4"),
    (lambda: WORLD.corpus(4, GENERATOR, wrong=-0.1), "wrong .* not -0.1"),
    (lambda: WORLD.corpus(4, GENERATOR, wrong=NAN), "wrong .* not nan"),
    (lambda: WORLD.corpus(4, GENERATOR, max_target=-1), "max_target .* not -1"),
    (lambda: WORLD.solutions(WORLD.encode("99=")), "99"),
    (lambda: WORLD.solutions(WORLD.encode("9+1")), "prompt"),
    # the network
    (lambda: gpt.GPTConfig(0, 6), "vocab_size .* not 0"),
    (lambda: gpt.GPTConfig(13, -6), "context .* not -6"),
    (lambda: gpt.GPTConfig(13, 6, n_head=3), "d_model 64 is not divisible by n_head 3"),
    (lambda: gpt.GPTConfig(13, 6, d_model=64.0), "d_model .* not 64.0"),
    (lambda: POLICY(torch.zeros(1, 9, dtype=torch.long)), "9 tokens do not fit a context of 6"),
    (lambda: POLICY(torch.zeros(4, dtype=torch.long)), r"tokens must be \(B, L\)"),
    (lambda: POLICY(torch.zeros(1, 0, dtype=torch.long)), r"tokens must be \(B, L\)"),
    # the tap
    (lambda: tapped(BLOCK, lambda: None), "Block must be called at least once .* not 0 times"),
    (lambda: tapped(OTHER.blocks[0]), "Block must be called at least once .* not 0 times"),
    (lambda: tapped(BLOCK, calls=2), "Block must be called 2 times .* not 1 times"),
    (tapped_without_gradients, "under no_grad"),
    (lambda: tapped(POLICY.token_embedding), "floating-point tensor, not torch.int64"),
    (lambda: tapped(BLOCK, delta=torch.zeros(7)), r"\(7,\) does not broadcast to \(19, 3, 8\)"),
    # sampling and scoring
    (lambda: rollout.sample(POLICY, WORLD, WORLD.prompts, -1, GENERATOR), "group_size .* not -1"),
    (lambda: rollout.sample(POLICY, WORLD, WORLD.prompts[:0], 2, GENERATOR), "prompts must be"),
    (lambda: rollout.sample(POLICY, WORLD, WORLD.prompts[0], 2, GENERATOR), "prompts must be"),
    (
        lambda: rollout.sample(POLICY, WORLD, WORLD.prompts[:, 1:], 2, GENERATOR),
        r"prompts must be \(Q, 3\) .* not \(19, 2\)",
    ),
    (lambda: rollout.completion_logprobs(POLICY, WORLD.prompts[:2], ONES.long(), 0), "group_size"),
    (lambda: rollout.completion_logprobs(POLICY, WORLD.prompts[:3], ONES.long(), 2), "not 4"),
    # losses
    (
        lambda: ppo.clipped_surrogate(ONES, ONES, REWARDS, MASK, clip=(0.2, NAN)),
        "clip .* at least 0",
    ),
    (lambda: ppo.clipped_surrogate(ONES, ONES, REWARDS, MASK, clip=(0.2,)), "clip must be two"),
    (lambda: ppo.clipped_surrogate(ONES, ONES, REWARDS, MASK, aggregate=""), "aggregate must be"),
    (
        lambda: ppo.clipped_surrogate(ONES, ONES, REWARDS[:3], MASK),
        "advantages must have the shape",
    ),
    (lambda: ppo.clipped_surrogate(ONES, ONES, REWARDS, MASK[:, :2]), "mask must have the shape"),
    (lambda: ppo.clipped_surrogate(ONES[:0], ONES[:0], REWARDS[:0], MASK[:0]), "at least one"),
    (lambda: ppo.gae(REWARDS, ONES[:, :2], MASK), r"rewards \(B,\) or \(B, T\), values and mask"),
    (lambda: ppo.gae(REWARDS, ONES, MASK, discount=-0.1), "discount .* not -0.1"),
    (lambda: ppo.gae(REWARDS, ONES, MASK, gae_lambda=NAN), "gae_lambda .* not nan"),
    (lambda: grpo.group_advantages(REWARDS, 0), "group_size .* not 0"),
    (lambda: grpo.group_advantages(REWARDS, 3), "multiple of group_size 3"),
    (lambda: grpo.group_advantages(REWARDS[:0], 2), "multiple of group_size 2"),
    (lambda: grpo.group_advantages(ONES, 2), "rewards must be"),
    (lambda: grpo.group_advantages(REWARDS * NAN, 2), "rewards must be finite"),
    (lambda: grpo.group_advantages(REWARDS * INF, 2), "rewards must be finite"),
    (lambda: grpo.group_advantages(REWARDS, 2, baseline="median"), "baseline .* not 'median'"),
    (lambda: grpo.kl_penalty(ONES, ONES, "kl"), "estimator .* not 'kl'"),
    (lambda: grpo.grpo_loss(ONES, ONES, REWARDS, MASK, ONES, kl_coef=-1.0), "kl_coef -1.0"),
    (lambda: variants.maxrl_advantages(REWARDS - 1, 2), "rewards must be at least 0, not -1.0"),
    (lambda: variants.maxrl_advantages(REWARDS, 1), "group_size must be at least 2, not 1"),
    (lambda: variants.gspo_loss(ONES, ONES, REWARDS[:3], MASK), "must have the shape"),
    (lambda: variants.gspo_loss(ONES, ONES, REWARDS, MASK & False), "at least one live token"),
    (lambda: variants.cispo_loss(ONES, ONES[:2], REWARDS, MASK), "must have the shape"),
    (lambda: variants.dapo_loss(ONES, ONES, REWARDS, MASK[:, :2]), "mask must have the shape"),
    # the truth and the costates
    (lambda: exact.value_gradient(POLICY, WORLD, PROMPT, NONE, BLOCK, 3), "0 to 2, .* not 3"),
    (lambda: exact.value_gradient(POLICY, WORLD, PROMPT, NONE, BLOCK, -1), "0 to 2, .* not -1"),
    (lambda: exact.value_gradient(POLICY, WORLD, PROMPT, NONE, OTHER.blocks[0]), "not 0 times"),
    (lambda: exact.value_gradients(POLICY, WORLD, OTHER.norm), "LayerNorm must be .* not 0 times"),
    (
        lambda: exact.value_gradient(POLICY, WORLD, PROMPT, torch.tensor([13]), BLOCK),
        "tokens must be 0 to 12, not 13",
    ),
    (
        lambda: exact.value_gradient(POLICY, WORLD, PROMPT, torch.tensor([-1]), BLOCK),
        "tokens must be 0 to 12, not -1",
    ),
    (
        lambda: exact.value_gradient(POLICY, WORLD, PROMPT, WORLD.encode("1+2+3"), BLOCK),
        r"prefix '1\+2\+3' leaves no token",
    ),
    (lambda: exact.outcomes(POLICY, WORLD, PROMPT, WORLD.encode("0.")), "leaves no token"),
    (lambda: exact.outcomes(POLICY, WORLD, PROMPT, WORLD.encode("1+2+")), "leaves no token"),
    (lambda: exact.outcomes(POLICY, WORLD, PROMPT, torch.tensor([4, 77])), "0 to 12, not 77"),
    (lambda: exact.success(POLICY, WORLD, WORLD.encode("99=")[None]), "not '99='"),
    (lambda: bounds.error_bound(POLICY, WORLD, PROMPT, BLOCK, baseline=NAN), "baseline .* not nan"),
    (lambda: bounds.fisher_estimate(POLICY, ROLLOUT, OTHER.norm, GENERATOR), "not 0 times"),
    (
        lambda: bounds.relaxed_costates(POLICY, WORLD, PROMPT, BLOCK, "soft", 2, GENERATOR),
        "relaxation .* not 'soft'",
    ),
    (lambda: costate.empirical_costates(POLICY, ROLLOUT, ONES, BLOCK), r"not \(4, 3\)"),
    (
        lambda: costate.empirical_costates(POLICY, ROLLOUT, REWARDS, OTHER.norm),
        "LayerNorm must be called .* not 0 times",
    ),
    (lambda: control.CosineTrack(0, 0.1, 0.5), "horizon .* not 0"),
    (lambda: control.CosineTrack(3, NAN, 0.5), "gain .* not nan"),
    (lambda: control.CosineTrack(3, 0.1, -0.5), "noise .* not -0.5"),
    # readiness and the loop
    (lambda: readiness.headroom(torch.tensor([NAN])), "p must hold probabilities"),
    (lambda: readiness.pass_at_k(torch.tensor([1]), 4, 0), "k must be 1 to 4, .* not 0"),
    (lambda: improve(prompts=WORLD.prompts[:0]), "prompts must be"),
    (lambda: improve(prompts=WORLD.prompts[0]), "prompts must be"),
    (lambda: exact.success(POLICY, WORLD, WORLD.prompts[0]), "prompts must be"),
    (lambda: bounds.state_jacobians(POLICY, WORLD, PROMPT, BLOCK, WORLD.encode("5.")), "leaves no"),
    (lambda: train.improve(POLICY, WORLD, "GRPO", 1, GENERATOR), "method must be one of"),
    (lambda: improve(group_size=1), "group_size must be at least 2, not 1"),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_bad_input_is_refused_in_one_sentence(case):
    call, says = CASES[case]
    with pytest.raises(ValueError, match=says) as error:
        call()
    assert len(str(error.value).splitlines()) == 1
