"""The whole story in one command: python train.py

1. Pretrain a tiny GPT on a clean and on a narrow corpus of sums, keeping checkpoints.
2. Ask at each checkpoint what RL would gain (readiness), and measure what it does gain.
3. From the checkpoint that readiness picks, run every method, and compare what its own
   backward pass leaves on the prompts with the exact value gradient.
4. Audit the costates against enumerated value gradients, and count each method's bias and noise.

Each step is made of units of work, which run side by side and leave one file each; the same
command continues where it was stopped. `--study N` repeats over N seeds what one seed leaves open.
"""

import copy
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch

from minicf.env import SumGame
from minicf.exact import distinct_solutions, success
from minicf.lab.audit import audit, control
from minicf.lab.claims import claims, count_verdicts, starting_point, stored_study
from minicf.lab.family import PROMPTS, family
from minicf.lab.horizon import critics
from minicf.lab.policies import (
    AUDIT_STEPS, CORPORA, load_checkpoint, new_policy, small_policies, weights_of
)  # fmt: skip
from minicf.lab.runner import (
    Units, check_options, draw, generator_of, identity, option, parse, write_json
)  # fmt: skip
from minicf.lab.statistics import SAMPLES, ranking
from minicf.lab.study import rollouts_left, study
from minicf.lab.tables import counts_table, examples, print_report
from minicf.readiness import measure, sampled_readiness
from minicf.rollout import sample
from minicf.training import METHODS, improve, pretrain

GAIN_OPTIONS = {"learning_rate": 3e-4, "warmup": 5}  # of a short run: small steps, from checkpoints


@dataclass(frozen=True)
class Config:
    """The configuration, which is also the command line. Raises ValueError for a bad value."""

    out: str = option("runs/demo", "folder for the report, figures and checkpoints", run=True)
    fresh: bool = option(False, "delete an earlier run in --out and start over", run=True)
    jobs: int = option(os.cpu_count() or 1, "units of work to run side by side", least=1, run=True)
    device: str = option("auto", "auto, cpu, cuda or mps")
    seed: int = option(0, "seed of everything that is random", least=0)
    max_terms: int = option(3, "most terms of a sum, 1 to 5; sets the horizon", least=1)
    d_model: int = option(64, "width of the residual stream", least=1)
    n_layer: int = option(2, "number of blocks", least=1)
    n_head: int = option(4, "attention heads; must divide --d-model", least=1)
    pretrain_steps: int = option(800, "steps of each pretraining", least=1)
    checkpoints: int = option(8, "checkpoints kept along pretraining, evenly spaced", least=1)
    gain_steps: int = option(20, "rollouts of the short GRPO run that measures a gain", least=1)
    gain_seeds: int = option(2, "RL seeds of that run", least=1)
    rl_steps: int = option(140, "rollouts of a method in the leaderboard", least=1)
    group_size: int = option(8, "completions sampled per prompt and rollout", least=2)
    learning_rate: float = option(1e-3, "peak learning rate of RL", least=1e-9)
    audits: int = option(3, f"checkpoints to audit, the first of {AUDIT_STEPS}", least=1)
    counted: int = option(3, "prompts at which methods are counted exactly, at most 3", least=1)
    study: int = option(0, "seeds of the study, from --seed on; 0 runs the demonstration", least=0)
    verdicts: int = option(0, "seeds on which to count a run's verdicts, and nothing else", least=0)
    critics: int = option(0, "seeds on which to compare baselines, and nothing else", least=0)

    def __post_init__(self):
        check_options(self)
        if self.max_terms > 5:
            raise ValueError(f"--max-terms must be at most 5, not {self.max_terms}")
        if self.audits > len(AUDIT_STEPS):
            raise ValueError(f"--audits must be at most {len(AUDIT_STEPS)}, not {self.audits}")
        if self.counted > len(PROMPTS):
            raise ValueError(f"--counted must be at most {len(PROMPTS)}, not {self.counted}")
        if self.checkpoints > self.pretrain_steps:
            most = f"--pretrain-steps {self.pretrain_steps}"
            raise ValueError(f"--checkpoints must be at most {most}, not {self.checkpoints}")
        for name in ("study", "critics"):
            if getattr(self, name) == 1:
                raise ValueError(f"--{name} must be at least 2 to give an interval, not 1")
        if self.d_model % self.n_head:
            raise ValueError(f"--d-model {self.d_model} is not divisible by --n-head {self.n_head}")
        if self.study:
            rollouts_left(self, 1)  # refuses a budget too small for one rollout


FAST = dict(
    out="runs/fast", max_terms=2, d_model=32, pretrain_steps=200, checkpoints=4, gain_steps=10,
    gain_seeds=1, rl_steps=40, learning_rate=3e-3, audits=1, counted=1,
)  # fmt: skip


# Units of work: each takes the configuration and its own name, and returns what goes into its file.


def pretrain_unit(config: Config, name: str, corpus: str) -> dict:
    """Pretraining: losses, and at each checkpoint the weights and all that predicts a gain."""
    env = SumGame(config.max_terms)
    generator, draws = generator_of(config, name), generator_of(config, f"{name} asked")
    policy = new_policy(config, env, generator)
    entries, weights = [], {}

    def keep(step: int, loss: float) -> None:
        entry = {"corpus": corpus, "step": step, "loss": loss} | measure(policy, env)
        entries.append(entry | {"sampled": sampled(policy, env, draws)})
        weights[step] = weights_of(policy)

    steps, count = config.pretrain_steps, config.checkpoints
    grid = tuple(steps * (i + 1) // count for i in range(count))
    losses = pretrain(
        policy, env, steps, generator, checkpoints=grid, at_checkpoint=keep, **CORPORA[corpus]
    )
    return {"losses": losses, "entries": entries, "weights": weights}


def sampled(policy: torch.nn.Module, env: SumGame, generator: torch.Generator) -> dict:
    """Readiness as it can be had without enumerating, by completions a prompt."""
    rollouts = [sample(policy, env, env.prompts, size, generator) for size in SAMPLES]
    return {str(r.group_size): sampled_readiness(policy, env, r) for r in rollouts}


def gain_unit(config: Config, name: str, corpus: str, step: int) -> dict:
    """The real gain in exact success of a short GRPO run, and of as many more pretraining steps."""
    policy, env = load_checkpoint(config, corpus, step)
    before = success(policy, env).mean().item()
    steps = config.gain_steps
    gains = []
    for seed in range(config.gain_seeds):
        trial = copy.deepcopy(policy)
        generator = generator_of(config, f"gain {seed}")  # the same noise at every checkpoint
        history = improve(
            trial, env, "GRPO", steps, generator, config.group_size, evaluate_every=steps,
            **GAIN_OPTIONS,
        )  # fmt: skip
        gains.append(history[-1]["success"] - before)
    generator = generator_of(config, "more pretraining")
    pretrain(policy, env, steps, generator, **GAIN_OPTIONS, **CORPORA[corpus])
    more = success(policy, env).mean().item() - before
    return {"gain": sum(gains) / len(gains), "gains": gains, "more_pretraining": more}


def method_unit(
    config: Config, name: str, corpus: str, step: int, method: str, group_size: int
) -> dict:
    """A method from a checkpoint: its row of the leaderboard, and the final weights."""
    policy, env = load_checkpoint(config, corpus, step)
    before = examples(policy, env)
    curve = improve(
        policy, env, method, config.rl_steps, generator_of(config, name), group_size,
        config.learning_rate,
    )  # fmt: skip
    aligned = torch.tensor([entry["alignment"] for entry in curve[1:]])
    row = {"method": method, "seed": config.seed, "group_size": group_size, "curve": curve}
    row |= {"distinct": distinct_solutions(policy, env).mean().item()}
    row |= {"alignment": aligned.nanmean().item()}
    shown = ("success", "samples", "seconds", "entropy", "clip_fraction", "value_error")
    row |= {key: curve[-1][key] for key in shown if key in curve[-1]}
    row["completions"] = {"before": before, "after": examples(policy, env)}
    return {"row": row, "weights": weights_of(policy)}


def audit_unit(config: Config, name: str) -> dict:
    """The claims about costates (C1 to C5, C8)."""
    policies, env, generator = small_policies(config)
    return {"costates": audit(policies, env, generator), "control": control(generator)}


def family_unit(config: Config, name: str) -> dict:
    """Bias and noise of every method, stale data and the KL's place (C9), past the beginning."""
    policies, env, generator = small_policies(config)
    policies = {step: policies[step] for step in policies if step >= 100}
    return family(policies, env, PROMPTS[: config.counted], generator)


# The story.


def pretrain_units(config: Config, corpora: list[str]) -> list[tuple]:
    return [(config, f"pretrain {corpus}", pretrain_unit, corpus) for corpus in corpora]


def gain_units(config: Config, entries: list[dict]) -> list[tuple]:
    places = [(entry["corpus"], entry["step"]) for entry in entries]
    return [(config, f"gain {corpus} {step}", gain_unit, corpus, step) for corpus, step in places]


def method_units(
    config: Config, start: int, methods: list[str], size: int, corpus: str = "clean"
) -> list[tuple]:
    place = "" if corpus == "clean" else f"{corpus} "
    return [
        (config, f"{place}method {name} of {size}", method_unit, corpus, start, name, size)
        for name in methods
    ]


def main(arguments: list[str] | None = None) -> None:
    """Pretraining, readiness, every method, the audit; then the report, figures and claims."""
    started = time.perf_counter()
    config = parse(Config, __doc__, FAST, arguments)
    with Units(config) as units:
        if config.study:
            makers = dict(pretrain_units=pretrain_units, gain_units=gain_units)
            study(config, units, method_units=method_units, family_unit=family_unit, **makers)
            return
        if config.verdicts:
            print(counts_table(count_verdicts(config, units, audit_unit, family_unit)))
            return
        if config.critics:
            print(critics(config, units, pretrain_units))
            return
        world = SumGame(config.max_terms)
        answers = sum(len(world.solutions(prompt)) for prompt in world.prompts)
        print(f"World: {len(world.prompts)} prompts such as 12=, {answers:,} right answers in all.")

        print(f"\n1. Pretraining, {config.pretrain_steps} steps on a clean and on a narrow corpus")
        runs = units.run(pretrain_units(config, ["clean", "narrow"]))
        entries = [entry for run in runs for entry in run["entries"]]
        start = starting_point(entries)

        print(f"\n2. RL's gain at each checkpoint, 3. methods from step {start}, 4. exact checks")
        methods = method_units(config, start, list(METHODS), config.group_size)
        gains = gain_units(config, entries)
        first, last = (config, "family", family_unit), (config, "audit", audit_unit)
        relatives, *results = units.run([first, *methods, last, *gains])
        board = [result["row"] for result in results[: len(methods)]]
        audited, *gained = results[len(methods) :]
        units.pool.shutdown()  # the workers' memory is free for the figures
        entries = [entry | gain for entry, gain in zip(entries, gained)]

        report = {
            "config": identity(config),
            "versions": {"python": platform.python_version(), "torch": torch.__version__}
            | {"numpy": numpy.__version__},
            "seconds": time.perf_counter() - started,
            "pretraining": [{k: e[k] for k in ("corpus", "step", "loss", "success")}
                            for e in entries],
            "readiness": entries,
            "rank_correlation": ranking(entries),
            "leaderboard": board,
            "family": relatives,
            "costates": audited["costates"],
            "control": audited["control"],
        }  # fmt: skip
        stored, note = stored_study(report["config"])
        report["claims"] = claims(report, stored)
        write_json(Path(config.out, "report.json"), report)
        draw(config.out, report)
        print_report(report, note)
        print(f"\n{report['seconds']:.0f} s; report and figures in {config.out}")


if __name__ == "__main__":
    main()
