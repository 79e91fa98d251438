"""The tap beside a hook of the test's own, beside autograd and beside finite differences."""

import copy

import pytest
import torch
from conftest import added
from torch.utils.checkpoint import checkpoint

from minicf.rollout import completion_logprobs
from minicf.tap import tap

LAYERS = [0, 1, 2]


@pytest.fixture
def tokens(generator):
    return torch.randint(0, 13, (3, 5), generator=generator)


@pytest.fixture
def policy(policy):
    """One of its own, so that weights that collect gradients are nobody else's."""
    return copy.deepcopy(policy)


def loss_of(logits):
    """Some function of the logits that is not linear."""
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    return (weights * logits.log_softmax(-1)).square().sum()


def by_hand(policy, tokens, layer):
    """∂loss/∂x with x moved by a zero that has a gradient."""
    delta = torch.zeros(*tokens.shape, 16, dtype=torch.float64, requires_grad=True)
    with added(policy.stream[layer], delta):
        loss = loss_of(policy(tokens)[0])
    return torch.autograd.grad(loss, delta)[0]


def hooks(module):
    return len(module._forward_pre_hooks) + len(module._forward_pre_hooks_with_kwargs)


# What it reads.


@pytest.mark.parametrize("layer", LAYERS)
def test_the_gradient_is_there_after_backward_and_is_autograds(policy, tokens, layer):
    with tap(policy.stream[layer]) as inputs:
        loss = loss_of(policy(tokens)[0])
    loss.backward(retain_graph=True)
    left = inputs[0].grad.clone()
    (by_grad,) = torch.autograd.grad(loss, inputs)
    assert torch.equal(left, by_grad)
    torch.testing.assert_close(by_grad, by_hand(policy, tokens, layer), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layer", LAYERS)
def test_what_it_collects_is_the_activation(policy, tokens, layer):
    seen, at = [], policy.stream[layer]
    hook = at.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    policy(tokens)
    hook.remove()
    with tap(at) as inputs:
        policy(tokens)
    assert len(inputs) == 1 and torch.equal(inputs[0].detach(), seen[0])


@pytest.mark.parametrize("layer", LAYERS)
def test_the_gradient_against_finite_differences(policy, tokens, layer, generator):
    at, step = policy.stream[layer], 1e-6
    with tap(at) as inputs:
        loss_of(policy(tokens)[0]).backward()
    direction = torch.randn(inputs[0].shape, generator=generator).double()
    moved = []
    for sign in (1, -1):
        with tap(at, sign * step * direction):
            moved.append(loss_of(policy(tokens)[0]).item())
    slope = (moved[0] - moved[1]) / (2 * step)
    assert slope == pytest.approx((inputs[0].grad * direction).sum().item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_and_weights_gradients_are_the_same_to_the_bit(policy, tokens, dtype):
    policy, gradients, logits = policy.to(dtype), [], []
    for layer in (None, *LAYERS):
        policy.zero_grad()
        if layer is None:
            logits.append(policy(tokens)[0])
        else:
            with tap(policy.stream[layer]):
                logits.append(policy(tokens)[0])
        loss_of(logits[-1]).backward()
        gradients.append([weight.grad.clone() for weight in policy.parameters()])
    for other in range(1, 4):
        assert torch.equal(logits[other], logits[0])
        assert all(torch.equal(a, b) for a, b in zip(gradients[other], gradients[0]))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_frozen_model_has_a_fresh_leaf_with_the_right_gradient(policy, tokens, layer):
    expected = by_hand(policy, tokens, layer)
    policy.requires_grad_(False)
    with tap(policy.stream[layer]) as inputs:
        loss = loss_of(policy(tokens)[0])
    loss.backward()
    assert inputs[0].is_leaf
    torch.testing.assert_close(inputs[0].grad, expected, rtol=1e-12, atol=1e-14)
    assert all(weight.grad is None for weight in policy.parameters())


def test_a_frozen_activation_is_not_asked_for_a_gradient_itself(policy, tokens):
    """The leaf is the tap's own: the tensor that the caller passed in stays as it was."""
    policy.requires_grad_(False)
    x = policy.token_embedding(tokens)
    with tap(policy.norm) as inputs:
        policy.norm(x)
    assert inputs[0].requires_grad and not x.requires_grad


def test_taps_of_several_modules_and_of_one_module_twice(policy, tokens):
    alone = [by_hand(policy, tokens, layer) for layer in LAYERS]
    first, second, third = policy.stream
    with tap(first) as a, tap(second) as b, tap(third) as c, tap(first) as again:
        loss_of(policy(tokens)[0]).backward()
    for inputs, expected in zip((a, b, c, again), (*alone, alone[0])):
        torch.testing.assert_close(inputs[0].grad, expected, rtol=1e-12, atol=1e-14)


def test_a_submodule_sees_only_what_flows_through_it(policy, tokens):
    """The first norm of a block: the residual connection goes past it. With a block, it does not.

    What is left, the block's gradient minus the norm's, is what comes when the norm's way is cut.
    """
    block = policy.blocks[0]
    with tap(block) as whole, tap(block.norm1) as part:
        loss_of(policy(tokens)[0]).backward()
    cut = block.norm1.register_forward_pre_hook(lambda _, args: (args[0].detach(),))
    past = by_hand(policy, tokens, 0)
    cut.remove()
    torch.testing.assert_close(part[0].grad + past, whole[0].grad, rtol=1e-10, atol=1e-13)
    assert min(part[0].grad.norm(), past.norm()) > 0.01 * whole[0].grad.norm()


# What it adds.


@pytest.mark.parametrize("layer", LAYERS)
def test_delta_is_what_a_hook_of_the_tests_own_adds(policy, tokens, layer, generator):
    delta, at = torch.randn(5, 16, generator=generator).double(), policy.stream[layer]
    with added(at, delta):
        expected = policy(tokens)[0]
    with tap(at, delta) as inputs:
        got = policy(tokens)[0]
    assert torch.equal(got, expected) and not torch.equal(got, policy(tokens)[0])
    with tap(at) as before:
        policy(tokens)
    assert torch.equal(inputs[0], before[0] + delta)  # what enters the module, delta included


@pytest.mark.parametrize("shape", [(16,), (3, 16), (1, 3, 16), (2, 3, 16)])
def test_delta_is_added_to_the_first_call_only(policy, env, shape, generator):
    """Scoring a group calls the network twice: with the prompts (2, 3), with the rest (6, 3)."""
    prompts, completions = env.prompts[[4, 9]], torch.randint(0, 12, (6, 4), generator=generator)
    delta, at, calls = torch.randn(shape, generator=generator).double(), policy.blocks[1], []

    def add_once(_, args):
        calls.append(args[0].shape)
        return (args[0] + delta if len(calls) == 1 else args[0], *args[1:])

    hook = at.register_forward_pre_hook(add_once)
    expected = completion_logprobs(policy, prompts, completions, 3)
    hook.remove()
    with tap(at, delta, calls=2) as inputs:
        got = completion_logprobs(policy, prompts, completions, 3)
    assert torch.equal(got, expected)
    assert [x.shape for x in inputs] == calls == [(2, 3, 16), (6, 3, 16)]


def test_delta_has_a_gradient_of_its_own(policy, tokens):
    expected = by_hand(policy, tokens, 1)
    delta = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    with tap(policy.blocks[1], delta) as inputs:
        loss_of(policy(tokens)[0]).backward()
    torch.testing.assert_close(delta.grad, expected.sum((0, 1)), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(inputs[0].grad, expected, rtol=1e-12, atol=1e-14)


def test_delta_moves_a_frozen_model_too(policy, tokens, generator):
    delta = torch.randn(16, generator=generator).double()
    with tap(policy.norm, delta) as inputs:
        expected = policy(tokens)[0]
        loss_of(expected).backward()
    policy.requires_grad_(False)
    with tap(policy.norm, delta) as frozen:
        got = policy(tokens)[0]
        loss_of(got).backward()
    assert torch.equal(got, expected) and torch.equal(frozen[0].grad, inputs[0].grad)


# The input by keyword, as in Hugging Face's models.


class Scaled(torch.nn.Module):
    def forward(self, hidden_states, scale=1.0):
        return scale * hidden_states.square()


def test_the_input_may_come_as_the_keyword_hidden_states():
    module, x = Scaled(), torch.tensor([1.0, 2.0])
    with tap(module, torch.tensor(1.0)) as inputs:
        first = module(hidden_states=x, scale=3.0)
        second = module(x, scale=2.0)
    assert first.tolist() == [12, 27] and second.tolist() == [2, 8]
    (first.sum() + second.sum()).backward()
    assert [each.grad.tolist() for each in inputs] == [[12, 18], [4, 8]]


# The hook is gone afterwards, and what is wrong is said.


@pytest.mark.parametrize("layer", LAYERS)
def test_the_hook_is_removed(policy, tokens, layer):
    at = policy.stream[layer]
    with tap(at) as inputs:
        assert len(at._forward_pre_hooks) == 1
        policy(tokens)
    assert hooks(at) == 0
    policy(tokens)
    assert len(inputs) == 1


def test_the_hook_is_removed_when_the_body_raises_and_the_bodys_error_is_told(policy):
    with pytest.raises(KeyError, match="mine"):
        with tap(policy.norm):
            raise KeyError("mine")
    with pytest.raises(ValueError, match="do not fit a context"):
        with tap(policy.norm):
            policy(torch.zeros(1, 9, dtype=torch.long))
    assert hooks(policy.norm) == 0


def run(module, body, **options):
    """`body` within a tap."""
    with tap(module, **options):
        body()


REFUSED = {
    "never called": (
        lambda policy, call: run(policy.norm, lambda: None),
        "LayerNorm must be called at least once within .* tap, not 0 times",
    ),
    "never called, twice expected": (
        lambda policy, call: run(policy.norm, lambda: None, calls=2),
        "LayerNorm must be called 2 times within .* tap, not 0 times",
    ),
    "once too often": (
        lambda policy, call: run(policy.blocks[0], lambda: (call(), call()), calls=1),
        "Block must be called 1 times within .* tap, not 2 times",
    ),
    "once too little": (
        lambda policy, call: run(policy.blocks[0], call, calls=2),
        "Block must be called 2 times within .* tap, not 1 times",
    ),
    "no gradients": (
        lambda policy, call: run(policy.blocks[0], torch.no_grad()(call)),
        "a tap on Block needs gradients; .* under no_grad",
    ),
    "whole numbers": (
        lambda policy, call: run(policy.token_embedding, call),
        "the input of Embedding must be a floating-point tensor, not torch.int64",
    ),
    "a delta too wide": (
        lambda policy, call: run(policy.blocks[0], call, delta=torch.zeros(17)),
        r"a delta of shape \(17,\) does not broadcast to \(3, 5, 16\)",
    ),
    "a delta that would make the input larger": (
        lambda policy, call: run(policy.blocks[0], call, delta=torch.zeros(2, 3, 5, 16)),
        r"a delta of shape \(2, 3, 5, 16\) does not broadcast to \(3, 5, 16\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_tapped_is_refused_in_one_sentence(policy, tokens, case):
    call, says = REFUSED[case]
    with pytest.raises(ValueError, match=says) as error:
        call(policy, lambda: policy(tokens))
    assert len(str(error.value).splitlines()) == 1
    for module in policy.modules():
        assert hooks(module) == 0


class InPlace(torch.nn.Module):
    def forward(self, x):
        return x.mul_(2)


def test_an_input_that_is_overwritten_is_refused():
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match="InPlace overwrites its input in place"):
        with tap(module := InPlace()):
            module(x.clone())
    assert hooks(module) == 0


def test_under_checkpointing_the_gradient_is_right_and_a_delta_is_refused(policy, tokens):
    """The second forward pass, in backward, would miss what was added in the first."""

    def forward(tokens):
        return policy(tokens)[0]

    with tap(policy.blocks[1]) as inputs:
        loss = loss_of(checkpoint(forward, tokens, use_reentrant=False))
    loss.backward()
    expected = by_hand(policy, tokens, 1)
    torch.testing.assert_close(inputs[0].grad, expected, rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="a delta does not work under activation checkpointing"):
        with tap(policy.blocks[1], torch.ones(16)):
            checkpoint(forward, tokens, use_reentrant=False)
    assert hooks(policy.blocks[1]) == 0


@pytest.mark.parametrize("call", [lambda m: m(3.0), lambda m: m(hidden_states=None), lambda m: m()])
def test_an_input_that_is_no_tensor_is_refused(call):
    module = Scaled()
    with pytest.raises(ValueError, match="Scaled must be a floating-point .* (float|None)"):
        with tap(module):
            call(module)
    assert hooks(module) == 0
