"""What lessons share: the package's own source, tables, checks, grading without its help."""

import inspect
import json
import math
import textwrap
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from IPython import get_ipython
from IPython.core.pylabtools import select_figure_formats
from IPython.display import Code
from torch import Tensor

from minicf.costate import alignment
from minicf.env import World
from minicf.gpt import GPT
from minicf.tap import tap

shell = get_ipython()
if shell is not None:
    select_figure_formats(shell, {"png"})  # a figure that ends a cell is shown


class FixedWidthCode(Code):
    """Code in a fixed-width font; in JupyterLab and exported HTML, an output's text has none."""

    def _repr_html_(self) -> str:
        return f'<div style="font-family: monospace">{super()._repr_html_()}</div>'


def show(thing: Callable) -> Code:
    """The source of a function or class as the package has it, for display in a notebook."""
    return FixedWidthCode(textwrap.dedent(inspect.getsource(thing)), language="python")


def stored_study(root: Path, name: str = "study.json") -> dict:
    """Stored results, from beside the lesson or from lessons/ of the repository."""
    for folder in (Path.cwd(), root / "lessons"):
        if (folder / name).exists():
            return json.loads((folder / name).read_text(encoding="utf-8"))
    raise FileNotFoundError(f"{name} not found: copy lessons/{name} beside this notebook")


def print_columns(columns: dict, digits: int = 3) -> None:
    """A table: under each name its values, as many in each column, floats with so many digits."""
    cells = []
    for name, values in columns.items():
        values = values.tolist() if isinstance(values, Tensor) else values
        texts = [f"{x:.{digits}f}" if isinstance(x, float) else str(x) for x in values]
        width = max(len(text) for text in [name, *texts])
        cells.append([text.rjust(width) for text in [name, *texts]])
    for row in zip(*cells, strict=True):
        print("  ".join(row))


def print_rows(rows: list[dict], digits: int = 2) -> None:
    """A table of rows that have the same keys, whose names stand above."""
    columns = {}
    for key in rows[0]:
        columns[key] = [row[key] for row in rows]
    print_columns(columns, digits)


def vector_texts(vectors: Tensor, digits: int = 2) -> list[str] | str:
    """Vectors (N, D) as N texts, or one (D,) as a text, for a table."""
    if vectors.dim() == 1:
        numbers = [round(number, digits) + 0.0 for number in vectors.tolist()]  # no -0.0
        return "(" + ", ".join(f"{number:.{digits}f}" for number in numbers) + ")"
    return [vector_texts(vector, digits) for vector in vectors]


def interval_text(mean: float, low: float, high: float, digits: int = 2) -> str:
    """A mean and its interval, "-" for nan."""
    if math.isnan(mean):
        return "-"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def written_by_hand(env: World, prompt: Tensor, text: str, strength: float) -> GPT:
    """A random GPT whose next token is that of `text`, by so many nats over the others."""
    policy = GPT.for_world(env, n_head=2, d_model=16).double()
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.dim() == 2:
                weight *= 10  # so that attention matters
    tokens = env.encode(text)
    with tap(policy.head) as inputs:  # what enters the read-out
        policy(torch.cat([prompt, tokens[:-1]])[None])
    features = inputs[0][0, len(prompt) - 1 :].detach()  # a row for each token of the text
    logits = strength * torch.eye(len(env.vocab), dtype=torch.float64)[tokens]
    with torch.no_grad():
        policy.head.weight.copy_((torch.linalg.pinv(features) @ logits).T)
    return policy


def answer(function: Callable, *arguments, **options):
    """Call a learner's function; where it is not written yet, say so in one line."""
    assert function.__code__ not in _off, "this exercise asks for your own code, not the package's"
    try:
        return function(*arguments, **options)
    except NotImplementedError as error:
        if error.args:  # PyTorch raises it, too, with a text; the template's has none
            raise
        message = f"`{function.__name__}` is not written yet: fill in the exercise cell above"
        raise NotImplementedError(message) from None
    except (ArithmeticError, AttributeError, LookupError, NameError, RuntimeError, TypeError,
            ValueError) as error:  # fmt: skip
        message = f"`{function.__name__}` breaks off: {slip(error)}"
        raise AssertionError(message) from error  # whose traceback names the learner's line


def slip(error: Exception) -> str:
    """What an exception in a learner's function means, in a sentence; Python's words at the end."""
    text = (str(error).strip().splitlines() or ["no text"])[0]
    said = f"({type(error).__name__}: {text})"
    if isinstance(error, KeyError):
        return f"it asks a dictionary for a name that is not there {said}"
    for sign, sentence in SLIPS.items():
        if sign in text:
            return f"{sentence} {said}"
    return f"your code raises an error {said}"


SLIPS = {  # part of Python's or PyTorch's message: what has happened
    "'tuple' object": "several values stand where one is needed; policy(tokens) returns two",
    "tuple indices": "several values stand where one is needed; policy(tokens) returns two",
    "not tuple": "several values stand where one is needed; policy(tokens) returns two",
    "got (tuple": "several values stand where one is needed; policy(tokens) returns two",
    "'NoneType'": "something there is None; is a `return` missing?",
    "within a tap, not 0 times": "what you tap is not used; call the `policy` that is passed in",
    "does not require grad": "no gradient is attached to what you differentiate",
    "out of bounds": "an index is too large; does a loop run too far, or is a size a fixed number?",
    "must match the size of tensor": "two tensors there have shapes that do not fit",
    "size does not match": "two tensors there have shapes that do not fit",
    "Size does not match": "two tensors there have shapes that do not fit",
}


def check_answer(*arguments, **options) -> None:
    """As checked_answer, in silence: for the end of a cell."""
    checked_answer(*arguments, **options)


def checked_answer(
    function: Callable, arguments: tuple, expected, hint: str, *refused: Callable, tolerance=1e-5,
    mistakes: dict | None = None,
):  # fmt: skip
    """Compare a learner's function with one worked example; return what it returned.

    The package functions `refused` raise meanwhile. If the answer is off by more than `tolerance`,
    an AssertionError names the mistake whose value it has, of `mistakes` (a sentence: the value
    that it leads to), or else the hint, the expected value and the learner's.
    """
    given = [copied(argument) for argument in arguments]  # a slip may change them in place
    with disabled(*refused):
        got = answer(function, *given)
    name = function.__name__
    assert got is not None, f"`{name}` returns None: is a `return` missing?"
    worked = as_number(list(expected) if isinstance(expected, tuple) else expected, name)
    if isinstance(got, tuple) and worked.dim() == 1 and len(got) == len(worked):
        sizes = [torch.as_tensor(number).numel() for number in got]
        if max(sizes) == 1:
            got = list(got)  # of a function that returns several numbers
        elif isinstance(expected, tuple):
            place = sizes.index(max(sizes)) + 1
            several = f"value {place} that `{name}` returns has {max(sizes)} numbers; one is needed"
            raise AssertionError(f"{several} ({hint})")
    listed = isinstance(expected, list) and worked.dim() == 1
    mine = as_number(got, name, f"a list of {len(worked)} numbers" if listed else "one value")
    if agree(mine, worked, tolerance):
        return got
    for mistake, value in (mistakes or {}).items():
        if agree(mine, as_number(value, name), tolerance):
            raise AssertionError(f"`{name}`: {mistake} ({hint})")
    shapes = f"shape {tuple(worked.shape)} expected, not {tuple(mine.shape)}"
    assert mine.shape == worked.shape, f"`{name}`, {hint}: {shapes}"
    if mine.numel() > 20:
        cosine, ratio = alignment(mine.flatten(), worked.flatten())
        measured = f"cosine {cosine:.4f} to what is expected, and {ratio:.4f} times its length"
        raise AssertionError(f"`{name}`, {hint}: yours has {measured}")
    raise AssertionError(f"`{name}`, {hint}: {readable(expected)} expected, not {readable(got)}")


def copied(value) -> object:
    """A tensor's copy, with its gradient's graph; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) else value


def as_number(value, name: str, wanted: str = "one value") -> Tensor:
    """What a function returned as a float64 tensor; an AssertionError for what is no number."""
    kind = type(value).__name__
    assert not isinstance(value, tuple), f"`{name}` returns a tuple of {len(value)}, not {wanted}"
    if isinstance(value, list):  # a number that carries a gradient would make PyTorch warn
        value = [x.detach() if isinstance(x, Tensor) else x for x in value]
    try:
        return torch.as_tensor(value, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        raise AssertionError(f"`{name}` returns a {kind}, which is no number or tensor") from None


def agree(mine: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two tensors have one shape and differ by at most the tolerance; False for nan."""
    return mine.shape == other.shape and bool(((mine - other).abs() <= tolerance).all())


def readable(value) -> object:
    """A number, truth value or tensor as Python has it, numbers with four digits."""
    value = torch.as_tensor(value).detach()
    if value.dtype != torch.bool:
        value = value.double().round(decimals=4) + 0.0  # no -0.0
    return value.tolist()


def derivatives(value: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The derivative of a scalar with respect to each input, in the shape of that input.

    It is 0 where the scalar does not depend on the input.
    """
    if not value.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(torch.autograd.grad(value, inputs, retain_graph=True, materialize_grads=True))


_off: list = []  # code of package functions that are switched off at the moment


@contextmanager
def disabled(*functions: Callable):
    """Within the block these package functions raise, under every name they were imported by."""

    def refuse(*arguments, **options):
        raise AssertionError("this exercise asks you to write it, not to call the package's own")

    functions = tuple(inspect.unwrap(function) for function in functions)
    codes = [function.__code__ for function in functions]
    try:
        for function in functions:
            function.__code__ = refuse.__code__
        _off.extend(codes)
        yield
    finally:
        del _off[len(_off) - len(codes) :]
        for function, code in zip(functions, codes):
            function.__code__ = code
