"""What our way of serving a model costs, beside FastAPI under uvicorn as its users write it.

The same model, the same generator, launches in turn, the server on one core and the generator on another. Two ways to
write the FastAPI service are measured, and the claim is against the faster.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import services
from bench import Claim, Load, Table, drive, interleave, on_server_core, our_generator, serving, spread

from pytest_mlpatterns import Single
from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.workload.payload import read_payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_mlpatterns.loadgen.generator import Generator
    from pytest_mlpatterns.workload.payload import Payload

CLAIM = (
    "the RTM of the digits classifier is at most 1.3 times that of FastAPI, and a model that costs nothing reaches at "
    "least 0.85 times its throughput"
)
OURS = "Single()"
FASTAPI = {"FastAPI, body validated by pydantic": "validated", "FastAPI, JSON read by hand": "lean"}
LAUNCHES = 5
SECONDS = 2.0


def measure() -> Iterator[Table]:
    subprocess.run([sys.executable, services.QUICKSTART / "train.py"], check=True, stdout=subprocess.DEVNULL)
    sys.path.insert(0, str(services.QUICKSTART))  # our workers take it over, and import the model by its name
    from sklearn.datasets import load_digits

    payload = read_payload(load_digits().data[:200].tolist())
    digits = measure_launches("digits", "model:Digits", payload, concurrency=1)
    rtm = {side: [load.rtm_ns for load in loads] for side, loads in digits.items()}
    yield Table(
        f"digits classifier (nearest neighbours), 1 request in flight, median of {LAUNCHES} launches in turn",
        ("service", "RTM", "spread", "Single() / it"),
        _rows(rtm, lambda value: f"{value / 1e6:.3f} ms"),
        [Claim("RTM, against the faster FastAPI", _ours(rtm) / min(_theirs(rtm)), at_most=1.3)],
    )
    identity = measure_launches("identity", services.identity, payload, concurrency=16)
    throughput = {side: [load.throughput_rps for load in loads] for side, loads in identity.items()}
    yield Table(
        f"identity, 64 numbers in and out, 16 requests in flight, median of {LAUNCHES} launches in turn",
        ("service", "req/s", "spread", "Single() / it"),
        _rows(throughput, lambda value: f"{value:,.0f}"),
        [Claim("throughput, against the faster FastAPI", _ours(throughput) / max(_theirs(throughput)), at_least=0.85)],
    )


def measure_launches(name: str, model: Any, payload: Payload, *, concurrency: int) -> dict[str, list[Load]]:
    """Every service launched so many times, in turn, and driven for a window each."""
    with our_generator() as generator:
        sides: dict[str, Callable[[], Load]] = {
            OURS: partial(_launch_ours, generator, model, payload, concurrency=concurrency)
        }
        for label, kind in FASTAPI.items():
            sides[label] = partial(_launch_fastapi, generator, f"{name}-{kind}", payload, concurrency=concurrency)
        return interleave(sides, LAUNCHES)


def _launch_ours(generator: Generator, model: Any, payload: Payload, *, concurrency: int) -> Load:
    with tempfile.TemporaryDirectory() as directory:
        startup = StartOptions(60_000_000_000, payload, Path(directory))
        with on_server_core():
            deployment = launch(service_plan(Single(), model), startup)
        try:
            (address,) = deployment.addresses
            messages = payload.messages(*address, deployment.path)
            return drive(generator, address, messages, concurrency=concurrency, seconds=SECONDS)
        finally:
            deployment.close()


def _launch_fastapi(generator: Generator, service: str, payload: Payload, *, concurrency: int) -> Load:
    with serving(service) as address:
        messages = payload.messages(*address, services.PATH)
        return drive(generator, address, messages, concurrency=concurrency, seconds=SECONDS)


def _rows(found: dict[str, list[float]], show: Callable[[float], str]) -> list[Sequence[str]]:
    ours = median(found[OURS])
    return [
        (side, show(median(values)), spread(values), f"{ours / median(values):.3f}") for side, values in found.items()
    ]


def _ours(found: dict[str, list[float]]) -> float:
    return median(found[OURS])


def _theirs(found: dict[str, list[float]]) -> list[float]:
    return [median(values) for side, values in found.items() if side != OURS]
