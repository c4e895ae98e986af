"""The export in pytest-benchmark's format, as pytest-benchmark itself and the trackers read it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import ENVIRONMENT, MS, PROPERTY, result

from pytest_mlpatterns.analysis.metrics.distribution_summary import latency_of
from pytest_mlpatterns.reports.files.pytest_benchmark import benchmark_json
from pytest_mlpatterns.reports.files.result_file import Results

if TYPE_CHECKING:
    from pytest_mlpatterns.records.result import TestResult


def exported(*results: TestResult) -> dict[str, Any]:
    text = benchmark_json(Results(results, ENVIRONMENT, "2026-11-24T12:00:00+00:00", {}, commit="1a2b3c4"))
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_test_is_a_benchmark_of_its_latency() -> None:
    latency = latency_of(np.arange(1, 1001) * MS)
    data = exported(result("tests/test_perf.py::test_digits[cached]", group="tests/test_perf.py::test_digits"))
    (one,) = data["benchmarks"]
    assert (one["name"], one["fullname"]) == ("test_digits[cached]", "tests/test_perf.py::test_digits[cached]")
    assert (one["group"], one["param"]) == ("tests/test_perf.py::test_digits", "cached")
    assert one["extra_info"]["metrics"]["throughput"] == 1234.4
    assert data["commit_info"]["id"] == "1a2b3c4"
    assert latency is not None
    stats = exported(result(latency=latency))["benchmarks"][0]["stats"]
    assert (stats["min"], stats["max"], stats["rounds"]) == (0.001, 1.0, 1000)
    assert stats["mean"] == pytest.approx(0.5005)
    assert stats["ops"] == pytest.approx(1 / 0.5005)
    assert stats["median"] == pytest.approx(0.5005)
    assert (stats["q1"], stats["q3"]) == (pytest.approx(0.25075), pytest.approx(0.75025))
    assert stats["iqr"] == pytest.approx(0.4995)
    assert stats["stddev_outliers"] == pytest.approx(423, rel=0.2)
    assert stats["outliers"] == f"{stats['stddev_outliers']};0"


def test_brackets_may_hold_colons_and_brackets() -> None:
    (one,) = exported(result("test_perf.py::TestShop::test_digits[cv::Mat-x[1]]"))["benchmarks"]
    assert (one["name"], one["param"]) == ("test_digits[cv::Mat-x[1]]", "cv::Mat-x[1]")


def test_a_test_without_brackets_belongs_to_no_group() -> None:
    (one,) = exported(result(group="test_perf.py::test_digits"))["benchmarks"]
    assert (one["group"], one["params"], one["param"]) == (None, None, None)


def test_a_test_in_which_nothing_succeeded_is_left_out() -> None:
    assert exported(result(latency=None))["benchmarks"] == []


@PROPERTY
@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=50))
def test_the_statistics_of_any_latencies_are_in_order(values: list[int]) -> None:
    stats = exported(result(latency=latency_of(np.array(values))))["benchmarks"][0]["stats"]
    ordered = [stats[name] for name in ("min", "q1", "median", "q3", "max")]
    assert ordered == sorted(ordered)
    assert stats["rounds"] == len(values)
    assert 0 <= stats["iqr_outliers"] <= len(values)
    assert stats["min"] <= stats["ld15iqr"] <= stats["hd15iqr"] <= stats["max"]


@pytest.mark.processes
def test_pytest_benchmark_compares_two_exports(tmp_path: Path) -> None:
    """The real command, as a process of its own."""
    for name, rtm_ns in (("0001_before", 4 * MS), ("0002_after", 8 * MS)):
        latency = latency_of(np.arange(1, 1001) * rtm_ns // 500)
        tests = [result(f"test_perf.py::test_digits[{pattern}]", latency=latency) for pattern in ("single", "cached")]
        text = benchmark_json(Results(tuple(tests), ENVIRONMENT, "2026-11-24T12:00:00+00:00", {}))
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    command = shutil.which("pytest-benchmark", path=str(Path(sys.executable).parent))
    assert command is not None
    files = ["0001_before.json", "0002_after.json"]
    arguments = ["compare", *files, "--group-by=fullname", "--columns=min,median,mean,ops,outliers,rounds,iterations"]
    done = subprocess.run(
        [command, *arguments, "--csv=out.csv"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    sys.stdout.write(done.stdout + done.stderr)
    assert done.returncode == 0
    assert "Failed to load" not in done.stdout + done.stderr
    assert done.stdout.count("test_digits[single]") >= 2
    assert "(2.00)" in done.stdout  # twice as slow as the other
    assert len((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()) == 5


def test_trackers_find_what_they_read() -> None:
    """github-action-benchmark reads fullname and mean, stddev, ops, rounds; Bencher mean, stddev, median and iqr."""
    data = exported(result())
    assert isinstance(data["machine_info"], dict)
    assert isinstance(data["commit_info"], dict)
    stats = data["benchmarks"][0]["stats"]
    names = ("mean", "stddev", "median", "iqr", "ops", "rounds")
    assert all(isinstance(stats[name], int | float) for name in names)
