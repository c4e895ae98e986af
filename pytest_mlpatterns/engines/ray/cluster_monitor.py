"""The resource monitor of a service on a Ray cluster: begins readings on all nodes, and collects them afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pytest_mlpatterns.engines.ray.cluster import SAME_CLOCK, ClockOffset, cores_of
from pytest_mlpatterns.engines.ray.messages import NodeReading, RayApplication
from pytest_mlpatterns.engines.ray.session import RaySession
from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.records.launch import Column, NodeUsage, Source, Usage, columns_of
from pytest_mlpatterns.system.process_tree import busy_threads

MONITORS = "pytest_mlpatterns.engines.ray.remote.node_monitor:monitors"  # What asks the nodes, in the driver
_POLL_NS = 250_000_000  # Shortest time between two polls: each is a message to every node
_BEGIN_TIMEOUT_S = 5.0
"""Time limit for asking the nodes, which wait for no answer; Ray may be busy with starting workers meanwhile."""


class ClusterMonitor:
    """Samples what an application uses on all nodes.

    A driver that has ended is no error here: the statistics of the service, which every measurement asks for, report
    it.
    """

    def __init__(self, session: RaySession, application: RayApplication) -> None:
        self._session = session
        self._application = application
        self._marks_ns: list[int] = []
        self._readings: list[NodeReading] = []

    @property
    def pids(self) -> list[int]:
        """None: the processes belong to the cluster, which may be on other machines."""
        return []

    def sample(self, *, poll: bool = False) -> None:
        """Take one sample, without waiting for the nodes.

        ``poll``: it is one of many during a load; it is left out if the last sample is younger than a quarter of a
        second.
        """
        now_ns = time.perf_counter_ns()
        if poll and self._marks_ns and now_ns - self._marks_ns[-1] < _POLL_NS:
            return
        self._marks_ns.append(now_ns)
        at = self._application
        try:
            arguments = (at.run, at.app, len(self._marks_ns), not poll)
            self._session.call(f"{MONITORS}.begin_read", *arguments, timeout_s=_BEGIN_TIMEOUT_S)
        except (ChildError, TimeoutError):
            return

    def usage(self) -> Usage | None:
        """All samples so far; None if no replica was ever found."""
        at = self._application
        offsets: Mapping[str, ClockOffset] = {}
        try:
            collected: Mapping[int, tuple[NodeReading, ...]]
            collected = self._session.call(f"{MONITORS}.collect", at.run, at.app)
            self._readings += (reading for number in sorted(collected) for reading in collected[number])
            offsets = self._session.call(f"{MONITORS}.offsets", at.run)
        except (ChildError, TimeoutError):
            pass
        return usage_of(self._marks_ns, self._readings, offsets)


def usage_of(
    marks_ns: Sequence[int], readings: Iterable[NodeReading], offsets: Mapping[str, ClockOffset]
) -> Usage | None:
    """The resources that an application used, one row for each mark.

    A node is read a little after the mark, and nodes are not read at the same time. Cumulative counters are
    interpolated to the marks, by the clock of each node.

    ``marks_ns``: moments on this process's clock, ascending. Returns None if no node ever had a replica.
    """
    by_node: dict[str, list[NodeReading]] = {}
    for reading in readings:
        by_node.setdefault(reading.node, []).append(reading)
    nodes = [
        _Node(marks_ns, sorted(found, key=lambda reading: reading.clock_ns), offsets.get(node, SAME_CLOCK))
        for node, found in sorted(by_node.items())
    ]
    serving = [node for node in nodes if node.serves]
    if not serving or not marks_ns:
        return None
    names = {node.last.machine for node in serving}
    machines = [[node for node in nodes if node.last.machine == name] for name in sorted(names)]
    return Usage(
        **_columns(serving, machines),
        time_ns=np.array(marks_ns, dtype=np.int64),
        others_ns=_sum(map(_others_ns, machines)),
        cores=cores_of((node.last.machine, node.last.cores, node.last.machine_cores) for node in serving),
        machine_cores=sum(_longest(machine).last.machine_cores for machine in machines),
        busy_threads=busy_threads(_threads(serving, 0), _threads(serving, -1)),
        nodes=tuple(node.usage(name) for node, name in zip(serving, _names(serving), strict=True)),
        without_generator=True,
    )


def _columns(serving: Sequence[_Node], machines: Sequence[Sequence[_Node]]) -> dict[str, Any]:
    """The columns of the replicas and of their machines, summed; None for one that a node does not know."""
    found: dict[str, Any] = {}
    for column in columns_of(Usage):
        if column.source is not Source.OTHER:
            nodes = serving if column.source is Source.TREE else map(_longest, machines)
            values = [node.column(column) for node in nodes]
            known = [value for value in values if value is not None]
            found[column.name] = _sum(known) if len(known) == len(values) else None
    found["throttled_ns"] = _sum(map(_most_throttled, machines))
    found["frequency_hz"] //= len(machines)
    return found


class _Node(Struct, frozen=True):
    """The readings of one node, and the marks to which they are interpolated."""

    marks_ns: Sequence[int]
    readings: Sequence[NodeReading]
    offset: ClockOffset

    @property
    def last(self) -> NodeReading:
        """The last reading."""
        return self.readings[-1]

    @property
    def serves(self) -> bool:
        """Whether it ever had a replica."""
        return any(reading.replicas for reading in self.readings)

    def column(self, column: Column) -> NDArray[np.int64] | None:
        """A column, one value for each mark; None if a reading does not know it."""
        if any(_value(reading, column.name) is None for reading in self.readings):
            return None
        return self.counter(column.name) if column.is_counter else self.gauge(column.name)

    def counter(self, name: str) -> NDArray[np.int64]:
        """A cumulative counter, interpolated to the marks."""
        times, values = self._times, self._values(name)
        gained = np.interp(np.asarray(self.marks_ns, dtype=np.int64) - times[0], times - times[0], values - values[0])
        found: NDArray[np.int64] = np.rint(gained).astype(np.int64) + values[0]
        return found

    def gauge(self, name: str) -> NDArray[np.int64]:
        """A value that goes up and down, as it was first read after each mark."""
        rows = np.searchsorted(self._times, np.asarray(self.marks_ns, dtype=np.int64))
        return self._values(name)[np.minimum(rows, len(self.readings) - 1)]

    @property
    def _times(self) -> NDArray[np.int64]:
        return np.array([self.offset.here(reading.clock_ns) for reading in self.readings], dtype=np.int64)

    def _values(self, name: str) -> NDArray[np.int64]:
        return np.array([_value(reading, name) for reading in self.readings], dtype=np.int64)

    def usage(self, name: str) -> NodeUsage:
        """What it used, under this name."""
        last = self.last
        running = sum(replica.state not in ("ended", "failed") for replica in last.replicas)
        columns: dict[str, Any] = {column.name: self.column(column) for column in columns_of(NodeUsage)}
        return NodeUsage(name, last.cores, running, **columns)


def _value(reading: NodeReading, name: str) -> int | None:
    """A column of a reading, or a counter that only a node has."""
    return reading.columns[name] if name in reading.columns else getattr(reading, name)


def _sum(columns: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.sum(list(columns), axis=0, dtype=np.int64)
    return total


def _longest(machine: Sequence[_Node]) -> _Node:
    """The node of a machine that stands for its counters: the one with the most readings, since others may be lost."""
    return max(machine, key=lambda node: len(node.readings))


def _others_ns(machine: Sequence[_Node]) -> NDArray[np.int64]:
    """What is left of a machine's busy time: without the replicas, Ray and Serve, and our load generators there."""
    whole = _longest(machine)
    known = (node.counter(name) for node in machine for name in ("cpu_ns", "serve_cpu_ns", "generator_ns"))
    return whole.counter("machine_busy_ns") - whole.counter("steal_ns") - _sum(known)


def _most_throttled(machine: Sequence[_Node]) -> NDArray[np.int64]:
    """The throttled time of the node that was stopped longest; nodes of one machine can share a control group."""
    columns = [node.counter("throttled_ns") for node in machine]
    return max(columns, key=lambda column: int(column[-1] - column[0]))


def _threads(serving: Sequence[_Node], chosen: int) -> dict[int, dict[int, int]]:
    """CPU time of each thread of each process, in one of the readings that have it, by its index.

    Two nodes can have processes with the same id, so the number of the node is put before it.
    """
    found: dict[int, dict[int, int]] = {}
    for number, node in enumerate(serving):
        known = [reading for reading in node.readings if reading.threads]
        for pid, thread, used_ns in known[chosen].threads if known else ():
            found.setdefault((number << 32) + pid, {})[thread] = used_ns
    return found


def _names(nodes: Sequence[_Node]) -> list[str]:
    """The address of each node, with the beginning of its identity if several have one."""
    addresses = [node.last.ip for node in nodes]
    return [
        node.last.ip if addresses.count(node.last.ip) == 1 else f"{node.last.ip}/{node.last.node[:6]}" for node in nodes
    ]
