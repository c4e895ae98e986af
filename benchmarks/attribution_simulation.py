"""Does a profile name the function that got slower, and no other? Trees of calls whose truth is known, by the thousand.

A service spends 2 ms a request in a model of 30 to 150 functions, most of the time in few of them. Both sides are
profiled in 8 pairs of neighbouring blocks of 0.2 s. The machine drifts by 5 % between pairs and 2 % between
blocks; each start is up to some percent faster or slower than another, as a whole and in each function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.causes.attribution import profile_record
from pytest_mlpatterns.records.profile import Frame, ProfiledBlock, ProfiledRun, StackTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.random import Generator
    from numpy.typing import NDArray

    from pytest_mlpatterns.records.profile import ProfileRecord

    Times = NDArray[np.float64]

CLAIM = (
    "20 % of a 2 ms model in one function is named in at least 95 % of runs, 10 % in at least 75 %; "
    "another function in at most 1 %, and none in at least 99 % of unchanged pairs"
)
RUNS = 600
MODEL_NS = 2_000_000.0
REST_NS = {"wire: decode": 100_000.0, "HTTP server": 120_000.0, "wire: encode": 40_000.0}
IDLE_NS = 150_000.0
BLOCK_NS = 200_000_000
PAIRS = 8
RATE_HZ = 500
DRIFT, BLOCK, START, PLACEMENT = 0.05, 0.02, 0.01, 0.01
"""Relative standard deviations: between pairs, between blocks, between starts as a whole and for each function."""


@dataclass(frozen=True)
class Service:
    """Stacks and the time that a request spends at the end of each, before any change."""

    stacks: list[tuple[Frame, ...]]
    own_ns: Times


@dataclass(frozen=True)
class Outcome:
    """What was named: the function itself, a caller of it alone, or another one; and whether the interval holds."""

    right: bool
    coarse: bool
    wrong: bool
    covered: bool | None


def service(random: Generator) -> Service:
    """Any tree of calls; a function of a library calls no function of the project."""
    root = (Frame("worker", owner="process"), Frame("HTTP server", owner="layer"))
    stacks: list[tuple[Frame, ...]] = [(*root, Frame("model", owner="model"), Frame("predict", "model.py", 1))]
    for number in range(int(random.integers(30, 151)) - 1):
        above = stacks[int(random.integers(max(len(stacks) - 40, 0), len(stacks)))]
        library = above[-1].owner == "library" or random.random() < 0.3
        file = "library.py" if library else f"part{number % 7}.py"
        stacks.append((*above, Frame(f"f{number}", file, 1, "library" if library else "project")))
    own = MODEL_NS * random.dirichlet(np.full(len(stacks), 0.3))
    layers = [(*root, Frame(name, owner="layer")) for name in REST_NS]
    return Service([*stacks, *layers], np.concatenate([own, list(REST_NS.values())]))


def profiled(random: Generator, one: Service, now_ns: Times, *, pairs: int, calls: float = 1.0) -> ProfiledRun:
    """Blocks of both sides, from times per request that are known; ``calls`` of the model per request at present."""
    starts = [
        random.lognormal(0, START) * random.lognormal(0, PLACEMENT, now_ns.size) * side_ns
        for side_ns in (one.own_ns, now_ns)
    ]
    before: list[ProfiledBlock] = []
    now: list[ProfiledBlock] = []
    for _ in range(pairs):
        drift = random.lognormal(0, DRIFT)
        for side, times, called in ((before, starts[0], 1.0), (now, starts[1], calls)):
            times_ns = times * drift * random.lognormal(0, BLOCK)
            side.append(_block(random, one, times_ns, calls=called))
    return ProfiledRun(tuple(now), tuple(before), "simulated", RATE_HZ)


def _block(random: Generator, one: Service, times_ns: Times, *, calls: float) -> ProfiledBlock:
    request_ns = float(times_ns.sum()) + IDLE_NS
    requests = max(int(BLOCK_NS / request_ns + random.random()), 1)
    samples = RATE_HZ * BLOCK_NS // 1_000_000_000
    counts = random.multinomial(samples, np.append(times_ns, IDLE_NS) / request_ns)[:-1]
    stacks = tuple(
        StackTime(stack, (0,) * len(stack), count * BLOCK_NS / samples, int(count))
        for stack, count in zip(one.stacks, counts, strict=True)
        if count
    )
    return ProfiledBlock(stacks, requests, {"model": calls * requests}, samples)


def unchanged(random: Generator) -> Outcome:
    one = service(random)
    record = profile_record(profiled(random, one, one.own_ns, pairs=PAIRS), _no_source)
    return Outcome(False, False, bool(record.changes), None)


def false_alarm(random: Generator) -> Outcome:
    """The verdict says that requests take longer, but the functions take as long as before."""
    one = service(random)
    record = profile_record(profiled(random, one, one.own_ns, pairs=PAIRS), _no_source, is_known=True)
    return Outcome(False, False, bool(record.changes), None)


def slower(random: Generator, added: float = 0.1) -> Outcome:
    """One function of the project got slower by a share of the model's time."""
    one = service(random)
    ours = [index for index, stack in enumerate(one.stacks) if stack[-1].owner == "project"]
    target = int(random.choice(ours))
    now_ns = one.own_ns.copy()
    now_ns[target] += added * MODEL_NS
    record = profile_record(profiled(random, one, now_ns, pairs=PAIRS), _no_source, is_known=True)
    return judged(record, one.stacks[target], added * MODEL_NS)


def called_more(random: Generator) -> Outcome:
    """The model is called more often, and each call takes as long as before: no function of it is the cause."""
    one = service(random)
    factor = random.uniform(1.2, 4)
    inside = np.array([any(frame.owner == "model" for frame in stack) for stack in one.stacks])
    now_ns = np.where(inside, factor * one.own_ns, one.own_ns)
    run = profiled(random, one, now_ns, pairs=PAIRS, calls=factor)
    record = profile_record(run, _no_source, is_known=True)
    return Outcome(False, False, bool(record.changes), None)


def judged(record: ProfileRecord, truth: tuple[Frame, ...], added_ns: float) -> Outcome:
    """Compare what is named with the stack of the function that got slower."""
    named = [record.frames[change.chain[-1]] for change in record.changes]
    right, wrong = truth[-1] in named, any(frame not in truth for frame in named)
    covered = None
    if right and len(named) == 1:
        interval = record.changes[0].change
        covered = interval.low <= added_ns <= interval.high
    return Outcome(right, bool(named) and not right and not wrong, wrong, covered)


def _no_source(_: Frame, __: int) -> str:
    return ""


CASES: Mapping[str, Callable[[Generator], Outcome]] = {
    "unchanged": unchanged,
    "unchanged, yet a verdict fails": false_alarm,
    "model called more often": called_more,
    "one function +5 %": lambda random: slower(random, 0.05),
    "one function +10 %": slower,
    "one function +20 %": lambda random: slower(random, 0.2),
    "one function +50 %": lambda random: slower(random, 0.5),
}


def outcomes(case: str, runs: int = RUNS) -> list[Outcome]:
    random = np.random.default_rng(0)
    return [CASES[case](random) for _ in range(runs)]


def measure() -> Iterator[Table]:
    rows, found = [], {}
    for case in CASES:
        found[case] = outcomes(case)
        covered = [one.covered for one in found[case] if one.covered is not None]
        shares = [sum(getattr(one, name) for one in found[case]) / RUNS for name in ("right", "coarse", "wrong")]
        shown = [f"{100 * share:.2f} %" for share in (*shares, 1 - sum(shares))]
        rows.append((case, *shown, f"{100 * sum(covered) / len(covered):.1f} %" if covered else ""))
    ten, twenty = found["one function +10 %"], found["one function +20 %"]
    yield Table(
        f"profiles of a 2 ms model, {RUNS:,} each, {RATE_HZ} samples a second, {PAIRS} pairs of blocks of 0.2 s",
        ("change", "named", "only a caller", "another one", "none", "interval holds the truth"),
        rows,
        [
            Claim("share of +20 % that is named", sum(one.right for one in twenty) / RUNS, at_least=0.95),
            Claim("share of +10 % that is named", sum(one.right for one in ten) / RUNS, at_least=0.75),
            Claim("share of +10 % that names another one", sum(one.wrong for one in ten) / RUNS, at_most=0.01),
            Claim(
                "share of unchanged pairs that name one",
                sum(one.wrong for one in found["unchanged"]) / RUNS,
                at_most=0.01,
            ),
        ],
    )
