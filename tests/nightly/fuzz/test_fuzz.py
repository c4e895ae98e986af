"""Random and mutated inputs raise nothing but the package's own exceptions, and nothing hangs.

``make fuzz`` runs a million cases, ``make nightly QUICK=1`` a few thousand.
"""

import pytest
from support.each_row import each_row
from support.fuzz import Share, assertions, failures_in, files, records, settings, shares, streams, wires

AREAS = [
    *settings.AREAS,
    *assertions.AREAS,
    *wires.AREAS,
    *streams.AREAS,
    *files.AREAS,
    *files.METRICS_AREAS,
    *records.AREAS,
]


@pytest.mark.simulation
@each_row("share", shares(AREAS))
def test_only_promised_exceptions_are_raised(share: Share) -> None:
    failures = failures_in(share)
    assert not failures, "\n".join(failures)
