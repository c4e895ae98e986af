"""``--perf-help``: every name that a test can write, with one line each."""

from pathlib import Path

import pytest
from support.project import Project

from pytest_mlpatterns import patterns
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.config.arguments import ARGUMENT_HELP
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.plugin.help_text import help_lines


def names(width: int = 200) -> dict[str, str]:
    """What each name of the help means."""
    rows = [line.split(None, 1) for line in help_lines(width) if line.startswith("  ")]
    return {row[0]: row[1].strip() for row in rows}


def test_every_name_that_a_test_can_write_has_a_line() -> None:
    written = {name for name in dir(Perf) if name.startswith(("assert_", "measure_"))}
    known = {*METRICS, *ARGUMENT_HELP, *written, *(set(patterns.__all__) - {"Pattern"}), "perf", "perf_target"}
    found = names()
    assert known <= set(found)
    assert all(found.values())


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_the_terminal(width: int) -> None:
    assert max(map(len, help_lines(width))) <= max(width, 100)
    assert all(len(line) <= width for line in help_lines(width) if line.startswith("  "))


def test_abbreviations_are_spelled() -> None:
    assert names()["ttft:p95"] == "p95 time to first token (TTFT); compared by default"
    assert names()["ttft:p99"] == "p99 time to first token (TTFT)"


def test_metrics_that_are_compared_by_default_are_named() -> None:
    assert names()["throughput"] == "throughput; higher is better; compared by default"
    by_default = {name for name in METRICS if names()[name].endswith("; compared by default")}
    assert by_default | {"instructions"} == with_role(Role.PRIMARY).keys() | with_role(Role.GUARD).keys()
    assert names()["instructions"] == "instructions per request; compared if it is counted"


@pytest.mark.processes
def test_option_prints_the_help_and_runs_nothing(tmp_path: Path) -> None:
    run = Project().with_file("test_it.py", "raise SystemExit('collected')").run(tmp_path, "--perf-help")
    assert run.exit_code == 0
    assert "assert_rtm_below" in run.out
    assert "test session starts" not in run.out
