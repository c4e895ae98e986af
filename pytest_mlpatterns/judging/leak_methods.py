"""The methods of ``perf`` about leaks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.verdict_log import at_the_call
from pytest_mlpatterns.units import SECOND_NS, parse_duration, parse_size
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.judging.leaks import LeakAssertions
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["LeakMethods"]


class LeakMethods(ABC):
    """What :class:`pytest_mlpatterns.judging.perf.Perf` offers about leaks."""

    _leaks: LeakAssertions

    @at_the_call
    def assert_no_leak(self, limit: object, *, duration: object = "10s") -> None:
        """Resident memory grows by less than a size such as ``"100 B"`` per request, or its growth levels off.

        The running deployment is loaded for 2, 4 or 10 s, until that is decided, beside the test's budget; a smaller
        limit needs more requests. Open
        descriptors and threads grow by less than 1 per 1,000 requests, where the system counts them. A growth that
        slows down, stops or comes in single steps is no failure: the verdict is then open, with the number of requests
        that would decide it.

        Args:
            limit: growth of memory per request, such as ``"100 B"`` or ``"1KiB"``.
            duration: the longest load, such as ``"60s"``; at least one second.
        """
        limit_bytes = parse_size(limit, name="assert_no_leak(...)")
        longest_ns = parse_duration(duration, name="assert_no_leak(duration=...)")
        if limit_bytes == 0:
            raise SettingError(
                f'assert_no_leak({shown(limit)}), expected more than 0, which no run can show; write "100 B"'
            )
        if longest_ns < SECOND_NS:
            raise SettingError(f'assert_no_leak(duration={shown(duration)}), expected at least 1s; write "10s"')
        self._settle_all(lambda: self._leaks.decide(limit_bytes, longest_ns), "memory_growth")

    @abstractmethod
    def _settle_all(self, decide: Callable[[], Sequence[Verdict]], metric: str) -> None:
        """Decide, and log the verdicts."""
