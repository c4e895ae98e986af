"""Bulk: a whole data set, as fast as possible: all inputs in chunks, each of them sent once.

A batch job is known by its inputs per second and by its total time, not by the latency of one request. This module
sends nothing; :class:`pytest_mlpatterns.workload.payload.Payload` makes the chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pytest_mlpatterns import fields
from pytest_mlpatterns.records.setup import LoadDescription, LoadKind
from pytest_mlpatterns.workload.schedule import ClosedLoop

__all__ = ["Bulk"]

_MOST_INPUTS = 1_000_000
"""Most inputs of a request; the size of all requests is limited besides."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """A whole data set as fast as possible: every request carries a chunk of the inputs, and each is sent once.

    The inputs are sent in the order in which they are listed. There is no warm-up, since that would send inputs twice;
    the window begins with the first chunk and has all of them. Each launch sends the whole data set. The one request
    that shows that the service is ready carries the first chunk.

    Args:
        chunk: inputs of a request, from 1 to 1,000,000; the last one has what is left.
        concurrency: chunks in flight at any time, from 1 to 10,000. With two, the next chunk is there when the service
            is done with one; a pattern with several workers or replicas needs more.

    Raises:
        SettingError: not a whole number in its range.
    """

    chunk: int = 1000
    concurrency: int = 2
    closed: ClassVar[bool] = True
    length_ns: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        fields.set_whole(self, "chunk", least=1, most=_MOST_INPUTS)
        object.__setattr__(self, "concurrency", fields.concurrency(self.concurrency, "Bulk(concurrency=...)"))

    def __str__(self) -> str:
        return f"bulk(chunk={self.chunk}, concurrency={self.concurrency})"

    def describe(self) -> LoadDescription:
        """The load as records keep it."""
        return LoadDescription(str(self), LoadKind.BULK, self.concurrency, paced=False)

    @property
    def callers(self) -> ClosedLoop:
        """The callers that send the chunks."""
        return ClosedLoop(self.concurrency)
