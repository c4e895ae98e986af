"""How exact is a count of instructions, and what does a pass take? The same code several times, idle or beside loops.

    python benchmarks/instructions.py [NAMES] [--passes N] [--loops N] [--changes] [--where]

Each service is counted so many times; the scatter is the standard deviation of the passes, as a share of their mean.
``--changes`` counts a model without and with small changes, ``--where`` prints where the instructions are.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

import counted_models as models

from pytest_mlpatterns import App, Batched, Cached, Command, Pipeline, Single
from pytest_mlpatterns.measurement.counted_pass import counted_passes, with_calls
from pytest_mlpatterns.measurement.system_under_test import SystemUnderTest
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.profiling.frame_names import SourceNames
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import ClosedLoop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_mlpatterns.patterns.pattern import Pattern
    from pytest_mlpatterns.records.count import Count
    from pytest_mlpatterns.serving.targets import Target

HERE = Path(__file__).resolve().parent
TEXTS = [f"word{n % 7} other and text number {n}" for n in range(50)]
ROWS = [[(n * k) % 17 / 17 for k in range(512)] for n in range(1, 51)]
BUSY = [sys.executable, "-c", "while True: pass"]


@dataclass(frozen=True)
class Service:
    """One service: a model under a pattern, or a target, and its inputs."""

    model: Any = None
    pattern: Pattern = field(default_factory=Single)
    target: Target | None = None
    inputs: Any = field(default_factory=lambda: TEXTS)
    env: Mapping[str, str] = field(default_factory=dict)
    root: Path = HERE

    def system(self, directory: Path) -> SystemUnderTest:
        payload = read_payload(self.inputs)
        options = StartOptions(60_000_000_000, payload, directory, root=self.root)
        return SystemUnderTest(self.target or service_plan(self.pattern, self.model), options)


SERVICES: Mapping[str, Service] = {
    "sklearn, Single": Service("counted_models:Texts"),
    "sklearn, Batched": Service("counted_models:Texts", Batched(max_batch_size=8)),
    "sklearn, Cached": Service("counted_models:Texts", Cached(max_entries=10)),
    "sklearn, Pipeline": Service(None, Pipeline(stages=["counted_models:Tokens", "counted_models:Texts"])),
    "FastAPI, pydantic": Service(target=App("counted_models:validated", factory=True)),
    "JSON proxy": Service(target=App("counted_models:proxy")),
    "numpy": Service("counted_models:Vectors", inputs=ROWS),
    "onnxruntime": Service("counted_models:Onnx", inputs=ROWS),
    "onnxruntime, 2 threads": Service("counted_models:Onnx", inputs=ROWS, env={"COUNTED_THREADS": "2"}),
    "threads": Service("counted_models:Threads", inputs=ROWS),
    "forked workers": Service(target=Command("{python} counted_models.py {port}"), inputs=ROWS),
    "AVX-512": Service("counted_models:Native", inputs=ROWS, env={"COUNTED_LIBRARY": "{directory}/native.so"}),
}


def count(service: Service, directory: Path, *, requests: int | None = None) -> Count:
    """One pass."""
    payload = read_payload(service.inputs)
    plan = LoadPlan(payload, ClosedLoop(1), 10**9, None, 30 * 10**9, None)
    limit_ns = 300_000_000_000
    with variables({name: text.format(directory=directory) for name, text in service.env.items()}):
        side = [Variant("the service", service.system(directory).start, plan)]
        counts = counted_passes(side, directory=directory, requests=requests, limit_ns=limit_ns)
        (found,) = with_calls(counts, side, [SourceNames(service.root)], directory=directory, limit_ns=limit_ns)
        return found


@contextlib.contextmanager
def variables(given: Mapping[str, str]) -> Iterator[None]:
    """These environment variables, which deployments take over."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, text in before.items():
            os.environ.pop(name) if text is None else os.environ.update({name: text})


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many loops beside."""
    running = [subprocess.Popen(BUSY) for _ in range(loops)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def report(name: str, counts: list[Count]) -> None:
    values = [one.per_request.value for one in counts]
    mean, last = fmean(values), counts[-1]
    scatter = stdev(values) / mean if len(values) > 1 else 0.0
    width = median((one.high - one.low) / one.per_request.value for one in counts)
    print(
        f"{name:24s} {mean:14,.0f} a request  passes ±{scatter:.2%} (range {(max(values) - min(values)) / mean:.2%})  "
        f"rounds {width:.2%} ({len(last.rounds)} of {last.requests})  "
        f"{median(one.seconds for one in counts):.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(SERVICES))
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--loops", type=int, default=0)
    parser.add_argument("--changes", action="store_true")
    parser.add_argument("--where", action="store_true")
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))
    with tempfile.TemporaryDirectory() as place, busy(given.loops):
        directory = Path(place)
        compiler = shutil.which("cc")
        if compiler:
            (directory / "native.c").write_text(models.NATIVE)
            words = [
                compiler,
                "-O3",
                "-ffast-math",
                "-march=skylake-avx512",
                "-mprefer-vector-width=512",
                "-shared",
                "-fPIC",
            ]
            subprocess.run([*words, "-o", directory / "native.so", directory / "native.c"], check=True)
        for name in given.names:
            for change in ("", "copy", "log", "lookup") if given.changes else ("",):
                with variables({"COUNTED_CHANGE": change}):
                    try:
                        counts = [count(SERVICES[name], directory) for _ in range(given.passes)]
                    except Exception:
                        traceback.print_exc()
                        continue
                report(f"{name}{change and f': {change}'}", counts)
                if given.where:
                    print("  ", {k: round(v) for k, v in list(counts[-1].libraries.items())[:8]})
                    print("  ", {k: round(v) for k, v in list(counts[-1].functions.items())[:12]})
                    print("  ", {k: round(v, 2) for k, v in list(counts[-1].calls.items())[:25]})


if __name__ == "__main__":
    main()
