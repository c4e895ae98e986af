"""The record of a scaling measurement, as reports see it: plain values that travel as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from pytest_mlpatterns.records.codec import Count, Record

__all__ = ["Interval", "ScaleOutRecord", "ScalingRecord", "ScalingStepRecord"]

Interval = tuple[float, float, float]
"""``(value, low, high)`` of a 95 % confidence interval."""


class ScalingStepRecord(Struct, frozen=True):
    """One number of replicas.

    Attributes:
        replicas: how many.
        concurrency: requests in flight with which NMRT is reached.
        figures: by the metric's name: ``nmrt``, ``scaling_efficiency``, and at NMRT ``asl``, ``cpu_per_request``,
            ``peak_memory`` and ``cost``; without those that are not known.
        machine_ratio: share of the machine's cores that all processes used at NMRT; None if not known.
        bound: why NMRT is only a lower bound; empty if it is known.
    """

    replicas: Count
    concurrency: float
    figures: Mapping[str, Interval]
    machine_ratio: float | None
    bound: str


class ScaleOutRecord(Struct, frozen=True):
    """One more replica, asked for under load, over all passes.

    Attributes:
        duration: from asking for it until it carries its share, in nanoseconds; None if that is not known.
        passes_ns: the same in each pass; None in a pass in which it never carried its share.
        ready_ns: mean time until it was ready; None without a pass.
        p99_before_ns: highest p99 before it was asked for; None if no request succeeded.
        p99_ns: highest p99 between asking and carrying; None if no request succeeded.
        requests: requests due between asking and carrying.
        failed: those of them that failed.
        unknown: why the time is not known; empty if it is.
    """

    duration: Interval | None
    passes_ns: tuple[int | None, ...]
    ready_ns: float | None
    p99_before_ns: float | None
    p99_ns: float | None
    requests: Count
    failed: Count
    unknown: str


class ScalingRecord(Record, frozen=True):
    """All numbers of replicas, and the universal scalability law.

    Attributes:
        steps: by number of replicas, ascending.
        law: ``contention`` and, from three numbers of replicas on, ``coherency``; empty if the law is not known.
        peak_replicas: number of replicas with the largest capacity by the law; None if each further one adds some.
        ended_by: what ended the scaling, if it was not the pattern; empty otherwise.
        scale_out: one more replica under load; None if that was not measured.
        cpus_per_replica: number of cores on which each replica ran alone; None if they shared the cores.
    """

    steps: tuple[ScalingStepRecord, ...]
    law: Mapping[str, Interval]
    peak_replicas: float | None
    ended_by: str
    scale_out: ScaleOutRecord | None = None
    cpus_per_replica: Count | None = None
