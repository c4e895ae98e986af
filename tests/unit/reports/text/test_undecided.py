"""An undecided test: its figures, one reason once, what would decide it, and no more than twelve rows of 80 columns."""

import math

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.golden import LESS, SLOWER
from support.synthetic import MS, S, counterpart, make_setup, result

from pytest_mlpatterns.config.converters import read_tolerances
from pytest_mlpatterns.errors import InconclusiveWarning
from pytest_mlpatterns.records.launch import Busy, Estimate, Noise
from pytest_mlpatterns.records.result import State
from pytest_mlpatterns.records.result_parts import Terms
from pytest_mlpatterns.records.verdict import Kind, LeftOut, OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.reports.text.failure import next_step
from pytest_mlpatterns.reports.text.summary_table import headline_style, summary_lines, verdict_of
from pytest_mlpatterns.reports.text.terminal_text import Style, text_of, width_of
from pytest_mlpatterns.reports.text.undecided import (
    busy_machine,
    open_in_short,
    open_step,
    suspected_sentences,
    undecided_lines,
)

TEST = "test_perf.py::test_digits"
SUSPECTED = Verdict(
    "p99", "revision", Outcome.INCONCLUSIVE, "p99 may", Estimate(0.5, 0.1, 1.0), 0.2, 2.0 * MS, 3.0 * MS
)
OPEN = Verdict("rtm", "revision", Outcome.INCONCLUSIVE, "rtm may", Estimate(0.04, -0.1, 0.2), 0.1, 2.0 * MS, 2.1 * MS)
LIMIT = Verdict(
    "rtm", "limit", Outcome.INCONCLUSIVE, "median latency 18.6–20.6 ms includes the limit of 20.0 ms after 1 launch"
)
BEYOND = Verdict(
    "p99",
    "baseline",
    Outcome.INCONCLUSIVE,
    "p99 latency 5.04 ms → 5.16 ms: 0.37 % of 3,000 requests took over 6.99 ms, which is 5.82 ms with the "
    "tolerance; before, 0.0 % of 6,000 took over 5.82 ms; tolerance 20.0 %",
    Estimate(0.023, -0.017, 0.085),
    0.2,
    5.04 * MS,
    5.16 * MS,
)
AGAINST = {"reference": counterpart(kind="revision"), "command": f"pytest {TEST} --perf-against=main"}
BUSY = "other processes used 1.9 of the 2 cores, which explains 4.00 times"


def by_machine(verdict: Verdict) -> Verdict:
    """A verdict that would fail, left open because of the machine."""
    reason = f"{verdict.reason}; but {BUSY}"
    return replace(verdict, outcome=Outcome.INCONCLUSIVE, reason=reason, why_open=WhyOpen(OpenBy.MACHINE, BUSY))


def block(*verdicts: Verdict, width: int = 200, **changes: object) -> list[str]:
    found = undecided_lines(result(TEST, verdicts=verdicts, **{**AGAINST, **changes}), width)
    return [text_of(one) for one in found]


def summary(*results: object, width: int = 80, verbose: bool = False) -> list[str]:
    return [text_of(one) for one in summary_lines(results, width, verbose=verbose)]  # type: ignore[arg-type]


def test_a_suspected_regression_has_its_figures_the_time_and_the_command() -> None:
    assert block(SUSPECTED) == [
        f"{TEST}: undecided",
        "  p99 latency 2.00 ms → 3.00 ms: +50.0 % (+10.0 % to +100 %), tolerance 20.0 %",
        "  why   2 paired launches are too few: about 3 more, 19 s of measuring in all, would decide it",
        f"  next  pytest {TEST} --perf-against=main --perf-budget 20s",
    ]


def test_further_open_metrics_are_named_in_one_row() -> None:
    _, _, also, *_ = block(SUSPECTED, OPEN, replace(OPEN, metric="cpu_per_request"))
    assert also == "  also median +4.0 %, CPU +4.0 %"


def test_the_undecided_end_the_summary_and_its_notes_do_not_repeat_them() -> None:
    lines = summary(
        result("t.py::a", verdicts=(SUSPECTED,), **AGAINST), result("t.py::b", notes=("a note",)), width=160
    )
    assert lines[-1].endswith("--perf-budget 20s")
    assert lines.index("t.py::b") < lines.index("t.py::a: undecided")
    assert "p99 may" not in "\n".join(lines)


def test_what_the_machine_explains_has_that_reason_once_and_no_more_measuring() -> None:
    verdicts = (by_machine(SLOWER), by_machine(LESS))
    lines = block(*verdicts, reference=counterpart(), command="", width=80)
    assert lines[-4:] == [
        "  also throughput -27.0 %",
        f"  why   {BUSY}",
        "  next  run it again in a quieter moment, or beside the recorded code:",
        f"        pytest {TEST} --perf-against 1a2b3c4",
    ]
    assert "certain" not in "\n".join(lines)
    assert "--perf-budget" not in "\n".join([*lines, *next_step(verdicts, result(TEST, verdicts=verdicts))])


def test_a_count_that_failed_says_so_beside_the_machine() -> None:
    why = LeftOut("is not known: the service does not start within 51 s under valgrind-3.24.0")
    lines = block(by_machine(SLOWER), reference=counterpart(), not_compared={"instructions per request": why})
    assert f"  why   {BUSY}; instructions per request {why}" in lines


@pytest.mark.parametrize("commit", ["", "1a2b3c4"])
def test_a_service_at_an_address_is_only_measured_again(commit: str) -> None:
    reference = replace(counterpart(), recorded_commit=commit)
    setup = make_setup(pattern="http://localhost:8000") if commit else make_setup()
    *_, advice, command = block(by_machine(SLOWER), reference=reference, setup=setup, command="")
    assert (advice, command) == ("  next  run it again in a quieter moment:", f"        pytest {TEST}")


def test_the_machine_is_the_reason_of_several_tests_once() -> None:
    lines = summary(
        *(result(f"t.py::{name}", verdicts=(by_machine(SLOWER),), reference=counterpart()) for name in "abc")
    )
    text = "\n".join(lines)
    assert text.count("other processes") == 1
    assert text.count("  why   the machine, as above") == 2
    assert text.count("quieter moment") == 1


def test_noise_that_changed_no_verdict_is_left_to_a_verbose_summary() -> None:
    noise = Noise("other processes used 1.1 of the 2 cores while this was measured", "stop other programs")
    noisy = result(TEST, verdicts=(replace(SLOWER, outcome=Outcome.PASS),), noise=(noise,), reference=counterpart())
    assert "other processes" not in "\n".join(summary(noisy))
    assert f"noise     {noise}" in "\n".join(summary(noisy, width=200, verbose=True))


def test_what_no_time_decides_beside_a_small_baseline_has_the_command_that_records_more() -> None:
    beside = replace(counterpart(), launches=3)
    suspected = replace(SUSPECTED, change=Estimate(0.5, -0.2, 2.0), against="baseline")
    *_, why, advice, command = block(suspected, reference=beside, command="")
    assert why == "  why   more measuring would hardly decide it beside a baseline of 3 launches"
    assert advice == "  next  record it with more, from the code that it is of:"
    assert command == f"        pytest {TEST} --perf-baseline update --perf-budget 120s"


NEIGHBOURS = Busy(1.4, cores=2)


def test_only_what_is_at_the_edge_of_its_tolerance_is_given_a_wider_one() -> None:
    at_the_edge = replace(SUSPECTED, change=Estimate(0.21, 0.13, 0.29))
    *_, advice = block(at_the_edge)
    assert advice == '  next  give the metric a tolerance of its own: tolerance={"p99": 0.3}'
    assert read_tolerances({"p99": 0.3}, "tolerance").of("p99") == pytest.approx(0.3)
    ceiling = replace(result(TEST, verdicts=(at_the_edge,), **AGAINST).definition, terms=Terms(S, 8, {"p99": 0.1}))
    assert "tolerance=" not in " ".join(block(at_the_edge, definition=ceiling))
    for wide in (Estimate(0.21, -0.3, 0.92), Estimate(4.31, -0.802, 62.52)):
        assert "tolerance=" not in " ".join(block(replace(SUSPECTED, change=wide)))


@pytest.mark.parametrize(
    "verdict",
    [
        replace(SUSPECTED, change=Estimate(0.115, -0.37, 0.707)),
        replace(LIMIT, metric="p99"),
        replace(LIMIT, why_open=WhyOpen(OpenBy.LAUNCHES, "even 20 more launches would narrow it only to ±6.8 %")),
    ],
    ids=["change", "limit", "scatter"],
)
def test_a_test_that_stays_open_beside_busy_neighbours_names_them(verdict: Verdict) -> None:
    metrics = {"p99": (20.0 * MS, 15.0 * MS, 26.0 * MS)}
    *_, why, advice, command = block(verdict, busy=NEIGHBOURS, metrics=metrics)
    assert why == "  why   the machine was busy: other processes used 1.4 of the 2 cores"
    assert advice == "  next  run it again in a quieter moment:"
    assert command == f"        {AGAINST['command']}"


@pytest.mark.parametrize("metric", ["error_rate", "response_bytes"])
def test_neighbours_are_no_reason_of_what_no_machine_changes(metric: str) -> None:
    for verdict in (replace(SUSPECTED, metric=metric, change=Estimate(0.5, -0.9, 3.0)), replace(LIMIT, metric=metric)):
        assert "busy" not in " ".join(block(verdict, busy=NEIGHBOURS, metrics={metric: (0.0, 0.0, 0.3)}))


def test_launches_of_a_revision_that_differ_are_its_reason() -> None:
    pairs = {"p99": ((0.1, 0.01), (0.9, 0.01), (0.3, 0.01))}
    text = " ".join(block(SUSPECTED, reference=replace(counterpart(kind="revision"), log_ratios=pairs)))
    assert "why   its launches differ by ±41.6 % from each other, of which ±1.8 % is usual" in text


def test_pairs_that_are_too_few_are_all_counted_though_the_requests_of_a_tail_count_together() -> None:
    pairs = {"p99": ((0.4, 0.2),), "rtm": ((0.0, 0.01),) * 6}
    text = " ".join(block(SUSPECTED, reference=replace(counterpart(kind="revision"), log_ratios=pairs)))
    assert "why   6 paired launches are too few" in text


def test_the_machine_is_named_once_for_the_run() -> None:
    busy = [
        result(f"t.py::{name}", verdicts=(SUSPECTED,), busy=Busy(cores, cores=2), **AGAINST) for name, cores in NAMED
    ]
    calm, elsewhere = result("t.py::calm"), result("t.py::open", verdicts=(SUSPECTED,), **AGAINST)
    text = "the machine was busy (1.6 of 2 cores): 2 of 3 tests undecided"
    assert busy_machine([*busy, calm]) == text
    assert busy_machine([*busy, elsewhere]) == f"{text} because of it"
    assert busy_machine([calm, elsewhere]) == ""
    missing = "instructions are not counted: valgrind is not installed (apt-get install valgrind)"
    bare = replace(calm, judged=replace(calm.judged, not_counted=missing.partition(": ")[2]))
    assert busy_machine([bare, elsewhere, bare]) == missing
    assert busy_machine([*busy, bare]) == f"{text}; {missing}"


NAMED = (("a", 1.6), ("b", 1.4))


def test_a_test_that_is_probably_slower_is_called_so_in_red() -> None:
    likely = result(TEST, verdicts=(SUSPECTED,), probably_slower=("p99",), **AGAINST)
    assert (likely.kind, likely.outcome) == (Kind.PROBABLY_SLOWER, State.UNDECIDED)
    title = undecided_lines(likely, 80)[0]
    assert (text_of(title), title[0].style) == (f"{TEST}: probably slower", Style.BAD)
    mark = verdict_of(likely)
    assert (mark.word, mark.style, headline_style([likely.kind])) == ("probably slower", Style.BAD, Style.BAD)
    assert replace(likely, judged=replace(likely.judged, interrupted=True)).kind is Kind.INTERRUPTED
    assert open_in_short([SUSPECTED], is_likely=True) == "probably slower: p99 +50.0 %, see below"


@pytest.mark.parametrize(
    ("verdict", "end"),
    [
        (LIMIT, [f"        {AGAINST['command']} --perf-budget 120s"]),
        (replace(LIMIT, why_open=WhyOpen(OpenBy.LAUNCHES, "even 20 more launches would narrow it only to ±6.8 %")), []),
    ],
    ids=["more helps", "more does not help"],
)
def test_a_limit_is_left_open_with_its_reason_and_a_command_that_decides(verdict: Verdict, end: list[str]) -> None:
    lines = block(verdict)
    assert lines[1] == f"  {verdict.reason}"
    assert lines[3:] == end
    assert ("--perf-budget" in "".join(next_step([verdict], result(TEST, verdicts=(verdict,))))) is bool(end)


def bound(verdict: Verdict, terms: Terms, *, launches: int, spent_s: float, recorded: int = 0) -> tuple[str, str]:
    """What to do about a test that was measured within these terms: the advice, and the options of the command."""
    beside = replace(counterpart(), launches=recorded)
    open_one = result(TEST, verdicts=(verdict,), reference=beside, launch_count=launches, seconds_spent=spent_s)
    open_one = replace(open_one, definition=replace(open_one.definition, command=f"pytest {TEST}", terms=terms))
    step = open_step(open_one)
    return step.lead, step.command.removeprefix(f"pytest {TEST}").strip()


EITHER = "measure longer: raise budget= and launches= in the marker of the test, or run"
TIMED = replace(SUSPECTED, against="baseline")


@each_row(
    ("terms", "launches", "spent_s", "advice", "options"),
    (Terms(30 * S, 8, {}), 3, 29.0, EITHER, "--perf-budget 120s"),
    (Terms(120 * S, 8, {}), 6, 119.0, EITHER, "--perf-budget 240s"),
    (Terms(8 * S, 8, {}, budget_in_marker=True), 6, 7.5, 'write budget="120s"', ""),
    (Terms(30 * S, 2, {}), 2, 1.5, "write launches=8", ""),
    (Terms(8 * S, 2, {}, budget_in_marker=True), 2, 7.5, 'write launches=8 and budget="30s"', ""),
    (Terms(30 * S, 8, {}), 8, 25.0, "write launches=32", "--perf-budget 100s"),
    (Terms(30 * S, 60, {}), 60, 25.0, "write launches=100", "--perf-budget 50s"),
)
def test_a_limit_is_measured_longer_by_what_ended_its_measurement(
    terms: Terms, launches: int, spent_s: float, advice: str, options: str
) -> None:
    said = advice if advice == EITHER else f"measure longer: {advice} in the marker of the test, and run"
    assert bound(LIMIT, terms, launches=launches, spent_s=spent_s) == (said, options)


@each_row(
    ("verdict", "terms", "advice", "options"),
    (TIMED, Terms(15 * S, 60, {}), "", "--perf-budget 20s"),
    (TIMED, Terms(30 * S, 60, {}), "", "--perf-budget 60s"),
    (TIMED, Terms(15 * S, 60, {}, budget_in_marker=True), 'budget="20s"', ""),
    (TIMED, Terms(30 * S, 4, {}), "launches=9", ""),
    (TIMED, Terms(15 * S, 4, {}, budget_in_marker=True), 'launches=9 and budget="30s"', ""),
    (SUSPECTED, Terms(15 * S, 4, {}), "", "--perf-budget 20s"),  # a revision takes the launches that fit
)
def test_a_deciding_time_is_given_where_it_counts(verdict: Verdict, terms: Terms, advice: str, options: str) -> None:
    said = f"write {advice} in the marker of the test, and run" if advice else ""
    assert bound(verdict, terms, launches=4, spent_s=9.0) == (said, options)


def test_a_baseline_is_recorded_longer_within_the_budget_of_the_marker() -> None:
    hard, terms = replace(TIMED, change=Estimate(0.5, -0.2, 2.0)), Terms(15 * S, 8, {}, budget_in_marker=True)
    advice = 'write budget="120s" in the marker of the test, and record it with more, from the code that it is of:'
    assert bound(hard, terms, launches=4, spent_s=9.0, recorded=3) == (advice, "--perf-baseline update")


def test_a_tail_that_is_open_by_requests_beyond_its_percentile_shows_them() -> None:
    lines = block(BEYOND, reference=counterpart(), command="")
    assert lines == [
        f"{TEST}: undecided",
        f"  {BEYOND.reason}",
        f"  next  {EITHER}",
        f"        pytest {TEST} --perf-budget 120s",
    ]
    assert open_in_short([BEYOND]) == "undecided: p99 latency, see below"


def test_a_change_beside_such_a_tail_keeps_its_figures_and_its_time() -> None:
    lines = block(replace(TIMED, metric="rtm"), BEYOND, reference=counterpart(), command="")
    assert lines[1:4] == [
        "  median latency 2.00 ms → 3.00 ms: +50.0 % (+10.0 % to +100 %), tolerance 20.0 %",
        f"  {BEYOND.reason}",
        "  why   7,406 answers in 2 launches are too few: about 8,500 more, 19 s of measuring in all, would decide what"
        " can be decided",
    ]


def test_such_a_tail_that_the_machine_explains_has_that_reason_once() -> None:
    text = " ".join(block(by_machine(BEYOND), reference=counterpart(), command="", width=500))
    assert BEYOND.reason in text
    assert text.count(BUSY) == 1


@pytest.mark.parametrize("against", ["pattern", "service"])
def test_another_side_is_shown_beside_an_open_change_of_the_same_metric(against: str) -> None:
    side = replace(
        LIMIT, against=against, reason="median latency 4 ms against 4.2 ms, which may or may not be at least 1"
    )  # type: ignore[arg-type]
    assert f"  {side.reason}" in block(OPEN, side)


def rows(lines: list[str]) -> int:
    """How many rows these lines fill in a terminal of 80 columns."""
    return sum(math.ceil(max(width_of(one), 1) / 80) for one in lines)


@each_row(
    "verdicts",
    (SUSPECTED,),
    (OPEN, SUSPECTED),
    (by_machine(SLOWER), by_machine(LESS), replace(SUSPECTED, against="baseline")),
    (LIMIT,),
    (replace(SLOWER, outcome=Outcome.INCONCLUSIVE), replace(LESS, outcome=Outcome.INCONCLUSIVE), LIMIT),
)
def test_an_undecided_test_fills_at_most_twelve_rows(verdicts: tuple[Verdict, ...]) -> None:
    notes = tuple(f"a note of the test, {number}" for number in range(9))
    open_one = result(TEST, verdicts=verdicts, notes=notes, reference=counterpart())
    calm = summary(result(TEST, verdicts=(replace(SLOWER, outcome=Outcome.PASS),), reference=counterpart()))
    lines = summary(open_one)
    table = calm[2:-1]
    assert table[0].endswith("pass")
    assert calm[-1].startswith("median: ")
    warned = [TEST, f"  test_perf.py:16: InconclusiveWarning: {open_in_short(verdicts)}"]  # as pytest lists it
    assert rows(warned) == 2
    block_only = [one for one in lines[2 + len(table) :] if not one.startswith("median: ")]
    assert rows([*table, *block_only, *warned]) <= 12
    assert len(summary(open_one, verbose=True)) > len(lines)


def test_a_failed_test_is_not_listed_as_undecided() -> None:
    assert not any("undecided" in one for one in summary(result(TEST, verdicts=(SUSPECTED,), passed=False))[3:])


def test_a_job_summary_has_the_figures_of_each_suspicion_and_the_reason_once() -> None:
    first, last = suspected_sentences(result(TEST, verdicts=(by_machine(SLOWER), by_machine(LESS))))
    assert first.startswith("mean latency 4.13 ms → 5.65 ms: +36.7 %")
    assert last.endswith(f"tolerance 10.0 %; {BUSY}")
    assert suspected_sentences(result(TEST, verdicts=(OPEN,))) == []


@each_row(
    ("verdicts", "text"),
    ((SUSPECTED,), "undecided: p99 +50.0 %, see below"),
    ((OPEN, SUSPECTED), "undecided: p99 +50.0 %, see below"),
    ((LIMIT,), "undecided: median latency, see below"),
    ((replace(LIMIT, metric="sharpness"),), "undecided: sharpness, see below"),
)
def test_the_warning_of_an_undecided_test_is_short(verdicts: tuple[Verdict, ...], text: str) -> None:
    assert open_in_short(verdicts) == text
    warning = InconclusiveWarning("all of it", open_in_short(verdicts))
    assert (str(warning), warning.short) == ("all of it", text)
