"""What is known of a Ray cluster: its nodes, where Ray Serve listens, and words that describe it as a machine. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct


class NodeFacts(Struct, frozen=True):
    """One node of a cluster."""

    node_id: str
    ip: str
    cores: float
    processor: str = ""
    architecture: str = ""
    machine: str = ""  # id of the machine since it was booted; several nodes may lie on one machine
    gpu: str = ""
    is_head: bool = False
    machine_cores: int = 0  # cores of the whole machine; 0: the node's


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """A cluster."""

    address: str
    is_own: bool
    run: str  # name of the run, with which all names of its applications and actors begin
    nodes: tuple[NodeFacts, ...]
    # host and port of the proxies of Ray Serve; an empty host stands for the address of each node
    http: tuple[str, int]
    # lets other processes of this run attach to it; empty if the cluster asks for none
    token: str = field(default="", repr=False)

    @property
    def cores(self) -> float:
        """Cores that processes on all nodes may use; nodes of one machine have no more together than it has."""
        return cores_of((node.machine, node.cores, node.machine_cores or node.cores) for node in self.nodes)


def cores_of(nodes: Iterable[tuple[str, float, float]]) -> float:
    """The sum of cores, of each node as ``(machine, its cores, most of the machine)``."""
    found: dict[str, float] = {}
    for machine, cores, most in nodes:
        found[machine] = min(most, found.get(machine, 0.0) + cores)
    return sum(found.values())


def describe(nodes: Iterable[NodeFacts]) -> str:
    """The kinds of nodes and how many there are of each, most frequent first: ``3 × AMD EPYC, 16 cores, x86_64``."""
    kinds = Counter((node.processor, node.cores, node.architecture, node.gpu) for node in nodes)
    return " + ".join(
        f"{number} × {processor}, {cores:g} {'core' if cores == 1 else 'cores'}, {architecture}"
        + (f", {gpu}" if gpu else "")
        for (processor, cores, architecture, gpu), number in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    )


class RoundTrip(Struct, frozen=True):
    """One call to the other machine."""

    sent_ns: int
    remote_ns: int  # what the other machine's clock showed
    received_ns: int

    @property
    def duration_ns(self) -> int:
        """How long it took."""
        return self.received_ns - self.sent_ns


class ClockOffset(Struct, frozen=True):
    """How far the clock of another machine is ahead of this one."""

    offset_ns: int  # other clock minus this clock
    error_ns: int

    def here(self, remote_ns: int) -> int:
        """A time of the other clock on this one."""
        return remote_ns - self.offset_ns

    def there(self, local_ns: int) -> int:
        """A time of this clock on the other one."""
        return local_ns + self.offset_ns


SAME_CLOCK = ClockOffset(0, 0)


def offset_of(trips: Sequence[RoundTrip], *, same_machine: bool = False) -> ClockOffset:
    """The offset by the call with the smallest round trip, d: its middle, with an error of at most d / 2.

    Source: D. L. Mills, Internet Time Synchronization: the Network Time Protocol, 1991 (the clock filter).

    ``same_machine``: both ends report that they run on one machine. Its processes share a clock, which the calls must
    bear out: a container can have a clock of its own.
    """
    best = min(trips, key=lambda trip: trip.duration_ns)
    middle_ns = (best.sent_ns + best.received_ns) // 2
    measured = ClockOffset(best.remote_ns - middle_ns, (best.duration_ns + 1) // 2)
    return SAME_CLOCK if same_machine and abs(measured.offset_ns) <= measured.error_ns else measured
