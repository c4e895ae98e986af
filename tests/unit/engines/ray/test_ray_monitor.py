"""The monitor of a cluster: when it asks the nodes, and that it survives the end of the driver."""

from typing import Any

import pytest
from support.fake_ray import FakeRay
from support.nodes import APPLICATION, reading, replica
from support.synthetic import S

from pytest_mlpatterns.engines.ray import cluster_monitor
from pytest_mlpatterns.engines.ray.cluster import ClockOffset
from pytest_mlpatterns.engines.ray.cluster_monitor import ClusterMonitor
from pytest_mlpatterns.errors import ChildError


class Nodes:
    """A node whose replica uses a core; its clock is ahead."""

    ahead_ns = 500 * S

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 10 * S
        self.begun: dict[int, Any] = {}
        self.with_threads: list[bool] = []
        self.session = FakeRay({"begin_read": self.begin, "collect": self.collect, "offsets": self.offsets})
        monkeypatch.setattr(cluster_monitor.time, "perf_counter_ns", lambda: self.now_ns)

    def begin(self, run: str, app: str, number: int, threads: bool) -> None:
        assert (run, app) == (APPLICATION.run, APPLICATION.app)
        self.with_threads.append(threads)
        self.begun[number] = (reading(1, replica(), clock_ns=self.now_ns + self.ahead_ns, cpu_ns=self.now_ns - 10 * S),)

    def collect(self, run: str, app: str) -> dict[int, Any]:
        found, self.begun = self.begun, {}
        return found

    def offsets(self, run: str) -> dict[str, ClockOffset]:
        return {reading(1).node: ClockOffset(self.ahead_ns, 1)}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    return Nodes(monkeypatch)


def monitor(nodes: Nodes) -> ClusterMonitor:
    session: Any = nodes.session
    return ClusterMonitor(session, APPLICATION)


def test_each_sample_is_a_row_and_collected_once(nodes: Nodes) -> None:
    made = monitor(nodes)
    for second in (10, 11, 13):
        nodes.now_ns = second * S
        made.sample()
    found = made.usage()
    assert found.time_ns.tolist() == [10 * S, 11 * S, 13 * S]
    assert found.cpu_ns.tolist() == [0, S, 3 * S]
    nodes.now_ns = 14 * S
    made.sample()
    found = made.usage()
    assert found.cpu_ns.tolist() == [0, S, 3 * S, 4 * S]
    assert nodes.with_threads == [True] * 4
    assert made.pids == []


def test_a_poll_soon_after_a_sample_is_left_out_and_reads_no_threads(nodes: Nodes) -> None:
    made = monitor(nodes)
    made.sample(poll=True)
    nodes.now_ns += S // 10
    made.sample(poll=True)
    made.sample()
    nodes.now_ns += S // 4
    made.sample(poll=True)
    assert nodes.with_threads == [False, True, False]


def test_without_a_sample_or_a_replica_there_is_no_usage(nodes: Nodes) -> None:
    assert monitor(nodes).usage() is None


@pytest.mark.parametrize("error", [ChildError("process 5 ended"), TimeoutError()])
def test_a_driver_that_is_gone_is_left_to_the_statistics(nodes: Nodes, error: Exception) -> None:
    made = monitor(nodes)
    made.sample()
    assert made.usage() is not None

    def gone(*_: object) -> None:
        raise error

    nodes.session.functions = dict.fromkeys(("begin_read", "collect", "offsets"), gone)
    nodes.now_ns += S
    made.sample()
    found = made.usage()
    assert found.time_ns.size == 2
