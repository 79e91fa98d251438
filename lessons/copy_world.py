"""A world of one's own in a few lines: write the letter that was asked for, twice, then stop.

    python lessons/copy_world.py

A world needs what env.World lists. Without `corpus` it cannot be pretrained in, and without
`solutions` nothing is counted, so `success` and `cosine` of train.improve are nan.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where minicf/ and train.py are

from minicf.gpt import GPT  # noqa: E402
from train import improve  # noqa: E402


class CopyWorld:
    """For the prompt `b` the right answer is `bb.`; each right letter earns half of the reward."""

    vocab = "abcd."
    prompts = torch.tensor([[0], [1], [2], [3]])  # (N, P): one letter each
    prompt_length = 1
    completion_length = 3
    eos = 4  # the full stop

    def reward(self, prompts, completions):
        """(B,) of 0, ½ or 1.

        An early stop matches no prompt letter, so what follows it cannot earn anything.
        """
        first = completions[:, 0] == prompts[:, 0]
        second = completions[:, 1] == prompts[:, 0]
        return (first.float() + (first & second).float()) / 2


def main() -> list[dict]:
    """Learn to copy from nothing, by RL alone."""
    env = CopyWorld()
    generator = torch.Generator().manual_seed(0)
    policy = GPT.for_world(env, n_layer=1, d_model=16, generator=generator)
    return improve(
        policy, env, "rloo", 60, generator, learning_rate=1e-2,
        log=lambda entry: print(f"rollout {entry['step']:2}  reward {entry['reward']:.2f}"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
