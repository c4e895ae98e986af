"""The cluster of a test, and what it says when nodes come and go."""

from dataclasses import replace

import pytest
from support.each_row import each_row
from support.fake_ray import FakeRay, cluster_facts

from pytest_mlpatterns.engines.ray.cluster import ClusterFacts
from pytest_mlpatterns.engines.ray.session import ClusterUse
from pytest_mlpatterns.errors import ChildError, DeploymentError, MlpatternsError


def used(*answers: frozenset[str] | Exception, is_own: bool = False) -> ClusterUse:
    """A cluster of three nodes that answers so when it is asked for its nodes."""
    rest = list(answers)

    def alive_nodes() -> frozenset[str]:
        answer = rest.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    session = FakeRay({"alive_nodes": alive_nodes}, replace(cluster_facts(3), is_own=is_own))
    return ClusterUse(session)  # type: ignore[arg-type]


ABC = frozenset("abc")


@each_row(
    ("now", "what"),
    (frozenset("abcd"), "gained 1 node"),
    (frozenset("a"), "lost 2 nodes"),
    (frozenset("abd"), "lost 1 node and gained 1 node"),
)
def test_a_cluster_that_changed_says_what_it_lost_and_gained(now: frozenset[str], what: str) -> None:
    change = used(ABC, now).change()
    assert str(change) == f"the Ray cluster {what} while this was measured: run it again when its nodes stay"


@pytest.mark.parametrize("now", [ABC, ChildError("the Ray driver, process 7, ended"), TimeoutError("no result")])
def test_a_cluster_that_stayed_or_does_not_answer_says_nothing(now: frozenset[str] | Exception) -> None:
    assert used(ABC, now).change() is None


def test_a_ray_of_this_runs_own_is_not_asked() -> None:
    cluster = used(is_own=True)
    assert cluster.change() is None
    assert cluster.description == "3 × AMD EPYC 7B13, 16 cores, x86_64"


def test_a_cluster_that_cannot_be_reached_is_an_error() -> None:
    class Unreachable(FakeRay):
        @property
        def cluster(self) -> ClusterFacts:  # type: ignore[override]
            raise DeploymentError("Ray did not start")

    with pytest.raises(MlpatternsError, match="did not start"):
        ClusterUse(Unreachable())  # type: ignore[arg-type]
