"""The two pictures of the README: `python lessons/front_page.py` draws them anew, in five minutes.

`alignment.png`: eight GRPO runs in the world of sums, and one of TRL on SmolLM2-135M, which is
read from real_model.json. `costates.gif`: how the mean of one prompt's costates finds the value
gradient. The numbers behind both are left in `front_page.json`.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]  # the folder that holds minicf/ and train.py

from minicf.costate import alignment, empirical_costates  # noqa: E402
from minicf.env import SumGame  # noqa: E402
from minicf.exact import success, value_gradients  # noqa: E402
from minicf.gpt import GPT  # noqa: E402
from minicf.grpo import group_advantages, grpo_loss  # noqa: E402
from minicf.pretrain import pretrain  # noqa: E402
from minicf.rollout import completion_logprobs, sample  # noqa: E402
from minicf.tap import tap  # noqa: E402
from train import improve  # noqa: E402

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"


def runs_of_grpo(seeds: int, steps: int, pretraining: int = 300) -> dict[str, list]:
    """GRPO runs, every fifth rollout: `steps` (S,), `success`, `cosine` and `many` (seeds, S).

    `cosine` is that of a rollout's first update, so that there is none at step 0; `many` is that
    of a batch with many answers a prompt, drawn from the policy after the rollout's updates.
    """
    env = SumGame()
    runs = {"steps": [], "success": [], "cosine": [], "many": []}
    for seed in range(seeds):
        torch.manual_seed(seed)
        policy = GPT.for_world(env)
        generator = torch.Generator().manual_seed(seed)
        pretrain(policy, env, pretraining, generator)
        many = [cosine_of_many(policy, env, generator)]

        def look(entry, policy=policy, generator=generator, many=many):
            many.append(cosine_of_many(policy, env, generator))

        history = improve(
            policy, env, "grpo", steps, generator, learning_rate=5e-4, evaluate_every=5, log=look
        )
        runs["many"].append(many)
        runs["steps"] = [row["step"] for row in history]
        runs["success"].append([round(row["success"], 3) for row in history])
        runs["cosine"].append([round(row["cosine"], 3) for row in history[1:]])
    return runs


def cosine_of_many(policy: GPT, env: SumGame, generator: torch.Generator, size: int = 256) -> float:
    """The cosine to ∇V of what GRPO's backward leaves with `size` answers a prompt, rounded."""
    truth = value_gradients(policy, env, policy.blocks[0])
    batch = sample(policy, env, env.prompts, size, generator)
    with tap(policy.blocks[0]) as inputs:
        logprobs = completion_logprobs(policy, env.prompts, batch.completions, size)
    advantages = group_advantages(batch.rewards, size)
    loss, _ = grpo_loss(logprobs, logprobs.detach(), advantages, batch.mask)
    (gradient,) = torch.autograd.grad(loss, inputs[0])
    return round(alignment(-gradient.flatten(), truth.flatten())[0].item(), 3)


def costates_of_one_prompt(text: str, count: int, pretraining: int = 100) -> dict[str, Tensor]:
    """Costates (count, D) of sampled answers to a prompt, at its last token, and the exact ∇V (D,).

    They enter the first block of a GPT that was pretrained for some steps; the baseline is the
    prompt's exact probability of a right answer.
    """
    env = SumGame()
    torch.manual_seed(0)
    policy = GPT.for_world(env)
    generator = torch.Generator().manual_seed(0)
    pretrain(policy, env, pretraining, generator)
    prompt = env.encode(text)[None]
    batch = sample(policy, env, prompt, count, generator)
    advantages = batch.rewards - success(policy, env, prompt)
    costates = empirical_costates(policy, batch, advantages, policy.blocks[0])[
        :, prompt.size(1) - 1
    ]
    truth = value_gradients(policy, env, policy.blocks[0], prompt)[0, -1]
    return {"costates": costates.detach(), "truth": truth}


def plane_of(costates: Tensor, truth: Tensor) -> Tensor:
    """Costates (N, D) in the plane of ∇V and the direction of largest noise across it: (N, 2).

    The unit is the length of ∇V, whose own place is (1, 0).
    """
    length = truth.norm()
    along = truth / length
    noise = costates - costates.mean(0)
    noise = noise - (noise @ along)[:, None] * along
    across = torch.linalg.svd(noise, full_matrices=False).Vh[0]
    return costates @ torch.stack([along, across], 1) / length


def still(runs: dict[str, list], trl: list[dict]) -> Figure:
    """Cosine and success: left along GRPO's runs in the world of sums, right along TRL's run."""
    figure = Figure(figsize=(10.4, 3.9), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    ends = {}
    for name, color in (("success", GREY), ("cosine", BLUE), ("many", ORANGE)):
        values = torch.tensor(runs[name])
        steps = runs["steps"][-values.size(1) :]
        left.fill_between(steps, values.amin(0), values.amax(0), color=color, alpha=0.2, lw=0)
        left.plot(steps, values.mean(0), color=color)
        ends[name] = values.mean(0)[-1].item()
    seeds = len(runs["success"])
    title(
        left,
        f"A tiny GPT writes sums: {seeds} runs of GRPO\n(lines: their mean, bands: their range)",
    )
    name_lines(left, runs["steps"][-1], ends)
    many = "the same cosine with\n256 answers a prompt"
    name_line(left, runs["steps"][-1], ends["many"], many, ORANGE)
    left.set_xlabel("rollouts of 8 answers a prompt")

    steps = list(range(len(trl)))
    right.plot(steps, [row["success"] for row in trl], "o-", color=GREY)
    right.plot(steps, [row["cosine"] for row in trl], "o-", color=BLUE)
    title(right, "SmolLM2-135M adds numbers: one run of TRL's\nown GRPOTrainer, 8 answers a prompt")
    name_lines(right, steps[-1], trl[-1])
    right.set_xlabel("updates")
    for axis in (left, right):
        axis.set_ylim(min(0.0, axis.get_ylim()[0]), 1)
    return figure


def name_lines(axis: Axes, step: int, row: dict) -> None:
    """The names of the two lines that both panels have."""
    name_line(axis, step, row["success"], "success", "#666666")
    cosine = "cosine between\nwhat backward left\nand the exact ∇V"
    name_line(axis, step, row["cosine"], cosine, BLUE)


def name_line(axis: Axes, step: int, value: float, text: str, color: str) -> None:
    """A line's name at its end."""
    axis.annotate(text, (step, value), (7, 0), textcoords="offset points", color=color, va="center")


def title(axis: Axes, text: str) -> None:
    axis.set_title(text, loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


def moving(costates: Tensor, truth: Tensor, text: str, path: Path, frames: int) -> None:
    """A GIF: the costates of a prompt's answers as they come in, and their mean on its way to ∇V.

    Both panels show the plane of `plane_of`, the right one from near.
    """
    places = plane_of(costates, truth)
    count = len(places)
    sizes = torch.logspace(0, math.log10(count), frames).round().int().unique().tolist()
    means = places.cumsum(0) / torch.arange(1, count + 1)[:, None]
    cosines = [alignment(costates[:n].mean(0), truth)[0].item() for n in sizes]

    figure = Figure(figsize=(7.6, 3.9), layout="constrained", dpi=90)
    far, near = figure.subplots(1, 2)
    for axis, shown in ((far, places), (near, means[[n - 1 for n in sizes]])):
        edge = 1.1 * shown.abs().max().item()
        axis.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
        axis.set_xlabel("along ∇V, in lengths of ∇V")
        axis.set_ylabel("across it, where noise is largest")
        axis.axhline(0, color="#dddddd", lw=0.8, zorder=0)
        axis.axvline(0, color="#dddddd", lw=0.8, zorder=0)
    cloud = far.scatter([], [], s=9, color=GREY, alpha=0.6, lw=0)
    near.annotate("", (1, 0), (0, 0), arrowprops=dict(arrowstyle="-|>", color="black", lw=2))
    near.annotate("exact ∇V", (1, 0), (0, 8), textcoords="offset points", va="bottom")
    (path_line,) = near.plot([], [], color=ORANGE, lw=1, alpha=0.5)
    dots = [
        axis.plot([], [], "o", color=ORANGE, ms=size)[0] for axis, size in ((far, 5), (near, 8))
    ]

    def draw(frame: int) -> None:
        n = sizes[frame]
        cloud.set_offsets(places[:n].numpy())
        walk = [size - 1 for size in sizes[: frame + 1]]
        path_line.set_data(means[walk, 0], means[walk, 1])
        for dot in dots:
            dot.set_data([means[n - 1, 0]], [means[n - 1, 1]])
        title(far, f"Costates of {n} answer{'s' * (n > 1)} to “{text}”")
        cosine = f"{cosines[frame]:.2f}".replace("-", "−")
        title(near, f"Their mean: cosine to ∇V {cosine}")

    order = [*range(len(sizes)), *[len(sizes) - 1] * 15]  # the last one stays for a while
    FuncAnimation(figure, draw, order, init_func=lambda: None).save(path, PillowWriter(fps=8))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=8, help="GRPO runs of the left panel")
    parser.add_argument("--steps", type=int, default=60, help="rollouts of each")
    parser.add_argument("--pretraining", type=int, default=300, help="steps before each run")
    parser.add_argument("--answers", type=int, default=512, help="answers in the moving picture")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args(arguments)
    trl = json.loads((HERE / "real_model.json").read_text(encoding="utf-8"))["trl"]

    args.out.mkdir(parents=True, exist_ok=True)
    prompt = costates_of_one_prompt("09=", args.answers, pretraining=60)
    moving(**prompt, text="09=", path=args.out / "costates.gif", frames=60)
    runs = runs_of_grpo(args.seeds, args.steps, args.pretraining)
    still(runs, trl).savefig(args.out / "alignment.png")
    text = json.dumps({"command": "python lessons/front_page.py", **runs})
    (args.out / "front_page.json").write_text(text + "\n", encoding="utf-8")
    print(f"alignment.png, costates.gif and front_page.json are in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
