"""Histories of github-action-benchmark and asv become lines; files that do not fit are refused, or left out and counted
in a warning.

The samples have the form of what the tools write: data.js of github-action-benchmark 1.20, results of asv 0.6.6.
"""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.changes.series import Point, Segment, Series
from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.history import exchange
from pytest_mlpatterns.history.exchange import otava_config, otava_table, read_foreign, with_positions
from pytest_mlpatterns.records.change import Course
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine
from pytest_mlpatterns.units import Unit

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "bce491700ba3728f331ea31e4a1785d443c9b8df"
OTHER = "d055f63d98c78adef3a4de0221f07a2c795a953c"


def bench(name: str, value: object, unit: str, **more: object) -> dict[str, object]:
    return {"name": name, "value": value, "unit": unit, **more}


def run(
    *benches: object, commit: str = COMMIT, tool: str = "cargo", date: object = 1_690_705_390_969
) -> dict[str, Any]:
    author = {"email": "a@example.org", "name": "Ada", "username": "ada"}
    head = {
        "author": author,
        "committer": author,
        "id": commit,
        "message": "x",
        "timestamp": "2023-07-30T13:52:50+05:30",
    }
    return {"commit": head, "date": date, "tool": tool, "benches": list(benches)}


def script(**suites: list[Any]) -> str:
    data = {"lastUpdate": 1_690_705_393_519, "repoUrl": "https://example.org/x", "entries": suites}
    return f"window.BENCHMARK_DATA = {json.dumps(data, indent=2)}"


def lines_of(path: Path, text: str) -> dict[str, HistoryLine]:
    path.write_text(text, encoding="utf-8")
    return {line.test: line for line in read_foreign(path).lines}


# --- github-action-benchmark ------------------------------------------------------------------------------------------


def test_a_data_js_gives_a_line_for_each_bench_of_each_run(tmp_path: Path) -> None:
    text = script(
        Benchmark=[run(bench("fib", 37_174, "ns/iter", range="± 7,527")), run(bench("fib", 2, "ms"), commit=OTHER)],
        **{"on arm": [run(bench("fib", 1, "s"))]},
    )
    (tmp_path / "data.js").write_text(text, encoding="utf-8")

    lines = read_foreign(tmp_path / "data.js").lines

    assert [(line.machine, line.at.commit) for line in lines] == [
        ("imported Benchmark", COMMIT),
        ("imported Benchmark", OTHER),
        ("imported on arm", COMMIT),
    ]
    assert [line.values["imported(time)"][0].value for line in lines] == [37_174, 2e6, 1e9]
    assert [HistoryLine.from_text(line.to_text()) for line in lines] == list(lines)
    assert {line.date for line in lines} == {"2023-07-30T08:23:10+00:00"}
    assert {line.setup for line in lines[:2]} == {line.setup for line in lines[:2]}
    assert lines[0].setup != lines[2].setup


@pytest.mark.parametrize(
    ("tool", "unit", "metric"),
    [
        ("pytest", "iter/sec", "imported(iter/sec, higher)"),
        ("benchmarkjs", "ops/sec", "imported(ops/sec, higher)"),
        ("go", "ns/op", "imported(time)"),
        ("go", "B/op", "imported(size)"),
        ("go", "allocs/op", "imported(allocs/op)"),
        ("go", "MB/s", "imported(MB/s, higher)"),
        ("jmh", "us/op", "imported(time)"),
        ("customSmallerIsBetter", "Percent", "imported(Percent)"),
        ("customSmallerIsBetter", "ops/s", "imported(ops/s)"),
        ("customBiggerIsBetter", "Megabytes", "imported(size, higher)"),
        ("customBiggerIsBetter", "", "imported(value, higher)"),
    ],
)
def test_unit_and_direction_are_those_of_the_tool(tmp_path: Path, tool: str, unit: str, metric: str) -> None:
    line = lines_of(tmp_path / "data.js", script(Benchmark=[run(bench("x", 4, unit), tool=tool)]))["x"]

    assert list(line.values) == [metric]
    known = metric_named(metric)
    assert known.better == ("higher" if "higher" in metric else "lower")
    assert known.unit in (Unit.DURATION, Unit.SIZE, Unit.COUNT)


def test_values_of_one_name_are_launches_of_one_run(tmp_path: Path) -> None:
    text = script(Benchmark=[run(bench("x", 4, "ns/op"), bench("x", 5, "ns/op"), bench("x", 7, "B/op"), tool="go")])

    line = lines_of(tmp_path / "data.js", text)["x"]

    assert [one.value for one in line.values["imported(time)"]] == [4, 5]
    assert [one.value for one in line.values["imported(size)"]] == [7]


def test_a_script_is_read_as_data(tmp_path: Path) -> None:
    good = script(Benchmark=[run(bench("x", 1, "s"))])
    for text in (f"\ufeff{good};\n", good.removeprefix("window.BENCHMARK_DATA = "), good.replace(" = ", "=")):
        assert list(lines_of(tmp_path / "data.js", text)) == ["x"]
    for text in (f"{good}; alert(1)", f"alert(1); {good}", good.replace('"fib"', "fib()") + "()"):
        with pytest.raises(ResultFileError, match="expected JSON, or data"):
            lines_of(tmp_path / "data.js", text)


def test_what_does_not_fit_is_left_out_and_counted(tmp_path: Path) -> None:
    odd = [
        bench("zero", 0, "s"),
        bench("text", "4", "s"),
        bench("true", True, "s"),
        bench("huge", 10**400, "s"),
        bench("large", 1e28, "s"),
        7,
    ]
    text = script(
        Benchmark=[run(*odd, bench("kept", 1, "s")), run(commit="HEAD"), run(date="today"), run(date=1e300), "x"],
        Other={"benches": None},  # type: ignore[arg-type]
    )
    (tmp_path / "data.js").write_text(text, encoding="utf-8")

    found = read_foreign(tmp_path / "data.js")

    assert [line.test for line in found.lines] == ["kept"]
    assert found.warnings == (
        "5 left out: values that are no numbers above zero",
        "1 left out: benches without a name",
        "3 left out: runs without a commit and a date",
        "2 left out: runs without a list of benches",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected JSON"),
        ("[]", "expected an object"),
        ("{}", "expected data.js of github-action-benchmark or a result of asv"),
        ('{"entries": []}', "expected data.js"),
        (script(Benchmark=[]), "no value that can be imported"),
        ('{"entries": {"a": ' + "[" * 100_000, "nested too deeply"),
        (script(Benchmark=[run(bench("x", 0, "s"))]), "1 left out: values"),
    ],
)
def test_another_file_is_refused_with_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ResultFileError, match=message):
        lines_of(tmp_path / "data.js", text)


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.js").write_bytes(b"\xff\xfe")
    for name in ("data.js", "absent.js"):
        with pytest.raises(ResultFileError, match="cannot be read"):
            read_foreign(tmp_path / name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["entries", "Benchmark", "benches", "commit", "id", "date", "tool", "name", "value", "unit"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@PROPERTY
@given(data=JSON)
def test_no_data_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    file = tmp_path_factory.mktemp("data") / "data.js"
    for text in (data, {"entries": data}, {"entries": {"Benchmark": data}}, {"entries": {"B": [run(data)]}}):
        try:
            lines_of(file, json.dumps(text))
        except ResultFileError:
            continue


# --- asv --------------------------------------------------------------------------------------------------------------

COLUMNS = ["result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b", "stats_q_25"]


def asv_result(**changes: Any) -> dict[str, Any]:
    results = {
        "b.Suite.time_range": [
            [3.2e-06, 3.9e-06, math.nan, None],
            [["10", "1000"], ["'a'", "'b,c'"]],
            "7f57",
            1_795_983_516_969,
            8.6,
            [3.1e-06, -math.inf, None, None],
            [3.3e-06, math.inf, None, None],
        ],
        "b.track_size": [[15.0], [], "e980", 1_795_983_525_576, 6.68],
        "b.peakmem_x": [[44_736_512], [], "0412", 1_795_983_534_308, 2.4],
        "b.time_fail": [None, [], "5572"],
    }
    return {
        "commit_hash": COMMIT,
        "env_name": "virtualenv-py3.12-numpy",
        "date": 1_795_983_504_000,
        "params": {"machine": "tau", "arch": "x86_64"},
        "result_columns": COLUMNS,
        "results": results,
        "version": 2,
        **changes,
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """asv's directory of results, with one machine and one commit."""
    machine = tmp_path / "results" / "tau"
    machine.mkdir(parents=True)
    units = {"b.Suite.time_range": {"unit": "seconds"}, "b.track_size": {"unit": "things"}, "version": 2}
    (tmp_path / "results" / "benchmarks.json").write_text(json.dumps(units), encoding="utf-8")
    (machine / "machine.json").write_text('{"machine": "tau", "version": 1}', encoding="utf-8")
    (machine / "bce49170-virtualenv.json").write_text(json.dumps(asv_result()), encoding="utf-8")
    return tmp_path / "results"


def test_a_directory_of_asv_gives_a_line_for_each_case_of_each_benchmark(results: Path) -> None:
    found = read_foreign(results)
    lines = {line.test: line for line in found.lines}

    assert set(lines) == {
        "b.Suite.time_range(10, 'a')",
        "b.Suite.time_range(10, 'b,c')",
        "b.track_size",
        "b.peakmem_x",
    }
    first = lines["b.Suite.time_range(10, 'a')"]
    (value,) = first.values["imported(time)"]
    assert value.value == pytest.approx(3200)
    assert value.relative_error == pytest.approx(0.2 / 3.2 / (2 * 2.5758))
    assert lines["b.Suite.time_range(10, 'b,c')"].values["imported(time)"][0].relative_error == 0
    assert list(lines["b.track_size"].values) == ["imported(things)"]
    assert list(lines["b.peakmem_x"].values) == ["imported(size)"]
    assert first.machine == "imported tau virtualenv-py3.12-numpy"
    assert (first.at, first.date) == (CommitPosition(COMMIT), "2026-11-29T20:18:24+00:00")
    assert found.warnings == ("2 left out: values that are no numbers above zero",)


def test_one_machine_or_one_file_of_asv_gives_the_same(results: Path) -> None:
    whole = read_foreign(results).lines
    assert read_foreign(results / "tau").lines == whole
    assert read_foreign(results / "tau" / "bce49170-virtualenv.json").lines == whole


def test_another_version_of_a_benchmark_is_another_set_up(results: Path) -> None:
    changed = asv_result(commit_hash=OTHER)
    changed["results"]["b.track_size"][2] = "ffff"
    (results / "tau" / "d055f63d-virtualenv.json").write_text(json.dumps(changed), encoding="utf-8")

    lines = read_foreign(results).lines

    for test, different in (("b.track_size", 2), ("b.peakmem_x", 1)):
        assert len({line.setup for line in lines if line.test == test}) == different


def test_damaged_and_old_files_of_asv_are_left_out(results: Path) -> None:
    for name, text in (
        ("1-cut.json", json.dumps(asv_result())[:200]),
        ("2-old.json", json.dumps(asv_result(version=1))),
        ("3-empty.json", json.dumps(asv_result(results=None))),
        ("4-odd.json", json.dumps(asv_result(results={"b.time_x": 7, "b.time_y": [5, 5, 5]}, params=[], env_name=3))),
    ):
        (results / "tau" / name).write_text(text, encoding="utf-8")

    found = read_foreign(results)

    assert len(found.lines) == 4
    assert found.warnings[:2] == (
        "1 left out: files that cannot be read",
        "1 left out: files of another format than asv's 2; asv update writes it",
    )


def test_a_directory_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ResultFileError, match=r"expected asv's directory of results; name it, for example \.asv/results"
    ):
        read_foreign(tmp_path)


def test_an_import_has_bounds(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_MOST_VALUES", 3)
    with pytest.raises(ResultFileError, match="has more than 3 values; import a part of it"):
        read_foreign(results)
    monkeypatch.setattr(exchange, "_MOST_FILES", 0)
    with pytest.raises(ResultFileError, match="has 1 results, expected at most 0"):
        read_foreign(results)


def test_units_are_guessed_by_name_without_the_list_of_benchmarks(results: Path) -> None:
    (results / "benchmarks.json").unlink()

    found = {line.test: list(line.values) for line in read_foreign(results).lines}

    assert found["b.Suite.time_range(10, 'a')"] == ["imported(time)"]
    assert found["b.track_size"] == ["imported(value)"]


def test_positions_are_those_of_known_commits(results: Path) -> None:
    lines = with_positions(read_foreign(results).lines, {COMMIT: 7})
    assert {line.at for line in lines} == {CommitPosition(COMMIT, 7)}
    assert with_positions(lines, {}) == lines


# --- Apache Otava -----------------------------------------------------------------------------------------------------


def series(metric: str, values: dict[int, float]) -> Series:
    points = tuple(
        Point(CommitPosition(f"{day:012x}", day), f"2026-10-{day:02}T00:00:00+00:00", math.log(value), 0.01)
        for day, value in values.items()
    )
    return Series("t.py::test_x", metric, "m", Course.VALUES, points, (Segment(0, len(points)),))


def test_a_table_for_otava_has_the_runs_that_have_every_metric_of_the_newest() -> None:
    table = otava_table(
        [
            series("rtm", {1: 4e6, 2: 5e6, 3: 6e6}),
            series("imported(ops/sec, higher)", {2: 10, 3: 11}),
            series("p95", {1: 9e6}),
        ]
    )

    assert list(csv.reader(io.StringIO(table.text))) == [
        ["time", "commit", "rtm", "imported(ops/sec_higher)"],
        ["2026-10-02T00:00:00+00:00", "000000000002", "5000000", "10"],
        ["2026-10-03T00:00:00+00:00", "000000000003", "6000000", "11"],
    ]
    assert table.left_out == 1


def test_the_configuration_for_otava_has_each_metric_with_its_direction() -> None:
    table = otava_table([series("rtm", {1: 4e6}), series("throughput", {1: 100})])

    data = yaml.safe_load(otava_config({'t.py::test_x: "odd"': ("a b.csv", table)}))

    assert data["tests"]['t.py::test_x: "odd"'] == {
        "type": "csv",
        "file": "a b.csv",
        "time_column": "time",
        "attributes": ["commit"],
        "metrics": {
            "rtm": {"column": "rtm", "direction": -1, "scale": 1},
            "throughput": {"column": "throughput", "direction": 1, "scale": 1},
        },
    }
