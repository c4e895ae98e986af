"""The pattern ``Limited``: a bound on the requests in flight, and load shedding beyond it."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.layer import Handler, RequestError, Resources, parallelism
from pytest_mlpatterns.patterns.model_thread import OffLoop
from pytest_mlpatterns.patterns.pattern import Pattern
from pytest_mlpatterns.patterns.request_clock import QUEUE_WAIT, charge
from pytest_mlpatterns.patterns.stream import StreamSource
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.units import parse_duration
from pytest_mlpatterns.wording import count

_MOST = 100_000  # Most requests in flight or waiting; one machine has no more sockets for them


@dataclass(frozen=True, slots=True)
class Limited(Pattern):
    """At most some requests are in flight inside, some more wait, and the rest are refused at once.

    So a service that gets more load than it can answer keeps answering as much as it can, in time, instead of answering
    everything too late.

    Args:
        max_in_flight: most requests inside at a time, 1..100,000.
        max_waiting: most requests that wait before them, in the order of their arrival, 0..100,000.
        status: HTTP status of a refused request, 400..599; 503 and 429 are usual.
        retry_after: when a refused client should try again, which it reads in the header ``Retry-After`` in whole
            seconds; None: no such header.
        env: environment variables of the process in which it runs, and of those behind it.

    Raises:
        SettingError: a number out of range, or impossible variables.
        UnitError: a time without a unit.
    """

    max_in_flight: int = 8
    max_waiting: int = 16
    status: int = 503
    retry_after: str | None = "1s"
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        set_whole(self, "max_in_flight", least=1, most=_MOST)
        set_whole(self, "max_waiting", least=0, most=_MOST)
        set_whole(self, "status", least=400, most=599)
        if self.retry_after is not None:
            parse_duration(self.retry_after, name="Limited(retry_after=...)")

    @property
    def taken_at_once(self) -> int:
        """As many requests as may be inside."""
        return self.max_in_flight

    @property
    def retry_after_s(self) -> int | None:
        """Value of the header ``Retry-After``, in whole seconds; None without one."""
        if self.retry_after is None:
            return None
        return math.ceil(parse_duration(self.retry_after, name="retry_after") / 1e9)

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the limit before the handler inside."""
        return LimitLayer(self, inside[0], tally)


class LimitLayer:
    """Lets requests in up to the limit, makes some wait and refuses the rest.

    A model that is a plain function runs in a thread of its own, so that requests can be refused meanwhile. It is in
    flight until it has returned, also if its caller has gone, and a stream until it has ended.
    """

    needs_loop = True

    def __init__(self, pattern: Limited, inside: Handler, tally: Tally) -> None:
        self.parallelism: int = parallelism(inside)
        self._pattern = pattern
        self._inside = OffLoop(inside, "limited model")
        self._reader = StreamSource()
        self._tally = tally
        self._in_flight = 0
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    async def __call__(self, instances: list[Any]) -> Any:
        """The outputs of a request that is let in, or its stream."""
        await self._enter()
        outputs = await self._inside(instances, on_failure=self._leave)
        try:
            stream = self._reader.read(outputs, len(instances), "the model", on_end=self._leave)
        except BaseException:
            self._leave()
            raise
        if stream is not None:
            return stream
        self._leave()
        return outputs

    async def _enter(self) -> None:
        """Wait until the request may go in."""
        if self._in_flight < self._pattern.max_in_flight:
            self._tally.count("admitted")
            self._tally.time("wait_ns", 0)
            self._in_flight += 1
            return
        if len(self._waiting) >= self._pattern.max_waiting:
            self._tally.count("rejected")
            raise self._refusal()
        arrived_ns = perf_counter_ns()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[place] = None
        try:
            await place
        except asyncio.CancelledError:  # its caller has gone
            if place.done() and not place.cancelled():
                self._leave()
            self._waiting.pop(place, None)
            raise
        waited_ns = perf_counter_ns() - arrived_ns
        self._tally.count("admitted")
        self._tally.time("wait_ns", waited_ns)
        charge(QUEUE_WAIT, waited_ns)

    def _leave(self) -> None:
        """A request is no longer in flight; those that may go in now do."""
        self._in_flight -= 1
        while self._waiting and self._in_flight < self._pattern.max_in_flight:
            place, _ = self._waiting.popitem(last=False)
            if not place.done():
                self._in_flight += 1
                place.set_result(None)

    def _refusal(self) -> RequestError:
        waiting = count(self._pattern.max_waiting, "request")
        return RequestError(
            self._pattern.status,
            f"too many requests: {self._pattern.max_in_flight} in flight and {waiting} waiting, which are the limits; "
            "send fewer at a time or try again later",
            retry_after_s=self._pattern.retry_after_s,
        )
