"""The HTML report's flame graph: the time of a request by function, on both sides, and the functions as a table. Pure.

A script draws the graph; the table shows the same without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.html.fragments import scrolling
from pytest_mlpatterns.reports.html.markup import Markup, data_script, tag
from pytest_mlpatterns.reports.text.where import profiling_cost, signed_duration
from pytest_mlpatterns.units import format_count, format_duration
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.launch import Estimate
    from pytest_mlpatterns.records.profile import Frame, FunctionTime, ProfileRecord

__all__ = ["flame_graph", "function_table", "place_of", "sampled_line"]

_SIDES = (("now_ns", "now"), ("before_ns", "before"))
_LEGEND = (("slower", "slower"), ("faster", "faster"), ("new", "new"), ("same", "unchanged"))
_COMPARED: tuple[str, ...] = ("Function", "Before", "Present", "Change", "95 % interval", "Itself")
_ALONE: tuple[str, ...] = ("Function", "Present", "Itself")
_HELP = (
    "Each bar is a function, below its caller; its width is its time per request. Arrow keys go from bar to bar, Enter "
    "zooms in, Escape zooms out, / searches."
)


def flame_graph(name: str, profile: ProfileRecord) -> Markup | None:
    """The flame graph of a profile and its functions as a table; why there is none, if something is known of it.

    Args:
        name: the figure's id, and the prefix of the ids inside.
        profile: what the profiled blocks of a test showed.
    """
    if not profile.nodes:
        return tag("p", profile.note[:1].upper() + profile.note[1:], class_="muted") if profile.note else None
    controls = [
        tag("input", type="search", placeholder="Search functions", aria_label="Search the functions"),
        _switch(name) if profile.compared else None,
        tag("button", "Zoom out", type="button", class_="plain"),
    ]
    legend = [tag("li", tag("i", class_=kind), text) for kind, text in _LEGEND] if profile.compared else []
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("span", "Time per request by function", class_="title", id=f"{name}-title"),
            tag("span", sampled_line(profile), class_="summary", id=f"{name}-summary"),
        ),
        tag("div", *controls, class_="controls", hidden=True),
        tag("ul", *legend, class_="legend", hidden=True) if legend else None,
        tag("div", class_="plot"),
        tag("p", _HELP, class_="said", aria_live="polite", hidden=True),
        function_table(profile),
        data_script(_data(profile)),
        class_="flame",
        id=name,
    )


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
    headings = _COMPARED if profile.compared else _ALONE
    head = [tag("th", text, scope="col", class_=_class_of(text)) for text in headings]
    rows = [_row(profile.frames[one.frame], one, compared=profile.compared) for one in profile.functions]
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="figures functions")
    caption = f"{count(len(rows), 'function')} as a table, per request"
    return tag("details", tag("summary", caption), scrolling(table, "Time of the functions"), class_="functions")


def place_of(frame: Frame) -> str:
    """The file of a function with the line of its definition: ``model.py:41``; empty without a file."""
    return f"{frame.file}:{frame.line}" if frame.file and frame.line else frame.file


def _class_of(heading: str) -> str | None:
    kinds = {"Function": None, "95 % interval": "number interval"}
    return kinds.get(heading, "number")


def _row(frame: Frame, time: FunctionTime, *, compared: bool) -> Markup:
    place = place_of(frame)
    named = tag("td", tag("code", frame.function), tag("div", place, class_="less") if place else None)
    own = tag("td", format_duration(time.self_now_ns), class_="number less")
    now = tag("td", format_duration(time.now_ns), class_="number")
    if not compared:
        return tag("tr", named, now, own)
    if time.change is None:
        change, interval = tag("span", "–", class_="muted"), "–"
    else:
        change = tag("span", signed_duration(time.change.value), class_=_tone(time.change))
        interval = f"{signed_duration(time.change.low)} to {signed_duration(time.change.high)}"
    return tag(
        "tr",
        named,
        tag("td", format_duration(time.before_ns), class_="number less"),
        now,
        tag("td", change, class_="number"),
        tag("td", interval, class_="number less interval"),
        own,
    )


def _tone(change: Estimate) -> str | None:
    """The colour class of a change that is not noise."""
    if change.low > 0:
        return "worse"
    return "better" if change.high < 0 else None


def _switch(name: str) -> Markup:
    sides = [
        tag("label", tag("input", type="radio", name=f"{name}-side", value=value, checked=value == "now_ns"), text)
        for value, text in _SIDES
    ]
    return tag("fieldset", tag("legend", "Width", class_="visually-hidden"), *sides, class_="switch")


def _data(profile: ProfileRecord) -> dict[str, Sequence[object]]:
    """Frames as ``[name, place, owner]``, nodes as ``[parent, frame, before, now]``, each with its own time."""
    return {
        "frames": [[frame.function, place_of(frame), frame.owner] for frame in profile.frames],
        "nodes": [[node.parent, node.frame, round(node.before_ns), round(node.now_ns)] for node in profile.nodes],
        "sides": [value for value, _ in _SIDES] if profile.compared else ["now_ns"],
    }
