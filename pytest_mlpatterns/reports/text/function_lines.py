"""The functions that got slower, in the text of a failure: with their callers, their figures and their line. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.text.terminal_text import Span, TextColumn, table_lines, text_of
from pytest_mlpatterns.units import Unit, format_duration, format_percent, format_size
from pytest_mlpatterns.wording import listed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_mlpatterns.records.profile import Frame, FunctionChange, FunctionTime, NativeChange, ProfileRecord
    from pytest_mlpatterns.records.resource_track import MemorySite
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = [
    "cause_ns",
    "function_table_lines",
    "function_texts",
    "functions_explain",
    "held_texts",
    "missing_profile",
    "named_function",
    "profile_texts",
    "profiling_cost",
    "signed_duration",
]


_IN_PART = 0.25
"""Share of a function's change that the part of the latency at least has which it is named in."""
_WIDEST = 0.2
"""Half the interval of a slow-down from which it shows nothing."""


def function_texts(result: TestResult, verdicts: Iterable[Verdict]) -> list[str]:
    """Lines on the functions of a comparison with a revision, or on why none is named; empty without a profile.

    For example ``predict → normalize (model.py:41): 400 µs → 2.70 ms per request, +2.30 ms (±200 µs) of +2.34 ms``.

    Libraries whose own threads use more CPU time have a line too; it stands in place of the functions if none of these
    got slower.

    Args:
        result: of one test.
        verdicts: those that the text is about; lines are given if a time or a rate is among them.
    """
    record = _asked_for(result, verdicts)
    if record is None:
        return []
    if record.note:
        return [record.note]
    return _changed(record) if record.compared else []


def profile_texts(result: TestResult, verdicts: Iterable[Verdict]) -> list[str]:
    """Lines on how the profile was made that :func:`function_texts` reads; arguments as there."""
    record = _asked_for(result, verdicts)
    return [*record.notes, *_made(record)] if record is not None and record.compared and not record.note else []


def missing_profile(result: TestResult) -> str:
    """Why a test that asked for a profile has none; empty if it has one, or if :func:`function_texts` says it."""
    record = result.causes.profile
    if record is None or any(map(_asks_for_functions, result.verdicts)):
        return ""
    return record.note


def functions_explain(metric: str) -> bool:
    """Whether a metric is a time or a rate, which functions that got slower explain."""
    return is_known_metric(metric) and metric_named(metric).unit in (Unit.DURATION, Unit.RATE, Unit.TOKEN_RATE)


def named_function(result: TestResult, part_ns: float, *, is_layer: bool) -> str:
    """The function with the largest change, if that is a slowdown: ``normalize (model.py:41)``; empty if none is named.

    Args:
        result: of one test.
        part_ns: change of the part that it is in; a function that changed by far more is not in it.
        is_layer: whether it has to be a layer of this package, or has to be none.
    """
    record = result.causes.profile
    if record is None or not record.changes or not 0 < record.changes[0].change.value * _IN_PART <= part_ns:
        return ""
    frame = record.frames[record.changes[0].chain[-1]]
    return _place(record, record.changes[0]) if (frame.owner == "layer") is is_layer else ""


def cause_ns(result: TestResult) -> float:
    """By how much longer a request takes in what the profile names as slower: a function, or else native threads.

    0 if it names none, or if functions got faster.
    """
    record = result.causes.profile
    if record is None:
        return 0.0
    if record.changes:
        return max(record.changes[0].change.value, 0.0)
    return 0.0 if record.native is None else record.native.now_ns - record.native.before_ns


def signed_duration(ns: float) -> str:
    """A change of a time: ``+2.30 ms``."""
    return f"{'+' if ns >= 0 else ''}{format_duration(ns)}"


def _asked_for(result: TestResult, verdicts: Iterable[Verdict]) -> ProfileRecord | None:
    return result.causes.profile if any(map(_asks_for_functions, verdicts)) else None


def _asks_for_functions(verdict: Verdict) -> bool:
    if verdict.against != "revision" or not (verdict.outcome is Outcome.FAIL or verdict.suspected):
        return False
    return functions_explain(verdict.metric)


def _changed(record: ProfileRecord) -> list[str]:
    threads = [] if record.native is None else [_threads(record.native)]
    if record.changes:
        return [*(text for change in record.changes for text in _of(record, change)), *threads]
    if threads:
        return threads
    if record.largest is None:
        return ["no function stands out"]
    nearest = f"{_place(record, record.largest)} {_change(record.largest)}"
    return [f"no function stands out (largest: {nearest})"]


def _threads(native: NativeChange) -> str:
    """``onnxruntime: 0 → 3 busy native threads, 12.1 µs → 1.71 ms of CPU per request``."""
    of = f"{listed(list(native.libraries))}: " if native.libraries else ""
    busy = f"{native.busy_before} → {native.busy_now}" if native.busy_before != native.busy_now else native.busy_now
    times = f"{format_duration(native.before_ns)} → {format_duration(native.now_ns)}"
    return f"{of}{busy} busy native threads, {times} of CPU per request"


def _of(record: ProfileRecord, change: FunctionChange) -> list[str]:
    """The line of one function, and one on where in it the change is."""
    callers = "".join(f"{record.frames[index].function} → " for index in change.chain[:-1])
    before = "not seen" if not change.before_ns else format_duration(change.before_ns)
    now = "not seen" if not change.now_ns else f"{format_duration(change.now_ns)} per request"
    of_all = f" of {signed_duration(change.of_ns)}" if abs(change.of_ns) >= abs(change.change.value) else ""  # noise
    text = f"{callers}{_place(record, change)}: {before} → {now}, {_change(change)}{of_all}"
    source = f"line {change.line}: {change.source}".rstrip(": ") if change.line else ""
    inside = f"in {change.inside}" if change.inside else ""
    return [text, *([f"mostly {', '.join(filter(None, (inside, source)))}"] if source or inside else [])]


def _place(record: ProfileRecord, change: FunctionChange) -> str:
    """``normalize (model.py:41)``, with what it was before if that was something else."""
    frame = record.frames[change.chain[-1]]
    where = [f"{frame.file}:{frame.line}" if frame.line else frame.file, f"was {change.was}" if change.was else ""]
    known = ", ".join(filter(None, where))
    return f"{frame.function} ({known})" if known else frame.function


def _change(change: FunctionChange) -> str:
    half = (change.change.high - change.change.low) / 2
    return f"{signed_duration(change.change.value)} (±{format_duration(half)})"


def _made(record: ProfileRecord) -> list[str]:
    """How the profile was made, and what that cost the requests meanwhile."""
    if not record.rate_hz:
        return []
    made = f"profiled {record.rate_hz:.0f} times a second by {record.profiler}"
    return [f"{made}, {cost}" if (cost := profiling_cost(record, "meanwhile")) else made]


def profiling_cost(record: ProfileRecord, when: str) -> str:
    """What the profiler cost the requests, such as ``2.1 % slower meanwhile (±1.3 %)``; empty if noise hides it."""
    if record.slowdown is None:
        return ""
    ratio, low, high = record.slowdown
    if (half := (high - low) / 2) > _WIDEST:
        return ""
    return f"{format_percent(abs(ratio - 1))} {'slower' if ratio >= 1 else 'faster'} {when} (±{format_percent(half)})"


_MOST_ROWS = 10
"""Number of functions that the table names."""
_TABLE_WIDTH = 100
"""Width of the table of functions, as in a file without a terminal."""


def function_table_lines(record: ProfileRecord | None) -> list[str]:
    """A line for each function, those with the largest changes first; empty without a profile."""
    if record is None or not record.functions:
        return []
    shown = record.functions[:_MOST_ROWS]
    names = [_name_cell(record.frames[one.frame]) for one in shown]
    columns = [TextColumn("time per request", list(map(Span, names)), right=False, least=20)]
    if record.compared:
        columns.append(TextColumn("before", [Span(format_duration(one.before_ns)) for one in shown]))
    columns.append(TextColumn("now", [Span(format_duration(one.now_ns)) for one in shown]))
    if record.compared:
        columns.append(TextColumn("change", [Span(_change_cell(one)) for one in shown]))
    return [text_of(line) for line in table_lines(columns, _TABLE_WIDTH)]


def _name_cell(frame: Frame) -> str:
    place = f"{frame.file}:{frame.line}" if frame.line else frame.file
    name = f"{frame.function} ({place})" if place else frame.function
    return " ".join(name.split()).replace("`", "'")  # on one line, inside of Markdown's fences too


def _change_cell(time: FunctionTime) -> str:
    if time.change is None:
        return "–"
    half = (time.change.high - time.change.low) / 2
    return f"{signed_duration(time.change.value)} (±{format_duration(half)})"


_MOST_SITES = 3
"""Most lines of code that are named."""


def held_texts(result: TestResult, verdicts: Iterable[Verdict]) -> list[str]:
    """Lines on what holds the memory that a test needs more than a revision, or leaks; empty if nothing asked for them.

    For example ``+130 MiB held: Digits.__init__ (model.py:12) 31.0 MiB → 162 MiB``.

    Args:
        result: of one test.
        verdicts: those that the text is about.
    """
    record = result.causes.held
    failing = [one for one in verdicts if _asks_for_memory(one)]
    if record is None or not failing:
        return []
    if record.note:
        return [record.note]
    per = " per request" if record.per_request else ""
    whole = f"{_signed_bytes(record.now - record.before)} held{per}{_of_resident(failing[0], per)}"
    if not record.sites:
        return [f"{whole}: no line stands out; tracemalloc does not see what native libraries allocate for themselves"]
    named = record.sites[:_MOST_SITES]
    texts = [f"{whole}: {', '.join(map(_site, named))}"]
    return [*texts, *(f"line {site.line}: {site.source}" for site in named[:1] if site.source)]


def _asks_for_memory(verdict: Verdict) -> bool:
    is_failing = verdict.outcome is Outcome.FAIL or verdict.suspected
    return is_failing and verdict.against == "revision" and verdict.metric in with_role(Role.HELD)


def _of_resident(verdict: Verdict, per: str) -> str:
    """What the system shows of the same memory, since tracemalloc does not see all of it."""
    if per or verdict.present_value is None or verdict.reference_value is None:
        return ""
    return f" of {_signed_bytes(verdict.present_value - verdict.reference_value)} of resident memory"


def _site(site: MemorySite) -> str:
    place = f"{site.file}:{site.line}" if site.line else site.file
    name = f"the code of {place}" if site.function == "<module>" else f"{site.function} ({place})"
    return f"{name} {format_size(site.before)} → {format_size(site.now)}"


def _signed_bytes(size_bytes: float) -> str:
    return f"{'+' if size_bytes >= 0 else ''}{format_size(size_bytes)}"
