"""How long a GRPO step takes and where the time goes: python -m minicf.lab.bench

One step samples 32 × 8 completions, scores them and makes one update. Times are medians over
repeats with the spread of the middle half. No step is faster than its matrix products: `products`
is the time of these alone, run again one after the other at their own shapes, and `share` how much
of the step that is. `peak` is the share if they ran at the rate of one large product, which small
ones never do.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..env import SumGame
from ..gpt import GPT
from ..grpo import group_advantages, grpo_loss
from ..rollout import completion_logprobs, sample
from ..training import optimizer_for, pretrain

PROMPTS = 32


def milliseconds(function: Callable[[], object], repeats: int = 21) -> tuple[float, float]:
    """Median time of a call, and the spread between first and third quartile, after a warm-up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    first, median, third = statistics.quantiles(times, n=4)
    return median, third - first


def matmul_rate(size: int = 1024) -> float:
    """Floating-point operations per millisecond of one product of two square matrices."""
    a = torch.randn(size, size)
    return 2 * size**3 / milliseconds(lambda: a @ a)[0]


class Products(TorchDispatchMode):
    """Collects the matrix products of what runs within the block, to `repeat` them alone."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            self.calls.append((function, args))
        return function(*args, **(kwargs or {}))

    @torch.no_grad()
    def repeat(self) -> None:
        """Run the collected products again, one after the other."""
        for function, args in self.calls:
            function(*args)


def measure(
    policy_steps: int = 300, group_size: int = 8, d_model: int = 64, max_terms: int = 3
) -> dict[str, float]:
    """Times (ms) of a step, its parts and its matrix products alone; its tokens and its flops.

    The policy is pretrained for `policy_steps`, since completions that stop early, and those that
    came twice, save work: a policy that writes at random gives neither.
    """
    env, generator = SumGame(max_terms), torch.Generator().manual_seed(0)
    policy = GPT.for_world(env, d_model=d_model, generator=generator)
    if policy_steps:
        pretrain(policy, env, policy_steps, generator)
    prompts = env.prompts[torch.arange(PROMPTS) % len(env.prompts)]
    optimizer = optimizer_for([policy], 1e-9, weight_decay=0.0)
    rollout = sample(policy, env, prompts, group_size, generator)
    advantages = group_advantages(rollout.rewards, group_size)

    def score() -> torch.Tensor:
        return completion_logprobs(policy, prompts, rollout.completions, group_size)

    def update(logprobs: Callable[[], torch.Tensor] = score) -> None:
        loss, _ = grpo_loss(logprobs(), rollout.logprobs, advantages, rollout.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def step() -> None:
        sample(policy, env, prompts, group_size, generator)
        update()

    with FlopCounterMode(display=False) as counter, Products() as products:
        step()
    result = {"flops": counter.get_total_flops(), "tokens": rollout.completions.numel()}
    parts = {"sampling": lambda: sample(policy, env, prompts, group_size, generator)}
    parts |= {"scoring": torch.no_grad()(score), "update": update, "step": step}
    parts["products"] = products.repeat
    parts["row by row"] = lambda: update(
        lambda: completion_logprobs(policy, rollout.prompts, rollout.completions)
    )
    for name, function in parts.items():
        result[name], result[f"{name} spread"] = milliseconds(function)
    return result


def main() -> None:
    """Print the split of one step by threads, and its growth with group size, width and horizon."""
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rate = matmul_rate()
        print(f"{threads} threads, {rate / 1e6:.0f} GFLOP/s on a product of 1024 × 1024")
        base = measure()
        for name in ("sampling", "scoring", "update", "step", "row by row"):
            print(f"{name:11}{base[name]:8.1f} ms  ± {base[f'{name} spread'] / 2:.1f}")
    print("(scoring is one pass without gradient, the update has it with gradient; row by row is")
    print("an update that runs each prompt and each text as often as it comes)\n")
    print("steps group width terms      ms   tokens/s products  share  peak")
    shapes = [{}, {"policy_steps": 0}, *({"group_size": size} for size in (2, 32, 128))]
    shapes += [{"d_model": 32}, {"d_model": 128}, {"max_terms": 2}, {"max_terms": 4}]
    for changes in shapes:
        shape = {"policy_steps": 300, "group_size": 8, "d_model": 64, "max_terms": 3} | changes
        row = measure(**shape)
        ms, products = row["step"], row["products"]
        print("{policy_steps:5}{group_size:6}{d_model:6}{max_terms:6}".format(**shape), end="")
        print(f"{ms:8.1f}{1000 * row['tokens'] / ms:11,.0f}{products:9.1f}", end="")
        print(f"{products / ms:7.2f}{row['flops'] / rate / ms:6.2f}")


if __name__ == "__main__":
    main()
