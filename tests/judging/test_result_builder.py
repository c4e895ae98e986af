"""The result record: what it leaves out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.synthetic import MS, START_NS, S, even_launch, launch, samples

from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.analysis.metrics import Metrics
from pytest_mlpatterns.judging.estimates import estimate_or_none
from pytest_mlpatterns.judging.result_builder import unsteady_notes
from pytest_mlpatterns.records.launch import Warmup


@pytest.mark.parametrize(("outcome", "known"), [(500, False), (200, True)])
def test_the_rate_of_successes_is_not_shown_beside_an_error_rate_of_100_percent(outcome: int, known: bool) -> None:
    before, count = 40, 200  # requests of the warm-up succeeded, and the last of them were answered in the window
    due = START_NS + np.arange(-before, count) * (S // count)
    outcomes = np.where(due < START_NS, 200, outcome)
    metrics = Metrics((launch(samples(due, np.full(due.size, 20 * MS), outcome=outcomes), seconds=1.0),))
    assert (estimate_or_none(metrics, METRICS["throughput"]) is not None) is known
    error_rate = estimate_or_none(metrics, METRICS["error_rate"])
    assert error_rate is not None
    assert error_rate.value == (0.0 if known else 1.0)


def test_a_warm_up_without_an_end_is_worth_a_note_if_latency_went_on_to_change() -> None:
    even = even_launch()
    ended = {steady: replace(even, warmup=Warmup(3 * S, 100, steady)) for steady in (False, True)}
    assert unsteady_notes(Metrics((ended[False],)), changes=False) == ()
    rising = replace(
        ended[False], samples=samples(even.samples.due_ns, np.linspace(2 * MS, 8 * MS, even.samples.due_ns.size))
    )
    why, trend = unsteady_notes(Metrics((rising,)), changes=False)
    assert why == "the warm-up ended by its limit, not because the load was steady"
    assert trend.startswith("not stationary: RTM changed by +")
    assert unsteady_notes(Metrics((replace(rising, warmup=ended[True].warmup),)), changes=False) == (trend,)
    assert unsteady_notes(Metrics((rising,)), changes=True) == ()
