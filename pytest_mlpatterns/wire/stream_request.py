"""What a request asks of its answer: whether it is to be a stream, and whether it is to have tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

from pytest_mlpatterns.wire.stream_events import promises_end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.wire.wire import Wire

__all__ = ["Asked", "asked_by", "asks_for_streams"]

_LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens")
"""Fields that limit the tokens of an answer, of OpenAI and of its servers."""


class Asked(NamedTuple):
    """What a request asks for.

    Attributes:
        stream: whether its answer is to be a stream of events.
        tokens: whether its answer is to have tokens; not with ``max_tokens: 0``, which only reads the prompt.
    """

    stream: bool
    tokens: bool


def asked_by(body: bytes, *, is_openai: bool) -> Asked:
    """What the body of a request asks for.

    OpenAI streams only if ``stream`` is true. Other services may stream by their path, so of them a whole answer is
    requested only by ``"stream": false``.

    Args:
        body: of the request, as it is sent.
        is_openai: whether its wire is ``openai``.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        return Asked(stream=not is_openai, tokens=True)
    stream = value.get("stream") is True if is_openai else value.get("stream") is not False
    return Asked(stream, tokens=not any(type(value.get(name)) is int and value[name] == 0 for name in _LIMITS))


def asks_for_streams(wire: Wire, messages: Sequence[bytes]) -> bool:
    """Whether one of these requests, complete with their heads, asks for a stream by the rules of its wire."""
    if not promises_end(wire):
        return False
    bodies = (message.partition(b"\r\n\r\n")[2] for message in messages if b'"stream"' in message)
    return any(asked_by(body, is_openai=True).stream for body in bodies)
