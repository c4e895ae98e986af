"""The HTML report's flame graph: the time of a request by function, and the functions as a table. Pure.

Callers stand above their callees; every function has its times as a title.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.html.fragments import Markup, row_of, table_of, tag
from pytest_mlpatterns.reports.text.where import profiling_cost, signed_duration
from pytest_mlpatterns.units import format_count, format_duration
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import Estimate
    from pytest_mlpatterns.records.profile import Frame, FunctionTime, ProfileRecord

_ROW = 20  # Height of a function, in pixels
_LEAST = 0.004  # Share of the whole from which on a function is drawn; the table has the narrower ones
_NAMED = 0.03  # Share of the whole from which on a function has room for its name
_NOTABLE = 0.1  # Change of a function from which on it has a colour
_COMPARED = ("Function", "Before", "Present", "Change", "95 % interval", "Itself")
_ALONE = ("Function", "Present", "Itself")


def flame_graph(profile: ProfileRecord) -> Markup | None:
    """The flame graph of a profile and its functions as a table; why there is none, if something is known of it."""
    if not profile.nodes:
        return tag("p", profile.note[:1].upper() + profile.note[1:], class_="muted") if profile.note else None
    legend = [tag("li", tag("i", class_=kind), kind) for kind in ("slower", "faster", "new")]
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("b", "Time per request by function"),
            tag("span", sampled_line(profile)),
            tag("ul", *legend) if profile.compared else None,
        ),
        _drawn(profile),
        function_table(profile),
        class_="flame",
    )


def _drawn(profile: ProfileRecord) -> Markup:
    """A bar for each stack, below its caller and as wide as its present time with all that it called."""
    nodes = profile.nodes
    now, before = [node.now_ns for node in nodes], [node.before_ns for node in nodes]
    for at in range(len(nodes) - 1, -1, -1):  # a caller stands before its callees
        if (parent := nodes[at].parent) >= 0:
            now[parent] += now[at]
            before[parent] += before[at]
    whole = sum(time for node, time in zip(nodes, now, strict=True) if node.parent < 0) or 1.0
    begins, depths = {-1: 0.0}, {-1: -1}
    bars: list[Markup] = []
    deepest = 0
    for at, node in enumerate(nodes):
        share = now[at] / whole
        begins[at] = left = begins[node.parent]
        begins[node.parent] += share
        depths[at] = depth = depths[node.parent] + 1
        if share >= _LEAST:
            deepest = max(deepest, depth)
            parts = _bar(profile, profile.frames[node.frame], (before[at], now[at], whole))
            wide, top = f"{100 * share:.2f}%", _ROW * depth
            bars.append(tag("svg", *parts, x=f"{100 * left:.2f}%", y=top, width=wide, height=_ROW))
    return tag("svg", *bars, role="img", aria_label="Flame graph", width="100%", height=_ROW * (deepest + 1))


def _bar(profile: ProfileRecord, frame: Frame, times: tuple[float, float, float]) -> list[Markup | None]:
    """A function in a drawing of its own, so that its name ends where it ends, at any width of the page."""
    before, now, whole = times
    place = f" ({place_of(frame)})" if place_of(frame) else ""
    spent = f"{format_duration(before)} → {format_duration(now)}" if profile.compared else format_duration(now)
    return [
        tag("title", f"{frame.function}{place}: {spent} per request"),
        tag("rect", width="100%", height=_ROW - 1, class_=_kind(before, now, whole) if profile.compared else "same"),
        tag("text", frame.function, x=4, y=14) if now / whole > _NAMED else None,
    ]


def _kind(before: float, now: float, whole: float) -> str:
    """What became of a function, as a colour; what is a small part of the whole has none."""
    if abs(now - before) < _NOTABLE * max(before, _NOTABLE * whole):
        return "same"
    return "new" if not before else "slower" if now > before else "faster"


def sampled_line(profile: ProfileRecord) -> str:
    """What the profile is made of: both totals, the profiler, its rate, and what it cost."""
    now = sum(node.now_ns for node in profile.nodes)
    before = sum(node.before_ns for node in profile.nodes)
    total = f"{format_duration(before)} → {format_duration(now)}" if profile.compared else format_duration(now)
    parts = [f"{total} in all", f"sampled by {profile.profiler}" if profile.profiler else ""]
    if profile.rate_hz:
        parts.append(f"{format_count(profile.rate_hz)} times a second")
    if profile.blocks:
        parts.append(f"{count(profile.blocks, 'block')}{' of each side' if profile.compared else ''}")
    parts.append(profiling_cost(profile, "while it was sampled"))
    if profile.lost:
        parts.append(f"{profile.lost:,} of {profile.samples:,} samples without a whole stack")
    return "; ".join([", ".join(part for part in parts if part), *profile.notes])


def function_table(profile: ProfileRecord) -> Markup | None:
    """Each function with its time per request on both sides, callees included, and its own; None without one."""
    if not profile.functions:
        return None
    rows = [_row(profile.frames[one.frame], one, compared=profile.compared) for one in profile.functions]
    caption = f"{count(len(rows), 'function')} as a table, per request"
    heads = _COMPARED if profile.compared else _ALONE
    table = table_of(heads, rows, name="Time of the functions", class_="figures functions")
    return tag("details", tag("summary", caption), table)


def place_of(frame: Frame) -> str:
    """The file of a function with the line of its definition: ``model.py:41``; empty without a file."""
    return f"{frame.file}:{frame.line}" if frame.file and frame.line else frame.file


def _row(frame: Frame, time: FunctionTime, *, compared: bool) -> Markup:
    place = place_of(frame)
    named = Markup(tag("code", frame.function) + (tag("div", place, class_="less") if place else ""))
    own, now = format_duration(time.self_now_ns), format_duration(time.now_ns)
    if not compared:
        return row_of(named, now, own)
    if time.change is None:
        change, interval = tag("span", "–", class_="muted"), "–"
    else:
        change = tag("span", signed_duration(time.change.value), class_=_tone(time.change))
        interval = f"{signed_duration(time.change.low)} to {signed_duration(time.change.high)}"
    return row_of(named, format_duration(time.before_ns), now, change, interval, own)


def _tone(change: Estimate) -> str | None:
    """The colour class of a change that is not noise."""
    if change.low > 0:
        return "worse"
    return "better" if change.high < 0 else None
