"""Suspected regressions have a section of their own: the figures, the time that would decide them, and the command."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.synthetic import MS, counterpart, result

from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.styled_text import text_of
from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.reports.text.suspicions import longer_command, suspicion_lines

TEST = "test_perf.py::test_digits"
SUSPECTED = Verdict(
    "p99", "revision", Outcome.INCONCLUSIVE, "p99 may", Estimate(0.5, 0.1, 1.0), 0.2, 2.0 * MS, 3.0 * MS
)
OPEN = Verdict("rtm", "revision", Outcome.INCONCLUSIVE, "rtm may", Estimate(0.04, -0.1, 0.2), 0.1, 2.0 * MS, 2.1 * MS)
AGAINST = {"reference": counterpart(kind="revision"), "command": f"pytest {TEST} --perf-against=main"}


def section(*verdicts: Verdict, width: int = 200, **changes: object) -> list[str]:
    found = suspicion_lines([result(TEST, verdicts=verdicts, **{**AGAINST, **changes})], width)
    return [text_of(one) for one in found]


def test_a_suspected_regression_has_its_figures_the_time_and_the_command() -> None:
    empty, title, test, figures, command = section(SUSPECTED)
    assert empty == ""
    assert title.startswith("1 suspected regression: the estimate is beyond the tolerance")
    assert test.strip() == TEST
    assert figures.strip() == (
        "p99 latency 2.00 ms → 3.00 ms: +50.0 % (+10.0 % to +100 %), tolerance 20.0 %; "
        "about 19 s of measuring would decide it, 9 s were spent"
    )
    assert command.strip() == f"pytest {TEST} --perf-against=main --perf-budget 20s"


def test_an_open_comparison_within_its_tolerance_is_a_note_and_no_suspicion() -> None:
    assert section(OPEN) == []
    notes = "\n".join(map(text_of, summary_lines([result(verdicts=(OPEN,), **AGAINST)], 160)))
    assert "undecided: rtm may" in notes
    assert "suspected" not in notes


def test_the_section_ends_the_summary_and_the_notes_do_not_repeat_it() -> None:
    text = [text_of(one) for one in summary_lines([result(TEST, verdicts=(SUSPECTED,), **AGAINST)], 160)]
    assert text[-1].strip().endswith("--perf-budget 20s")
    assert "undecided: p99 may" not in "\n".join(text)


@pytest.mark.parametrize(
    ("change", "recorded", "says"),
    [
        (Estimate(0.21, -0.3, 1.0), 0, "too close to the tolerance"),
        (Estimate(0.5, -0.2, 2.0), 3, "beside a baseline of 3 launches: record it with more"),
    ],
)
def test_what_no_reasonable_time_decides_has_no_command(change: Estimate, recorded: int, says: str) -> None:
    beside = replace(counterpart(), launches=recorded)
    suspected = replace(SUSPECTED, change=change, against="baseline")
    *_, last = section(suspected, reference=beside)
    assert says in last
    assert longer_command(result(verdicts=(suspected,), reference=beside)) == ""


def test_what_the_machine_explains_keeps_its_reason_and_is_measured_again() -> None:
    reason = "p99 latency 2.00 ms → 3.00 ms; but other processes took cores that the test needed: run it again"
    machine = replace(SUSPECTED, change=Estimate(0.5, 0.4, 0.6), reason=reason)
    *_, sentence, command = section(machine)
    assert sentence.strip() == reason
    assert command.strip() == f"{AGAINST['command']} --perf-budget 20s"


def test_a_test_that_failed_is_no_suspicion_too() -> None:
    assert section(SUSPECTED, passed=False) == []
