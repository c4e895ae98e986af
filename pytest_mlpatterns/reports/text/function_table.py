"""The functions of a profile as a text table: their time per request on both sides. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.text.function_lines import signed_duration
from pytest_mlpatterns.reports.text.styled_text import Span, text_of
from pytest_mlpatterns.reports.text.text_table import TextColumn, table_lines
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from pytest_mlpatterns.records.profile import Frame, FunctionTime, ProfileRecord

__all__ = ["function_table_lines"]

_MOST = 10
"""Number of functions that the table names."""
_WIDTH = 100


def function_table_lines(record: ProfileRecord | None) -> list[str]:
    """A line for each function, those with the largest changes first; empty without a profile."""
    if record is None or not record.functions:
        return []
    shown = record.functions[:_MOST]
    names = [_name(record.frames[one.frame]) for one in shown]
    columns = [TextColumn("time per request", list(map(Span, names)), right=False, least=20)]
    if record.compared:
        columns.append(TextColumn("before", [Span(format_duration(one.before_ns)) for one in shown]))
    columns.append(TextColumn("now", [Span(format_duration(one.now_ns)) for one in shown]))
    if record.compared:
        columns.append(TextColumn("change", [Span(_change(one)) for one in shown]))
    return [text_of(line) for line in table_lines(columns, _WIDTH)]


def _name(frame: Frame) -> str:
    place = f"{frame.file}:{frame.line}" if frame.line else frame.file
    name = f"{frame.function} ({place})" if place else frame.function
    return " ".join(name.split()).replace("`", "'")  # on one line, inside of Markdown's fences too


def _change(time: FunctionTime) -> str:
    if time.change is None:
        return "–"
    half = (time.change.high - time.change.low) / 2
    return f"{signed_duration(time.change.value)} (±{format_duration(half)})"
