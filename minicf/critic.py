"""The critic: the one part of PPO that can be left out.

It learns V(s), the expected reward from each state of a completion, and `ppo.gae` turns its values
into advantages. A second network of the policy's size, hence twice the cost of an update.
"""

import copy

import torch
import torch.nn as nn
from torch import Tensor

from .ppo import aggregate_tokens
from .rollout import Rollout, completion_logits, group_rows


class Critic(nn.Module):
    """State values in reward units: a copy of the policy's trunk with a read-out starting at 0.

    Raises ValueError for a policy without a linear read-out called `head`.
    """

    def __init__(self, policy: nn.Module):
        super().__init__()
        if not isinstance(getattr(policy, "head", None), nn.Linear):
            raise ValueError(f"{type(policy).__name__} needs a linear read-out `head` for a critic")
        self.trunk = copy.deepcopy(policy)
        head = self.trunk.head
        head.weight = nn.Parameter(torch.zeros_like(head.weight[:1]))  # D -> 1
        head.out_features = 1

    def forward(self, prompts: Tensor, completions: Tensor, group_size: int = 1) -> Tensor:
        """V of the state before each token of completions (B, T), prompts as in scoring: (B, T)."""
        rows = group_rows(prompts, group_size)
        return completion_logits(self.trunk, prompts, completions, rows).squeeze(-1)


def value_loss(critic: Critic, rollout: Rollout, returns: Tensor) -> Tensor:
    """Mean square error of the critic to returns (B, T) over live tokens, in reward²: a scalar."""
    values = critic(rollout.prompts[:: rollout.group_size], rollout.completions, rollout.group_size)
    return aggregate_tokens((values - returns).square(), rollout.mask, "token")
