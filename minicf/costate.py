"""Costates: what backpropagation of the actor's own surrogate leaves on the residual stream.

The surrogate of a completion y with advantage A is Σ_t A·log π(y_t | …). Its derivative with
respect to a nudge δ_j of the residual stream at the position that predicts token j is the empirical
costate

    λ̂_j = ∂/∂δ_j Σ_{t≥j} A·log π(y_t | …),        E[λ̂_j | s_j] = ∇_{δ_j} V(s_j)  exactly,

at every layer and position, for the plain sum over live tokens and an A whose baseline does not see
what follows s_j. Proof: V(s_j) = Σ_y π(y | s_j) r(y), ∇π = π ∇log π, and E[∇log π] = 0 removes the
baseline. It is the policy-gradient theorem read at an activation (arXiv:2605.21654). λ̂ is the
adjoint of a surrogate, a score-function estimator; control.py has the pathwise adjoint of a return.
They are different random variables whose conditional means are both value gradients.

Left out on purpose: ratios, clips and KL terms; each of them bends λ̂ away from ∇V.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .env import SumGame
from .exact import completions, value_gradient
from .gpt import GPT
from .rollout import Rollout, completion_logits, completion_mask, token_logprobs


def empirical_costates(
    policy: GPT, rollout: Rollout, advantages: Tensor, layer: int
) -> Tensor:
    """λ̂ of every completion at every position: (B, P+T−1, D), in reward per unit of the stream.

    One backward pass: rows do not touch each other, so each nudge collects its own completion's
    costate. advantages (B,) or (B, T). The sign is that of +∇V; position P−1+t predicts token t.
    """
    delta, terms = _surrogate_terms(policy, rollout, advantages, layer)
    return torch.autograd.grad(terms.sum(), delta)[0]


def own_logit_costates(
    policy: GPT, rollout: Rollout, advantages: Tensor, layer: int
) -> Tensor:
    """The part of λ̂ through each position's own logits (the term t = j alone): (B, P+T−1, D).

    What is left, λ̂ minus this, came by later tokens' attention to the position. In expectation the
    two are the terms of the product rule, ∇V = Σ_v Q(v)·∇π(v) + Σ_v π(v)·∇V(s_j, v). Positions
    before the prompt's last have no own logit: zero here. One backward pass per token.
    """
    delta, terms = _surrogate_terms(policy, rollout, advantages, layer)
    T, own = terms.size(1), torch.zeros_like(delta)
    first = delta.size(1) - T
    for t in range(T):
        (gradient,) = torch.autograd.grad(terms[:, t].sum(), delta, retain_graph=True)
        own[:, first + t] = gradient[:, first + t]
    return own.detach()


def _surrogate_terms(
    policy: GPT, rollout: Rollout, advantages: Tensor, layer: int
) -> tuple[Tensor, Tensor]:
    """The nudge (B, P+T−1, D) and A·log π of each live token (B, T), connected for autograd."""
    if advantages.shape not in (rollout.rewards.shape, rollout.mask.shape):
        raise ValueError(
            f"advantages must be (B,) or (B, T) = {tuple(rollout.mask.shape)}, "
            f"not {tuple(advantages.shape)}"
        )
    if advantages.dim() == 1:
        advantages = advantages[:, None]
    delta, logits = _nudged_logits(policy, rollout.prompts, rollout.completions, layer)
    logprobs = token_logprobs(logits, rollout.completions)
    return delta, (advantages.detach() * logprobs).masked_fill(~rollout.mask, 0.0)


def _nudged_logits(
    policy: GPT, prompts: Tensor, completions: Tensor, layer: int
) -> tuple[Tensor, Tensor]:
    """A nudge of zeros for each row and position (B, P+T−1, D), and logits (B, T, V) behind it."""
    length = prompts.size(1) + completions.size(1) - 1
    weight = policy.token_embedding.weight
    delta = weight.new_zeros(len(prompts), length, weight.size(1)).requires_grad_()
    return delta, completion_logits(policy, prompts, completions, nudge={layer: delta})


def attention_share(attention: Tensor, gradient: Tensor) -> Tensor:
    """⟨attention, ∇V⟩ / ‖∇V‖² of vectors (…, D): the share of ∇V that came by attention (…).

    With the own-logit share it sums to 1; it can leave [0, 1], where the parts oppose each other.
    """
    return (attention * gradient).sum(-1) / gradient.square().sum(-1)


def alignment(estimate: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and ratio of norms of vectors (…, D): (…), (…). One alone misleads."""
    cosine = F.cosine_similarity(estimate, truth, dim=-1)
    return cosine, estimate.norm(dim=-1) / truth.norm(dim=-1)


# The error of a costate. With z_t the logits and J_t = ∂z_t/∂δ_j, λ̂_j = A·Σ_t J_tᵀ(e_{y_t} − π_t).


def sampling_gap(logits: Tensor, tokens: Tensor) -> Tensor:
    """e_y − π, the one-hot sample minus the policy, for logits (…, V) and tokens (…): (…, V)."""
    return F.one_hot(tokens, logits.size(-1)) - logits.softmax(-1)


def mean_square_gap(logits: Tensor) -> Tensor:
    """E‖e_y − π‖² = 1 − Σπ² of logits (…, V): the chance that two draws differ (…).

    At most 1 − e^{−H} (Jensen: Σπ² = E[e^{log π}] ≥ e^{E[log π]} = e^{−H}), hence at most H.
    """
    probabilities = logits.softmax(-1)
    return (probabilities * (1 - probabilities)).sum(-1)


def token_entropy(logits: Tensor) -> Tensor:
    """H in nats of logits (…, V): (…)."""
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def martingale_terms(
    rollout: Rollout, probabilities: Tensor, costates: Tensor, start: int = 0
) -> Tensor:
    """E‖λ̂ − ∇V‖² as a sum of sampling gaps, one term per token: (T,), zero before `start`.

    rollout and probabilities are those of `exact.outcomes` from a state with `start` tokens;
    costates (M, D) are of its rows. With W_t(v) = E[λ̂ | s_t, y_t = v], term t is the mean over s_t
    of ½ Σ_{u,v} π_u π_v ‖W_t(u) − W_t(v)‖². Proof: E[λ̂ | s_t] is a martingale from ∇V to λ̂, its
    steps M_t = W_t(y_t) − Σ_v π_v W_t(v) are uncorrelated, and the mean square of a step is that
    variance.
    """
    terms = []
    for t in range(rollout.mask.size(1)):
        spread = probabilities.new_zeros(())
        if t >= start:
            parts = [_mean_square(rollout, probabilities, costates, n) for n in (t + 1, t)]
            spread = parts[0] - parts[1]  # Σ_v π_v‖W(v)‖² − ‖Σ_v π_v W(v)‖², averaged over s_t
        terms.append(spread)
    return torch.stack(terms)


def _mean_square(rollout: Rollout, probabilities: Tensor, costates: Tensor, n: int) -> Tensor:
    """E‖E[λ̂ | first n tokens]‖² over the enumerated rows."""
    start = F.pad(rollout.completions[:, :n], (1, 0))  # a column of zeros, so that n may be 0
    _, group = start.unique(dim=0, return_inverse=True)
    size = int(group.max()) + 1
    p = probabilities.new_zeros(size).index_add(0, group, probabilities)
    weighted = probabilities[:, None] * costates
    sums = costates.new_zeros(size, costates.size(1)).index_add(0, group, weighted)
    return (sums.square().sum(1) / p).sum()


def state_jacobians(
    policy: GPT, env: SumGame, prompt: Tensor, layer: int, prefix: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """J_t = ∂z_t/∂δ_j at every state s_t that can follow s_j = (prompt, prefix), by enumeration.

    Returns the states' probabilities given s_j (S,), their logits (S, V) and Jacobians (S, V, D);
    the first state is s_j itself.
    """
    prefix = prompt[:0] if prefix is None else prefix
    j, T = len(prefix), env.completion_length
    rows = completions(env)
    rows = rows[(rows[:, :j] == prefix).all(1)]
    states = rows[(rows == env.eos).any(1)]  # (S, T): a state, once, is what comes before a stop
    depth, order = (states != env.eos).sum(1).sort(stable=True)
    states = states[order]
    delta, logits = _nudged_logits(policy, prompt.expand(len(states), -1), states, layer)
    between = (torch.arange(T) >= j) & (torch.arange(T) < depth[:, None])  # tokens from s_j to s_t
    reached = token_logprobs(logits, states).masked_fill(~between, 0.0).sum(1).exp()
    logits = logits[torch.arange(len(states)), depth]  # (S, V), of the token that is next
    jacobian = [
        torch.autograd.grad(z.sum(), delta, retain_graph=True)[0][:, len(prompt) + j - 1]
        for z in logits.unbind(1)
    ]
    return reached.detach(), logits.detach(), torch.stack(jacobian, 1)


def spread(probabilities: Tensor, vectors: Tensor) -> Tensor:
    """tr(JᵀΣ_πJ) = Σ_v π_v‖J_v − Σ_u π_u J_u‖² of π (…, V) and J (…, V, D): (…).

    Half the mean squared distance of the rows of two draws from π: κ·(1 − Σπ²), where κ is the same
    for two *different* draws.
    """
    mean = (probabilities[..., None] * vectors).sum(-2, keepdim=True)
    return (probabilities * (vectors - mean).square().sum(-1)).sum(-1)


def error_bound(
    policy: GPT,
    env: SumGame,
    prompt: Tensor,
    layer: int,
    prefix: Tensor | None = None,
    baseline: float = 0.5,
) -> dict[str, float]:
    """E‖λ̂ − ∇V‖² at the state's last token, for A = reward − baseline and rewards 0 or 1.

    A² ≤ c = max(baseline, 1 − baseline)², and scores J_tᵀ(e_y − π) are martingale differences, so

        E‖λ̂ − ∇V‖² ≤ c·Σ_t E[κ_t(1 − Σπ²)] − ‖∇V‖²       "gap", equal for baseline ½
                    ≤ c·Σ_t E[κ_t(1 − e^{−H})] − ‖∇V‖²     "collision"
                    ≤ c·Σ_t E[κ_t H] − ‖∇V‖²               "entropy".

    Returns the three, and "fisher", Σ_t E[κ_t(1 − Σπ²)] itself: the trace of the nudge's Fisher
    information. By enumeration, so for two terms; `fisher_estimate` needs none.
    """
    if not 0 <= baseline <= 1:
        raise ValueError(f"baseline must be between 0 and 1, not {baseline}")
    prefix = prompt[:0] if prefix is None else prefix
    reached, logits, jacobian = state_jacobians(policy, env, prompt, layer, prefix)
    gap, H = mean_square_gap(logits), token_entropy(logits)
    kappa = spread(logits.softmax(-1), jacobian) / gap.clamp(min=1e-300)  # 0 where nothing is drawn
    weights = {"gap": gap, "collision": -torch.expm1(-H), "entropy": H}
    sums = {name: (reached * kappa * weight).sum().item() for name, weight in weights.items()}
    signal = value_gradient(policy, env, prompt, prefix, layer).square().sum().item()
    c = max(baseline, 1 - baseline) ** 2
    return {name: c * total - signal for name, total in sums.items()} | {"fisher": sums["gap"]}


def fisher_estimate(
    policy: GPT, rollout: Rollout, layer: int, generator: torch.Generator
) -> Tensor:
    """Unbiased estimate of Σ_{t≥j} κ_t(1 − Σπ_t²) per position, in one backward pass: (B, P+T−1).

    At each live position two tokens u_t, v_t are drawn afresh from π_t; the estimate is
    ½‖∇_δ Σ_t (z_t[u_t] − z_t[v_t])‖². Differences of different positions are uncorrelated.
    """
    delta, logits = _nudged_logits(policy, rollout.prompts, rollout.completions, layer)
    flat = logits.detach().flatten(0, 1).softmax(-1).cpu()
    pair = torch.multinomial(flat, 2, replacement=True, generator=generator).to(logits.device)
    drawn = logits.gather(-1, pair.view(*rollout.mask.shape, 2))  # (B, T, 2)
    difference = (drawn[..., 0] - drawn[..., 1]).masked_fill(~rollout.mask, 0.0)
    return torch.autograd.grad(difference.sum(), delta)[0].square().sum(-1) / 2


# Biased relatives: what one might propagate instead, and what it costs.


def own_logit_bias(
    action_values: Tensor, probabilities: Tensor, jacobian: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """The bias of carrying credit through attention alone, −Cov_π(Q, J), and bounds of its norm.

    action_values Q (V,), the policy π (V,) and J (V, D) at one state. Dropping the own logit drops
    Σ_v Q(v)∇π(v) = Σ_v π(v)Q(v)(J_v − J̄) = Cov_π(Q, J). Bounds: "cauchy", sd_π(Q)·√tr(JᵀΣ_πJ);
    "gap", ½·range(Q)·diam(J)·(1 − Σπ²); "entropy", the same with H in place of 1 − Σπ².
    """
    mean = probabilities @ jacobian
    bias = -(probabilities * action_values) @ (jacobian - mean)
    logits = probabilities.log()
    variance = probabilities @ (action_values - probabilities @ action_values).square()
    span = action_values.max() - action_values.min()
    reach = 0.5 * span * torch.cdist(jacobian, jacobian).max()
    return bias, {
        "cauchy": (variance * spread(probabilities, jacobian)).sqrt().item(),
        "gap": (reach * mean_square_gap(logits)).item(),
        "entropy": (reach * token_entropy(logits)).item(),
    }


RELAXATIONS = ("hard inputs", "soft rollout", "straight-through")


def relaxed_costates(
    policy: GPT, env: SumGame, prompt: Tensor, layer: int,
    relaxation: str, samples: int, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Biased: pathwise costates (samples, D) at a prompt's last token, tokens taken as continuous.

    The reward is extended to Σ_solutions Π_t ỹ_t[solution_t]. "straight-through": ỹ is the sample,
    differentiated as if it were π, and fed back so. "hard inputs": the same, but the token fed back
    is a constant. "soft rollout": ỹ is π itself, and the mean embedding is fed back; nothing is
    sampled.
    """
    if relaxation not in RELAXATIONS:
        raise ValueError(f"relaxation must be one of {', '.join(RELAXATIONS)}, not {relaxation!r}")
    embedding = policy.token_embedding.weight  # (V, D)
    delta = embedding.new_zeros(samples, 1, embedding.size(1)).requires_grad_()
    prompt = prompt.to(embedding.device)
    last = embedding.new_zeros(len(prompt), 1)  # the nudge is at the prompt's last token only
    last[-1] = 1
    logits, cache = policy(prompt.expand(samples, -1), nudge={layer: last * delta})
    relaxed = []
    for t in range(env.completion_length):
        probabilities = logits[:, -1].softmax(-1)  # (samples, V)
        drawn = torch.multinomial(probabilities.detach().cpu(), 1, generator=generator)
        tokens = drawn.to(embedding.device)  # (samples, 1)
        hard = F.one_hot(tokens[:, 0], probabilities.size(-1)).to(embedding)
        soft = probabilities if relaxation == "soft rollout" else hard + (
            probabilities - probabilities.detach()
        )
        relaxed.append(soft)
        move = (soft - hard) @ embedding  # from the token's embedding to that of ỹ
        nudge = None if relaxation == "hard inputs" else {0: move[:, None]}
        if t < env.completion_length - 1:
            logits, cache = policy(tokens, cache, nudge)
    solutions = env.solutions(prompt).to(embedding.device)  # (K, T)
    live = completion_mask(solutions, env.eos)
    factors = [torch.where(live[:, t], y[:, solutions[:, t]], 1.0) for t, y in enumerate(relaxed)]
    reward = torch.stack(factors).prod(0).sum()  # over T, then over samples and solutions
    return torch.autograd.grad(reward, delta)[0][:, 0]
