"""Streams in text: their columns, the facts of a failure, sketches, changes, and the rules of the baseline's lines."""

import pytest
from msgspec.structs import replace
from support.golden import SAME, check_golden
from support.streams import stream_result
from support.synthetic import MS, counterpart, result

from pytest_mlpatterns.records.baseline_entry import Entry, Update
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.files.ci_reports import job_summary, properties_of
from pytest_mlpatterns.reports.text.comparison import named_change, update_lines, worst_comparison
from pytest_mlpatterns.reports.text.failure import failure_text
from pytest_mlpatterns.reports.text.notes import tokens_text
from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.reports.text.terminal_text import latency_picture, text_of, width_of

SLOWER = Verdict(
    "ttft",
    "baseline",
    Outcome.FAIL,
    "mean TTFT 147 ms → 182 ms: 24.0 % worse, 99 % interval +20.0 % to +28.0 %; tolerance 10.0 %; "
    "median TTFT 141 ms → 180 ms",
    Estimate(0.24, 0.20, 0.28),
    0.1,
    147.0 * MS,
    182.0 * MS,
    judged_by="ttft_mean",
)
CALM = replace(SLOWER, outcome=Outcome.PASS, change=Estimate(0.01, -0.01, 0.03))
FEWER = replace(
    CALM,
    metric="output_tokens",
    change=Estimate(0.08, 0.05, 0.11),
    reference_value=850.0,
    present_value=782.0,
    judged_by="",
)
MIXED = [
    stream_result(passed=False, verdicts=(SLOWER, FEWER)),
    result("test_perf.py::test_whole", verdicts=(SAME,)),
    stream_result("test_llm.py::test_calm[continuous(max_batch_size=8)]", verdicts=(CALM,)),
]


def rows(width: int, **how: bool) -> list[str]:
    return [text_of(line) for line in summary_lines(MIXED, width, **how)]


@pytest.mark.parametrize("width", [80, 140])
def test_streams_have_a_table_with_columns_of_their_own(width: int) -> None:
    lines = rows(width)
    check_golden(f"summary-streams-{width}.txt", "\n".join(lines) + "\n")
    assert all(width_of(line) <= width for line in lines)


def test_the_verbose_summary_has_every_time_and_the_tokens() -> None:
    text = "\n".join(rows(100, verbose=True))
    assert "\n  TTFT      p50 178 ms" in text
    assert "\n  ITL       p50 12.0 ms" in text
    assert "\n  TPOT      p50 12.3 ms" in text
    assert "\n  tokens    128 input and 40.0 output tokens a request on average" in text


def test_a_failure_of_a_stream_has_its_times_and_its_sketches() -> None:
    check_golden("failure-stream.txt", failure_text([SLOWER], MIXED[0]) + "\n")


def test_the_change_is_that_of_the_worst_metric_with_its_name() -> None:
    changes = [named_change(worst) for one in MIXED if (worst := worst_comparison(one))]
    assert changes == ["mean TTFT +24.0 %", "mean -0.20 %", "mean TTFT +1.0 %"]
    calm = stream_result(verdicts=(replace(CALM, change=None), FEWER))
    assert named_change(worst_comparison(calm)) == "tokens -8.0 %"  # type: ignore[arg-type]
    assert (
        named_change(worst_comparison(stream_result(verdicts=(CALM, replace(FEWER, tolerance=0.5)))))
        == "mean TTFT +1.0 %"
    )  # type: ignore[arg-type]


def test_a_job_summary_has_a_table_for_streams_and_names_their_sketches() -> None:
    text = job_summary(MIXED, [], {})
    assert "| test | pattern | median | ± | p95 | req/s | ASL | change |" in text
    assert "| test | pattern | TTFT | ± | p95 TTFT | TPOT | tok/s | req/s | ASL | change |" in text
    assert text.index("```\nTTFT\nnow ") < text.index("\nITL\nnow ")


def test_a_sketch_shows_the_revision_where_its_distribution_is_known() -> None:
    own = stream_result()
    then = {"ttft": own.stream.ttft.percentiles}
    revision = replace(counterpart(kind="revision"), stream_percentiles=then)
    assert [line.split()[0] for line in latency_picture(replace(own, reference=revision), "ttft")[:2]] == [
        "revision",
        "now",
    ]
    assert len(latency_picture(replace(own, reference=revision), "itl")) == 2
    baseline = replace(counterpart(), metrics={"ttft": (1.0, 1.0, 1.0), "ttft:p95": (2.0, 2.0, 2.0)})
    assert len(latency_picture(replace(own, reference=baseline), "ttft")) == 2  # three points are no distribution
    assert latency_picture(result(), "ttft") == []


def test_mean_tokens_that_are_not_known_are_left_out() -> None:
    stream = MIXED[0].stream
    assert tokens_text(replace(stream, input_tokens=None)) == "40.0 output tokens a request on average"
    assert tokens_text(replace(stream, input_tokens=None, output_tokens=None)) == ""
    assert "\n  tokens" not in failure_text(
        [SLOWER], stream_result(stream=replace(stream, input_tokens=None, output_tokens=None))
    )


def test_a_junit_report_has_the_tokens() -> None:
    found = dict(properties_of(stream_result()))
    assert found["perf_ttft_ns"] == "182000000"
    assert found["perf_input_tokens_per_request"] == "128"
    assert found["perf_output_tokens_per_request"] == "40"


def test_an_update_of_the_baseline_names_the_times_of_streams() -> None:
    one = stream_result()
    metrics = {name: (LaunchValue(one.metrics[name][0], 0.01),) for name in ("rtm", "ttft", "tpot", "output_tokens")}
    entry = Entry(one.setup, metrics, {}, None, "2026-11-24")
    assert update_lines([Update(one.test, None, entry)]) == [
        "test_llm.py::test_chat: new, median TTFT 182 ms, median TPOT 12.1 ms, output tokens 781 tok/s"
    ]
