"""Bulk: a whole data set, as fast as possible: all inputs in chunks, each of them sent once.

A batch job is known by its inputs per second and by its total time, not by the latency of one request. This module
sends nothing; :class:`pytest_mlpatterns.workload.payload.Payload` makes the chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_mlpatterns import fields
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.setup import LoadDescription, LoadKind
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.input_order import Uniform, Zipf
from pytest_mlpatterns.workload.schedule import ClosedLoop, Schedule

if TYPE_CHECKING:
    from pytest_mlpatterns.wire import Wire

__all__ = ["Bulk", "Load"]

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

    def require_inputs(self, given: object, wire: Wire) -> None:
        """Refuse inputs that cannot be sent once, or not several in a request.

        Args:
            given: as ``perf_payload`` returns them.
            wire: that encodes them.

        Raises:
            SettingError: they are drawn at random, or a request of the wire carries one input.
        """
        if isinstance(given, Uniform | Zipf):
            raise SettingError(
                f"perf_payload is {shown(type(given).__name__)} of inputs under {self}, which sends every input once; "
                "return the list of inputs itself"
            )
        if wire.protocol == "openai":
            raise SettingError(
                f"{self} over the wire {wire}, whose requests carry one input each, expected one with lists of inputs; "
                'write wire="rest+json", or load=ClosedLoop(8)'
            )


Load = Schedule | Bulk
"""Any load of a test."""
