"""Functions by the names of their source, alike in two trees."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from support.each_row import each_row

from pytest_mlpatterns.profiling.frame_names import SourceNames
from pytest_mlpatterns.profiling.py_spy import RawFrame
from pytest_mlpatterns.records.profile import Frame

SOURCE = """\
import functools


class Digits:
    class Inner:
        def score(self):
            return 1

    @functools.cache
    @staticmethod
    def predict(values):
        return [value + 1 for value in values]

    def rank(self, values):
        return sorted(values, key=lambda value: -value)


def build():
    async def predict(values):
        return values
    return predict


TABLE = build()
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "top" / "project").mkdir(parents=True)
    (tmp_path / "top" / "project" / "model.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path / "top"


def named(tree: Path, name: str, line: int, qualified: str = "") -> Frame:
    names = SourceNames(tree / "project", tree)
    return names.frame(RawFrame(name, str(tree / "project" / "model.py"), line, qualified))


@each_row(
    ("name", "line", "function", "defined"),
    ("score", 7, "Digits.Inner.score", 6),
    ("predict", 12, "Digits.predict", 11),
    ("<listcomp>", 12, "Digits.predict", 11),
    ("<lambda>", 15, "Digits.rank", 14),
    ("predict", 20, "predict", 19),
    ("build", 21, "build", 18),
    ("<module>", 24, "<module>", 0),
    ("moved", 12, "moved", 0),
)
def test_a_function_has_its_qualified_name_and_the_line_of_its_definition(
    tree: Path, name: str, line: int, function: str, defined: int
) -> None:
    frame = named(tree, name, line)
    assert (frame.function, frame.file, frame.line, frame.owner) == (function, "model.py", defined, "project")


def test_two_trees_give_equal_frames(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "project").mkdir(parents=True)
    (other / "project" / "model.py").write_text("\n\n" + SOURCE, encoding="utf-8")
    before, now = named(tree, "rank", 15), named(other, "rank", 17)
    assert before == now
    assert (before.line, now.line) == (14, 16)


def test_a_file_beside_the_project_is_the_projects_too(tree: Path) -> None:
    (tree / "shared.py").write_text("def helps():\n    pass\n", encoding="utf-8")
    names = SourceNames(tree / "project", tree)
    frame = names.frame(RawFrame("helps", str(tree / "shared.py"), 2))
    assert (frame.function, frame.file, frame.owner) == ("helps", "../shared.py", "project")


def test_code_from_elsewhere_does_not_name_the_machine(tree: Path, tmp_path: Path) -> None:
    frame = SourceNames(tree / "project", tree).frame(RawFrame("f", str(tmp_path / "lib" / "far.py"), 1))
    assert (frame.file, frame.owner) == ("lib/far.py", "project")


def test_packages_and_the_standard_library_are_told_apart_by_their_place(tree: Path) -> None:
    names = SourceNames(tree / "project", tree)
    library = names.frame(RawFrame("solve", str(Path(np.linalg.__file__)), 1, "Solver.solve"))
    assert (library.function, library.file, library.owner) == ("Solver.solve", "numpy/linalg/__init__.py", "library")
    python = names.frame(RawFrame("dumps", json.__file__, json.dumps.__code__.co_firstlineno + 50))
    assert (python.function, python.file, python.owner) == ("dumps", "json/__init__.py", "python")
    assert python.line == json.dumps.__code__.co_firstlineno


@each_row(
    ("file", "owner"),
    [("", "native"), ("<frozen importlib._bootstrap>", "python"), ("numpy/random/_generator.pyx", "native")],
)
def test_code_without_a_file(tree: Path, file: str, owner: str) -> None:
    frame = SourceNames(tree).frame(RawFrame("f", file, 1))
    assert (frame.function, frame.file, frame.owner) == ("f", file, owner)


def test_a_qualified_name_serves_where_the_source_does_not(tree: Path) -> None:
    (tree / "broken.py").write_text("def (", encoding="utf-8")
    names = SourceNames(tree)
    raw = RawFrame("<lambda>", str(tree / "broken.py"), 1, "A.f.<locals>.g.<locals>.<lambda>")
    assert names.frame(raw).function == "g"
    gone = RawFrame("h", str(tree / "gone.py"), 1)
    assert names.frame(gone).function == "h"
    (tree / "long.py").write_text("def f(): pass\n" * 50_000, encoding="utf-8")
    assert names.frame(RawFrame("f", str(tree / "long.py"), 3)).line == 0


def test_the_text_of_a_line_of_the_project(tree: Path) -> None:
    names = SourceNames(tree / "project", tree)
    frame = names.frame(RawFrame("rank", str(tree / "project" / "model.py"), 15))
    assert names.line(frame, 15) == "return sorted(values, key=lambda value: -value)"
    assert names.line(frame, 0) == names.line(frame, 900) == ""
    python = names.frame(RawFrame("dumps", json.__file__, 1))
    assert names.line(python, 1) == ""
    assert sys.prefix not in repr((frame, python))
