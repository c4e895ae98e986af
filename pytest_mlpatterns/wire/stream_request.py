"""What a request asks of its answer: whether it is to be a stream, and whether it is to have tokens."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import orjson

from pytest_mlpatterns.wire.stream_events import promises_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.wire.wire import Wire

__all__ = ["Asked", "asked_by", "asked_in_load", "asks_for_streams"]

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


def asked_by(body: bytes, *, by_default: bool) -> Asked:
    """What the body of a request asks for: a stream by ``"stream": true``, a whole answer by ``"stream": false``.

    Args:
        body: of the request, as it is sent.
        by_default: whether a body without either asks for a stream. Over the wire ``openai`` it does not, while other
            services may stream by their path.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        return Asked(by_default, tokens=True)
    stream = value.get("stream") is not False if by_default else value.get("stream") is True
    return Asked(stream, tokens=not any(type(value.get(name)) is int and value[name] == 0 for name in _LIMITS))


def asked_in_load(messages: Sequence[bytes], *, is_openai: bool, has_streams: bool) -> Callable[[int], Asked]:
    """The function of what each of the requests of a load asks for, by its index.

    Of a service of REST JSON a body may leave open whether it asks for a stream. If another one has ``"stream": true``,
    the field decides, and such a body asks for none. Else the path may decide, and it asks for one if its request line
    is that of the first input, whose answer was seen to be a stream.

    Args:
        messages: complete with their heads, in the order of the inputs.
        is_openai: whether their wire is ``openai``.
        has_streams: whether any of their answers is expected to be a stream.
    """
    by_field = is_openai or not has_streams or _some_ask(messages)
    first = _request_line(messages[0]) if messages else b""

    @cache
    def asked(request: int) -> Asked:
        message = messages[request]
        found = asked_by(_body(message), by_default=not by_field and _request_line(message) == first)
        return found if has_streams else found._replace(stream=False)

    return asked


def asks_for_streams(wire: Wire, messages: Sequence[bytes]) -> bool:
    """Whether one of these requests, complete with their heads, asks for a stream by the rules of its wire."""
    return promises_end(wire) and _some_ask(messages)


def _some_ask(messages: Sequence[bytes]) -> bool:
    """Whether one of these requests has ``"stream": true``."""
    return any(asked_by(_body(message), by_default=False).stream for message in messages if b'"stream"' in message)


def _body(message: bytes) -> bytes:
    return message.partition(b"\r\n\r\n")[2]


def _request_line(message: bytes) -> bytes:
    return message.partition(b"\r\n")[0]
