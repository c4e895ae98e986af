"""Bulk loads and bursts that are really sent: every input once, at the declared rates, as the service logged them."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import pytest
from support.deployed import MS, deployed
from support.project import Project
from support.repository import Repository

from pytest_mlpatterns import Batched, Bulk, Bursts, Replicated, Single
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.workload.payload import read_chunks, read_payload
from pytest_mlpatterns.workload.plan import LoadPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns import Pattern
    from pytest_mlpatterns.loadgen.generator import Generator

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
INPUTS = 2_500


class Logged:
    """Doubles numbers, and appends each with the time to the file that its input names."""

    def __call__(self, batch: list[Any]) -> list[Any]:
        now_ns = perf_counter_ns()
        with Path(batch[0]["log"]).open("a") as log:
            log.write("".join(f"{one['number']} {now_ns}\n" for one in batch))
        return [2 * one["number"] for one in batch]


def logged(path: Path) -> list[list[int]]:
    return [[int(part) for part in line.split()] for line in path.read_text().splitlines()]


def right(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    assert list(outputs) == [2 * one["number"] for one in inputs]


@pytest.mark.parametrize("pattern", [Single(), Batched(64), Replicated(2)], ids=str)
def test_a_bulk_load_sends_every_input_exactly_once(pattern: Pattern, generator: Generator, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    bulk = Bulk(chunk=200, concurrency=3)
    payload = read_chunks([{"number": number, "log": str(log)} for number in range(INPUTS)], bulk)
    plan = LoadPlan(payload, bulk.callers, 700 * MS, 0, 10_000 * MS, right, once=True)
    with deployed(pattern, Logged, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        assert runner.deployment.cold_start_ns
        log.write_text("")  # the request that showed that it is ready is not part of the load
        launch = runner.measure()

    metrics = Metrics((launch,))
    assert Counter(number for number, _ in logged(log)) == Counter(range(INPUTS))
    assert (metrics.requests, metrics.failures) == (13, {})
    time_ns, rate = metrics.bulk_time_ns, metrics.inputs_per_s
    assert time_ns is not None
    assert rate is not None
    assert rate.value == pytest.approx(INPUTS * 1e9 / time_ns.value, rel=1e-3)
    took_ns = [now_ns for _, now_ns in logged(log)]
    assert max(took_ns) - min(took_ns) <= time_ns.value


def test_a_bulk_load_that_is_smaller_than_its_callers_ends_with_its_answers(
    generator: Generator, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    payload = read_chunks([{"number": number, "log": str(log)} for number in range(3)], Bulk(2, concurrency=8))
    plan = LoadPlan(payload, Bulk(2, concurrency=8).callers, 700 * MS, 0, 10_000 * MS, right, once=True)
    with deployed(Single(), Logged, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        first, second = runner.measure(), runner.measure()
    assert [sorted(one.samples.request.tolist()) for one in (first, second)] == [[0, 1], [0, 1]]
    assert [number for number, _ in logged(log)].count(2) == 2


def test_bursts_reach_the_service_at_their_declared_rates(generator: Generator, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    bursts = Bursts(rps=40, peak=400, every="1s", length="300ms", times=3, seed=2)
    payload = read_payload([{"number": 1, "log": str(log)}])
    plan = LoadPlan(payload, bursts, bursts.length_ns, None, 10_000 * MS, right)
    with deployed(Single(), Logged, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        launch = runner.measure()

    samples, start_ns = launch.samples, launch.window.start_ns
    due_ns = sorted((samples.due_ns[samples.due_in(launch.window)] - start_ns).tolist())
    assert due_ns == list(bursts.arrivals())
    served_ns = sorted(now_ns - start_ns for _, now_ns in logged(log))
    assert (
        len(served_ns) == 1 + samples.due_ns.size
    )  # with the first answer, and the warm-up that may end in the window
    assert all(one <= other for one, other in zip(due_ns, served_ns[-len(due_ns) :], strict=True))
    assert all(later >= earlier for earlier, later in pairwise(due_ns))
    in_burst = sum(bursts.rate_at(moment) == 400 for moment in due_ns)
    assert in_burst == pytest.approx(3 * 120, abs=6 * 360**0.5)
    assert len(due_ns) - in_burst == pytest.approx(3 * 28, abs=6 * 84**0.5)


def test_a_chunk_that_fails_is_not_sent_again(generator: Generator, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    inputs = [{"number": None if number == 17 else number, "log": str(log)} for number in range(40)]
    payload = read_chunks(inputs, Bulk(5))
    plan = LoadPlan(payload, Bulk(5).callers, 700 * MS, 0, 10_000 * MS, None, once=True, overloads=True)
    with deployed(Single(), Logged, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        metrics = Metrics((runner.measure(),))

    assert (metrics.requests, metrics.failures) == (8, {500: 1})
    assert metrics.first_failure is not None
    assert metrics.first_failure.input == "perf_payload items 15 to 19"


SCORING = """
import pytest
from pytest_mlpatterns import Bulk


def double(batch):
    return [2 * value for value in batch]


@pytest.fixture
def perf_model():
    return double


@pytest.fixture
def perf_payload():
    return list(range(5_000))


def right(inputs, outputs):
    return outputs == double(inputs)


@pytest.mark.perf(load=Bulk(chunk=500), check=right, launches=1)
def test_scoring(perf):
    perf.assert_inputs_per_second_at_least(10)
    perf.assert_bulk_time_below("8min")


@pytest.mark.perf(concurrency=1, duration="200ms", launches=1)
def test_other_load(perf):
    perf.assert_bulk_time_below("8min")
"""


def test_a_test_asserts_on_a_whole_data_set_and_its_result_says_what_it_took(tmp_path: Path) -> None:
    run = Project().with_file("test_perf.py", SCORING).run(tmp_path, "--perf-json=found.json")

    assert "closed(1) does not send a data set once, so there is no total time" in run.failure("test_other_load")
    (found,) = (one for one in run.json("found.json")["results"] if "test_scoring" in one["test"])
    assert found["passed"]
    assert {"inputs", "bulk_time"} <= found["metrics"].keys()
    assert any(note.startswith("5,000 inputs in 10 chunks took ") for note in found["notes"])


BATCH = """
import time

import pytest
from pytest_mlpatterns import Bulk


def double(batch):
    time.sleep({seconds} * len(batch))
    return [2 * value for value in batch]


@pytest.fixture
def perf_model():
    return lambda batch: double(batch)


@pytest.fixture
def perf_payload():
    return list(range(500))


@pytest.mark.perf(load=Bulk(chunk=20), compare=("inputs",))
def test_batch(perf):
    pass
"""


def test_a_batch_job_that_gets_slower_is_a_regression_of_its_revision(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    repository.commit({"pytest.ini": "[pytest]\n", "test_perf.py": BATCH.format(seconds=0.0005)})

    slower = Project().with_file("test_perf.py", BATCH.format(seconds=0.001))
    run = slower.run(repository.top, "--perf-against=main")

    assert run.exit_code == 1, run.out
    assert "RegressionFailure: inputs per second" in run.failure("test_batch")
