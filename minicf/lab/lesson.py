"""What the lessons share: showing the package's own source, and grading without its help."""

import inspect
import textwrap
from collections.abc import Callable
from contextlib import contextmanager

from IPython import get_ipython
from IPython.core.pylabtools import select_figure_formats
from IPython.display import Markdown

if (shell := get_ipython()) is not None:
    select_figure_formats(shell, {"png"})  # a figure that ends a cell is shown


def show(thing: Callable) -> Markdown:
    """The source of a function or class as the package has it, for display in a notebook."""
    return Markdown(f"```python\n{textwrap.dedent(inspect.getsource(thing))}```")


def answer(function: Callable, *arguments, **options):
    """Call a learner's function; where it is not written yet, say so in one line."""
    try:
        return function(*arguments, **options)
    except NotImplementedError:
        message = f"`{function.__name__}` is not written yet: fill in the exercise cell above"
        raise NotImplementedError(message) from None


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
        yield
    finally:
        for function, code in zip(functions, codes):
            function.__code__ = code
