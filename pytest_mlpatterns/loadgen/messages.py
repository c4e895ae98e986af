"""Messages between pytest and the load generator: jobs, events and results.

Recorded columns travel as raw bytes. Keep this module light: the generator process imports it and must not load numpy.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct

from pytest_mlpatterns.records.addressing import Answer, Progress

if TYPE_CHECKING:
    from pytest_mlpatterns.records.launch import GeneratorReport, Warmup
    from pytest_mlpatterns.records.outcomes import FailedAnswer
    from pytest_mlpatterns.records.samples import Window
    from pytest_mlpatterns.workload.endpoint import Endpoint
    from pytest_mlpatterns.workload.figures import FigurePlan
    from pytest_mlpatterns.workload.own_client import ClientWire
    from pytest_mlpatterns.workload.schedule import Schedule
    from pytest_mlpatterns.workload.window_plan import RequestWindow, WindowPlan


class Transport(Enum):
    """Protocol of the generator's own connections."""

    HTTP1 = "HTTP/1.1"
    GRPC = "gRPC"
    THREAD = "functions in threads"
    TASK = "async functions"


class Share(Struct, frozen=True):
    """One generator's part of a load: the requests ``number``, ``number + of``, ``number + 2 of``, …

    The schedule decides when they are due. A generator that shares a load reports when it is warm, and opens its window
    at the time that the parent sets for all.
    """

    number: int = 0
    of: int = 1

    def part_of(self, whole: int) -> int:
        """Number of this generator's callers, of ``whole`` callers in all."""
        return len(range(self.number, whole, self.of))


class LoadJob(Struct, frozen=True):
    """One load to generate.

    ``endpoint`` is the target; ``messages`` are complete requests as ``transport`` has them, drawn in turn.
    ``warmup_ns`` is a fixed time, or None to let the data decide. A schedule with a length of its own fills
    the window; its warm-up is one caller. ``keep_answers`` is the largest number of responses to keep, spread over the
    window.
    ``order`` gives the indices of messages in the order in which they are drawn (unsigned 32-bit, native, begun again
    at its end); empty draws them in turn. If the endpoint is remote, a client library drives the load, and
    ``transport`` is ignored.
    ``stream`` reads answers in pieces, which costs more than finding their end.
    ``think_ns`` makes conversations of the messages: for each the time from its answer to the message after it, which
    follows it then, or -1 if it is the last one (signed 64-bit, native). ``order`` then has the first ones. Empty for
    no conversations.
    ``keep_texts`` keeps the texts of streams whose tokens the server does not report, up to a limit.
    ``window`` is given if it ends by its requests, or plans that from the answers of the warm-up; None if it lasts
    ``duration_ns``. The first request of such a window is the first of the order. One generator alone sends that load.
    ``warmup_requests`` end the warm-up in place of a time; 0 for none.
    ``stagger_ns`` is the time between the first requests of two callers of a closed loop.
    ``figures`` are read from every answer that counts; None for none.
    ``beside`` is another closed loop with which this one alternates, each in as many ``slices`` of its ``duration_ns``;
    None for none.
    """

    endpoint: Endpoint
    messages: tuple[bytes, ...]
    schedule: Schedule
    duration_ns: int
    warmup_ns: int | None
    timeout_ns: int
    keep_answers: int = 0
    order: bytes = b""
    share: Share = Share()
    stream: bool = False
    think_ns: bytes = b""
    keep_texts: bool = False
    window: RequestWindow | WindowPlan | None = None
    warmup_requests: int = 0
    stagger_ns: int = 0
    figures: FigurePlan | None = None
    beside: LoadJob | None = None
    slices: int = 1

    @property
    def keeps_answers(self) -> bool:
        """Whether answers are kept whole, for a while at least."""
        return self.keep_answers > 0 or self.figures is not None

    @property
    def most_ns(self) -> int:
        """The longest that the window can last."""
        if self.beside is not None:
            return self.slices * (self.duration_ns + self.beside.duration_ns)
        return self.duration_ns if self.window is None else max(self.duration_ns, self.window.longest_ns)

    @property
    def transport(self) -> Transport:
        """Protocol of the endpoint's wire."""
        if self.client is not None:
            return Transport.TASK if self.client.is_async else Transport.THREAD
        return Transport.GRPC if self.endpoint.wire.protocol == "grpc" else Transport.HTTP1

    @property
    def client(self) -> ClientWire | None:
        """The user's own client, which sends the requests; None if the generator or its library does."""
        wire = self.endpoint.wire
        return cast("ClientWire", wire) if wire.protocol == "client" else None

    @property
    def is_in_process(self) -> bool:
        """Whether the user's client is measured by itself, so that this process is the deployment."""
        return self.client is not None and not self.endpoint.port


class Warm(Struct, frozen=True):
    """A generator that shares a load has warmed up and waits for :class:`OpenWindow`."""


class OpenWindow(Struct, frozen=True):
    """Sent to all generators that share a load: time at which the window opens (``time.perf_counter_ns``)."""

    at_ns: int


class AddAddress(Struct, frozen=True):
    """Sent during a load: one more server, ``(host, port)``, which gets its share of the requests from now on."""

    address: tuple[str, int]


class RemoveAddress(Struct, frozen=True):
    """Sent during a load: a server, ``(host, port)``, which gets no further request from now on."""

    address: tuple[str, int]


class WindowOpened(Struct, frozen=True):
    """The warm-up is over and the measured window has begun."""

    start_ns: int


Event = WindowOpened | Progress | Warm  # What a generator reports during a job
Instruction = OpenWindow | AddAddress | RemoveAddress | str  # What a generator receives during a job; a text ends it


class LoadResult(Struct, frozen=True):
    """Result of a job: everything recorded since its start, warm-up included, and the generator's report on itself.

    ``columns`` maps the names of :class:`pytest_mlpatterns.records.samples.Samples` to raw bytes, and those of its
    streams if the job reads streams. ``failed`` has, by outcome, the first answer of the window that did not count and
    has a reason; only of a job that reads streams. ``planned`` is the window if it ended by its requests. If the load
    alternated with another one, ``slices`` are the parts of the window in which it was sent, and ``beside`` is the
    result of the other. ``figure_faults`` and ``without_figure`` are as
    :class:`pytest_mlpatterns.workload.figures.FigureReader` has them.
    """

    columns: dict[str, Any]
    window: Window
    warmup: Warmup
    generator: GeneratorReport
    answers: list[Answer]
    stopped_early: bool
    failed: dict[int, FailedAnswer] = {}
    planned: RequestWindow | None = None
    slices: tuple[Window, ...] = ()
    beside: LoadResult | None = None
    figure_faults: dict[str, str] = {}
    without_figure: dict[str, str] = {}
