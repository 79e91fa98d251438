"""Policies of a configuration: new ones, and those that units of work left in their files."""

import copy

import torch

from ..env import SumGame
from ..gpt import GPT
from ..training import pretrain
from .runner import generator_of, load

# What pretraining reads, by name of the corpus; the demonstration uses the first two.
CORPORA = {"clean": {}, "narrow": {"max_target": 9}, "wrong": {"wrong": 1 / 3}}
AUDIT_STEPS = (100, 300, 25)  # pretraining steps of the small policies


def new_policy(config, env: SumGame, generator: torch.Generator | None = None) -> GPT:
    """An untrained policy of the configuration's sizes, on its device."""
    policy = GPT.for_world(env, config.n_layer, config.n_head, config.d_model, generator)
    return policy.to(config.device)


def weights_of(policy: GPT) -> dict:
    """A copy of the policy's weights, on the CPU."""
    return {name: weight.cpu().clone() for name, weight in policy.state_dict().items()}


def load_checkpoint(config, corpus: str, step: int) -> tuple[GPT, SumGame]:
    """The policy of a pretraining at a step, and its world."""
    env = SumGame(config.max_terms)
    policy = new_policy(config, env)
    policy.load_state_dict(load(config, f"pretrain {corpus}")["weights"][step])
    return policy, env


def small_policies(config) -> tuple[dict[int, GPT], SumGame, torch.Generator]:
    """Policies by pretraining step, in float64, and the generator that made them.

    They are small, in the two-term world, so that every completion can be summed over.
    """
    env = SumGame(2)
    generator = generator_of(config, "audit")
    kept = {}
    policy = GPT.for_world(env, config.n_layer, config.n_head, 4 * config.n_head, generator)

    def keep(step: int, loss: float) -> None:
        kept[step] = copy.deepcopy(policy).double()

    steps = sorted(AUDIT_STEPS[: config.audits])
    pretrain(
        policy, env, steps[-1], generator, learning_rate=1e-2, checkpoints=tuple(steps),
        at_checkpoint=keep,
    )  # fmt: skip
    return kept, env, generator
