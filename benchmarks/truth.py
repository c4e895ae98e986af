"""Do percentiles tell the truth of a stall, and are random arrivals random? An open loop against known answers.

The service answers at once, but once, in the middle of the window, it does nothing for a second. With requests due at
an even rate, those due in that second wait for what is left of it: latencies spread evenly from 1 s to 0, which gives
every percentile by arithmetic.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bench import Claim, Table, our_generator, run_child
from scipy import stats

from pytest_mlpatterns.engines.local.launcher import launch
from pytest_mlpatterns.loadgen.columns import samples_of
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.patterns import Single
from pytest_mlpatterns.serving.model import StartOptions, service_plan
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.schedule import ConstantRate, PoissonRate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_mlpatterns.records.samples import Samples, Window
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.schedule import Schedule

CLAIM = "percentiles of a 1 s stall within 5 % of arithmetic; Poisson arrivals pass a Kolmogorov-Smirnov test"
RATE_RPS, WINDOW_S, WARMUP_S, STALL_S = 100, 10, 1.0, 1.0
STALL_AT = int(RATE_RPS * (WARMUP_S + 3))
PERCENTILES = (93, 95, 99, 99.9)
POISSON_RPS, POISSON_S = 1000, 20


class Stalling:
    """Answers at once; the request of a known number finds it asleep."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, batch: list[Any]) -> list[Any]:
        self.seen += 1
        if self.seen == STALL_AT:
            time.sleep(STALL_S)
        return batch


def measure() -> Iterator[Table]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        yield stall_table(directory)
        yield poisson_table(directory)


def stall_table(directory: Path) -> Table:
    """Every percentile beside what arithmetic says."""
    expected = {percentile: STALL_S - (1 - percentile / 100) * WINDOW_S for percentile in PERCENTILES}
    samples, window = drive(directory, ConstantRate(RATE_RPS), WINDOW_S)
    inside = (samples.due_ns >= window.start_ns) & (samples.due_ns < window.end_ns)
    latency_s = (samples.done_ns - samples.due_ns)[inside] / 1e9
    sides = {"pytest-mlpatterns": {p: float(np.percentile(latency_s, p)) for p in PERCENTILES}}
    k6 = shutil.which("k6", path=str(Path(sys.executable).parent)) or shutil.which("k6")
    if k6:
        for vus in (300, 16):
            sides[f"k6, {vus} VUs"] = run_k6(k6, directory, vus)
    locust = shutil.which("locust", path=str(Path(sys.executable).parent)) or shutil.which("locust")
    if locust:
        sides["Locust, 16 users"] = run_locust(locust, directory)
    rows = [("arithmetic", *(f"{expected[p]:.3f} s" for p in PERCENTILES))]
    rows += [(label, *(f"{found[p]:.3f} s" for p in PERCENTILES)) for label, found in sides.items()]
    ours = sides["pytest-mlpatterns"]
    worst = max(abs(ours[p] / expected[p] - 1) for p in PERCENTILES)
    return Table(
        f"one stall of 1 s in {WINDOW_S} s at {RATE_RPS} requests/s",
        ("client", *(f"p{p:g}" for p in PERCENTILES)),
        rows,
        [Claim("worst deviation of a percentile from arithmetic", worst, at_most=0.05)],
        ["k6 keeps its rate only while it has idle VUs; Locust's users wait for their answers, and with them the load"],
    )


def poisson_table(directory: Path) -> Table:
    """Are the intervals between requests that were really sent exponential, at the rate asked for?"""
    samples, window = drive(directory, PoissonRate(POISSON_RPS), POISSON_S)
    inside = (samples.due_ns >= window.start_ns) & (samples.due_ns < window.end_ns)
    due = np.sort(samples.due_ns[inside])
    gaps_s = np.diff(due) / 1e9
    p_value = float(stats.kstest(gaps_s, "expon", args=(0, 1 / POISSON_RPS)).pvalue)
    drawn = np.fromiter(PoissonRate(POISSON_RPS).arrivals(), dtype=np.int64, count=1_000_000)
    drawn_rate = 1e9 * len(drawn) / drawn[-1]
    begun = samples.due_ns.min()
    planned = [at for at in drawn[:200_000] + begun if window.start_ns <= at < window.end_ns]
    sent_share = len(due) / len(planned)
    return Table(
        f"Poisson arrivals, {POISSON_RPS} requests/s for {POISSON_S} s",
        ("", "value"),
        [
            ("requests", f"{len(due):,}"),
            ("Kolmogorov-Smirnov p", f"{p_value:.3f}"),
            ("mean rate of a million arrivals", f"{drawn_rate:.2f}/s"),
            ("sent, of those due", f"{100 * sent_share:.3f} %"),
        ],
        [
            Claim("p of the Kolmogorov-Smirnov test against the exponential", p_value, at_least=0.01),
            Claim(
                "rate of a million arrivals, against the one asked",
                drawn_rate / POISSON_RPS,
                at_least=0.995,
                at_most=1.005,
            ),
            Claim("requests sent, against those due", sent_share, at_least=0.995, at_most=1.005),
        ],
    )


def serving_stall(directory: Path) -> Deployment:
    """A fresh service that will stall at its known request; health is all that is asked of it before."""
    return launch(service_plan(Single(), Stalling), StartOptions(20 * 10**9, None, directory))


def drive(directory: Path, schedule: Schedule, seconds: float) -> tuple[Samples, Window]:
    deployment = serving_stall(directory)
    try:
        job = LoadJob(
            endpoint=deployment.endpoint,
            messages=read_payload([[1.0]]).messages(*deployment.addresses[0], deployment.path),
            schedule=schedule,
            duration_ns=round(seconds * 1e9),
            warmup_ns=round(WARMUP_S * 1e9),
            timeout_ns=10 * 10**9,
        )
        with our_generator() as generator:
            recorded = generator.run(job, poll_s=1.0, on_poll=lambda _event: None)
    finally:
        deployment.close()
    return samples_of(recorded), recorded.window


def run_k6(k6: str, directory: Path, vus: int) -> dict[float, float]:
    """The same rate with k6's constant-arrival-rate executor."""
    deployment = serving_stall(directory)
    script = directory / "stall.js"
    script.write_text(
        f"""
import http from 'k6/http';
export const options = {{
  scenarios: {{ open: {{ executor: 'constant-arrival-rate', rate: {RATE_RPS}, timeUnit: '1s',
    duration: '{WINDOW_S + WARMUP_S}s', preAllocatedVUs: {vus}, maxVUs: {vus} }} }},
  summaryTrendStats: [{", ".join(f"'p({p:g})'" for p in PERCENTILES)}],
}};
export default function () {{
  http.post('{deployment.url}{deployment.path}', '{{"instances":[[1.0]]}}',
    {{ headers: {{ 'Content-Type': 'application/json' }} }});
}}
""",
        encoding="utf-8",
    )
    command = [k6, "run", "--quiet", "--no-usage-report", "--summary-export", "stall.json", str(script)]
    try:
        run_child(command, directory=directory)
    finally:
        deployment.close()
    found = json.loads((directory / "stall.json").read_text(encoding="utf-8"))["metrics"]["http_req_duration"]
    return {p: float(found[f"p({p:g})"]) / 1e3 for p in PERCENTILES}


def run_locust(locust: str, directory: Path) -> dict[float, float]:
    """The same rate from users that each send at an even pace."""
    deployment = serving_stall(directory)
    script = directory / "locustfile.py"
    users = 16
    script.write_text(
        f"""
import json
from locust import FastHttpUser, constant_throughput, events, task
taken = []
@events.request.add_listener
def note(response_time, **_):
    taken.append(response_time)
@events.quitting.add_listener
def write(**_):
    json.dump(taken, open("locust.json", "w"))
class Caller(FastHttpUser):
    wait_time = constant_throughput({RATE_RPS / users})
    @task
    def ask(self):
        self.client.post("{deployment.path}", json={{"instances": [[1.0]]}})
""",
        encoding="utf-8",
    )
    command = [locust, "-f", str(script), "--headless", "-u", str(users), "-r", "100", "--host", deployment.url]
    try:
        run_child([*command, "-t", f"{WINDOW_S}s", "--only-summary"], directory=directory, expected=(0, 1))
    finally:
        deployment.close()
    taken = json.loads((directory / "locust.json").read_text(encoding="utf-8"))
    return {p: float(np.percentile(taken, p)) / 1e3 for p in PERCENTILES}
