"""What each pattern costs, beside FastAPI under uvicorn, LitServe, mosec, BentoML and Ray Serve, with the same models.

One model costs nothing, the other 5 ms a call, whatever the batch. Every server is started afresh for each window, all
in turn. It may use every core; the generator keeps to one. Peers have environments of their own, made when first needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import services
from bench import HERE, Claim, Table, interleave, on_client_core, our_generator, run_child, spread

from pytest_mlpatterns import Batched, Microservice, Replicated, Single, Url
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.load.payload import read_payload
from pytest_mlpatterns.load.schedule import ClosedLoop
from pytest_mlpatterns.measure import Bench, LoadPlan
from pytest_mlpatterns.metrics import Metrics
from pytest_mlpatterns.serve.local import Startup, attach, launch
from pytest_mlpatterns.serve.model import recipe_of
from pytest_mlpatterns.wire import CONTENT_TYPE, encode_instances

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_mlpatterns import Pattern
    from pytest_mlpatterns.load.generator import Generator
    from pytest_mlpatterns.serve.deployment import Deployment

CLAIM = (
    "with a model that costs nothing Single() reaches at least 0.85 times the throughput of FastAPI, and is ahead of "
    "LitServe, BentoML and Ray Serve; with one that costs 5 ms a call Batched() reaches at least 5 times that of Single()"
)
CONCURRENCY = 32
LAUNCHES = 3
SECONDS = 1.5
WARMUP_S = 0.5
STARTUP_S = 60
GRACE_S = 3.0
INSTALL_S = 900
FILES = HERE / "peers"
ENVIRONMENTS = HERE / ".environments"
INPUTS = [[float((row + column) % 17) for column in range(64)] for row in range(200)]

OURS: dict[str, Pattern] = {
    "Single()": Single(),
    "Replicated(2)": Replicated(2),
    "Batched(max_batch_size=32)": Batched(max_batch_size=32),
    "Microservice()": Microservice(),
}
SINGLE, _, BATCHED, _ = OURS


@dataclass(frozen=True)
class Peer:
    """A public server: its name in ``peers``, how it serves there, and its package (None: it runs where we do)."""

    name: str
    form: str
    package: str | None
    path: str = "/predict"


PEERS = {
    "FastAPI, body validated by pydantic": Peer("fastapi", "validated", None, services.PATH),
    "FastAPI, JSON read by hand": Peer("fastapi", "lean", None, services.PATH),
    "LitServe": Peer("litserve", "single", "litserve"),
    "LitServe, batching": Peer("litserve", "batched", "litserve"),
    "mosec, batching": Peer("mosec", "batched", "mosec"),
    "BentoML": Peer("bentoml", "single", "bentoml"),
    "BentoML, adaptive batching": Peer("bentoml", "batched", "bentoml"),
    "Ray Serve, one replica": Peer("ray", "single", "ray"),
}
BEHIND = {"litserve": "LitServe", "bentoml": "BentoML", "ray": "Ray Serve"}
"""The peers that Single() is claimed to be ahead of."""


@dataclass(frozen=True)
class Figures:
    """What one window came to; ``limited`` says why the generator may be what was measured."""

    throughput_rps: float
    cpu_ns_per_request: float
    limited: str | None


def measure() -> Iterator[Table]:
    pythons, absent = environments()
    notes = [versions(pythons), *absent]
    sys.path.insert(0, str(FILES))  # our workers take it over, and import the models by their names
    with our_generator() as generator:
        found = measure_launches(generator, "identity", pythons)
        yield table_of("a model that costs nothing", found, claims_of_identity(found), notes)
        found = measure_launches(generator, "fixed_cost", pythons)
        ratio = throughput(found[BATCHED]) / throughput(found[SINGLE])
        claims = [Claim(f"{BATCHED}, 5 ms a call, against Single()", ratio, at_least=5.0)]
        called = "a model of 5 ms a call; every service makes one call at a time, Replicated(2) two"
        yield table_of(called, found, claims, notes)


def measure_launches(generator: Generator, model: str, pythons: Mapping[str, str]) -> dict[str, list[Figures]]:
    """Every server launched so many times, in turn, and driven for a window each."""
    starts: dict[str, Callable[[], contextlib.AbstractContextManager[Deployment]]] = {
        label: partial(serving_ours, pattern, model) for label, pattern in OURS.items()
    }
    for label, peer in PEERS.items():
        if peer.name in pythons:
            starts[label] = partial(serving_peer, pythons[peer.name], peer, model)
    return interleave({label: partial(measure_launch, generator, start) for label, start in starts.items()}, LAUNCHES)


def measure_launch(generator: Generator, start: Callable[[], contextlib.AbstractContextManager[Deployment]]) -> Figures:
    """Start a server, drive it, and look at its answers.

    Raises:
        RuntimeError: a request failed, so that the figures would mean nothing.
        AssertionError: an answer was not the one to its question.
    """
    with start() as deployment:
        url = f"{deployment.url}{deployment.path}"
        requests = [
            httpx.Request("POST", url, content=encode_instances([row]), headers={"content-type": CONTENT_TYPE})
            for row in INPUTS
        ]
        plan = LoadPlan(
            payload=read_payload(requests),
            schedule=ClosedLoop(CONCURRENCY),
            duration_ns=round(SECONDS * 1e9),
            warmup_ns=round(WARMUP_S * 1e9),
            timeout_ns=10 * 10**9,
            check=answers_fit,
        )
        with on_client_core():
            metrics = Metrics((Bench(lambda: deployment, plan, generator, lambda _event: None).measure(),))
    if metrics.failures:
        raise RuntimeError(f"{url}: requests failed: {metrics.failures}")
    cpu = metrics.cpu_ns_per_request
    assert cpu is not None
    return Figures(metrics.throughput_rps.value, cpu.value, metrics.generator.limited)


def answers_fit(requests: Sequence[Any], answers: Sequence[Any]) -> bool:
    """Whether each answer holds what was asked, as both models give it back; some servers answer with the bare list."""
    for request, body in zip(requests, answers, strict=True):
        answer = json.loads(body)
        if (answer["predictions"] if isinstance(answer, dict) else answer) != json.loads(request.content)["instances"]:
            return False
    return True


# --- what is printed ------------------------------------------------------------------------------------------------


def table_of(
    called: str, found: Mapping[str, Sequence[Figures]], claims: Sequence[Claim], notes: Sequence[str]
) -> Table:
    single = throughput(found[SINGLE])
    rows = []
    for label, runs in found.items():
        rates = [run.throughput_rps for run in runs]
        cpu = median(run.cpu_ns_per_request for run in runs)
        rows.append(
            (label, f"{median(rates):,.0f}", spread(rates), f"{median(rates) / single:.3f}", f"{cpu / 1e3:,.0f} µs")
        )
    limited = {label: runs[0].limited for label, runs in found.items() if all(run.limited for run in runs)}
    return Table(
        f"{called}: {CONCURRENCY} requests in flight, median of {LAUNCHES} launches in turn",
        ("service", "req/s", "spread", "it / Single()", "CPU per request"),
        rows,
        claims,
        [*notes, *(f"{label}: {why}" for label, why in limited.items())],
    )


def claims_of_identity(found: Mapping[str, Sequence[Figures]]) -> list[Claim]:
    """Single() against each peer that is there, in the form in which it is fastest."""
    single = throughput(found[SINGLE])
    fastest: dict[str, float] = {}
    for label, peer in PEERS.items():
        if label in found:
            fastest[peer.name] = max(fastest.get(peer.name, 0.0), throughput(found[label]))
    return [
        Claim("throughput of Single(), against the faster FastAPI", single / fastest["fastapi"], at_least=0.85),
        *(
            Claim(f"throughput of Single(), against {label}", single / fastest[name], at_least=1.0)
            for name, label in BEHIND.items()
            if name in fastest
        ),
    ]


def throughput(runs: Sequence[Figures]) -> float:
    return median(run.throughput_rps for run in runs)


# --- where peers are installed --------------------------------------------------------------------------------------


def environments() -> tuple[dict[str, str], list[str]]:
    """The Python of each peer by its name, and a sentence for each that could not be installed."""
    pythons: dict[str, str] = {}
    absent = []
    for name, package in {peer.name: peer.package for peer in PEERS.values()}.items():
        try:
            pythons[name] = sys.executable if package is None else installed(name)
        except RuntimeError as error:
            absent.append(f"{name} could not be installed, so it is not compared: {str(error).splitlines()[-1]}")
    return pythons, absent


def installed(name: str) -> str:
    """The Python of a peer's environment, which is made where it is missing or its requirements changed.

    Raises:
        RuntimeError: pip failed.
    """
    wanted, directory = FILES / f"{name}.txt", ENVIRONMENTS / name
    python, done = directory / "bin" / "python", directory / wanted.name
    if not done.exists() or done.read_bytes() != wanted.read_bytes():
        print(f"installing {name} …", file=sys.stderr)
        directory.mkdir(parents=True, exist_ok=True)
        run_child([sys.executable, "-m", "venv", "--clear", str(directory)], directory=HERE)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run_child([*install, "--requirement", str(wanted)], directory=HERE, timeout_s=INSTALL_S)
        shutil.copyfile(wanted, done)  # the last step: an installation that was cut off is made again
    return str(python)


def versions(pythons: Mapping[str, str]) -> str:
    """What is compared, in words."""
    found = []
    for name, package in {peer.name: peer.package for peer in PEERS.values()}.items():
        if package is not None and name in pythons:
            code = f"from importlib.metadata import version; print(version({package!r}))"
            found.append(f"{package} {run_child([pythons[name], '-c', code], directory=HERE).output.strip()}")
    return f"peers: {', '.join(found) or 'none'}"


# --- how servers are started and stopped ----------------------------------------------------------------------------


@contextlib.contextmanager
def serving_ours(pattern: Pattern, model: str) -> Iterator[Deployment]:
    """A model under one of our patterns."""
    with tempfile.TemporaryDirectory() as directory:
        startup = Startup(STARTUP_S * 10**9, read_payload(INPUTS[:1]), Path(directory))
        deployment = launch(recipe_of(pattern, f"models:{model}"), startup)
        try:
            yield deployment
        finally:
            deployment.close()


@contextlib.contextmanager
def serving_peer(python: str, peer: Peer, model: str) -> Iterator[Deployment]:
    """A peer in a session of its own; what it writes to its home or for the time being is gone with it."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "peer.log"
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, str(FILES / f"serve_{peer.name}.py"), model, str(port), peer.form],
                cwd=directory,
                env={**os.environ, "HOME": directory, "TMPDIR": directory},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deployment = attached(process, Url(f"http://127.0.0.1:{port}{peer.path}", pid=process.pid), log)
            try:
                yield deployment
            finally:
                deployment.close()
        finally:
            stop(process)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def attached(process: subprocess.Popen[bytes], url: Url, log: Path) -> Deployment:
    """The server once it has answered a request.

    Raises:
        RuntimeError: it ended or did not answer in time; with what it printed.
    """
    startup = Startup(5 * 10**9, read_payload(INPUTS[:1]), log.parent)
    deadline = time.monotonic() + STARTUP_S
    while True:
        try:
            return attach(url, startup)
        except DeploymentError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                printed = log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{process.args} does not serve: {error}; it printed last:\n{printed}") from error
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started: TERM to its group, then KILL to whoever is left.

    Raises:
        RuntimeError: somebody survived that.
    """
    family: set[psutil.Process] = set()
    with contextlib.suppress(psutil.NoSuchProcess):  # BentoML's worker leaves the session, so it has to be known before
        root = psutil.Process(process.pid)
        family = {root, *root.children(recursive=True)}
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    for left in survivors(process, family):
        with contextlib.suppress(psutil.Error):
            left.kill()
    if left := survivors(process, family):
        raise RuntimeError(f"{process.args} is ended, but its processes live on: {left}")


def survivors(process: subprocess.Popen[bytes], family: set[psutil.Process]) -> list[psutil.Process]:
    """Who of the family or of the server's session still lives after a time of grace."""
    deadline = time.monotonic() + GRACE_S
    while True:
        process.poll()  # else it stays as a zombie
        living = [member for member in {*family, *psutil.process_iter()} if lives(member, process.pid, family)]
        if not living or time.monotonic() > deadline:
            return living
        time.sleep(0.05)


def lives(member: psutil.Process, session: int, family: set[psutil.Process]) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return (member in family or os.getsid(member.pid) == session) and (
            member.is_running() and member.status() != psutil.STATUS_ZOMBIE
        )
    return False
