import math
from functools import partial

import pytest
import torch
from conftest import added, cosine, expected_advantages

from minicf.costate import (
    alignment, attention_share, empirical_costates, own_logit_costates
)  # fmt: skip
from minicf.exact import outcomes, prefix_values, success, value_gradient, value_gradients
from minicf.grpo import group_advantages
from minicf.ppo import clipped_surrogate
from minicf.rollout import completion_logprobs, sample
from minicf.tap import tap

LAYERS = [0, 1, 2]
LATER = [*((9, "4", layer) for layer in LAYERS), (12, "9+", 0)]  # target, prefix, layer
CASES = [(9, "", 1), *LATER]
G = 4


@pytest.fixture(scope="module")
def start(trained, env):
    """Every completion of `09=`, its probability and score: the costate per unit of advantage."""
    rollout, p = outcomes(trained, env, env.prompts[9])
    scores = empirical_costates(trained, rollout, torch.ones(len(p)), trained.blocks[1])[:, 2]
    exact = value_gradient(trained, env, env.prompts[9], env.encode(""), trained.blocks[1])
    return rollout, p, scores, exact


def place(env, text):
    """The position of the last token of a state."""
    return env.prompt_length + len(text) - 1


def expected_costate(policy, env, target, text, layer, advantages=None):
    """Exact mean of the empirical costate at the state's last token; default advantage: reward."""
    rollout, p = outcomes(policy, env, env.prompts[target], env.encode(text))
    scores = rollout.rewards if advantages is None else advantages(rollout, p)
    costates = empirical_costates(policy, rollout, scores, policy.stream[layer])
    return p @ costates[:, place(env, text)]


def truth(policy, env, target, text, layer):
    at = policy.stream[layer]
    return value_gradient(policy, env, env.prompts[target], env.encode(text), at)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


# C2: the mean of the costate is the value gradient.


@pytest.mark.parametrize("baseline", [0.0, 0.5, 1.0])
def test_expected_costate_is_the_value_gradient_at_the_prompts_end(start, baseline):
    rollout, p, scores, exact = start
    assert relative(p * (rollout.rewards - baseline) @ scores, exact) < 1e-10


@pytest.mark.parametrize("target, text, layer", LATER)
@pytest.mark.parametrize("baseline", [0.0, 0.5, 1.0])
def test_expected_costate_is_the_value_gradient(trained, env, layer, target, text, baseline):
    got = expected_costate(trained, env, target, text, layer, lambda r, p: r.rewards - baseline)
    assert relative(got, truth(trained, env, target, text, layer)) < 1e-10


def test_it_is_so_at_earlier_positions_too_and_not_off_by_one(trained, env):
    prompt, prefix = env.prompts[9], env.encode("4")
    rollout, p = outcomes(trained, env, prompt, prefix)
    later = torch.ones(len(p), 4)
    later[:, 0] = 0  # its own term is no part of what follows the state
    at = trained.blocks[1]
    costates = empirical_costates(trained, rollout, later * rollout.rewards[:, None], at)
    for position in range(4):
        got = p @ costates[:, position]
        exact = value_gradient(trained, env, prompt, prefix, at, position)
        assert relative(got, exact) < 1e-10
        others = [q for q in range(4) if q != position]
        assert min(relative(p @ costates[:, q], exact) for q in others) > 0.02


def test_a_baseline_per_token_may_see_the_tokens_before(trained, env):
    """b_t = V(s_t), what a perfect critic would say."""

    def advantages(rollout, p):
        values = prefix_values(trained, env, rollout.prompts, rollout.completions)
        return rollout.rewards[:, None] - values

    got = expected_costate(trained, env, 9, "", 1, advantages)
    assert relative(got, truth(trained, env, 9, "", 1)) < 1e-10


def test_a_batch_in_one_pass_is_row_by_row(trained, env, generator):
    rollout = sample(trained, env, env.prompts[[3, 9]], 3, generator)
    advantages = torch.randn(6, generator=generator).double()
    together = empirical_costates(trained, rollout, advantages, trained.blocks[1])
    assert together.shape == (6, 6, 16)
    for b in range(6):
        delta = torch.zeros(1, 6, 16, dtype=torch.float64, requires_grad=True)
        with added(trained.blocks[1], delta):
            logprobs = completion_logprobs(
                trained, rollout.prompts[[b]], rollout.completions[[b]]
            )
        surrogate = advantages[b] * logprobs[rollout.mask[[b]]].sum()
        (alone,) = torch.autograd.grad(surrogate, delta)
        torch.testing.assert_close(together[[b]], alone)


def test_causality_terms_before_a_position_contribute_exactly_zero(trained, env, generator):
    rollout = sample(trained, env, env.prompts[[9]], 6, generator)
    early = torch.zeros(6, 4)
    early[:, :2] = 1.0  # the advantage of the first two tokens only
    costates = empirical_costates(trained, rollout, early, trained.blocks[0])
    assert (costates[:, 2 + 2 :] == 0).all() and (costates[:, 3].norm(dim=1) > 0).any()


def test_costates_after_the_stop_are_zero(trained, env, generator):
    rollout = sample(trained, env, env.prompts[[5]], 20, generator)
    costates = empirical_costates(trained, rollout, torch.ones(20), trained.blocks[1])
    costates = costates[:, 2:]  # (20, T, D)
    assert (costates[~rollout.mask] == 0).all() and not rollout.mask.all()
    assert (costates[rollout.mask].norm(dim=1) > 0).all()


# C2's negative controls. Each is a silent bug, and each turns the mean costate.


def test_shuffled_rewards_point_nowhere(trained, env, start, generator):
    """2,000 samples, 200 shuffles: the mean cosine is 0, z below 3, false alarm .003."""
    rollout, exact = sample(trained, env, env.prompts[[9]], 2000, generator), start[-1]
    scores = empirical_costates(trained, rollout, torch.ones(2000), trained.blocks[1])[:, 2]
    advantages, cosines = rollout.rewards - rollout.rewards.mean(), []
    for _ in range(200):
        order = torch.randperm(2000, generator=generator)
        cosines.append(cosine(advantages[order].double() @ scores, exact))
    cosines = torch.tensor(cosines)
    assert abs(cosines.mean() / (cosines.std() / 200**0.5)) < 3
    assert cosine(advantages.double() @ scores, exact) > 0.8


def test_the_flipped_sign_is_seen(start):
    rollout, p, scores, exact = start
    assert cosine(p * -rollout.rewards @ scores, exact) == pytest.approx(-1)


def test_a_baseline_that_peeks_at_its_own_sample_is_seen(start):
    """The exact value *after* the first token, subtracted before it."""
    rollout, p, scores, exact = start
    seen = rollout.completions[:, 0]
    mass, hits = (p.new_zeros(13).index_add(0, seen, w) for w in (p, p * rollout.rewards))
    assert relative(p * (rollout.rewards - (hits / mass)[seen]) @ scores, exact) > 0.1


def test_dividing_by_the_own_length_is_seen(start):
    rollout, p, scores, exact = start
    lengths = rollout.mask.sum(1)
    for baseline in (0.0, 0.5):
        got = cosine(p * ((rollout.rewards - baseline) / lengths) @ scores, exact)
        assert got < 1 - 1e-4  # undivided it is 1 to twelve digits


def test_a_mask_one_token_short_is_seen(trained, env):
    """The stop left untrained: its term misses from the sum."""

    def stop_dropped(rollout, p):
        last = rollout.mask & ~torch.nn.functional.pad(rollout.mask[:, 1:], (0, 1))
        return rollout.rewards[:, None] * ~last

    got = expected_costate(trained, env, 9, "4", 1, stop_dropped)
    assert relative(got, truth(trained, env, 9, "4", 1)) > 0.01


# C3: what the advantage does, group-mates entering through a binomial.


@pytest.mark.parametrize(
    "baseline, scale", [("mean", "none"), ("leave-one-out", "none"), ("mean", "std")]
)
def test_group_advantages_scale_the_costate_and_do_not_turn_it(start, baseline, scale):
    rollout, p, scores, exact = start
    V = (p @ rollout.rewards.double()).item()
    advantages = partial(group_advantages, baseline=baseline, scale=scale)
    wrong, right = expected_advantages(V, G, advantages)
    factor = right - wrong
    advantages = wrong + (right - wrong) * rollout.rewards.double()
    assert relative(p * advantages @ scores, factor * exact) < 1e-10
    expected = {"mean": 1 - 1 / G, "leave-one-out": 1.0}[baseline]
    assert scale == "std" and factor > 1 or factor == pytest.approx(expected, rel=1e-12)


def test_the_std_factor_tends_to_one_over_the_rewards_std():
    V, factors = 0.3, {}
    for size in (4, 64, 512):
        wrong, right = expected_advantages(V, size, group_advantages)
        factors[size] = right - wrong
    limit = 1 / math.sqrt(V * (1 - V))
    assert factors[512] == pytest.approx(limit, rel=0.01)
    assert abs(factors[4] / limit - 1) > 0.05


def test_the_group_factor_by_sampled_groups(trained, env, generator):
    """Binomial shortcut beside 8,000 sampled groups: mean advantage of right and wrong, z < 4."""
    rollout = sample(trained, env, env.prompts[[9]], 8_000 * G, generator)
    rewards = rollout.rewards.double()
    advantages = group_advantages(rewards, G)
    means = expected_advantages(success(trained, env)[9].item(), G, group_advantages)
    for reward in (0, 1):
        some = advantages[rewards == reward]
        z = (some.mean() - means[reward]) / (some.std() / len(some) ** 0.5)
        assert abs(z) < 4


# C4: own logit and attention.


@pytest.mark.parametrize("target, text, layer", LATER)
def test_the_two_parts_are_the_terms_of_the_product_rule(trained, env, layer, target, text):
    prompt, prefix, here = env.prompts[target], env.encode(text), place(env, text)
    rollout, p = outcomes(trained, env, prompt, prefix)
    at = trained.stream[layer]
    own = p @ own_logit_costates(trained, rollout, rollout.rewards, at)[:, here]
    whole = p @ empirical_costates(trained, rollout, rollout.rewards, at)[:, here]

    delta = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    last = (torch.arange(here + 1) == here).double()[:, None]
    state = torch.cat([prompt, prefix])[None]
    with added(at, last * delta):
        policy_here = trained(state)[0][0, -1].softmax(0)
    first, second = torch.zeros(16).double(), torch.zeros(16).double()
    for v in range(13):
        nxt = torch.cat([prefix, torch.tensor([v])])
        (slope,) = torch.autograd.grad(policy_here[v], delta, retain_graph=True)
        if v == env.eos:
            answer = torch.full((1, 4), env.eos)
            answer[0, : len(prefix)] = prefix
            first += env.reward(prompt[None], answer)[0] * slope
            continue
        branch, q = outcomes(trained, env, prompt, nxt)
        first += (q @ branch.rewards.double()) * slope
        second += policy_here[v].detach() * value_gradient(trained, env, prompt, nxt, at, here)
    torch.testing.assert_close(own, first, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole - own, second, rtol=1e-9, atol=1e-12)
    share = attention_share(whole - own, whole) + attention_share(own, whole)
    assert share.item() == pytest.approx(1)


def test_nothing_is_transported_above_the_last_block(trained, env, generator):
    """Negative control of the attention share."""
    rollout = sample(trained, env, env.prompts, 2, generator)
    ones = torch.ones(len(rollout.rewards))
    for layer, at in enumerate(trained.stream):
        whole = empirical_costates(trained, rollout, ones, at)
        own = own_logit_costates(trained, rollout, ones, at)
        assert (whole == own).all() if layer == 2 else (whole - own).norm() > 0
        assert (own[:, :2] == 0).all()  # no own logit before the prompt's last token
        assert (whole[:, :2] == 0).all() == (layer == 2)


# C8: what loss.backward() itself leaves on the prompts' activations.


def left_by_backward(policy, prompts, rollout, advantages, aggregate="constant"):
    """−∂loss/∂x entering the first block at the prompts' tokens: (Q, P, D)."""
    with tap(policy.blocks[0], calls=2) as inputs:
        logprobs = completion_logprobs(policy, prompts, rollout.completions, rollout.group_size)
    loss, _ = clipped_surrogate(
        logprobs, logprobs.detach(), advantages, rollout.mask, aggregate=aggregate
    )
    loss.backward(inputs=inputs[:1])
    return -inputs[0].grad


def weighted_costates(policy, rollout, advantages, aggregate):
    """Σ_g λ̂ of each prompt's answers, times 1/(B·T), 1/Σ|y| or 1/(B·|y|): (Q, P, D)."""
    (B, T), lengths = rollout.mask.shape, rollout.mask.sum(1).double()
    factors = {
        "constant": torch.full_like(lengths, 1 / (B * T)),
        "token": torch.full_like(lengths, 1 / lengths.sum().item()),
        "sequence": 1 / (B * lengths),
    }
    costates = empirical_costates(policy, rollout, advantages, policy.blocks[0])[:, :3]
    weighted = factors[aggregate][:, None, None] * costates
    return weighted.unflatten(0, (-1, rollout.group_size)).sum(1)


@pytest.mark.parametrize("aggregate", ["constant", "token", "sequence"])
@pytest.mark.parametrize("kind", ["leave-one-out", "mean", "each token its own"])
def test_backward_leaves_the_sum_of_costates_times_a_known_factor(
    aggregate, kind, trained, env, generator
):
    prompts = env.prompts[[3, 9, 14]]
    rollout = sample(trained, env, prompts, 8, generator)
    if kind == "each token its own":
        advantages = torch.randn(rollout.mask.shape, generator=generator).double()
    else:
        advantages = group_advantages(rollout.rewards, 8, kind, "none")
    left = left_by_backward(trained, prompts, rollout, advantages, aggregate)
    expected = weighted_costates(trained, rollout, advantages, aggregate)
    assert left.shape == (3, 3, 16) and relative(left, expected) < 1e-12
    lengths = rollout.mask.sum(1)
    assert lengths.min() < lengths.max()  # so that the three factors are not one


def test_only_dividing_by_the_own_length_turns_what_is_left(trained, env, generator):
    rollout = sample(trained, env, env.prompts, 8, generator)
    advantages = group_advantages(rollout.rewards, 8, "leave-one-out", "none")
    constant, token, sequence = (
        weighted_costates(trained, rollout, advantages, each)
        for each in ("constant", "token", "sequence")
    )
    assert cosine(constant, token) == pytest.approx(1, abs=1e-12)
    assert cosine(constant, sequence) < 1 - 1e-4


def test_what_the_enumerated_success_leaves_is_the_value_gradient(trained, env):
    with tap(trained.blocks[0], calls=2) as inputs:
        loss = -success(trained, env).mean()
    loss.backward(inputs=inputs[:1])
    truth = value_gradients(trained, env, trained.blocks[0]) / len(env.prompts)
    assert relative(-inputs[0].grad, truth) < 1e-12


@pytest.mark.parametrize("kind", ["none", "leave-one-out", "mean", "shuffled"])
def test_the_mean_of_what_many_rollouts_leave_is_along_the_value_gradient(
    kind, trained, env, generator
):
    """1,000 rollouts at once. With shuffled rewards and the group's mean it is exactly 0: z < 4."""
    prompts, baseline = env.prompts[[11, 12, 13]], "mean" if kind == "shuffled" else kind
    truth = value_gradients(trained, env, trained.blocks[0], prompts)
    rollout = sample(trained, env, prompts.repeat(1000, 1), G, generator)
    rewards = rollout.rewards.view(1000, -1)
    if kind == "shuffled":  # over each rollout's whole batch
        rewards = rewards.gather(1, torch.rand(rewards.shape, generator=generator).argsort(1))
    advantages = group_advantages(rewards.flatten(), G, baseline, "none")
    left = left_by_backward(trained, prompts.repeat(1000, 1), rollout, advantages)
    left = left.unflatten(0, (1000, -1))
    products = (left * truth).flatten(1).sum(1)
    z = products.mean() / (products.std() / 1000**0.5)
    single = torch.tensor([cosine(each, truth) for each in left]).mean()
    if kind == "shuffled":
        assert abs(z) < 4
    else:
        assert z > 10 and cosine(left.mean(0), truth) > 0.98 and single < 0.8


def test_alignment_gives_cosine_and_length():
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert [x.item() for x in alignment(-a, b)] == pytest.approx([-1, 3])
    assert [x.item() for x in alignment(0 * a, b)] == [0, 0]
    assert alignment(a, 0 * b)[0].item() == 0


def test_bad_input_is_refused(policy, trained, env, generator):
    rollout = sample(trained, env, env.prompts[:2], 2, generator)
    with pytest.raises(ValueError, match="advantages must be .* not \\(3,\\)"):
        empirical_costates(trained, rollout, torch.ones(3), trained.norm)
    for costates in (empirical_costates, own_logit_costates):  # a block of another network
        with pytest.raises(ValueError, match="Block must be called .* not 0 times"):
            costates(trained, rollout, torch.ones(4), policy.blocks[0])
