"""Why a verdict is open and what to do about it: one table of reasons, chosen by values; and what is probably slower.

The judging knows some reasons (:class:`~pytest_mlpatterns.records.verdict.WhyOpen`), whose next step stands here by
their kind. A change without one has the first reason of :data:`_REASONS` that its values show. Pure. This module must
not know results, commands or files.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.analysis.statistics.intervals import TO_95_PERCENT
from pytest_mlpatterns.analysis.verdicts.verdicts import log_change
from pytest_mlpatterns.records.launch import Busy, Estimate
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import listed

LONGEST_S = 600.0
"""Longest measuring time that is recommended: one test of a suite for which ten minutes are too long is rewritten."""
_WIDEST = 0.30
"""Largest tolerance that is recommended: with a larger one a test hardly guards anything."""
_LEAST_TOLERANCE = 0.001  # With which widths are compared, if a test accepts no change at all
_NOT_SLOWER = "probably not slower: only the worse end of its interval is beyond the tolerance; "
_QUIETER = "run it again in a quieter moment"
_NEXT: Mapping[OpenBy, str] = {
    OpenBy.MACHINE: _QUIETER,
    OpenBy.CLIENT: "spread perf_client over processes: write generators=2 in the marker of the test",
    OpenBy.MODES: "put the limit beyond both modes, or assert another percentile",
    OpenBy.KINDS: "let more launches show both ways: raise launches= and budget= in the marker of the test",
    OpenBy.LAUNCHES: "look for what differs from one start to the next, or move the limit away from what is measured",
    OpenBy.STARTS: "find why the service does not start, or give it more time: --perf-startup-timeout 5min",
    OpenBy.REQUESTS: "measure more (requests= or duration=, or that of perf.assert_no_leak), or with more load",
    OpenBy.CACHE: "give the cache a quarter of its entries, so that it is full earlier",
    OpenBy.UNEXPLAINED: "look for a data file, a variable or another service that changed, and record it anew if that "
    "is intended",
}
"""What to do about each reason that the judging knows."""


class OpenReason(Struct, frozen=True):
    """Why a verdict is open, and what to do about it."""

    by: OpenBy | None = None  # None if the verdict itself has the reason
    why: str = ""  # as a sentence without its full stop; empty if the verdict itself has it
    advice: str = ""  # what to do, in words; empty if only measuring longer helps
    seconds: float | None = None  # of measuring that would decide it; None if no reasonable time does
    preface: str = ""  # with which the sentence begins if the estimate is no slower than the reference


class OpenChange(Struct, frozen=True):
    """What is known of an open change and of its measurement; 0.1 is 10 %, and worse is positive."""

    metric: str  # its name
    change: Estimate
    tolerance: float  # largest acceptable worsening, or the metric's floor if that is more
    spent_s: float  # time that was measured
    launches: int  # that the interval rests on: of the present, or pairs
    answers: int = 0  # in these launches; 0 beside a revision, where pairs count
    recorded: int = 0  # launches of the baseline; 0 if both sides are measured together
    scatter: float = 0.0  # standard deviation between launches; 0 if it is not known
    explained: float = 0.0  # the part of it that is usual, or that the few answers of a launch explain
    busy: Busy | None = None  # what others took of the machine meanwhile
    seconds: float | None = None  # of measuring that would decide what time decides; None without one
    decides: str = "it"  # what that time decides
    is_agreed: bool = False  # whether the tolerance must not grow, such as the ceiling of an acceptance

    @property
    def width(self) -> float:
        """Width of the interval."""
        return self.change.high - self.change.low

    @property
    def times(self) -> float:
        """How many times as wide as the tolerance the interval is."""
        return self.width / max(self.tolerance, _LEAST_TOLERANCE)

    @property
    def narrowing_s(self) -> float | None:
        """Seconds of measuring that would narrow the interval to the tolerance; None if no reasonable time does."""
        seconds = self.spent_s * self.times**2
        return None if self.recorded or seconds > LONGEST_S else seconds


def known_reason(why: WhyOpen, busy: Busy | None, *, is_said: bool = False) -> OpenReason:
    """The reason that the judging gave; an interval that launches make wide has a busy machine as its reason.

    ``is_said``: whether the figures of the verdict end with it.
    """
    if why.by in (OpenBy.LAUNCHES, OpenBy.EDGE) and busy is not None:
        return busy_reason(busy)
    return OpenReason(why.by, "" if is_said else str(why), _NEXT.get(why.by, ""))


def busy_reason(busy: Busy, seconds: float | None = None) -> OpenReason:
    """That others used the machine."""
    longer = "" if seconds is None else f", or for about {math.ceil(seconds / 10) * 10} s"
    return OpenReason(OpenBy.MACHINE, f"the machine was busy: {busy}", f"{_QUIETER}{longer}", seconds)


def reason_of(found: OpenChange) -> OpenReason:
    """The reason of an open change for which the judging knows none."""
    reason = next(reason for rule in _REASONS if (reason := rule(found)) is not None)
    if found.change.value > 0:
        return reason
    return replace(reason, why=f"{_NOT_SLOWER}{reason.why}", preface=_NOT_SLOWER)


def _machine(found: OpenChange) -> OpenReason | None:
    if found.busy is None or found.width <= found.tolerance:
        return None
    return busy_reason(found.busy, found.narrowing_s if found.seconds is None else found.seconds)


def _edge(found: OpenChange) -> OpenReason | None:
    change, tolerance = found.change, found.tolerance
    if found.width > tolerance or not change.low <= tolerance <= change.high:
        return None
    why = f"it is at the edge of the tolerance, which its interval of {_points(found)} contains"
    if found.seconds is not None:
        spent = f"{math.ceil(found.spent_s)} s were spent"
        why += f"; about {math.ceil(found.seconds)} s of measuring would decide {found.decides}, {spent}"
        return OpenReason(OpenBy.EDGE, why, seconds=found.seconds)
    roomy = math.ceil(change.high * 20 - 1e-9) / 20
    if found.is_agreed or roomy > _WIDEST:
        return OpenReason(OpenBy.EDGE, why, "find what makes it slower: it is as much as the test accepts")
    advice = f'give the metric a tolerance of its own: tolerance={{"{found.metric}": {roomy:g}}}'
    return OpenReason(OpenBy.EDGE, why, advice)


def _launches(found: OpenChange) -> OpenReason | None:
    if found.launches < 3 or found.scatter <= 3 * found.explained:
        return None
    scatter, usual = format_percent(found.scatter), format_percent(found.explained)
    longer = "" if found.seconds is None else f", or measure for about {math.ceil(found.seconds)} s"
    advice = f"look for what differs from one start to the next, such as a cache or a thread{longer}"
    why = f"its launches differ by ±{scatter} from each other, of which ±{usual} is usual"
    return OpenReason(OpenBy.LAUNCHES, why, advice, found.seconds)


def _answers(found: OpenChange) -> OpenReason | None:
    if found.seconds is None:
        return None
    needed = f"{math.ceil(found.seconds)} s of measuring in all, would decide {found.decides}"
    return OpenReason(OpenBy.REQUESTS, f"{_too_few(found, found.seconds)}, {needed}", seconds=found.seconds)


def _recorded(found: OpenChange) -> OpenReason | None:
    if not found.recorded:
        return None
    launches = wording.count(found.recorded, "launch", "launches")
    why = f"more measuring would hardly decide it beside a baseline of {launches}"
    return OpenReason(OpenBy.RECORDED, why, "record it with more, from the code that it is of")


def _wide(found: OpenChange) -> OpenReason:
    times = f"{found.times:,.0f}" if found.times >= 10 else f"{found.times:.1f}"
    why = f"its interval of {_points(found)} is {times} times as wide as the tolerance"
    if (seconds := found.narrowing_s) is not None:
        why = f"{why}; about {math.ceil(seconds)} s of measuring would narrow it to that"
        return OpenReason(OpenBy.REQUESTS, why, seconds=seconds)
    why = f"{why}, and {LONGEST_S / 60:.0f} min of measuring would not narrow it to that"
    return OpenReason(OpenBy.WIDE, why, "measure it with more load, or in longer windows (duration=)")


_REASONS: Sequence[Callable[[OpenChange], OpenReason | None]] = (_machine, _edge, _launches, _answers, _recorded, _wide)
"""The reasons of an open change; the first that its values show counts, and the last one always does."""


def _too_few(found: OpenChange, seconds: float) -> str:
    """``300 answers in 1 launch are too few: about 340 more``."""
    launches = wording.count(found.launches, "launch", "launches")
    more = seconds / max(found.spent_s, 1e-9) - 1
    if not found.answers:
        pairs = wording.count(found.launches, "paired launch is", "paired launches are")
        return f"{pairs} too few: about {max(math.ceil(found.launches * more), 1):,} more"
    about = round(float(f"{found.answers * more:.2g}"))
    answers = wording.count(found.answers, "answer", "answers")
    return f"{answers} in {launches} are too few: about {max(about, 1):,} more"


def _points(found: OpenChange) -> str:
    """The width of an interval in per cent of the reference, as people name it: ``108 points``."""
    points = 100 * found.width
    return f"{points:,.0f} points" if points >= 10 else f"{points:.2g} points"


_LIKELY = 1.28  # Standard errors beyond the tolerance that chance gives in one of ten cases
_MANY_TIMES = 3.0
"""Times as bad, by their estimates, from which two metrics without a shared cause fail together: less than 0.1 % of
unchanged services whose paired launches differ by a factor of two are, and none of 400 worlds at a load of 20 was
beyond 1.6."""


def probably_slower(verdicts: Sequence[Verdict], busy: Busy | None = None) -> tuple[str, ...]:
    """The names of the metrics by which an undecided test is probably slower; empty if it is not.

    It is if what is beyond its tolerance is so by chance in one of ten cases at most: metrics that share no cause count
    together (Stouffer's sum). A single cause must be beyond twice the tolerance, too. What the machine or another
    reason explains shows nothing, but a further start that failed explains no slower one. Beside busy neighbours
    nothing shows anything that is compared with a stored baseline.
    """
    sides = ("revision",) if busy is not None else ("revision", "baseline")
    last = {one.metric: one for one in verdicts if one.against in sides and is_known_metric(one.metric)}
    suspected = [one for one in last.values() if one.suspected and not metric_named(one.metric).counts_failures]
    suspected = [one for one in suspected if one.why_open is None or one.why_open.by is OpenBy.STARTS]
    speeds = [one for one in suspected if Role.STANDING not in metric_named(one.metric).roles]
    beyond: dict[str, float] = {}
    for one in suspected:
        cause = _cause_of(one.metric)
        beyond[cause] = max(beyond.get(cause, 0.0), _errors_beyond(one))
    is_far = any(one.change.value > 2 * (one.tolerance or 0.0) for one in speeds if one.change is not None)
    is_likely = bool(speeds) and sum(beyond.values()) >= _LIKELY * math.sqrt(len(beyond))
    return tuple(one.metric for one in suspected) if is_likely and (is_far or len(beyond) > 1) else ()


def failed_together(verdicts: Sequence[Verdict], busy: Busy | None = None) -> list[Verdict]:
    """The verdicts of a test, in which metrics fail together that are open by themselves.

    They do if the test is probably slower, and two that share no cause are each :data:`_MANY_TIMES` as bad or worse.

    Neighbours stretch the time and the work of requests alike, so that two metrics are hardly surer than one. But of
    two sides that take turns they make neither three times as bad (``benchmarks/paired_simulation.py``).
    """
    likely = probably_slower(verdicts, busy)
    much = {
        one.metric: _cause_of(one.metric) for one in verdicts if one.metric in likely and _times(one) >= _MANY_TIMES
    }
    if len({*much.values()}) < 2 or any(one.outcome is Outcome.FAIL for one in verdicts):
        return [*verdicts]
    return [_with_others(one, much) if one.suspected and one.metric in much else one for one in verdicts]


def _with_others(verdict: Verdict, causes: Mapping[str, str]) -> Verdict:
    """The verdict as a failure, with the metrics of other causes that it fails with."""
    others = [metric_named(name).label for name, cause in causes.items() if cause != causes[verdict.metric]]
    why = f"each is at least {_MANY_TIMES:g} times as bad, and they share no cause"
    return replace(verdict.saying(f"together with {listed(others, 'and')}: {why}"), outcome=Outcome.FAIL)


def _times(verdict: Verdict) -> float:
    """How many times as bad a metric is by its estimate; a third of a rate is three times as bad."""
    return math.exp(_worsening(verdict, 0.0 if verdict.change is None else verdict.change.value))


def _worsening(verdict: Verdict, worse: float) -> float:
    """A change for the worse as a difference of logarithms; of a rate what is worse is less."""
    sign = -1 if metric_named(verdict.metric).better == "higher" else 1
    return sign * log_change(sign * worse)


def _errors_beyond(verdict: Verdict) -> float:
    """By how many standard errors a suspected change is beyond its tolerance, on the logarithm."""
    change, tolerance = verdict.change, verdict.tolerance
    assert change is not None
    assert tolerance is not None
    values = (change.low, change.value, change.high, tolerance)
    low, value, high, most = (_worsening(verdict, worse) for worse in values)
    return (value - most) / max((high - low) / (2 * TO_95_PERCENT), 1e-9)


def _cause_of(name: str) -> str:
    """What a change of the metric shares with others' changes: times and rates of requests follow from each other."""
    has_own = {Role.INDEPENDENT_OF_LATENCY, Role.STANDING} & metric_named(name).roles
    return name if has_own else "latency"
