"""The methods of ``perf`` about how a pattern scales."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.capacity.scale_out import SCALE_OUT
from pytest_mlpatterns.analysis.capacity.scaling import EFFICIENCY
from pytest_mlpatterns.judging.verdict_log import at_the_call
from pytest_mlpatterns.units import parse_duration, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_mlpatterns.analysis.capacity.scaling import Scaling
    from pytest_mlpatterns.judging.scaling_assertions import ScalingAssertions
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["ScalingMethods"]


class ScalingMethods(ABC):
    """What :class:`pytest_mlpatterns.judging.perf.Perf` offers about scaling out."""

    _scaling: ScalingAssertions

    @at_the_call
    def measure_scaling(self, replicas: Iterable[int] = (1, 2, 4), *, cpus_per_replica: int | None = None) -> Scaling:
        """Measure NMRT of the test's pattern at several numbers of replicas, as ``Replicated(n)`` starts them.

        Two passes, the second in the opposite order. Each number of replicas takes a search for NMRT and a window of
        a second in each pass, about ten seconds; that is beside the test's budget. One replica then gets another under
        load, which takes as long as the scale-out and a second more.

        Args:
            replicas: different numbers from 1 on, 1 among them.
            cpus_per_replica: number of cores on which each replica runs alone, instead of the marker's ``cpus=``; one
                more is left for the load generator. None: they share the cores.

        Returns:
            The steps, the fitted scalability law, predictions, and the scale-out time; without steps in a smoke run.
        """
        return self._scaling.measure(replicas, cpus_per_replica)

    @at_the_call
    def assert_scaling_efficiency_at_least(self, limit: object, *, replicas: int) -> None:
        """NMRT of this many replicas over as many times the NMRT of one reaches a share, 0.8 or ``"80%"``.

        Args:
            limit: the smallest acceptable share.
            replicas: number of replicas, from 2.
        """
        share = parse_share(limit, name="assert_scaling_efficiency_at_least(...)")
        self._settle(EFFICIENCY.name, lambda: self._scaling.decide_efficiency(share, replicas))

    @at_the_call
    def assert_scale_out_below(self, limit: object) -> None:
        """One more replica, asked for while callers keep one at its knee, carries its share in less than this time.

        Uses what :meth:`measure_scaling` has measured, or measures one replica alone. It raises ``InvalidResultError``
        if the time is not known: with ``balance="shared-socket"``, or if the replica never carried its share.

        Args:
            limit: the time, such as ``"2s"``, from asking for the replica until it gives at least 90 % of its share of
                the answers.
        """
        limit_ns = parse_duration(limit, name="assert_scale_out_below(...)")
        self._settle(SCALE_OUT.name, lambda: self._scaling.decide_scale_out(limit_ns))

    @abstractmethod
    def _settle(self, metric: str, decide: Callable[[], Verdict | None]) -> None:
        """Decide, and log the verdict."""
