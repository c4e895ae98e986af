"""The pattern ``Faulty``: a hop that misbehaves on purpose, for a known share of the requests."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError, UnitError
from pytest_mlpatterns.fields import MAX_SEED, check_truth, set_whole
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.layer import CutError, RequestError, parallelism
from pytest_mlpatterns.patterns.model_thread import OffLoop
from pytest_mlpatterns.patterns.pattern import Pattern
from pytest_mlpatterns.patterns.request_clock import HOP, charge
from pytest_mlpatterns.patterns.stream import Stream, StreamSource
from pytest_mlpatterns.units import parse_duration, parse_share, parse_size
from pytest_mlpatterns.wire import WireError, codec_of, encode_request
from pytest_mlpatterns.wire.kserve_v1 import encode_chunk
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from pytest_mlpatterns.patterns.layer import Handler, Resources
    from pytest_mlpatterns.patterns.tally import Tally
    from pytest_mlpatterns.wire import Wire

__all__ = ["Faulty", "FaultyLayer"]

_PER_SECOND = "/s"
"""End of a speed, after its size."""
_CHUNKS_BEFORE_CUT = 1
"""Chunks of a stream that the client reads before its connection is cut."""


@dataclass(frozen=True, slots=True)
class Faulty(Pattern):
    """A hop before what follows that misbehaves on purpose for a share of the requests, drawn with a seed.

    It shows what retries, hedges, fallbacks and limits before it are worth. At least one fault must be given. The first
    request of each process passes, since it shows whether the service is ready.

    Args:
        delay: time that such a request waits before it goes on.
        share: share of the requests, each drawn on its own; ``0.02`` or ``"2%"``.
        error: HTTP status that such a request gets at once instead of an answer, 400..599.
        cut: the connection of such a request is closed in the middle of its answer; of a stream, after its first chunk.
        refuse: the connection of such a request is closed at once, without an answer.
        bandwidth: ``"10MiB/s"``: all such requests and their answers share a link of this speed, in each direction.
        seed: of the draws, 0..2⁶⁴-1. The same seed gives the same draws in the order of the requests of a process.
        env: environment variables of the process in which it runs, and of those behind it.

    Raises:
        SettingError: no fault, two that exclude each other, a number out of range, or impossible variables.
        UnitError: a time or size without a unit, or no share.
    """

    delay: str | None = None
    share: float | str = 1.0
    error: int | None = None
    cut: bool = False
    refuse: bool = False
    bandwidth: str | None = None
    seed: int = 0
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        parse_share(self.share, name="Faulty(share=...)")
        set_whole(self, "seed", least=0, most=MAX_SEED)
        if self.error is not None:
            set_whole(self, "error", least=400, most=599)
        check_truth(self, "cut", "refuse")
        if self.delay is not None:
            parse_duration(self.delay, name="Faulty(delay=...)")
        if self.bandwidth is not None:
            _bytes_per_second(self.bandwidth)
        self._check_faults()

    def _check_faults(self) -> None:
        """Check that there is a fault, and none that excludes another.

        Raises:
            SettingError: there is none, or there are such two.
        """
        ends = {"error=": self.error is not None, "cut=": self.cut, "refuse=": self.refuse}
        given = [name for name, is_given in ends.items() if is_given]
        if not given and self.delay is None and self.bandwidth is None:
            raise SettingError(
                "Faulty() without a fault, expected one of delay=, error=, cut=, refuse=, bandwidth=; "
                'write Faulty(delay="50ms", share=0.02)'
            )
        if self.bandwidth is not None:
            given += ["bandwidth="] if self.error is not None or self.refuse else []
        if len(given) > 1:
            raise SettingError(
                f"Faulty() with {' and '.join(given)}, expected one of them, as a request ends only once; "
                "write Faulty(...) | Faulty(...) with a share for each"
            )

    @property
    def bytes_per_second(self) -> int | None:
        """Speed of the link; None: it takes no time."""
        return None if self.bandwidth is None else _bytes_per_second(self.bandwidth)

    @property
    def delay_s(self) -> float:
        """Time that a request waits, in seconds."""
        return 0.0 if self.delay is None else parse_duration(self.delay) / 1e9

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the hop before the handler inside."""
        return FaultyLayer(self, inside[0], tally, wire=resources.wire)


def _bytes_per_second(value: object) -> int:
    """Read a speed such as ``"10MiB/s"``.

    Raises:
        SettingError: it is 0.
        UnitError: no size per second.
    """
    name = "Faulty(bandwidth=...)"
    if not isinstance(value, str) or not value.strip().endswith(_PER_SECOND):
        raise UnitError(f'{name} is {shown(value)}, expected a size per second; write "10MiB/s"')
    found = parse_size(value.strip().removesuffix(_PER_SECOND), name=name)
    if not found:
        raise SettingError(f'{name} is {shown(value)}, expected more than 0; write "10MiB/s", or refuse=True')
    return found


class FaultyLayer:
    """Passes requests on, and misbehaves for those that are drawn.

    A model that is a plain function runs in a thread of its own, so that waits end in time.

    Args:
        pattern: the faults and their share.
        inside: the handler.
        tally: counts what :mod:`pytest_mlpatterns.records.package_layers` names for faults.
        wire: the sizes of inputs and outputs for a bandwidth are those of this wire.

    Attributes:
        parallelism: how many calls the handler inside works on at the same time.

    Raises:
        RequestError: when called: the status that was asked for, or the request's own error.
        CutError: when called: the connection is to be closed.
    """

    needs_loop = True

    def __init__(self, pattern: Faulty, inside: Handler, tally: Tally, *, wire: Wire) -> None:
        self.parallelism: int = parallelism(inside)
        self._pattern = pattern
        self._share = parse_share(pattern.share)
        self._delay_s = pattern.delay_s
        self._inside = OffLoop(inside, "faulty model")
        self._reader = StreamSource()
        self._tally = tally
        self._wire = wire
        # two of them in a composition draw apart, though their seeds are equal
        self._random = random.Random(f"{pattern.seed} {pattern}")  # noqa: S311 - no secret
        self._is_first = True
        speed = pattern.bytes_per_second
        self._links = None if speed is None else (_Link(speed), _Link(speed))

    async def __call__(self, instances: list[Any]) -> Any:
        """The outputs, or what the fault makes of them."""
        if self._is_first:
            self._is_first = False
            return await self._inside(instances)
        if self._random.random() >= self._share:
            self._tally.count("passed")
            return await self._inside(instances)
        self._tally.count("injected")
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
            charge(HOP, round(self._delay_s * 1e9))
        if self._pattern.refuse:
            raise CutError("the connection was refused on purpose", in_answer=False)
        if self._pattern.error is not None:
            raise RequestError(self._pattern.error, f"{self._pattern} failed on purpose")
        if self._links is not None:
            await self._links[0].carry(self._size_of(encode_request, instances))
        outputs = await self._inside(instances)
        stream = self._reader.read(outputs, len(instances), "the model")
        if stream is not None:
            return Stream(_Chunks(stream, cut=self._pattern.cut, link=self._links[1] if self._links else None))
        if self._pattern.cut:
            raise CutError("the connection was closed in the middle of the answer on purpose", in_answer=True)
        if self._links is not None:
            await self._links[1].carry(self._size_of(_encoded_outputs, outputs))
        return outputs

    def _size_of(self, encode: Any, values: Sequence[Any]) -> int:
        """Bytes of inputs or outputs on the wire."""
        try:
            return int(encode(self._wire, values).size)
        except WireError as error:
            raise RequestError(500, f"{self._pattern} cannot send this over {self._wire}: {error}") from error


def _encoded_outputs(wire: Wire, outputs: Sequence[Any]) -> Any:
    return codec_of(wire).encode_outputs(outputs)


class _Link:
    """One direction of a link, over which bytes go one after the other.

    Args:
        speed: bytes per second.
    """

    def __init__(self, speed: int) -> None:
        self._speed = speed
        self._free_ns = 0

    async def carry(self, size: int) -> None:
        """Wait until ``size`` bytes have passed, after the bytes of earlier calls."""
        now_ns = perf_counter_ns()
        self._free_ns = max(now_ns, self._free_ns) + round(size / self._speed * 1e9)
        took_ns = self._free_ns - now_ns
        await asyncio.sleep(took_ns / 1e9)
        charge(HOP, took_ns)


class _Chunks:
    """The chunks of a stream over a hop that cuts it, or that is slow.

    Args:
        stream: the stream.
        cut: whether the connection is closed in its middle.
        link: over which its chunks go; None: they take no time.
    """

    def __init__(self, stream: Stream, *, cut: bool, link: _Link | None) -> None:
        self._stream = stream
        self._cut = cut
        self._link = link
        self._number = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._cut and self._number == _CHUNKS_BEFORE_CUT:
            raise CutError("the connection was closed in the middle of the stream on purpose", in_answer=True)
        chunk = await anext(self._stream)
        self._number += 1
        if self._link is not None:
            try:
                size = len(encode_chunk(chunk))
            except WireError as error:
                raise RequestError(500, f"the model yielded a chunk that cannot be sent: {error}") from error
            await self._link.carry(size)
        return chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
