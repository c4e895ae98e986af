"""Replicas over time: what they counted together, who took whose place, and the sentences when they end."""

from support.each_row import each_row
from support.nodes import counted, reading, replica

from pytest_mlpatterns.engines.ray.cluster import ClockOffset
from pytest_mlpatterns.engines.ray.messages import NodeReading, ReplicaState, ReplicaStats
from pytest_mlpatterns.engines.ray.processes import ReplicaRecords
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.serving.processes import Unusable

READY, ENDED, FAILED, LOADING = ReplicaState.READY, ReplicaState.ENDED, ReplicaState.FAILED, ReplicaState.LOADING


def records(*readings: NodeReading, restarts: tuple[str, ...] = ()) -> ReplicaRecords:
    """A records of a complete application that was read once."""
    made = ReplicaRecords(restarts)
    made.take(readings, {})
    made.complete()
    return made


def worker(name: str, requests: int = 0, state: ReplicaState = READY) -> ReplicaStats:
    return replica(name, state, role="worker", deployment="d1", position=1, stats=counted(requests))


def test_requests_are_those_of_each_replica_and_layers_are_added_up() -> None:
    layers = [LayerStats(0, "batched", {"calls": calls}, {"size": {4: calls}}) for calls in (2, 3)]
    one, two = (
        replica(name, stats=counted(10 * of.counters["calls"], of)) for name, of in zip("ab", layers, strict=True)
    )
    found = records(reading(1, one), reading(2, two)).stats()
    assert found.replica_requests == (20, 30)
    assert found.layers == (LayerStats(0, "batched", {"calls": 5}, {"size": {4: 5}}, {}),)
    assert found.replaced == 0


def test_the_outermost_group_of_several_processes_is_the_one_whose_requests_are_told() -> None:
    ingress = replica("a", role="service", deployment="d1", stats=counted(30))
    members = [replica(name, role="replica", position=1, stats=counted(15)) for name in "bc"]
    assert records(reading(1, *members, ingress)).stats().replica_requests == (15, 15)
    assert records(reading(1, ingress)).stats().replica_requests == (30,)
    assert records(reading(1)).stats().replica_requests == ()


def test_tracebacks_are_told_once() -> None:
    replicas = [replica(name, stats=counted(1, tracebacks=("first", name))) for name in "ab"]
    assert records(reading(1, *replicas)).stats().tracebacks == ("first", "a", "b")


def test_times_of_a_series_are_on_this_clock() -> None:
    layer = LayerStats(0, "queued", series={"depth": ((100, 1), (200, 0))})
    made = ReplicaRecords()
    read = reading(1, replica(stats=counted(1, layer)))
    made.take([read], {read.node: ClockOffset(70, 1)})
    assert made.stats().layers[0].series == {"depth": ((30, 1), (130, 0))}


def test_counts_of_a_replica_stay_when_a_reading_has_none() -> None:
    made = records(reading(1, replica(stats=counted(7))))
    made.take([reading(1, replica(stats=None))], {})
    assert made.stats().replica_requests == (7,)


def test_an_ended_replica_fails_the_service() -> None:
    made = records(reading(3, replica("a"), replica("b"), replica("c")))
    assert made.failure() == ""
    made.take([reading(3, replica("a"), replica("b", ENDED), replica("c"), replica("d", LOADING))], {})
    assert made.failure() == (
        "replica 2 of 3 (process 98 on node 10.0.0.3) ended; Ray Serve starts another, but what was measured is not "
        "what was asked for"
    )
    made.take([reading(3, replica("a"), replica("b", ENDED), replica("c"), replica("d"))], {})
    assert made.failure().startswith("replica 2 of 3 (process 98 on node 10.0.0.3) ended; ")


def test_a_single_replica_is_named_by_its_role() -> None:
    made = records(reading(1, replica(role="service")))
    made.take([reading(1, replica("a", ENDED, role="service"))], {})
    assert made.failure().startswith("service (process 97 on node 10.0.0.1) ended; ")


def test_a_node_that_does_not_answer_is_gone_with_its_replicas() -> None:
    made = records(reading(1, replica("a")), reading(2, replica("b"), replica("c")), reading(3, replica("d")))
    made.take([reading(1, replica("a"))], {})
    assert made.failure() == (
        "node 10.0.0.2 of the Ray cluster is gone, with 2 replicas of this service; "
        "node 10.0.0.3 of the Ray cluster is gone, with 1 replica of this service"
    )


def test_a_node_that_answers_again_was_not_gone() -> None:
    made = records(reading(1, replica("a")))
    made.take([], {})
    assert made.failure()
    made.take([reading(1, replica("a"))], {})
    assert made.failure() == ""


def test_a_queue_worker_is_replaced_and_its_counts_stay() -> None:
    made = records(reading(1, worker("a", 5), worker("b", 6)), restarts=("d1",))
    before = made.stats()
    made.take([reading(1, worker("a", 5, ENDED), worker("b", 8))], {})
    assert (made.failure(), made.stats().replaced) == ("", 1)
    assert made.stats().replica_requests == (5, 8)
    made.take([reading(1, worker("a", 5, ENDED), worker("b", 9)), reading(2, worker("c", 4))], {})
    now = made.stats()
    assert now.replica_requests == (9, 9)
    assert now.since(before).replica_requests == (4, 3)
    assert now.since(before).replaced == 1


def test_queue_workers_of_a_lost_node_are_replaced_too() -> None:
    made = records(reading(1, worker("a", 5)), reading(2, worker("b", 6)), restarts=("d1",))
    made.take([reading(1, worker("a", 7), worker("c", 1))], {})
    assert made.failure() == ""
    assert (made.stats().replica_requests, made.stats().replaced) == ((7, 7), 1)


def test_a_replacement_that_comes_before_the_end_is_known_makes_no_new_place() -> None:
    made = records(reading(1, worker("a", 5), worker("b", 6)), restarts=("d1",))
    made.take([reading(1, worker("a", 5), worker("b", 6), worker("c", 1))], {})
    assert made.stats().replica_requests == (5, 7)


def test_a_queue_worker_that_keeps_dying_fails_the_service() -> None:
    made = records(reading(1, worker("a"), worker("z")), restarts=("d1",))
    dead: list[ReplicaStats] = []
    for name in "abcd":
        made.take([reading(1, *dead, worker(name), worker("z"))], {})
        assert made.failure() == ""
        dead.append(worker(name, state=ENDED))
    made.take([reading(1, *dead, worker("z"))], {})
    assert made.failure() == "worker 1 of 2 (replacement 3 of 3): process 100 on node 10.0.0.1 ended"


@each_row(
    ("broken", "said"),
    (replica(text="does not respond; is it?"), "replica (process 97 on node 10.0.0.1) does not respond; is it?"),
    (replica("a", FAILED, text="Traceback"), "replica (process 97 on node 10.0.0.1) failed to load:\nTraceback"),
    (
        replica("a", FAILED, reason=Unusable("is no model")),
        "replica (process 97 on node 10.0.0.1) failed to load:\nis no model",
    ),
)
def test_what_a_running_replica_suffers_from_is_told(broken: ReplicaStats, said: str) -> None:
    assert records(reading(1, broken)).failure() == said


def test_replicas_are_found_by_their_state() -> None:
    made = records(reading(1, replica("a"), replica("b", LOADING)), reading(2, replica("c")))
    assert [one.stats.replica for one in made.in_state(READY)] == ["a", "c"]
    made.take([reading(1, replica("a"), replica("b"))], {})
    assert [one.stats.replica for one in made.in_state(READY)] == ["a", "b"]
    assert made.in_state(LOADING) == []
