"""Seeded results with one of each thing that the HTML report can show, and a reader of pages."""

from collections.abc import Sequence
from html.parser import HTMLParser

from msgspec.structs import replace

from pytest_mlpatterns.records.capacity import (
    Behaviour,
    Overload,
    OverloadStep,
    ScaleOutRecord,
    ScalingRecord,
    ScalingStepRecord,
)
from pytest_mlpatterns.records.launch import Estimate, Noise
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import BaselineGap
from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict
from pytest_mlpatterns.reports.files.result_file import read_results, results_json
from pytest_mlpatterns.reports.html.page import html_report
from support.profiles import slower_normalize
from support.splits import split
from support.streams import stream_result
from support.synthetic import (
    CHANGED_FACTS,
    ENVIRONMENT,
    LAYERS,
    MS,
    SETUP,
    S,
    capacity,
    changed,
    counterpart,
    make_setup,
    result,
    verdict,
)

HOSTILE = "</script><script>alert('&\"')</script><!--<img src=x onerror=alert(1)>"
"""What a user may have written, by mistake or not."""

_SLOWER = verdict(Outcome.FAIL, change=(0.96, 0.9, 1.02))
_FASTER = verdict(Outcome.PASS, against="revision", change=(-0.51, -0.55, -0.47))
_TAIL = Verdict(
    "p99", "baseline", Outcome.INCONCLUSIVE, "p99 may be worse", Estimate(0.5, 0.1, 1.0), 0.2, 9.0 * MS, 13.5 * MS
)
_ERRORS = Verdict(
    "error_rate", "baseline", Outcome.FAIL, "more requests fail", Estimate(0.03, 0.02, 0.04), 0.001, 0.0, 0.03
)
_MEMORY = Verdict(
    "peak_memory", "baseline", Outcome.PASS, "memory is alike", Estimate(0.02, 0.01, 0.03), 0.15, 2.0**28, 1.02 * 2**28
)
_OPEN = verdict(Outcome.INCONCLUSIVE, change=(0.08, -0.01, 0.17))
_COMPARED = {
    "passed": False,
    "reference": replace(
        counterpart(), launches=6, split={"rtm": split({"wire": 0.1 * MS, "model_cpu": 1.3 * MS, "socket": 0.7 * MS})}
    ),
    "split": {"rtm": split({"wire": 0.12 * MS, "model_cpu": 3.1 * MS, "queue_wait": 0.1 * MS, "socket": 0.8 * MS})},
    "capacities": (capacity(),),
    "not_compared": {"response size": LeftOut("not recorded yet")},
    "facts": {"OMP_NUM_THREADS": "8", "package numpy": "2.1.0", "kernel": "Linux 6.8.0"},
    "facts_changed": CHANGED_FACTS,
    "profile": slower_normalize(),
}
_STAGES = LayerStats(3, "pipeline", {}, {"stage:clean": {MS // 3: 90, MS: 10}, "stage:model": {4 * MS: 80, 9 * MS: 20}})

RANKING = (
    {
        "group": "test_perf.py::test_digits",
        "weights": {"rtm": 0.5, "nmrt": 0.3, "asl": 0.2},
        "requirements": ["rtm<20ms"],
        "sentence": "cached first; then batched and single",
        "notes": ["not known under any pattern, and left out of the weights: hop"],
        "rows": [
            {
                "test": f"test_perf.py::test_digits[{pattern}]",
                "pattern": pattern,
                "rank": rank,
                "score": [score, score - 0.1, score + 0.05] if score is not None else None,
                "parts": {"rtm": [0.9, 0.5], "nmrt": [0.8, 0.3]},
                "excluded": excluded,
                "doubts": [f"NMRT of {pattern} is only known to be at least 400 req/s"] if rank == 1 else [],
            }
            for pattern, rank, score, excluded in (
                ("cached", 1, 0.9, None),
                ("batched", 2, 0.6, None),
                ("single", 3, 0.55, None),
                ("queued", None, None, "median latency 31.0 ms is not below 20.0 ms"),
            )
        ],
    },
)


def _offered(load_ratio: float, goodput_ratio: float) -> OverloadStep:
    """One load on a service with an NMRT of 200 requests per second; it refuses what it cannot serve."""
    in_time = goodput_ratio / load_ratio
    shares = {"late_ratio": 0.0, "timed_out_ratio": 0.0, "failed_ratio": 0.0}
    return OverloadStep(
        load_ratio=load_ratio,
        offered_rps=200 * load_ratio,
        requests=round(400 * load_ratio),
        goodput_rps=200 * goodput_ratio,
        goodput_error_rps=2.0,
        in_time_ratio=in_time,
        rejected_ratio=1 - in_time,
        p99_ns=40.0 * MS,
        limited=None,
        busy=None,
        **shares,
    )


OVERLOAD = Overload(
    nmrt_rps=200.0,
    limit_ns=200.0 * MS,
    steps=(_offered(0.5, 0.5), _offered(1.0, 0.99), _offered(2.0, 0.97)),
    back=_offered(0.8, 0.8),
    recovery_ns=0.0,
    watched_ns=6.0 * S,
    behaviour=Behaviour.SHEDS,
)
SCALING = ScalingRecord(
    steps=tuple(
        ScalingStepRecord(
            replicas,
            4.0 * replicas,
            {
                "nmrt": nmrt,
                "scaling_efficiency": efficiency,
                "asl": (0.51 * replicas / 2, 0.25 * replicas, 0.26 * replicas) if replicas > 1 else (0.51, 0.5, 0.52),
                "cost": (0.05, 0.048, 0.052),
            },
            0.6,
            "",
        )
        for replicas, nmrt, efficiency in (
            (1, (200.0, 196.0, 204.0), (1.0, 1.0, 1.0)),
            (2, (380.0, 370.0, 390.0), (0.95, 0.92, 0.98)),
        )
    ),
    law={"contention": (0.05, 0.02, 0.09)},
    peak_replicas=None,
    ended_by="",
    scale_out=ScaleOutRecord(
        (0.84 * S, 0.75 * S, 0.94 * S), (820_000_000, 860_000_000), 0.8 * S, 12.0 * MS, 45.0 * MS, 1234, 2, ""
    ),
)
EVALUATED = tuple(
    result(
        f"test_perf.py::test_digits[{name}]",
        setup=make_setup(name),
        overloads=(OVERLOAD,),
        scaling=SCALING,
        price=Price(0.0425, 0.0057, "USD"),
    )
    for name in ("cached", "batched")
)
"""One test under two patterns, which was loaded to its limit and beyond; :data:`RANKING` ranks it."""


def _streaming() -> TestResult:
    """Answers that came in pieces, beside a revision."""
    own = stream_result(capacities=(capacity(objective="ttft:p95<300ms"),))
    assert own.stream.ttft is not None
    revision = replace(counterpart(kind="revision"), stream_percentiles={"ttft": own.stream.ttft.percentiles})
    splits = {
        "ttft": split({"model_cpu": 150 * MS, "queue_wait": 20 * MS, "socket": 12 * MS}, metric="ttft"),
        "tpot": split({"model_cpu": 11 * MS, "server": 1.1 * MS}, metric="tpot"),
    }
    return changed(own, split=splits, reference=revision)


def everything() -> list[TestResult]:
    """Verdicts of every kind, compared with a baseline, a revision and nothing, with every chart, and hostile text."""
    of_digits = [
        result(
            f"test_perf.py::test_digits[{name}]",
            setup=make_setup(name, "closed(8)", "rest+json", SETUP.payload),
            verdicts=(verdict(Outcome.PASS, against="limit"), *more),
            metrics={**result().metrics, "nmrt": (400.0, 390.0, 410.0), "rtm": (rtm, 0.98 * rtm, 1.02 * rtm)},
            **changes,
        )
        for name, rtm, more, changes in (
            ("single", 4.12e6, (_SLOWER, _TAIL, _ERRORS, _MEMORY), _COMPARED),
            ("cached|batched|queued", 1.3e6, (_FASTER,), {"reference": counterpart(kind="revision"), "layers": LAYERS}),
            (
                "pipeline(stages=[clean, 'model'])",
                5.4e6,
                (),
                {"layers": (_STAGES,), "overloads": (OVERLOAD,), "scaling": SCALING},
            ),
        )
    ]
    few = {"rtm": (250 * MS, 240 * MS, 262 * MS)}
    nothing = {"latency": None, "launches": {}, "load_over_time": (), "memory_over_time": (), "location": None}
    return [
        *of_digits,
        result(
            "test_perf.py::test_is_open", verdicts=(_OPEN,), noise=(Noise("another process used 30 % of the machine"),)
        ),
        result(
            "test_perf.py::test_is_new", baseline_note="no baseline", baseline_gap=BaselineGap.ABSENT, notes=("a note",)
        ),
        result("test_perf.py::test_with_few_requests", metrics=few, requests=1, blocks=1, launch_count=1, **nothing),
        result("test_perf.py::test_fails", passed=False, metrics={}, failed_requests={"500": 7}, requests=7, **nothing),
        _streaming(),
        result("test_perf.py::test_interrupted", passed=False, interrupted=True, seconds_spent=1 * S / 1e9),
        result(f"test_perf.py::test_hostile[{HOSTILE}]", notes=(HOSTILE,), setup=make_setup(HOSTILE, "l", "w", "p")),
    ]


def report(results: Sequence[TestResult]) -> str:
    """The page of these results, by way of their file; with the ranking where there are several."""
    text = results_json(
        results,
        ENVIRONMENT,
        "2026-11-24T12:00:00+00:00",
        baseline={"mode": "check"},
        ranking=RANKING if len(results) > 2 else (),
    )
    return html_report(read_results(text))


class Reader(HTMLParser):
    """What a page is made of: its elements with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside != "style":
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name)) is not None]
