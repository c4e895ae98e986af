"""The text of a stream, kept while it is read, so that its tokens can be counted afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pytest_mlpatterns.wire.stream_events import StreamReader, json_of

if TYPE_CHECKING:
    from pytest_mlpatterns.wire.event_stream import Event

__all__ = ["TextReader", "text_of"]

_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")


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
    texts = [choice.get("text"), *(delta.get(field) for field in _FIELDS)]
    return "".join(text for text in texts if isinstance(text, str))
