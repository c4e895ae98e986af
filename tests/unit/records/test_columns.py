"""A column of resources is declared once: whatever samples, merges or slices a record has every one of it."""

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from support.nodes import COLUMNS, reading, replica
from support.synthetic import START_NS, samples

from pytest_mlpatterns.engines.ray.cluster_monitor import usage_of
from pytest_mlpatterns.measurement.paired_blocks import BlockRecording, merge_usage
from pytest_mlpatterns.records.launch import GeneratorReport, NodeUsage, Usage, columns_of
from pytest_mlpatterns.records.samples import Window
from pytest_mlpatterns.system.process_tree import ResourceMonitor

REPORT = GeneratorReport(cpu_ns=0, wall_ns=1, completed=1, connections=1)


def filled(record: type, **others: Any) -> Any:
    """A record whose columns have two values, no two the same."""
    return record(**{one.name: np.array([n, 10 * n]) for n, one in enumerate(columns_of(record), start=1)}, **others)


def arrays_of(record: Usage | NodeUsage) -> Mapping[str, list[int]]:
    """Every column by name, those not known left out."""
    found = {one.name: getattr(record, one.name) for one in columns_of(record)}
    return {name: values.tolist() for name, values in found.items() if values is not None}


@pytest.mark.parametrize("record", [Usage, NodeUsage])
def test_every_array_of_a_record_is_a_column(record: type) -> None:
    arrays = [one.name for one in fields(record) if "NDArray" in str(one.type)]
    assert [one.name for one in columns_of(record)] == arrays


def test_a_merge_knows_every_column_that_its_blocks_know() -> None:
    node = filled(NodeUsage, node="10.0.0.1", cores=1.0, replicas=1)
    block = BlockRecording(
        samples([START_NS], 1),
        Window(START_NS, START_NS + 90),
        filled(Usage, cores=1.0, machine_cores=1, nodes=(node,)),
        REPORT,
    )
    merged = merge_usage([block, block])
    assert merged.time_ns.tolist() == [START_NS, START_NS + 90, START_NS + 180]
    for record in (merged, merged.nodes[0]):
        for number, column in enumerate(columns_of(record), start=1):
            if column.name != "time_ns":
                expected = [0, 9, 18] if column.is_counter else [1, 10, 10]
                assert arrays_of(record)[column.name] == [number * one for one in expected]


def test_what_one_block_does_not_know_is_not_known_of_all() -> None:
    used = filled(Usage, cores=1.0, machine_cores=1)
    whole = BlockRecording(samples([START_NS], 1), Window(START_NS, START_NS + 90), used, REPORT)
    merged = merge_usage([whole, structs.replace(whole, usage=replace(used, threads=None))])
    assert merged.threads is None
    assert merged.descriptors is not None


def test_every_column_has_one_value_for_each_moment_from_a_moment_on() -> None:
    used = filled(Usage, cores=1.0, machine_cores=1).since(-1)
    assert all(values == [10 * number] for number, values in enumerate(arrays_of(used).values(), start=1))


def test_the_monitor_samples_every_column() -> None:
    monitor = ResourceMonitor(lambda: [os.getpid()])
    monitor.sample()
    monitor.sample()
    found = monitor.usage()
    assert found is not None
    assert {len(values) for values in arrays_of(found).values()} == {2}


def test_the_monitor_of_a_cluster_has_every_column_that_its_nodes_read() -> None:
    columns = dict.fromkeys(COLUMNS, 7)
    found = usage_of([0, 1], [reading(1, replica(), clock_ns=at, columns=columns) for at in (0, 1)], {})
    assert found is not None
    assert [name for name, values in arrays_of(found).items() if values != [7, 7]] == ["time_ns", "others_ns"]
    assert set(arrays_of(found)) == {one.name for one in columns_of(Usage)}
