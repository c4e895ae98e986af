"""Random and mutated inputs raise nothing but the package's own exceptions, and nothing hangs.

``make fuzz`` runs a million cases, ``make nightly QUICK=1`` a few thousand.
"""

import pytest
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
@pytest.mark.parametrize("share", shares(AREAS), ids=str)
def test_only_promised_exceptions_are_raised(share: Share) -> None:
    failures = failures_in(share)
    assert not failures, "\n".join(failures)
