"""Reports: finished results become text, compared with golden files, which are made from seeded values."""

import json
import math
import shlex
from collections.abc import Sequence

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.golden import BEYOND, LESS, OPEN, SAME, SLOWER, TAIL, WITHIN, check_golden, everything, searched
from support.splits import split
from support.synthetic import (
    CHANGED_FACTS,
    ENVIRONMENT,
    LAYERS,
    MS,
    SETUP,
    WIRE,
    S,
    capacity,
    counterpart,
    latencies,
    make_setup,
    result,
    verdict,
)

from pytest_mlpatterns.analysis.metrics.distribution_summary import latency_of
from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.baseline_entry import Entry, Update
from pytest_mlpatterns.records.launch import LaunchValue, Warmup
from pytest_mlpatterns.records.outcomes import Failure, describe_failures
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import BaselineGap
from pytest_mlpatterns.records.setup import FactChange, Setup
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.files.result_file import FORMAT, VERSION, Results, read_results, results_json
from pytest_mlpatterns.reports.text.comparison import gone_lines, update_lines
from pytest_mlpatterns.reports.text.failure import failure_text
from pytest_mlpatterns.reports.text.notes import describe_capacity, describe_cycle, describe_layer
from pytest_mlpatterns.reports.text.summary_table import summary_lines, verdict_of
from pytest_mlpatterns.reports.text.terminal_text import text_of, width_of


def summary(results: Sequence[TestResult], width: int, **how: bool) -> list[str]:
    """The lines of a summary without their styles."""
    return [text_of(spans) for spans in summary_lines(results, width, **how)]


def table(results: Sequence[TestResult], width: int) -> list[str]:
    """The rows of the table with its heading."""
    lines = summary(results, width)
    return lines[: lines.index("")] if "" in lines else lines


@pytest.mark.parametrize("width", [80, 140])
def test_the_summary_says_everything_that_there_is_to_say(width: int) -> None:
    check_golden(f"summary-{width}.txt", "\n".join(summary(everything(), width)) + "\n")


@pytest.mark.parametrize("width", [80, 140])
def test_a_verbose_summary_adds_percentiles_the_generator_and_how_steady_it_was(width: int) -> None:
    unsteady = (Warmup(S, 100, False), Warmup(S, 120, True))
    fixed = (Warmup(0, 0, None),)
    busy = {
        "cpu_ns_per_request": 18_400.0,
        "core_share": 0.31,
        "ceiling_rps": 41_000.0,
        "send_lag_p99_ns": 210_000.0,
        "connections": 16,
    }
    results = [
        result("test_perf.py::test_steady", reference=counterpart()),
        result("test_perf.py::test_unsteady", warmups=unsteady, generator=busy),
        result("test_perf.py::test_fixed", warmups=fixed, generator={}, latency=latency_of(latencies(MS, 60))),
        result("test_perf.py::test_nothing", warmups=(), generator={}, latency=None),
    ]
    check_golden(f"summary-verbose-{width}.txt", "\n".join(summary(results, width, verbose=True)) + "\n")


@pytest.mark.parametrize("width", [80, 140])
def test_nmrt_and_wires_have_columns_where_there_are_several_to_tell(width: int) -> None:
    lines = summary(searched(), width)
    check_golden(f"summary-nmrt-{width}.txt", "\n".join(lines) + "\n")
    assert all(len(row) <= width for row in table(searched(), width))


@each_row("results", [everything(), searched()])
@each_row("width", [80, 90, 100, 120, 140, 400])
def test_the_table_fits_the_terminal(results: list[TestResult], width: int) -> None:
    assert all(width_of(row) <= width for row in table(results, width))


@each_row("width", [0, 10, 40, 80, 100, 140, 400])
def test_the_columns_of_the_summary_stand_below_each_other(width: int) -> None:
    rows = [row for row in table(everything(), width) if "%" in row or "change" in row]
    end = rows[0].index("change") + len("change")
    assert all(row[end - 1] in "%–e" and row[end : end + 1] in ("", " ") for row in rows)


def test_narrow_tables_name_a_file_once_above_its_tests() -> None:
    rows = table(everything(), 80)
    assert rows[1] == "test_perf.py"
    assert "t_passes " in rows[2]
    assert rows[3].strip() == "(replicas=3)"
    assert sum("test_perf.py" in row for row in rows) == 1
    assert sum("::" in row for row in table(everything(), 400)) == len(everything())


@each_row(
    ("changes", "verdict"),
    ({"verdicts": ()}, "· measured"),
    ({"verdicts": (WITHIN,)}, "✓ pass"),
    ({"verdicts": (WITHIN, OPEN)}, "? undecided"),
    ({"verdicts": (BEYOND,), "passed": False}, "✗ FAIL"),
    ({"verdicts": (), "passed": False}, "✗ FAIL"),
    ({"verdicts": (OPEN,), "passed": False}, "✗ FAIL"),
    ({"verdicts": (), "passed": False, "interrupted": True}, "! interrupted"),
)
def test_a_row_of_the_summary_ends_with_its_verdict(changes: dict[str, object], verdict: str) -> None:
    one = result(**changes)  # type: ignore[arg-type]
    assert summary([one], 160)[1].endswith(f"  {verdict}")
    narrow = table([one], 80)
    assert narrow[2].endswith(f" {verdict}")
    assert narrow[3].strip() == "(replicas=3)"
    assert narrow[4:] == ["median: half of the requests are faster (RTM)"]  # ASL gives way to the names of tests
    assert "  median latency  " in summary([one], 160)[0]
    assert "  ASL (CPU share)  " in summary([one], 160)[0]


def test_a_long_command_is_shortened_in_a_narrow_terminal() -> None:
    command = f"Command('gunicorn -k uvicorn.workers.UvicornWorker {'-w 2 ' * 20}service:app')"
    served = result(setup=make_setup(pattern=command), verdicts=(WITHIN,))
    assert [row.split("  ")[0] for row in table([served], 80)[2:]] == [
        "test_digits",
        "",
        "median: half of the requests are faster (RTM)",
    ]
    assert "('gunicorn -k uv…" in table([served], 80)[3]
    assert command in "\n".join(table([served], 1000))


def test_verdicts_are_told_apart_without_colour() -> None:
    found = {verdict_of(one) for one in everything()}
    assert len({verdict.sign for verdict in found}) == len({verdict.word for verdict in found}) == len(found) == 6


def test_a_summary_of_good_results_has_nothing_below_its_table() -> None:
    assert len(summary([result(verdicts=(SAME,)), result(verdicts=(WITHIN,))], 160)) == 3


@each_row(("count", "tests"), [(1, "1 test has"), (3, "3 tests have")])
def test_tests_without_a_baseline_are_counted_in_one_line(count: int, tests: str) -> None:
    lines = summary([result(baseline_note="no baseline", baseline_gap=BaselineGap.ABSENT)] * count + [result()], 160)
    line = f"{tests} no baseline yet; record it: pytest --perf-baseline update"
    assert lines[-1] == line
    note = "no baseline (perf-baseline.json has test_perf.py::test_old, which no longer exists: rename the entry there)"
    lines = summary([result(baseline_note=note, baseline_gap=BaselineGap.ABSENT)] * count, 160)
    assert f"  {note}" in lines
    assert line in lines


@each_row(
    ("high", "tolerance", "changes", "said"),
    (-0.101, 0.1, {}, True),
    (-0.1, 0.1, {}, False),
    (-0.05, 0.1, {}, False),
    (-0.05, 0.04, {}, True),
    (-0.2, 0.25, {}, False),
    (-0.3, 0.1, {"baseline_note": "baseline of another machine, scaled"}, False),
    (-0.2, 0.1, {"verdicts": (verdict(Outcome.PASS, against="limit", change=(-0.3, -0.4, -0.2)),)}, False),
)
def test_a_test_that_is_surely_better_than_its_tolerance_is_offered_to_be_recorded(
    high: float, tolerance: float, changes: dict[str, object], said: bool
) -> None:
    better = verdict(Outcome.PASS, change=(-0.3, -0.4, high))
    one = result(**{"verdicts": (better,), "tolerance": tolerance, **changes})
    assert ("record it: --perf-baseline update" in "\n".join(summary([one], 160))) is said


def test_what_a_reader_of_the_comparison_has_to_know_is_said() -> None:
    note = "not compared with the recorded commit: perf-baseline.json is not in a git repository"
    assert summary([result(baseline_note=note, verdicts=(SAME,))], 160)[-1] == f"  {note}"


def entry(**metrics: float) -> Entry:
    return Entry(SETUP, {name: (LaunchValue(value, 0.01),) * 2 for name, value in metrics.items()}, {}, None, "2026")


def test_update_prints_old_and_new_and_the_tests_that_got_worse() -> None:
    now = entry(rtm=4.12 * MS, throughput=1234.4, asl=0.5)
    searched = "nmrt(p95<50.0ms)"
    updates = [
        Update("test_perf.py::test_digits", entry(rtm=5.0 * MS, throughput=1000.0), now),
        Update("test_perf.py::test_new", None, now, seen_from=0.1204),
        Update("test_perf.py::test_slower", entry(rtm=4.1 * MS, throughput=1240.0), now, worse=(SLOWER, LESS)),
        Update("test_perf.py::test_otherwise", entry(rtm=MS), now, differences=("load: a → b", "wire: c → d")),
        Update("test_perf.py::test_sustains", entry(nmrt=380.0), entry(nmrt=400.0, rtm=MS, **{searched: 390.0})),
    ]
    check_golden("update.txt", "\n".join(update_lines(updates)) + "\n")


@pytest.mark.parametrize(
    ("disturbed", "lines"),
    [
        ((), ["too wide to decide alone: {}"]),
        (("a neighbour",), ["recorded although disturbed; {}:", "  test_perf.py::test_digits: a neighbour"]),
    ],
)
def test_an_entry_that_is_too_wide_is_called_so_with_what_to_do(disturbed: tuple[str, ...], lines: list[str]) -> None:
    again = "record them again while the machine does nothing else, or compare with a commit, such as pytest "
    now = replace(entry(rtm=MS), disturbed=disturbed)
    first, *further = update_lines([Update("test_perf.py::test_digits", None, now, seen_from=0.88, is_wide=True)])
    assert first.endswith("this entry sees changes from 88 % on: too wide to decide alone")
    assert further == [one.format(f"{again}--perf-against HEAD") for one in lines]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (entry(rtm=4.12 * MS), entry(rtm=4.12 * MS, throughput=1000.0), "median latency 4.12 ms → 4.12 ms (+0.0 %)"),
        (entry(rtm=MS), entry(), "recorded"),
        (entry(rtm=0.0), entry(rtm=4.12 * MS), "median latency 0 ns → 4.12 ms"),
        (None, entry(asl=0.5), "new"),
    ],
    ids=["one side knows less", "nothing in common", "over a value of zero", "new and without times"],
)
def test_an_update_prints_only_what_both_know(before: Entry | None, after: Entry, line: str) -> None:
    assert update_lines([Update("test_perf.py::test_digits", before, after)]) == [f"test_perf.py::test_digits: {line}"]


@pytest.mark.parametrize(
    ("entries", "lines"),
    [
        ({"a.py::a": 1}, ["1 entry of the baseline belongs to no test", "  a.py::a"]),
        ({"a.py::a": 2, "b.py::b": 1}, ["3 entries of the baseline belong to no test", "  a.py::a", "  b.py::b"]),
        (
            {f"a.py::{number}": 1 for number in range(12)},
            [
                "12 entries of the baseline belong to no test",
                *(f"  a.py::{number}" for number in range(10)),
                "  and 2 more tests",
            ],
        ),
    ],
    ids=["one", "three of two tests", "many"],
)
def test_entries_without_a_test_are_counted_and_named(entries: dict[str, int], lines: list[str]) -> None:
    first, *rest = gone_lines(entries)
    assert first == f"{lines[0]}; remove what is not needed: pytest --perf-baseline prune"
    assert rest == lines[1:]


FAILURES = {
    "limit": (
        (BEYOND,),
        {"split": {"rtm": split({"clean/model_cpu": 2.9 * MS, "model/model_wait": 0.9 * MS, "socket": 0.3 * MS})}},
    ),
    "regression": (
        (SLOWER, LESS),
        {
            "failed_requests": {"500": 1200, "-1": 3},
            "requests": 74_060,
            "reference": replace(counterpart(), split={"rtm": split({"model_cpu": 3.2 * MS, "socket": 0.9 * MS})}),
            "split": {"rtm": split({"model_cpu": 4.6 * MS, "queue_wait": 0.1 * MS, "socket": 0.95 * MS})},
            "facts_changed": CHANGED_FACTS,
            "noise": ("another process used 40 % of the machine", "the clock of a core fell to 60 %"),
        },
    ),
    "revision": (
        (replace(SLOWER, against="revision"),),
        {
            "reference": replace(
                counterpart(kind="revision"),
                split={"rtm": split({"model_cpu": 0.4 * MS, "socket": 3.8 * MS})},
                log_ratios={"rtm": ((0.31, 0.01), (0.30, 0.01), (0.33, 0.01))},
                present=replace(
                    counterpart(kind="revision").present,
                    split={"rtm": split({"model_cpu": 0.6 * MS, "socket": 5.2 * MS})},
                ),
            )
        },
    ),
    "undecided": (
        (OPEN,),
        {"launch_count": 1, "blocks": 1, "requests": 1, "latency": None, "load_over_time": (), "location": None},
    ),
}


def rows_of(text: str, prefix: str = "E       ", name: str = "RegressionFailure: ") -> int:
    """How many rows a failure fills in a terminal of 80 columns, with what pytest writes before its lines."""
    lines = [f"{prefix}{name if number == 0 else ''}{line}" for number, line in enumerate(text.splitlines())]
    return sum(math.ceil(width_of(line) / 80) for line in lines)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_says_on_what_it_stands_and_what_to_do(name: str) -> None:
    verdicts, changes = FAILURES[name]
    failed = result("test_perf.py::test_digits[single]", passed=False, verdicts=verdicts, **changes)
    text = failure_text(verdicts, failed)
    check_golden(f"failure-{name}.txt", text + "\n")
    assert text.splitlines()[0] == verdicts[0].reason
    lines = [line for line in text.splitlines()[1:-1] if not line.strip().startswith("pytest ")]
    assert all(width_of(line) <= 76 for line in lines)
    assert rows_of(text) <= 18


def test_a_failure_of_everything_at_once_fits_on_a_screen_too() -> None:
    _, changes = FAILURES["regression"]
    failing = [replace(SLOWER, metric=name) for name in ("rtm", "p95", "p99", "cpu_per_request", "cold_start")]
    rising = tuple((second / 4, second / 40, second / 40) for second in range(1, 41))
    long = {**changes, "load_over_time": rising, "command": f"pytest 'test_perf.py::test_digits[{'x' * 100}]'"}
    text = failure_text([*failing, LESS], result(passed=False, verdicts=(*failing, LESS), **long))
    assert rows_of(text) <= 18
    for label in ("where", "also", "next"):
        assert f"\n  {label:<10}" in text
    assert "\n  latency" not in text


@pytest.mark.parametrize(
    ("set_up", "line"),
    [
        (make_setup(pattern="single", load="closed(1)"), []),
        (make_setup(pattern="single", load="closed(1)", wire="grpc"), ["  set-up    wire grpc"]),
        (make_setup(pattern="single"), ["  set-up    load closed(8)"]),
    ],
    ids=["nothing", "wire", "load"],
)
def test_of_a_set_up_a_failure_names_what_is_not_the_default(set_up: Setup, line: list[str]) -> None:
    text = failure_text((BEYOND,), result(setup=set_up))
    assert [one for one in text.splitlines() if one.startswith("  set-up")] == line


def test_only_a_load_that_varies_is_drawn_in_a_failure() -> None:
    rising = tuple((second / 4, second / 12, second / 12) for second in range(1, 13))
    assert "\n  load      service " in failure_text((BEYOND,), result(load_over_time=rising, setup=make_setup()))
    flat = tuple((second / 4, 0.5, 0.6) for second in range(1, 13))
    assert "\n  load  " not in failure_text((BEYOND,), result(load_over_time=flat))


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ((), "baseline", ["  changed   nothing in the environment, as far as it is known"]),
        ((), "revision", []),
        (None, "baseline", []),
        (CHANGED_FACTS[:1], "revision", ["  changed   OMP_NUM_THREADS unset → 8"]),
    ],
    ids=["nothing since a baseline", "nothing beside a revision", "not known", "something"],
)
def test_that_nothing_changed_is_said_where_it_rules_out_a_cause(
    changes: tuple[FactChange, ...] | None, kind: str, expected: list[str]
) -> None:
    text = failure_text((SLOWER,), result(facts_changed=changes, reference=counterpart(kind=kind)))
    assert [line for line in text.splitlines() if line.startswith("  changed")] == expected


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(OPEN, ["  the environment changed: OMP_NUM_THREADS unset → 8"]), (SAME, [])],
    ids=["open", "passed"],
)
def test_an_open_comparison_has_changes_of_the_environment_in_its_notes(outcome: Verdict, expected: list[str]) -> None:
    found = result(verdicts=(outcome,), facts_changed=CHANGED_FACTS[:1], reference=counterpart())
    assert [line for line in summary([found], 160) if "environment" in line] == expected


def test_a_failure_does_not_repeat_the_metric_that_it_is_about() -> None:
    _, _, other = failure_text((BEYOND,), result()).partition("metrics")
    assert "median latency" not in other
    assert "p95 latency 9.87 ms" in other


@pytest.mark.parametrize("judged", [(SLOWER,), (TAIL,)], ids=["slower", "undecided"])
def test_the_command_of_a_failure_can_be_pasted_into_a_shell(judged: tuple[Verdict, ...]) -> None:
    test = "test_perf.py::test_digits[it's $HOME]"
    command = shlex.split(failure_text(judged, result(test)).splitlines()[-1])
    assert command[:2] == ["pytest", test]


@each_row(
    ("failures", "text"),
    ({}, ""),
    ({500: 12}, "500: 12"),
    ({503: 1200, Failure.TIMEOUT: 3}, "503: 1,200, time-out: 3"),
    ({-2: 1, -3: 2, -4: 3}, "connection failed: 1, connection closed: 2, malformed answer: 3"),
)
def test_failed_requests_are_told_by_kind(failures: dict[int, int], text: str) -> None:
    assert describe_failures(failures) == text


@each_row(
    ("at_least", "objective", "text"),
    (False, None, "capacity (NMRT) 400 req/s at concurrency 4 (the search ended: two doublings gained less than"),
    (True, None, "capacity (NMRT) at least 400 req/s at concurrency 4"),
    (False, "p95<50.0ms", "capacity (NMRT) with p95<50.0ms 400 req/s at concurrency 4"),
)
def test_a_capacity_search_is_told_in_one_line(at_least: bool, objective: str | None, text: str) -> None:
    assert describe_capacity(capacity(400, at_least=at_least, objective=objective)).startswith(text)


@each_row(
    ("layer", "text"),
    (LAYERS[0], "cached: 75.0 % hits, a hit takes 20.0 µs, a miss takes 4.00 ms"),
    (
        LayerStats(0, "cached", {"hits": 5, "coalesced": 5, "store_errors": 2}, {"hit_ns": {MS: 5}}),
        "cached: 100 % hits, a hit takes 1.00 ms; 5 shared a running call; 2 answered without the store",
    ),
    (LAYERS[1], "batched: 4.00 inputs per call, wait 2.00 ms, call 3.00 ms"),
    (LAYERS[2], "queued: 2.00 waiting on average, wait 1.00 ms"),
    (LAYERS[3], "hop: 200 µs round trip"),
    (
        LayerStats(0, "pipeline", {}, {"stage:shift": {1000: 1, 3000: 1}, "stage:model": {5 * MS: 2}}),
        "pipeline: shift 2.00 µs, model 5.00 ms",
    ),
    (
        LayerStats(0, "ensemble", {"last:b": 3, "last:a": 1}, {"model:a": {MS: 4}, "model:b": {2 * MS: 4}}),
        "ensemble: a 1.00 ms (last in 25.0 %), b 2.00 ms (last in 75.0 %)",
    ),
    (
        LayerStats(1, "queued", {"observed_ns": S, "rejected": 1234, "lost": 0, "redelivered": 2}, {}),
        "queued: 0 waiting on average; 1,234 rejected; 2 redelivered",
    ),
    (LayerStats(1, "hop", {"errors": 3}), "hop: 3 failed"),
    (WIRE, "wire: 512 B in (of 2.00 KiB), 100 B out, decode 20.0 µs, encode 10.0 µs"),
    (LayerStats(0, "wire", {"requests": 0}), ""),
    (LayerStats(0, "cached", {"hits": 0, "misses": 0}), ""),
    (LayerStats(0, "batched"), ""),
)
def test_the_statistics_of_a_layer_are_one_line(layer: LayerStats, text: str) -> None:
    assert describe_layer(layer) == text


@each_row(
    ("counters", "requests", "says"),
    ({"hits": 7406}, 7406, True),
    ({"hits": 7400, "misses": 6}, 7406, False),
    ({"hits": 7400, "coalesced": 6}, 7406, False),
    ({"hits": 50}, 50, False),
    ({}, 7406, False),
)
def test_a_cache_with_every_input_of_a_cycle_says_so(counters: dict[str, int], requests: int, says: bool) -> None:
    layers = [LayerStats(0, "wire", {"requests": 9}), LayerStats(0, "cached", counters)]
    text = describe_cycle(layers, requests, 50)
    expected = (
        "the cache had every input, because the payload was cycled: 7,406 requests from 50 inputs; give more inputs"
    )
    assert text.startswith(expected) if says else text == ""


ACCOUNT = {"mode": "update", "recorded": ["test_perf.py::test_digits"], "recorded_although_worse": []}


def test_the_result_file_has_every_result_and_where_it_was_measured() -> None:
    slower = verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4))
    judged = result(
        verdicts=(slower,), passed=False, failed_requests={"500": 3}, capacities=(capacity(),), layers=LAYERS
    )
    text = results_json([result(), judged], ENVIRONMENT, "2026-11-24T12:00:00+00:00", baseline=ACCOUNT)
    check_golden("results.json", text)
    data = json.loads(text)
    assert (data["format"], data["version"]) == (FORMAT, VERSION)
    assert data["environment"]["machine"] == ENVIRONMENT.machine
    assert data["baseline"] == ACCOUNT
    assert [TestResult.from_json(item) for item in data["results"]] == [result(), judged]


def test_the_result_file_of_no_results_is_valid() -> None:
    assert json.loads(results_json([], ENVIRONMENT, "2026-11-24", baseline=ACCOUNT))["results"] == []


def test_a_result_file_is_read_back_as_it_was_written() -> None:
    slower = verdict(Outcome.FAIL, change=(0.3, 0.2, 0.4))
    judged = result(verdicts=(slower,), passed=False, capacities=(capacity(),), reference=counterpart())
    ranking = [{"group": "g", "weights": {}, "requirements": [], "sentence": "", "rows": [], "notes": []}]
    written = Results((result(), judged), ENVIRONMENT, "2026-11-24", ACCOUNT, tuple(ranking))
    text = results_json(written.results, ENVIRONMENT, written.date, baseline=ACCOUNT, ranking=ranking)
    assert read_results(text) == written


GOOD = json.loads(results_json([result()], ENVIRONMENT, "2026-11-24", baseline=ACCOUNT))


@each_row(
    ("text", "words"),
    ("", "is damaged: "),
    ("[]", "is not a result file of pytest-mlpatterns; name a file that pytest --perf-json wrote"),
    ('{"format": "pytest-mlpatterns-baseline"}', "is not a result file of pytest-mlpatterns"),
    (json.dumps({**GOOD, "version": 1}), "has format version 1, this pytest-mlpatterns reads 2; measure again"),
    (json.dumps({**GOOD, "version": 3}), "has format version 3, this pytest-mlpatterns reads 2; upgrade"),
    (json.dumps({**GOOD, "version": "2"}), 'has format version "2", this'),
    (json.dumps({**GOOD, "results": [{}]}), "is damaged: results[0] lacks the member test; measure again"),
    (json.dumps({**GOOD, "results": 5}), "is damaged: results is 5, expected a list; "),
    (json.dumps({**GOOD, "environment": []}), "is damaged: environment is a list of 0, expected an object; "),
    (json.dumps({**GOOD, "environment": {}}), "is damaged: environment lacks the member processor; "),
)
def test_another_file_than_a_result_file_is_refused(text: str, words: str) -> None:
    with pytest.raises(ResultFileError) as caught:
        read_results(text)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
