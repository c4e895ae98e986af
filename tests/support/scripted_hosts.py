"""What the Ray driver answers about hosts of load generators, from a script: no processes, and declared clocks."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_mlpatterns.engines.ray.cluster import ClockOffset
from pytest_mlpatterns.engines.ray.messages import Heard, HostFacts
from pytest_mlpatterns.loadgen.messages import LoadJob


def host_facts(number: int = 2, *, offset_ns: int = 0, error_ns: int = 0, **changes: Any) -> HostFacts:
    """The host on a node of a machine of its own."""
    values = {
        "node": f"10.0.0.{number}",
        "machine": f"machine-{number}",
        "clock": ClockOffset(offset_ns, error_ns),
        "allowed_connections": 1000,
    }
    return HostFacts(**{**values, **changes})


@dataclass
class ScriptedHosts:
    """Functions of the driver for :class:`support.fake_ray.FakeRay`, and what they were called with."""

    facts: tuple[HostFacts, ...]  # of the host of each generator
    staged: list[tuple[bytes, ...]] = field(default_factory=list)  # messages in the object store
    jobs: list[tuple[int, int, LoadJob]] = field(default_factory=list)  # key, number and job
    sent: list[tuple[int, object]] = field(default_factory=list)  # key and message
    stopped: list[int] = field(default_factory=list)  # keys
    asked: Counter[str] = field(default_factory=Counter)
    on_load: Callable[[int], list[object]] = lambda _key: []  # what a process sends when it gets a job
    on_send: Callable[[int, object], list[object]] = lambda _key, _message: []
    stopped_text: str = ""  # answer to the question who is stopped
    _heard: list[Heard] = field(default_factory=list)
    _count: int = 0

    @property
    def functions(self) -> Mapping[str, Callable[..., object]]:
        return {
            "open_hosts": lambda processes: self.facts[:processes],
            "stage": self.staged.append,
            "load": self._load,
            "send": self._send,
            "collect": self._collect,
            "why_stopped": self._why_stopped,
            "close_channel": lambda _key: None,
            "stop": self.stopped.append,
            "ceilings_rps": self._ceilings_rps,
            "library_overhead_ns": lambda: 27_000.0,
        }

    def hear(self, key: int, *messages: object) -> None:
        """A process sends these."""
        for message in messages:
            self._count += 1
            self._heard.append(Heard(self._count, key, message))

    def _load(self, key: int, number: int, job: LoadJob) -> None:
        self.jobs.append((key, number, job))
        self.hear(key, *self.on_load(key))

    def _send(self, key: int, message: object) -> None:
        self.sent.append((key, message))
        self.hear(key, *self.on_send(key, message))

    def _collect(self, after: int, _timeout_s: float) -> tuple[Heard, ...]:
        self.asked["collect"] += 1
        self._heard = [heard for heard in self._heard if heard.number > after]
        return tuple(self._heard)

    def _why_stopped(self, _key: int) -> str:
        self.asked["why_stopped"] += 1
        return self.stopped_text

    def _ceilings_rps(self, _transport: object, processes: int) -> tuple[float, ...]:
        self.asked["ceilings_rps"] += 1
        return tuple(1000.0 * (number + 1) for number in range(processes))
