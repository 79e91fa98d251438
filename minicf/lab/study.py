"""The study: the questions that one seed cannot decide, over seeds.

* Does readiness rank checkpoints and pick one, exactly and from samples?        `ranks`
* When should RL start, if pretraining and RL share one budget?                  `switch`
* Is a critic worth having: none, a learned one, a perfect one?                  `critic`
* Does RL sharpen what the policy can do, or expand it?                          `reach`
* Does what RL teaches carry over to prompts that it never saw?                  `held_out`

Besides, the leaderboard, how far training's own backward pass is along ∇V with 8 and 64 samples a
prompt, and bias and noise of every method.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..env import SumGame
from ..exact import solution_probabilities, success, value_gradients
from ..readiness import measure
from ..training import METHODS, improve, pretrain
from .claims import starting_point
from .family import BASELINES, PROMPTS, enumerate_prompt, every_text, methods_table
from .policies import CORPORA, load_checkpoint, new_policy, small_policies
from .runner import (
    Units, draw, generator_of, identity, load, strict, study_digest, write_rows
)  # fmt: skip
from .answers import answers
from .statistics import ranking
from .tables import study_report

ALIGNED_METHODS = ("GRPO", "Dr. GRPO")
LARGE_GROUP = 64  # beside the group size of the leaderboard
SMALL_GROUP = 2  # beside it, where baselines are compared
SINGLE = ("batch mean", "learned critic", "exact critic, λ = .95")  # with 1 sample a prompt
SWITCHES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # of the budget, given to pretraining
SWITCH_CORPORA = ("clean", "wrong")
BATCH_SIZE = 128  # of pretraining, whose default it is
NARROW_METHODS = ("REINFORCE", "GRPO", "DAPO", "MaxRL")
DRAWS = tuple(2**i for i in range(0, 21, 2))  # the k of pass@k
HELD_OUT = 7  # prompts


# Units of work.


def critic_unit(config, name: str, step: int, baseline: str, group_size: int) -> dict:
    """RL from a clean checkpoint with one of BASELINES, always from the same noise."""
    policy, env = load_checkpoint(config, "clean", step)
    curve = improve(
        policy, env, BASELINES[baseline], config.rl_steps, generator_of(config, "critic"),
        group_size, config.learning_rate,
    )  # fmt: skip
    successes = [entry["success"] for entry in curve]
    row = {"seed": config.seed, "group_size": group_size, "method": baseline}
    row |= {"success": successes[-1], "area": sum(successes) / len(successes)}
    return {"row": row}


def noise_unit(config, name: str) -> dict:
    """Exact noise of each of BASELINES, on the small policies, by group size."""
    policies, env, generator = small_policies(config)
    prompts = env.prompts[PROMPTS[: config.counted]]
    texts, rows = every_text(env), []
    for step in (step for step in policies if step >= 100):
        policy = policies[step]
        each = [enumerate_prompt(policy, env, prompt, texts) for prompt in prompts]
        truth = value_gradients(policy, env, policy.blocks[0], prompts)
        for size in (config.group_size, SMALL_GROUP):
            some = methods_table(BASELINES, each, truth, size, generator, batches=1)
            kept = ("method", "cosine", "noise", "samples")
            rows += [{"seed": config.seed, "step": step, "group_size": size}
                     | {key: row[key] for key in kept} for row in some]  # fmt: skip
    return {"rows": rows}


def step_flops(config) -> tuple[float, float]:
    """Floating-point operations of a pretraining step, and of a rollout of GRPO with its updates.

    Counted once, for one sequence of full length that shares nothing, forward and backward.
    """
    env = SumGame(config.max_terms)
    policy = new_policy(config, env)
    tokens = env.prompts.new_zeros(1, env.prompt_length + env.completion_length - 1)
    with FlopCounterMode(display=False) as forward:
        logits, _ = policy(tokens.to(config.device))
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    once, back = forward.get_total_flops(), backward.get_total_flops()
    sequences = len(env.prompts) * config.group_size
    method = METHODS["GRPO"]
    passes = once + (once if method.kl_coef > 0 else 0)  # sampling, and scoring by the reference
    return BATCH_SIZE * (once + back), sequences * (passes + method.epochs * (once + back))


def rollouts_left(config, step: int) -> int:
    """Rollouts that the budget, that of config.pretrain_steps, allows after a step of pretraining.

    Raises ValueError for a step outside of it, or a budget too small for one rollout.
    """
    pretraining, rollout = step_flops(config)
    if config.pretrain_steps * pretraining < rollout:
        raise ValueError(
            f"--pretrain-steps {config.pretrain_steps} is a budget too small for one rollout, "
            f"which costs {rollout / pretraining:.1f} steps"
        )
    if not 1 <= step <= config.pretrain_steps:
        raise ValueError(f"the switch must be at step 1 to {config.pretrain_steps}, not {step}")
    return int((config.pretrain_steps - step) * pretraining / rollout)


def switch_unit(config, name: str, corpus: str, step: int) -> dict:
    """Pretraining whose schedule ends at `step`, then RL with what is left of the budget."""
    env = SumGame(config.max_terms)
    generator = generator_of(config, f"switch {corpus}")
    policy = new_policy(config, env, generator)
    pretrain(policy, env, step, generator, **CORPORA[corpus])
    row = {"seed": config.seed, "corpus": corpus, "step": step}
    row |= {"readiness": measure(policy, env)["readiness"]}
    row |= {"before": success(policy, env).mean().item()}
    rollouts = rollouts_left(config, step)
    if rollouts:
        improve(
            policy, env, "GRPO", rollouts, generator_of(config, f"switch RL {corpus}"),
            config.group_size, config.learning_rate, evaluate_every=rollouts,
        )  # fmt: skip
    row |= {"rollouts": rollouts, "success": success(policy, env).mean().item()}
    return {"row": row}


def held_out_unit(config, name: str, step: int) -> dict:
    """GRPO from a clean checkpoint on a random part of the prompts; success on the others."""
    policy, env = load_checkpoint(config, "clean", step)
    order = torch.randperm(len(env.prompts), generator=generator_of(config, "held out"))
    others, trained = order[:HELD_OUT].sort().values, order[HELD_OUT:].sort().values
    before = success(policy, env).tolist()
    curve = improve(
        policy, env, "GRPO", config.rl_steps, generator_of(config, name), config.group_size,
        config.learning_rate, prompts=env.prompts[trained],
    )  # fmt: skip
    after = success(policy, env).tolist()
    kept = [{key: e[key] for key in ("step", "success", "held_out")} for e in curve]
    prompts = [{"target": t, "before": before[t], "after": after[t]} for t in others.tolist()]
    row = {"seed": config.seed, "start": step, "largest": env.largest_target}
    return {"row": row | {"curve": kept, "prompts": prompts}}


@torch.no_grad()
def reach(policy, env: SumGame) -> dict[str, list[float]]:
    """Exact pass@k, and different right answers found in k samples, for each k of DRAWS; means over
    prompts, in float64 and without cancellation where probabilities are tiny."""
    p, rows = solution_probabilities(policy.double(), env)
    value = p.new_zeros(len(env.prompts)).index_add(0, rows, p).clamp(max=1 - 1e-15)

    def found(probability: torch.Tensor, k: int) -> torch.Tensor:
        return -torch.expm1(k * torch.log1p(-probability))

    passes = [found(value, k).mean().item() for k in DRAWS]
    answers = [found(p.clamp(max=1 - 1e-15), k).sum().item() / len(env.prompts) for k in DRAWS]
    return {"pass_at_k": passes, "coverage": answers}


# All of it.


def units_of_seed(config, entries: list[dict], story: dict[str, Callable]) -> dict[str, list]:
    """The units of one seed that follow its pretraining, by the part of the report they are for."""
    start = starting_point(entries)
    narrow = max((e for e in entries if e["corpus"] == "narrow"), key=lambda e: e["readiness"])
    clean = [entry["step"] for entry in entries if entry["corpus"] == "clean"]
    early, last = clean[max(len(clean) // 4 - 1, 0)], clean[-1]
    switches = sorted({max(1, round(share * last)) for share in SWITCHES})
    methods = story["method_units"]
    critics = [
        (config, f"critic {baseline} of {size}", critic_unit, start, baseline, size)
        for size in sorted({config.group_size, SMALL_GROUP, 1}, reverse=True)
        for baseline in (BASELINES if size > 1 else SINGLE)
    ]
    return {
        "family": [(config, "family", story["family_unit"])],
        "noise": [(config, "noise", noise_unit)],
        "large": methods(config, start, list(ALIGNED_METHODS), LARGE_GROUP),
        "leaderboard": methods(config, start, list(METHODS), config.group_size),
        "narrow": methods(config, narrow["step"], NARROW_METHODS, config.group_size, "narrow"),
        "critic": critics,
        "switch": [(config, f"switch {corpus} {step}", switch_unit, corpus, step)
                   for corpus in SWITCH_CORPORA for step in switches],
        "held_out": [(config, f"held out {step}", held_out_unit, step) for step in (early, last)],
        "gains": story["gain_units"](config, entries),
    }  # fmt: skip


def study(config, units: Units, **story: Callable) -> None:
    """All questions over `config.study` seeds; writes study.json and figures, prints the answers.

    `story` has the functions that train.py makes units with.
    """
    seeds = [replace(config, seed=config.seed + i) for i in range(config.study)]
    runs = iter(units.run([u for each in seeds for u in story["pretrain_units"](each, CORPORA)]))
    promised = [[e for _ in CORPORA for e in next(runs)["entries"]] for _ in seeds]
    todo = [units_of_seed(each, entries, story) for each, entries in zip(seeds, promised)]
    results = iter(units.run([unit for each in todo for part in each.values() for unit in part]))
    found = [{part: [next(results) for _ in each[part]] for part in each} for each in todo]
    units.pool.shutdown()

    report = {
        "command": f"python train.py --study {config.study} --seed {config.seed}",
        "config": identity(config), "digest": study_digest(), "draws": list(DRAWS),
        "checkpoints": [], "ranks": [], "leaderboard": [], "critic": [], "noise": [],
        "alignment": [], "reach": [], "held_out": [], "switch": [], "family": {},
    }  # fmt: skip
    for each, entries, parts in zip(seeds, promised, found):
        entries = [entry | gain for entry, gain in zip(entries, parts["gains"])]
        report["checkpoints"] += [{"seed": each.seed} | entry for entry in entries]
        report["ranks"].append(ranking(entries))
        rows = [part["row"] for part in parts["leaderboard"]]
        report["leaderboard"] += [slim(row, ("step", "success")) for row in rows]
        large = [part["row"] for part in parts["large"]]
        aligned = [row for row in rows + large if row["method"] in ALIGNED_METHODS]
        report["alignment"] += [slim(row, ("step", "success", "alignment")) for row in aligned]
        for part in ("critic", "switch", "held_out"):
            report[part] += [result["row"] for result in parts[part]]
        report["noise"] += parts["noise"][0]["rows"]
        report["reach"] += reach_rows(each, todo[seeds.index(each)])
        for key, some in parts["family"][0].items():
            report["family"].setdefault(key, [])
            report["family"][key] += [{"seed": each.seed} | row for row in some]
    report |= answers(report)
    stored = strict(report, digits=4)
    write_rows(Path(config.out, "study.json"), stored)
    draw(config.out, stored)
    print(study_report(report))


def reach_rows(config, parts: dict[str, list]) -> list[dict]:
    """What each method's final policy can reach, and what the one that it began with could."""
    rows, env = [], SumGame(config.max_terms)
    for part in ("leaderboard", "narrow"):
        corpus, step = parts[part][0][3:5]
        policy, _ = load_checkpoint(config, corpus, step)
        row = {"seed": config.seed, "corpus": corpus}
        rows.append(row | {"method": "before RL"} | reach(policy, env))
        for _, name, _, _, _, method, _ in parts[part]:
            policy = new_policy(config, env)
            policy.load_state_dict(load(config, name)["weights"])
            rows.append(row | {"method": method} | reach(policy, env))
    return rows


def slim(row: dict, kept: tuple[str, ...]) -> dict:
    """A leaderboard's row with only these keys of its curve, and no completions."""
    curve = [{key: entry[key] for key in kept if key in entry} for entry in row["curve"]]
    return {key: value for key, value in row.items() if key != "completions"} | {"curve": curve}


