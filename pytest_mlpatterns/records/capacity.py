"""What was found about the capacity of a deployment: beyond its NMRT, scaled out, and while it was disturbed."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct

from pytest_mlpatterns.records.codec import Amount, Count, Record


class DuringStep(Struct, frozen=True):
    """A named step of the function beside the load, on the clock of ``time.perf_counter_ns``, as the samples.

    A step that had not ended when the load ended has the time of that.
    """

    name: str
    begin_ns: int
    end_ns: int


class StepImpact(Record, frozen=True):
    """What one step of one launch did to the requests around it.

    A request is hurt if it failed, or if its latency is above ``limit_ns``.
    """

    name: str  # of the step
    launch: Count  # number of the launch, from 1
    begin_ns: int  # time from the opening of the window to the begin of the step
    end_ns: int  # the same for its end
    # requests around the step: in flight when it began, or due from then until a second after its end, or until
    # the service was well again if that was later
    requests: Count
    hurt: Count  # requests among them that were hurt
    failed: Count  # requests among them that failed
    limit_ns: Amount | None  # latency above which a request is hurt; None if no request before the step gave one
    before_requests: Count  # requests before the step, with which it is compared
    before_ns: float | None  # the judged percentile of their latencies; None if none was answered
    # the same of the requests around the step, in which a failed one counts as infinitely slow; None if that
    # falls on a failed one
    around_ns: float | None
    worst_ns: float | None  # longest latency around the step, failed requests included; None without any request
    # time from the begin of the step until requests were answered as before it; 0 if none waited for that, None
    # if it did not happen while it was watched
    recovery_ns: float | None
    watched_ns: float  # time from the begin of the step to the next step, or to the end of the window


class LatencyMoment(Record, frozen=True):
    """The requests that were due in a short piece of a window."""

    seconds: float  # end of the piece, since the window opened
    median_ns: float | None  # median latency of those that succeeded; None if none did
    worst_ns: float | None  # longest latency of them
    failed: Count  # number of those that failed


Interval = tuple[float, float, float]  # ``(value, low, high)`` of a 95 % confidence interval


class ScalingStepRecord(Struct, frozen=True):
    """One number of replicas."""

    replicas: Count  # how many
    concurrency: float  # requests in flight with which NMRT is reached
    # by the metric's name: ``nmrt``, ``scaling_efficiency``, and at NMRT ``asl``, ``cpu_per_request``,
    # ``peak_memory`` and ``cost``; without those that are not known
    figures: Mapping[str, Interval]
    machine_ratio: float | None  # share of the machine's cores that all processes used at NMRT; None if not known
    bound: str  # why NMRT is only a lower bound; empty if it is known


class ScaleOutRecord(Struct, frozen=True):
    """One more replica, asked for under load, over all passes."""

    # from asking for it until it carries its share, in nanoseconds; None if that is not known
    duration: Interval | None
    passes_ns: tuple[int | None, ...]  # the same in each pass; None in a pass in which it never carried its share
    ready_ns: float | None  # mean time until it was ready; None without a pass
    p99_before_ns: float | None  # highest p99 before it was asked for; None if no request succeeded
    p99_ns: float | None  # highest p99 between asking and carrying; None if no request succeeded
    requests: Count  # requests due between asking and carrying
    failed: Count  # how many of them failed
    unknown: str  # why the time is not known; empty if it is


class ScalingRecord(Record, frozen=True):
    """All numbers of replicas, and the universal scalability law."""

    steps: tuple[ScalingStepRecord, ...]  # by number of replicas, ascending
    # ``contention`` and, from three numbers of replicas on, ``coherency``; empty if the law is not known
    law: Mapping[str, Interval]
    # number of replicas with the largest capacity by the law; None if each further one adds some
    peak_replicas: float | None
    ended_by: str  # what ended the scaling, if it was not the pattern; empty otherwise
    scale_out: ScaleOutRecord | None = None  # one more replica under load; None if that was not measured
    # number of cores on which each replica ran alone; None if they shared the cores
    cpus_per_replica: Count | None = None


class Behaviour(StrEnum):
    """What the goodput does beyond the NMRT; the value is the text in files."""

    SHEDS = "sheds"  # It keeps its goodput, and answers the rest with an error at once
    HOLDS = "holds"  # It keeps its goodput, and refuses little
    DEGRADES = "degrades"  # It loses a part of its goodput
    COLLAPSES = "collapses"  # It loses over half of its goodput


class OverloadStep(Struct, frozen=True):
    """One rate of arrivals. The five shares are shares of the requests that were due, and sum to 1."""

    load_ratio: float  # rate of the arrivals, as a multiple of the NMRT
    offered_rps: float  # requests that were due per second
    requests: Count  # number of requests that were due in the window of this step
    goodput_rps: float  # answers in time per second
    goodput_error_rps: float  # its standard error, by the scatter of the pieces of the window
    in_time_ratio: float  # share with a successful answer within the limit
    late_ratio: float  # share with a successful answer after it
    rejected_ratio: float  # share that the service refused (429, 503; RESOURCE_EXHAUSTED, UNAVAILABLE)
    timed_out_ratio: float  # share without an answer within the time-out
    failed_ratio: float  # share that failed in another way, such as a refused or closed connection
    p99_ns: float | None  # 99th percentile of the latency of the successful answers, as observed; None without any
    limited: str | None  # why the load generator was the limit; None if it was not
    busy: str | None  # what took time that the service needed, such as other processes; None if nothing did
    # the most frequent outcome among those that failed in another way; None without any
    failed_outcome: int | None = None


@dataclass(frozen=True, slots=True)
class Overload:
    """Goodput against offered load, up to a multiple of the NMRT and back.

    Attributes:
        nmrt_rps: the NMRT that the loads are multiples of.
        limit_ns: an answer within this time is in time.
        steps: by ascending load; the last is the peak.
        back: the end of the load after the peak, at 0.8 times the NMRT.
        recovery_ns: time from the end of the peak until requests are answered in time as before it; None if that did
            not happen within ``watched_ns``.
        watched_ns: length of the load after the peak.
        behaviour: what the goodput does.
        cut: why the load was shorter than usual; empty if it was not.
    """

    nmrt_rps: float
    limit_ns: float
    steps: tuple[OverloadStep, ...]
    back: OverloadStep
    recovery_ns: float | None
    watched_ns: float
    behaviour: Behaviour
    cut: str = ""

    @property
    def peak(self) -> OverloadStep:
        """The step with the highest load."""
        return self.steps[-1]

    def goodput_ratio(self, at: float) -> float:
        """Goodput at a load that was offered, as a share of the NMRT.

        Args:
            at: the load, as a multiple of the NMRT.

        Raises:
            ValueError: this load was not offered.
        """
        for step in self.steps:
            if abs(step.load_ratio - at) < 1e-9:
                return step.goodput_rps / self.nmrt_rps
        loads = ", ".join(f"{step.load_ratio:g}" for step in self.steps)
        raise ValueError(f"goodput_ratio({at!r}), expected one of the loads that were offered: {loads}")
