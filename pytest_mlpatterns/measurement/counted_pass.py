"""Counted passes: the instructions that a service executes per request, the same on every machine.

The service is started as for a launch, but under what counts, with the seed of hashes fixed and its thread pools at one
thread. Both sides of a comparison start at once, since starts take most of the time, and no count depends on what else
runs; then they are counted one after another. One caller warms a side up, and sends whole rounds of the same inputs;
the counters are read between the rounds. What the service does in that time without a request, such as the ticks of a
server, is counted in two idle moments and subtracted, since a slower machine gives it more time.

Nothing here knows limits or baselines.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import socket
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.statistics.intervals import order_bounds
from pytest_mlpatterns.errors import CountError, DeploymentError, LeftoverWarning, OpenPortWarning
from pytest_mlpatterns.measurement.variant import Variant, started_deployments
from pytest_mlpatterns.profiling.callgrind import Callgrind, shown_architecture
from pytest_mlpatterns.profiling.frame_names import SourceNames
from pytest_mlpatterns.profiling.python_calls import PythonCalls
from pytest_mlpatterns.records.count import Count, RunUnder
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.serving.deployment import Deployment
from pytest_mlpatterns.system.owned_files import temporary_directory
from pytest_mlpatterns.system.work_counter import Reading, WorkCounter
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import count
from pytest_mlpatterns.workload.payload import Payload

if TYPE_CHECKING:
    from pathlib import Path


_POOLS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"),
)
"""Variables with the number of threads of a pool, whose threads wait for each other, and execute code meanwhile."""
_FIXED = {"PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false", **dict.fromkeys(_POOLS, "1")}
_MOST_REQUESTS = 128  # Most requests of a round
_ROUND = 64_000_000  # Instructions of a round, about; a round of cheaper requests has the most
_FEWEST_ROUNDS = 6  # Rounds from which order statistics give a 95 % interval of the median
_LEAST_ROUNDS = 2  # Rounds without which there is no count
_EXACT = 0.005  # Width of the interval, as a share of the count, at which no further round is counted
_WARM_REQUESTS = 64  # Requests before the count, at least: Python specializes code that has run often
_WARM_S = 10.0  # Time after which the warm-up ends with its round, in seconds
_TRIED = 3  # Requests that are counted before the rounds, to know how many a round has
_IDLE_S = 0.4  # Length of an idle moment, in seconds
_READ_S = 5.0  # Time in which the counters are read after the deadline, in seconds
_MOST_IDLE = 0.1  # Share of what is counted in a round that idle processes may execute
_LEAST_SLOWDOWN = 20  # Times as long that a request takes while it is counted, at least: 30 and more were seen
_START_SHARE = 0.85  # Part of the time limit that the start may take
_LIBRARIES, _FUNCTIONS = 20, 40  # Most libraries and functions that a count names


def require_time_for_a_pass(cpu_ns: float, *, limit_ns: int) -> None:
    """Refuse a pass that cannot end in time: one request before the count, those that are tried, and the least rounds.

    ``cpu_ns``: CPU time of a request; 0 if it is not known. Raises CountError: the pass would take longer.
    """
    needed_ns = (1 + _TRIED + _LEAST_ROUNDS) * _LEAST_SLOWDOWN * cpu_ns
    if needed_ns > limit_ns:
        raise CountError(
            f"a request takes {format_duration(cpu_ns)} of CPU time, and a pass that counts it at least "
            f"{format_duration(needed_ns)}, expected at most {format_duration(limit_ns)}"
        )


def counted_passes(
    sides: Sequence[Variant], *, directory: Path, limit_ns: int, requests: int | None = None
) -> tuple[Count, ...]:
    """Count the instructions per request of each side; its start takes ``under`` and ``timeout_ns``.

    ``directory``: of this run, in which private ones are made and removed. ``limit_ns``: time of a side after which no
    further request is sent; the starts share it. ``requests``: of a round, as in the count that these will be compared
    with; None to choose.

    Raises CountError: a side cannot be counted, with the reason.
    """
    counters = [Callgrind for _ in sides]
    passes = _done(sides, counters, directory=directory, limit_ns=limit_ns, requests=requests)
    return tuple(one.count() for one in passes)


def with_calls(
    counts: Sequence[Count], sides: Sequence[Variant], names: Sequence[SourceNames], *, directory: Path, limit_ns: int
) -> tuple[Count, ...]:
    """The counts with the calls of Python functions, counted by further starts; without them if they cannot be.

    They explain a count, and are no part of a verdict. ``names``: of the functions of each side.
    """
    counters = [functools.partial(PythonCalls, names=one) for one in names]
    try:
        passes = _done(sides, counters, directory=directory, limit_ns=limit_ns, requests=counts[0].requests)
    except CountError:
        return tuple(counts)
    calls = [one.most_of(_function, _FUNCTIONS) for one in passes]
    return tuple(replace(one, calls=called) for one, called in zip(counts, calls, strict=True))


def _done(
    sides: Sequence[Variant],
    counters: Sequence[Callable[[Path], WorkCounter]],
    *,
    directory: Path,
    limit_ns: int,
    requests: int | None,
) -> list[Counting]:
    """The passes of all sides, each with a private directory, without warnings that the load itself has given."""
    with contextlib.ExitStack() as made, warnings.catch_warnings():
        for category in (LeftoverWarning, OpenPortWarning):
            warnings.simplefilter("ignore", category)
        counting = [one(made.enter_context(temporary_directory("count-", above=directory))) for one in counters]
        passes = [Counting(side.plan.payload, one) for side, one in zip(sides, counting, strict=True)]
        run_passes(passes, sides, limit_ns=limit_ns, requests=requests)
    return passes


def run_passes(
    passes: Sequence[Counting], sides: Sequence[Variant], *, limit_ns: int, requests: int | None = None
) -> None:
    """Start the sides together, count one after another, and end them. Raises CountError: one cannot be counted.

    All take the requests of the first, unless they are given.
    """
    began, start_s = time.monotonic(), limit_ns / 1e9 * _START_SHARE
    starts = [
        replace(side, start=functools.partial(side.start, under=one.under, timeout_ns=round(start_s * 1e9)))
        for one, side in zip(passes, sides, strict=True)
    ]
    try:
        with started_deployments(starts) as deployments:
            started_s = time.monotonic() - began
            for one, deployment in zip(passes, deployments, strict=True):
                one.run(deployment, requests, started_s=started_s, limit_s=limit_ns / 1e9)
                requests = one.requests
    except DeploymentError as error:
        tool = passes[0].tool
        late = f"the service does not start within {start_s:.0f} s under {tool}"
        why = late if time.monotonic() >= began + start_s else f"while it is counted: {error}"
        raise CountError(next(filter(None, (one.refusal for one in passes)), why)) from error


class Counting:
    """Sends the requests of one pass to a service that runs under a counter, and reads it between the rounds.

    ``requests``: of a round, once that is known. ``seconds``: that the pass took, start included.
    """

    def __init__(self, payload: Payload, counter: WorkCounter) -> None:
        self.requests: int = 0
        self.seconds: float = 0.0
        self._payload = payload
        self._counter = counter
        self._deadline = 0.0
        self._inputs = len(payload.bodies or payload.requests)
        self._rounds: list[Stretch] = []
        self._idle: list[Stretch] = []
        self._read_at = 0.0

    @property
    def under(self) -> RunUnder:
        """How the service is run."""
        return replace(self._counter.under, env={**_FIXED, **self._counter.under.env})

    @property
    def tool(self) -> str:
        """What counts."""
        return self._counter.tool

    @property
    def refusal(self) -> str:
        """Why the service cannot run under it; empty if nothing is known."""
        return self._counter.refusal()

    def run(self, deployment: Deployment, requests: int | None, *, started_s: float, limit_s: float) -> None:
        """Count a service that took so long to start, of the time limit. Raises CountError: it cannot be counted."""
        began = time.monotonic()
        self._deadline = began + limit_s - started_s
        with contextlib.suppress(TimeoutError):
            self._count(deployment, requests)
        self.seconds = started_s + time.monotonic() - began
        if len(self._rounds) < _LEAST_ROUNDS:
            done = f"{len(self._rounds)} of the {_LEAST_ROUNDS} rounds that it needs"
            raise CountError(f"the time limit of the count was over after {done}")

    def _count(self, deployment: Deployment, requests: int | None) -> None:
        """Warm up, and count rounds until they are known well enough. Raises TimeoutError: the deadline is over."""
        with contextlib.closing(_Caller(deployment, self._payload, self._deadline)) as caller:
            self._warm_up(caller, requests)
            self._counter.begin(self._deadline + _READ_S)
            self._stretch(caller, ())
            # the first is slower, since what counts translates the code of the service anew
            tried = [self._stretch(caller, (number,)) for number in spread(self._inputs, _TRIED)]
            self._idle.append(self._stretch(caller, ()))
            self.requests = requests or requests_of_round(self._inputs, max(one.reading.total for one in tried))
            self._require_time(min(one.seconds for one in tried), self.requests)
            while not is_known(self.per_request()) and self._has_time():
                self._rounds.append(self._stretch(caller, spread(self._inputs, self.requests)))
                self._require_rest()
            self._idle.append(self._stretch(caller, ()))

    def _warm_up(self, caller: _Caller, requests: int | None) -> None:
        """Send requests that are not counted, until they are enough or take long."""
        started = time.monotonic()
        numbers = itertools.cycle(spread(self._inputs, requests or min(self._inputs, _MOST_REQUESTS)))
        for sent, number in enumerate(numbers, 1):
            caller.send((number,))
            self._require_time((time.monotonic() - started) / sent, requests or 1)
            if sent == _WARM_REQUESTS or time.monotonic() - started > _WARM_S:
                return

    def count(self) -> Count:
        """What was counted, as a record."""
        rounds = self.per_request()
        known = estimated(rounds)
        return Count(
            rounds=tuple(rounds),
            low=known.low,
            high=known.high,
            requests=self.requests,
            seconds=self.seconds,
            tool=self._counter.tool,
            architecture=shown_architecture(),
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            environment=_FIXED,
            libraries=self.most_of(lambda library, _: library, _LIBRARIES),
            functions=self.most_of(_function, _FUNCTIONS),
        )

    def per_request(self) -> list[float]:
        """Instructions per request in each round; what idle processes execute is subtracted."""
        idle = self.idle_per_second()
        return [max(one.reading.total - idle * one.seconds, 0.0) / self.requests for one in self._rounds]

    def idle_per_second(self) -> float:
        """Instructions per second of idle processes."""
        return sum(one.reading.total for one in self._idle) / sum(one.seconds for one in self._idle)

    def most_of(self, name: Callable[[str, str], str], most: int) -> dict[str, float]:
        """The most instructions per request, by what a library and function make; idle processes are subtracted."""
        found: dict[str, float] = defaultdict(float)
        share = sum(one.seconds for one in self._rounds) / sum(one.seconds for one in self._idle)
        for stretches, weight in ((self._rounds, 1.0), (self._idle, -share)):
            for one in stretches:
                for (library, function), instructions in one.reading.functions.items():
                    found[name(library, function)] += weight * instructions
        requests = self.requests * len(self._rounds)
        largest = sorted(found.items(), key=lambda item: -item[1])[:most]
        return {key: value / requests for key, value in largest if value > 0}

    def _stretch(self, caller: _Caller, numbers: Sequence[int]) -> Stretch:
        """What the requests of these inputs execute; without any, what an idle moment does."""
        if numbers:
            caller.send(numbers)
        else:
            time.sleep(_IDLE_S)  # the moment that is counted
        before, reading = self._read_at, self._counter.read(self._deadline + _READ_S)
        self._read_at = reading.at
        return Stretch(reading, self._read_at - before)

    def _require_time(self, each_s: float, requests: int) -> None:
        """Raise CountError if the fewest rounds cannot end in time. ``each_s``: seconds of a request."""
        needed_s = _LEAST_ROUNDS * requests * each_s
        if time.monotonic() + needed_s > self._deadline:
            rounds = f"{_LEAST_ROUNDS} rounds of {count(requests, 'request')}"
            raise CountError(f"{rounds} take about {needed_s:.0f} s while they are counted, more than are left")

    def _require_rest(self) -> None:
        """Raise CountError if idle processes execute too much for the work of a request to show beside it."""
        counted = sum(one.reading.total for one in self._rounds)
        if self.idle_per_second() * sum(one.seconds for one in self._rounds) > _MOST_IDLE * counted:
            raise CountError(
                f"its processes execute {self.idle_per_second():,.0f} instructions per second without a request, "
                "perhaps by threads that spin while they wait; give their pool one thread"
            )

    def _has_time(self) -> bool:
        """Whether a round as long as the last one ends before the deadline."""
        longest_s = max((one.seconds for one in self._rounds), default=0.0)
        return time.monotonic() + longest_s + _IDLE_S < self._deadline


def _function(library: str, function: str) -> str:
    return f"{function} ({library})"


class Stretch(Struct, frozen=True):
    """What was counted between two looks, and the time between them."""

    reading: Reading
    seconds: float


def spread(inputs: int, requests: int) -> tuple[int, ...]:
    """The inputs of a round, by index: all of them equally often, or as many as there are requests, evenly spread."""
    if requests >= inputs:
        return tuple(number % inputs for number in range(requests))
    return tuple(number * inputs // requests for number in range(requests))


def requests_of_round(inputs: int, instructions: int) -> int:
    """Number of requests of a round, of one that executes so; machines agree on it, since no time enters."""
    wanted = min(max(_ROUND // max(instructions, 1), 1), _MOST_REQUESTS)
    wanted = 1 << (wanted.bit_length() - 1)
    return wanted if inputs >= wanted else wanted // inputs * inputs


def estimated(rounds: Sequence[float]) -> Estimate:
    """The median round and its 95 % interval by order statistics; with a few rounds it is their range."""
    ascending = sorted(rounds)
    low, high = order_bounds(len(ascending), 50.0)
    return Estimate(median(ascending), ascending[low], ascending[high])


def is_known(rounds: Sequence[float]) -> bool:
    """Whether the rounds are enough."""
    if len(rounds) < _FEWEST_ROUNDS:
        return False
    found = estimated(rounds)
    return found.high - found.low <= _EXACT * found.value


class _Caller:
    """The only caller of a pass: sends requests one after another, each as the load sends it."""

    def __init__(self, deployment: Deployment, payload: Payload, deadline: float) -> None:
        at = deployment.endpoint
        is_plain = at.remote is None and not at.polled and at.wire.protocol not in ("grpc", "client")
        self._messages = deployment.messages(payload) if is_plain else ()
        self._deployment = deployment
        self._payload = payload
        self._deadline = deadline
        self._sent = 0
        self._connections: dict[tuple[str, int], socket.socket] = {}

    def send(self, numbers: Sequence[int]) -> None:
        """Send the requests of these inputs, to the servers in turn. Raises TimeoutError: the deadline is over."""
        for number in numbers:
            try:
                status = self._answer(number) if self._messages else self._answer_to_client(number)
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException) as error:
                why = self._deployment.reason_of_failure()
                raise DeploymentError(f"{self._payload.name_of(number)} got no answer: {error}{why}") from error
            if status // 100 != 2:
                raise CountError(f"{self._payload.name_of(number)} was answered {status} while it was counted")
            self._sent += 1

    def close(self) -> None:
        """Close all connections."""
        while self._connections:
            self._connections.popitem()[1].close()

    def _answer(self, number: int) -> int:
        """The status of an answer over HTTP; the request goes out in one piece, so that servers read it as one."""
        addresses = self._deployment.addresses
        address = addresses[self._sent % len(addresses)]
        kept = self._connections.pop(address, None)
        with contextlib.ExitStack() as used:
            connection = used.enter_context(kept or socket.create_connection(address, self._left_s()))
            connection.settimeout(self._left_s())
            try:
                connection.sendall(self._messages[number])
                with contextlib.closing(http.client.HTTPResponse(connection)) as response:
                    response.begin()
                    response.read()
            except (ConnectionError, http.client.HTTPException):
                if kept is None:
                    raise
                return self._answer(number)  # the server has closed a connection that was idle
            if not response.will_close:
                used.pop_all()
                self._connections[address] = connection
            return response.status

    def _answer_to_client(self, number: int) -> int:
        """The status of an answer over another protocol."""
        import httpx

        deployment = self._deployment
        client = deployment.client_of(self._sent % len(deployment.addresses))
        try:
            return deployment.ask(client, deployment.request_of(self._payload, number), self._left_s()).status_code
        except httpx.TimeoutException:
            raise TimeoutError from None
        except httpx.HTTPError as error:
            raise ConnectionError(str(error)) from error

    def _left_s(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s
