"""The functions that hold more memory, in the text of a failure. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_mlpatterns.records.held_memory import MemorySite
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["HELD_METRICS", "held_texts"]

HELD_METRICS = ("peak_memory", "memory_growth")
"""Metrics that what lines hold explains."""
_MOST = 3


def held_texts(result: TestResult, verdicts: Iterable[Verdict]) -> list[str]:
    """Lines on who holds the memory that a test needs more than a revision, or leaks; empty if nothing asked for them.

    For example ``+130 MiB held: Digits.__init__ (model.py:12) 31.0 MiB → 162 MiB``.

    Args:
        result: of one test.
        verdicts: those that the text is about.
    """
    record = result.held
    failing = [one for one in verdicts if _asks(one)]
    if record is None or not failing:
        return []
    if record.note:
        return [record.note]
    per = " per request" if record.per_request else ""
    whole = f"{_signed(record.now - record.before)} held{per}{_of_resident(failing[0], per)}"
    if not record.sites:
        return [f"{whole}: no line stands out; tracemalloc does not see what native libraries allocate for themselves"]
    named = record.sites[:_MOST]
    texts = [f"{whole}: {', '.join(map(_site, named))}"]
    return [*texts, *(f"line {site.line}: {site.source}" for site in named[:1] if site.source)]


def _asks(verdict: Verdict) -> bool:
    is_failing = verdict.outcome is Outcome.FAIL or verdict.suspected
    return is_failing and verdict.against == "revision" and verdict.metric in HELD_METRICS


def _of_resident(verdict: Verdict, per: str) -> str:
    """What the system says of the same memory, since tracemalloc does not see all of it."""
    if per or verdict.present_value is None or verdict.reference_value is None:
        return ""
    return f" of {_signed(verdict.present_value - verdict.reference_value)} of resident memory"


def _site(site: MemorySite) -> str:
    place = f"{site.file}:{site.line}" if site.line else site.file
    name = f"the code of {place}" if site.function == "<module>" else f"{site.function} ({place})"
    return f"{name} {format_size(site.before)} → {format_size(site.now)}"


def _signed(size_bytes: float) -> str:
    return f"{'+' if size_bytes >= 0 else ''}{format_size(size_bytes)}"
