"""Generators on nodes: spread evenly, the head last, and kept where they are while the cluster changes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.fake_ray import node_facts
from support.synthetic import PROPERTY

from pytest_mlpatterns.engines.ray.cluster import NodeFacts
from pytest_mlpatterns.engines.ray.generator_host import place

NODES = [node_facts(number) for number in range(1, 5)]
HEAD, SECOND, THIRD, FOURTH = (node.node_id for node in NODES)


@each_row(
    ("placed", "nodes", "expected"),
    ([], [NODES[0], node_facts(2, cores=4.0), NODES[2]], [THIRD, SECOND, HEAD, THIRD]),
    ([], NODES[:1], [HEAD] * 3),
    ([], NODES[:2], [SECOND, HEAD]),
    ([SECOND, HEAD], NODES, [SECOND, HEAD, THIRD, FOURTH]),  # more of both: they keep their nodes
    ([SECOND, THIRD, FOURTH, HEAD], [NODES[0], NODES[1], NODES[3]], [SECOND, SECOND, FOURTH, HEAD]),  # one is gone
    ([SECOND, THIRD, FOURTH], NODES, [SECOND]),  # fewer are the first of those before
)
def test_generators_keep_their_nodes_and_new_ones_go_where_cores_are_and_to_the_head_last(
    placed: list[str], nodes: list[NodeFacts], expected: list[str]
) -> None:
    assert place(placed, nodes, len(expected)) == expected


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
