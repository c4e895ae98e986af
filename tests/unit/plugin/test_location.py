"""Where a test is defined: below its decorators, in the file that holds it, and nowhere for what is no function."""

import functools
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_mlpatterns.plugin.failures import location_of, raise_at_definition
from pytest_mlpatterns.records.result_parts import Location

HERE = Path(__file__)


def decorated(function: Any) -> Any:
    return functools.wraps(function)(function)


@decorated
@pytest.mark.filterwarnings("default")
def example() -> None:
    """Stands for a test."""


LINE = HERE.read_text(encoding="utf-8").splitlines().index("def example() -> None:") + 1


def item(function: object, root: Path) -> Any:
    return SimpleNamespace(
        function=function, nodeid="tests/test_other.py::test_it", config=SimpleNamespace(rootpath=root)
    )


def test_a_test_stands_at_its_def_and_not_at_its_decorators() -> None:
    assert location_of(item(example, HERE.parents[3])) == Location("tests/unit/plugin/test_location.py", LINE)


def test_one_that_is_defined_outside_of_the_root_directory_is_where_its_id_says(tmp_path: Path) -> None:
    assert location_of(item(example, tmp_path)) == Location("tests/test_other.py", LINE)


def test_a_function_whose_def_cannot_be_found_stands_where_it_begins() -> None:
    made: dict[str, Any] = {}
    exec(compile("\n\nmade = lambda: None", "<nowhere>", "exec"), made)
    assert location_of(item(made["made"], HERE.parent)) == Location("tests/test_other.py", 3)


def test_what_is_no_function_stands_nowhere(tmp_path: Path) -> None:
    assert location_of(item(None, tmp_path)) is None
    with pytest.raises(LookupError, match="nothing"):
        raise_at_definition(item(None, tmp_path), LookupError("nothing"))


def test_a_failure_is_raised_from_the_line_of_the_test() -> None:
    with pytest.raises(LookupError) as caught:
        raise_at_definition(item(example, HERE.parent), LookupError("late"))
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno, last.name) == (str(HERE), LINE, "example")
