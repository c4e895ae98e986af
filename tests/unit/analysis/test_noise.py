"""Noise advice: what is told, from which measure on, none at rest; the shares of nodes."""

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from support.each_row import each_row
from support.synthetic import MS, PROPERTY, S, even_launch, usage

from pytest_mlpatterns.analysis.health.machine import (
    Disturbance,
    busy_on_average,
    disturbance_of,
    is_disturbed,
    node_figures,
    noise_of,
    taken_excuse,
    why_busy_in,
)
from pytest_mlpatterns.records.launch import Launch, NodeFigures, NodeUsage, Taken


def noisy(*, generator_ns: int = 0, **seen: Any) -> Launch:
    """A launch of three seconds on two cores, beside which this was seen."""
    launch = even_launch()
    return structs.replace(
        launch, usage=usage(**seen), generator=structs.replace(launch.generator, cpu_ns=generator_ns)
    )


def told(*launches: Launch) -> tuple[str, ...]:
    return tuple(map(str, noise_of(launches)))


def test_launches_whose_processes_are_not_known_give_none() -> None:
    assert told(structs.replace(even_launch(), usage=None)) == ()
    assert told() == ()
    assert not is_disturbed(None, 0)


GHZ = 1_000_000_000


@each_row(
    ("seen", "said"),
    ({"others_cores": 0.9}, "other processes used 0.9 of the 2 cores while this was measured: *(--perf-against)*"),
    ({"others_cores": 3.6}, "other processes used 2.0 of the 2 cores*"),  # the system's clock is coarse
    ({"steal_cores": 0.1}, "the host gave 5.0 % of this machine's time to other machines (steal)*"),
    ({"throttled": 0.25}, "* for 25.0 % of the time (cgroup throttling)*"),
    ({"frequency_hz": (2.0 * GHZ, 3.5 * GHZ)}, "*from 2.0 to 3.5 GHz*"),
    ({"frequency_hz": (2.5 * GHZ, 2.9 * GHZ)}, ""),
)
def test_what_disturbs_is_told_with_its_size(seen: dict[str, Any], said: str) -> None:
    assert fnmatchcase("; ".join(told(noisy(**seen))), said)


@each_row(
    ("seen", "waits_ms", "tail_ms"),
    ({"others_cores": 1.2}, 8, 24),  # two time slices, and in the tail three times as long
    ({"steal_cores": 0.1}, 0, 24),
    ({"throttled": 0.3}, 0, 100),  # until the next period
)
def test_a_request_waits_for_a_core_as_long_as_it_may_take(seen: dict[str, Any], waits_ms: int, tail_ms: int) -> None:
    found = taken_excuse([noisy(**seen, machine_cores=1.9)], Taken())
    assert (found.waits_ns, found.tail_waits_ns) == (waits_ms * MS, tail_ms * MS)


def test_the_load_generator_is_none_of_the_others() -> None:
    assert told(noisy(others_cores=0.5, generator_ns=int(1.2 * S))) == ()
    assert told(noisy(others_cores=0.9, generator_ns=int(1.2 * S)))


def test_a_load_generator_that_the_others_leave_out_is_not_left_out_twice() -> None:
    """On a cluster: the nodes know which processes are generators, and most work on other machines."""
    one = noisy(others_cores=0.5, generator_ns=int(1.2 * S))
    elsewhere = structs.replace(one, usage=replace(one.usage, without_generator=True))
    assert told(one) == ()
    assert told(elsewhere)[0].startswith("other processes used 0.5 of the 2 cores")
    assert not is_disturbed(one.usage, int(1.5 * S))
    assert is_disturbed(elsewhere.usage, int(1.5 * S))


def test_on_a_machine_of_many_cores_a_single_busy_one_is_no_noise() -> None:
    assert told(noisy(others_cores=1.0, cores=64)) == ()
    assert told(noisy(others_cores=4.0, cores=64))


@each_row(
    ("others_cores", "steal", "throttled", "machine_ratio", "said"),
    (0.25, 0.0, 0.0, 0.9, None),
    (0.35, 0.0, 0.0, 0.9, "other processes used 0.3 of the 2 cores"),
    (0.35, 0.0, 0.0, 0.55, None),
    (0.35, 0.0, 0.0, 0.65, "other processes used 0.3 of the 2 cores"),
    (0.0, 0.019, 0.009, 0.0, None),
    (0.0, 0.021, 0.0, 0.0, "the host gave 2.1 % of this machine's time to other machines"),
    (0.0, 0.0, 0.011, 0.0, "a CPU limit of the container stopped it for 1.1 % of the time"),
)
def test_neighbours_take_time_from_a_third_of_a_core_a_host_from_2_percent_and_a_limit_from_1(
    others_cores: float, steal: float, throttled: float, machine_ratio: float, said: str | None
) -> None:
    """Neighbours only if few cores are idle."""
    assert why_busy_in([Disturbance(S, 2, others_cores, steal, throttled, (0, 0), machine_ratio)]) == said


def test_a_machine_is_busy_on_average_or_not_at_all() -> None:
    """One launch of four beside neighbours explains no wide interval."""
    calm, busy = noisy(), noisy(others_cores=1.2, machine_cores=1.7)
    assert busy_on_average([calm] * 3 + [busy]) is None
    found = busy_on_average([busy, busy, calm])
    assert str(found) == "other processes used 0.8 of the 2 cores"
    assert busy_on_average([]) is None


def test_launches_count_by_their_length() -> None:
    short = structs.replace(
        noisy(others_cores=2.0), window=structs.replace(even_launch().window, end_ns=even_launch().window.start_ns)
    )
    assert told(noisy(), short) == ()
    assert told(noisy(), noisy(others_cores=0.8))


def test_a_disturbance_is_of_the_window_alone() -> None:
    launch = noisy(others_cores=0.5)
    used = launch.usage
    late = np.where(used.time_ns > launch.window.end_ns, used.others_ns + 10 * S, used.others_ns)
    found = disturbance_of(replace(used, others_ns=late), launch.window, 0)
    assert found.others_cores == pytest.approx(0.5, rel=1e-6)


@each_row(
    ("others_cores", "steal_cores", "generator_ns", "expected"),
    (0.0, 0.0, 0, False),
    (0.25, 0.0, 0, False),
    (0.4, 0.0, 0, True),
    (0.4, 0.0, 40 * MS, False),
    (0.2, 0.2, 0, True),
    (0.0, 0.0, 100 * MS, False),
)
def test_a_block_is_disturbed_by_others_and_by_the_host(
    others_cores: float, steal_cores: float, generator_ns: int, expected: bool
) -> None:
    block = usage(others_cores=others_cores, steal_cores=steal_cores, seconds=-0.75)  # a quarter of a second in all
    assert block.time_ns[-1] - block.time_ns[0] == 250 * MS
    assert is_disturbed(block, generator_ns) is expected


@PROPERTY
@given(st.floats(0, 4), st.floats(0, 4))
def test_more_of_others_never_takes_the_advice_away(less: float, more: float) -> None:
    less, more = sorted((less, more))
    assert len(told(noisy(others_cores=less))) <= len(told(noisy(others_cores=more)))


def test_an_interleaved_comparison_is_not_advised_to_those_who_make_one() -> None:
    launches = [noisy(others_cores=0.9), noisy(steal_cores=0.3)]
    alone = told(*launches)
    beside = [str(one) for one in noise_of(launches, interleaved=True)]
    assert len(alone) == len(beside) == 2
    assert all("--perf-against" in sentence for sentence in alone)
    assert not any("--perf-against" in sentence for sentence in beside)
    assert beside[0].endswith("stop other programs")


def test_the_machines_busy_time_belongs_to_all_its_cores_whatever_the_quota_of_the_container() -> None:
    launch = even_launch(used=usage(1.0, 32.0, cores=2, of_machine=64))
    found = disturbance_of(launch.usage, launch.window, 0)
    assert (found.cores, found.machine_ratio) == (64, pytest.approx(0.5))


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


def test_a_node_is_described_by_its_shares_and_its_memory_in_the_launches_that_used_it() -> None:
    one, other, elsewhere = ("10.0.0.1", 0.25, 0.05), ("10.0.0.2", 0.5, 0.0), ("10.0.0.3", 0.6, 0.1)
    first, second, third = node_figures([launch_on(one, other), launch_on(elsewhere)])
    assert first == NodeFigures("10.0.0.1", 4.0, 1, pytest.approx(0.25), 100 * MIB, pytest.approx(0.05))
    assert second == NodeFigures("10.0.0.2", 4.0, 2, pytest.approx(0.5), 200 * MIB, 0.0)
    assert (third.node, third.cpu_share) == ("10.0.0.3", pytest.approx(0.6))
    assert node_figures([even_launch(used=usage()), even_launch()]) == ()


def test_several_launches_are_averaged_by_the_length_of_their_windows() -> None:
    short = launch_on(("10.0.0.1", 0.2, 0.1))
    long = launch_on(("10.0.0.1", 0.5, 0.4))
    window = short.window
    short = structs.replace(short, window=structs.replace(window, end_ns=window.start_ns + window.duration_ns // 2))
    (found,) = node_figures([short, long])
    assert found.cpu_share == pytest.approx((0.2 + 2 * 0.5) / 3, rel=1e-3)
    assert found.serve_cpu_share == pytest.approx((0.1 + 2 * 0.4) / 3, rel=1e-3)


def test_a_window_between_two_readings_takes_the_memory_of_all() -> None:
    one = launch_on(("10.0.0.1", 0.2, 0.1))
    start = int(one.usage.time_ns[0]) + 1
    (found,) = node_figures(
        [structs.replace(one, window=structs.replace(one.window, start_ns=start, end_ns=start + S // 1000))]
    )
    assert found.peak_rss_bytes == 100 * MIB
