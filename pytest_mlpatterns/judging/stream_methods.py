"""The methods of ``perf`` about streams, and about requests that keep an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import METRICS, goodput_metric, stream_metric
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.limit_assertions import check_percentile
from pytest_mlpatterns.judging.verdict_log import at_the_call
from pytest_mlpatterns.records.objective import parse_promise
from pytest_mlpatterns.units import parse_duration, parse_number, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.analysis.metrics.definitions import Metric
    from pytest_mlpatterns.judging.limit_assertions import ReadMetric
    from pytest_mlpatterns.judging.overload_assertions import OverloadAssertions
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["StreamMethods"]


class StreamMethods(ABC):
    """What :class:`pytest_mlpatterns.judging.perf.Perf` offers about answers that come in pieces, and about goodput."""

    _overload: OverloadAssertions

    @at_the_call
    def assert_ttft_below(self, limit: object, percentile: float = 50) -> None:
        """The time to the first token is below one such as ``"300ms"``; of failed requests it is infinite."""
        self._assert_stream("ttft", limit, percentile)

    @at_the_call
    def assert_itl_below(self, limit: object, percentile: float = 50) -> None:
        """The inter-token latency, the gap between two tokens of an answer, is below a time such as ``"40ms"``."""
        self._assert_stream("itl", limit, percentile)

    @at_the_call
    def assert_tpot_below(self, limit: object, percentile: float = 50) -> None:
        """The time per output token of a request is below one such as ``"40ms"``; of failed ones it is infinite."""
        self._assert_stream("tpot", limit, percentile)

    @at_the_call
    def assert_output_tokens_at_least(self, rps: object, *, per_user: bool = False) -> None:
        """The output tokens per second reach a rate.

        Args:
            rps: tokens per second.
            per_user: those that one caller sees while its answer streams, instead of those of all together.
        """
        metric = METRICS["output_tokens_per_user" if per_user else "output_tokens"]
        self._check_limit(metric, parse_number(rps, name="assert_output_tokens_at_least(rps=...)"))

    @at_the_call
    def assert_goodput_at_least(
        self, share: object = None, *, slo: str | None = None, at: float | None = None, rps: object = None
    ) -> None:
        """The requests that keep an objective reach a rate; beyond the NMRT, a share of it.

        Write ``(rps=8, slo="ttft<300ms, tpot<40ms")`` for the load of the test, or
        ``(0.9, at=2.0, slo="p95<200ms")`` for a load beyond the NMRT.

        Args:
            share: of the NMRT, 0.9 or ``"90%"``.
            slo: required: what each request keeps; with ``at`` an objective, within whose time an answer is in time.
            at: the load, as a multiple of the NMRT.
            rps: requests per second, at the load of the test.
        """
        if (share is None) is not (at is None) or (share is None) is (rps is None):
            raise SettingError(
                'assert_goodput_at_least(...) expected a rate at the load of the test (rps=8, slo="ttft<300ms"), or a '
                'share of the NMRT at a multiple of it (0.9, at=2.0, slo="p95<200ms")'
            )
        if slo is None:
            raise SettingError('assert_goodput_at_least(...) expected what each request keeps; add slo="ttft<300ms"')
        if at is None:
            self._assert_goodput(parse_number(rps, name="assert_goodput_at_least(rps=...)"), slo)
            return
        least = parse_share(share, name="assert_goodput_at_least(...)")
        self._settle("goodput", lambda: self._overload.decide_goodput(least, at, slo))

    def _assert_goodput(self, rps: float, slo: str) -> None:
        promise = parse_promise(slo)
        self._check_limit(
            goodput_metric(promise),
            rps,
            lambda metrics, confidence, _scatter: metrics.promised(promise, goodput=True, confidence=confidence),
        )

    def _assert_stream(self, quantity: str, limit: object, percentile: float) -> None:
        check_percentile(percentile, f"assert_{quantity}_below")
        limit_ns = parse_duration(limit, name=f"assert_{quantity}_below(...)")
        self._check_limit(stream_metric(quantity, percentile), limit_ns)

    @abstractmethod
    def _check_limit(self, metric: Metric, limit: float, read: ReadMetric | None = None) -> None:
        """Judge a limit, and log the verdict."""

    @abstractmethod
    def _settle(self, metric: str, decide: Callable[[], Verdict | None]) -> None:
        """Decide, and log the verdict."""
