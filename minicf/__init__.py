"""minicf ("mini critic-free"): why reinforcement learning of language models works with no critic.

Read in this order: env (the world), gpt (the policy), rollout (sampling and scoring), ppo and grpo
(the losses), exact (the truth by enumeration), training (the loops); then control, costate and
bounds (the backward pass) and readiness (when RL pays).
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
