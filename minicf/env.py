"""SumGame, a world small enough to count.

The prompt `12=` asks for a sum of one to `max_terms` digits that makes 12, then a full stop:
`9+3.` and `3+4+5.` are both right. The reward is 1 for a right answer and 0 for anything else.
With three terms there are 28 prompts and 1,110 right answers in all, so that the success
probability of a policy is a finite sum (see exact.py) and evaluation never samples.

Left out on purpose: a padding token. A completion that stops early is filled up with further stops;
`rollout.completion_mask` says which tokens count, and the first stop is one of them.
"""

import itertools
import re
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

ANSWER = re.compile(r"([0-9](?:\+[0-9])*)\.")  # digit(+digit)* and a stop
MAX_SOLUTIONS = 200_000  # what one forward pass can hold; 111,110 with five terms


class World(Protocol):
    """What the rest of the package asks of an environment; one of your own needs no more."""

    vocab: str  # or a list with an entry for each token; GPT.for_world reads its length
    prompts: Tensor  # (N, P) tokens, all of one length
    prompt_length: int  # P, for GPT.for_world
    completion_length: int  # T, the most tokens that a completion can have
    eos: int  # the token that ends a completion

    def reward(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """Rewards (B,) of completions (B, T) of prompts (B, P). It must not look behind a stop."""

    # Optional. To pretrain:
    #   corpus(batch_size, generator, wrong, max_target) -> prompts (B, P), completions (B, T)
    # To count success and ∇V (exact.py), for rewards of 0 and 1:
    #   solutions(prompt) -> all right completions (K, T) of prompt (P,), filled up with stops
    # To name tokens in messages of exact.py:
    #   decode(tokens) -> the text of tokens (n,)


NEEDED = ("prompts", "completion_length", "eos", "reward")  # to sample and to train


def check_world(env: World, *others: str) -> None:
    """Raise ValueError, naming it, for what a world lacks of NEEDED and of `others`."""
    missing = [name for name in (*NEEDED, *others) if not hasattr(env, name)]
    if missing:
        raise ValueError(
            f"the world {type(env).__name__} has no {', '.join(missing)}: see env.World"
        )
    if not isinstance(env.eos, int) or env.completion_length < 1:
        raise ValueError(
            "eos must be one token, a whole number, and completion_length at least 1, not "
            f"{env.eos!r} and {env.completion_length}"
        )


class SumGame:
    """The environment. `vocab` is a string, a token is an index into it; tensors live on the CPU.

    Attributes: `vocab`, `eos` (the token of the full stop), `prompts` (N, P) for the targets 0, 1,
    …, 9·max_terms, `prompt_length` P and `completion_length` T, the longest sum with its stop.
    """

    vocab = "0123456789+=."
    eos = vocab.index(".")

    def __init__(self, max_terms: int = 3):
        if type(max_terms) is not int or max_terms < 1:
            raise ValueError(f"max_terms must be a whole number of at least 1, not {max_terms!r}")
        self.max_terms = max_terms
        self.largest_target = 9 * max_terms
        digits = max(2, len(str(self.largest_target)))
        texts = [f"{target:0{digits}d}=" for target in range(self.largest_target + 1)]
        self.prompts = torch.stack([self.encode(text) for text in texts])  # (N, P)
        self.prompt_length = digits + 1
        self.completion_length = 2 * max_terms  # digits, plus signs between them, a stop

    def encode(self, text: str) -> Tensor:
        """Text to tokens (len(text),). Raises ValueError for a character outside the vocabulary."""
        foreign = sorted(set(text) - set(self.vocab))
        if foreign:
            raise ValueError(f"text {text!r} has {foreign}, which is not in {self.vocab!r}")
        return torch.tensor([self.vocab.index(character) for character in text], dtype=torch.long)

    def decode(self, tokens: Tensor) -> str:
        """Tokens (n,) to text, those after the first stop included; ValueError for no token."""
        foreign = [token for token in tokens.tolist() if token not in range(len(self.vocab))]
        if foreign:
            raise ValueError(f"tokens must be 0 to {len(self.vocab) - 1}, not {foreign[0]}")
        return "".join(self.vocab[token] for token in tokens.tolist())

    def reward(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """1.0 where the text up to the first stop is `digit(+digit)*.` and adds up, else 0.0.

        prompts (B, P), completions (B, T) -> (B,) float32, on the device of `completions`. Only the
        text counts: nothing is looked up, and what stands after the first stop is not read. A token
        outside the vocabulary, which a larger model may write, is as wrong as any.
        """
        P = self.prompt_length
        if prompts.shape != (len(completions), P) or completions.dim() != 2:
            raise ValueError(
                f"prompts and completions must be (B, {P}) and (B, T) with the same B, "
                f"not {tuple(prompts.shape)} and {tuple(completions.shape)}"
            )
        letters = self.vocab + "?"  # the last stands for any token that is not in the vocabulary
        tokens = completions.clamp(-1, len(self.vocab)).tolist()
        rewards = []
        for prompt, answer in zip(prompts.tolist(), tokens):
            match = ANSWER.match("".join([letters[token] for token in answer]))
            target = int("".join([self.vocab[token] for token in prompt[:-1]])) if match else None
            rewards.append(bool(match) and sum(map(int, match[1].split("+"))) == target)
        return torch.tensor(rewards, dtype=torch.float32, device=completions.device)

    def corpus(
        self,
        batch_size: int,
        generator: torch.Generator,
        wrong: float = 0.0,
        max_target: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw sums for pretraining: prompts (batch_size, P) and completions (batch_size, T).

        The number of terms is uniform, then each digit is. A share `wrong` of the sums gets a
        target drawn anew, so that most of those are false. `max_target` keeps only sums up to it.
        """
        limit = self.largest_target if max_target is None else max_target
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if not 0 <= wrong <= 1:
            raise ValueError(f"wrong must be a share between 0 and 1, not {wrong}")
        if not 0 <= limit <= self.largest_target:
            raise ValueError(f"max_target must be 0 to {self.largest_target}, not {max_target}")
        terms = torch.zeros(batch_size, dtype=torch.long)
        digits = torch.full((batch_size, self.max_terms), self.largest_target + 1)
        while (redraw := digits.sum(1) > limit).any():
            count = int(redraw.sum())
            size = self.max_terms
            terms[redraw] = torch.randint(1, size + 1, (count,), generator=generator)
            digits[redraw] = torch.randint(0, 10, (count, size), generator=generator)
            digits[torch.arange(size) >= terms[:, None]] = 0  # terms that are not there add nothing
        targets = digits.sum(1)
        anew = torch.rand(batch_size, generator=generator) < wrong
        targets[anew] = torch.randint(0, limit + 1, (int(anew.sum()),), generator=generator)
        return self.prompts[targets], self._write(digits, terms)

    def solutions(self, prompt: Tensor) -> Tensor:
        """Every rewarded completion of one prompt (P,): (K, T), filled up with stops."""
        text = self.decode(prompt)
        number = text[:-1]
        if not (number.isdigit() and text.endswith("=") and int(number) <= self.largest_target):
            known = f"{self.decode(self.prompts[0])!r} to {self.decode(self.prompts[-1])!r}"
            raise ValueError(f"prompt must be one of {known}, not {text!r}")
        return self._solutions[int(number)]

    @cached_property
    def _solutions(self) -> list[Tensor]:
        """The rewarded completions of every target."""
        count = sum(10**size for size in range(1, self.max_terms + 1))
        if count > MAX_SOLUTIONS:
            raise ValueError(
                f"max_terms={self.max_terms} has {count:,} rewarded completions; "
                f"at most {MAX_SOLUTIONS:,} can be enumerated, so use max_terms of 5 or less"
            )
        by_target: list[list[Tensor]] = [[] for _ in self.prompts]
        for size in range(1, self.max_terms + 1):
            digits = torch.tensor(list(itertools.product(range(10), repeat=size)))
            rows = self._write(digits, torch.full((len(digits),), size))
            for target in range(9 * size + 1):
                by_target[target].append(rows[digits.sum(1) == target])
        return [torch.cat(rows) for rows in by_target]

    def _write(self, digits: Tensor, terms: Tensor) -> Tensor:
        """Digits (B, ≥ terms) as completions (B, T): `d+d.` and further stops."""
        completions = torch.full((len(digits), self.completion_length), self.eos)
        completions[:, 0 : 2 * digits.size(1) : 2] = digits
        completions[:, 1:-1:2] = self.vocab.index("+")
        completions[torch.arange(self.completion_length) >= 2 * terms[:, None] - 1] = self.eos
        return completions
