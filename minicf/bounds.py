"""When is a costate wrong? Its error in terms of sampling gaps and entropy, and biased relatives.

With z_t the logits, J_t = ∂z_t/∂x_j and e_y one-hot, λ̂_j = A·Σ_t J_tᵀ(e_{y_t} − π_t). The vector
e_y − π is the sampling gap; its mean square is 1 − Σπ², at most 1 − e^{−H}, at most H, the entropy.
Two identities tie the error E‖λ̂ − ∇V‖² to it, `martingale_terms` for any rewards, `error_bound`
for rewards 0 or 1. They bound the absolute error. The relative one, error over ‖∇V‖², sets how many
samples are needed, and can grow while the absolute error falls.

Enumerates, hence for worlds of two terms; `fisher_estimate` and `relaxed_costates` sample.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .env import SumGame
from .exact import check_prefix, completions, value_gradient
from .rollout import Rollout, completion_logits, completion_mask, token_logprobs
from .tap import tap


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
        term = probabilities.new_zeros(())
        if t >= start:
            parts = [_mean_square(rollout, probabilities, costates, n) for n in (t + 1, t)]
            term = parts[0] - parts[1]  # Σ_v π_v‖W(v)‖² − ‖Σ_v π_v W(v)‖², averaged over s_t
        terms.append(term)
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


def text_states(env: SumGame, prefix: Tensor) -> tuple[Tensor, Tensor]:
    """Every text (S, T) that can follow `prefix` without a stop, filled up with stops, shorter ones
    first, and how many tokens each has (S,). Each, with a prompt, is a state."""
    j = len(prefix)
    rows = completions(env)
    rows = rows[(rows[:, :j] == prefix).all(1)]
    states = rows[(rows == env.eos).any(1)]  # a state, once, is what comes before a stop
    depth, order = (states != env.eos).sum(1).sort(stable=True)
    return states[order], depth


def next_token_jacobians(
    policy: nn.Module, prompt: Tensor, states: Tensor, depth: Tensor, at: nn.Module
) -> tuple[Tensor, Tensor, Tensor]:
    """The next token's logits z (S, V) in states (S, T) of `depth` tokens, and ∂z/∂x (S, V, L, D)
    at all positions of the sequence; besides the logits of every token (S, T, V)."""
    with tap(at, calls=1) as inputs:
        all_logits = completion_logits(policy, prompt.expand(len(states), -1), states)
    logits = all_logits[torch.arange(len(states)), depth]
    jacobian = [
        torch.autograd.grad(z.sum(), inputs, retain_graph=True)[0] for z in logits.unbind(1)
    ]
    return logits.detach(), torch.stack(jacobian, 1), all_logits.detach()


def state_jacobians(
    policy: nn.Module, env: SumGame, prompt: Tensor, at: nn.Module, prefix: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """J_t = ∂z_t/∂x_j at every state s_t that can follow s_j = (prompt, prefix), by enumeration.

    Returns the states' probabilities given s_j (S,), their logits (S, V) and Jacobians (S, V, D);
    the first state is s_j itself.
    """
    prefix = prompt[:0] if prefix is None else prefix
    check_prefix(env, prefix)
    j = len(prefix)
    T = env.completion_length
    states, depth = text_states(env, prefix)
    logits, jacobian, all_logits = next_token_jacobians(policy, prompt, states, depth, at)
    between = (torch.arange(T) >= j) & (torch.arange(T) < depth[:, None])  # tokens from s_j to s_t
    reached = token_logprobs(all_logits, states).masked_fill(~between, 0.0).sum(1).exp()
    return reached, logits, jacobian[:, :, len(prompt) + j - 1]


def spread(probabilities: Tensor, vectors: Tensor) -> Tensor:
    """tr(JᵀΣ_πJ) = Σ_v π_v‖J_v − Σ_u π_u J_u‖² of π (…, V) and J (…, V, D): (…).

    Half the mean squared distance of the rows of two draws from π: κ·(1 − Σπ²), where κ is the same
    for two *different* draws.
    """
    mean = (probabilities[..., None] * vectors).sum(-2, keepdim=True)
    return (probabilities * (vectors - mean).square().sum(-1)).sum(-1)


def error_bound(
    policy: nn.Module,
    env: SumGame,
    prompt: Tensor,
    at: nn.Module,
    prefix: Tensor | None = None,
    baseline: float = 0.5,
) -> dict[str, float]:
    """E‖λ̂ − ∇V‖² at the state's last token, for A = reward − baseline and rewards 0 or 1.

    A² ≤ c = max(baseline, 1 − baseline)², and scores J_tᵀ(e_y − π) are martingale differences, so

        E‖λ̂ − ∇V‖² ≤ c·Σ_t E[κ_t(1 − Σπ²)] − ‖∇V‖²       "gap", equal for baseline ½
                    ≤ c·Σ_t E[κ_t(1 − e^{−H})] − ‖∇V‖²     "collision"
                    ≤ c·Σ_t E[κ_t H] − ‖∇V‖²               "entropy".

    Returns the three, and "fisher", Σ_t E[κ_t(1 − Σπ²)] itself: the trace of the Fisher
    information of x_j. By enumeration, so for two terms; `fisher_estimate` needs none.
    """
    if not 0 <= baseline <= 1:
        raise ValueError(f"baseline must be between 0 and 1, not {baseline}")
    prefix = prompt[:0] if prefix is None else prefix
    reached, logits, jacobian = state_jacobians(policy, env, prompt, at, prefix)
    gap = mean_square_gap(logits)
    H = token_entropy(logits)
    kappa = spread(logits.softmax(-1), jacobian) / gap.clamp(min=1e-300)  # 0 where nothing is drawn
    weights = {"gap": gap, "collision": -torch.expm1(-H), "entropy": H}
    sums = {name: (reached * kappa * weight).sum().item() for name, weight in weights.items()}
    signal = value_gradient(policy, env, prompt, prefix, at).square().sum().item()
    c = max(baseline, 1 - baseline) ** 2
    return {name: c * total - signal for name, total in sums.items()} | {"fisher": sums["gap"]}


def fisher_estimate(
    policy: nn.Module, rollout: Rollout, at: nn.Module, generator: torch.Generator
) -> Tensor:
    """Unbiased estimate of Σ_{t≥j} κ_t(1 − Σπ_t²) per position, in one backward pass: (B, P+T−1).

    At each live position two tokens u_t, v_t are drawn afresh from π_t; the estimate is
    ½‖∇_x Σ_t (z_t[u_t] − z_t[v_t])‖². Differences of different positions are uncorrelated.
    """
    with tap(at, calls=1) as inputs:
        logits = completion_logits(policy, rollout.prompts, rollout.completions)
    flat = logits.detach().flatten(0, 1).softmax(-1).cpu()
    pair = torch.multinomial(flat, 2, replacement=True, generator=generator).to(logits.device)
    drawn = logits.gather(-1, pair.view(*rollout.mask.shape, 2))  # (B, T, 2)
    difference = (drawn[..., 0] - drawn[..., 1]).masked_fill(~rollout.mask, 0.0)
    return torch.autograd.grad(difference.sum(), inputs)[0].square().sum(-1) / 2


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
    policy: nn.Module, env: SumGame, prompt: Tensor, at: nn.Module,
    relaxation: str, samples: int, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Biased: pathwise costates (samples, D) at a prompt's last token, tokens taken as continuous.

    The reward is extended to Σ_solutions Π_t ỹ_t[solution_t]. "straight-through": ỹ is the sample,
    differentiated as if it were π, and fed back so. "hard inputs": the same, but the token fed back
    is a constant. "soft rollout": ỹ is π itself, and the mean embedding is fed back; nothing is
    sampled. Needs the policy's `token_embedding` and `blocks`.
    """
    if relaxation not in RELAXATIONS:
        raise ValueError(f"relaxation must be one of {', '.join(RELAXATIONS)}, not {relaxation!r}")
    embedding = policy.token_embedding.weight  # (V, D)
    prompt = prompt.to(embedding.device)
    with tap(at, calls=1) as inputs:
        logits, cache = policy(prompt.expand(samples, -1))
    relaxed = []
    for t in range(env.completion_length):
        probabilities = logits[:, -1].softmax(-1)  # (samples, V)
        drawn = torch.multinomial(probabilities.detach().cpu(), 1, generator=generator)
        tokens = drawn.to(embedding.device)  # (samples, 1)
        hard = F.one_hot(tokens[:, 0], probabilities.size(-1)).to(embedding)
        soft = probabilities
        if relaxation != "soft rollout":
            soft = hard + (probabilities - probabilities.detach())
        relaxed.append(soft)
        move = (soft - hard) @ embedding  # from the token's embedding to that of ỹ
        if relaxation == "hard inputs":
            move = torch.zeros_like(move)
        if t < env.completion_length - 1:
            with tap(policy.blocks[0], move[:, None]):
                logits, cache = policy(tokens, cache)
    solutions = env.solutions(prompt).to(embedding.device)  # (K, T)
    live = completion_mask(solutions, env.eos)
    factors = [torch.where(live[:, t], y[:, solutions[:, t]], 1.0) for t, y in enumerate(relaxed)]
    reward = torch.stack(factors).prod(0).sum()  # over T, then over samples and solutions
    return torch.autograd.grad(reward, inputs)[0][:, -1]
