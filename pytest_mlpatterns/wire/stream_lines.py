"""Streams that are no server-sent events: JSON lines, and chunks of any bytes. Without I/O: bytes in, chunks counted.

JSON lines may be split anywhere, also in the middle of a character. The last line needs no line feed. Lines in the form
of Ollama are read as such: ``done`` ends the stream, and the counts of tokens are beside it.
"""

import codecs
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wire.body import WireError
from pytest_mlpatterns.wire.stream_events import LONGEST_EVENT_BYTES, AnswerReader, broken_end, json_of, tokens_in
from pytest_mlpatterns.wording import count, listed, shown

_KEY = re.compile(r"[^.\s]+(\.[^.\s]+)*")
_EMPTY = (b'""', b"null")
_CONTENT = ("content", "thinking", "tool_calls")
"""Fields of a message of Ollama's chats that hold content, if they are not empty."""
_BESIDE_ERROR = frozenset(
    (
        *("error", "message", "detail", "code", "status", "status_code", "type", "error_type"),
        *("model", "created_at", "done", "signin_url"),
    )
)
"""Fields of an error line. Beside any other field ``error`` is taken for a part of the output, such as an error bar."""

_MOST_NAMED = 6  # Most keys of lines that a message names; there may be thousands
_LONGEST_NAME = 40  # Most letters of a key in a message


@dataclass(frozen=True, slots=True, repr=False)
class JsonLines:
    """What the lines of a stream mean: each is a JSON value of its own, and these keys are read in objects.

    A key such as ``"usage.output"`` is one in an inner object. Lines of Ollama need no keys.

    Args:
        text: key of the output; lines without it, or whose output is empty, are no chunks. Without this key every line
            is a chunk. With any key a line that is no object is malformed.
        tokens: key of the number of output tokens of the answer; the last line that has it counts. Without this key
            each chunk counts as one token.
        input_tokens: key of the number of input tokens.

    Raises:
        SettingError: a key is not text.
    """

    text: str | None = None
    tokens: str | None = None
    input_tokens: str | None = None

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            key = getattr(self, name)
            if key is not None and not (isinstance(key, str) and _KEY.fullmatch(key)):
                raise SettingError(
                    f'JsonLines({name}={shown(key)}), expected the key of a line; write "tokens" or "usage.tokens"'
                )

    def __repr__(self) -> str:
        given = [f"{name}={key!r}" for name in self.__dataclass_fields__ if (key := getattr(self, name)) is not None]
        return f"JsonLines({', '.join(given)})"


class LineReader(AnswerReader):
    """Reads the JSON lines of one answer."""

    expected = "JSON lines without a content-length"
    unit = "line"
    input_tokens: int
    output_tokens: int
    error: bytes | None
    opening: bytes
    why: str
    ended: bool
    malformed: bool
    cut: bool
    __slots__ = ("_keeps_text", "_keys", "_lines", "_names", "_partial", "_size", "_texts")

    def __init__(self, keys: JsonLines | None = None, *, keep_text: bool = False) -> None:
        super().__init__()
        keys = keys or JsonLines()
        given = {"text": keys.text, "tokens": keys.tokens, "input_tokens": keys.input_tokens}
        self._keys = {name: key.split(".") for name, key in given.items() if key is not None}
        self._keeps_text = keep_text
        self._texts: list[str] = []
        self._partial: list[bytes] = []  # of the present line
        self._size = 0
        self._lines = 0
        self._names: dict[str, None] | None = {} if keys.text is not None else None

    @property
    def text(self) -> bytes | None:
        """What came so far, as the inside of a JSON string; None if it is not kept, or a chunk was no text."""
        return json.dumps("".join(self._texts))[1:-1].encode("ascii") if self._keeps_text else None

    def feed(self, data: bytes) -> int:
        """Take a piece of the stream. Returns the number of chunks that it completes."""
        if self._is_over():
            return 0
        first, *others = data.split(b"\n")
        self._hold(first)
        count = 0
        for other in others:
            if self._is_over():
                break
            count += self._take(b"".join(self._partial))
            self._partial.clear()
            self._size = 0
            self._hold(other)
        return count

    def end(self) -> int:
        """Take the end of the answer. Returns the number of chunks that it completes."""
        line = b"".join(self._partial).strip()
        self._partial.clear()
        if self._is_over():
            return 0
        if line and line != b"null" and json_of(line, "strict") is None:
            self.cut, self.why = True, f"it ends in the middle of line {self._lines + 1}"
            return 0
        count = self._take(line)
        if self.needs_end and not self.ended:
            self.why = 'no line has "done": true'
        elif self._names:
            self.why = self._missing_text(self._names)
        return count

    def _missing_text(self, names: dict[str, None]) -> str:
        found = listed([shown(name) for name in [*names][:_MOST_NAMED]])
        return f'no line has the key "{".".join(self._keys["text"])}" of JsonLines(text=...); they have {found}'

    def _hold(self, data: bytes) -> None:
        """Hold back the begin of a line."""
        if data:
            self._partial.append(data)
            self._size += len(data)
        if self._size > LONGEST_EVENT_BYTES:
            self.malformed = True
            most = f"{LONGEST_EVENT_BYTES:,}"
            self.why = f"line {self._lines + 1} has {self._size:,} bytes or more, expected at most {most}"

    def _take(self, line: bytes) -> bool:
        """Take one line. Returns whether it is a chunk."""
        line = line.strip()
        if not line:
            return False
        self._lines += 1
        self.opening = self.opening or line
        if line in _EMPTY:
            return False
        value = json_of(line, "strict")
        if isinstance(value, dict):
            return self._read_object(value, line)
        if value is None or self._keys or self.needs_end:
            self.malformed = True
            expected = "no JSON in UTF-8" if value is None else "no JSON object, as its keys need one"
            self.why = f"line {self._lines} of the stream, of {count(len(line), 'byte')}, is {expected}"
            return False
        return self._keep(value)

    def _read_object(self, value: dict[str, Any], line: bytes) -> bool:
        if _is_error(value):
            self.error = line
            return False
        if "tokens" in self._keys:
            self.output_tokens = tokens_in(_at(value, self._keys["tokens"]), self.output_tokens)
        if "input_tokens" in self._keys:
            self.input_tokens = tokens_in(_at(value, self._keys["input_tokens"]), self.input_tokens)
        is_of_ollama = isinstance(value.get("done"), bool) and ("response" in value or "message" in value)
        if is_of_ollama:
            if value["done"] and broken_end(value):
                self.error = line
                return False
            self._read_end(value)
        if "text" in self._keys:
            content = _at(value, self._keys["text"])
            self._note(value, has_text=content is not None)
            return content not in ("", None, [], {}) and self._keep(content)
        if is_of_ollama:
            contents = _contents_of(value)
            return bool(contents) and self._keep(
                "".join(contents) if all(isinstance(value, str) for value in contents) else None
            )
        return self._keep(value)

    def _note(self, value: dict[str, Any], *, has_text: bool) -> None:
        """Note the keys of lines until one has the output's."""
        if has_text:
            self._names = None
        elif self._names is not None and len(self._names) < _MOST_NAMED:
            self._names |= dict.fromkeys(name[:_LONGEST_NAME] for name in value)

    def _read_end(self, value: dict[str, Any]) -> None:
        """Take the end of the answer and its counts from a line of Ollama.

        An end without output, such as one whose reason is ``load``, is no answer.
        """
        self.needs_end = True
        if value["done"]:
            self.ended = True
            if self._names:
                self.why = self._missing_text(self._names)
            elif reason := value.get("done_reason"):
                self.why = f"no output came before the end, whose done_reason is {shown(reason)}"
            if "tokens" not in self._keys:
                self.output_tokens = tokens_in(value.get("eval_count"), self.output_tokens)
            if "input_tokens" not in self._keys:
                self.input_tokens = tokens_in(value.get("prompt_eval_count"), self.input_tokens)

    def _keep(self, text: Any) -> bool:
        """Keep the text of a line with content, if it is one. Returns True."""
        if self._keeps_text:
            self._keeps_text = isinstance(text, str)
            self._texts += [text] if self._keeps_text else []
        return True


class PieceReader(AnswerReader):
    """Counts the HTTP chunks of one answer, and does not read their bytes."""

    expected = "chunks without a content-length"
    unit = "chunk"
    __slots__ = ("_decoder", "_has_bytes", "_texts")

    def __init__(self, *, keep_text: bool = False) -> None:
        super().__init__()
        self._has_bytes = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if keep_text else None
        self._texts: list[str] = []

    @property
    def text(self) -> bytes | None:
        """What came so far, as the inside of a JSON string; None if it is not kept."""
        return None if self._decoder is None else json.dumps("".join(self._texts))[1:-1].encode("ascii")

    def feed(self, data: bytes) -> int:
        """Take bytes of the present chunk, which completes none."""
        if data:
            self._has_bytes = True
            if self._decoder is not None:
                self._texts.append(self._decoder.decode(data))
        return 0

    def end(self) -> int:
        """Take the end of a chunk, or of the answer. Returns the number of chunks that it completes."""
        completed, self._has_bytes = self._has_bytes, False
        return int(completed)


def lines_in(body: bytes) -> Sequence[Any]:
    """The values of a whole stream of JSON lines."""
    reader = LineReader()
    reader.feed(body)
    reader.end()
    if reader.error is not None:
        raise WireError(f"the stream ended with an error: {reader.error[:200].decode('utf-8', 'replace')}")
    if reader.malformed or reader.cut:
        raise WireError(reader.why)
    return [json_of(line) for line in body.split(b"\n") if line.strip()]


def _at(value: Any, keys: Sequence[str]) -> Any:
    """The value under a key in inner objects; None without it."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_error(value: dict[str, Any]) -> bool:
    """Whether a line is an error: ``{"error": "…"}`` of Ollama, or an error object, and no output beside it."""
    error = value.get("error")
    is_text = isinstance(error, str) or (isinstance(error, dict) and isinstance(error.get("message"), str))
    return bool(error) and is_text and value.keys() <= _BESIDE_ERROR


def _contents_of(value: dict[str, Any]) -> list[Any]:
    """What a line of Ollama has that is not empty."""
    message = value.get("message")
    found = [value.get("response"), value.get("thinking")]
    if isinstance(message, dict):
        found += [message.get(field) for field in _CONTENT]
    return [content for content in found if content]
