"""Figures that a user reads from each answer: from a header, from JSON, or by a function.

They are read in the load generator, when the answer has come. Only a load that has figures imports this module. It must
not know numpy, nor how answers are received.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal

from msgspec import Struct

from pytest_mlpatterns.records.layer_description import Figure
from pytest_mlpatterns.wording import listed, shown

_STATUS = re.compile(rb"HTTP/\S+ (\d{3})")
_MOST_BYTES = 2**28  # Most bytes of a decompressed body
_SHOWN_BYTES = 100  # Most bytes of a body that is no JSON in a message


class FigureAnswer:
    """A successful answer, as figures are read from it.

    Attributes:
        status: of HTTP.
        headers: by name in lower case; several of one name are joined by commas.
        value: what a ``perf_client`` returned, or the list of its chunks; None without one.
    """

    def __init__(self, head: bytes, body: bytes, value: Any = None) -> None:
        self.value: Any = value
        found = _STATUS.match(head)
        self.status: int = int(found[1]) if found else 200
        self.headers: dict[str, str] = {}
        for line in head.decode("latin-1").split("\r\n")[1:]:
            name, _, text = line.partition(":")
            before = self.headers.get(name := name.strip().lower())
            self.headers[name] = text.strip() if before is None else f"{before}, {text.strip()}"
        self._body = body
        if value is not None:
            self._read_value(value)

    def _read_value(self, value: Any) -> None:
        """Take headers and body of what a client returned: text, bytes, plain values, or the answer of a library."""
        headers: Any = getattr(value, "headers", None)
        if hasattr(headers, "items"):
            self.headers = {str(name).lower(): str(text) for name, text in headers.items()}
            self.headers.pop("content-encoding", None)  # libraries decompress the content
        body = getattr(value, "content", value)
        self._body = body if isinstance(body, bytes) else b""
        if isinstance(body, str):
            self._body = body.encode()
        elif isinstance(body, list) and all(isinstance(chunk, str) for chunk in body):
            self._body = "".join(body).encode()
        elif not isinstance(body, bytes):
            with suppress(TypeError, ValueError):
                self._body = json.dumps(body).encode()

    @property
    def body(self) -> bytes:
        """The body, decompressed; of a stream, all that came."""
        if (coding := self.headers.get("content-encoding", "identity").lower()) == "identity":
            return self._body
        from pytest_mlpatterns.wire.compression import decompressed

        return decompressed(self._body, coding, _MOST_BYTES)

    def json(self) -> Any:
        """The body as JSON; of a stream, its last event or line that is JSON. Raises ValueError: there is none."""
        for found in self.documents():
            return found
        raise ValueError("the body is no JSON")

    def documents(self) -> Iterator[Any]:
        """The whole body as JSON; or each event, or line, that is JSON, the last one first."""
        body = self.body
        try:
            yield json.loads(body)
        except ValueError:
            for line in reversed(body.splitlines()):
                with suppress(ValueError):
                    yield json.loads(line.strip().removeprefix(b"data:"))

    def __str__(self) -> str:
        if self.value and not self._body:
            return f"what perf_client returned, {shown(self.value)}"
        last = next(self.documents(), None)
        keys = f"the keys {_names(last)}" if isinstance(last, dict) else f"the body {shown(self.body[:_SHOWN_BYTES])}"
        return f"the headers {_names(self.headers)}, and {keys}"


class Read(Struct, frozen=True, kw_only=True):
    """How a figure is read from an answer; a base of the ways to do it."""

    unit: str = ""  #: of the number: a time, ``"ms"``; a size, ``"KiB"``; ``"%"``; empty for a plain number
    better: Literal["lower", "higher"] = "lower"  #: which values are better

    def of(self, answer: FigureAnswer) -> object:
        """The number, or text that is one; None if the answer does not have it."""
        raise NotImplementedError

    def instead(self, answer: FigureAnswer) -> str:
        """What an answer without the figure has."""
        return str(answer)


class Header(Read, frozen=True):
    """A number in a header of the answer: ``Header("x-queue-time", unit="ms")``.

    A header of several parts gives one of them: ``Header("server-timing", part="queue", unit="ms")`` reads 1.2 of
    ``db;dur=3, queue;dur=1.2``, and of ``queue=1.2``.
    """

    name: str  #: in upper or lower case
    part: str = ""  #: name of the part; empty for the whole header

    def of(self, answer: FigureAnswer) -> object:
        """The text of the header or of its part."""
        whole = answer.headers.get(self.name.lower())
        if whole is None or not self.part:
            return whole
        number = r'\s*(?:;[^,]*?\bdur\s*)?[=:]\s*"?([^\s",;]+)'
        found = re.search(rf"(?:^|[\s,;]){re.escape(self.part)}{number}", whole, re.IGNORECASE)
        return found and found[1]

    def instead(self, answer: FigureAnswer) -> str:
        """The header without the part; without a header what there is."""
        whole = answer.headers.get(self.name.lower())
        return super().instead(answer) if whole is None else f"{self.name}: {shown(whole)}"


class Json(Read, frozen=True):
    """A number in JSON of the answer, by its path: ``Json("timings.0.queue", unit="ms")``.

    A stream's is in the last event, or line, that has it.
    """

    path: str  #: names, and indices of lists, divided by dots

    def of(self, answer: FigureAnswer) -> object:
        """The value at the path."""
        return next((found for one in answer.documents() if (found := self._at(one)) is not None), None)

    def _at(self, value: Any) -> Any:
        for name in self.path.split("."):
            try:
                value = value[int(name) if isinstance(value, list) else name]
            except (LookupError, TypeError, ValueError):
                return None
        return value


class Computed(Read, frozen=True):
    """A number that a function gives, with a unit or a direction: ``Computed(lambda answer: …, unit="ms")``."""

    function: Callable[[FigureAnswer], object]  #: gets the answer, with ``status``, ``headers``, ``body``, ``json()``

    def of(self, answer: FigureAnswer) -> object:
        """What the function returns."""
        return self.function(answer)


class FigurePlan(Struct, frozen=True):
    """The figures of a load, in a form that can be sent to another process."""

    figures: tuple[Figure, ...]  # how each is called, its unit, and which values are better
    pickled: bytes  # how each is read, and the factor that gives the unit of its metric, by name
    import_path: tuple[str, ...]  # where the modules are that functions need

    def reader(self) -> FigureReader:
        """What reads them."""
        from pytest_mlpatterns.workload.own_client import unpacked

        try:
            return FigureReader(unpacked(self.pickled, self.import_path))
        except Exception as error:  # of the user's module
            why = f"cannot be loaded in the load generator: {type(error).__name__}: {error}"
            return FigureReader({}, {figure.name: why for figure in self.figures})


class FigureReader:
    """Reads the figures of one answer after the other.

    ``faults``: what is wrong with the first value that is no number, or with the function, by name. ``without``: the
    first answer that does not have a figure, by name.
    """

    def __init__(self, readers: dict[str, tuple[Read, float]], faults: dict[str, str] | None = None) -> None:
        self._readers = readers
        self.faults: dict[str, str] = faults or {}
        self.without: dict[str, str] = {}

    def read(self, head: bytes, body: bytes, value: Any = None) -> dict[str, float]:
        """The figures of an answer, or of what a client returned; NaN for one that it does not have."""
        answer = FigureAnswer(head, body, value)
        return {name: self._number(name, read, answer) * factor for name, (read, factor) in self._readers.items()}

    def _number(self, name: str, read: Read, answer: FigureAnswer) -> float:
        try:
            found = read.of(answer)
        except Exception as error:  # of the user's function
            self.faults.setdefault(name, f"raised {type(error).__name__}: {error}, of an answer with {answer}")
            return math.nan
        if found is None:
            if name not in self.without:
                self.without[name] = read.instead(answer)
            return math.nan
        with suppress(TypeError, ValueError, OverflowError):
            number = float(found)  # type: ignore[arg-type]  # what is no number is a fault
            if math.isfinite(number) and number >= 0:
                return number
        self.faults.setdefault(name, f"gave {shown(found)}, expected a number that is not negative, or None")
        return math.nan


def _names(found: dict[str, Any]) -> str:
    return listed(sorted(map(str, found))) or "(none)"
