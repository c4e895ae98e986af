"""Measures the recordings of :mod:`worlds.recorded`, live: ``python benchmarks/worlds record [SERVICE[:CONDITION] …]``.

Each service is measured in some launches, and beside itself in some paired launches; on a quiet machine, beside a busy
loop, and slowed from outside (``peers/disturbance.py``). What is not installed gets an environment of its own.
"""

from __future__ import annotations

import datetime
import itertools
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from environments import python_of
from msgspec import Struct
from peers.disturbance import Beside, disturbed

from pytest_mlpatterns import App, Command
from pytest_mlpatterns.analysis.health.machine import taken_in
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.loadgen.ceiling import measure_ceiling
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.interleaved import InterleavedRun, Variant
from pytest_mlpatterns.measurement.launch import LaunchRunner
from pytest_mlpatterns.measurement.system_under_test import (
    ModelUnderTest,
    load_plan,
    read_inputs,
    request_builder,
    system_under_test,
)
from pytest_mlpatterns.serving.model import StartOptions
from pytest_mlpatterns.system.environment import environment
from worlds.recorded import Recording, Side, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.launch import Launch

HERE = Path(__file__).resolve().parent
SERVERS = HERE.parents[1] / "examples" / "servers"
LAUNCHES, PAIRS = 6, 6
MOST, MOST_OF_BLOCK = 400, 40
CONDITIONS: dict[str, Beside] = {"quiet": "", "busy": "one", "slowed": "slowed", "loaded": ""}
"""What disturbs a service; a machine on which other programs keep twenty processes waiting is ``loaded`` by itself."""


class Real(Struct, frozen=True):
    """One real service."""

    name: str
    marker: dict[str, Any]
    payload: Sequence[Any]
    model: Any = None
    target: Any = None
    root: Path = HERE.parent


def forest(batch: list[list[float]]) -> list[int]:
    """A random forest of scikit-learn."""
    import numpy as np

    return [int(one) for one in _trained().predict(np.array(batch))]


def _trained(known: list[Any] = []) -> Any:  # noqa: B006 - trained once in a process
    if not known:
        from sklearn.datasets import load_digits
        from sklearn.ensemble import RandomForestClassifier

        digits = load_digits()
        known.append(RandomForestClassifier(20, random_state=0, n_jobs=1).fit(digits.data, digits.target))
    return known[0]


def services() -> dict[str, Callable[[], Real]]:
    """What makes each service, by name; some install what they need."""
    from sklearn.datasets import load_digits

    images = [row.tolist() for row in load_digits().data[:8]]
    numbers = [[1.0, 2.0], [3.0, 4.0, 5.0], [6.0]]
    streamed = {"ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    questions = ("What is the sea?", "Name three birds.", "Why does it rain?", "Who was Ada Lovelace?")
    chats = [
        {"messages": [{"role": "user", "content": one}], "max_tokens": 8, "temperature": 0, **streamed}
        for one in questions
    ]

    def python(name: str) -> str:
        return python_of(f"example-{name}", SERVERS / name / "requirements.txt", "--editable", str(HERE.parents[1]))

    def alone(question: Any) -> dict[str, Any]:
        return {"json": question, "headers": {"connection": "close"}}

    def bentoml() -> Real:
        command = f"{python('bentoml')} -m bentoml serve service:Sums --host 127.0.0.1 --port {{port}} --quiet"
        target = Command(command, ready="/readyz", path="/predict", env={"BENTOML_DO_NOT_TRACK": "1"})
        request = {"request": lambda one: {"json": {"numbers": [one]}}}
        return Real("bentoml", {"concurrency": 8, **request}, numbers, None, target, SERVERS / "bentoml")

    def litserve() -> Real:
        target = Command(f"{python('litserve')} serve.py {{port}}", ready="/health", path="/predict")
        request = {"request": lambda one: {"json": {"numbers": one}}}
        return Real("litserve", {"concurrency": 8, **request}, numbers, None, target, SERVERS / "litserve")

    def llama() -> Real:
        command = f"{python('llama_cpp')} serve.py --port {{port}} --slots 2"
        target = Command(command, path="/v1/chat/completions", ready="/health")
        marker = {"wire": "openai", "request": alone, "concurrency": 2, "timeout": "60s"}
        return Real("llama", marker, chats, None, target, SERVERS / "llama_cpp")

    return {
        "sklearn": lambda: Real("sklearn", {"concurrency": 1}, images, forest),
        "batched": lambda: Real("batched", {"concurrency": 8, "pattern": "batched"}, images, forest),
        "fastapi": lambda: Real(
            "fastapi", {"concurrency": 4}, images, None, App("worlds.record:application", path="/predict", factory=True)
        ),
        "bentoml": bentoml,
        "litserve": litserve,
        "llama": llama,
    }


def application() -> Any:
    """Make the forest behind FastAPI."""
    from fastapi import FastAPI, Request

    app, model = FastAPI(), _trained()

    async def predict(request: Request) -> dict[str, Any]:
        inputs = (await request.json())["instances"]
        return {"predictions": [int(one) for one in model.predict(np.array(inputs))]}

    predict.__annotations__["request"] = Request  # FastAPI knows no annotation that is a text here
    app.post("/predict")(predict)
    return app


def record(real: Real, condition: str) -> Path:
    """Measure one service under one condition of the machine, and write what it gave."""
    settings = read_settings({**real.marker, "startup_timeout": "120s"}, {}, {})
    builder = request_builder(settings, real.target, "record")
    inputs = read_inputs(settings, real.payload, real.target, builder=builder)
    plan = load_plan(settings, inputs)
    with tempfile.TemporaryDirectory() as scratch:
        options = StartOptions(
            timeout_ns=settings.startup_timeout_ns,
            payload=inputs,
            directory=Path(scratch),
            wire=settings.wire,
            root=real.root,
            builder=builder,
            cpus=None,
        )
        model = ModelUnderTest(real.model, (sys.modules[__name__],), "record", "the model")
        system = system_under_test(model, settings.pattern, real.target, options=options)
        generator = Generator(Path(scratch) / "generator.log", measure_ceiling)
        try:
            with disturbed(CONDITIONS[condition]):
                runner = LaunchRunner(system.start, plan, generator, on_progress=lambda _progress: None)
                launches = [runner.measure() for _ in range(LAUNCHES)]
                runner.close()
                variants = [Variant(name, system.start, plan) for name in ("first", "second")]
                run = InterleavedRun(variants[0], variants[1], generator, on_progress=lambda _progress: None)
                for _ in range(PAIRS):
                    run.measure(60_000_000_000)
        finally:
            generator.close()
    callers = int(real.marker["concurrency"])
    stream = launches[0].samples.stream
    tokens = 0 if stream is None or not stream.chunk_ns.size else int(np.median(stream.chunk_count))
    machine = environment()
    when = f"{datetime.date.today().isoformat()}, {machine.processor}, {machine.cores:g} cores"
    pairs = zip(run.first_launches, run.second_launches, strict=True)
    return write(
        Recording(
            real.name,
            condition,
            callers,
            tokens,
            tuple(side_of(one, MOST, whole=True, streams=bool(tokens)) for one in launches),
            tuple(
                (one(first), one(second))
                for one in [partial(side_of, most=MOST_OF_BLOCK, whole=False, streams=bool(tokens))]
                for first, second in pairs
            ),
            when,
        )
    )


def side_of(launch: Launch, most: int, *, whole: bool, streams: bool) -> Side:
    """The columns of a launch, of its whole window or of each block."""
    samples, usage = launch.samples, launch.usage
    edges = [launch.window.start_ns, launch.window.end_ns]
    if not whole and usage is not None:
        edges = usage.time_ns.tolist()
    good = samples.successes_in(launch.window)
    blocks, shares = [], []
    for start, end in itertools.pairwise(edges):
        rows = np.flatnonzero(good & (samples.due_ns >= start) & (samples.due_ns < end))
        rows = rows[np.argsort(samples.due_ns[rows], kind="stable")][:most]
        if not rows.size:
            continue
        blocks.append(samples.latency_ns[rows].astype(np.float64))
        if streams:
            shares.append(_first_tokens(launch, rows) / blocks[-1])
    taken = taken_in([launch])
    cpu = 0.0
    if usage is not None:
        used = np.interp(edges[-1], usage.time_ns, usage.cpu_ns) - np.interp(edges[0], usage.time_ns, usage.cpu_ns)
        cpu = float(used) / max(float(samples.latency_ns[good].sum()), 1.0)
    return Side(
        tuple(blocks),
        tuple(shares),
        round(cpu, 4),
        round(taken.others_cores, 3),
        round(taken.steal_ratio, 4),
        round(taken.throttled_ratio, 4),
        launch.sorting_ns,
        float(launch.cold_start_ns or 0.6e9),
    )


def _first_tokens(launch: Launch, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    stream = launch.samples.stream
    assert stream is not None
    begins = np.concatenate([[0], np.cumsum(stream.chunk_count.astype(np.int64))])[:-1]
    first_ns: NDArray[np.int64] = stream.chunk_ns[begins[rows]]
    return (first_ns - launch.samples.due_ns[rows]).astype(np.float64)


def main(names: Iterable[str]) -> None:
    """Measure each service under each condition, or those that the command line names: ``sklearn:quiet``."""
    known = services()
    for name in names or known:
        service, _, condition = name.partition(":")
        for one in [condition] if condition else list(CONDITIONS)[:3]:
            path = record(known[service](), one)
            print(f"{path.name}: {path.stat().st_size:,} bytes", flush=True)
