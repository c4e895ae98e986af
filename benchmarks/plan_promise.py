"""Whether a plan keeps its promise: the change that it calls seen in 95 % of runs, in runs that it does not know.

    python benchmarks/plan_promise.py [RESULTS] [--sittings N] [--report]

Ten services sleep for times of a declared scatter: from launch to launch, from request to request, and in some launches
much longer. pytest measures each of them in several sittings; every sitting is one line of RESULTS (JSON lines), and
the benchmark goes on where it stopped last. The plan knows the first three sittings. Runs are replayed from the others:
launches of one of them are the stored baseline, launches of another one the run, with times that are longer by the
change; or pairs are drawn. The verdict functions of the plugin judge them launch by launch. ``measure()`` does the same
with drawn launches, many plans each, which takes no service.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bench import HERE, Claim, Table
from peers.slow_projects import Project
from plugin_runs import Records, run_pytest

from pytest_mlpatterns.analysis.metrics.definitions import LOCATIONS
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, judge_ratio
from pytest_mlpatterns.analysis.statistics.looks import (
    BASELINE_ALPHA,
    CONFIRMING_LAUNCHES,
    CONFIRMING_PAIRS,
    FEWEST_PAIRS,
    REVISION_ALPHA,
    looks_beside_entry,
    looks_of_pairs,
    looks_that_fit,
)
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change
from pytest_mlpatterns.history.plan import Sitting, TestFacts, plan_of
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
    from pytest_mlpatterns.records.plan import Seen

CLAIM = (
    "a change that a plan calls seen in 95 % of runs fails in at least 85 of 100 replayed runs, for each of ten tests "
    "of different noise, against a stored baseline and against a revision"
)
PLACE = HERE / ".environments" / "plan_promise"
TOLERANCE = 0.10
PRIMARY = 2
"""Metrics that share the probability of a false alarm: RTM and throughput."""
RECORDED, LAUNCHES, PAIRS = 8, 8, 6
KNOWN = 3
"""Sittings that the plan knows, at most half of them."""
FEWEST = 5
"""Launches of a sitting from which runs are drawn from it; a busy machine gives fewer in the budget."""
REPLAYED = 100
SITTINGS = 7
METRIC = "rtm"


@dataclass(frozen=True)
class Noise:
    """A service that sleeps.

    Attributes:
        label: in tables, and the id of its test.
        time_s: of an answer.
        launch_sd: standard deviation of the logarithm from launch to launch.
        request_sd: the same from request to request.
        disturbed: share of launches that take a fifth longer.
        sitting_sd: standard deviation from sitting to sitting; of drawn launches only.
    """

    label: str
    time_s: float = 0.004
    launch_sd: float = 0.0
    request_sd: float = 0.02
    disturbed: float = 0.0
    sitting_sd: float = 0.0


NOISES = (
    Noise("steady"),
    Noise("half-a-percent", launch_sd=0.005),
    Noise("one-percent", launch_sd=0.01),
    Noise("two-percent", launch_sd=0.02),
    Noise("three-percent", launch_sd=0.03),
    Noise("five-percent", launch_sd=0.05),
    Noise("eight-percent", launch_sd=0.08),
    Noise("requests-differ", request_sd=0.4),
    Noise("slow-and-uneven", time_s=0.02, request_sd=0.3, launch_sd=0.01),
    Noise("disturbed", launch_sd=0.01, disturbed=0.15),
)
_SERVICE = '''
"""Services that sleep for times of a declared scatter."""

import math
import random
import time

NOISES = {NOISES}


class Sleeper:
    def __init__(self, label):
        self.label, self.draw = label, None

    def __call__(self, batch):
        time_s, launch_sd, request_sd, disturbed = NOISES[self.label]
        if self.draw is None:
            self.draw = random.Random()
            self.factor = math.exp(self.draw.gauss(0, launch_sd)) * (1.2 if self.draw.random() < disturbed else 1)
        for _ in batch:
            time.sleep(time_s * self.factor * math.exp(self.draw.gauss(0, request_sd)))
        return batch
'''
_TEST = """
import pytest
from sleeping import NOISES, Sleeper


@pytest.fixture
def perf_model(label):
    return Sleeper(label)


@pytest.fixture
def perf_payload():
    return [1.0, 2.0, 3.0]


@pytest.mark.perf(concurrency=2, duration="400ms", warmup="100ms")
@pytest.mark.parametrize("label", NOISES)
def test_sleeping(perf):
    pass
"""


def project() -> Project:
    """The project with a test for each service."""
    noises = {one.label: (one.time_s, one.launch_sd, one.request_sd, one.disturbed) for one in NOISES}
    texts = {
        "pytest.ini": "[pytest]\npythonpath = .\n",
        ".gitignore": "__pycache__/\n.pytest_cache/\n*.json\n",
        "sleeping.py": _SERVICE.replace("{NOISES}", repr(noises)).lstrip(),
        "test_sleeping.py": _TEST.lstrip(),
    }
    return Project(PLACE / "project", texts)


# --- a run, judged ----------------------------------------------------------------------------------------------------


def fails_beside_entry(entry: Sitting, run: Sitting, change: float) -> bool:
    """Whether a run with a change fails, judged after each launch as a comparison with a stored baseline is."""
    shift = math.log1p(change)
    then = [LaunchValue(math.exp(level), error) for level, error in entry]
    now = [LaunchValue(math.exp(level + shift), error) for level, error in run]
    looks = looks_beside_entry(len(then), launches=LAUNCHES, alpha=BASELINE_ALPHA / PRIMARY)
    for number in range(1, len(now) + 1):
        outcome = judge_change(LOCATIONS[METRIC], now[:number], then, tolerance=TOLERANCE, plan=looks).outcome
        if outcome is Outcome.PASS or (outcome is Outcome.FAIL and number >= CONFIRMING_LAUNCHES):
            return outcome is Outcome.FAIL
    return False


def looks_of_run(pairs: int) -> SequentialPlan:
    """The looks at this many pairs."""
    looks = looks_of_pairs(TOLERANCE, REVISION_ALPHA / PRIMARY, 30 * 10**9)
    return replace(looks_that_fit(looks, pairs * 10**9, 1.0), pass_alpha=REVISION_ALPHA)


def fails_beside_revision(pairs: Sitting, change: float) -> bool:
    """Whether paired launches with a change fail, judged as a comparison with a revision is."""
    found = [LogRatio(level + math.log1p(change), error) for level, error in pairs]
    looks = looks_of_run(len(found))
    for number in range(FEWEST_PAIRS, len(found) + 1):
        since = 1 if number < CONFIRMING_PAIRS else CONFIRMING_PAIRS
        verdict = judge_ratio(found[:number], 1 + TOLERANCE, "lower", plan=looks)
        if verdict.outcome is Outcome.FAIL and verdict.launches < CONFIRMING_PAIRS <= number:
            verdict = judge_ratio(found[:number], 1 + TOLERANCE, "lower", plan=replace(looks, since=since))
        if verdict.outcome is Outcome.FAIL and number < CONFIRMING_PAIRS <= len(found):
            continue
        if verdict.outcome is not Outcome.INCONCLUSIVE:
            return verdict.outcome is Outcome.FAIL
    return False


def facts_of(label: str, sittings: Sequence[Sitting], pairs: Sequence[Sitting]) -> TestFacts:
    """What a plan knows: launches of some sittings, and pairs."""
    name = LOCATIONS[METRIC].name
    return TestFacts(
        test=label,
        tolerances={METRIC: TOLERANCE, "throughput": TOLERANCE},
        launches={
            METRIC: tuple(sittings),
            name: tuple(sittings),
            "throughput": tuple(tuple((-level, error) for level, error in one) for one in sittings),
        },
        pairs={METRIC: tuple(pairs), name: tuple(pairs)} if pairs else {},
        budget_ns=30 * 10**9,
        launch_s=30 / LAUNCHES,
        pair_s=30 / PAIRS,
        recorded=RECORDED,
    )


def promised(facts: TestFacts) -> tuple[Seen, Seen]:
    """What is called seen of RTM, against a stored baseline and against a revision."""
    plan = plan_of(facts)
    assert plan is not None
    metric = plan.metrics[0]
    assert metric.file is not None
    assert metric.revision is not None
    return metric.file, metric.revision


# --- drawn launches ---------------------------------------------------------------------------------------------------

PLANS, RUNS = 25, 20
KEPT = 0.85
"""Share of runs that a plan should keep its promise in."""
DRAWN = (
    *NOISES[:7],
    Noise("requests differ", launch_sd=0.01, request_sd=0.4),
    Noise("disturbed launches", launch_sd=0.01, disturbed=0.1),
    Noise("sittings differ by 3 %", launch_sd=0.01, sitting_sd=0.03),
)
_REQUESTS = 100
"""Requests of a drawn launch, whose error follows from them."""


def drawn(draw: np.random.Generator, noise: Noise, launches: int, *, is_paired: bool = False) -> Sitting:
    """One sitting of launches, or of pairs."""
    error = noise.request_sd / math.sqrt(_REQUESTS)
    factor = math.sqrt(2) if is_paired else 1.0
    shift = 0.0 if is_paired else draw.normal(0, noise.sitting_sd)
    levels = shift + factor * draw.normal(0, math.hypot(noise.launch_sd, error), launches)
    levels += (draw.random(launches) < noise.disturbed) * math.log(1.2)
    levels += 0.0 if is_paired else math.log(1e9 * noise.time_s)
    return tuple((float(level), factor * error) for level in levels)


def measure() -> Iterator[Table]:
    """Plans of drawn launches, and runs that they do not know."""
    rows: list[Sequence[str]] = []
    caught: list[tuple[float, float]] = []
    for noise in DRAWN:
        draw = np.random.default_rng(6)
        shares = np.array([_of_one_plan(draw, noise) for _ in range(PLANS)])
        seen_file, seen_revision, file, half_file, revision, half_revision = np.nanmean(shares, axis=0).tolist()
        caught.append((file, revision))
        kept = np.mean(shares[:, [2, 4]] >= KEPT, axis=0).tolist()
        cells = [f"+{100 * seen_file:.0f} %", f"{100 * file:.0f}", f"{100 * half_file:.0f}", f"{100 * kept[0]:.0f}"]
        cells += [f"+{100 * seen_revision:.0f} %", f"{100 * revision:.0f}", f"{100 * half_revision:.0f}"]
        rows.append((noise.label, *cells, f"{100 * kept[1]:.0f}"))
    yield Table(
        f"drawn launches, {PLANS} plans and {RUNS} runs of each: the mean change that is called seen, and percent of "
        f"runs that fail with it, and with half of it; and percent of plans with which {100 * KEPT:.0f} % do",
        ("test", "file: seen", "fail", "half", "kept", "revision: seen", "fail", "half", "kept"),
        rows,
        [
            Claim("drawn, stored baseline, worst of ten: FAIL of what is called seen", min(caught)[0], at_least=0.85),
            Claim("drawn, revision, worst of ten: FAIL", min(one for _, one in caught), at_least=0.85),
        ],
    )


_HEADINGS = ("test", "file: seen", "fail", "with half", "revision: seen", "fail", "with half")


def _of_one_plan(draw: np.random.Generator, noise: Noise) -> tuple[float, ...]:
    """What a plan calls seen, and the shares of runs that fail with it and with half of it."""
    sittings = [drawn(draw, noise, LAUNCHES) for _ in range(KNOWN)]
    pairs = [drawn(draw, noise, 3, is_paired=True) for _ in range(KNOWN)]
    file, revision = (one.change or math.nan for one in promised(facts_of(noise.label, sittings, pairs)))
    by_file = [
        np.mean(
            [
                fails_beside_entry(drawn(draw, noise, RECORDED), drawn(draw, noise, LAUNCHES), share * file)
                for _ in range(RUNS)
            ]
        )
        for share in (1.0, 0.5)
    ]
    by_pairs = [
        np.mean(
            [fails_beside_revision(drawn(draw, noise, PAIRS, is_paired=True), share * revision) for _ in range(RUNS)]
        )
        for share in (1.0, 0.5)
    ]
    return (file, revision, *map(float, by_file), *map(float, by_pairs))


# --- measured launches ------------------------------------------------------------------------------------------------


def record(records: Records, sittings: int) -> None:
    """Measure until there are this many sittings, each of all tests alone and of all beside the commit."""
    laid_out = project()
    laid_out.lay_out()
    while len(records.of("sitting")) < sittings:
        number = len(records.of("sitting"))
        baseline = PLACE / f"baseline-{number}.json"
        alone = run_pytest(laid_out.top, "--perf-baseline", "update", f"--perf-baseline-file={baseline}")
        beside = run_pytest(laid_out.top, "--perf-against", "HEAD", "--perf-budget", "9s", "--perf-tolerance", "0.5%")
        baseline.unlink(missing_ok=True)
        tests = {_label(one): one["launches"] for one in alone.results}
        pairs = {_label(one): one["reference"]["log_ratios"] for one in beside.results if one["reference"]}
        records.add({"kind": "sitting", "launches": tests, "pairs": pairs, "wall_s": [alone.wall_s, beside.wall_s]})
        print(f"sitting {number + 1} of {sittings}: {alone.wall_s:.0f} s and {beside.wall_s:.0f} s", flush=True)


def _label(result: dict[str, Any]) -> str:
    return str(result["test"].partition("[")[2].rstrip("]"))


def report(records: Records) -> Table:
    """What the plans of the first sittings promise, and what became of it in runs replayed from the others."""
    rows: list[Sequence[str]] = []
    worst = [1.0, 1.0]
    sittings = records.of("sitting")
    first = min(KNOWN, len(sittings) // 2)
    for noise in NOISES:
        draw = np.random.default_rng(8)
        launches = [_launches_of(one, noise.label) for one in sittings]
        pairs = [_pairs_of(one, noise.label) for one in sittings]
        seen = promised(facts_of(noise.label, launches[:first], pairs[:first]))
        others = [one for one in launches[first:] if len(one) >= FEWEST]
        cells: list[str] = []
        for place, change in enumerate(one.change for one in seen):
            if change is None or len(others) < 2:
                cells += ["–", "", ""]
                continue
            full, half = (
                _replayed_pairs(draw, [pair for one in pairs[first:] for pair in one], share * change)
                if place
                else _replayed_files(draw, others, share * change)
                for share in (1.0, 0.5)
            )
            worst[place] = min(worst[place], full)
            cells += [f"+{100 * change:.0f} %", f"{100 * full:.0f}", f"{100 * half:.0f}"]
        rows.append((noise.label, *cells))
    title = (
        f"ten services, {len(sittings)} sittings, plans of the first {first}: what is called seen, and how many of "
        f"{REPLAYED} replayed runs fail with it, and with half of it"
    )
    claims = [
        Claim("measured, stored baseline, worst of ten: FAIL of what is called seen", worst[0], at_least=0.85),
        Claim("measured, revision, worst of ten: FAIL", worst[1], at_least=0.85),
    ]
    return Table(title, _HEADINGS, rows, claims)


def _launches_of(record: dict[str, Any], label: str) -> Sitting:
    return tuple((math.log(value), error) for value, error in record["launches"][label][LOCATIONS[METRIC].name])


def _pairs_of(record: dict[str, Any], label: str) -> Sitting:
    return tuple((level, error) for level, error in record["pairs"].get(label, {}).get(LOCATIONS[METRIC].name, ()))


def _replayed_files(draw: np.random.Generator, sittings: Sequence[Sitting], change: float) -> float:
    """The share of runs that fail: the entry has launches of one sitting, and the run those of another one."""
    failed = 0
    for _ in range(REPLAYED):
        entry, run = (sittings[one] for one in draw.choice(len(sittings), 2, replace=False).tolist())
        failed += fails_beside_entry(_drawn_from(draw, entry, RECORDED), _drawn_from(draw, run, LAUNCHES), change)
    return failed / REPLAYED


def _replayed_pairs(draw: np.random.Generator, pairs: Sequence[tuple[float, float]], change: float) -> float:
    """The share of runs of drawn pairs that fail; both sides are alike, so that chance decides which one is first."""
    failed = 0
    for _ in range(REPLAYED):
        signs = draw.choice((-1.0, 1.0), PAIRS).tolist()
        run = _drawn_from(draw, pairs, PAIRS)
        failed += fails_beside_revision(
            tuple((sign * level, error) for sign, (level, error) in zip(signs, run, strict=True)), change
        )
    return failed / REPLAYED


def _drawn_from(draw: np.random.Generator, launches: Sequence[tuple[float, float]], count: int) -> Sitting:
    """Launches drawn with replacement."""
    return tuple(launches[one] for one in draw.integers(0, len(launches), count).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether a plan keeps its promise, with services that sleep.")
    parser.add_argument("results", nargs="?", type=Path, default=PLACE / "results.jsonl", help="of the sittings")
    parser.add_argument("--sittings", type=int, default=SITTINGS, help="how many are measured (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="measure nothing more")
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    records = Records(options.results)
    if not options.report:
        record(records, options.sittings)
    for table in (*measure(), report(records)):
        print(f"{table}\n", flush=True)


if __name__ == "__main__":
    main()
