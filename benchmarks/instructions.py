"""How exact is a count of instructions, and what does a pass take? The same code several times, idle or beside loops.

    python benchmarks/instructions.py [NAMES] [--passes N] [--pairs N] [--limit S] [--loops N] [--nice N]
        [--cores X] [--changes] [--change TEXT] [--as NAME=VALUE] [--where]

Each service is counted so many times; the scatter is the standard deviation of the passes, as a share of their mean.
``--changes`` counts a model without and with small changes, ``--where`` prints where the instructions are. ``--pairs``
judges as a comparison with a revision does: both sides start at once, and are counted in the time that the plugin
gives them, or in this many seconds a side. With ``--change "loop 200"`` one side does so much more; with
``--as OPENBLAS_CORETYPE=Prescott`` one side sees another processor. ``--nice`` and ``--cores`` slow the services from
outside.
LitServe and BentoML run if they are installed beside this package.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

import counted_models as models

from pytest_mlpatterns import App, Batched, Cached, Command, Pipeline, Single
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.verdicts.verdicts import GUARD_ALPHA
from pytest_mlpatterns.errors import CountError
from pytest_mlpatterns.judging.basis import INSTRUCTIONS
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
from pytest_mlpatterns.judging.counting import pass_ns
from pytest_mlpatterns.judging.metric_rules import judge_guarded
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
CPU_GROUPS = Path("/sys/fs/cgroup/cpu")  # of cgroup v1
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
    "uvloop": Service(
        target=Command("{python} -m uvicorn counted_models:ranking --factory --loop uvloop --port {port}")
    ),
    "LitServe": Service(
        target=Command("{python} serve_counted_litserve.py {port}", ready="/health", path="/predict", cwd="peers")
    ),
    "BentoML": Service(
        target=Command(
            "bentoml serve serve_counted_bentoml:Ranking --host 127.0.0.1 --port {port} --quiet",
            ready="/readyz",
            path="/predict",
            cwd="peers",
            env={"BENTOML_DO_NOT_TRACK": "1"},
        )
    ),
    "numpy": Service("counted_models:Vectors", inputs=ROWS),
    "onnxruntime": Service("counted_models:Onnx", inputs=ROWS),
    "onnxruntime, 2 threads": Service("counted_models:Onnx", inputs=ROWS, env={"COUNTED_THREADS": "2"}),
    "threads": Service("counted_models:Threads", inputs=ROWS),
    "forked workers": Service(target=Command("{python} counted_models.py {port}"), inputs=ROWS),
    "AVX-512": Service("counted_models:Native", inputs=ROWS, env={"COUNTED_LIBRARY": "{directory}/native.so"}),
}


def compared(service: Service, directory: Path, changed: Mapping[str, str], *, limit_s: int) -> str:
    """One comparison; the second side is started with other variables if some are given."""
    payload = read_payload(service.inputs)
    plan = LoadPlan(payload, ClosedLoop(1), 10**9, None, 30 * 10**9, None)
    sides = [Variant(name, service.system(directory).start, plan) for name in ("before", "now")]
    do = functools.partial(counted_passes, directory=directory, limit_ns=limit_s * 10**9 or pass_ns())
    try:
        if changed:
            (then,) = do(sides[:1])
            with variables(changed):
                (now,) = do(sides[1:], requests=then.requests)
        else:
            then, now = do(sides)
    except CountError as error:
        print(f"  not counted: {error}", flush=True)
        return "not counted"
    guard = ComparedMetric(INSTRUCTIONS, INSTRUCTIONS.tolerance, GUARD_ALPHA, is_guard=True, requested=False)
    samples = [Metrics((), counts=(one,)) for one in (then, now)]
    verdict = judge_guarded(guard, *samples, against="revision", in_flight=None)
    values, load = [one.per_request.value for one in (then, now)], os.getloadavg()[0]
    change, took = values[1] / values[0] - 1, [round(one.seconds) for one in (then, now)]
    took_text = "{}, {} s".format(*took)
    print(f"  {values[0]:,.0f} {change:+.2%} {verdict.outcome.value}  load {load:.0f}  {took_text}", flush=True)
    return verdict.outcome.value


def count(service: Service, directory: Path, *, requests: int | None = None, calls: bool = True) -> Count:
    """One pass, and another one for the calls of Python functions."""
    payload = read_payload(service.inputs)
    plan = LoadPlan(payload, ClosedLoop(1), 10**9, None, 30 * 10**9, None)
    limit_ns = 300_000_000_000
    with variables({name: text.format(directory=directory) for name, text in service.env.items()}):
        side = [Variant("the service", service.system(directory).start, plan)]
        counts = counted_passes(side, directory=directory, requests=requests, limit_ns=limit_ns)
        if not calls:
            return counts[0]
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


@contextlib.contextmanager
def slowed(nice: int, cores: float | None) -> Iterator[None]:
    """This process and all that it starts, at this priority, and in a control group with this much of the cores."""
    os.nice(nice)
    if cores is None:
        yield
        return
    group = CPU_GROUPS / f"counted-{os.getpid()}"
    group.mkdir()
    (group / "cpu.cfs_quota_us").write_text(str(round(cores * 100_000)))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (CPU_GROUPS / "cgroup.procs").write_text(pid)
        group.rmdir()


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
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--change", default="")
    parser.add_argument("--as", dest="variables", action="append", default=[])
    parser.add_argument("--loops", type=int, default=0)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--cores", type=float)
    parser.add_argument("--changes", action="store_true")
    parser.add_argument("--where", action="store_true")
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))
    with tempfile.TemporaryDirectory() as place, busy(given.loops), slowed(given.nice, given.cores):
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
        changed = dict(one.split("=", 1) for one in given.variables)
        changed |= {"COUNTED_CHANGE": given.change} if given.change else {}
        for name in given.names if given.pairs else ():
            print(f"{name}{given.change and f': {given.change}'} {' '.join(given.variables)}", flush=True)
            found = Counter(
                compared(SERVICES[name], directory, changed, limit_s=given.limit) for _ in range(given.pairs)
            )
            print(f"{name}: {dict(found)}", flush=True)
        for name in () if given.pairs else given.names:
            for change in ("", "copy", "log", "lookup") if given.changes else ("",):
                with variables({"COUNTED_CHANGE": change}):
                    try:
                        counts = [count(SERVICES[name], directory, calls=given.where) for _ in range(given.passes)]
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
