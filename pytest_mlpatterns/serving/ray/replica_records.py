"""The replicas of an application over time: what they counted, those that ended included, and what went wrong. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.telemetry import PatternStats, merged_layers
from pytest_mlpatterns.serving.ray.messages import ReplicaState
from pytest_mlpatterns.system.ray.clock import SAME_CLOCK
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from pytest_mlpatterns.records.telemetry import LayerStats
    from pytest_mlpatterns.serving.ray.messages import NodeReading, ReplicaStats
    from pytest_mlpatterns.system.ray.clock import ClockOffset

__all__ = ["MAX_REPLACEMENTS", "KnownReplica", "ReplicaRecords"]

MAX_REPLACEMENTS = 3
"""Restart limit of a place. A process that keeps dying is assumed to be killed by its requests, as on one machine."""


@dataclass(slots=True)
class KnownReplica:
    """A replica as it was last seen.

    Attributes:
        stats: what its node reported last; its counts are those of the last reading that had them.
        ip: address of its node.
        offset: of the clock of its node.
        lost: its node no longer answers.
    """

    stats: ReplicaStats
    ip: str
    offset: ClockOffset = SAME_CLOCK
    lost: bool = False

    @property
    def where(self) -> str:
        """Its process and node, as messages name them."""
        return f"process {self.stats.pid} on node {self.ip}"

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended, as far as is known."""
        return self.lost or self.stats.state is ReplicaState.ENDED

    def update(self, stats: ReplicaStats) -> None:
        """Take a later reading."""
        self.stats = stats if stats.stats is not None else replace(stats, stats=self.stats.stats)
        self.lost = False

    def layers(self) -> Iterator[LayerStats]:
        """What its layers counted, on this machine's clock."""
        for layer in self.stats.stats.layers if self.stats.stats is not None else ():
            series = {
                name: tuple((self.offset.here(time_ns), value) for time_ns, value in moments)
                for name, moments in layer.series.items()
            }
            yield replace(layer, series=series)


@dataclass(slots=True)
class _Group:
    """The replicas of one deployment by the places that they take: the last of each place runs, or has just ended."""

    places: list[list[KnownReplica]] = field(default_factory=list)

    def add(self, new: KnownReplica, *, complete: bool) -> None:
        """A new replica takes the place of one that has ended; ``complete``: there are no further places."""
        for place in self.places:
            if place[-1].has_ended:
                place.append(new)
                return
        if complete and self.places:
            self.places[-1].append(new)  # its predecessor has ended, and that is not known yet
        else:
            self.places.append([new])

    @property
    def ended(self) -> int:
        """Number of replicas that have ended."""
        return sum(one.has_ended for place in self.places for one in place)


class ReplicaRecords:
    """Keeps what is known of each replica.

    Args:
        restarts: names of the deployments whose replicas are replaced when they die, and the service goes on.
    """

    def __init__(self, restarts: Collection[str] = ()) -> None:
        self._restarts = restarts
        self._known: dict[str, KnownReplica] = {}
        self._groups: dict[str, _Group] = {}
        self._complete = False

    def take(self, readings: Iterable[NodeReading], offsets: Mapping[str, ClockOffset]) -> None:
        """Take a reading of all nodes that answered; replicas on the others are lost."""
        present = set()
        for reading in readings:
            for stats in reading.replicas:
                present.add(stats.replica)
                if (known := self._known.get(stats.replica)) is not None:
                    known.update(stats)
                    continue
                new = KnownReplica(stats, reading.ip, offsets.get(reading.node, SAME_CLOCK))
                self._known[stats.replica] = new
                self._groups.setdefault(stats.deployment, _Group()).add(new, complete=self._complete)
        for replica, known in self._known.items():
            known.lost = replica not in present

    def complete(self) -> None:
        """All replicas are there: later ones take the places of these."""
        self._complete = True

    def in_state(self, state: ReplicaState) -> list[KnownReplica]:
        """The replicas in this state, in the order in which they were first seen."""
        return [one for one in self._known.values() if one.stats.state is state and not one.lost]

    def failure(self) -> str:
        """What went wrong, as a sentence without a period; empty if nothing did."""
        return self._lost() or next(self._failures(), "")

    def stats(self) -> PatternStats:
        """Statistics of all replicas since the start, as those of a local deployment."""
        groups: dict[tuple[int, str], list[int]] = {}
        for place in sorted(self._places(), key=lambda place: place[0].stats.position):
            first = place[0].stats
            groups.setdefault((first.position, first.role), []).append(sum(map(_requests, place)))
        several = next((counts for counts in groups.values() if len(counts) > 1), None)
        return PatternStats(
            replica_requests=tuple(several or next(iter(groups.values()), ())),
            tracebacks=tuple(dict.fromkeys(text for one in self._known.values() for text in _tracebacks(one))),
            layers=merged_layers(layer for one in self._known.values() for layer in one.layers()),
            replaced=sum(group.ended for name, group in self._groups.items() if name in self._restarts),
        )

    def _places(self) -> Iterator[list[KnownReplica]]:
        for group in self._groups.values():
            yield from group.places

    def _lost(self) -> str:
        """The nodes that are gone with replicas that nothing replaces."""
        lost = Counter(
            one.ip for one in self._known.values() if one.lost and one.stats.deployment not in self._restarts
        )
        return "; ".join(
            f"node {ip} of the Ray cluster is gone, with {count(number, 'replica')} of this service"
            for ip, number in sorted(lost.items())
        )

    def _failures(self) -> Iterator[str]:
        for name, group in self._groups.items():
            for number, place in enumerate(group.places, 1):
                yield from self._failures_of(place, name, f"{number} of {len(group.places)}")

    def _failures_of(self, place: Sequence[KnownReplica], deployment: str, number: str) -> Iterator[str]:
        last = place[-1]
        role = last.stats.role if number.endswith(" of 1") else f"{last.stats.role} {number}"
        if deployment in self._restarts:
            if sum(one.has_ended for one in place) > MAX_REPLACEMENTS:
                yield f"{role} (replacement {MAX_REPLACEMENTS} of {MAX_REPLACEMENTS}): {last.where} ended"
        else:
            for one in place:
                if one.has_ended:
                    yield (
                        f"{role} ({one.where}) ended; Ray Serve starts another, but what was measured is not what was "
                        "asked for"
                    )
        if last.stats.state is ReplicaState.FAILED:
            yield f"{role} ({last.where}) failed to load:\n{last.stats.reason or last.stats.text}"
        elif last.stats.state is ReplicaState.READY and last.stats.text and not last.lost:
            yield f"{role} ({last.where}) {last.stats.text}"


def _requests(replica: KnownReplica) -> int:
    return 0 if replica.stats.stats is None else replica.stats.stats.predict_requests


def _tracebacks(replica: KnownReplica) -> tuple[str, ...]:
    return () if replica.stats.stats is None else replica.stats.stats.tracebacks
