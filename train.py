"""Reinforcement learning of a tiny GPT, with the exact answer beside every estimate.

    python train.py                             the demonstration, about two minutes
    python train.py --method rloo               one method alone, half a minute

Asked `12=`, the GPT should write `9+3.` or `3+4+5.` There are 28 such prompts and 1,110 right
answers, few enough to list. So two things are exact here that are guesses elsewhere: V, how often
the policy is right, and the value gradient ∇V, the direction in which a prompt's activations would
have to move for it to be right more often. While the policy learns, we print the cosine between ∇V
and what loss.backward() has just left on those activations.

Left out on purpose: mini-batches within a rollout, an entropy bonus, an adaptive KL.
"""

import copy
import math
import sys
import time
from functools import partial

import torch
from torch.nn.utils import clip_grad_norm_

from minicf.costate import alignment
from minicf.console import (
    conclusions, fail, parse, print_answers, print_checkpoint, print_entry, print_method,
    print_opening, print_utf8, save_run, save_weights,
)  # fmt: skip
from minicf.critic import Critic, value_loss
from minicf.env import SumGame, check_world
from minicf.exact import prefix_values, success, value_gradients
from minicf.gpt import GPT
from minicf.grpo import group_advantages, grpo_loss
from minicf.ppo import gae
from minicf.pretrain import BETAS, check_finite, pretrain
from minicf.readiness import measure
from minicf.rollout import check_sampled, completion_logprobs, sample
from minicf.tap import tap

# A method is three choices: what a reward is compared with (baseline), what the difference is
# divided by (scale), how all answers' tokens are weighed (ppo.aggregate_tokens). GRPO adds a KL to
# the start; the last two have a critic, which gives each token an advantage. All else is equal:
# two updates a rollout, a ratio clipped at .2, one optimiser, one schedule.
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

    `method` names a row of METHODS, or is such a row, or "exact": ascent on the enumerated success.
    `loss`, a function as those of variants.py, replaces the row's loss with its KL, and
    advantages(rewards, group_size) -> (B,) its baseline, scale and critic.

    Every `evaluate_every` steps the history has the exact `success` after the step, the `cosine` at
    the weights before it, its rollout's mean `reward` and `entropy` (nats an answer), and what the
    loss reports. The first two are nan in a world without `solutions`. log(entry) is called too.
    """
    choices = choices_of(method, env)
    prompts = (env.prompts if prompts is None else prompts).to(next(policy.parameters()).device)
    if advantages is None:
        baseline = choices["baseline"]
        scale = choices["scale"]
        advantages = partial(group_advantages, baseline=baseline, scale=scale)
    else:
        choices = {**choices, "baseline": "given"}  # in place of the row's, or of its critic
    reference = None
    if loss is None:
        loss = partial(grpo_loss, aggregate=choices["aggregate"], length=env.completion_length)
        reference = copy.deepcopy(policy) if "kl_coef" in choices else None
    critic = Critic(policy) if choices["baseline"] == "critic" else None
    networks = [policy] if critic is None else [policy, critic]
    optimizer = torch.optim.AdamW(trainable(networks), betas=BETAS, weight_decay=0.0, fused=True)
    history = [{"step": 0, "success": exact_success(policy, env, prompts)}]
    for step in range(1, steps + 1):
        schedule = min(1, step / max(warmup, 1)) * (1 - (step - 1) / steps)  # up, then down to 0
        optimizer.param_groups[0]["lr"] = learning_rate * schedule
        evaluated = step % evaluate_every == 0 or step == steps
        if evaluated:
            truth = exact_gradients(policy, env, prompts)  # ∇V: (Q, P, D)

        # 1. Write a group of answers to each of Q prompts, B in all. The world rewards each answer.
        batch = sample(policy, env, prompts, group_size, generator)
        answers = (prompts, batch.completions, group_size)

        # 2. How much better than expected was each answer? Its group says what to expect ...
        if "critic" not in choices["baseline"]:
            advantage = advantages(batch.rewards, group_size)  # (B,), one for each answer
        else:  # ... or a critic does, before every token.
            with torch.no_grad():
                if critic is not None:
                    values = critic(*answers)
                else:  # the perfect critic: the true values, by enumeration
                    values = prefix_values(policy, env, batch.prompts, batch.completions)
            advantage, returns = gae(batch.rewards, values, batch.mask)  # (B, T), for each token
            live = advantage[batch.mask]
            if choices["scale"] == "std" and len(live) > 1:
                advantage = (advantage - live.mean()) / (live.std() + 1e-8)
        surrogate = loss
        if reference is not None:  # a leash to the policy that the run began with
            with torch.no_grad():
                ref_logprobs = completion_logprobs(reference, *answers)
            surrogate = partial(loss, ref_logprobs=ref_logprobs, kl_coef=choices["kl_coef"])

        # 3. Make the better answers likelier and the worse ones less likely.
        for update in range(updates):
            with tap(policy.blocks[0]) as inputs:  # what enters the first block, with its gradient
                if method == "exact":  # no samples: differentiate the enumerated success
                    objective = -success(policy, env, prompts).mean()
                    stats = {}
                else:
                    logprobs = completion_logprobs(policy, *answers)
                    if update == 0:
                        old_logprobs = logprobs.detach()
                        check_sampled(batch, old_logprobs)
                    objective, stats = surrogate(logprobs, old_logprobs, advantage, batch.mask)
            if critic is not None:
                objective = objective + 0.5 * value_loss(critic, batch, returns)
            optimizer.zero_grad()
            objective.backward()
            if update == 0:  # the tap kept what backward left there, ∂objective/∂x; uphill is minus
                uphill = -inputs[0].grad[:, : prompts.size(1)]  # (Q, P, D), at the prompts' tokens
            for network in networks:
                check_finite(f"step {step}", objective, clip_grad_norm_(network.parameters(), 1.0))
            optimizer.step()

        if evaluated:
            entry = {"step": step, "success": exact_success(policy, env, prompts)}
            entry["cosine"] = alignment(uphill.flatten(), truth.flatten())[0].item()
            entry["reward"] = batch.rewards.mean().item()
            entry["entropy"] = -batch.logprobs.sum(1).mean().item()
            entry.update({name: value.item() for name, value in stats.items()})
            history.append(entry)
            if log is not None:
                log(entry)
    return history


def choices_of(method, env):
    """The row of METHODS that a name stands for; a row of one's own is taken as it is."""
    rows = {**METHODS, "exact": METHODS["reinforce"]}  # exact draws answers, but does not use them
    if not isinstance(method, dict) and method not in rows:
        raise ValueError(f"method must be one of {', '.join(rows)}, not {method!r}")
    choices = method if isinstance(method, dict) else rows[method]
    if method == "exact" or choices["baseline"] == "perfect critic":
        check_world(env, "solutions")  # it has to count
    return choices


def trainable(networks):
    """The weights of the networks; ValueError where the first, the policy, has none to train."""
    if not any(weight.requires_grad for weight in networks[0].parameters()):
        raise ValueError("the policy has no weight that requires a gradient, so nothing can learn")
    return torch.nn.ModuleList(networks).parameters()


def exact_success(policy, env, prompts):
    """The mean probability of a right answer, counted; nan in a world that cannot be counted."""
    if not hasattr(env, "solutions"):
        return math.nan
    with torch.no_grad():
        return success(policy, env, prompts).mean().item()


def exact_gradients(policy, env, prompts):
    """∇V (Q, P, D) entering the first block, counted; nan in a world that cannot be counted."""
    if not hasattr(env, "solutions"):
        return torch.tensor(math.nan)
    return value_gradients(policy, env, policy.blocks[0], prompts)


def demonstrate(policy, env, args):
    """The story that the terminal tells; returns its numbers."""
    whole_story = args.method is None
    first = args.method or "grpo"
    print_opening(env, whole_story)
    checkpoints = pretrain_and_measure(policy, env, args, gains=whole_story)
    early = [row for row in checkpoints if row["success"] <= 0.6] or checkpoints[:1]
    start = max(early, key=lambda row: row["readiness"])
    policy.load_state_dict(start["weights"])
    for row in checkpoints:
        del row["weights"]

    print(f"\n2. RL starts from step {start['step']}: the highest readiness among checkpoints with")
    print("a success of at most .6, so that RL has something left to do. Two answers to each of")
    print("five prompts (✓: right):\n")
    print_answers(policy, env)

    def run(policy, method, log=None):  # every method starts from the same weights and noise
        generator = torch.Generator().manual_seed(args.seed)
        steps = args.steps
        size = args.group_size
        return improve(policy, env, method, steps, generator, size, args.learning_rate, log=log)

    print(
        f"\n3. {first}: {args.steps} rollouts, each of {args.group_size} answers to every prompt."
    )
    print("Success is counted after a rollout's updates. Cosine is that between ∇V and what")
    print("loss.backward() left on the prompts' activations, both before these updates; that of")
    print("one rollout is noisy, and can be below 0.\n")
    print("rollout  success  cosine")
    beginning = copy.deepcopy(policy)
    histories = {first: run(policy, first, log=print_entry)}

    if whole_story:
        print("\n4. The other methods from the same start, with as many updates. ppo has a learned")
        print("critic; perfect differs from it only in that its critic knows every value. exact is")
        print("ascent on the success itself.\n")
        print("method     success: along the run  at the end    cosine: along the run")
        for method in [*METHODS, "exact"]:
            if method not in histories:
                histories[method] = run(copy.deepcopy(beginning), method)
            print_method(method, histories[method])

    print(f"\n5. After {first}, the same five prompts and the same noise in sampling:\n")
    print_answers(policy, env)
    return {"checkpoints": checkpoints, "start": start["step"], "histories": histories}


def pretrain_and_measure(policy, env, args, gains):
    """Pretrain in place; at each of eight checkpoints print a row, and keep it with the weights."""
    print("\n step   loss  success  signal  headroom  readiness" + ("    gain" if gains else ""))
    checkpoints = []

    def measure_and_keep(step, loss):
        row = {"step": step, "loss": loss, **measure(policy, env)}
        if gains:
            row["gain"] = gain_of_short_run(policy, env, args.group_size)
        print_checkpoint(row)
        checkpoints.append({**row, "weights": copy.deepcopy(policy.state_dict())})

    steps = [args.pretrain_steps * i // 8 for i in range(1, 9)]
    generator = torch.Generator().manual_seed(args.seed)
    pretrain(
        policy, env, args.pretrain_steps, generator, checkpoints=steps,
        at_checkpoint=measure_and_keep,
    )  # fmt: skip
    return checkpoints


def gain_of_short_run(policy, env, group_size, rollouts=20):
    """What a short GRPO run in small steps adds to exact success: the mean of two, on copies."""
    gains = []
    for seed in (0, 1):  # the same noise at every checkpoint
        trial = copy.deepcopy(policy)
        generator = torch.Generator().manual_seed(seed)
        history = improve(
            trial, env, "grpo", rollouts, generator, group_size, learning_rate=3e-4, warmup=5
        )
        gains.append(history[-1]["success"] - history[0]["success"])
    return sum(gains) / len(gains)


def main(arguments=None):
    """Run the demonstration or one method, and leave a report, the weights and a figure."""
    print_utf8()
    args = parse(__doc__, [*METHODS, "exact"], arguments)
    started = time.perf_counter()
    torch.set_num_threads(1)  # quicker for tensors this small
    generator = torch.Generator().manual_seed(args.seed)
    try:
        env = SumGame(args.max_terms)
        policy = GPT.for_world(env, d_model=args.d_model, generator=generator).to(args.device)
        env.solutions(env.prompts[0])  # refuses a world that is too large to count
        args.out.mkdir(parents=True, exist_ok=True)
    except ValueError as error:
        return fail(2, error)
    except OSError as error:
        return fail(2, f"--out {args.out} cannot be made: {error.strerror}")
    try:
        report = demonstrate(policy, env, args)
    except FloatingPointError as error:
        save_weights(args.out, policy)
        return fail(1, f"{error}; the weights so far are in {args.out / 'policy.pt'}")
    if args.method is None:
        report["conclusions"] = conclusions(report)
        print(f"\n6. What this run shows, of seed {args.seed}. Another may say otherwise.\n")
        print("\n".join(report["conclusions"]))
    report["seconds"] = time.perf_counter() - started
    save_run(args, report, policy)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(fail(130, "stopped; nothing was saved"))
