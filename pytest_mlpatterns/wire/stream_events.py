"""What the events of an answer mean: content, usage, the end, an error. For streams of REST JSON and of OpenAI.

A *chunk* is an event with content, such as a token. The event that only names the role of a chat, one with an empty
delta, and the one that carries the usage are none.

On REST JSON every event is a chunk, except empty ones, ``[DONE]`` and ``event: error``. On either wire an object in the
form of OpenAI is read as such, since its servers are often driven with complete requests. Other services have fields of
the same names: ``choices`` are OpenAI's only if one of them has a field of theirs, and an event with ``usage``
is no chunk only if no output is beside it.

Server-sent events without I/O: bytes in, events out, by the rules of the WHATWG (HTML, section 9.2.6).

Bytes may be split anywhere, also in the middle of a character or between CR and LF. Data stays bytes: only its reader
knows whether it is text or JSON. It must not know what an event means.
"""

import json
import re
from typing import Any, NamedTuple

import orjson

from pytest_mlpatterns.wire.wire import Wire

LONGEST_EVENT_BYTES = 16 * 2**20
"""Longest event; a stream with a longer one is refused, so that it cannot fill the memory."""
_BOM = b"\xef\xbb\xbf"


class EventStreamError(ValueError):
    """A stream that cannot be read."""


class Event(NamedTuple):
    """One event."""

    data: bytes  # its ``data`` fields, joined by line feeds
    name: bytes = b""  # its ``event`` field; empty for a plain message


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

        Raises EventStreamError: an event is longer than :data:`LONGEST_EVENT_BYTES`.
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


EVENT_STREAM = "text/event-stream"  # Media type of a stream of events
_DONE = b"[DONE]"
_EMPTY = (b"", b'""', b"null")
_CONTENT = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")
"""Fields of a chat's delta that hold content, if they are not empty."""
_READ = (b'"choices"', b'"usage"', b'"error"', b'"meta_info"')
"""Names of fields for which an event of REST JSON is read: of OpenAI, TGI and SGLang."""
_OF_CHOICES = ("text", "delta", "finish_reason")
"""Fields of a choice; one in a completion or a chat has at least one of them."""
_NO_OUTPUT = frozenset(
    (
        *("id", "object", "created", "model", "choices", "usage"),
        *("system_fingerprint", "service_tier", "obfuscation", "prompt_filter_results"),
    )
)
"""Fields of an event of OpenAI, or of Azure, that are no output beside choices that are empty."""
_BROKEN = ("error", "abort", "timeout", "cancelled", "insufficient_system_resource")
"""Reasons of servers for an end that is none: it stopped before the model had ended it. The last is of DeepSeek."""
_STRING = re.compile(rb'(?:"(?:text|content)": ?|^data: ?)"((?:[^"\\]|\\.)*)"')
_TEXT = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))++').fullmatch
"""The inside of a JSON string that is not empty."""
_MOST_TOKENS = 2**31 - 1  # Largest number of tokens that a column of 32 bits holds
_FIELDS_OF_TEXT = ("content", "reasoning_content", "reasoning", "refusal")


def promises_end(wire: Wire) -> bool:
    """Whether every stream of this wire ends with ``[DONE]``."""
    return wire.protocol == "openai"


class AnswerReader:
    """What is known of the stream of one answer, in any form.

    Attributes:
        input_tokens: tokens of the request by the server's usage; -1 while it has reported none.
        output_tokens: tokens of the answer by the server's usage; -1 while it has reported none.
        ended: whether its end was announced, as by ``[DONE]``.
        needs_end: whether it is cut off without that.
        error: data of the error; None if there was none.
        finished: whether a choice ended for a reason, such as ``stop``.
        malformed: whether it cannot be read.
        opening: data of the first event, line or chunk; empty while none has come.
        cut: whether it ends within a line; an event that is not complete is none.
        why: why it cannot be read, or which part is missing, in words; empty if nothing is wrong, or its kind suffices.
    """

    __slots__ = (
        *("cut", "ended", "error", "finished", "input_tokens"),
        *("malformed", "needs_end", "opening", "output_tokens", "why"),
    )

    def __init__(self, *, needs_end: bool = False) -> None:
        self.input_tokens: int = -1
        self.output_tokens: int = -1
        self.error: bytes | None = None
        self.opening: bytes = b""
        self.why: str = ""
        self.needs_end: bool = needs_end
        self.ended: bool = False
        self.finished: bool = False
        self.malformed: bool = False
        self.cut: bool = False

    def _is_over(self) -> bool:
        """Whether nothing that follows counts."""
        return self.ended or self.malformed or self.error is not None


class StreamReader(AnswerReader):
    """Reads the events of one answer."""

    expected = EVENT_STREAM
    unit = "event"
    input_tokens: int
    output_tokens: int
    error: bytes | None
    opening: bytes
    ended: bool
    finished: bool
    malformed: bool
    __slots__ = ("_is_openai", "_learned", "_parser", "_usual")

    def __init__(self, *, is_openai: bool) -> None:
        super().__init__(needs_end=is_openai)
        self._is_openai = is_openai
        self._parser = EventStreamParser()
        self._learned: tuple[bytes, bytes] | None = None
        self._usual: tuple[bytes, bytes] | None = None

    @property
    def text(self) -> bytes | None:
        """None: it is not kept."""
        return None

    def end(self) -> int:
        """Take the end of the answer, which completes no event."""
        return 0

    def feed(self, data: bytes) -> int:
        """Take a piece of the stream. Returns the number of chunks that it completes."""
        if self._usual is not None and self._is_usual(data, *self._usual):
            return 1
        if self._is_over():
            return 0
        self._usual = None
        try:
            events = self._parser.feed(data)
        except EventStreamError:
            self.malformed = True
            return 0
        if events and not self.opening:
            self.opening = events[0].data
        count = 0
        for event in events:
            count += self._read(event)
            if self._is_over():
                return count
        if count == 1 == len(events) and self._learned is None:
            self._learned = self._surroundings(data)
        if self._learned is not None and self._learned[0] and self._parser.between_events:
            self._usual = self._learned
        return count

    @staticmethod
    def _is_usual(data: bytes, prefix: bytes, suffix: bytes) -> bool:
        """Whether the bytes are one chunk that differs from an earlier one in nothing but its text.

        Events of an answer often differ in nothing else, and the inside of a JSON string cannot change what the rest
        means. So such an event need not be parsed.
        """
        return (
            data.startswith(prefix)
            and data.endswith(suffix)
            and _TEXT(data, len(prefix), len(data) - len(suffix)) is not None
        )

    def _read(self, event: Event) -> bool:
        """Take one event. Returns whether it is a chunk."""
        data = event.data
        if event.name == b"error":
            self.error = data
            return False
        if data == _DONE:
            self.ended = True
            return False
        if not self._is_openai and not (data[:1] == b"{" and any(key in data for key in _READ)):
            return data not in _EMPTY
        if not data:
            return False
        value = json_of(data)
        if not isinstance(value, dict):
            self.malformed = self._is_openai
            return not self.malformed
        return self._read_object(value, data)

    def _read_object(self, value: dict[str, Any], data: bytes) -> bool:
        error, choices, usage = value.get("error"), value.get("choices"), value.get("usage")
        if (error or choices is None) and self._is_error(value):
            self.error = data
            return False
        if isinstance(usage, dict):
            self.input_tokens = tokens_in(usage.get("prompt_tokens"), self.input_tokens)
            self.output_tokens = tokens_in(usage.get("completion_tokens"), self.output_tokens)
        if isinstance(choices, list) and (self._is_openai or any(map(_is_choice, choices))):
            return self._read_choices(choices, data)
        return not self._is_openai and not _is_bookkeeping(value)

    def _is_error(self, value: dict[str, Any]) -> bool:
        """Whether an event is an error object: of OpenAI, older versions of vLLM, FastAPI, or of TGI or SGLang."""
        error = value.get("error")
        if error and (self._is_openai or (isinstance(error, dict) and "message" in error)):
            return True
        if error and isinstance(value.get("error_type"), str):
            return True
        if "choices" in value:
            return False
        if broken_end(value.get("meta_info")):
            return True
        if value.get("object") == "error":
            return self._is_openai or "message" in value
        return self._is_openai and bool(value.get("detail"))

    def _read_choices(self, choices: list[Any], data: bytes) -> bool:
        """Take the choices of an event. Returns whether one of them has content."""
        has_content = False
        for choice in choices:
            if isinstance(choice, dict):
                if broken_end(choice):
                    self.error = data
                    return False
                self.finished = self.finished or bool(choice.get("finish_reason"))
                has_content = has_content or _has_content(choice)
        return has_content

    def _surroundings(self, data: bytes) -> tuple[bytes, bytes]:
        """What surrounds the text of an event that is a chunk; empty if the text does not decide whether it is one."""
        found = _STRING.search(data)
        if found is None:
            return b"", b""
        prefix, suffix = data[: found.start(1)], data[found.end(1) :]
        full, empty = (StreamReader(is_openai=self._is_openai) for _ in range(2))
        full._learned = empty._learned = b"", b""
        alike = full.feed(prefix + b"x" + suffix) == 1 and empty.feed(prefix + suffix) == 0
        over = full._is_over() or empty._is_over()
        whole = full._parser.between_events and full.output_tokens == full.input_tokens == -1
        return (prefix, suffix) if alike and whole and not over else (b"", b"")


def broken_end(value: object) -> str:
    """The ``finish_reason`` of a choice or of SGLang's ``meta_info``, or Ollama's ``done_reason``, if it is no end.

    Else empty. SGLang writes an object with its type: ``{"type": "abort", "message": ...}``.
    """
    reason = value.get("finish_reason", value.get("done_reason")) if isinstance(value, dict) else None
    kind = reason.get("type") if isinstance(reason, dict) else reason
    return kind if isinstance(kind, str) and kind in _BROKEN else ""


def json_of(data: bytes, broken: str = "replace") -> Any:
    """The JSON value; None if it is none. Broken characters are replaced, as the WHATWG asks, or refused."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(data.decode("utf-8", broken))  # takes half a surrogate pair too
    except (ValueError, RecursionError):
        return None


def _is_choice(value: object) -> bool:
    """Whether a value is a choice of OpenAI: a service of REST JSON may call anything else so."""
    return isinstance(value, dict) and any(field in value for field in _OF_CHOICES)


def _is_bookkeeping(value: dict[str, Any]) -> bool:
    """Whether an event has the usage, or empty choices, and no output."""
    is_of_openai = isinstance(value.get("usage"), dict) or value.get("choices") == []
    return is_of_openai and not value.get("choices") and value.keys() <= _NO_OUTPUT


def _has_content(choice: dict[str, Any]) -> bool:
    """Whether a choice of a completion or a chat has text, reasoning or a tool call in it."""
    if choice.get("text"):
        return True
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(delta.get(field) for field in _CONTENT)


def tokens_in(value: object, before: int) -> int:
    """A number of tokens; what was known before if it is none."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else before


class TextReader(StreamReader):
    """A :class:`StreamReader` that keeps the text of the chunks, as the insides of JSON strings.

    They are kept as they came, because decoding them would cost time while the load runs.
    """

    __slots__ = ("_is_text", "_pieces")

    def __init__(self, *, is_openai: bool) -> None:
        super().__init__(is_openai=is_openai)
        self._pieces: list[bytes] = []
        self._is_text = True

    @property
    def text(self) -> bytes | None:
        """What came so far, for :func:`text_of`; None if a chunk was something else than text of one choice."""
        return b"".join(self._pieces) if self._is_text else None

    def feed(self, data: bytes) -> int:
        """Take a piece of the stream. Returns the number of chunks that it completes."""
        usual = self._usual
        if usual is not None and self._is_usual(data, *usual):
            prefix, suffix = usual
            self._pieces.append(data[len(prefix) : len(data) - len(suffix)])
            return 1
        return super().feed(data)

    def _read(self, event: Event) -> bool:
        is_chunk = super()._read(event)
        if is_chunk and self._is_text:
            text = _text_in(event.data)
            if text is None:
                self._is_text = False
            else:
                self._pieces.append(json.dumps(text)[1:-1].encode("ascii"))
        return is_chunk


def text_of(kept: bytes) -> str:
    """The text of :attr:`TextReader.text`; broken characters are replaced."""
    text: str = json.loads(f'"{kept.decode("utf-8", "replace")}"')
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _text_in(data: bytes) -> str | None:
    """The text of a chunk; None if it is something else."""
    value = json_of(data)
    if isinstance(value, str):
        return value
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    choice = choices[0]
    delta = choice.get("delta") or {}
    if not isinstance(delta, dict) or not ("text" in choice or delta):
        return None
    if choice.get("index", 0) or delta.get("tool_calls") or delta.get("function_call"):
        return None
    texts = [choice.get("text"), *(delta.get(field) for field in _FIELDS_OF_TEXT)]
    return "".join(text for text in texts if isinstance(text, str))
