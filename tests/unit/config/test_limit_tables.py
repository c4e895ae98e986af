"""Limits as text, and tables of them by test."""

import re
from pathlib import Path

import pytest
from support.each_row import each_row

from pytest_mlpatterns.config.limit_tables import CALL, Row, read_limits, read_row
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.price import Price

PRICE = Price(0.04, 0.006, "USD")
CSV = "test,latency:p95 (ms),mean_ms,throughput,error_rate\nsmall-1,20,8.5,300 req/s,1%\nlarge-8,1.2 s,,40,\n"
TOML = '[small-1]\n"latency:p95" = "20ms"\nthroughput = 300\n[test_b]\nlimits = "p95"\n'


def limits(asked: object, tolerance: object = 0) -> dict[str, float]:
    return {one.metric.name: one.value for one in read_limits([Row(CALL, asked)], tolerance, price=PRICE)}


def refused(asked: object) -> str:
    with pytest.raises(SettingError) as error:
        limits(asked)
    return str(error.value)


def test_each_part_of_a_text_is_a_limit_of_its_own() -> None:
    text = "p95 < 50ms, mean<20ms,error_rate<1%, ttft:p99.9<300ms, throughput>=100, peak_memory<1KiB, cost<0.4 USD"
    names = {"p95": 50e6, "mean": 20e6, "error_rate": 0.01, "ttft:p99.9": 300e6, "throughput": 100}
    assert limits(text) == names | {"peak_memory": 1024, "cost": 0.4}


def test_a_tolerance_widens_a_limit_in_the_direction_that_is_worse() -> None:
    assert limits("p95<50ms, throughput>=100", "10%") == {"p95": pytest.approx(55e6), "throughput": 90}
    (one,) = read_limits([Row("limits.csv, line 2", "p95<1s")], "10%", price=None)
    assert one.source == "limit of limits.csv, line 2, widened by 10%"


@each_row(
    ("text", "said"),
    {
        "latency<50ms": "assert_that: latency<50ms limits 'latency', did you mean rtm? expected p95, mean",
        "p95<50ms, meen<20ms": "assert_that: meen<20ms limits 'meen', did you mean mean? expected p95, mean",
        "p95<50": "assert_that: p95<50: p95 is '50', expected a time with its unit",
        "p95": "assert_that: p95, expected a metric, < or >=, and a limit; write",
        "p95<1s,": "assert_that: , expected a metric",
        "throughput<100": "expected >=, since a higher throughput is better; write throughput>=100",
        "p95<=5ms": "expected <, since a lower p95 latency is better; write p95<5ms",
        "p95<1s, latency:p95<2s": "assert_that limits p95, expected one limit of it; leave one out",
        "error_rate==0": 'expected more than 0, which no run can show; write 0.01 or "1%"; perf.assert_no_failures()',
        None: "assert_that has None, expected limits",
    }.items(),
)
def test_what_cannot_be_read_is_named_by_its_part(text: object, said: str) -> None:
    assert said in refused(text)


@each_row("test", ["test_a.py::test_a[small-1]", "test_a.py::T::test_a[small-1]", "test_a.py::small-1", "small-1"])
def test_a_row_is_named_by_the_parameters_or_the_test(test: str) -> None:
    for name in ("small-1", test):
        assert read_row({name: "p95<1s", "unused": "?"}, test, Path()).limits == "p95<1s"


def test_a_row_that_is_missing_is_named_with_the_near_one() -> None:
    said = "has no 'smal-1', did you mean small-1? expected a row of this test; its rows are small-1, large-8"
    with pytest.raises(SettingError, match=re.escape(said)):
        read_row({"small-1": "", "large-8": ""}, "test_a.py::test_a[smal-1]", Path())


@pytest.mark.parametrize(("name", "text"), {"limits.csv": CSV, "limits.toml": TOML}.items())
def test_figures_of_a_file_are_limits(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    row = read_row(name, "test_a.py::test_a[small-1]", tmp_path)
    assert row.where == {"limits.csv": "limits.csv, line 2", "limits.toml": "limits.toml, small-1"}[name]
    found = {one.metric.name: one.value for one in read_limits([row], "10%", price=None)}
    assert found["p95"] == pytest.approx(22e6)
    assert found["throughput"] == 270
    if name == "limits.csv":
        assert (found["mean"], found["error_rate"]) == (pytest.approx(9.35e6), pytest.approx(0.011))
        assert limits(read_row(name, "test_a.py::test_a[large-8]", tmp_path).limits) == {"p95": 1.2e9, "throughput": 40}


@each_row(
    ("name", "text", "said"),
    ("no.toml", None, "no.toml cannot be read: [Errno 2] No such file"),
    ("a.toml", "small-1 = \n", "a.toml cannot be read: Invalid value (at line 1"),
    ("a.csv", "test,p95\nsmall-1,1s\nsmall-1,2s", "line 3 is ['small-1', '2s'], expected an id that is new"),
    ("a.csv", "test,p95\nsmall-1,1s,2s", "line 2 is ['small-1', '1s', '2s'], expected an id"),
    ("a.csv", "test,p95\nsmall-1,fast", "a.csv, line 2: p95 is 'fast', expected a time with its unit"),
    ("a.csv", "test,pp95\nsmall-1,1s", "a.csv, line 2 limits 'pp95', did you mean p95?"),
    ("a.toml", "small-1.p95 = 20", "a.toml, small-1: p95 is 20, expected a time with its unit"),
    ("a.toml", "small-1 = 20", "a.toml, small-1 has 20, expected limits"),
    ("limits.json", "{}", "is 'limits.json', expected limits by parameter, or a .toml or .csv file"),
)
def test_a_file_that_cannot_be_read_is_named_with_its_line_or_key(
    tmp_path: Path, name: str, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SettingError, match=re.escape(said)):
        read_limits([read_row(name, "test_a.py::test_a[small-1]", tmp_path)], 0, price=None)
