"""The cores of a cluster whose nodes share machines."""

from dataclasses import replace

from support.each_row import each_row
from support.fake_ray import cluster_facts, node_facts


@each_row(
    ("cores", "machine_cores", "expected"),
    (16.0, 16, 16.0),  # two nodes of a test, which see the whole machine
    (4.0, 16, 8.0),  # two containers with a limit
    (12.0, 16, 16.0),  # two that may use more than there is
    (16.0, 0, 16.0),  # it is not known what the machine has
)
def test_nodes_of_one_machine_have_no_more_cores_than_it_has(cores: float, machine_cores: int, expected: float) -> None:
    same = [node_facts(number, machine="same", cores=cores, machine_cores=machine_cores) for number in (1, 2)]
    apart = node_facts(3, cores=8.0, machine_cores=8)
    assert replace(cluster_facts(), nodes=(*same, apart)).cores == expected + 8
