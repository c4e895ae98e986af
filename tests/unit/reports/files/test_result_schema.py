"""The JSON Schema of the result file, against a real run and against any results that there can be."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from support.each_row import each_row
from support.file_schemas import schema_text
from support.golden import GOLDEN
from support.histories import CHANGE
from support.profiles import slower_normalize
from support.project import Project
from support.reported import OVERLOAD
from support.result_strategies import RESULTS
from support.streams import stream_result
from support.synthetic import ENVIRONMENT, FEW, LAYERS, capacity, counterpart, result, verdict

from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.history import NewChange
from pytest_mlpatterns.records.launch import Noise, SearchEnd, Taken
from pytest_mlpatterns.records.result import RankedPattern, Ranking, RunEnd, TestResult
from pytest_mlpatterns.records.verdict import Gate, Kind, Outcome
from pytest_mlpatterns.reports.files.result_file import MOST, ResultFile, read_results, results_json
from pytest_mlpatterns.system.empty_results import write_empty_results

SCHEMA: dict[str, Any] = json.loads(schema_text(ResultFile))
VALIDATOR = Draft202012Validator(SCHEMA)
SINCE_0_2_0 = {
    "accepted",
    "accepted_file",
    "by_machine",
    "ceiling",
    "end",
    "entry",
    "failed_outcome",
    "gate",
    "history",
    "judged_by",
    "native",
    "open_by",
    "order",
    "recorded_commit",
    "revision_commit",
    "run",
    "sorting_ns",
    "taken",
    "terms",
    "unjudged",
    "unmeasured",
    "why_open",
}
"""Members that files of 0.2.0 do not have; new ones belong here, so that older files stay readable."""
SINCE_0_2_0_IN_RESULTS = {"kind", "latency_over_time", "overload", "steps"}
"""The same of results alone: a reference has had a member of this name before."""
WORSE = result(verdicts=(verdict(Outcome.FAIL),)).to_json()["verdicts"][0]
ACCOUNT: dict[str, object] = {
    "mode": "update",
    "recorded": ["t.py::test_a"],
    "recorded_although_worse": [{"test": "t.py::test_a", **WORSE}],
    "without_test": [],
    "pruned": [],
}


def written(results: Sequence[TestResult], **more: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(results_json(results, ENVIRONMENT, "2026-11-24", baseline=ACCOUNT, **more))
    return data


def test_a_file_of_an_earlier_release_is_valid_and_read() -> None:
    data = written([result(verdicts=(verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4)),))])
    del data["results"][0]["verdicts"][0]["judged_by"]
    VALIDATOR.validate(data)
    (read,) = TestResult.from_json(data["results"][0]).verdicts
    assert read.figure == read.metric == "rtm"


def test_a_file_that_shows_single_requests_of_its_streams_is_valid_and_read() -> None:
    data = written([stream_result()])
    data["results"][0]["stream"]["requests"] = [{"due_ns": 5, "chunks_ns": [3, 4], "outcome": 200}]
    VALIDATOR.validate(data)
    assert read_results(json.dumps(data)).results == (stream_result(),)


def test_a_result_with_everything_is_valid() -> None:
    full = result(
        verdicts=(verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4)),),
        passed=False,
        failed_requests={"500": 3, "-1": 1},
        capacities=(capacity(), capacity(at_least=True, objective="p95<50.0ms")),
        layers=LAYERS,
        reference=counterpart(kind="revision"),
        noise=(Noise("others used 40 % of the machine"),),
        profile=slower_normalize(),
    )
    rows = (
        RankedPattern("t.py::test_a[cached]", "cached", 1, (1.0, 0.9, 1.0), {"rtm": (1.0, 0.5)}, None, ("?",)),
        RankedPattern("t.py::test_a[single]", "single", None, None, {}, "rtm<20ms is not kept"),
    )
    ranking = Ranking("t.py::test_a", {"rtm": 0.5}, ("rtm<20ms",), "cached", rows, ("a note",))
    VALIDATOR.validate(written([full], ranking=[ranking.to_json()], commit="1a2b3c4+"))


def test_what_a_run_did_with_the_history_is_valid_and_read() -> None:
    news = NewChange(CHANGE, "median latency +4.2 %", "python -m pytest_mlpatterns bisect", fails=True, location=None)
    history = {"place": "perf-history.jsonl", "added": 1, "position": 44, "clean": True, "changes": [news.to_json()]}
    data = written([result()], history=history)
    VALIDATOR.validate(data)
    assert read_results(json.dumps(data)).history == json.loads(json.dumps(history))


def test_a_change_of_a_file_from_before_has_a_form_and_is_read() -> None:
    change = {
        "test": "t.py::test_a",
        "metric": "rtm",
        "machine": "",
        "course": "values",
        "form": "drift",
        "factor": [1.04, 1.03, 1.05],
        "is_worse": True,
        "date": "2026-10-03T12:00:00+00:00",
        "is_confirmed": True,
        "old": {"commit": "a1b2c3", "position": 40},
        "new": {"commit": "d4e5f6", "position": 44},
        "p_value": 1e-6,
        "sentence": "median latency +4.0 % little by little",
        "command": "",
        "fails_the_run": False,
    }
    history = {"place": "git:perf", "added": 1, "position": 44, "clean": True, "changes": [change]}
    data = written([result()], history=history)
    VALIDATOR.validate(data)
    assert read_results(json.dumps(data)).history == history


@pytest.mark.parametrize(
    "run", [RunEnd(), RunEnd(complete=False, not_run=None), RunEnd(False, ("t.py::test_b",), ("t.py::test_ordinary",))]
)
def test_how_the_run_ended_is_valid_and_read(run: RunEnd) -> None:
    data = written([result()], run=run)
    VALIDATOR.validate(data)
    assert read_results(json.dumps(data)).run == run


@pytest.mark.parametrize(("end", "failed"), [(RunEnd(False, None), ()), (RunEnd(True, (), ("t.py",)), ("t.py",))])
def test_a_file_without_results_is_valid_and_read(tmp_path: Path, end: RunEnd, failed: tuple[str, ...]) -> None:
    write_empty_results(tmp_path / "r.json", complete=end.complete, failed=failed)
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    VALIDATOR.validate(json.loads(text))
    assert (read_results(text).run, read_results(text).results) == (end, ())


def test_what_is_no_number_is_left_out_and_the_file_stays_readable() -> None:
    known, unknown = (0.25, 0.1, 0.2), (0.5, math.nan, math.nan)
    odd = result(
        metrics={"rtm": (4e6, 3e6, math.inf), "asl": (math.nan, math.nan, math.nan)},
        launches={"rtm": ((4e6, 0.01), (math.nan, 0.01))},
        load_over_time=(known, unknown),
    )
    data = written([odd])["results"][0]
    assert data["metrics"] == {"rtm": [4e6, 3e6, MOST]}
    assert data["launches"] == {"rtm": [[4e6, 0.01]]}
    assert data["load_over_time"] == [list(known)]
    assert read_results(json.dumps(written([odd]))).results[0].metrics == {"rtm": (4e6, 3e6, MOST)}


def test_a_file_of_0_2_0_is_read() -> None:
    text = (GOLDEN / "results-0.2.0.json").read_text(encoding="utf-8")
    found = read_results(text).results
    plain = json.loads(text)["results"]
    assert [one.test for one in found] == [one["test"] for one in plain]
    (search,) = found[1].limits.capacities
    assert search.nmrt.value == plain[1]["capacities"][0]["nmrt"]["value"]
    assert (search.end, found[1].conditions.taken, found[1].setup.order) == (SearchEnd.FOUND, Taken(), "")


def test_a_result_without_what_is_newer_than_0_2_0_is_read() -> None:
    full = result(
        capacities=(capacity(), capacity(at_least=True, objective="p95<50.0ms")),
        layers=LAYERS,
        overloads=(OVERLOAD,),
        reference=counterpart(kind="revision"),
    )
    old = _as_of_0_2_0(written([full]))
    VALIDATOR.validate(old)
    (found,) = read_results(json.dumps(old)).results
    assert (found.kind, found.definition.gate) == (Kind.PASSED, Gate.FAIL)
    assert _as_of_0_2_0(written([found])) == old


def _as_of_0_2_0(data: dict[str, Any]) -> Any:
    """The values of a result file without what is newer."""
    found = _without(data, SINCE_0_2_0)
    return {**found, "results": [_without_some(one, SINCE_0_2_0_IN_RESULTS) for one in found["results"]]}


def _without_some(data: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: member for name, member in data.items() if name not in names}


def _without(value: Any, names: set[str]) -> Any:
    """Plain values without the members of these names."""
    if isinstance(value, dict):
        return {name: _without(member, names) for name, member in value.items() if name not in names}
    return [_without(item, names) for item in value] if isinstance(value, list) else value


@FEW
@given(st.lists(RESULTS, max_size=2))
def test_any_results_are_valid(results: list[TestResult]) -> None:
    VALIDATOR.validate(written(results))


def test_what_is_newer_than_0_2_0_may_be_absent() -> None:
    for one in SCHEMA["$defs"].values():
        assert not SINCE_0_2_0 & set(one.get("required", ()))
    assert not SINCE_0_2_0_IN_RESULTS & set(SCHEMA["$defs"]["TestResult"]["required"])


@each_row(
    "changes",
    {"passed": "yes"},
    {"metrics": {"rtm": [1, 2]}},
    {"outcome": "fine"},
    {"latency": {}},
    {"surprise": 1},
    {"failed_requests": {"many": 3}},
)
def test_other_values_are_refused(changes: dict[str, Any]) -> None:
    data = written([result()])
    data["results"][0].update(changes)
    with pytest.raises(ResultFileError, match=r"is damaged: results\[0\]"):
        read_results(json.dumps(data))


@pytest.mark.processes
def test_the_file_of_a_real_run_is_valid(tmp_path: Path) -> None:
    """Distributed: there results travel between processes before they are written."""
    body = """
    from pytest_mlpatterns import Batched, Cached, Queued, Single

    @pytest.mark.perf(pattern=[Single(), Cached() | Batched() | Queued()], budget="2s", wire="rest+json")
    def test_patterns(perf):
        perf.measure_nmrt()

    @pytest.mark.perf(rate_rps=50)
    def test_fails(perf):
        perf.assert_rtm_below("1ns")

    async def chunks(item):
        for number in range(5):
            yield number

    @pytest.mark.perf(rate_rps=50, model=chunks)
    def test_streams(perf):
        perf.assert_goodput_at_least(rps=1, slo="ttft<5s")
    """
    arguments = (
        "--perf-json=out.json",
        "--perf-baseline=update",
        "--perf-rank=rtm=0.5,asl=0.5,rtm<10s",
        "-W",
        "ignore",
    )
    run = Project().with_tests(body).run(tmp_path, *arguments, "-n", "1")
    data = run.json("out.json")
    VALIDATOR.validate(data)
    assert len(data["results"]) == 4
    (streams,) = (one for one in data["results"] if one["stream"] is not None)
    assert streams["stream"]["output_tokens"] == [5, 5, 5]
    assert "goodput(ttft<5.00s)" in streams["metrics"]
    assert [one["group"] for one in data["ranking"]] == ["test_perf.py::test_patterns"]
    assert any(one["capacities"] for one in data["results"])
    assert any(layer["layer"] == "queued" for one in data["results"] for layer in one["layers"])
