"""A pattern with another number of replicas."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns import Batched, Cached, Pattern, Replicated, SettingError, Single
from pytest_mlpatterns.patterns.replication import with_replicas

ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@each_row(
    ("pattern", "replicas", "scaled"),
    (Single(), 1, Single()),
    (Single(), 4, Replicated(4)),
    (Replicated(2, balance="least-outstanding"), 4, Replicated(4, balance="least-outstanding")),
    (Replicated(2), 1, Single()),
    (Batched(), 1, Batched()),
    (Batched(), 2, Replicated(2) | Batched()),
    (Replicated(2) | Batched(), 1, Batched()),
    (Replicated(8) | Cached() | Batched(), 2, Replicated(2) | Cached() | Batched()),
    (Cached() | Replicated(2), 2, Replicated(2) | Cached() | Replicated(2)),
    (Single(env=ONE_THREAD), 3, Replicated(3, env=ONE_THREAD)),
    (Replicated(2, env=ONE_THREAD), 1, Single(env=ONE_THREAD)),
    (Replicated(2, env=ONE_THREAD) | Cached(), 1, Single(env=ONE_THREAD) | Cached()),
    (Single(env=ONE_THREAD) | Cached(), 2, Replicated(2, env=ONE_THREAD) | Cached()),
    (Cached(env=ONE_THREAD), 2, Replicated(2) | Cached(env=ONE_THREAD)),
    (Replicated(2, "prefix", prefix_chars=8), 4, Replicated(4, "prefix", prefix_chars=8)),
    (Replicated(2, "prefix") | Cached(), 3, Replicated(3, "prefix") | Cached()),
    (Replicated(2, "prefix", env=ONE_THREAD), 1, Single(env=ONE_THREAD)),
)
def test_the_whole_service_is_scaled_out(pattern: Pattern, replicas: int, scaled: Pattern) -> None:
    assert with_replicas(pattern, replicas) == scaled


def test_too_many_processes_are_refused() -> None:
    with pytest.raises(SettingError, match="64"):
        with_replicas(Single(), 65)
