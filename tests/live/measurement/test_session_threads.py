"""Threads that onnxruntime starts for itself: pairs of real sessions with declared threads, profiled under load."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.services.deploy import make_start_options
from support.services.py_spy import patient_py_spy
from support.synthetic import MS, S

from pytest_mlpatterns import Single
from pytest_mlpatterns.analysis.causes.attribution import profile_record
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.profiled_pair import ProfiledPair, ProfiledSide, ProfilingPlan
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.profiling.frame_names import SourceNames
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.serving.model import service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

pytestmark = pytest.mark.processes

WIDTH = 512
INPUTS = [[[0.5] * WIDTH] * 8]
PLAN = LoadPlan(
    payload=read_payload(INPUTS), schedule=ClosedLoop(1), duration_ns=S, warmup_ns=0, timeout_ns=30 * S, check=None
)
NAMES = SourceNames(Path(__file__).parent)


def network() -> bytes:
    """Dense layers with fixed weights, as the bytes of an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((WIDTH, WIDTH), dtype=np.float32), f"w{number}")
        for number in range(4)
    ]
    nodes = [helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"]) for number in range(4)]
    ends = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH]) for name in ("x0", "x4"))
    graph = helper.make_graph(nodes, "dense", *([one] for one in ends), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


class OneThread:
    """A session whose work is done by the thread that calls it."""

    threads = 1

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.session = onnxruntime.InferenceSession(network(), options, providers=["CPUExecutionProvider"])

    def __call__(self, batch: list[Any]) -> list[Any]:
        rows = np.asarray(batch, dtype=np.float32).reshape(-1, WIDTH)
        return [float(row.sum()) for row in self.session.run(None, {"x0": rows})[0].reshape(len(batch), -1)]


class ThreeThreads(OneThread):
    """A session that shares its work with two threads of its own."""

    threads = 3


@pytest.fixture
def recorded(generator: Generator, tmp_path: Path) -> Callable[[type, type], ProfileRecord]:
    """Profiles a pair: the reference, and the present."""

    def side(name: str, model: type) -> ProfiledSide:
        options = replace(make_start_options(tmp_path, INPUTS), profiled=True)
        plan = service_plan(Single(), model, [sys.modules[__name__]])
        return ProfiledSide(Variant(name, lambda: launch(plan, options), PLAN), NAMES)

    def record(before: type, now: type) -> ProfileRecord:
        pair = ProfiledPair(
            side("now", now),
            side("before", before),
            generator=generator,
            profiler=patient_py_spy(tmp_path),
            on_progress=lambda _progress: None,
            plan=ProfilingPlan(most_s=0.0, fewest=3, block_ns=200 * MS, warmup_ns=100 * MS),
        )
        return profile_record(pair.run(), NAMES.line, NAMES.line, is_known=True)

    return record


def test_a_session_with_more_threads_is_named_with_its_library(recorded: Callable[[type, type], ProfileRecord]) -> None:
    native = recorded(OneThread, ThreeThreads).native
    assert native.busy_before == 0
    assert 1 <= native.busy_now <= 2  # they share the cores with all that runs beside them
    assert native.now_ns > 10 * native.before_ns
    assert native.libraries == ("onnxruntime",)


def test_an_unchanged_session_is_not_named(recorded: Callable[[type, type], ProfileRecord]) -> None:
    assert recorded(ThreeThreads, ThreeThreads).native is None
