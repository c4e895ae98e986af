"""What a deployment used of each node, from declared usage."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs
from support.synthetic import S, even_launch, usage

from pytest_mlpatterns.analysis.health.machine import node_figures
from pytest_mlpatterns.records.launch import Launch, NodeFigures, NodeUsage

MIB = 2**20


def launch_on(*nodes: tuple[str, float, float]) -> Launch:
    """A launch whose nodes have an address, a share of their four cores that replicas used, and one of Ray's."""
    one = even_launch(used=usage())
    time_ns = one.usage.time_ns
    elapsed = time_ns - time_ns[0]
    used = tuple(
        NodeUsage(
            node=node,
            cores=4.0,
            replicas=number + 1,
            cpu_ns=(elapsed * 4 * share).astype(np.int64),
            rss_bytes=np.full(time_ns.shape, (number + 1) * 100 * MIB, dtype=np.int64),
            serve_cpu_ns=(elapsed * 4 * of_serve).astype(np.int64),
        )
        for number, (node, share, of_serve) in enumerate(nodes)
    )
    return structs.replace(one, usage=replace(one.usage, nodes=used))


def test_a_launch_without_a_cluster_has_no_nodes() -> None:
    assert node_figures([even_launch(used=usage()), even_launch()]) == ()


def test_a_node_is_described_by_its_shares_and_its_memory() -> None:
    first, second = node_figures([launch_on(("10.0.0.1", 0.25, 0.05), ("10.0.0.2", 0.5, 0.0))])
    assert first == NodeFigures("10.0.0.1", 4.0, 1, pytest.approx(0.25), 100 * MIB, pytest.approx(0.05))
    assert second == NodeFigures("10.0.0.2", 4.0, 2, pytest.approx(0.5), 200 * MIB, 0.0)


def test_several_launches_are_averaged_by_the_length_of_their_windows() -> None:
    short = launch_on(("10.0.0.1", 0.2, 0.1))
    long = launch_on(("10.0.0.1", 0.5, 0.4))
    window = short.window
    short = structs.replace(short, window=structs.replace(window, end_ns=window.start_ns + window.duration_ns // 2))
    (found,) = node_figures([short, long])
    assert found.cpu_share == pytest.approx((0.2 + 2 * 0.5) / 3, rel=1e-3)
    assert found.serve_cpu_share == pytest.approx((0.1 + 2 * 0.4) / 3, rel=1e-3)


def test_a_node_counts_with_the_launches_that_used_it() -> None:
    there, elsewhere = launch_on(("10.0.0.1", 0.2, 0.1)), launch_on(("10.0.0.2", 0.6, 0.1))
    assert [(one.node, round(one.cpu_share, 3)) for one in node_figures([there, elsewhere])] == [
        ("10.0.0.1", 0.2),
        ("10.0.0.2", 0.6),
    ]


def test_a_window_between_two_readings_takes_the_memory_of_all() -> None:
    one = launch_on(("10.0.0.1", 0.2, 0.1))
    start = int(one.usage.time_ns[0]) + 1
    (found,) = node_figures(
        [structs.replace(one, window=structs.replace(one.window, start_ns=start, end_ns=start + S // 1000))]
    )
    assert found.peak_rss_bytes == 100 * MIB
