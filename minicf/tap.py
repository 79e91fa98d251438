"""A tap on the residual stream: read, or move, the activation that enters a module.

    with tap(policy.blocks[0]) as inputs:
        loss = loss_of(policy(tokens))
    loss.backward()
    inputs[0].grad                 # ∂loss/∂x: what the backward pass left on the activation x

It is a forward pre-hook, so any PyTorch model has taps and none needs to know of them. The gradient
is that of everything which flows *through the module*; for a block, whose residual connection lies
inside, that is everything.

Left out on purpose: outputs of modules, and inputs other than the first or `hidden_states`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn as nn
from torch import Tensor


@contextmanager
def tap(
    module: nn.Module, delta: Tensor | None = None, calls: int | None = None
) -> Iterator[list[Tensor]]:
    """Collect what enters `module` within the block, in call order, ready for autograd.

    Each is a tensor (…, D) that keeps its gradient: part of the graph, or a fresh leaf where
    nothing before the module has a gradient (a frozen model). torch.autograd.grad leaves a gradient
    there too, as backward does. `delta`, broadcast to (…, D), is added to the input of the first
    call. The hook is removed whatever happens in the block. Raises ValueError under no_grad, for an
    input that is not floating-point, for a delta that does not fit or under activation
    checkpointing, whose second forward pass would miss it, and at the end of the block if an input
    was overwritten in place, or if the module was called another number of times than `calls` (by
    default: never).
    """
    name = type(module).__name__
    inputs: list[Tensor] = []
    versions: list[int] = []

    def hook(_, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        x = args[0] if args else kwargs.get("hidden_states")
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"the input of {name} must be a floating-point tensor, not {kind}")
        if not torch.is_grad_enabled():
            raise ValueError(f"a tap on {name} needs gradients; it does not work under no_grad")
        x = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
        if delta is not None and not inputs:
            x = x + _fitted(delta, x)
        x.retain_grad()
        inputs.append(x)
        versions.append(x._version)
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": x})

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield inputs
    finally:
        handle.remove()
    if not inputs if calls is None else len(inputs) != calls:
        expected = "at least once" if calls is None else f"{calls} times"
        raise ValueError(f"{name} must be called {expected} within a tap, not {len(inputs)} times")
    if [x._version for x in inputs] != versions:
        raise ValueError(f"{name} overwrites its input in place, so that a tap shows another value")


def _fitted(delta: Tensor, x: Tensor) -> Tensor:
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda tracing: None)
    if hooks(True) is not None:  # torch.utils.checkpoint sets them around what it will run again
        raise ValueError("a delta does not work under activation checkpointing")
    try:
        return delta.to(x).expand_as(x)
    except RuntimeError:
        shapes = f"of shape {tuple(delta.shape)} does not broadcast to {tuple(x.shape)}"
        raise ValueError(f"a delta {shapes}") from None
