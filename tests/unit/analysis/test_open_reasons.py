"""The reasons of open verdicts: from values to one sentence and one next step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.analysis.verdicts.open_reasons import (
    OpenChange,
    failed_together,
    known_reason,
    probably_slower,
    reason_of,
)
from pytest_mlpatterns.records.launch import Busy, Estimate
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen

NEIGHBOURS = Busy(1.4, cores=2)
QUIETER = "run it again in a quieter moment"


def an_open(low: float, value: float, high: float, **known: object) -> OpenChange:
    """An open change at a tolerance of 10 %, after 300 answers in two launches of 9 s."""
    found = OpenChange("rtm", Estimate(value, low, high), 0.10, 9.0, 2, 300)
    return replace(found, **known)  # type: ignore[arg-type]


WIDE = an_open(-0.37, 0.115, 0.707)
NARROW = an_open(0.05, 0.098, 0.148)


@each_row(
    ("found", "by", "why", "advice"),
    (
        replace(WIDE, busy=NEIGHBOURS),
        OpenBy.MACHINE,
        "the machine was busy: other processes used 1.4 of the 2 cores",
        QUIETER,
    ),
    (
        replace(WIDE, busy=Busy(steal_ratio=0.12, cores=2), seconds=60.0),
        OpenBy.MACHINE,
        "the machine was busy: the host gave 12.0 % of this machine's time to other machines",
        f"{QUIETER}, or for about 60 s",
    ),
    (
        replace(WIDE, busy=Busy(throttled_ratio=0.3, cores=2)),
        OpenBy.MACHINE,
        "the machine was busy: a CPU limit of the container stopped it for 30.0 % of the time",
        QUIETER,
    ),
    (
        replace(NARROW, busy=NEIGHBOURS),
        OpenBy.EDGE,
        "it is at the edge of the tolerance, which its interval of 9.8 points contains",
        'give the metric a tolerance of its own: tolerance={"rtm": 0.15}',
    ),
    (
        replace(NARROW, seconds=18.2),
        OpenBy.EDGE,
        "it is at the edge of the tolerance, which its interval of 9.8 points contains; about 19 s of measuring "
        "would decide it, 9 s were spent",
        "",
    ),
    (
        replace(NARROW, is_agreed=True),
        OpenBy.EDGE,
        "it is at the edge of the tolerance, which its interval of 9.8 points contains",
        "find what makes it slower: it is as much as the test accepts",
    ),
    (
        replace(WIDE, launches=6, scatter=0.2, explained=0.03),
        OpenBy.LAUNCHES,
        "its launches differ by ±20.0 % from each other, of which ±3.0 % is usual",
        "look for what differs from one start to the next, such as a cache or a thread",
    ),
    (
        replace(WIDE, seconds=18.2),
        OpenBy.REQUESTS,
        "300 answers in 2 launches are too few: about 310 more, 19 s of measuring in all, would decide it",
        "",
    ),
    (
        replace(WIDE, seconds=18.2, launches=3, answers=0, decides="what can be decided"),
        OpenBy.REQUESTS,
        "3 paired launches are too few: about 4 more, 19 s of measuring in all, would decide what can be decided",
        "",
    ),
    (
        replace(WIDE, recorded=3),
        OpenBy.RECORDED,
        "more measuring would hardly decide it beside a baseline of 3 launches",
        "record it with more, from the code that it is of",
    ),
    (
        WIDE,
        OpenBy.WIDE,
        "its interval of 108 points is 11 times as wide as the tolerance, and 10 min of measuring would not narrow "
        "it to that",
        "measure it with more load, or in longer windows (duration=)",
    ),
    (
        an_open(0.02, 0.11, 0.22),
        OpenBy.REQUESTS,
        "its interval of 20 points is 2.0 times as wide as the tolerance; about 36 s of measuring would narrow it "
        "to that",
        "",
    ),
    (
        replace(an_open(-0.39, -0.205, 0.126), busy=NEIGHBOURS),
        OpenBy.MACHINE,
        "probably not slower: only the worse end of its interval is beyond the tolerance; the machine was busy: "
        "other processes used 1.4 of the 2 cores",
        f"{QUIETER}, or for about 240 s",
    ),
)
def test_the_first_reason_that_the_values_show_has_one_sentence_and_one_next_step(
    found: OpenChange, by: OpenBy, why: str, advice: str
) -> None:
    reason = reason_of(found)
    assert (reason.by, reason.why, reason.advice) == (by, why, advice)


@given(
    low=st.floats(-0.9, 5),
    width=st.floats(0.001, 60),
    tolerance=st.floats(0, 5),
    is_agreed=st.booleans(),
    busy=st.sampled_from([None, NEIGHBOURS]),
)
@PROPERTY
def test_no_advice_raises_a_tolerance_above_30_percent_or_a_ceiling(
    low: float, width: float, tolerance: float, is_agreed: bool, busy: Busy | None
) -> None:
    change = Estimate(low + width / 2, low, low + width)
    reason = reason_of(replace(WIDE, change=change, tolerance=tolerance, is_agreed=is_agreed, busy=busy))
    if "tolerance={" in reason.advice:
        assert not is_agreed
        assert float(reason.advice.rpartition(": ")[2].rstrip("}")) <= 0.30
        assert width <= tolerance
    if busy is not None and width > tolerance:
        assert "1.4 of the 2 cores" in reason.why


@each_row("by", [one for one in OpenBy if one not in (OpenBy.EDGE, OpenBy.RECORDED, OpenBy.WIDE)])
def test_each_reason_that_the_judging_gives_has_a_next_step(by: OpenBy) -> None:
    reason = known_reason(WhyOpen(by, "its words"), None)
    assert (reason.by, reason.why) == (by, "its words")
    assert reason.advice


def test_launches_that_scatter_beside_busy_neighbours_have_these_as_their_reason() -> None:
    assert known_reason(WhyOpen(OpenBy.LAUNCHES, "even 20 more launches"), NEIGHBOURS).by is OpenBy.MACHINE


def suspected(metric: str, change: float, tolerance: float = 0.10, half: float = 0.08, **others: object) -> Verdict:
    found = Verdict(
        metric, "revision", Outcome.INCONCLUSIVE, "", Estimate(change, change - half, change + half), tolerance
    )
    return replace(found, **others)  # type: ignore[arg-type]


RTM, CPU = suspected("rtm", 0.15), suspected("cpu_per_request", 0.12, 0.07)


def times(metric: str, factor: float, **others: object) -> Verdict:
    """An open change by this factor, known to one of eight times as much or as little."""
    ends = (factor, factor / 8, factor * 8)
    if metric == "throughput":
        ends = Estimate(1 - 1 / factor, 1 - 8 / factor, 1 - 1 / (8 * factor))
    else:
        ends = Estimate(*(one - 1 for one in ends))
    return replace(suspected(metric, 1.0), change=ends, **others)  # type: ignore[arg-type]


BROKEN = [times("rtm", 5.3), times("throughput", 3.2), times("cpu_per_request", 3.6)]  # a cache that is broken


@each_row(
    ("verdicts", "busy", "failed"),
    (BROKEN, NEIGHBOURS, ["rtm", "throughput", "cpu_per_request"]),
    ([times("rtm", 5.3), times("cpu_per_request", 2.9)], None, []),
    ([times("rtm", 5.3), times("throughput", 3.2), times("p99", 9.0)], None, []),  # they share the latency
    ([replace(one, against="baseline") for one in BROKEN], None, ["rtm", "throughput", "cpu_per_request"]),
    ([replace(one, against="baseline") for one in BROKEN], NEIGHBOURS, []),
    ([BROKEN[0], replace(BROKEN[2], why_open=WhyOpen(OpenBy.MACHINE, "busy"))], None, []),
    ([*BROKEN, suspected("p95", 0.5, outcome=Outcome.FAIL)], None, ["p95"]),
)
def test_two_metrics_without_a_shared_cause_fail_together_if_each_is_three_times_as_bad(
    verdicts: list[Verdict], busy: Busy | None, failed: list[str]
) -> None:
    found = failed_together(verdicts, busy)
    assert [one.metric for one in found if one.outcome is Outcome.FAIL] == failed
    if len(failed) > 1:
        why = "each is at least 3 times as bad, and they share no cause"
        assert found[0].reason.endswith(f"; together with CPU per request: {why}")
        assert found[2].reason.endswith(f"; together with median latency and throughput: {why}")


@each_row(
    ("verdicts", "busy", "names"),
    ([replace(suspected("rtm", 4.31), change=Estimate(4.31, 0.2, 22))], None, ("rtm",)),  # a cache that is broken
    ([replace(suspected("rtm", 0.313), change=Estimate(0.313, -0.598, 2.44))], None, ()),  # noise of the machine
    ([suspected("rtm", 0.19)], None, ()),  # not beyond twice the tolerance
    ([suspected("rtm", 0.21)], None, ("rtm",)),
    ([suspected("rtm", 0.21, half=0.3)], None, ()),
    ([suspected("throughput", 0.4, half=0.25)], None, ("throughput",)),
    ([suspected("throughput", 0.4, half=0.45)], None, ()),
    ([RTM, CPU], NEIGHBOURS, ("rtm", "cpu_per_request")),
    ([suspected("rtm", 0.15, half=0.3), suspected("cpu_per_request", 0.09, 0.07, half=0.3)], None, ()),
    ([RTM, suspected("throughput", 0.13), suspected("p99", 0.3, 0.2)], None, ()),  # they share the latency
    ([RTM, suspected("response_bytes", 0.2, 0.15)], None, ("rtm", "response_bytes")),
    ([suspected("peak_memory", 0.9, 0.15), suspected("response_bytes", 0.2, 0.15)], None, ()),  # no speed
    ([suspected("error_rate", 0.01, 0.001)], None, ()),
    ([CPU, RTM, replace(RTM, outcome=Outcome.PASS)], None, ()),  # the last verdict counts
    ([CPU, replace(RTM, why_open=WhyOpen(OpenBy.MACHINE, "busy"))], None, ()),
    ([CPU, replace(RTM, why_open=WhyOpen(OpenBy.STARTS, "failed twice"))], None, ("cpu_per_request", "rtm")),
    ([suspected("rtm", 0.5, against="baseline"), CPU], None, ("rtm", "cpu_per_request")),
    ([suspected("rtm", 0.5, against="baseline"), CPU], NEIGHBOURS, ()),  # which slow the present alone
    ([suspected("sharpness", 9.0)], None, ()),
)
def test_probably_slower_is_what_is_far_beyond_or_seen_by_two_metrics_without_a_shared_cause(
    verdicts: list[Verdict], busy: Busy | None, names: tuple[str, ...]
) -> None:
    assert probably_slower(verdicts, busy) == names
