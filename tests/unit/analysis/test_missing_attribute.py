"""Names that do not exist: the message says what to write for a percentile, or which name is close."""

import copy
import pickle
from typing import Any

import pytest
from support.each_row import each_row
from support.synthetic import even_launch

from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.records.launch import Estimate


def blank(kind: type) -> Any:
    return object.__new__(kind)


@each_row(
    ("kind", "name", "advice"),
    (Metrics, "p95", "use metrics.latency_ns(95)"),
    (Metrics, "p99_ns", "use metrics.latency_ns(99)"),
    (Metrics, "latency_p90", "use metrics.latency_ns(90)"),
    (Metrics, "throughput", "did you mean throughput_rps?"),
    (Perf, "assert_p95_below", "use assert_latency_below(..., percentile=95)"),
    (Perf, "p95", "use perf.metrics.latency_ns(95)"),
    (Perf, "assert_rtm_bellow", "did you mean assert_rtm_below?"),
)
def test_missing_name_says_what_to_write(kind: type, name: str, advice: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(blank(kind), name)
    assert str(caught.value) == f"{kind.__name__!r} object has no attribute {name!r}; {advice}"


def test_other_missing_names_have_the_message_of_python() -> None:
    with pytest.raises(AttributeError, match=r"^'Perf' object has no attribute 'xyzzy'$"):
        blank(Perf).xyzzy  # noqa: B018 - reading raises
    assert not hasattr(blank(Metrics), "__array__")


def test_metrics_are_copied_and_pickled_as_before() -> None:
    metrics = Metrics((even_launch(),))
    assert copy.copy(metrics).requests == metrics.requests
    assert pickle.loads(pickle.dumps(metrics)).requests == metrics.requests


def test_estimate_is_not_compared_with_a_number() -> None:
    found: Any = Estimate(4.0, 3.0, 5.0)
    for compare in (lambda: found < 3, lambda: found <= 3, lambda: found > 3, lambda: found >= 3, lambda: found > 3):
        with pytest.raises(
            TypeError, match=r"an Estimate is an interval and cannot be compared with 3; compare its \.v"
        ):
            compare()
    assert found == Estimate(4.0, 3.0, 5.0)
