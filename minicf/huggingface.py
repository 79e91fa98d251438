"""A Hugging Face model as a policy, and a world of sums in which a real model's V is exact.

    policy = HuggingFacePolicy(model)        # GPT-2-, Llama- and Qwen-like models
    env = WorkedSums(tokenizer)              # 2 + 3 = 5 ⏎ 8 + 7 =

The answer to a prompt of WorkedSums is one text, the sum's digits and a line break. So V, the
probability of being right, is the probability of that text, and ∇V is one backward pass.

Optional: it needs transformers, and nothing else in minicf needs it.

Left out on purpose: padding (all prompts have one length), and answers with spaces or words.
"""

import inspect

import torch
import torch.nn as nn
from torch import Tensor
from transformers import DynamicCache


class HuggingFacePolicy(nn.Module):
    """A causal language model of transformers, called as minicf calls a policy.

    `blocks` is the list of its layers; the model is put into eval(), since what is scored must be
    what was sampled. Raises ValueError for a model without such a list, and at a call for one that
    was put back into train(). One that drops its cache (gradient checkpointing) is refused where
    minicf samples and scores.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval()
        self.blocks = find_blocks(model)
        parameters = inspect.signature(model.forward).parameters
        self.cache_name = "cache" if "cache" in parameters else "past_key_values"

    def forward(self, tokens: Tensor, cache: list | None = None) -> tuple[Tensor, list]:
        """Logits (B, L, V) of the token after each of tokens (B, L), and the extended cache."""
        if self.model.training:
            raise ValueError("the model is in train(): call model.eval(), or dropout spoils scores")
        past = DynamicCache()
        for layer, (keys, values) in enumerate(cache or []):
            past.update(keys, values, layer)
        logits = self.model(tokens, use_cache=True, **{self.cache_name: past}).logits
        return logits, [(layer.keys, layer.values) for layer in past.layers]


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of a model's layers, as many as its configuration says; else ValueError."""
    layers = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return module
    raise ValueError(f"{type(model).__name__} has no list of num_hidden_layers = {layers} blocks")


class WorkedSums:
    """`a + b = ` after worked examples; the right answer is the sum and a line break.

    Complete by env.World: prompts (N, P) of the `pairs`, `completion_length` T for the longest
    right answer with its stop, `eos` the line break, `solutions`, `decode`. With stop=False the
    answer ends with its last digit, and T may be 1. Raises ValueError for a tokenizer that makes
    prompts of different lengths, or that splits a sum otherwise than the digits alone.
    """

    def __init__(
        self,
        tokenizer,
        pairs: list[tuple[int, int]],
        examples: tuple[tuple[int, int], ...] = ((2, 3),),
        stop: bool = True,
    ):
        self.tokenizer = tokenizer
        self.vocab = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self.eos = tokenizer("\n").input_ids[-1]
        head = "".join(f"{a} + {b} = {a + b}\n" for a, b in examples)
        prompts = [tokenizer(f"{head}{a} + {b} = ").input_ids for a, b in pairs]
        if len({len(prompt) for prompt in prompts}) != 1:
            lengths = sorted({len(prompt) for prompt in prompts})
            raise ValueError(f"prompts must have one length, not {lengths}: choose other pairs")
        self.prompts = torch.tensor(prompts)
        self.prompt_length = self.prompts.size(1)
        answers = [self._answer(prompt, a, b, head, stop) for prompt, (a, b) in zip(prompts, pairs)]
        self.completion_length = max(len(answer) for answer in answers)
        self._right = torch.full((len(pairs), self.completion_length), self.eos)
        for row, answer in enumerate(answers):
            self._right[row, : len(answer)] = torch.tensor(answer)
        self._rows = {tuple(prompt): row for row, prompt in enumerate(prompts)}

    def _answer(self, prompt: list, a: int, b: int, head: str, stop: bool) -> list[int]:
        whole = self.tokenizer(f"{head}{a} + {b} = {a + b}\n").input_ids
        if whole[: len(prompt)] != prompt or whole[-1] != self.eos:
            raise ValueError(f"the tokenizer joins the answer of {a} + {b} with what is around it")
        return whole[len(prompt) :] if stop else whole[len(prompt) : -1]

    def reward(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """1.0 for the right answer up to its stop, else 0.0, of completions (B, T): (B,)."""
        rows = [self._rows[tuple(prompt)] for prompt in prompts.tolist()]
        right = self._right[rows].to(completions.device)
        stopped = (right == self.eos).cumsum(1) > 1  # behind the right answer's own stop
        return ((completions == right) | stopped).all(1).float()

    def solutions(self, prompt: Tensor) -> Tensor:
        """The right answer to a prompt (P,), filled up with stops: (1, T)."""
        return self._right[[self._rows[tuple(prompt.tolist())]]]

    def answer(self, prompt: Tensor) -> list[int]:
        """The tokens of the right answer to a prompt (P,), its stop included."""
        right = self.solutions(prompt)[0].tolist()
        return right[: right.index(self.eos) + 1] if self.eos in right else right

    def decode(self, tokens: Tensor) -> str:
        """The text of tokens (n,)."""
        return self.tokenizer.decode(tokens)
