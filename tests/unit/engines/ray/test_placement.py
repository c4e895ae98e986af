"""Generators on nodes: spread evenly, the head last, and kept where they are while the cluster changes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from support.fake_ray import node_facts
from support.synthetic import PROPERTY

from pytest_mlpatterns.engines.ray.generator_host import place

NODES = [node_facts(number) for number in range(1, 5)]
HEAD, SECOND, THIRD, FOURTH = (node.node_id for node in NODES)


def test_the_head_comes_last_and_nodes_with_more_cores_first() -> None:
    small = node_facts(2, cores=4.0)
    assert place([], [NODES[0], small, NODES[2]], 4) == [THIRD, SECOND, HEAD, THIRD]


def test_a_cluster_of_one_node_has_all_of_them() -> None:
    assert place([], NODES[:1], 3) == [HEAD] * 3


def test_generators_keep_their_nodes_when_there_are_more_of_both() -> None:
    first = place([], NODES[:2], 2)
    assert first == [SECOND, HEAD]
    assert place(first, NODES, 4) == [SECOND, HEAD, THIRD, FOURTH]


def test_only_the_generators_of_a_node_that_is_gone_move() -> None:
    assert place([SECOND, THIRD, FOURTH, HEAD], [NODES[0], NODES[1], NODES[3]], 4) == [SECOND, SECOND, FOURTH, HEAD]


def test_fewer_generators_are_the_first_of_those_before() -> None:
    assert place([SECOND, THIRD, FOURTH], NODES, 1) == [SECOND]


@PROPERTY
@given(st.lists(st.sampled_from([node.node_id for node in NODES]), max_size=8), st.integers(1, 12), st.integers(1, 4))
def test_generators_are_as_even_as_those_that_stay_allow(placed: list[str], generators: int, nodes: int) -> None:
    found = place(placed, NODES[:nodes], generators)
    counts = Counter(found)
    assert len(found) == generators
    assert set(found) <= {node.node_id for node in NODES[:nodes]}
    kept = Counter(node for node in placed[:generators] if node in {one.node_id for one in NODES[:nodes]})
    new = [counts[node.node_id] for node in NODES[:nodes] if counts[node.node_id] > kept[node.node_id]]
    least = min(counts[node.node_id] for node in NODES[:nodes])
    assert not new or max(new) <= least + 1
