"""minicf ("mini critic-free"): reinforcement learning of language models without a critic.

Read train.py first: it is the loop. Then env (the world), gpt (the policy), rollout (writing and
scoring answers), grpo and ppo (the losses), variants (relatives), critic, pretrain; exact (the
truth, by enumeration); tap, costate, bounds and control (what the backward pass leaves), and
readiness (when RL pays). console and picture are what train.py prints and draws.
"""

import torch

# PyTorch's vector mathematics on Intel processors picks its kernels on each function's first call;
# when several threads make that call at once, one may silently get a kernel of low accuracy
# (github.com/pytorch/pytorch/issues/188792). One small call of each, here, settles it.
for _dtype in (torch.float32, torch.float64):
    for _function in (
        torch.exp, torch.log, torch.sqrt, torch.sin, torch.cos, torch.tanh, torch.erf
    ):  # fmt: skip
        _function(torch.ones(1, dtype=_dtype))
