"""What tests assert: the arguments of the methods of ``perf``, read before anything is measured."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from pytest_mlpatterns import App
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.overload_assertions import ScalingAssertions
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.measurement.system_under_test import SystemUnderTest
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.serving.model import StartOptions
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.plan import LoadPlan
from pytest_mlpatterns.workload.schedule import PoissonRate
from support.fuzz import Area
from support.fuzz.hostile import value
from support.fuzz.settings import AMOUNTS, OBJECTIVES, PATTERNS, SHARES, SIZES, TIMES
from support.synthetic import S

METHODS = {
    "assert_rtm_below": ("limit",),
    "assert_latency_below": ("limit", "percentile"),
    "assert_throughput_at_least": ("rps",),
    "assert_asl_below": ("limit",),
    "assert_error_rate_below": ("limit",),
    "assert_peak_memory_below": ("limit",),
    "assert_cpu_per_request_below": ("limit",),
    "assert_that": ("text", "limits", "tolerance"),
    "assert_metric": ("name", "below"),
    "assert_no_leak": ("limit", "duration"),
    "assert_cold_start_below": ("limit",),
    "assert_cost_below": ("limit",),
    "assert_scaling_efficiency_at_least": ("limit", "replicas"),
    "assert_scale_out_below": ("limit",),
    "assert_cache_hit_ratio_at_least": ("limit",),
    "assert_nmrt_at_least": ("rps", "slo"),
    "assert_faster_than": ("other", "by", "on"),
    "assert_not_slower_than": ("other", "by", "on", "reference"),
    "assert_no_regression": ("metrics", "tolerance"),
}
_SEEDS = {
    "limit": (*TIMES, *SIZES, *SHARES, *AMOUNTS),
    "rps": SHARES,
    "by": SHARES,
    "slo": OBJECTIVES,
    "text": (*OBJECTIVES, "mean<1s, throughput>=1", "error_rate<1%"),
    "limits": (*OBJECTIVES, "limits.csv", "limits.toml"),
    "name": ("p95", "ttft:mean", "latency:p99", "nmrt"),
    "other": PATTERNS,
    "on": ("rtm", "throughput", "ttft", "nmrt"),
    "metrics": ("rtm", "p99"),
    "replicas": ("2", "64"),
    "tolerance": SHARES,
}


class Reading(Perf):
    """Reads its arguments, and measures nothing."""

    _nothing: Any = None

    def __init__(self) -> None:
        payload = read_payload([1])
        self._experiment: Any = SimpleNamespace(
            settings=replace(
                read_settings({}, {}, {}), schedule=PoissonRate(1), price=Price(0.04, 0.005, "USD"), cpus=2
            ),
            system=SystemUnderTest(App("service:app"), StartOptions(S, payload, Path("/"))),
            test="test_it.py::test_it[small-1]",
            setup=SimpleNamespace(pattern="single"),
            plan=LoadPlan(payload, PoissonRate(1), duration_ns=S, warmup_ns=0, timeout_ns=S, check=None),
            smoke=False,
            searches=(),
        )
        self._measurement: Any = SimpleNamespace(runner=SimpleNamespace(want_requests=lambda *_a, **_k: None))
        self._verdicts: Any = SimpleNamespace(
            ask=lambda _tolerances: None, all=[SimpleNamespace(outcome=None)], raised=[]
        )
        self._scaling = ScalingAssertions(self._experiment, self._nothing)

    def _settle_all(self, *_arguments: Any) -> None: ...

    def _compare(self, *_arguments: Any, **_options: Any) -> None: ...


def an_assertion(draw: random.Random) -> tuple[str, dict[str, Any]]:
    name = draw.choice(list(METHODS))
    required = METHODS[name][: 2 if name in ("assert_latency_below", "assert_scaling_efficiency_at_least") else 1]
    given = [argument for argument in METHODS[name] if argument in required or draw.random() < 0.5]
    return name, {argument: value(draw, _SEEDS.get(argument, TIMES)) for argument in given}


def read_assertion(case: tuple[str, dict[str, Any]]) -> None:
    name, arguments = case
    getattr(Reading(), name)(**arguments)


AREAS = (Area("assertions", 30_000, an_assertion, read_assertion, (SettingError,)),)
