"""Seeded values that the tests of the pure modules share: launches, usage, results, and settings for properties.

Nothing here measures anything: every time, latency and load is declared, so that what must come out is known.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from hypothesis import HealthCheck, settings
from msgspec.structs import replace
from numpy.typing import ArrayLike, NDArray

from pytest_mlpatterns.analysis.metrics.distribution_summary import latency_of, stored_percentiles
from pytest_mlpatterns.records.latency import Latency
from pytest_mlpatterns.records.launch import (
    Capacity,
    Estimate,
    GeneratorReport,
    Launch,
    LaunchValue,
    Step,
    Usage,
    Warmup,
)
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import (
    Beside,
    CauseRecord,
    Conditions,
    Definition,
    Judged,
    Limits,
    Location,
    Measured,
    Reference,
)
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.records.setup import Environment, FactChange, Setup
from pytest_mlpatterns.records.telemetry import LayerStats, PatternStats
from pytest_mlpatterns.records.verdict import Outcome, Verdict

PROPERTY = settings(
    deadline=None,  # no test fails because a machine is slow
    derandomize=True,  # a run says the same twice
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
"""Decorates every Hypothesis test of the suite."""
FEW = settings(PROPERTY, max_examples=20)
"""In its place, of a property whose single example takes milliseconds."""

US = 1_000
MS = 1_000_000
S = 1_000_000_000
START_NS = 5_000 * S
"""Where the synthetic windows begin on the clock."""
ENVIRONMENT = Environment("Test Processor 3000", 2, "x86_64", "3.11", {"numpy": "2.0.0", "pytest-mlpatterns": "0.1.0"})


WIRE = LayerStats(
    3,
    "wire",
    {
        "requests": 400,
        "decode_ns": 400 * 20_000,
        "encode_ns": 400 * 10_000,
        "received_bytes": 400 * 512,
        "received_plain_bytes": 400 * 2048,
        "sent_bytes": 400 * 100,
        "sent_plain_bytes": 400 * 100,
    },
)
"""The face of a service whose requests are compressed to a quarter."""
LAYERS = (
    LayerStats(
        0,
        "cached",
        {"hits": 300, "misses": 100, "coalesced": 0, "evictions": 0},
        {"hit_ns": {20_000: 200, 40_000: 100}, "miss_ns": {4 * MS: 100}},
    ),
    LayerStats(
        1,
        "batched",
        {"calls": 25, "items": 100},
        {"size": {2: 10, 4: 5, 6: 10}, "wait_ns": {2 * MS: 100}, "call_ns": {3 * MS: 25}},
    ),
    LayerStats(
        2,
        "queued",
        {"accepted": 25, "answered": 25, "depth_ns": 6 * S, "observed_ns": 3 * S},
        {"wait_ns": {MS: 25}},
        {"depth": ((START_NS, 0), (START_NS + S, 3))},
    ),
    LayerStats(2, "hop", {"calls": 25}, {"hop_ns": {200_000: 25}}),
)
"""What the layers of ``cached|batched|queued`` counted in one window: three hits in four, batches of four inputs."""


def samples(
    due_ns: ArrayLike,
    latency_ns: ArrayLike,
    *,
    lag_ns: ArrayLike = 0,
    outcome: ArrayLike = 200,
    request: ArrayLike = 0,
    received_bytes: ArrayLike = 150,
) -> Samples:
    """Requests by when they were due and how long they took, in the order of completion as the generator gives them."""
    due = np.asarray(due_ns, dtype=np.int64)
    done = due + np.broadcast_to(np.asarray(latency_ns, dtype=np.int64), due.shape)
    order = np.argsort(done, kind="stable")

    def column(values: ArrayLike, dtype: type) -> np.ndarray:
        return np.broadcast_to(np.asarray(values, dtype=dtype), due.shape)[order]

    return Samples(
        due_ns=due[order],
        sent_ns=due[order] + column(lag_ns, np.int64),
        done_ns=done[order],
        outcome=column(outcome, np.int16),
        request=column(request, np.uint32),
        target=column(0, np.uint8),
        received_bytes=column(received_bytes, np.uint32),
    )


def usage(
    busy_cores: float = 0.5,
    machine_cores: float = 1.0,
    *,
    seconds: float = 3.0,
    start_ns: int = START_NS,
    rss_bytes: Sequence[int] = (100 * 2**20,),
    cores: float = 2,
    others_cores: float = 0.0,
    steal_cores: float = 0.0,
    throttled: float = 0.0,
    frequency_hz: Sequence[int] = (0,),
    of_machine: int | None = None,
    limited: bool = False,
) -> Usage:
    """Readings every 50 ms, from half a second before the window to half a second after it, of an even load.

    ``rss_bytes`` are spread over the window's readings; before and after it memory is ten times as high.
    """
    time_ns = np.arange(start_ns - S // 2, start_ns + int((seconds + 0.5) * S) + 1, 50 * MS, dtype=np.int64)
    elapsed = time_ns - time_ns[0]
    inside = (time_ns >= start_ns) & (time_ns <= start_ns + int(seconds * S))
    rss = np.full(time_ns.shape, 10 * max(rss_bytes), dtype=np.int64)
    rss[inside] = np.asarray(rss_bytes, dtype=np.int64)[np.arange(int(inside.sum())) % len(rss_bytes)]
    return Usage(
        time_ns=time_ns,
        cpu_ns=(elapsed * busy_cores).astype(np.int64),
        rss_bytes=rss,
        machine_busy_ns=(elapsed * machine_cores).astype(np.int64),
        others_ns=(elapsed * others_cores).astype(np.int64),
        steal_ns=(elapsed * steal_cores).astype(np.int64),
        throttled_ns=(elapsed * throttled).astype(np.int64),
        frequency_hz=np.resize(np.asarray(frequency_hz, dtype=np.int64), time_ns.shape),
        cores=cores,
        machine_cores=int(cores) if of_machine is None else of_machine,
        limited=limited,
    )


def launch(
    of: Samples,
    *,
    seconds: float = 3.0,
    start_ns: int = START_NS,
    used: Usage | None = None,
    stats: PatternStats | None = None,
    cpu_ns: int = 0,
    cold_start_ns: int | None = 900 * MS,
    request_bytes: Sequence[int] = (200,),
    open_loop: bool = False,
) -> Launch:
    """One launch of these samples; ``cpu_ns`` is what the load generator used."""
    return Launch(
        samples=of,
        window=Window(start_ns, start_ns + int(seconds * S)),
        usage=used,
        stats=stats,
        warmup=Warmup(duration_ns=S // 2, requests=100, steady=True),
        generator=GeneratorReport(
            cpu_ns=cpu_ns, wall_ns=int(seconds * S), completed=int(of.done_ns.size), connections=8
        ),
        cold_start_ns=cold_start_ns,
        request_bytes=np.asarray(request_bytes, dtype=np.int64),
        open_loop=open_loop,
    )


def even_launch(
    rate_rps: float = 200.0, latency_ns: ArrayLike = 4 * MS, *, seconds: float = 3.0, used: Usage | None = None
) -> Launch:
    """Requests at even intervals, from half a second before the window until it ends, all of one latency."""
    interval = S / rate_rps
    count = int((seconds + 0.5) * rate_rps)
    due = START_NS - S // 2 + np.round(np.arange(count) * interval).astype(np.int64)
    return launch(samples(due, latency_ns), seconds=seconds, used=used)


def noisy_launch(seed: int, *, rtm_ns: float = 4 * MS, rate_rps: float = 200.0, seconds: float = 3.0) -> Launch:
    """A lively launch: lognormal latencies, blocks that drift by 4 %, a 500 and a time-out now and then."""
    rng = np.random.default_rng(seed)
    count = int((seconds + 0.5) * rate_rps)
    due = START_NS - S // 2 + np.round(np.arange(count) * S / rate_rps).astype(np.int64)
    block = (np.arange(count) * 4 / rate_rps).astype(np.int64)
    drift = np.exp(rng.normal(0, 0.04, size=int(block.max()) + 1))[block]
    latency = rtm_ns * drift * np.exp(rng.normal(0, 0.2, size=count))
    outcome = rng.choice([200, 500, -1], p=[0.99, 0.007, 0.003], size=count)
    return launch(
        samples(due, latency.astype(np.int64), outcome=outcome, request=np.arange(count) % 2),
        seconds=seconds,
        used=usage(seconds=seconds, limited=True),
        stats=PatternStats(replica_requests=(300, 100), layers=(*LAYERS, WIRE)),
        request_bytes=(180, 220),
    )


def launch_values(
    rng: np.random.Generator,
    true_value: float,
    launches: int,
    *,
    launch_sd: float = 0.017,
    block_cv: float = 0.04,
    blocks: int = 12,
) -> list[LaunchValue]:
    """What launches of one deployment give: its true value, moved by the launch and by the mean of its blocks."""
    error = block_cv / np.sqrt(blocks)
    moved = true_value * np.exp(rng.normal(0, launch_sd, launches) + rng.normal(0, error, launches))
    return [LaunchValue(float(value), float(error)) for value in moved]


def capacity(nmrt_rps: float = 400.0, *, at_least: bool = False, objective: str | None = None) -> Capacity:
    """A capacity search over three steps, which found this rate with four requests in flight."""
    ladder = tuple(
        Step(concurrency, (rate, rate * 1.01, rate * 0.99), 10.0 * MS, 0.0, None, 0.1 * concurrency, 2**28)
        for concurrency, rate in ((1, nmrt_rps / 4), (2, nmrt_rps / 2), (4, nmrt_rps))
    )
    return Capacity(
        nmrt=LaunchValue(nmrt_rps, 0.01),
        concurrency=4,
        ladder=ladder,
        stopped="two doublings gained less than 10 %",
        at_least=at_least,
        objective=None if objective is None else parse_objective(objective),
        asl=LaunchValue(0.4, 0.02),
        peak_rss_bytes=2**28,
        cores=2,
        limited=True,
    )


def latencies(rtm_ns: float, requests: int = 2000) -> NDArray[np.int64]:
    """Latencies of a lively service with a tail, always the same ones, around a median."""
    rng = np.random.default_rng(7)
    body = rtm_ns * np.exp(rng.normal(0, 0.25, size=requests))
    return (body * np.where(rng.random(requests) < 0.03, 3.0, 1.0)).astype(np.int64)


@cache
def _latency(rtm_ns: float) -> Latency | None:
    """The summary of these latencies, which takes longer than all else of a result."""
    return latency_of(latencies(rtm_ns))


def counterpart(rtm_ns: float = 2_100_000.0, kind: str = "baseline") -> Reference:
    """What a result is compared with: a baseline entry, or a revision beside which the present was measured again."""
    name = "perf-baseline.json, 2026-11-20 (1a2b3c4)" if kind == "baseline" else "main (05428cb)"
    figures = {"rtm": (rtm_ns, 0.99 * rtm_ns, 1.01 * rtm_ns), "throughput": (2450.0, 2400.0, 2500.0)}
    told = stored_percentiles(_latency(rtm_ns))
    if kind == "baseline":
        return Reference("baseline", name, figures, told, recorded_commit="1a2b3c4")
    slower = {"rtm": (2 * rtm_ns, 1.98 * rtm_ns, 2.02 * rtm_ns)}
    beside = Beside(slower, stored_percentiles(_latency(2 * rtm_ns)))
    return Reference("revision", name, figures, told, beside)


def make_setup(
    pattern: str = "replicated(replicas=3)",
    load: str = "closed(8)",
    wire: str = "rest+json",
    payload: str = "sha256:0123456789abcdef",
    model: str = "",
) -> Setup:
    """A set-up from the texts that a file holds."""
    return Setup.from_json({"pattern": pattern, "load": load, "wire": wire, "payload": payload, "model": model})


SETUP = make_setup()
CHANGED_FACTS = (
    FactChange("OMP_NUM_THREADS", None, "8"),
    FactChange("torch threads", "8", "1"),
    FactChange("memory limit", "none", "2.00 GiB"),
    FactChange("BLAS", "openblas 0.3.27 Haswell pthreads", "mkl 2024.2-Product, openblas 0.3.27 Haswell pthreads"),
    FactChange("package numpy", "1.26.4", "2.1.0"),
    FactChange("package orjson", "3.10.1", None),
    FactChange("kernel", "Linux 6.1.0", "Linux 6.8.0"),
    FactChange("libc", "glibc 2.36", "glibc 2.39"),
)


PARTS = ("definition", "judged", "measured", "conditions", "limits", "causes")
"""Parts of a result whose fields tests name as if they were its own, as JSON does."""


def changed(found: TestResult, **changes: object) -> TestResult:
    """A result with other values, by the names of its fields and of those of its parts."""
    own = {name: changes.pop(name) for name in found.__struct_fields__ if name in changes}
    for part_name in PARTS:
        part = getattr(found, part_name)
        given = {name: changes.pop(name) for name in part.__struct_fields__ if name in changes}
        own[part_name] = replace(own.get(part_name, part), **given)  # type: ignore[type-var]
    assert not changes, f"a result has no {list(changes)}"
    return replace(found, **own)  # type: ignore[arg-type]


def result(test: str = "test_perf.py::test_digits", **changes: object) -> TestResult:
    """A passing result of two launches; ``changes`` replace fields of it and of its parts."""
    whole = TestResult(
        test=test,
        setup=SETUP,
        metrics={
            "rtm": (4_120_000.0, 4_050_000.0, 4_190_000.0),
            "p95": (9_870_000.0, 9_500_000.0, 10_300_000.0),
            "throughput": (1234.4, 1200.0, 1270.0),
            "error_rate": (0.0, 0.0, 0.0005),
            "asl": (0.512, 0.48, 0.54),
            "cpu_per_request": (830_000.0, 810_000.0, 850_000.0),
            "peak_memory": (256.0 * 2**20, 255.0 * 2**20, 257.0 * 2**20),
        },
        verdicts=(),
        reference=None,
        stream=None,
        definition=Definition(group=test.partition("[")[0], location=Location(test.partition("::")[0], 12)),
        judged=Judged(passed=True),
        measured=Measured(
            launches={
                "rtm": ((4_100_000.0, 0.011), (4_140_000.0, 0.012)),
                "throughput": ((1240.1, 0.01), (1228.7, 0.009)),
            },
            launch_count=2,
            blocks=24,
            seconds_spent=8.64,
            requests=7406,
            failed_requests={},
            latency=_latency(4_120_000),
        ),
        conditions=Conditions(
            load_over_time=tuple((s / 4, 0.5 + 0.02 * (s % 3), 0.6 + 0.03 * (s % 4)) for s in range(1, 13)),
            memory_over_time=tuple((s / 4, (250 + s % 6) * 2.0**20) for s in range(1, 13)),
            warmups=(Warmup(S // 2, 600, True), Warmup(3 * S // 4, 900, True)),
            generator={"cpu_ns_per_request": 18_400.0, "send_lag_p99_ns": None, "limited": False},
        ),
        limits=Limits(),
        causes=CauseRecord(),
    )
    return changed(whole, **changes)


def verdict(
    outcome: Outcome, metric: str = "rtm", against: str = "baseline", change: tuple[float, float, float] | None = None
) -> Verdict:
    """A verdict with a reason that says where it stands in a report."""
    reason = f"{metric} against its {against}: {outcome}"
    return Verdict(metric, against, outcome, reason, None if change is None else Estimate(*change))  # type: ignore[arg-type]
