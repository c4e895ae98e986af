"""Reads acceptances: from the marker, and from ``perf-accepted.toml`` beside the baseline file."""

import datetime
import re
import tomllib
from pathlib import Path
from typing import Any

from pytest_mlpatterns.analysis.metrics.definitions import comparable_metrics, is_comparable, which_metric
from pytest_mlpatterns.analysis.verdicts.tolerances import can_more_than_double
from pytest_mlpatterns.config.converters import read_worsening
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.verdict import Acceptance
from pytest_mlpatterns.wording import did_you_mean, named, shown

_EXAMPLE = 'accept="rtm +60 %: larger model, #123"'
_TEXT = re.compile(r"\s*(?P<metric>\S+?)\s*\+\s*(?P<ceiling>[\d.]+\s*%)\s*:\s*(?P<reason>.*?)\s*", re.DOTALL)
_UNTIL = re.compile(r"(?P<reason>.*?),?\s+until\s+(?P<date>\d{4}-\d{2}-\d{2})", re.DOTALL)
_DAY = re.compile(r"\buntil\b\W*\d{4}-\d{2}-\d{2}", re.IGNORECASE)
"""What reads as the last day of an acceptance, and is none inside a reason."""
_NEEDED = ("test", "metric", "ceiling", "reason")
_ALLOWED = (*_NEEDED, "issue", "since", "until")
_FIGURE = re.compile(r"[a-z][a-z0-9_]*(?::p[\d.]+)?")  # Name of a figure of ``perf_figures``, or of a percentile of it
_MOST_DOTS = 200  # Most dots of a line: tomllib needs minutes for a key of thousands of parts


def read_accept(value: object, source: str) -> tuple[Acceptance, ...]:
    """Convert the acceptances of a marker: a text, or a list of them."""
    texts = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        raise SettingError(f"{source} is {shown(value)}, expected text or a list of texts; write {_EXAMPLE}")
    found = tuple(_from_text(text, source) for text in texts)
    metrics = [one.metric for one in found]
    if twice := next((name for name in metrics if metrics.count(name) > 1), None):
        raise SettingError(f"{source} accepts {twice} twice, expected each metric once; leave one out")
    return found


def read_acceptances(file: Path, text: str) -> tuple[Acceptance, ...]:
    """The acceptances of a file."""
    try:
        if number := next((at for at, line in enumerate(text.split("\n"), 1) if line.count(".") > _MOST_DOTS), 0):
            raise ValueError(f"line {number:,} has more than {_MOST_DOTS} dots")
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise SettingError(f"{named(file)} cannot be read: {why}; expected TOML with [[accepted]] tables") from None
    tables = data.pop("accepted", [])
    if data or not isinstance(tables, list):
        extra = next(iter(data), "accepted")
        raise SettingError(f"{named(file)} has {named(extra)}, expected [[accepted]] tables and nothing else")
    return tuple(_from_table(table, f"{named(file)}, table {number}") for number, table in enumerate(tables, start=1))


def require_no_day(reason: str, source: str, expected: str) -> None:
    """Refuse a reason that names a last day, which would end nothing."""
    if (found := _DAY.search(reason)) is not None:
        raise SettingError(f"{source} has {shown(found[0])} inside its reason, expected {expected}")


def _from_text(text: object, source: str) -> Acceptance:
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if not isinstance(text, str) or match is None or not match["reason"]:
        raise SettingError(f"{source} is {shown(text)}, expected a metric, a ceiling and a reason; write {_EXAMPLE}")
    reason, until = match["reason"], None
    if (ended := _UNTIL.fullmatch(reason)) is not None and ended["reason"]:
        reason, until = ended["reason"], _date(ended["date"], source)
    require_no_day(reason, source, 'the day at its end; write accept="rtm +60 %: larger model, #123, until 2026-12-31"')
    metric = _metric(match["metric"], source)
    return Acceptance(metric, _ceiling(metric, match["ceiling"], source), reason, until=until)


def _from_table(table: object, source: str) -> Acceptance:
    if not isinstance(table, dict):
        raise SettingError(f"{source} is {shown(table)}, expected a table; write [[accepted]] above its lines")
    for name in table:
        if name not in _ALLOWED:
            hint = did_you_mean(name, _ALLOWED)
            raise SettingError(f"{source} has {named(name)}, {hint}expected some of {', '.join(_ALLOWED)}")
    texts = {name: _text(table, name, source) for name in ("test", "metric", "reason", "issue", "since")}
    metric = texts["metric"]
    if not (texts["since"] and _FIGURE.fullmatch(metric)):  # written by hand, or no figure that a test declares later
        metric = _metric(metric, source)
    require_no_day(texts["reason"], source, "the day in a line of its own; write until = 2026-12-31, unquoted")
    until = table.get("until")
    if until is not None and (not isinstance(until, datetime.date) or isinstance(until, datetime.datetime)):
        raise SettingError(f"{source} has until = {shown(until)}, expected a day; write until = 2026-12-31, unquoted")
    return Acceptance(
        metric,
        _ceiling(metric, table.get("ceiling"), source),
        texts["reason"],
        texts["test"],
        issue=texts["issue"],
        since=texts["since"],
        until=until,
    )


def _text(table: dict[str, Any], name: str, source: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str) or (name in _NEEDED and not value.strip()):
        found = f"has {name} = {shown(value)}" if name in table else f"has no {name}"
        raise SettingError(f'{source} {found}, expected text; write {name} = "…"')
    return value.strip()


def _metric(name: str, source: str) -> str:
    if is_comparable(name):
        return name
    known = comparable_metrics()
    hint = which_metric(name, known)
    raise SettingError(f"{source} accepts {shown(name)}, {hint}expected one of {', '.join(known)}")


def _ceiling(metric: str, value: object, source: str) -> float:
    """A share of the reference, above zero; a figure that a test declares later may worsen by more than all of it."""
    text = value.replace(" ", "").removeprefix("+") if isinstance(value, str) else value
    found = read_worsening(text, f"{source}: ceiling", can_more_than_double(metric) or not is_comparable(metric))
    if found <= 0:
        raise SettingError(f'{source}: ceiling is {shown(value)}, expected more than 0; write "60 %"')
    return found


def _date(text: str, source: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise SettingError(f"{source} holds until {text}, which is no day; write until 2026-12-31") from None
