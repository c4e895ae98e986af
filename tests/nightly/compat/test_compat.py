"""``make compat`` itself: how an outcome is judged and shown, and that the page has a row for every environment."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from environments import ENVIRONMENTS, Environment, Kind
from outcome import Outcome, outcome_of
from page import PAGE, table_of
from servers import SERVERS, table_of_servers
from tools import PROJECTS

JUNIT = '<testsuites><testsuite tests="{tests}" skipped="{skipped}" failures="0" errors="0"/></testsuites>'


def judged(
    folder: Path, environment: Environment, out: str = "", code: int = 0, *, tests: int = 10, results: str = "test_load"
) -> Outcome:
    (folder / "junit-0.xml").write_text(JUNIT.format(tests=tests, skipped=2))
    (folder / "perf-0.json").write_text(results)
    return outcome_of(environment, folder, [subprocess.CompletedProcess([], code, out, "")], {"other": "1.0"})


def test_tests_that_pass_as_many_as_expected_work(tmp_path: Path) -> None:
    outcome = judged(tmp_path, Environment("other"))
    assert (outcome.passed, outcome.problem, str(outcome)) == (8, "", "8 tests passed")
    assert Outcome(**outcome.to_json()) == outcome


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"code": 1}, "exit code 1"),
        ({"tests": 9}, "expected {'passed': 8, 'skipped': 2}"),
        ({"results": "[]"}, "test_load has no result"),
        ({"out": "lib/pytest_mlpatterns/plugin/entry.py:3: DeprecationWarning: old"}, "a warning of ours"),
    ],
)
def test_anything_else_is_a_problem(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    assert problem in judged(tmp_path, Environment("other"), **changes).problem  # type: ignore[arg-type]


def test_a_clash_has_to_end_in_its_line_alone(tmp_path: Path) -> None:
    environment = Environment("other", clash="both own it")
    assert judged(tmp_path, environment, "ERROR: both own it\n\n", 4).line == "both own it"
    assert judged(tmp_path, environment, "Traceback\nERROR: both own it\n", 4).problem
    assert judged(tmp_path, environment, "ERROR: both own it\n", 1).problem


def test_a_table_has_versions_and_outcomes() -> None:
    found = {
        Environment("a", ("a>=1",), remark="slower"): Outcome({"a": "1.2"}, 8),
        Environment("b", ("b",), clash="x"): Outcome({"b": "2"}, line="x"),
        Environment("c", ("c",)): Outcome({}, problem="broken"),
        Environment("d", ("pytest",), prerelease=True): Outcome({"pytest": "9.2.0"}, 1),
        Environment("e", ("pytest",), prerelease=True): Outcome({"pytest": "9.3.0rc1"}, 1),
        Environment("f", ("f",)): Outcome({"f": "1"}, 1),
        Environment("Python 3.99", kind=Kind.VERSIONS): Outcome(absent="no Python 3.99"),
    }
    assert table_of(Kind.NEIGHBOURS, found).splitlines()[2:] == [
        "| works; slower | a 1.2 |",
        "| one line: `… both own the option --perf-baseline; …` | b 2 |",
        "| **does not work** | c – |",
        "| works; pytest has no newer one | d 9.2.0 |",
        "| works | e 9.3.0rc1, f 1 |",
    ]
    assert table_of(Kind.VERSIONS, found).splitlines()[2:] == ["| Python 3.99 | – | – | not run: no Python 3.99 |"]


def test_the_page_names_every_environment_and_none_that_does_not_work() -> None:
    text = PAGE.read_text(encoding="utf-8")
    cells = [cell for line in text.splitlines() if line.startswith("| ") for cell in line.strip("| ").split(" | ")]
    named = {*cells, *(one.rpartition(" ")[0] for cell in cells for one in cell.split(", "))}
    assert named >= {environment.name for environment in ENVIRONMENTS}
    assert named >= set(SERVERS)
    assert "does not work" not in text
    assert "| **" not in text  # a server that does not fit


def test_a_server_fits_if_it_keeps_its_version_beside_the_package() -> None:
    def resolve(requirements: Iterable[str]) -> dict[str, str]:
        asked = list(requirements)
        beside, name = "ours" in asked, asked[0].partition("[")[0]
        if beside and name == "mlflow":
            raise OSError("no solution")
        return {name: "1.0" if beside and name == "bentoml" else "2.0", "uvicorn": "0.3" if beside else "0.4"}

    table, unfit = table_of_servers(resolve, "ours")
    assert unfit == ["bentoml", "mlflow"]
    assert {"| **fits as 1.0 only** | bentoml 2.0 |", "| **does not fit** | mlflow 2.0 |"} <= {*table.splitlines()}
    assert "| fits; uvicorn 0.3 in place of 0.4 | fastapi[standard] 2.0, flask gunicorn 2.0" in table
    assert "litserve 2.0" in table


def test_every_project_file_is_used() -> None:
    used = {file for environment in ENVIRONMENTS for file in environment.files}
    there = {file.name for file in PROJECTS.glob("test_*.py")}
    assert there - {"test_mixed.py"} == {file for file in used if file.startswith("test_")} - {"test_installed.py"}
    assert len({environment.folder for environment in ENVIRONMENTS}) == len(ENVIRONMENTS)
