"""Every lesson runs, its exercises grade what they should, and its committed outputs are its own.

Lessons are committed executed. After a change to one, from the root:

    python tests/test_lessons.py --refresh lessons/05_*.ipynb    # without a path: all of them

It executes the lesson in full mode in a fresh kernel, as `jupyter nbconvert --execute --inplace`
would, stores figures with 32 colours (a third of the bytes) and leaves `minicf.source_sha256`, the
hash of the code cells that were executed, in the notebook's metadata: outputs of other code fail.

Training amplifies rounding, so what one run shows may not hold on another processor:

    python tests/test_lessons.py --elsewhere 5    # every lesson, five times, otherwise rounded

plays the lessons, or those named after the number, in full mode with PyTorch's scalar kernels, with
MKL's oldest ones, and with the weights of every new policy changed by 1e-7 of their size, and lists
the cells that fail. The same command continues where it was stopped.

The tests play each lesson once, with weights so changed, in fast mode and without a kernel, because
one for each would cost more than the lessons do; one real kernel is started, in a student's folder.
At an exercise the wrong answers of wrong_answers.py and the solution take turns on copies of the
namespace; the lesson then goes on with the stub that a student gets, so a later cell that leans on
it is found.
"""

import argparse
import ast
import base64
import contextlib
import copy
import functools
import hashlib
import io
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
import torch
from matplotlib.figure import Figure
from nbclient import NotebookClient
from wrong_answers import WRONG

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "lessons"
sys.path[:0] = [str(ROOT), str(FOLDER)]

from minicf.gpt import GPT  # noqa: E402

LESSONS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
OUTSIDE_THE_PACKAGE = [ROOT / "train.py", *sorted(FOLDER.glob("*.py"))]  # what lessons import
MODULES = [*sorted((ROOT / "minicf").glob("*.py")), *OUTSIDE_THE_PACKAGE]
SECONDS = 60  # for one lesson in fast mode, wrong answers included
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"  # what nbgrader writes
SOLUTION, HIDDEN = (
    re.compile(rf"^( *)### BEGIN {name}\n.*?^ *### END {name}$", re.M | re.S)
    for name in ("SOLUTION", "HIDDEN TESTS")
)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
HEADINGS = ("Predict first", "Break it", "Limits", "Summary", "References", "Next")
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


# Reading a lesson.


@functools.cache
def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def markdown(path):
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def role(cell):
    """What nbgrader takes a cell for: "solution", "graded" or, where it is plain, ""."""
    grader = cell.metadata.get("nbgrader", {})
    return "solution" if grader.get("solution") else "graded" if grader.get("grade") else ""


def python(cell):
    """The source of a cell without magics, which only matter to a kernel."""
    return "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))


def source_hash(notebook):
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def exercises(path):
    """(solution, check, graded, …) of each exercise; that they stand so is tested below.

    An exercise with two halves has two graded cells.
    """
    cells = code_cells(path)
    return [exercise_at(cells, i) for i, cell in enumerate(cells) if role(cell) == "solution"]


def exercise_at(cells, start):
    """The cells of the exercise whose solution is cells[start]."""
    end = start + 2
    while end < len(cells) and role(cells[end]) == "graded":
        end += 1
    return cells[start:end]


# Playing a lesson.


@dataclass
class Play:
    errors: dict = field(default_factory=dict)  # of cells that are no exercise: id -> exception
    attempts: dict = field(default_factory=dict)  # (grade id, answer) -> exceptions of its tests


class OutOfTime(BaseException):
    """Not an Exception, so that no cell's failure hides it."""


@contextlib.contextmanager
def time_limit(seconds):
    def expire(*_):
        raise OutOfTime(f"over {seconds} s")

    if not hasattr(signal, "SIGALRM"):  # Windows: no limit
        yield
        return
    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def display(*values):
    """What a notebook does with the value of a cell, a figure drawn for once."""
    for value in values:
        value.savefig(io.BytesIO()) if isinstance(value, Figure) else repr(value)


def replaced(region, cell, text):
    """The cell with `text` in the place of its solution or its hidden tests."""
    text = textwrap.dedent(text).strip()
    source = region.sub(lambda match: textwrap.indent(text, match[1]), cell.source)
    return nbformat.from_dict({**cell, "source": source})


def execute(cell, namespace):
    """Run a cell; return its exception, or None."""
    tree = ast.parse(python(cell))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    try:
        exec(compile(tree, cell.id, "exec"), namespace)
        if last:
            display(eval(compile(ast.Expression(last.value), cell.id, "eval"), namespace))
    except Exception as error:
        return error
    return None


def attempt(exercise, namespace):
    """Exceptions of the cells that test a solution; that of the definition is raised."""
    solution, *rest = exercise
    error = execute(solution, namespace)
    if error:
        raise error
    return [execute(cell, namespace) for cell in rest]


def play_cells(path, play):
    namespace, cells = {"__name__": "__main__", "display": display}, code_cells(path)
    tests = [test.id for exercise in exercises(path) for test in exercise[1:]]
    for index, cell in enumerate(cells):
        if cell.id in tests:
            continue
        if role(cell) != "solution":
            error = execute(cell, namespace)
            play.errors |= {cell.id: error} if error else {}
            continue
        _, check, *graded = exercise_at(cells, index)
        grade_id = cell.metadata.nbgrader.grade_id
        solved = dict(namespace)  # the graded cell may use what the check defines
        play.attempts[grade_id, "solution"] = attempt([cell, check, *graded], solved)
        for name, answer in WRONG.get(grade_id, {}).items():
            wrong = replaced(SOLUTION, cell, answer)
            play.attempts[grade_id, name] = attempt([wrong, check, *graded], dict(solved))
        as_released = [replaced(HIDDEN, test, "") for test in graded]
        released = [replaced(SOLUTION, cell, STUB), check, *graded, *as_released]
        play.attempts[grade_id, "stub"] = attempt(released, namespace)


def change_weights(patch, seed):
    """Change the weights of every new policy by 1e-7 of their size, as other rounding might."""
    plain = GPT.__init__

    def changed(self, *arguments, **options):
        plain(self, *arguments, **options)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.parameters():
                weight += 1e-7 * weight.abs() * torch.randn(weight.shape, generator=generator)

    patch.setattr(GPT, "__init__", changed)


started = {}  # lessons that play in another process


def start_early():
    """Play the lessons in another process; conftest.py calls this at the start of a whole run."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    for path in LESSONS:
        started[path] = pool.submit(play, path)
    pool.shutdown(wait=False)


def played(path):
    return started[path].result() if path in started else play(path)


@functools.cache
def play(path):
    """The lesson in fast mode, from its own folder, with every answer tried."""
    result, dtype = Play(), torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICF_FAST", "1")
        patch.chdir(FOLDER)
        patch.setattr(sys, "path", [*sys.path])
        change_weights(patch, seed=0)
        try:
            with time_limit(SECONDS), contextlib.redirect_stdout(io.StringIO()):
                play_cells(path, result)
        except OutOfTime as error:
            result.errors["the whole lesson"] = error
        finally:
            torch.set_default_dtype(dtype)
    return result


@every_lesson
def test_runs_in_fast_mode_without_the_learners_answers(path):
    for cell, error in played(path).errors.items():
        raise AssertionError(f"cell {cell}") from error


@every_lesson
def test_solutions_pass_and_stubs_fail(path):
    attempts = played(path).attempts
    for solution, *_ in exercises(path):
        grade_id = solution.metadata.nbgrader.grade_id
        assert set(attempts[grade_id, "solution"]) == {None}, grade_id
        for error in attempts[grade_id, "stub"]:
            # The last are the graded cells as students get them: they must not pass either, so a
            # line of each stays visible, and calls the function.
            assert isinstance(error, NotImplementedError), (grade_id, error)
            assert "is not written yet" in str(error), (grade_id, "call it by answer(…)")


@every_lesson
def test_wrong_answers_fail_the_graded_test(path):
    attempts = played(path).attempts
    for solution, *_ in exercises(path):
        grade_id = solution.metadata.nbgrader.grade_id
        assert len(WRONG.get(grade_id, {})) >= 3, f"{grade_id}: wrong_answers.py has too few"
        for name in WRONG[grade_id]:
            _, *errors = attempts[grade_id, name]  # one half may be right
            failed = [error for error in errors if error is not None]
            assert failed, (grade_id, name)
            for error in failed:
                assert isinstance(error, AssertionError), (grade_id, name, error)


@every_lesson
def test_wrong_answers_fail_the_visible_check(path):
    """Silence means right: what is wrong fails before it is graded, with a sentence that helps."""
    attempts = played(path).attempts
    for solution, *_ in exercises(path):
        grade_id = solution.metadata.nbgrader.grade_id
        for name in WRONG[grade_id]:
            error, *_ = attempts[grade_id, name]
            assert isinstance(error, AssertionError), (grade_id, name, error)
            assert len(str(error).split()) >= 4, (grade_id, name, "say what is wrong")


def test_wrong_answers_belong_to_an_exercise():
    known = {cells[0].metadata.nbgrader.grade_id for path in LESSONS for cells in exercises(path)}
    numbers = {path.stem[:2] for path in LESSONS}
    assert {grade_id for grade_id in WRONG if grade_id[:2] in numbers} <= known


# The set-up cell.


@every_lesson
def test_first_cells_are_the_set_up_and_the_roadmap(path):
    setup, roadmap = code_cells(path)[:2]
    source = python(setup)
    root = 'sys.path[:0] = [str(ROOT), str(ROOT / "lessons")]'
    assert source.split(root)[0] == python(code_cells(LESSONS[0])[0]).split(root)[0]
    assert root in source and "torch.set_num_threads(1)" in source
    assert 'FAST = os.environ.get("MINICF_FAST") == "1"' in source
    assert roadmap.source.splitlines()[-1] == f"roadmap({int(path.stem[:2])})"


@pytest.mark.parametrize("folder", [ROOT, FOLDER])
def test_set_up_in_the_repository(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    namespace = {}
    assert execute(code_cells(LESSONS[0])[0], namespace) is None
    assert namespace["ROOT"] == ROOT and sys.path[:2] == [str(ROOT), str(FOLDER)]


def test_set_up_elsewhere_ends_with_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = execute(code_cells(LESSONS[0])[0], {})
    assert isinstance(error, ModuleNotFoundError)
    assert str(error).startswith("minicf/ not found") and "\n" not in str(error)
    assert "Colab" in str(error)  # which opens a notebook without its repository
    assert "`!git clone " in str(error) and "`%cd " in str(error) and "/lessons`" in str(error)


def test_set_up_in_a_kernel_in_a_students_folder(tmp_path):
    """Copies of all modules beside the lesson are the ones imported, and figures are drawn."""
    package = tmp_path / "minicf"
    shutil.copytree(ROOT / "minicf", package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in OUTSIDE_THE_PACKAGE:
        shutil.copy(path, tmp_path)
    where = nbformat.v4.new_code_cell("import minicf, kit\nprint(minicf.__file__, kit.__file__)")
    cells = copy.deepcopy([*code_cells(LESSONS[0])[:2], where])
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=SECONDS, resources=resources).execute()
    assert "image/png" in cells[1].outputs[-1].data
    imported = cells[2].outputs[0].text.split()
    assert imported == [str(package / "__init__.py"), str(tmp_path / "kit.py")]


# What stands in a lesson.


def test_lessons_are_those_of_the_roadmap():
    assert [int(path.stem[:2]) for path in LESSONS] == list(range(1, 12))


@every_lesson
def test_template(path):
    text = markdown(path)
    assert read(path).cells[0].source.startswith(f"# {path.stem[:2]} · ")
    patterns = ["^You will be able to", *(rf"^(?:#+ |\*\*).*?\b{name}" for name in HEADINGS)]
    patterns.insert(3, "^<details>")  # the answer to Break it, folded away
    places = {pattern: re.search(pattern, text, re.M) for pattern in patterns}
    assert all(places.values()), places
    starts = [place.start() for place in places.values()]
    assert starts == sorted(starts), places


@every_lesson
def test_size(path):
    assert 25 <= len(read(path).cells) <= 45
    lines = [line for cell in code_cells(path) for line in cell.source.splitlines()]
    assert max(map(len, lines)) <= 100


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def golfed(node):
    """What makes a statement hard to read aloud, or None."""
    inner = [each for each in ast.walk(node) if each is not node]
    if isinstance(node, ast.Starred) and isinstance(node.ctx, ast.Store):
        return "starred unpacking"
    if isinstance(node, ast.Compare) and len(node.ops) > 2:
        return "a chain of comparisons"
    if isinstance(node, ast.Assign) and len(node.targets) > 1:
        return "one value for several names"
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
        if isinstance(node.targets[0], ast.Tuple):
            return "several assignments in one"
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
        return "a function without def"
    if isinstance(node, ast.Import) and len(node.names) > 1:
        return "several imports in one"
    statements = getattr(node, "body", [])
    if isinstance(statements, list):
        starts = [statement.lineno for statement in statements]
        if len(starts) != len(set(starts)):
            return "several statements in a line"
    if isinstance(node, COMPREHENSIONS):
        if len(node.generators) > 1 or any(isinstance(each, COMPREHENSIONS) for each in inner):
            return "a comprehension within a comprehension"
    return None


@every_lesson
def test_a_line_says_one_thing(path):
    """Visible code can be read aloud; hidden tests, which no student sees, may be dense."""
    for cell in code_cells(path):
        tree = ast.parse(python(replaced(HIDDEN, cell, "")))
        for node in ast.walk(tree):
            assert golfed(node) is None, f"{cell.id}: {golfed(node)}: {ast.unparse(node)}"


PACKAGE = [ROOT / "train.py", *sorted((ROOT / "minicf").glob("*.py"))]


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.name)
def test_a_line_of_the_package_says_one_thing_too(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert golfed(node) is None, f"{golfed(node)}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "line",
    [
        "first, *others = rows", "assert 0 < a < b < 1", "a = b = 1", "a, b = 1, 2",
        "f = lambda x: x", "[x for row in rows for x in row]", "sum(max(y for y in x) for x in z)",
        "import os, sys", "a = 1; b = 2",
    ],
)  # fmt: skip
def test_golfed_lines_are_found(line):
    assert any(golfed(node) for node in ast.walk(ast.parse(line)))


def definitions(nodes):
    return [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


@functools.cache
def public_names():
    """Functions and classes that a lesson can import, and the methods of those classes."""
    names = set()
    for path in MODULES:
        for node in definitions(ast.parse(path.read_text(encoding="utf-8")).body):
            parts = definitions(node.body) if isinstance(node, ast.ClassDef) else []
            names |= {each.name for each in (node, *parts) if not each.name.startswith("_")}
    return names


@every_lesson
def test_redefines_nothing_of_the_package_and_imports_little_else(path):
    allowed = {"minicf", "torch", "numpy", "matplotlib", *sys.stdlib_module_names}
    allowed |= {path.stem for path in OUTSIDE_THE_PACKAGE}
    for cell in code_cells(path):
        nodes = list(ast.walk(ast.parse(python(cell))))
        for node in definitions(nodes):
            assert role(cell) == "solution" or node.name not in public_names(), node.name
        for node in nodes:
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {module.split(".")[0] for module in modules} <= allowed, cell.id


@every_lesson
def test_nbgrader_metadata(path):
    cells, number = code_cells(path), path.stem[:2]
    roles = "".join({"solution": "S", "graded": "G", "": "."}[role(cell)] for cell in cells)
    assert re.fullmatch(r"(\.|S\.GG?)*", roles) and "S" in roles, "solution, check, graded test"
    for solution, check, *tests in exercises(path):
        grade_id = solution.metadata.nbgrader.grade_id
        assert re.fullmatch(number + r"(-[a-z0-9]+)+", grade_id)
        expected = {
            "schema_version": 3, "grade": False, "grade_id": grade_id, "locked": False,
            "solution": True, "task": False,
        }  # fmt: skip
        assert solution.metadata.nbgrader == expected
        graded_too = {"grade": True, "locked": True, "points": 2 // len(tests), "solution": False}
        for graded, end in zip(tests, ("-test", "-test-too")):
            graded_too["grade_id"] = grade_id + end
            assert graded.metadata.nbgrader == expected | graded_too
        assert '"""' in solution.source.split("### BEGIN")[0] and "answer(" in check.source
    for cell in cells:
        for name, owner in (("SOLUTION", "solution"), ("HIDDEN TESTS", "graded")):
            markers = re.findall(rf"### (BEGIN|END) {name}$", cell.source, re.M)
            assert markers == (["BEGIN", "END"] if role(cell) == owner else []), cell.id


def test_ids_are_unique():
    cells = [cell for path in LESSONS for cell in read(path).cells]
    for ids in ([c.id for c in cells], [c.metadata.nbgrader.grade_id for c in cells if role(c)]):
        assert len(ids) == len(set(ids))


# Committed outputs.


@every_lesson
def test_outputs_are_of_this_source(path):
    notebook = read(path)
    nbformat.validate(notebook)
    expected = METADATA | {"minicf": {"source_sha256": source_hash(notebook)}}
    assert notebook.metadata == expected, "python tests/test_lessons.py --refresh"
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@every_lesson
def test_outputs_read_well(path):
    assert path.stat().st_size <= 150_000
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output.output_type != "error" and output.get("name") != "stderr", output
        data = output.get("data", {})
        kinds = {"text/plain", "image/png", "text/html"}  # HTML: shown source
        assert set(data) <= kinds, "a widget"
        text = output.get("text", data.get("text/plain", ""))
        assert not re.search(r"\r|Warning|Traceback| at 0x|/home/|/tmp/|/Users/", text), text
        assert "image/png" in data or not text.startswith("<Figure"), "a figure that is not drawn"


@every_lesson
def test_cells_carry_nothing_of_the_machine(path):
    for cell in read(path).cells:
        assert set(cell.metadata) <= {"nbgrader"}, cell.id
        assert re.fullmatch(rf"l{path.stem[:2]}(-[a-z0-9]+)+", cell.id)


# The command that refreshes lessons.


def with_few_colours(png):
    """A figure as base64, with 32 colours."""
    from PIL import Image  # comes with matplotlib

    image, small = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    image.convert("RGB").quantize(32).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def refresh(path):
    """Execute a lesson in place, in full mode."""
    notebook, start = nbformat.read(path, as_version=4), time.perf_counter()
    resources = {"metadata": {"path": str(FOLDER)}}
    options = dict(timeout=600, record_timing=False, coalesce_streams=True, resources=resources)
    NotebookClient(notebook, **options).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop("text/latex", None)  # of shown source, which has HTML and plain text too
            if "image/png" in data:
                data["image/png"] = with_few_colours(data["image/png"])
    notebook.metadata = METADATA | {"minicf": {"source_sha256": source_hash(notebook)}}
    nbformat.write(notebook, path)
    print(f"{path.name}: {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1000:.0f} kB")


# The command that plays lessons as other machines would.

ELSEWHERE = ROOT / "build" / "elsewhere"
OTHER_KERNELS = [{"ATEN_CPU_CAPABILITY": "default"}, {"MKL_CBWR": "COMPATIBLE"}]


def play_elsewhere(path, run):
    """Print the cells of a lesson that fail with weights changed, unless `run` changes kernels."""
    failed, namespace = [], {"__name__": "__main__", "display": display}
    os.chdir(FOLDER)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        if run >= len(OTHER_KERNELS):
            change_weights(patch, seed=run)
        for cell in code_cells(path):
            error = execute(cell, namespace)
            if error:
                failed.append(f"{cell.id}: {type(error).__name__}: {str(error)[:100]}")
    print("\n".join(failed))


def elsewhere(count, lessons):
    """Every lesson in `count` runs, two side by side, and a table of what failed."""
    code = hashlib.sha256()
    for path in MODULES:
        code.update(path.read_bytes())
    ELSEWHERE.mkdir(parents=True, exist_ok=True)
    runs = [(path, run) for run in range(count) for path in lessons]

    def result(path, run):
        mark = hashlib.sha256(code.digest() + source_hash(read(path)).encode()).hexdigest()[:12]
        file = ELSEWHERE / f"{path.stem}-{run}-{mark}.txt"
        if not file.exists():
            kernels = OTHER_KERNELS[run] if run < len(OTHER_KERNELS) else {}
            command = [sys.executable, __file__, "--play", str(path), str(run)]
            done = subprocess.run(
                command, env=os.environ | kernels, capture_output=True, text=True, check=True
            )
            file.write_text(done.stdout, encoding="utf-8")
        failed = file.read_text(encoding="utf-8").strip()
        print(f"{path.stem}, run {run}: {'held' if not failed else failed}", flush=True)
        return failed

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(runs, pool.map(lambda each: result(*each), runs)))
    print()
    for path in lessons:
        held = sum(not found[path, run] for run in range(count))
        print(f"{path.stem:35} held in {held} of {count}")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--refresh", nargs="*", type=Path, metavar="LESSON")
    parser.add_argument("--elsewhere", type=int, metavar="N")
    parser.add_argument("lessons", nargs="*", type=Path, metavar="LESSON", help="for --elsewhere")
    parser.add_argument("--play", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    os.environ.pop("MINICF_FAST", None)
    if chosen.play:
        play_elsewhere(Path(chosen.play[0]).resolve(), int(chosen.play[1]))
    elif chosen.elsewhere:
        elsewhere(chosen.elsewhere, [path.resolve() for path in chosen.lessons] or LESSONS)
    else:
        for path in chosen.refresh or LESSONS:
            refresh(path.resolve())
