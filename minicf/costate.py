"""Costates: what backpropagation of the actor's own surrogate leaves on the residual stream.

The surrogate of a completion y with advantage A is Σ_t A·log π(y_t | …). Its derivative with
respect to the activation x_j at the position that predicts token j is the empirical costate

    λ̂_j = ∂/∂x_j Σ_{t≥j} A·log π(y_t | …),        E[λ̂_j | s_j] = ∇_{x_j} V(s_j)  exactly,

at every layer and position, for the plain sum over live tokens and an A whose baseline does not see
what follows s_j. Proof: V(s_j) = Σ_y π(y | s_j) r(y), ∇π = π ∇log π, and E[∇log π] = 0 removes the
baseline. It is the policy-gradient theorem read at an activation (arXiv:2605.21654). λ̂ is the
adjoint of a surrogate, a score-function estimator; control.py has the pathwise adjoint of a return.
They are different random variables whose conditional means are both value gradients.

`at` is a module of the policy whose input is x: a block, or the final norm. At the prompts, the
backward pass of training leaves the sum of a group's costates, times a factor: train.improve
reads it there.

Left out on purpose: ratios, clips and KL terms; each of them bends λ̂ away from ∇V.
"""

import torch
import torch.nn as nn
from torch import Tensor

from .rollout import Rollout, completion_logprobs
from .tap import tap


def empirical_costates(
    policy: nn.Module, rollout: Rollout, advantages: Tensor, at: nn.Module
) -> Tensor:
    """λ̂ of every completion at every position: (B, P+T−1, D), in advantage per unit of activation.

    One backward pass: rows do not touch each other, so each collects its own completion's costate.
    advantages (B,) or (B, T). The sign is that of +∇V; position P−1+t predicts token t.
    """
    x, terms = _surrogate_terms(policy, rollout, advantages, at)
    return torch.autograd.grad(terms.sum(), x)[0]


def own_logit_costates(
    policy: nn.Module, rollout: Rollout, advantages: Tensor, at: nn.Module
) -> Tensor:
    """The part of λ̂ through each position's own logits (the term t = j alone): (B, P+T−1, D).

    What is left, λ̂ minus this, came by later tokens' attention to the position. In expectation the
    two are the terms of the product rule, ∇V = Σ_v Q(v)·∇π(v) + Σ_v π(v)·∇V(s_j, v), with Q(v) the
    value once token v is chosen. Positions before the prompt's last have no own logit: zero here.
    One backward pass per token.
    """
    x, terms = _surrogate_terms(policy, rollout, advantages, at)
    T = terms.size(1)
    own = torch.zeros_like(x)
    first = x.size(1) - T
    for t in range(T):
        (gradient,) = torch.autograd.grad(terms[:, t].sum(), x, retain_graph=True)
        own[:, first + t] = gradient[:, first + t]
    return own.detach()


def _surrogate_terms(
    policy: nn.Module, rollout: Rollout, advantages: Tensor, at: nn.Module
) -> tuple[Tensor, Tensor]:
    """What enters `at` (B, P+T−1, D) and A·log π of each live token (B, T), connected."""
    if advantages.shape not in (rollout.rewards.shape, rollout.mask.shape):
        raise ValueError(
            f"advantages must be (B,) or (B, T) = {tuple(rollout.mask.shape)}, "
            f"not {tuple(advantages.shape)}"
        )
    if advantages.dim() == 1:
        advantages = advantages[:, None]
    with tap(at, calls=1) as inputs:  # each row with its own prompt, in one call
        logprobs = completion_logprobs(policy, rollout.prompts, rollout.completions)
    return inputs[0], (advantages.detach() * logprobs).masked_fill(~rollout.mask, 0.0)


def attention_share(attention: Tensor, gradient: Tensor) -> Tensor:
    """⟨attention, ∇V⟩ / ‖∇V‖² of vectors (…, D): the share of ∇V that came by attention (…).

    With the own-logit share it sums to 1; it can leave [0, 1], where the parts oppose each other.
    """
    return (attention * gradient).sum(-1) / gradient.square().sum(-1)


def alignment(estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine, 0 for a vector of zeros, and ratio of norms of vectors (…, D): (…), (…).

    The cosine alone hides a wrong length, the ratio a wrong direction.
    """
    length = estimate.norm(dim=-1)
    true_length = truth.norm(dim=-1)
    product = length * true_length
    cosine = (estimate * truth).sum(-1) / product.masked_fill(product == 0, 1.0)
    return cosine, length / true_length
