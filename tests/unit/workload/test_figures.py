"""Figures of a user's own: read from answers in step with the recording, and metrics like the rest."""

import json
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.each_row import each_row
from support.synthetic import MS, START_NS, S, launch, samples

from pytest_mlpatterns.analysis.metrics.definitions import is_comparable, is_known_metric, metric_named
from pytest_mlpatterns.analysis.metrics.estimates import estimated
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.metrics.samples import join_samples, shift_samples, take_rows
from pytest_mlpatterns.analysis.verdicts.few_samples import judge_few
from pytest_mlpatterns.config.assertions import Limit, read_metric
from pytest_mlpatterns.errors import InvalidResultError, SettingError, TooFewSamplesError, UnitError
from pytest_mlpatterns.judging.limit_assertions import LimitAssertions
from pytest_mlpatterns.loadgen.columns import merged_columns, samples_of
from pytest_mlpatterns.loadgen.messages import LoadResult
from pytest_mlpatterns.loadgen.recorder import FigureColumns, SampleRecorder
from pytest_mlpatterns.measurement.answer_check import require_figures
from pytest_mlpatterns.measurement.system_under_test import read_figures
from pytest_mlpatterns.records import package_layers
from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
from pytest_mlpatterns.records.package_layers import LAYER_KINDS, recall_figures
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import Unit
from pytest_mlpatterns.workload.figures import Computed, FigureAnswer, Header, Json
from pytest_mlpatterns.workload.plan import LoadPlan

HEAD = b"HTTP/1.1 201 Created\r\nX-Queue-Time: 1.5\r\nServer-Timing: db;dur=3\r\nserver-timing: queue;desc=q;dur=2.5"
CHAT = b'data: {"usage": {"n": 3}}\n\ndata: {"usage": {"n": 5}, "c": [{"at": 7}]}\n\ndata: {"x": 1}\n\ndata: [DONE]\n'
OLLAMA = b'{"response": "a", "done": false}\n{"response": "", "done": true, "eval_duration": 12000000}\n'
PLAN: Any = LoadPlan(payload=None, schedule=None, duration_ns=S, warmup_ns=0, timeout_ns=S, check=None)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What a test declares is known to itself alone."""
    before = dict(LAYER_KINDS)
    yield
    LAYER_KINDS.clear()
    LAYER_KINDS.update(before)
    package_layers._RECALLED.clear()


@each_row(
    ("read", "body", "value"),
    (Header("X-QUEUE-TIME", unit="ms"), b"", "1.5"),
    (Header("server-timing", part="queue"), b"", "2.5"),
    (Header("server-timing", part="db"), b"", "3"),
    (Header("server-timing", part="que"), b"", None),
    (Header("x-none"), b"", None),
    (Json("eval_duration"), OLLAMA, 12000000),
    (Json("usage.n"), CHAT, 5),
    (Json("c.0.at"), CHAT, 7),
    (Json("c.1.at"), CHAT, None),
    (Json("a.b"), b'{"a": 3}', None),
    (Json("a"), b"no json", None),
    (Computed(lambda answer: answer.status), b"", 201),
    (Computed(lambda answer: answer.json()["x"]), b'{"x": 4}', 4),
)
def test_a_figure_is_read_where_it_is(read: Any, body: bytes, value: object) -> None:
    assert read.of(FigureAnswer(HEAD, body)) == value


def recorded(figures: object, *answers: bytes | None) -> tuple[LoadResult, Samples]:
    """What the load generator gives of these bodies; None is a request that failed."""
    plan = read_figures(figures, ())
    assert plan is not None
    recording = SampleRecorder()
    columns = FigureColumns(plan, recording, limit=0, limit_bytes=0)
    for number, body in enumerate(answers):
        recording.add(number, number, number + 1, 500 if body is None else 200, 0, 0, 9)
        if body is not None:
            columns.offer(0, body, HEAD)
    found = LoadResult(
        recording.columns() | columns.columns(),
        Window(0, S),
        Warmup(0, 0, None),
        GeneratorReport(0, 1, 0, 0),
        [],
        False,
        figure_faults=columns.reader.faults,
        without_figure=columns.reader.without,
    )
    return found, samples_of(found)


def body(**values: object) -> bytes:
    return json.dumps(values).encode()


HTTP = SimpleNamespace(headers={"X-Queue-Time": "1.5", "Content-Encoding": "gzip"}, content=b'{"n": 3}')
MESSAGE = SimpleNamespace(took_ms=4)


@each_row(
    ("read", "value", "number"),
    (Header("x-queue-time"), HTTP, "1.5"),
    (Json("n"), HTTP, 3),
    (Json("usage.n"), {"usage": {"n": 2}}, 2),
    (Json("n"), '{"n": 1}', 1),
    (Json("n"), b'{"n": 1}', 1),
    (Json("n"), ['{"x": 0}\n', '{"n": 8}\n'], 8),
    (Computed(lambda answer: len(answer.body)), "abc", 3),
    (Computed(lambda answer: answer.value.took_ms), MESSAGE, 4),
    (Header("x-queue-time"), {"usage": 1}, None),
    (Json("n"), MESSAGE, None),
)
def test_a_figure_is_read_from_what_a_client_returned(read: Any, value: object, number: object) -> None:
    assert read.of(FigureAnswer(b"", b"pickled", value)) == number


def test_a_client_whose_answers_have_no_figure_is_named() -> None:
    shown = str(FigureAnswer(b"", b"pickled", MESSAGE))
    assert shown.startswith("what perf_client returned, ")
    assert "took_ms=4" in shown
    assert str(FigureAnswer(b"", b"pickled", b"")) == "the headers (none), and the body b''"


def test_columns_are_in_step_with_the_recording_and_in_the_unit_of_the_metric() -> None:
    figures = {"wait": Json("wait", unit="ms"), "cached": lambda answer: answer.json().get("cached")}
    found, read = recorded(figures, body(wait=2), None, body(cached=True), body(wait="4"), None)
    np.testing.assert_equal(read.figures["wait"], [2e6, np.nan, np.nan, 4e6, np.nan])
    np.testing.assert_equal(read.figures["cached"], [np.nan, np.nan, 1, np.nan, np.nan])
    both = join_samples([shift_samples(take_rows(read, np.array([2, 0])), 10), read])
    np.testing.assert_equal(both.figures["wait"][:2], [2e6, np.nan])
    assert merged_columns([found.columns, found.columns])["figure:wait"].size == 10
    require_figures(PLAN, found, read)


def test_a_figure_that_no_answer_has_is_refused_with_what_the_first_one_has() -> None:
    figures = {"wait": Header("x-queue-tiem", unit="ms")}
    found, read = recorded(figures, body(done=True, n=1))
    plan = replace(PLAN, figures=read_figures(figures, ()))
    with pytest.raises(
        InvalidResultError, match=r"no answer has wait.* headers server-timing and x-queue-time.* done and n"
    ):
        require_figures(plan, found, read)
    with pytest.raises(InvalidResultError, match=r"the first one has server-timing: 'db;dur=3, queue;desc=q;dur=2.5'"):
        require_figures(plan, *recorded({"wait": Header("server-timing", part="que", unit="ms")}, b""))
    require_figures(plan, found)  # one block of two sides may lack it


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda _: "fast", "gave 'fast', expected a number"),
        (lambda _: -1, "gave -1"),
        (lambda a: a.json()["x"], "KeyError"),
    ],
)
def test_what_is_no_number_is_refused(value: object, words: str) -> None:
    found, read = recorded({"wait": value}, body(n=1))
    with pytest.raises(SettingError, match=f"perf_figures: wait .*{words}"):
        require_figures(PLAN, found, read)


@each_row(
    ("figures", "words"),
    ([Header("x")], "expected a dictionary"),
    ({"p95": Header("x")}, "is a metric already"),
    ({"rtm": Header("x")}, "is a metric already"),
    ({"Queue Time": Header("x")}, "in lower case"),
    ({"wait": "x-queue-time"}, "expected one of three"),
    ({"wait": Header("x", better="more")}, '"lower" or "higher"'),  # type: ignore[arg-type]
)
def test_a_wrong_declaration_is_refused(figures: object, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        read_figures(figures, ())


def test_units_are_known_and_tests_agree_on_them() -> None:
    with pytest.raises(UnitError, match='write "ms"'):
        read_figures({"wait": Header("x", unit="sec")}, ())
    read_figures({"wait": Header("x", unit="ms")}, ())
    read_figures({"wait": Json("y", unit="s")}, ())
    with pytest.raises(SettingError, match=r"wait .*bytes.*another test.*ns"):
        read_figures({"wait": Json("y", unit="KiB")}, ())


def test_a_figure_of_an_earlier_run_is_known_until_a_test_declares_it() -> None:
    recall_figures({"wait": (Unit.DURATION, "higher")})
    assert metric_named("wait:p95").show(2e6) == "2.00 ms"
    read_figures({"wait": Header("x")}, ())
    assert metric_named("wait").show(2) == "2.00"
    assert metric_named("wait").better == "lower"


def measured(figures: object, **values: object) -> Metrics:
    """Two launches of 200 answers each."""
    read_figures(figures, ())
    plain = samples(START_NS + np.arange(200) * 10 * MS, 5 * MS)
    given = {name: np.resize(np.asarray(of, dtype=float), 200) for name, of in values.items()}
    return Metrics((launch(replace(plain, figures=given)),) * 2)


def test_means_and_percentiles_are_metrics_like_the_rest() -> None:
    metrics = measured(
        {"wait": Header("x", unit="ms"), "share": Header("y")}, wait=np.arange(1, 101) * MS, share=[0, 0.5]
    )
    found, launches = estimated(metrics, ["wait:p90"])
    assert found["wait"][0] == pytest.approx(50.5 * MS, rel=0.01)
    assert found["wait:p90"][0] == pytest.approx(90 * MS, rel=0.03)
    assert found["wait:p95"][1] < 95 * MS < found["wait:p95"][2]
    assert found["share:p50"][1:] == (0, 0.5)
    assert found["share"][0] == pytest.approx(0.25)
    assert "wait:p99" not in found, "400 answers bound no p99"
    assert len(launches["wait:p95"]) == 2
    with pytest.raises(TooFewSamplesError):
        metrics.interval_of(metric_named("wait:p99"))
    assert metrics.figure("wait") is not None
    assert metrics.figure("wait:p97") is not None
    assert not metrics.figure_notes()
    with pytest.raises(KeyError, match="did you mean wait"):
        metrics.figure("wate")


def test_what_never_varies_is_exact() -> None:
    assert estimated(measured({"words": Header("x")}, words=3))[0]["words"] == (3, 3, 3)


def test_a_percentile_of_too_few_answers_leaves_a_limit_open() -> None:
    metrics = measured({"wait": Header("x", unit="ms")}, wait=np.arange(1, 101) * MS)
    few = TooFewSamplesError("few", needed=459, found=400)
    found = judge_few(metric_named("wait:p99"), 5 * MS, few, metrics=metrics, confidence=0.95)
    assert (found.outcome, found.reason) == (Outcome.INCONCLUSIVE, "few; 59 more are needed")


def test_what_some_answers_have_is_counted_over_those() -> None:
    metrics = measured({"wait": Header("x")}, wait=[4, math.nan, math.nan, math.nan])
    assert estimated(metrics)[0]["wait"][0] == 4
    assert metrics.figure_notes() == ["wait is that of 100 of 400 answers; the others do not have it"]


def test_names_of_metrics_are_read_with_percentiles() -> None:
    assert not is_known_metric("wait:p95")
    read_figures({"wait": Header("x", unit="ms", better="higher")}, ())
    for name in ("p97", "ttft:p95", "wait", "wait:p99.9"):
        assert read_metric(name, "").name == metric_named(name).name == name
    assert is_comparable("wait:p95")
    assert not is_comparable("rtm:p95")
    for name in ("wate", "wait:p100", "p0", "hsx", "rtm:p95", 3):
        with pytest.raises(SettingError, match=f"there limits {name!r}"):
            read_metric(name, "there")
    with pytest.raises(SettingError, match="did you mean wait"):
        read_metric("wate", "there")


@pytest.mark.parametrize(
    ("given", "better", "limit"), [({"below": "5ms"}, "lower", 5 * MS), ({"at_least": "1us"}, "higher", 1_000)]
)
def test_a_limit_has_the_direction_that_is_asked(given: dict[str, object], better: str, limit: int) -> None:
    read_figures({"wait": Header("x", unit="ms")}, ())
    kept: list[Limit] = []
    asking: Any = SimpleNamespace(
        _experiment=SimpleNamespace(settings=SimpleNamespace(price=None)),
        _keep=kept.append,
        _verdicts=SimpleNamespace(raised=[]),
    )
    LimitAssertions.assert_metric(asking, "wait:p95", **given)
    assert [(one.metric.label, one.metric.better, one.value) for one in kept] == [("p95 wait", better, limit)]
    with pytest.raises(UnitError, match=r"assert_metric\('wait', below=...\) is 5"):
        LimitAssertions.assert_metric(asking, "wait", below=5)
    read_figures({"words": Header("x")}, ())
    with pytest.raises(UnitError, match="a figure without a unit, is '5ms', expected a number"):
        LimitAssertions.assert_metric(asking, "words", below="5ms")
    for none in ({}, {"below": "1ms", "at_least": "1ms"}):
        with pytest.raises(SettingError, match="expected one limit"):
            LimitAssertions.assert_metric(asking, "wait", **none)
    with pytest.raises(SettingError, match=r"at_least=...\) expected below=, since a lower p95 latency is better"):
        LimitAssertions.assert_metric(asking, "p95", at_least="5ms")
