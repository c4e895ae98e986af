"""Overload in words and as a curve: whether a service sheds or collapses beyond its NMRT.

Pure: takes a measurement, returns text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.records.outcomes import describe_outcome
from pytest_mlpatterns.records.overload import Behaviour
from pytest_mlpatterns.units import format_duration, format_percent, format_rate

if TYPE_CHECKING:
    from pytest_mlpatterns.records.overload import Overload, OverloadStep

__all__ = [
    "BEHAVIOURS",
    "describe_behaviour",
    "describe_overload",
    "describe_recovery",
    "describe_step",
    "overload_picture",
]

BEHAVIOURS = {
    Behaviour.SHEDS: "sheds load",
    Behaviour.HOLDS: "keeps its goodput",
    Behaviour.DEGRADES: "degrades",
    Behaviour.COLLAPSES: "collapses",
}
"""What the goodput of a service does beyond its NMRT, in a word or two."""

_BARS = " ▁▂▃▄▅▆▇█"
_COLUMN = 7
_LABEL = 10


def describe_step(step: OverloadStep, overload: Overload) -> str:
    """What became of the requests of one load: ``at 2 times the NMRT 51 % of the requests in time, 49 % rejected``."""
    shares = (
        (step.in_time_ratio, "in time"),
        (step.late_ratio, f"later than {format_duration(overload.limit_ns)}"),
        (step.rejected_ratio, "rejected"),
        (step.timed_out_ratio, "timed out"),
        (step.failed_ratio, f"failed{_kind(step)}"),
    )
    parts = [f"{format_percent(share)} {word}" for share, word in shares if share or word == "in time"]
    p99 = "" if step.p99_ns is None else f", p99 of the answers {format_duration(step.p99_ns)}"
    return f"at {step.load_ratio:g} times the NMRT the requests were {', '.join(parts)}{p99}"


def describe_overload(overload: Overload) -> str:
    """A measurement in one sentence: what the goodput does, how long recovery takes, and what disturbed it."""
    limited = next((step.limited for step in overload.steps if step.limited), "")
    busy = next((step.busy for step in overload.steps if step.busy), "")
    return "; ".join(filter(None, [describe_behaviour(overload), limited, busy]))


def describe_behaviour(overload: Overload) -> str:
    """What the goodput does, and how long the service takes to recover."""
    peak = overload.peak
    goodput = format_percent(peak.goodput_rps / overload.nmrt_rps)
    load = f"{peak.load_ratio:g} times the NMRT of {format_rate(overload.nmrt_rps)}"
    words = {
        Behaviour.SHEDS: f"the service sheds load: at {load} its goodput is {goodput} of the NMRT, and it rejects "
        f"{format_percent(peak.rejected_ratio)} of the requests",
        Behaviour.HOLDS: f"the service keeps its goodput: at {load} it is {goodput} of the NMRT",
        Behaviour.DEGRADES: f"the service degrades: at {load} its goodput is {goodput} of the NMRT, {_loss(peak)}",
        Behaviour.COLLAPSES: f"the service collapses: at {load} its goodput is {goodput} of the NMRT, {_loss(peak)}",
    }[overload.behaviour]
    cut = f"cut: {overload.cut}" if overload.cut else ""
    return "; ".join(filter(None, [words, describe_recovery(overload), cut]))


def describe_recovery(overload: Overload) -> str:
    """How long the service takes to recover after the peak."""
    if overload.recovery_ns is None:
        return f"it has not recovered {format_duration(overload.watched_ns)} after the peak"
    if overload.recovery_ns == 0:
        return "it recovers at once"
    return f"it recovers in {format_duration(overload.recovery_ns)}"


def _loss(step: OverloadStep) -> str:
    """How most of the requests of a load are lost, and what would help."""
    words = {
        "since requests wait until their answers are too late (congestion collapse); let it reject sooner, as "
        "Queued(capacity=...) with a small capacity does": step.late_ratio,
        f"since {format_percent(step.timed_out_ratio)} of the requests get no answer within their time-out; look for "
        "what they wait for, and let it reject sooner": step.timed_out_ratio,
        f"since it rejects {format_percent(step.rejected_ratio)} of the requests, more than the load exceeds the NMRT; "
        "let it hold more of them": step.rejected_ratio,
        f"since {format_percent(step.failed_ratio)} of the requests fail{_kind(step)}; its log may say why": (
            step.failed_ratio
        ),
    }
    return max(words, key=words.__getitem__)


def _kind(step: OverloadStep) -> str:
    """The most frequent failure in brackets; empty without one."""
    return "" if step.failed_outcome is None else f" ({describe_outcome(step.failed_outcome)})"


def overload_picture(overload: Overload) -> list[str]:
    """The curve of goodput against offered load, with rejected and late requests, a column for each load."""
    steps = (*overload.steps, overload.back)
    loads = [f"{step.load_ratio:g}" for step in overload.steps] + [f"→{overload.back.load_ratio:g}"]
    rows = {
        "offered": loads,
        "goodput": [_percent(step.goodput_rps / overload.nmrt_rps) for step in steps],
        "": [_bar(step.goodput_rps / overload.nmrt_rps) for step in steps],
        "rejected": [_percent(step.rejected_ratio) for step in steps],
        "late": [_percent(step.late_ratio + step.timed_out_ratio) for step in steps],
    }
    units = {"offered": "× NMRT", "goodput": "of NMRT", "rejected": "of offered", "late": "of offered"}
    lines = (
        f"{label:<{_LABEL}}{''.join(f'{text:>{_COLUMN}}' for text in texts)}  {units.get(label, '')}"
        for label, texts in rows.items()
    )
    return [line.rstrip() for line in lines]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _bar(share: float) -> str:
    top = len(_BARS) - 1
    return 4 * _BARS[min(max(round(share * top), 0), top)]
