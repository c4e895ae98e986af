"""The methods of ``perf`` that compare the test's service with another one, measured in the same minutes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError, UnequalAnswersWarning
from pytest_mlpatterns.judging.interleaved_verdicts import COMPARABLE_METRICS, Factor
from pytest_mlpatterns.judging.verdict_log import at_the_call
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import parse_number, parse_ratio
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.interleaved_verdicts import SideComparison
    from pytest_mlpatterns.judging.verdict_log import VerdictLog
    from pytest_mlpatterns.patterns import Pattern
    from pytest_mlpatterns.records.verdict import Verdict
    from pytest_mlpatterns.serving.targets import Target

__all__ = ["ComparisonMethods"]

_FASTER, _NOT_SLOWER = "assert_faster_than", "assert_not_slower_than"


class ComparisonMethods(ABC):
    """What :class:`pytest_mlpatterns.judging.perf.Perf` offers about two services."""

    _experiment: Experiment
    _sides: SideComparison
    _verdicts: VerdictLog

    @at_the_call
    def assert_faster_than(
        self,
        other: Pattern | Target | Callable[..., Any] | str | None = None,
        *,
        by: object = 1.0,
        on: str = "rtm",
        reference: Callable[..., Any] | str | None = None,
    ) -> None:
        """The test's service is faster than another one, measured interleaved.

        Both are started several times and loaded in short alternating blocks, so that the speed of the machine does not
        matter. A launch takes some seconds; the comparison has a budget of its own, as large as the test's. A factor
        above 1 that is missed beside busy neighbours stays undecided (see ``noise=``). With ``check=`` the answers of
        both are checked; without, answers that differ are reported.

        Args:
            other: the same model under another pattern, or its name; another model under the test's pattern, as a
                callable, a class or an import string; or a service, ``App(...)``, ``Command(...)`` or ``Url(...)``.
                It gets the same inputs in the same order, under the same load, over the same wire or by the same
                ``request=``.
            by: smallest acceptable factor, such as 3.0.
            on: ``"rtm"`` (the other's RTM over this one's), ``"throughput"`` or ``"nmrt"`` (this one's over the
                other's).
            reference: instead of ``other`` a model, or function of a library, that is called without a server: with a
                list of one input, in a process of its own, by as many threads as the test has callers, each of which
                calls again when its call has returned. RTM is compared with the median time of a call, throughput with
                calls per second.
        """
        times = parse_number(by, name=f"{_FASTER}(by=...)", example="2.0")
        if not times:
            raise SettingError(f"{_FASTER}(by={shown(by)}), expected more than 0, which any service is; write 2.0")
        self._compare_sides(_FASTER, Factor(_read_on(on, _FASTER), times), other=other, reference=reference)

    @at_the_call
    def assert_not_slower_than(
        self,
        other: Pattern | Target | Callable[..., Any] | str | None = None,
        *,
        by: object = None,
        on: str = "rtm",
        reference: Callable[..., Any] | str | None = None,
    ) -> None:
        """The test's service is not slower than another one by more than a margin, measured interleaved.

        Two equally fast services pass. No measurement can show that one is not slower at all, so there is a margin. All
        else is as for ``assert_faster_than``.

        Args:
            other: as for ``assert_faster_than``.
            by: the margin: ``"10%"`` allows 1.1 times the other's RTM, or its rate over 1.1; 2.0 twice its RTM, or half
                its rate. None is the test's tolerance of this metric, 10 % unless it sets another.
            on: as for ``assert_faster_than``.
            reference: as for ``assert_faster_than``.
        """
        name = _read_on(on, _NOT_SLOWER)
        margin = self._experiment.settings.tolerance.of(name) + 1 if by is None else _read_margin(by)
        self._compare_sides(_NOT_SLOWER, Factor(name, 1 / margin, margin), other=other, reference=reference)

    def _compare_sides(self, method: str, factor: Factor, *, other: object, reference: object) -> None:
        from pytest_mlpatterns.judging.other_side import other_side, plain_side  # starts processes: not on Windows

        if (other is None) == (reference is None):
            found = "neither" if other is None else "both"
            raise SettingError(f"{method}(...) has {found} of other and reference=, expected one of them")
        if reference is not None and factor.on == "nmrt":
            raise SettingError(f'{method}(on="nmrt", reference=...), expected "rtm" or "throughput" of plain calls')
        sides = plain_side if other is None else other_side
        found_side = sides(self._experiment, reference if other is None else other, method)
        self._settle(factor.on, lambda: self._sides.decide(found_side, factor))
        verdicts = self._verdicts.all
        undecided = not self._experiment.smoke and verdicts[-1].outcome is Outcome.INCONCLUSIVE  # its warning has it
        if self._sides.difference and not undecided:
            text = f"{self._experiment.test}: {self._sides.difference}; if both are right, say so with check="
            self._verdicts.warn(UnequalAnswersWarning(text))

    @abstractmethod
    def _settle(self, metric: str, decide: Callable[[], Verdict | None]) -> None:
        """Decide, and log the verdict."""


def _read_on(on: object, method: str) -> str:
    """The name of the metric that is compared."""
    if not isinstance(on, str) or on not in COMPARABLE_METRICS:
        raise SettingError(f"{method}(on={shown(on)}), expected one of {', '.join(map(repr, COMPARABLE_METRICS))}")
    return on


def _read_margin(by: object) -> float:
    """The margin as a factor of time."""
    name = f"{_NOT_SLOWER}(by=...)"
    if isinstance(by, str) and by.strip().endswith("%"):
        return 1 + parse_ratio(by, name=name)
    factor = parse_number(by, name=name, example='"10%"')
    if factor < 1:
        raise SettingError(
            f'{name} is {shown(by)}, expected a share as text or a factor of at least 1; write "10%", or 2.0 for twice '
            "the time"
        )
    return factor
