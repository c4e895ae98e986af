"""What a search has measured so far, in a file by which an interrupted one goes on.

Format, version 1 (2026): ``{"format": "pytest-mlpatterns-bisect", "version": 1, "search": {...}, "events": [...]}``.
``search`` is what makes two searches the same. An event is a measurement, ``{"commit": SHA, "figure": NAME, "launches":
[[log ratio, standard error], ...]}``, or a commit that does not run, ``{"commit": SHA, "skipped": TEXT}``. A file of
another search, of another version or with damaged events counts as none. One of another format is left alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.json_text import parsed
from pytest_mlpatterns.system.files import read_text, replace_file
from pytest_mlpatterns.system.owned_files import remove_file
from pytest_mlpatterns.wording import named

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["SearchEvent", "SearchState"]

_FORMAT = "pytest-mlpatterns-bisect"
_VERSION = 1
"""Version of the state file's form; a file of another one is refused."""
_MOST_EVENTS = 10_000
"""Most events that are read; a search has some tens."""
_OTHER = "name another file with --state"


class SearchEvent(Struct, frozen=True):
    """A measurement of a commit, or why it cannot be measured.

    Attributes:
        commit: its hash.
        figure: name of the metric whose ratios these are; empty if it was not measured.
        launches: log ratios to the good commit; none if it was not measured.
        skipped: why it cannot be measured; empty if it was.
    """

    commit: str
    figure: str = ""
    launches: tuple[LogRatio, ...] = ()
    skipped: str = ""


class SearchState:
    """The events of one search in a file.

    Args:
        file: where they are kept.
        search: what makes two searches the same, as text and numbers.

    Attributes:
        events: in the order in which they were added.
        was_other: whether the file was there and was not one of this search.

    Raises:
        SettingError: the file cannot be written, or holds something else, which would be lost.
    """

    def __init__(self, file: Path, search: Mapping[str, str | float]) -> None:
        self._file = file
        self._search = dict(search)
        data = _own_data(file)
        found = _events(data, self._search)
        self.events: list[SearchEvent] = found or []
        self.was_other: bool = found is None and bool(data)

    def add(self, event: SearchEvent) -> None:
        """Add an event, and write the file.

        Raises:
            SettingError: it cannot be written.
        """
        self.events.append(event)
        data = {
            "format": _FORMAT,
            "version": _VERSION,
            "search": self._search,
            "events": [_plain(one) for one in self.events],
        }
        try:
            replace_file(self._file, lambda: json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:
            raise SettingError(f"{named(self._file)} cannot be written: {error.strerror or error}; {_OTHER}") from error

    def forget(self) -> None:
        """Begin anew: no events; the file is replaced with the next one."""
        self.events.clear()

    def remove(self) -> None:
        """Remove the file of a search that has ended, if it is one of this search."""
        if self.events:
            with contextlib.suppress(OSError):
                remove_file(self._file)


def _plain(event: SearchEvent) -> dict[str, Any]:
    if event.skipped:
        return {"commit": event.commit, "skipped": event.skipped}
    launches = [[one.value, one.error] for one in event.launches]
    return {"commit": event.commit, "figure": event.figure, "launches": launches}


def _own_data(file: Path) -> dict[str, Any]:
    """What a file of this format holds; nothing if it is absent or empty.

    Raises:
        SettingError: it cannot be written, or is of another format.
    """
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        why = "cannot be written" if file.parent.is_dir() else "does not exist"
        raise SettingError(f"{named(file)} is in {named(file.parent)}, which {why}; {_OTHER}")
    if file.is_dir():
        raise SettingError(f"{named(file)} is a directory, expected a file; {_OTHER}")
    try:
        text = read_text(file)
        data = parsed(text) if text.strip() else {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingError(f"{named(file)} cannot be read: {error.strerror or error}; {_OTHER}") from error
    except ValueError:  # no JSON, or no text
        data = None
    if not isinstance(data, dict) or (data and data.get("format") != _FORMAT):
        raise SettingError(
            f"{named(file)} is not what a search wrote, and would be lost; {_OTHER}, or move this one away"
        )
    return data


def _events(data: Mapping[str, Any], search: Mapping[str, object]) -> list[SearchEvent] | None:
    """The events of a search; None if there are none, or if they are damaged or of another search."""
    events = data.get("events")
    if data.get("version") != _VERSION or data.get("search") != search:
        return None
    if not isinstance(events, list) or len(events) > _MOST_EVENTS:
        return None
    found = [_event(one) for one in events]
    return None if None in found else [one for one in found if one is not None]


def _event(data: object) -> SearchEvent | None:
    """One event; None if it is damaged."""
    if not isinstance(data, dict) or not isinstance(commit := data.get("commit"), str):
        return None
    if isinstance(skipped := data.get("skipped"), str) and skipped:
        return SearchEvent(commit, skipped=skipped)
    figure, launches = data.get("figure"), data.get("launches")
    if not isinstance(figure, str) or not isinstance(launches, list) or not launches:
        return None
    pairs = [_pair(one) for one in launches]
    known = tuple(one for one in pairs if one is not None)
    return SearchEvent(commit, figure, known) if len(known) == len(pairs) else None


def _pair(data: object) -> LogRatio | None:
    if not isinstance(data, list) or len(data) != 2:
        return None
    value, error = data
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in (value, error)) or error < 0:
        return None
    return LogRatio(float(value), float(error))
