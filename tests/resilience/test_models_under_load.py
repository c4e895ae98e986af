"""Several models in one process and shadows, under load: as theory says, as was built in, and when something dies."""

from __future__ import annotations

import random
import sys
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from support.deployed import CALLERS, MS, Checked, Killer, callers_for, deployed
from support.project import Project
from support.repository import Repository

from pytest_mlpatterns import Batched, DeploymentError, InOrder, MultiModel, Replicated, Shadowed
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_mlpatterns import Pattern
    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.records.telemetry import LayerStats

pytestmark = pytest.mark.processes

HERE = sys.modules[__name__]
NAMES = "abcdef"


class Tenant:
    """A model that takes some milliseconds to load and answers with its name, which is another one after its end."""

    def __init__(self, name: str, load_ms: int = 1) -> None:
        time.sleep(load_ms / 1e3)
        self.name = name

    def __call__(self, batch: list[Any]) -> list[Any]:
        return [f"{self.name}{one['at']}" for one in batch]

    def close(self) -> None:
        self.name = "closed"


class AwaitedTenant(Tenant):
    async def __call__(self, batch: list[Any]) -> list[Any]:  # type: ignore[override]
        return super().__call__(batch)


class Speaker(Tenant):
    """Answers with its name and the number of the input, each a chunk; as a shadow, in one."""

    def __call__(self, batch: list[Any]) -> Any:
        (one,) = batch
        yield from (self.name, str(one["at"]))


class Broken:
    def __init__(self) -> None:
        raise OSError("no weights")

    def __call__(self, batch: list[Any]) -> list[Any]:
        return batch


def tenants(number: int, kind: type = Tenant, **arguments: Any) -> dict[str, Any]:
    return {name: partial(kind, name, **arguments) for name in NAMES[:number]}


def for_names(names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"model": name, "at": at} for at, name in enumerate(names)]


def answer_of(one: Any) -> str:
    return f"{one['model']}{one['at']}"


def one_layer(runner: LaunchRunner, name: str) -> LayerStats:
    """What a layer counted since the start: no edge of a window cuts a request."""
    (layer,) = runner.deployment.stats().layers_named(name)
    return layer


def misses(drawn: Sequence[str], size: int) -> int:
    held: OrderedDict[str, None] = OrderedDict()
    missed = 0
    for one in drawn:
        missed += one not in held
        held[one] = None
        held.move_to_end(one)
        if len(held) > size:
            held.popitem(last=False)
    return missed


class TestMultiModel:
    @pytest.mark.parametrize(("order", "share"), [("uniform", 0.5), ("cyclic", 1.0)])
    def test_one_caller_finds_as_many_models_loaded_as_theory_says(
        self, generator: Generator, tmp_path: Path, order: str, share: float
    ) -> None:
        """An LRU of k among n models: k/n of even draws are hits, and none of models in turn."""
        names = random.Random(5).choices(NAMES[:4], k=2000) if order == "uniform" else list(NAMES[:4])
        payload = read_payload(InOrder(for_names(names)))
        plan = LoadPlan(payload, ClosedLoop(1), 2000 * MS, 100 * MS, 10_000 * MS, Checked(answer_of))
        pattern = MultiModel(tenants(4), max_loaded=2)
        with deployed(pattern, None, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
            metrics = Metrics((runner.measure(),))
            layer = one_layer(runner, "multimodel")
        warm, cold = layer.counters.get("warm", 0), layer.counters["cold"]
        asked = [names[number % len(names)] for number in range(warm + cold - 1)]
        drawn = [names[0], *asked]  # the first one asked whether the service is ready
        assert cold == pytest.approx(misses(drawn, 2), abs=2)
        measured = metrics.figure("cold_hit_share")
        assert measured is not None
        assert measured.value == pytest.approx(share, abs=0.03 + 2 / (warm + cold) ** 0.5)

    @pytest.mark.parametrize("kind", [Tenant, AwaitedTenant])
    @pytest.mark.parametrize("before", [None, Batched(max_batch_size=4), Replicated(2)], ids=str)
    def test_many_callers_of_many_models_get_the_right_answers(
        self, generator: Generator, tmp_path: Path, kind: type, before: Pattern | None
    ) -> None:
        check = Checked(answer_of)
        plan = callers_for(for_names(random.Random(7).choices(NAMES, k=500)), 2000, check)
        pattern: Pattern = MultiModel(tenants(6, kind, load_ms=3), max_loaded=2)
        if before is not None:
            pattern = before | pattern
        with deployed(pattern, None, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
            metrics = Metrics((runner.measure(),))
            layer = one_layer(runner, "multimodel")
        assert metrics.failures == {}
        assert check.seen
        loads, cold = sum(layer.histograms["load_ns"].values()), layer.counters["cold"]
        assert 0 < loads <= cold  # several requests may wait for one load
        load = metrics.figure("model_load")
        assert load is not None
        assert load.value >= 3 * MS
        assert max(value for _, value in layer.series["loaded"]) <= 2

    def test_a_model_that_cannot_be_loaded_fails_its_requests_only(self, generator: Generator, tmp_path: Path) -> None:
        check = Checked(answer_of)
        names = ["a", "b", "x", "a"]
        plan = callers_for(for_names(names * 25), 2000, check)
        pattern = MultiModel({**tenants(2), "x": Broken}, max_loaded=2)
        with deployed(pattern, None, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
            metrics = Metrics((runner.measure(),))
            layer = one_layer(runner, "multimodel")
        assert set(metrics.failures) == {500}
        edges = CALLERS / metrics.requests
        assert metrics.failures[500] / metrics.requests == pytest.approx(0.25, abs=0.02 + edges)
        assert check.seen
        assert layer.counters["load_failed"] >= 1

    def test_a_process_that_is_killed_ends_the_measurement_and_is_named(
        self, generator: Generator, tmp_path: Path
    ) -> None:
        killer = Killer("service")
        plan = callers_for(for_names(NAMES), 1000)
        pattern = MultiModel(tenants(6), max_loaded=2)
        with (
            deployed(
                pattern, None, plan, module=HERE, generator=generator, directory=tmp_path, on_progress=killer
            ) as runner,
            pytest.raises(DeploymentError, match=r"service: process \d+ ended with signal SIGKILL"),
        ):
            runner.measure()
        assert killer.killed is not None


def tenfold(one: Any) -> Any:
    return 10 * one


class Live:
    def __call__(self, batch: list[Any]) -> list[Any]:
        time.sleep(0.002)
        return [10 * one for one in batch]


class WrongForFifths(Live):
    def __call__(self, batch: list[Any]) -> list[Any]:
        return [10 * one + (one % 5 == 0) for one in batch]


class Slow(Live):
    def __call__(self, batch: list[Any]) -> list[Any]:
        time.sleep(0.1)
        return super().__call__(batch)


class TestShadowed:
    @pytest.mark.parametrize("processes", [False, True])
    @pytest.mark.parametrize("share", [1.0, 0.3])
    def test_the_agreement_is_that_of_the_models_and_the_share_that_of_the_choice(
        self, generator: Generator, tmp_path: Path, processes: bool, share: float
    ) -> None:
        check = Checked(tenfold)
        inputs = random.Random(3).sample(range(1000), 1000)
        pattern = Shadowed(WrongForFifths, share=share, processes=processes, max_waiting=1000)
        plan = callers_for(inputs, 2000, check)
        with deployed(pattern, Live, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
            metrics = Metrics((runner.measure(),))
            layer, stats = one_layer(runner, "shadowed"), runner.deployment.stats()
        assert metrics.failures == {}
        assert check.seen
        counted = layer.counters
        compared = counted["same"] + counted["different"]
        sampling = 3 * (0.25 / compared) ** 0.5
        assert counted["same"] / compared == pytest.approx(0.8, abs=sampling)
        assert counted["copied"] / sum(stats.replica_requests) == pytest.approx(share, abs=sampling + 0.01)
        assert "failed" not in counted
        agreement = metrics.figure("agreement")
        assert agreement is not None
        assert agreement.value == pytest.approx(0.8, abs=2 * sampling)

    @pytest.mark.parametrize("processes", [False, True])
    def test_a_slow_shadow_gets_what_it_can_answer_and_the_rest_is_dropped(
        self, generator: Generator, tmp_path: Path, processes: bool
    ) -> None:
        check = Checked(tenfold)
        plan = callers_for(list(range(64)), 2000, check)
        pattern = Shadowed(Slow, max_waiting=4, processes=processes)
        with deployed(pattern, Live, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
            metrics = Metrics((runner.measure(),))
            layer = one_layer(runner, "shadowed")
        assert metrics.failures == {}
        assert check.seen
        assert layer.counters["dropped"] > layer.counters["copied"]
        assert max(value for _, value in layer.series["waiting"]) <= 4
        dropped = metrics.figure("shadow_dropped")
        assert dropped is not None
        assert dropped.value > 0.5

    def test_a_shadow_that_is_killed_is_replaced_and_the_live_path_answers_on(
        self, generator: Generator, tmp_path: Path
    ) -> None:
        check, killer = Checked(tenfold), Killer("shadow WrongForFifths")
        plan = callers_for(list(range(64)), 2500, check)
        pattern = Shadowed(WrongForFifths, processes=True) | Batched(max_batch_size=4)
        with deployed(
            pattern, Live, plan, module=HERE, generator=generator, directory=tmp_path, on_progress=killer
        ) as runner:
            launch = runner.measure()
            assert killer.killed not in runner.deployment.pids
        assert killer.killed is not None
        metrics = Metrics((launch,))
        assert metrics.failures == {}
        assert check.seen
        assert launch.stats is not None
        assert launch.stats.replaced == 1
        (layer,) = launch.stats.layers_named("shadowed")
        assert layer.counters["same"] > 0


def test_streams_pass_a_shadow_and_models_on_demand_and_are_compared(generator: Generator, tmp_path: Path) -> None:
    check = Checked(lambda one: [one["model"], str(one["at"])])
    plan = callers_for(for_names("ab" * 50), 2000, check)
    pattern = Shadowed(partial(Tenant, "a"), processes=True) | MultiModel(tenants(2, Speaker), max_loaded=1)
    with deployed(pattern, None, plan, module=HERE, generator=generator, directory=tmp_path) as runner:
        metrics = Metrics((runner.measure(),))
        layer, loads = one_layer(runner, "shadowed"), one_layer(runner, "multimodel")
    assert metrics.failures == {}
    assert check.seen
    compared = layer.counters["same"] + layer.counters["different"]
    assert layer.counters["same"] / compared == pytest.approx(
        0.5, abs=3 * (0.25 / compared) ** 0.5 + CALLERS / compared
    )
    assert max(value for _, value in loads.series["loaded"]) <= 1


REGRESSION = """
import pytest
from pytest_mlpatterns import InOrder, MultiModel, Shadowed


class Tenant:
    def __call__(self, batch):
        return [one["at"] for one in batch]


class German(Tenant):
    pass


class English(Tenant):
    pass


def language(one):
    return ("de", "en")[one["at"] // {same} % 2]


def model(batch):
    return [one["at"] for one in batch]


def candidate(batch):
    return [one["at"] + (one["at"] < {wrong}) for one in batch]


@pytest.fixture
def perf_model():
    return model


@pytest.fixture
def perf_payload():
    return InOrder([{{"at": at}} for at in range(100)])


SHORT = dict(concurrency=1, duration="500ms")
MODELS = {{"de": German, "en": English}}


@pytest.mark.perf(pattern=MultiModel(MODELS, max_loaded=1, key=language), compare=("cold_hit_share",), **SHORT)
def test_several(perf):
    pass


@pytest.mark.perf(pattern=Shadowed(candidate), compare=("agreement",), **SHORT)
def test_shadowed(perf):
    pass
"""


def test_more_loads_and_less_agreement_are_regressions_of_their_revision(tmp_path: Path) -> None:
    repository = Repository.made(tmp_path / "shop")
    repository.commit({"pytest.ini": "[pytest]\n", "test_perf.py": REGRESSION.format(same=10, wrong=2)})

    worse = REGRESSION.format(same=2, wrong=40)
    run = Project().with_file("test_perf.py", worse).run(repository.top, "--perf-against=main")

    assert run.exit_code == 1
    assert "RegressionFailure: share of calls that waited for a load" in run.failure("test_several")
    assert "RegressionFailure: share of answers that the shadow gave too" in run.failure("test_shadowed")
