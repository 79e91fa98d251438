"""Readiness in your own TRL run: `ReadinessGRPOTrainer` in the place of TRL's `GRPOTrainer`.

TRL runs a copy of the prompt for every completion. Its backward pass leaves w·∇log π(completion) on
that copy's activations, and w on the log-probability of every live token: the same w, since the
ratio is 1. The quotient is the completion's score, whatever made w, and no pass is added. Logged:

    squared_signal  unbiased ‖∇V‖² at the prompt's activations entering the first block, mean over
                    prompts; one step is noisy and can be below 0, so average ten or more
    headroom        unbiased pass@k − pass@1, where k is the smaller of 16 and num_generations
    readiness       √squared_signal · headroom, of the two means in the same line of the log

Rewards must be 0 and 1; V is their mean at the run's temperature. Dropout must be off. The scores
of a prompt, G × P × D floats, are kept until they are logged. For a large model let `row_scores`
return less: `super().row_scores(x, logprobs)[:, -1:]`, whose signal is that of the last position
alone, or `… @ R` with R (D, K) drawn once from N(0, 1/K), whose signal is the same to 1/√(2K).
"""

import torch
import torch.nn as nn
from torch import Tensor
from trl import GRPOTrainer

from .readiness import pass_at_k, squared_signal
from .tap import tap

NEEDED = {  # otherwise w differs between tokens, a live score is lost, or π is not what sampled
    "beta": 0.0, "entropy_coef": 0.0, "use_adaptive_entropy": False, "top_entropy_quantile": 1.0,
    "mask_truncated_completions": False, "off_policy_mask_threshold": None,
    "multi_objective_aggregation": "sum_then_normalize",
    "top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0,
}  # fmt: skip


class ReadinessGRPOTrainer(GRPOTrainer):
    """GRPOTrainer for rewards of 0 and 1 that also logs squared_signal, headroom and readiness."""

    def __init__(self, model, reward_funcs, args, *rest, **options):
        for name, value in NEEDED.items():
            if getattr(args, name) != value:
                raise ValueError(f"the probe needs {name}={value!r}, not {getattr(args, name)!r}")
        if args.use_vllm and args.vllm_importance_sampling_correction:
            raise ValueError("the probe needs vllm_importance_sampling_correction=False")
        if args.gradient_accumulation_steps % args.steps_per_generation:
            raise ValueError("steps_per_generation must divide gradient_accumulation_steps")
        if args.num_generations < 3:
            raise ValueError(f"num_generations must be at least 3, not {args.num_generations}")
        super().__init__(model, reward_funcs, args, *rest, **options)
        if self.aux_loss_enabled or self._is_vlm:
            raise ValueError("the probe needs a text model and router_aux_loss_coef=0.0")
        self._scores = None  # a list of tensors, from a rollout until its numbers are logged

    def _calculate_rewards(self, *args):
        rewards = super()._calculate_rewards(*args)  # (rows of all processes, functions)
        self._rewards = (rewards * self.reward_weights.to(rewards.device)).sum(1)
        if not ((self._rewards == 0) | (self._rewards == 1)).all():
            raise ValueError("the probe needs rewards of 0 and 1")
        return rewards

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        if self.model.training:
            first = self.accelerator.process_index * len(inputs)
            rows = torch.arange(first, first + len(inputs), device=self._rewards.device)
            batch["row"] = rows  # the place in self._rewards, which TRL will shuffle along
            self._scores = []
        return batch

    def _get_per_token_logps_and_entropies(self, model, *args, **options):
        forward = super()._get_per_token_logps_and_entropies
        if self._scores is None or not torch.is_grad_enabled():
            return forward(model, *args, **options)
        blocks = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
        with tap(blocks[0], calls=1) as activations:
            outputs = forward(model, *args, **options)
        outputs[0].retain_grad()  # log-probabilities (B, T)
        self._tapped = (activations[0], outputs[0])
        return outputs

    def training_step(self, *args, **options):
        """TRL's own step; then what its backward pass has just left is read."""
        loss = super().training_step(*args, **options)
        if self._scores is not None:
            self._scores.append(self.row_scores(*self._tapped))
            if len(self._scores) == self.args.steps_per_generation:
                self._add_metrics()
        return loss

    def row_scores(self, x: Tensor, logprobs: Tensor) -> Tensor:
        """Scores (B, P, D), padded on the left, from .grad of x (B, P+T, D), logprobs (B, T)."""
        token_weights = logprobs.grad  # of dead tokens, and of groups of equal rewards: 0
        weights = token_weights.sum(1) / (token_weights != 0).sum(1).clamp(min=1)
        weights = weights.masked_fill(weights == 0, 1.0)
        prompt = x.grad[:, : x.size(1) - logprobs.size(1)].float()
        return prompt / weights[:, None, None]

    def _add_metrics(self):
        G = self.num_generations
        gather = self.accelerator.gather  # a group may lie across processes
        rows = gather(torch.cat([batch["row"] for batch in self._buffered_inputs]))
        scores = self.accelerator.pad_across_processes(torch.cat(self._scores), 1, pad_first=True)
        scores = gather(scores)[rows.argsort()].flatten(1)
        groups = zip(scores.split(G), self._rewards.split(G), strict=True)
        square = torch.stack([squared_signal(*group) for group in groups]).mean()
        correct = self._rewards.view(-1, G).sum(1)
        reach = pass_at_k(correct, G, min(16, G)).mean().item() - self._rewards.mean().item()
        metrics = self._metrics["train"]
        metrics["squared_signal"].append(square.item())
        metrics["headroom"].append(reach)
        signal = max(sum(metrics["squared_signal"]) / len(metrics["squared_signal"]), 0.0) ** 0.5
        metrics["readiness"] = [signal * sum(metrics["headroom"]) / len(metrics["headroom"])]
        self._scores = None
