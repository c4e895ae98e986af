"""Golden files, and the declared results that the reports are made of."""

import os

from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import LOCATIONS, METRICS
from pytest_mlpatterns.analysis.verdicts.tolerances import with_medians
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change, judge_limit
from pytest_mlpatterns.records.launch import Busy, Estimate, LaunchValue, Noise
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import BaselineGap
from pytest_mlpatterns.records.verdict import LeftOut, Outcome, Verdict
from support import TESTS
from support.synthetic import CHANGED_FACTS, MS, capacity, counterpart, make_setup, result

GOLDEN = TESTS / "golden"


def check_golden(name: str, text: str) -> None:
    """Compare with a golden file, or renew it where the environment asks for that: read the difference then."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{name} differs; if that is meant, renew it: UPDATE_GOLDEN=1"


def launches(*values: float) -> list[LaunchValue]:
    return [LaunchValue(value, 0.01) for value in values]


def moved(*now_ms: float) -> Verdict:
    """The verdict on RTM by these means of the launches; each median is 3 % lower."""

    def sides(factor: float) -> tuple[list[LaunchValue], list[LaunchValue]]:
        return launches(*(factor * MS * one for one in now_ms)), launches(*(factor * MS * one for one in BEFORE_MS))

    now, before = sides(1.0)
    verdict = judge_change(LOCATIONS["rtm"], now, before, tolerance=0.10)
    now, before = sides(0.97)
    return with_medians(verdict, METRICS["rtm"], before=before, now=now)


BEFORE_MS = (4.1, 4.2, 4.1)
SLOWER = moved(5.6, 5.7)
LESS = judge_change(METRICS["throughput"], launches(900, 910), launches(1240, 1250, 1230), tolerance=0.10)
OPEN = moved(4.4, 4.6)
SAME = moved(4.1, 4.15)
TAIL = Verdict(
    "p99",
    "baseline",
    Outcome.INCONCLUSIVE,
    "p99 latency 2.00 ms → 3.00 ms: +50 %; tolerance 20.0 %",
    Estimate(0.5, 0.1, 1.0),
    tolerance=0.2,
    reference_value=2.0 * MS,
    present_value=3.0 * MS,
)
LIKELY = moved(4.1, 9.0)
FASTER = moved(2, 2.1)
WITHIN = judge_limit(METRICS["rtm"], Estimate(4.12 * MS, 4.05 * MS, 4.19 * MS), 20 * MS)
BEYOND = judge_limit(METRICS["rtm"], Estimate(4.12 * MS, 4.05 * MS, 4.19 * MS), 4 * MS)


def everything() -> list[TestResult]:
    """One result for each thing that the summary can say."""
    few = {"rtm": (250 * MS, 240 * MS, 262 * MS), "throughput": (3.98, 3.9, 4.1)}
    return [
        result("test_perf.py::test_passes", verdicts=(SAME, WITHIN)),
        result("test_perf.py::test_is_slower", passed=False, verdicts=(SLOWER, LESS)),
        result("test_perf.py::test_is_open[replicated(replicas=3)]", verdicts=(OPEN,)),
        result("test_perf.py::test_is_faster", verdicts=(FASTER,)),
        result(
            "test_perf.py::test_has_a_tail",
            verdicts=(SAME, TAIL),
            reference=replace(counterpart(4.0 * MS), launches=6),
            not_compared={"peak memory": LeftOut("not recorded yet")},
        ),
        result(
            "test_perf.py::test_is_probably_slower",
            verdicts=(LIKELY,),
            reference=counterpart(),
            busy=Busy(1.6, cores=2),
            probably_slower=("rtm",),
        ),
        result("test_perf.py::test_is_new", baseline_note="no baseline", baseline_gap=BaselineGap.ABSENT),
        result(
            "test_perf.py::test_was_recorded_elsewhere",
            baseline_note="baseline not comparable (load: a → b)",
            baseline_gap=BaselineGap.NOT_COMPARABLE,
            facts_changed=CHANGED_FACTS[:2],
        ),
        result("test_perf.py::test_with_few_requests", metrics=few, requests=12, notes=("a first note", "a second")),
        result("test_perf.py::test_without_success", passed=False, metrics={"error_rate": (1.0, 0.97, 1.0)}),
        result("test_perf.py::test_interrupted", passed=False, interrupted=True),
        result("tests/deep/er/test_a_module_of_a_long_name.py::TestSuite::test_of_a_long_name_too[single]"),
    ]


def searched() -> list[TestResult]:
    """Results of which some searched for what is sustained, under two wires."""
    nmrt = {**result().metrics, "nmrt": (400.0, 390.0, 410.0)}
    kept = {**result().metrics, "nmrt(p95<50.0ms)": (380.0, 370.0, 390.0)}
    other = make_setup(pattern="cached(max_entries=10)|batched(max_batch_size=8)", wire="rest+msgpack")
    return [
        result("test_perf.py::test_found", metrics=nmrt, capacities=(capacity(400),), verdicts=(SAME,)),
        result("test_perf.py::test_kept", metrics=kept, capacities=(capacity(380, objective="p95<50.0ms"),)),
        result("test_perf.py::test_bound", capacities=(capacity(12_345, at_least=True),), setup=other),
        result("test_perf.py::test_without", noise=(Noise("another process used 40 % of the machine"),)),
    ]
