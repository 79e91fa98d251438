"""Reinforcement learning of a tiny GPT, with the exact answer beside every estimate.

    python train.py                             the demonstration, about two minutes
    python train.py --method rloo               one method alone, half a minute
    python train.py --method ppo --steps 300    see --help

Asked `12=`, the GPT should write `9+3.` or `3+4+5.` There are 28 such prompts and 1,110 right
answers, few enough to list. So two things are exact here that are guesses elsewhere: how often the
policy is right, and the value gradient ∇V, the direction in which the prompts' activations would
have to move for it to be right more often. While the policy learns, we print the cosine between ∇V
and what loss.backward() has just left on those activations.

Left out on purpose: mini-batches within a rollout, an entropy bonus, an adaptive KL.
"""

import argparse
import copy
import json
import math
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path

import torch

from minicf.costate import alignment
from minicf.critic import Critic, value_loss
from minicf.env import SumGame
from minicf.exact import prefix_values, success, value_gradients
from minicf.gpt import GPT
from minicf.grpo import group_advantages, grpo_loss
from minicf.report import conclusions, draw
from minicf.ppo import gae
from minicf.pretrain import check_finite, pretrain
from minicf.readiness import measure
from minicf.rollout import completion_logprobs, sample
from minicf.tap import tap

# A method is three choices. What is an answer's reward compared with? What is the difference
# divided by? How are the tokens of all answers weighed? All else is equal: two updates a rollout, a
# ratio clipped at .2, one optimiser, one schedule.
METHODS = {
    "reinforce": dict(baseline="none", scale="none", aggregate="constant"),
    "rloo": dict(baseline="leave-one-out", scale="none", aggregate="constant"),
    "drgrpo": dict(baseline="mean", scale="none", aggregate="constant"),
    "grpo": dict(baseline="mean", scale="std", aggregate="sequence", kl_coef=0.001),
    "ppo": dict(baseline="critic", scale="std", aggregate="token"),
    "perfect": dict(baseline="perfect critic", scale="std", aggregate="token"),
}


def improve(
    policy, env, method, steps, generator, group_size=8, learning_rate=1e-3, prompts=None, log=None,
    *, loss=None, advantages=None, updates=2, warmup=10, evaluate_every=10,
):  # fmt: skip
    """Train the policy in place by reinforcement learning; return a history, a list of dicts.

    `method` names a row of METHODS, or is a row of your own, or "exact": ascent on the enumerated
    success. In place of the row's, loss(logprobs, old_logprobs, advantages, mask) may come from
    variants.py, and so may advantages(rewards, group_size).

    An entry of the history, at step 0 and every `evaluate_every` steps, has the exact `success` and
    the `cosine` (nan at step 0 and in a world without `solutions`), the rollout's mean `reward` and
    `entropy` (nats an answer), and what the loss reports. `log` is called with each entry.
    """
    choices = choices_of(method)
    counted = hasattr(env, "solutions")
    prompts = (env.prompts if prompts is None else prompts).to(next(policy.parameters()).device)
    compare = advantages or partial(
        group_advantages, baseline=choices["baseline"], scale=choices["scale"]
    )
    kl_coef = 0.0 if loss else choices.get("kl_coef", 0.0)
    surrogate = loss or partial(
        grpo_loss, kl_coef=kl_coef, aggregate=choices["aggregate"], length=env.completion_length
    )
    critic = Critic(policy) if choices["baseline"] == "critic" else None
    networks = [policy] if critic is None else [policy, critic]
    weights = [weight for network in networks for weight in network.parameters()]
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    reference = copy.deepcopy(policy).requires_grad_(False)
    history = [{"step": 0, "success": exact_success(policy, env, prompts), "cosine": math.nan}]
    for step in range(1, steps + 1):
        schedule = min(1, step / max(warmup, 1)) * (1 - (step - 1) / steps)  # up, then down to 0
        optimizer.param_groups[0]["lr"] = learning_rate * schedule
        evaluated = step % evaluate_every == 0 or step == steps
        if evaluated and counted:
            truth = value_gradients(policy, env, policy.blocks[0], prompts)  # ∇V: (Q, P, D)

        # 1. Write a group of answers to every prompt. The world rewards each of them.
        batch = sample(policy, env, prompts, group_size, generator)

        # 2. How much better than expected was each answer? Its group says what to expect ...
        if "critic" not in choices["baseline"]:
            advantage = compare(batch.rewards, group_size)  # (B,), one for each answer
        else:  # ... or a critic does, before every token.
            with torch.no_grad():
                if critic is not None:
                    values = critic(prompts, batch.completions, group_size)
                else:  # the perfect critic: the true values, by enumeration
                    values = prefix_values(policy, env, batch.prompts, batch.completions)
            advantage, returns = gae(batch.rewards, values, batch.mask)  # (B, T), for each token
            live = advantage[batch.mask]
            if choices["scale"] == "std":
                advantage = (advantage - live.mean()) / (live.std() + 1e-8)
        leash = {}
        if kl_coef > 0:  # to the policy that the run began with
            with torch.no_grad():
                leash["ref_logprobs"] = completion_logprobs(
                    reference, prompts, batch.completions, group_size
                )

        # 3. Make the better answers likelier and the worse ones less likely.
        for update in range(updates):
            with tap(policy.blocks[0]) as inputs:  # what enters the first block; changes nothing
                if method == "exact":  # no samples: differentiate the enumerated success
                    objective, stats = -success(policy, env, prompts).mean(), {}
                else:
                    logprobs = completion_logprobs(policy, prompts, batch.completions, group_size)
                    if update == 0:
                        old_logprobs = logprobs.detach()
                    objective, stats = surrogate(
                        logprobs, old_logprobs, advantage, batch.mask, **leash
                    )
            if critic is not None:
                objective = objective + 0.5 * value_loss(critic, batch, returns)
            optimizer.zero_grad()
            objective.backward()
            if update == 0:  # nobody asked for it: the backward pass just left −∂loss/∂x there
                left = -inputs[0].grad[:, : prompts.size(1)]
            for network in networks:
                norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                check_finite(f"step {step}", objective, norm)
            optimizer.step()

        if evaluated:
            entry = {"step": step, "success": exact_success(policy, env, prompts), "cosine": math.nan}
            if counted:
                entry["cosine"] = alignment(left.flatten(), truth.flatten())[0].item()
            entry["reward"] = batch.rewards.mean().item()
            entry["entropy"] = -batch.logprobs.sum(1).mean().item()
            entry.update({name: value.item() for name, value in stats.items()})
            history.append(entry)
            if log is not None:
                log(entry)
    return history


def choices_of(method):
    """The row of METHODS that a name stands for; a row of one's own is taken as it is."""
    if isinstance(method, dict):
        return method
    if method == "exact":
        return METHODS["reinforce"]  # what is sampled is not used
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)} or exact, not {method!r}")
    return METHODS[method]


def exact_success(policy, env, prompts):
    """Mean probability of a right answer, counted; nan in a world that cannot be counted."""
    if not hasattr(env, "solutions"):
        return math.nan
    with torch.no_grad():
        return success(policy, env, prompts).mean().item()


# The demonstration.


def pretrain_and_ask(policy, env, args, gains):
    """Pretraining with eight stops. At each: what would RL gain here, and what does it gain?"""
    print(" step   loss  success  signal  headroom  readiness" + "   gain" * gains)
    checkpoints = []

    def stop(step, loss):
        row = {"step": step, "loss": loss, **measure(policy, env)}
        line = f"{step:5}  {loss:5.3f}  {row['success']:7.3f}  {row['signal']:6.2f}"
        line += f"  {row['headroom']:8.2f}  {row['readiness']:9.2f}"
        if gains:
            row["gain"] = gain_of_short_run(policy, env, args)
            line += f"  {row['gain']:5.3f}"
        print(line, flush=True)
        checkpoints.append({**row, "weights": copy.deepcopy(policy.state_dict())})

    stops = [args.pretrain_steps * i // 8 for i in range(1, 9)]
    generator = torch.Generator().manual_seed(args.seed)
    pretrain(policy, env, args.pretrain_steps, generator, checkpoints=stops, at_checkpoint=stop)
    return checkpoints


def gain_of_short_run(policy, env, args, rollouts=20):
    """What a short, gentle GRPO run adds to exact success, mean of two; trains copies."""
    gains = []
    for seed in (0, 1):  # the same noise at every checkpoint
        trial, generator = copy.deepcopy(policy), torch.Generator().manual_seed(seed)
        history = improve(
            trial, env, "grpo", rollouts, generator, args.group_size, learning_rate=3e-4, warmup=5
        )
        gains.append(history[-1]["success"] - history[0]["success"])
    return sum(gains) / len(gains)


def write_answers(policy, env):
    """One answer to each of five prompts, always from the same noise; ✓ where it is right."""
    prompts = env.prompts[torch.linspace(1, len(env.prompts) - 2, 5).long()]
    batch = sample(policy, env, prompts, 1, torch.Generator().manual_seed(0))
    texts = []
    for prompt, tokens, live, reward in zip(prompts, batch.completions, batch.mask, batch.rewards):
        mark = " ✓" if reward == 1 else ""
        texts.append(env.decode(prompt) + env.decode(tokens[live]) + mark)
    return texts


def print_answers(policy, env):
    print("   " + "".join(text.ljust(14) for text in write_answers(policy, env)))


def print_entry(entry):
    print(f"{entry['step']:7}  {entry['success']:7.3f}  {entry['cosine']:6.2f}", flush=True)


def demonstrate(policy, env, args):
    """The story that the terminal tells; returns the report."""
    started = time.perf_counter()
    one_method, first = args.method is not None, args.method or "grpo"
    answers = sum(len(env.solutions(prompt)) for prompt in env.prompts)
    print(f"The world: {len(env.prompts)} prompts such as 12= and {answers:,} right answers.")

    print("\n1. Pretraining on right sums. When should RL take over? Where success rises steeply")
    print("(signal) and more samples would find more (headroom). Readiness is their product.")
    if not one_method:
        print("The gain is what a short GRPO run from there adds to success.")
    print()
    checkpoints = pretrain_and_ask(policy, env, args, gains=not one_method)
    early = [row for row in checkpoints if row["success"] <= 0.6] or checkpoints[:1]
    start = max(early, key=lambda row: row["readiness"])
    policy.load_state_dict(start["weights"])

    print(f"\n2. RL starts at step {start['step']}: of those with success up to .6, it is the")
    print("readiest. Five answers of that policy:\n")
    print_answers(policy, env)

    print(f"\n3. {first}: {args.steps} rollouts of {args.group_size} answers to every prompt. Cosine:")
    print("between ∇V and what loss.backward() left on the prompts' activations.\n")
    print("rollout  success  cosine")

    def run(policy, method, log=None):
        generator = torch.Generator().manual_seed(args.seed)
        steps, size = args.steps, args.group_size
        return improve(policy, env, method, steps, generator, size, args.learning_rate, log=log)

    beginning = copy.deepcopy(policy)
    histories = {first: run(policy, first, print_entry)}

    if not one_method:
        print("\n4. The same start and number of updates: the other methods, and the exact gradient\n")
        print("method      success at rollout 40   at the end   mean cosine")
        for method in [*METHODS, "exact"]:
            if method not in histories:
                histories[method] = run(copy.deepcopy(beginning), method)
            print(row_of_table(method, histories[method]), flush=True)

    print("\n5. The same five prompts after " + first + ", from the same noise:\n")
    print_answers(policy, env)
    return {
        "command": "python train.py " + " ".join(sys.argv[1:]),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "options": vars(args),
        "checkpoints": [{k: v for k, v in row.items() if k != "weights"} for row in checkpoints],
        "start": start["step"],
        "histories": histories,
        "seconds": time.perf_counter() - started,
    }


def row_of_table(method, history):
    """One line: success at rollout 40 and at the end, and the mean cosine along the run."""
    middle = next((entry["success"] for entry in history if entry["step"] == 40), math.nan)
    cosines = [entry["cosine"] for entry in history[1:]]
    cosine = sum(cosines) / len(cosines)
    return f"{method:10}  {middle:21.3f}   {history[-1]['success']:10.3f}   {cosine:11.2f}"


def parse(arguments):
    """The command line; what cannot be is said in one line, with status 2."""
    parser = argparse.ArgumentParser(
        prog="train.py", usage=argparse.SUPPRESS, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--method", choices=[*METHODS, "exact"], help="this method alone; default: the whole story")
    add("--seed", type=int, default=0)
    add("--steps", type=positive, default=140, help="rollouts; default 140")
    add("--group-size", type=positive, default=8, help="answers to each prompt; default 8")
    add("--learning-rate", type=float, default=1e-3, help="its peak; default .001")
    add("--pretrain-steps", type=positive, default=800, help="default 800, at least 8")
    add("--max-terms", type=positive, default=3, help="of a sum, 1 to 5; default 3")
    add("--d-model", type=positive, default=64, help="width, a multiple of 4; default 64")
    add("--device", default="auto", help="cpu, cuda or mps; auto: CUDA where there is one, or CPU")
    add("--out", default="runs/demo", help="folder for the results; default runs/demo")
    args = parser.parse_args(arguments)
    there = ["cpu", *["cuda"] * torch.cuda.is_available(), *["mps"] * torch.mps.is_available()]
    if args.device == "auto":
        args.device = "cuda" if "cuda" in there else "cpu"
    if args.device not in there:
        parser.error(f"--device {args.device} is not there; here are auto, {', '.join(there)}")
    if args.group_size < 2 and args.method not in ("reinforce", "ppo", "perfect", "exact"):
        parser.error("--group-size must be at least 2 where answers of a group are compared")
    if args.pretrain_steps < 8:
        parser.error("--pretrain-steps must be at least 8, the number of checkpoints")
    if not 0 < args.learning_rate < math.inf:
        parser.error(f"--learning-rate must be positive and finite, not {args.learning_rate}")
    return args


def positive(text):
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return int(text)


def save_whole(path, save):
    """Write a file by save(path): it appears whole or not at all."""
    half = path.with_name("half-" + path.name)
    save(half)
    os.replace(half, path)


def main(arguments=None):
    args = parse(arguments)
    sys.stdout.reconfigure(encoding="utf-8")  # ∇ and ✓ wherever the output goes
    torch.set_num_threads(1)  # quicker for tensors this small
    generator = torch.Generator().manual_seed(args.seed)
    try:
        env = SumGame(args.max_terms)
        policy = GPT.for_world(env, d_model=args.d_model, generator=generator).to(args.device)
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        return fail(2, error)
    try:
        report = demonstrate(policy, env, args)
    except FloatingPointError as error:
        save_whole(out / "policy.pt", partial(torch.save, policy.state_dict()))
        return fail(1, f"{error}; the weights before that are in {out / 'policy.pt'}")
    if args.method is None:
        report["conclusions"] = conclusions(report)
        print("\n6. What this run shows; another seed may say otherwise\n")
        print("\n".join(report["conclusions"]))
    text = json.dumps(report, indent=1)
    save_whole(out / "report.json", partial(Path.write_text, data=text, encoding="utf-8"))
    save_whole(out / "policy.pt", partial(torch.save, policy.state_dict()))
    save_whole(out / "figure.png", draw(report).savefig)
    print(f"\n{report['seconds']:.0f} s; report.json, policy.pt and figure.png are in {out}")


def fail(status, message):
    print(f"train.py: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(fail(130, "stopped"))
