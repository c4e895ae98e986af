"""Metrics by name: each is found by the name that it prints, and its unit decides how a limit is read."""

from support.each_row import each_row

from pytest_mlpatterns.analysis.metrics.definitions import (
    METRICS,
    is_known_metric,
    metric_named,
    nmrt_metric,
    objectives_of,
)
from pytest_mlpatterns.analysis.metrics.metric import Nmrt
from pytest_mlpatterns.records.objective import Objective
from pytest_mlpatterns.units import Unit

OBJECTIVE = Objective.of(95.0, 50_000_000)


def test_a_metric_is_found_by_its_name() -> None:
    for metric in (*METRICS.values(), nmrt_metric(None), nmrt_metric(OBJECTIVE)):
        assert repr(metric_named(metric.name)) == repr(metric)


def test_nmrt_under_an_objective_keeps_the_objective() -> None:
    metric = metric_named("nmrt(p95<50ms)")
    assert (metric.kind, metric.name, metric.unit) == (Nmrt(OBJECTIVE), "nmrt(p95<50.0ms)", Unit.RATE)


@each_row("name", ["p960", "nmrt(fast)", "nmrt(p95<50ms", "nmrt2", ""])
def test_other_names_are_unknown(name: str) -> None:
    assert not is_known_metric(name)


def test_objectives_are_those_of_nmrt_only() -> None:
    names = ["rtm", "nmrt", "nmrt(p95<50.0ms)", "nmrt(later)"]
    assert objectives_of(names) == {"nmrt": None, "nmrt(p95<50.0ms)": OBJECTIVE}
