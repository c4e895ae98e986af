"""The result record: what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from support.synthetic import MS, START_NS, S, launch, samples

from pytest_mlpatterns.analysis.metric_definitions import METRICS
from pytest_mlpatterns.analysis.metrics import Metrics
from pytest_mlpatterns.judging.estimates import estimate_or_none


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
