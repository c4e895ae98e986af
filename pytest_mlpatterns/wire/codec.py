"""What encodes and decodes under a wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pytest_mlpatterns.wire.v1 import JSON_V1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.wire.body import Body, Headers
    from pytest_mlpatterns.wire.value import Wire

__all__ = ["Codec", "codec_of", "decode_answer", "encode_request"]


class Codec(Protocol):
    """One way to write inputs and outputs. Every method raises :class:`WireError` for what it cannot write or read."""

    def path(self, model: str) -> str:
        """The path at which our own servers take requests of this kind for a model."""
        ...

    def encode_inputs(self, inputs: Sequence[Any]) -> Body:
        """The body of a request."""
        ...

    def decode_inputs(self, body: bytes, headers: Headers) -> list[Any]:
        """The inputs in a request, at least one."""
        ...

    def encode_outputs(self, outputs: Any) -> Body:
        """The body of an answer; ``outputs`` is a list, an array, or anything that ``list`` takes."""
        ...

    def decode_outputs(self, body: bytes, headers: Headers) -> Sequence[Any]:
        """The outputs in an answer."""
        ...


def codec_of(_wire: Wire, _path: str = "") -> Codec:
    """What encodes under a wire for a path; without one, for our own servers."""
    return JSON_V1


def encode_request(wire: Wire, inputs: Sequence[Any], path: str = "") -> Body:
    """A request's body under a wire.

    Raises:
        WireError: the wire cannot hold an input.
    """
    return codec_of(wire, path).encode_inputs(inputs)


def decode_answer(wire: Wire, body: bytes, headers: Headers, path: str = "") -> Sequence[Any]:
    """The outputs in an answer.

    Args:
        wire: what the request was made under.
        body: as it came, compressed or not.
        headers: those of the answer.
        path: where the request went to; empty for our own servers.

    Raises:
        WireError: it is no such answer.
    """
    return codec_of(wire, path).decode_outputs(body, headers)
