"""The checks of lesson 04: are a learner's advantages and loop GRPO's, and if not, why not?

A loop is judged by the weights that it ends with. Only where these are wrong do we look at what
it gave to its loss and what its optimiser saw, to say in one sentence what to change.
"""

import copy
import inspect
from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kit import agree, answer, disabled
from minicf.costate import alignment
from minicf.env import World
from minicf.grpo import group_advantages, grpo_loss
from minicf.rollout import Rollout, completion_logprobs, sample

RATE = 0.1  # of plain gradient descent: large enough for ratios to leave 0.8 to 1.2
ROLLOUTS = 2


def usual_mistakes(rewards: Tensor, group_size: int) -> dict[str, Tensor]:
    """Wrong advantages (B,) of rewards (B,), by the sentence that says what was done wrong."""
    groups = rewards.view(-1, group_size)
    right = group_advantages(rewards, group_size)
    mixed = group_advantages(rewards.view(group_size, -1).T.flatten(), group_size)
    centred = groups - groups.mean(1, keepdim=True)
    std = groups.std(1, keepdim=True)
    return {
        "live groups get 0, as dead ones do; dead are only groups whose rewards are all equal, and "
        "a live group's std stays as it is, however small": 0 * right,
        "a live group gets 0, as a dead one does; dead are only groups whose rewards are all equal":
            torch.cat([right[:-group_size], 0 * right[-group_size:]]),
        "the first group gets 0, but it is live; dead are only groups whose rewards are all equal":
            torch.cat([0 * right[:group_size], right[group_size:]]),
        "answers to different prompts are compared: a group is `group_size` successive rows":
            mixed.view(-1, group_size).T.flatten(),
        "each group needs its own mean and std, not those of the whole batch":
            group_advantages(rewards, len(rewards)),
        "each group needs its own mean, not that of the whole batch": rewards - rewards.mean(),
        "the std is that of the whole batch; each group needs its own":
            (centred / rewards.std()).flatten(),
        "the mean is that of the whole batch; each group needs its own":
            ((groups - rewards.mean()) / std).flatten(),
        "it is divided by the variance; take its root, the std":
            (centred / std.square()).flatten(),
        "these are the bare rewards: nothing is compared": rewards,
        "the sign is wrong: a right answer must have a positive advantage": -right,
        "the mean is subtracted, but nothing is divided by the std": centred.flatten(),
        "the std has G below its squares, where G - 1 is asked":
            right * (group_size / (group_size - 1)) ** 0.5,
        "the mean is not subtracted": (groups / std).flatten(),
        "the sum of the group is subtracted, not its mean":
            ((groups - groups.sum(1, keepdim=True)) / std).flatten(),
        "mean and std go over the groups, dimension 0; they belong over dimension 1":
            ((groups - groups.mean(0)) / groups.std(0)).flatten(),
        "an answer's own reward is left out of the mean, as in lesson 02; GRPO leaves it in":
            right * group_size / (group_size - 1),
        "an epsilon of 1e-4 stands beside the std":
            (centred / (std + 1e-4)).flatten(),
        "an epsilon of 1e-6 stands beside the std, too large for rewards this close":
            (centred / (std + 1e-6)).flatten(),
        "a live group is taken for a dead one: first and last reward can be equal by chance":
            right.view(-1, group_size).masked_fill(groups[:, :1] == groups[:, -1:], 0).flatten(),
    }  # fmt: skip


def check_grpo_loop(
    learn: Callable, start: nn.Module, env: World, *refused: Callable, group_size: int, updates: int
) -> None:
    """Refuse a loop whose weights after two rollouts are not GRPO's; the message names the slip.

    learn(policy, env, optimizer, generator, rollouts, group_size, updates) trains in place. It
    calls `clipped_loss` of its notebook; the package functions `refused` raise meanwhile.
    """
    policy = copy.deepcopy(start)
    optimizer = WatchedDescent(policy.parameters())
    generator = torch.Generator().manual_seed(0)
    calls = []
    samples = []
    arguments = (policy, env, optimizer, generator, ROLLOUTS, group_size, updates)
    error = None
    noted = noted_calls(learn, "clipped_loss", calls), noted_calls(learn, "sample", samples)
    with noted[0], noted[1], disabled(*refused, trained):
        try:
            curve = answer(learn, *arguments)
        except AssertionError as stopped:
            if stopped.__cause__ is None:
                raise
            error = stopped  # one of Python's or PyTorch's, as a sentence
    name = learn.__name__
    moved = weights(policy) - weights(start)
    expected = weights(trained(start, env, group_size, updates)) - weights(start)
    assert expected.norm() > 0, "all groups of this policy are dead, so nothing can be checked"
    if error is None and (moved - expected).norm() <= 1e-3 * expected.norm():
        assert curve is not None, f"`{name}` returns None: is the last line, `return`, missing?"
        expected_points = ROLLOUTS + 1
        assert len(curve) == expected_points, (
            f"`{name}`: the curve has {len(curve)} numbers after {ROLLOUTS} rollouts, where "
            f"{expected_points} are asked: one before the first rollout and one after each"
        )
        assert optimizer.found, (
            f"`{name}` never steps the `optimizer` that it is given; do not make one of your own"
        )
        return
    batch = sample(start, env, env.prompts, group_size, torch.Generator().manual_seed(0))
    slip = slip_in_loss(calls, batch, updates, error) or slip_in_steps(optimizer, error, updates)
    if len(samples) > ROLLOUTS:
        slip = "`sample` is called more than once in a rollout: each batch serves all its updates"
    if slip is None and error is not None:
        raise error
    if slip is None:
        cosine, ratio = alignment(moved, expected)
        slip = f"the weights move with cosine {cosine:.2f} to what is expected, {ratio:.2f} as far"
        if cosine < -0.5:
            slip = "the weights move the opposite way: is a sign wrong? A loss is made smaller"
    raise AssertionError(f"`{name}`: {slip}") from error


def trained(start: nn.Module, env: World, group_size: int, updates: int) -> nn.Module:
    """A copy of `start` after what the loop should do."""
    policy = copy.deepcopy(start)
    optimizer = torch.optim.SGD(policy.parameters(), RATE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(ROLLOUTS):
        batch = sample(policy, env, env.prompts, group_size, generator)
        advantages = group_advantages(batch.rewards, group_size)
        for _ in range(updates):
            logprobs = completion_logprobs(policy, env.prompts, batch.completions, group_size)
            loss, _ = grpo_loss(logprobs, batch.logprobs, advantages, batch.mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return policy


def weights(policy: nn.Module) -> Tensor:
    """All weights as one vector, without gradient."""
    return torch.cat([weight.detach().flatten() for weight in policy.parameters()])


class WatchedDescent(torch.optim.SGD):
    """Plain gradient descent that counts its calls; `found` says which steps found a gradient."""

    def __init__(self, parameters):
        super().__init__(parameters, RATE)
        self.cleared = 0
        self.found = []

    def zero_grad(self, *arguments, **options):
        self.cleared += 1
        super().zero_grad(*arguments, **options)

    def step(self, closure=None):
        gradients = [weight.grad for weight in self.param_groups[0]["params"]]
        self.found.append(any(gradient is not None for gradient in gradients))
        return super().step(closure)


@contextmanager
def noted_calls(learn: Callable, name: str, calls: list):
    """Within the block, what a function of learn's notebook is given goes into `calls`, too."""
    scope = learn.__globals__
    assert name in scope, f"`{name}` is not defined: run the cell above that defines it"
    original = scope[name]

    def noting(*arguments, **options):
        calls.append(inspect.signature(original).bind(*arguments, **options).arguments)
        return original(*arguments, **options)

    scope[name] = noting
    try:
        yield
    finally:
        scope[name] = original


def slip_in_loss(
    calls: list, batch: Rollout, updates: int, error: AssertionError | None
) -> str | None:
    """What is wrong with the arguments of the loss; None where they are right or unknown.

    `batch` is the first rollout, `error` what stopped the loop.
    """
    if not calls:
        return None if error else "`clipped_loss` is never called: it makes the loss"
    first = calls[0]
    live = batch.mask
    if first["advantages"].requires_grad:
        return "the advantages carry a gradient: they are plain numbers, made of `batch.rewards`"
    if not first["logprobs"].requires_grad:
        return (
            "the log-probabilities in the ratio's numerator carry no gradient: take them with "
            "`completion_logprobs` in each update, without `.detach()` or `no_grad`"
        )
    slip = slip_in_advantages(first["advantages"], batch)
    if slip is not None:
        return slip
    new = first["logprobs"].detach()
    if new.shape == live.shape and not agree(new[live], batch.logprobs[live], 1e-3):
        return (
            "the log-probabilities in the ratio's numerator are not those of `policy`, the network "
            "that is trained, for this batch's answers"
        )
    old = first["old_logprobs"]
    if not torch.is_tensor(old) or old.shape != live.shape:
        return f"the old log-probabilities must be (B, T) = {tuple(live.shape)}, one for each token"
    if error is None and len(calls) != ROLLOUTS * updates:
        return (
            f"{len(calls)} losses in {ROLLOUTS} rollouts, where `updates` is {updates}: each "
            "rollout has to be used so many times"
        )
    if len(calls) > 1 and updates > 1:
        second = calls[1]
        if not agree(old.detach()[live], second["old_logprobs"].detach()[live], 1e-6):
            return (
                "the old log-probabilities are taken afresh at each update, so that every ratio is "
                "1: take them once, before the first update of a rollout"
            )
        if first["logprobs"] is second["logprobs"]:
            return (
                "the second update uses the log-probabilities of the first, though the weights "
                "have moved: call `completion_logprobs` inside the loop over updates"
            )
    if len(calls) > 2 and updates > 2:
        third = calls[2]["old_logprobs"]
        if not agree(old.detach()[live], third.detach()[live], 1e-6):
            return (
                "the old log-probabilities change from update to update: they stay those of the "
                "policy that wrote the answers"
            )
    if old.requires_grad:
        return (
            "the old log-probabilities carry a gradient, so that numerator and denominator of the "
            "ratio move together: add `.detach()`"
        )
    if not agree(old[live], batch.logprobs[live], 1e-3):
        return "the old log-probabilities are not those of the policy that wrote the answers"
    if not torch.equal(first["mask"], live):
        return "the mask is not `batch.mask`"
    if error is not None:
        return None
    later = calls[updates]  # the first of the second rollout
    if later["logprobs"].shape == later["old_logprobs"].shape:
        now = later["logprobs"].detach().masked_fill(~later["mask"], 0.0)
        before = later["old_logprobs"].detach().masked_fill(~later["mask"], 0.0)
        if not agree(now, before, 1e-3):
            return (
                "in the second rollout the old log-probabilities are not those of the policy that "
                "wrote its answers: take them in every rollout"
            )
    return None


def slip_in_advantages(advantages: Tensor, batch: Rollout) -> str | None:
    """What is wrong with the advantages of a batch, by their values; None where they are right."""
    rewards = batch.rewards
    size = batch.group_size
    if advantages.shape != rewards.shape:
        shapes = f"{tuple(rewards.shape)}, one for each answer, not {tuple(advantages.shape)}"
        return f"the advantages must be {shapes}"
    if agree(advantages, group_advantages(rewards, size), 1e-5):
        return None
    for mistake, value in usual_mistakes(rewards, size).items():
        if agree(advantages, value, 1e-5):
            return f"the advantages: {mistake}"
    for other in (size // 2, 2 * size):
        if other > 1 and len(rewards) % other == 0:
            if agree(advantages, group_advantages(rewards, other), 1e-5):
                return f"the advantages are those of groups of {other}: pass `group_size` on"
    return "the advantages are not those of `group_advantages(batch.rewards, group_size)`"


def slip_in_steps(
    optimizer: WatchedDescent, error: AssertionError | None, updates: int
) -> str | None:
    """What is wrong with the order of zero_grad, backward and step; None where nothing is."""
    steps = len(optimizer.found)
    if error is not None and "second time" in str(error):
        return (
            "`backward` is called twice on one graph: compute the log-probabilities and the loss "
            "anew in each update"
        )
    if error is not None and "inplace operation" in str(error):
        return (
            "the weights change between a loss and its `backward`: the order is `zero_grad`, "
            "`backward`, `step`"
        )
    if error is not None:
        return None
    if steps == 0:
        return "`optimizer.step()` is never called, so the weights stay as they are"
    if not any(optimizer.found):
        return (
            "`optimizer.step()` finds no gradient: `loss.backward()` is missing, or `zero_grad` "
            "comes between it and the step, or the loss is not one of `policy`"
        )
    if not optimizer.found[0]:
        return "the first step comes before the first `loss.backward()`"
    if steps != ROLLOUTS * updates:
        return (
            f"{steps} steps in {ROLLOUTS} rollouts, where `updates` is {updates}: each update is "
            "one `optimizer.step()`"
        )
    if optimizer.cleared < steps:
        return (
            f"`optimizer.zero_grad()` is called {optimizer.cleared} times for {steps} steps, so "
            "that gradients of several updates add up"
        )
    return None
