"""The course page's commands work as printed: from a fresh copy to grades, with nbgrader.

Its first block of commands makes the students' version of a week's lessons; three students hand
in; its second block grades them. nbgrader is not in requirements.txt: without it, this is skipped.
"""

import copy
import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from test_lessons import SOLUTION, replaced, role
from wrong_answers import WRONG

api = pytest.importorskip("nbgrader.api")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the commands are for bash")

PAGE = (ROOT / "lessons" / "README.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Grading with nbgrader\n")[1].split("\n## ")[0]
MAKE, GRADE = re.findall(r"```bash\n(.*?)```", SECTION, re.S)
FILES = "from kit import stored_study\nfrom train import improve\nprint(len(stored_study(ROOT)))"


@dataclass
class Course:
    folder: Path
    assignment: str
    lessons: list  # file names
    exercises: int  # each has 2 points; a lesson has a question in words, with 1 point


def run(commands, folder):
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]  # of the nbgrader under test
    mine = {"MINICF_FAST": "1", "OMP_NUM_THREADS": "1", "PATH": os.pathsep.join(folders)}
    mine["JUPYTER_CONFIG_DIR"] = str(folder / "no-configuration")  # nothing that a user has set
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=folder, env=os.environ | mine, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def cell_named(notebook, grade_id):
    cells = [cell for cell in notebook.cells if role(cell)]
    return next(cell for cell in cells if cell.metadata.nbgrader.grade_id == grade_id)


def right_answers(solved):
    """The instructor's, and a cell that loads what the other lessons need besides minicf/."""
    notebook = copy.deepcopy(solved)
    notebook.cells.append(nbformat.v4.new_code_cell(FILES))
    return notebook


def wrong_and_cheating(solved, exercise):
    """One wrong answer, whose graded test the student has emptied."""
    notebook = copy.deepcopy(solved)
    solution = cell_named(notebook, exercise)
    solution.source = replaced(SOLUTION, solution, next(iter(WRONG[exercise].values()))).source
    cell_named(notebook, f"{exercise}-test").source = "pass"
    return notebook


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course in which ada, bob and eve have been graded."""
    clone = tmp_path_factory.mktemp("clone")
    for name in ("minicf", "lessons"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", clone)
    run(MAKE, clone)

    folder = clone / "build" / "course"
    sources = sorted(folder.glob("source/*/*.ipynb"))
    assignment = sources[0].parent.name
    exercises = 0
    for source in sources:
        solved = nbformat.read(source, as_version=4)
        names = [cell.metadata.nbgrader.grade_id for cell in solved.cells if is_exercise(cell)]
        exercises += len(names)
        submissions = {
            "ada": right_answers(solved),
            "bob": nbformat.read(folder / "release" / assignment / source.name, as_version=4),
            "eve": wrong_and_cheating(solved, names[0]),
        }
        for student, notebook in submissions.items():
            place = folder / "submitted" / student / assignment
            place.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, place / source.name)
    run(GRADE, folder)
    return Course(folder, assignment, [source.name for source in sources], exercises)


def is_exercise(cell):
    return cell.cell_type == "code" and role(cell) == "solution"


def points(course):
    """What ada, bob and eve have before the words are read: all, none, all but an exercise each."""
    everything = 2 * course.exercises
    return {"ada": everything, "bob": 0, "eve": everything - 2 * len(course.lessons)}


def texts(course, where, suffix=".ipynb"):
    """The week's pages in a folder of the course."""
    names = [Path(lesson).with_suffix(suffix) for lesson in course.lessons]
    return [(course.folder / where / course.assignment / n).read_text("utf-8") for n in names]


def test_students_get_no_solution(course):
    text = "".join(texts(course, "release"))
    assert text.count("# YOUR CODE HERE") == course.exercises
    assert text.count("YOUR ANSWER HERE") == len(course.lessons)
    assert "### BEGIN" not in text


def test_points_in_the_gradebook(course):
    with api.Gradebook(f"sqlite:///{(course.folder / 'gradebook.db').as_posix()}") as gradebook:
        for student, expected in points(course).items():
            submission = gradebook.find_submission(course.assignment, student)
            assert submission.score == expected, student
            assert submission.max_score == 2 * course.exercises + len(course.lessons)
            assert submission.needs_manual_grade == (student != "bob")  # who wrote no words


def test_everything_a_lesson_imports_is_found_while_grading(course):
    for text in texts(course, "autograded/ada"):
        *cells, files = nbformat.reads(text, as_version=4).cells
        assert files.source == FILES and int(files.outputs[0].text) > 0
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert outputs and all(output.output_type != "error" for output in outputs)


def test_feedback_is_a_page_for_each_student(course):
    for student, expected in points(course).items():
        scores = []
        for page in texts(course, f"feedback/{student}", ".html"):
            score, most = re.search(r"Score: ([\d.]+) / ([\d.]+)", page).groups()
            scores.append((float(score), float(most)))
        assert sum(score for score, _ in scores) == expected
        assert sum(most for _, most in scores) == 2 * course.exercises + len(course.lessons)


def test_exported_grades(course):
    with open(course.folder / "grades.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["student_id"]: float(row["score"]) for row in rows} == points(course)
    assert {row["assignment"] for row in rows} == {course.assignment}
