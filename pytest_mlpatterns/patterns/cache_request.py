"""A request to a cache, and the outputs that are being computed for it and for others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.patterns.layer import DecodedInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["CacheRequest", "Pending", "PendingByKey", "Resolved"]


@dataclass(slots=True)
class CacheRequest:
    """A request: known outputs, keys that it calls the handler for, and keys whose call another request started."""

    started_ns: int
    keys: list[bytes]
    decode: Callable[[], Sequence[Any]] | None = None
    outputs: dict[bytes, Any] = field(default_factory=dict)
    missed: set[bytes] = field(default_factory=set)
    shared: set[bytes] = field(default_factory=set)

    def inputs_of(self, wanted: Mapping[bytes, Any]) -> list[Any]:
        """These inputs for the handler, which can be decoded again if those of the request can."""
        decode, keys = self.decode, tuple(wanted)
        if decode is None:
            return list(wanted.values())

        def decode_wanted() -> list[Any]:
            inputs = decode()
            return [inputs[self.keys.index(key)] for key in keys]

        return DecodedInputs(wanted.values(), decode_wanted)


@dataclass(frozen=True, slots=True)
class Resolved:
    """An output, and whether it came from the store."""

    output: Any
    from_store: bool


Pending = asyncio.Future[Resolved | BaseException]
PendingByKey = dict[bytes, Pending]
"""Outputs that are being computed, or the exception of their call, by key."""
