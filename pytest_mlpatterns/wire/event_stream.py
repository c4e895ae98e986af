"""Server-sent events without I/O: bytes in, events out, by the rules of the WHATWG (HTML, section 9.2.6).

Bytes may be split anywhere, also in the middle of a character or between CR and LF. Data stays bytes: only its reader
knows whether it is text or JSON. It must not know what an event means.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LONGEST_EVENT_BYTES", "Event", "EventStreamError", "EventStreamParser"]

LONGEST_EVENT_BYTES = 16 * 2**20
"""Longest event; a stream with a longer one is refused, so that it cannot fill the memory."""
_BOM = b"\xef\xbb\xbf"


class EventStreamError(ValueError):
    """A stream that cannot be read."""


class Event(NamedTuple):
    """One event.

    Attributes:
        data: its ``data`` fields, joined by line feeds.
        name: its ``event`` field; empty for a plain message.
    """

    data: bytes
    name: bytes = b""


class EventStreamParser:
    """Parses one stream. An event counts when its blank line has come; what follows the last one is no event."""

    __slots__ = ("_after_cr", "_at_start", "_data", "_name", "_partial", "_size")

    def __init__(self) -> None:
        self._partial: list[bytes] = []  # of the present line
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0  # of the present event
        self._at_start = True
        self._after_cr = False

    @property
    def between_events(self) -> bool:
        """Whether nothing is held back, so that the next byte begins an event."""
        return not (self._size or self._after_cr or self._at_start)

    def feed(self, data: bytes) -> list[Event]:
        """Take a piece of the stream. Returns the events that it completes.

        Raises:
            EventStreamError: an event is longer than :data:`LONGEST_EVENT_BYTES`.
        """
        if self._after_cr and data:
            self._after_cr = False
            if data[:1] == b"\n":  # the second half of a CRLF
                data = data[1:]
        self._size += len(data)
        if b"\n" not in data and b"\r" not in data:
            if data:
                self._partial.append(data)
            return self._bounded([])
        if self._partial:
            data = b"".join(self._partial) + data
            self._partial.clear()
        self._after_cr = data.endswith(b"\r")
        lines = data.splitlines()  # of bytes: at CR, LF and CRLF, and at nothing else
        if not data.endswith((b"\n", b"\r")):
            self._partial.append(lines.pop())
        if self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        return self._bounded(self._events_of(lines))

    def _events_of(self, lines: list[bytes]) -> list[Event]:
        events = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(Event(b"\n".join(self._data), self._name))
                    self._data.clear()
                self._name = b""
                self._size = len(self._partial[0]) if self._partial else 0
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            elif field == b"event":
                self._name = value.removeprefix(b" ")
        return events

    def _bounded(self, events: list[Event]) -> list[Event]:
        if self._size > LONGEST_EVENT_BYTES:
            raise EventStreamError(
                f"an event has {self._size:,} bytes or more, expected at most {LONGEST_EVENT_BYTES:,}; "
                "send the answer in shorter events"
            )
        return events
