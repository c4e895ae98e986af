"""The line on where the time of a failure is, for declared splits."""

from typing import Any

import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.experiments import verdict_log
from support.profiles import nothing_stands_out, present_alone, slower_normalize
from support.splits import AFTER, BEFORE, split, with_splits
from support.synthetic import MS, US, counterpart, make_setup, result

from pytest_mlpatterns.errors import PerfFailure, RegressionFailure
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.latency import LatencySplit
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.profile import NativeChange, ProfileRecord
from pytest_mlpatterns.records.result import FailedTest
from pytest_mlpatterns.records.result_parts import CountedWork
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.files.ci_reports import job_summary
from pytest_mlpatterns.reports.text.where import function_table_lines, where_sentence, where_texts

ONE_CALLER = {"setup": make_setup("single", "closed(1)")}


def failing(metric: str = "rtm", against: str = "baseline", **changes: Any) -> Verdict:
    return replace(Verdict(metric, against, Outcome.FAIL, f"{metric} is worse"), **changes)  # type: ignore[arg-type]


def line(before: LatencySplit, now: LatencySplit, verdict: Verdict | None = None, **changes: Any) -> str:
    """The line of a failure against a baseline, of one caller."""
    found = with_splits({before.metric: before}, {now.metric: now}, **{**ONE_CALLER, **changes})
    return "".join(where_texts(found, [failing() if verdict is None else verdict]))


def test_a_regression_names_the_parts_that_changed() -> None:
    assert line(BEFORE, AFTER) == "+12.7 ms: model on CPU +11.7 ms, queue wait +1.00 ms"


@pytest.mark.parametrize("kind", ["baseline", "revision"])
def test_the_sides_are_those_of_the_comparison(kind: str) -> None:
    found = with_splits({"rtm": BEFORE}, {"rtm": AFTER}, kind=kind, **ONE_CALLER)
    assert where_sentence(found, [failing(against=kind)]).startswith("where: +12.7 ms: model on CPU +11.7 ms")


def test_the_whole_is_the_figure_of_the_verdict_if_both_are_about_the_same() -> None:
    near = failing(reference_value=12.0 * MS, present_value=25.0 * MS)
    far = failing(reference_value=12.0 * MS, present_value=14.0 * MS)  # scaled from another machine
    assert line(BEFORE, AFTER, near) == "+13.0 ms: model on CPU +11.7 ms, queue wait +1.00 ms, the rest +300 µs"
    assert line(BEFORE, AFTER, far).startswith("+12.7 ms: ")


def test_a_mean_that_got_worse_is_split_like_the_statistic_that_changed_like_it() -> None:
    """Of two modes, the slow one of which got slower: the median is of the fast one and did not change."""
    before, now = (
        replace(whole, median_ns=12 * MS, parts=tuple(replace(part, median_ns=4 * MS) for part in whole.parts[:3]))
        for whole in (BEFORE, AFTER)
    )
    agrees = failing(reference_value=12.0 * MS, present_value=25.0 * MS, judged_by="latency_mean")
    assert line(before, now, agrees) == "+13.0 ms: model on CPU +11.7 ms, queue wait +1.00 ms, the rest +300 µs"
    differs = failing(reference_value=12.0 * MS, present_value=20.0 * MS, judged_by="latency_mean")
    assert line(before, now, differs).startswith("on average +12.7 ms: model on CPU +11.7 ms")
    both = failing(reference_value=12.0 * MS, present_value=24.0 * MS, judged_by="latency_mean")
    assert line(BEFORE, AFTER, both).startswith("+12.0 ms: model on CPU +11.7 ms")


@each_row(
    ("metric", "start"),
    ("p99", "mean latency +12.7 ms: model on CPU +11.7 ms"),
    ("p99.9", "mean latency +12.7 ms: "),
    ("throughput", "median latency +12.7 ms: model on CPU +11.7 ms"),
    ("cpu_per_request", "+11.7 ms: model on CPU +11.7 ms"),
)
def test_other_metrics_of_the_same_time_name_it(metric: str, start: str) -> None:
    assert line(BEFORE, AFTER, failing(metric)).startswith(start)


def test_what_is_no_part_of_the_cpu_time_is_its_rest() -> None:
    used = failing("cpu_per_request", reference_value=9.5 * MS, present_value=21.5 * MS)
    assert line(BEFORE, AFTER, used) == "+12.0 ms: model on CPU +11.7 ms, the rest +300 µs"


@each_row("metric", ["peak_memory", "error_rate", "cold_start", "nmrt", "ttft", "pc"])
def test_metrics_of_no_time_of_requests_have_no_line(metric: str) -> None:
    assert line(BEFORE, AFTER, failing(metric)) == ""


def test_the_throughput_of_an_open_loop_has_no_line() -> None:
    assert line(BEFORE, AFTER, failing("throughput"), setup=make_setup("single", "constant(50/s)")) == ""


@each_row(
    ("metric", "of", "start"),
    ("ttft", "ttft", "+12.7 ms: "),
    ("ttft:p95", "ttft", "mean TTFT +12.7 ms: "),
    ("tpot", "tpot", "+12.7 ms: "),
    ("itl", "tpot", "median TPOT +12.7 ms: "),
    ("output_tokens", "tpot", "median TPOT +12.7 ms: "),
)
def test_metrics_of_streams_have_splits_of_their_own(metric: str, of: Any, start: str) -> None:
    before, now = replace(BEFORE, metric=of), replace(AFTER, metric=of)
    assert line(before, now, failing(metric)).startswith(start)


def test_the_wait_of_callers_that_share_a_process_is_one_with_its_cause() -> None:
    before = split({"model_cpu": 1.5 * MS, "socket": 10.5 * MS})
    now = split({"model_cpu": 3.0 * MS, "socket": 21.0 * MS})
    shares = ((0.5, 0.4, 0.6),) * 2
    assert line(before, now, setup=make_setup("single", "closed(8)")) == (
        "+12.0 ms: model on CPU +1.50 ms, the wait behind it +10.5 ms (8 callers share one process)"
    )
    assert "(8 callers share 2 processes)" in line(
        before, now, setup=make_setup("replicated(replicas=2)", "closed(8)"), replica_share=shares
    )
    assert "(8 callers)" in line(before, now, setup=make_setup("App('app:app')", "closed(8)"))


NATIVE = replace(nothing_stands_out(), native=NativeChange(0, 3, 0.0, 1.7 * MS, ("onnxruntime",)))
WAITS = (split({"model_cpu": MS, "socket": 2 * MS}), split({"model_cpu": MS, "socket": 10 * MS}))


@pytest.mark.parametrize(
    ("profile", "first"),
    [
        (NATIVE, ["onnxruntime: 0 → 3 busy native threads, 0 ns → 1.70 ms of CPU per request"]),
        (slower_normalize(), ["Digits.predict → normalize (model.py:41): ", "mostly in sort "]),
    ],
)
def test_a_known_cause_stands_before_the_waits_that_follow_from_it(profile: ProfileRecord, first: list[str]) -> None:
    found = with_splits(*({"rtm": one} for one in WAITS), kind="revision", profile=profile, **ONE_CALLER)
    texts = where_texts(found, [failing(against="revision")])
    assert [text.startswith(start) for text, start in zip(texts, first, strict=False)] == [True] * len(first)
    assert [text[:45] for text in texts[len(first) :]] == [
        "+8.00 ms: waiting in sockets +8.00 ms",
        "profiled 500 times a second by py-spy 0.4.2, ",
    ]


@each_row(
    ("now", "profile", "callers"),
    ({"model_cpu": 4 * MS, "socket": 10 * MS}, slower_normalize(), 1),  # a part of the work changed too
    ({"model_cpu": MS, "socket": 90 * MS}, slower_normalize(), 4),  # far more than it explains
    ({"model_cpu": MS, "socket": 10 * MS}, nothing_stands_out(), 1),
    ({"model_cpu": MS, "socket": 10 * MS}, None, 1),
)
def test_the_parts_stand_first_otherwise(now: dict[str, float], profile: ProfileRecord | None, callers: int) -> None:
    setup = make_setup("single", f"closed({callers})")
    found = with_splits({"rtm": WAITS[0]}, {"rtm": split(now)}, kind="revision", profile=profile, setup=setup)
    assert where_texts(found, [failing(against="revision")])[0].startswith("+")


def test_more_calls_of_the_model_come_first_with_what_explains_them() -> None:
    before = split({"model_cpu": 0.8 * MS}, calls={"": 0.08})
    now = split({"model_cpu": 10 * MS}, calls={"": 1.0})
    found = with_splits({"rtm": before}, {"rtm": now}, **ONE_CALLER)
    known = {"cache_hit_ratio": (0.92, 0.9, 0.94)}
    found = replace(
        found,
        metrics={**found.metrics, "cache_hit_ratio": (0.0, 0.0, 0.01)},
        reference=replace(found.reference, metrics={**found.reference.metrics, **known}),
    )
    assert where_texts(found, [failing()]) == [
        "+9.20 ms: the model is called 0.08 → 1 times per request (cache hit ratio 92.0 % → 0.0 %), model on CPU "
        "+9.20 ms"
    ]


def test_a_model_that_is_called_more_has_its_name() -> None:
    before = split({"a/model_cpu": MS}, calls={"a": 1.0})
    now = split({"a/model_cpu": 2 * MS}, calls={"a": 2.0})
    assert line(before, now).startswith("+1.00 ms: a is called 1 → 2 times per request, model on CPU (a) +1.00 ms")


def test_a_change_of_no_single_part_says_so() -> None:
    before = split({"model_cpu": 9 * MS, "socket": 9 * MS}, error=0.2)
    now = split({"model_cpu": 9.4 * MS, "socket": 9.3 * MS}, error=0.2)
    none = "+700 µs: no part stands out (largest: model on CPU +400 µs)"
    assert line(before, now) == none
    beside = with_splits({"rtm": before}, {"rtm": now}, kind="revision", profile=slower_normalize(), **ONE_CALLER)
    assert where_texts(beside, [failing(against="revision")])[0].startswith("Digits.predict → normalize"), "which does"
    assert none not in where_texts(beside, [failing(against="revision")])
    assert where_texts(beside, [failing(against="baseline")]) == [none], "the profile is of another comparison"


def test_a_limit_and_a_reference_without_a_split_show_what_the_time_consists_of() -> None:
    parts = {"model_cpu": 9 * MS, "queue_wait": MS, "wire": 200 * US, "server": 400 * US}
    found = result(split={"rtm": split(parts)}, reference=counterpart())
    expected = ["10.6 ms: model on CPU 9.00 ms, queue wait 1.00 ms, the rest 600 µs"]
    assert where_texts(found, [failing(against="limit")]) == expected
    assert where_texts(found, [failing(against="baseline")]) == expected
    assert where_texts(found, [failing("cpu_per_request")]) == []
    assert where_texts(found, [failing("p95", "limit")])[0].startswith("mean latency 10.6 ms: ")


def test_only_failures_and_suspected_regressions_have_a_line() -> None:
    found = with_splits({"rtm": BEFORE}, {"rtm": AFTER}, **ONE_CALLER)
    interval = Estimate(0.5, -0.1, 1.1)
    suspected = failing(outcome=Outcome.INCONCLUSIVE, change=interval, tolerance=0.1)
    assert where_texts(found, [failing(outcome=Outcome.PASS)]) == []
    assert where_texts(found, [failing("peak_memory"), suspected]) != []
    assert where_sentence(result(), [failing()]) == ""
    assert where_sentence(found, [suspected]) == where_sentence(found, [failing()])


def test_a_service_whose_inside_is_not_known_has_no_line() -> None:
    before, now = split({"service": 9 * MS}), split({"service": 21 * MS})
    found = result(split={"rtm": now}, setup=make_setup("App('app:app')", "closed(1)"))
    assert line(before, now) == ""
    assert where_texts(found, [failing(against="limit")]) == []
    assert line(split({"service": 9 * MS, "queue_wait": MS}), split({"service": 21 * MS, "queue_wait": 3 * MS})) == (
        "+14.0 ms: service +12.0 ms, queue wait +2.00 ms"
    )


@pytest.mark.parametrize(
    "test", ["text/test_where.py::test_digits", "test_perf.py::test_digits"], ids=["own", "helper"]
)
def test_a_missed_limit_names_the_line_of_the_assertion(test: str) -> None:
    log = verdict_log(test, with_splits({}, {}))
    with pytest.raises(PerfFailure) as failure:
        log.add([failing(against="limit")], PerfFailure)
    line_number = failure.traceback[0].lineno + 1
    file = "text/test_where.py" if test.startswith("text/") else "test_where.py"
    assert str(failure.value).endswith(f"change it:\n            {file}:{line_number}")


def test_a_failure_carries_the_line_where_only_its_reasons_are_shown() -> None:
    found = with_splits({"rtm": BEFORE}, {"rtm": AFTER}, **ONE_CALLER)
    log = verdict_log("test_perf.py::test_digits", found)
    with pytest.raises(RegressionFailure) as failure:
        log.add([failing()], RegressionFailure)
    assert failure.value.reasons == ("rtm is worse", "where: +12.7 ms: model on CPU +11.7 ms, queue wait +1.00 ms")


def counted(instructions: float, calls: float, **functions: float) -> Count:
    libraries = {"libpython3.11.so.1.0": instructions - 0.2e6, "libc.so.6": 0.2e6}
    ends = {"low": instructions, "high": instructions, "requests": 8, "seconds": 9.0}
    called = {"Catalogue.find (shop/rank.py)": calls, "all functions (threading)": 2 * calls}  # as threads wake
    places = {"libraries": libraries, "functions": functions, "calls": called}
    return Count((instructions,) * 2, **ends, **places)  # type: ignore[arg-type]


def test_more_instructions_are_found_by_library_function_and_call() -> None:
    before, now = counted(4e6, 1.0, parse=0.4e6, copy=0.1e6), counted(4.6e6, 40.0, parse=0.4e6, list_contains=0.55e6)
    found = result(work=CountedWork(now, before))
    assert where_texts(found, [failing("instructions", "revision")]) == [
        "+600 k instructions a request: libpython3.11.so.1.0 +600 k",
        "mostly in list_contains +450 k",  # which had at most the 100 k of the smallest that is known
        "called more often per request: Catalogue.find (shop/rank.py) 1.00 → 40.0",
    ]
    assert where_texts(found, [replace(failing("instructions"), outcome=Outcome.PASS)]) == []
    assert where_texts(result(work=CountedWork(now)), [failing("instructions")]) == []


def test_each_function_has_its_time_on_both_sides_and_its_change() -> None:
    assert function_table_lines(slower_normalize()) == [
        "time per request                        before      now               change",
        "Digits.predict (model.py:30)           2.56 ms  4.95 ms   +2.39 ms (±242 µs)",
        "normalize (model.py:41)                 400 µs  2.70 ms   +2.30 ms (±200 µs)",
        "sort (numpy/_core/fromnumeric.py:900)     0 ns  2.28 ms   +2.28 ms (±190 µs)",
        "classify (model.py:61)                 2.10 ms  2.19 ms   +90.0 µs (±150 µs)",
        "dumps (json/__init__.py:183)           60.0 µs     0 ns  -60.0 µs (±11.0 µs)",
        "wire: decode                            120 µs   121 µs  +1.00 µs (±21.0 µs)",
    ]


def test_one_side_alone_has_its_times() -> None:
    assert function_table_lines(present_alone()) == [
        "time per request                 now",
        "Digits.predict (model.py:30)  482 µs",
        "normalize (model.py:41)       420 µs",
    ]


def test_a_change_that_is_not_known_is_a_dash() -> None:
    first, *_ = slower_normalize().functions
    unknown = replace(slower_normalize(), functions=(replace(first, change=None),))
    assert function_table_lines(unknown)[1].endswith("4.95 ms       –")


def test_without_a_profile_there_is_nothing() -> None:
    assert function_table_lines(None) == []
    assert function_table_lines(ProfileRecord(note="no time")) == []


def test_the_job_summary_folds_it_into_the_details_of_the_failed_test() -> None:
    failed = result(passed=False, profile=slower_normalize())
    text = job_summary([failed], [FailedTest(failed.test, "slower", None)], {})
    details = text[text.index("<details>") : text.index("</details>")]
    assert function_table_lines(slower_normalize())[2] in details
