"""Are changes of a history found where they are, and nowhere else? Courses whose truth is known, beside Apache Otava.

The generators of ``otava-test-data`` and Otava itself run in an environment of their own, which is made at the first
run. A change counts as found if it is reported within five points of its true place; each true change and each report
counts once. Both sides get the same series and the same count. An outlier is no change of the level, nor is another
variance.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from bench import HERE, Claim, Table
from environments import python_of
from msgspec import structs

from pytest_mlpatterns.analysis.changes.findings import find_changes
from pytest_mlpatterns.analysis.changes.series import Point, Segment, Series, series_of
from pytest_mlpatterns.records.history import CommitPosition, Course, HistoryLine, PairedRatio
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

    Levels = NDArray[np.float64]

CLAIM = (
    "changes are found at least as well as by Apache Otava on the same series, spikes are none, 10,000 unchanged "
    "courses have at most five, and ratios show a step that machines hide"
)
TOLERANCE = 5
"""Points by which a report may miss the true place."""
SEEDS = 20
SCATTER = 0.017
"""Scatter between runs, relative."""
RATIO_SCATTER = 0.008
"""Scatter of a ratio of interleaved launches, relative."""
FLEET = 0.15
"""Largest difference of a machine of the fleet from the usual one, relative."""
STATIONARY_TESTS, STATIONARY_METRICS, STATIONARY_RUNS = 1000, 10, 100
REPEATED, CORRELATED = 200, 500
METRIC = "of values"
"""A name without a floor: values of the generators have no unit."""


def commit(number: int) -> CommitPosition:
    return CommitPosition(f"{number:012x}", number + 1)


def course_of(values: Sequence[float] | Levels, test: str = "test", metric: str = METRIC) -> Series:
    """A course of values of one machine, one run a commit; the errors of the launches are not known."""
    points = tuple(Point(commit(place), "", math.log(value), 0.0) for place, value in enumerate(values))
    return Series(test, metric, "machine", Course.VALUES, points, (Segment(0, len(points)),))


def ours(values: Sequence[float] | Levels) -> list[int]:
    """Indices of the first points after our changes."""
    return [change.new.position - 1 for change in find_changes([course_of(values)])]


# --- truth ----------------------------------------------------------------------------------------------------------


@dataclass
class Score:
    """How many true changes were found, how many there are, and how many were reported."""

    right: int = 0
    true: int = 0
    reported: int = 0

    def add(self, truth: Sequence[int], found: Sequence[int]) -> None:
        """Count one series; the nearest pairs count first."""
        pairs = sorted((abs(one - other), one, other) for one in truth for other in found)
        matched: dict[int, int] = {}
        for distance, one, other in pairs:
            if distance <= TOLERANCE and one not in matched and other not in matched.values():
                matched[one] = other
        self.right += len(matched)
        self.true += len(truth)
        self.reported += len(found)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 1 if nothing is true and nothing was reported."""
        return 2 * self.right / (self.true + self.reported) if self.true + self.reported else 1.0

    def __str__(self) -> str:
        if not self.true:
            return f"{self.reported} false"
        return f"{self.f1:.3f} ({self.right} of {self.true}, {self.reported - self.right} false)"


@dataclass
class Scores:
    """Of both sides, over series of one kind."""

    ours: Score = field(default_factory=Score)
    otava: Score = field(default_factory=Score)


def stepped(random: Generator, runs: int, steps: Sequence[tuple[int, float]]) -> Levels:
    """Values around 100 with a usual scatter, and steps of some sizes."""
    levels = random.normal(0, SCATTER, runs)
    for place, size in steps:
        levels[place:] += math.log1p(size)
    return 100 * np.exp(levels)


def with_spikes(values: Levels, random: Generator, spikes: int) -> Levels:
    """The same with single runs that took 10 to 60 % longer; none is the last."""
    places = random.choice(np.arange(1, values.size - 1, 3), spikes, replace=False)
    spoiled = values.copy()
    spoiled[places] *= random.uniform(1.1, 1.6, spikes)
    return spoiled


@dataclass(frozen=True)
class Made:
    """A kind of our own series: true places, and values from random numbers."""

    truth: tuple[int, ...]
    values: Callable[[Generator], Levels]


OWN: dict[str, Made] = {
    "unchanged": Made((), lambda random: stepped(random, 100, [])),
    "unchanged, 4 spikes": Made((), lambda random: with_spikes(stepped(random, 100, []), random, 4)),
    "unchanged, skewed noise": Made((), lambda random: 100 * np.exp(SCATTER * random.exponential(1, 100))),
    "+3 %": Made((50,), lambda random: stepped(random, 100, [(50, 0.03)])),
    "+5 %": Made((50,), lambda random: stepped(random, 100, [(50, 0.05)])),
    "+8 %, 4 spikes": Made((50,), lambda random: with_spikes(stepped(random, 100, [(50, 0.08)]), random, 4)),
    "+5 %, 8 runs ago": Made((92,), lambda random: stepped(random, 100, [(92, 0.05)])),
    "+8 % for 12 runs": Made((40, 52), lambda random: stepped(random, 100, [(40, 0.08), (52, -0.08 / 1.08)])),
    "+3, +5, +8 %": Made((25, 50, 75), lambda random: stepped(random, 100, [(25, 0.03), (50, 0.05), (75, 0.08)])),
    "+5 % in 500 runs": Made((200,), lambda random: stepped(random, 500, [(200, 0.05)])),
}


def beside_otava() -> Iterator[Table]:
    """Both sides on the same series."""
    random = np.random.default_rng(0)
    own = [(name, made.truth, made.values(random).tolist()) for name, made in OWN.items() for _ in range(SEEDS)]
    python = python_of("otava", HERE / "peers" / "otava.txt")
    request = json.dumps({"series": [values for _, _, values in own], "seeds": SEEDS})
    done = subprocess.run(
        [python, HERE / "peers" / "otava_points.py"], input=request, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    generated = [(one["name"], one["truth"], one["values"]) for one in answer["generated"]]
    yield _scores("our own series", own, answer["found"])
    yield _scores("generators of otava-test-data", generated, [one["found"] for one in answer["generated"]])


def _scores(
    title: str, series: Sequence[tuple[str, Sequence[int], Sequence[float]]], theirs: Sequence[list[int] | None]
) -> Table:
    kinds: dict[str, Scores] = defaultdict(Scores)
    whole, spikes, without = Scores(), 0, set()
    for (name, truth, values), found in zip(series, theirs, strict=True):
        mine = ours(values)
        if found is None:
            without.add(name)
        for one in (kinds[name], *([] if found is None or _is_of_no_level(name) else [whole])):
            one.ours.add(truth, mine)
            one.otava.add(truth, found or [])
        spikes += len(mine) if "outlier" in name or name == "unchanged, 4 spikes" else 0
    rows = [
        (name, str(one.ours), "gives up" if name in without else str(one.otava))
        for name, one in {**kinds, "all": whole}.items()
    ]
    return Table(
        f"{title}, {SEEDS} seeds each, {TOLERANCE} points of tolerance: F1 (found of all true ones, false reports)",
        ("series", "ours", "Apache Otava 0.8.0"),
        rows,
        [
            Claim(f"F1 on {title} above that of Otava", whole.ours.f1 - whole.otava.f1, at_least=0.0),
            Claim(f"changes that single spikes make in {title}", spikes, at_most=0),
        ],
        ["“all” leaves out what Otava gives up on, and series whose variance or phase changes and not their level."],
    )


def _is_of_no_level(name: str) -> bool:
    return "variance" in name or "phase" in name


# --- nothing ----------------------------------------------------------------------------------------------------------


def stationary() -> Iterator[Table]:
    """False findings of unchanged tests: all looked at together, and one test at a time."""
    random = np.random.default_rng(1)
    tests = []
    for number in range(STATIONARY_TESTS):
        values = 100 * np.exp(random.normal(0, SCATTER, (STATIONARY_METRICS, STATIONARY_RUNS)))
        tests.append([course_of(row, f"test {number}", f"metric {place}") for place, row in enumerate(values)])
    together = len(find_changes([course for test in tests for course in test]))
    alone = sum(len(find_changes(test)) for test in tests)
    yield Table(
        f"{STATIONARY_TESTS:,} unchanged tests of {STATIONARY_RUNS} runs × {STATIONARY_METRICS} metrics",
        ("looked at", "false findings"),
        [("together", str(together)), ("one test at a time", str(alone))],
        [
            Claim("false findings in all, looked at together", together, at_most=5),
            Claim("false findings in all, looked at one test at a time", alone, at_most=5),
        ],
    )


def correlated() -> Iterator[Table]:
    """Unchanged courses of a machine with moods: each run resembles the one before."""
    random = np.random.default_rng(1)
    rows = []
    for share in (0.2, 0.4, 0.6):
        false = 0
        for _ in range(CORRELATED):
            levels = random.normal(0, SCATTER, STATIONARY_RUNS)
            for place in range(1, levels.size):
                levels[place] = share * levels[place - 1] + math.sqrt(1 - share**2) * levels[place]
            false += bool(find_changes([course_of(100 * np.exp(levels))]))
        rows.append((f"{share:g}", f"{false / CORRELATED:.1%}"))
    yield Table(
        f"{CORRELATED} unchanged courses of {STATIONARY_RUNS} runs that resemble their neighbours, each alone",
        ("correlation of neighbours", "with a false finding"),
        rows,
    )


# --- a fleet ----------------------------------------------------------------------------------------------------------


def fleet_line(random: Generator, number: int, reference: int, *, levels: Sequence[float]) -> HistoryLine:
    """A run on a machine of the fleet: values that the machine scales, and ratios that it does not.

    Args:
        random: numbers.
        number: of the commit that is measured.
        reference: of the one that is measured beside it.
        levels: true level of each commit, on the logarithm.
    """
    machine = 1 + random.uniform(-FLEET, FLEET)
    values = 10e6 * machine * np.exp(levels[number] + random.normal(0, 0.01, 4))
    ratios = levels[number] - levels[reference] + random.normal(0, RATIO_SCATTER) + random.normal(0, 0.006, 6)
    return HistoryLine(
        test="test",
        machine="fleet",
        date="2026-10-01T00:00:00Z",
        at=commit(number),
        clean=True,
        setup="setup",
        facts="",
        kind=Kind.PASSED,
        values={"rtm": tuple(LaunchValue(float(value), 0.01) for value in values)},
        ratios={"rtm": tuple(PairedRatio(float(ratio), 0.006) for ratio in ratios)},
        reference=commit(reference),
    )


def fleet() -> Iterator[Table]:
    """A step of 5 % on machines that differ from run to run, by values and by ratios."""
    random = np.random.default_rng(3)
    runs, place, size = 60, 30, 0.05
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for truth in (True, False):
        levels = [size if truth and number >= place else 0.0 for number in range(runs + 1)]
        for _ in range(REPEATED):
            against = {
                "ratios to one release": [fleet_line(random, n, 0, levels=levels) for n in range(1, runs + 1)],
                "ratios to the commit before": [
                    fleet_line(random, n, n - 1, levels=levels) for n in range(1, runs + 1)
                ],
            }
            for name, lines in against.items():
                for series in series_of(lines):
                    kind = name if series.course is Course.RATIOS else "values"
                    places = [change.new.position - 1 for change in find_changes([series])]
                    hit = any(abs(one - place) <= 1 for one in places) if truth else bool(places)
                    counts[kind][0 if truth else 1] += hit
    tries = {name: REPEATED * (2 if name == "values" else 1) for name in counts}
    rows = [
        (name, f"{found / tries[name]:.1%}", f"{false / tries[name]:.1%}") for name, (found, false) in counts.items()
    ]
    shares = {name: found / tries[name] for name, (found, _) in counts.items()}
    yield Table(
        f"a step of 5 % among {runs} commits, each run on a machine that differs by up to ±15 %",
        ("course", "found within one commit", "reported without a step"),
        rows,
        [
            Claim("share of steps found by ratios to one release", shares["ratios to one release"], at_least=0.95),
            Claim(
                "share of steps found by ratios to the commit before",
                shares["ratios to the commit before"],
                at_least=0.7,
            ),
            Claim("share of steps found by values", shares["values"], at_most=0.1),
        ],
    )


def speed() -> Iterator[Table]:
    """Seconds for one long course."""
    random = np.random.default_rng(4)
    runs = 10_000
    noise = random.normal(0, SCATTER, runs)
    walk = np.cumsum(np.where(random.random(runs) < 0.01, random.normal(0, 0.08, runs), 0))
    chain = [
        Point(commit(place), "", float(level), 0.007, commit(place - 1), float(level - size))
        for place, (level, size) in enumerate(zip(np.cumsum(noise), noise, strict=True))
    ]
    whole = {
        "unchanged": course_of(100 * np.exp(noise)),
        "with 100 steps": course_of(100 * np.exp(noise + walk)),
    }
    whole["ratios to the commit before"] = structs.replace(
        whole["unchanged"], course=Course.RATIOS, points=tuple(chain)
    )
    rows, slowest = [], 0.0
    for name, series in whole.items():
        started = time.process_time()
        found = len(find_changes([series]))
        taken = time.process_time() - started
        slowest = max(slowest, taken)
        rows.append((name, f"{taken:.2f} s", str(found)))
    yield Table(
        f"one course of {runs:,} points",
        ("course", "CPU time", "changes"),
        rows,
        [Claim("seconds for 10,000 points", slowest, at_most=2.0)],
    )


def measure() -> Iterator[Table]:
    yield from beside_otava()
    yield from stationary()
    yield from correlated()
    yield from fleet()
    yield from speed()
