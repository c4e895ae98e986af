"""Does a failure name what got slower? Whole pytest runs of 25 changes whose truth is known, and of no change at all.

    python benchmarks/causes.py [RESULTS] [--only WORDS] [--times N] [--seconds S] [--report]

Each cause of :mod:`zoo` is a small git repository: its commit is the project, its working tree the change. A run
compares both with ``--perf-against HEAD`` and is one line of RESULTS (JSON lines); the benchmark goes on where it
stopped last. Unchanged projects run with ``--perf-profile on``. Some causes run with ``--perf-profile off`` too: the
difference of the times is what the profile costs.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import HERE, Claim, Table
from plugin_runs import Records, run_pytest
from zoo import numeric, services, text, waiting
from zoo.cause import Cause, make_repository

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLAIM = (
    "of 25 causes the first line of a failure names at least 22, and none wrongly; of 20 unchanged pairs none has a "
    "function named; the profile slows a model of 2 ms down by less than 5 %, and takes at most 8 s of a failing test"
)
PLACE = HERE / ".environments" / "causes"
CAUSES: tuple[Cause, ...] = (*text.CAUSES, *numeric.CAUSES, *waiting.CAUSES, *services.CAUSES)
UNCHANGED = (
    "a slower function four calls deep",
    "a full sort in place of a partition",
    "a lock held by another thread",
    "a coroutine that waits longer",
    "a file read for every request",
)
"""Causes whose projects run without their change."""
UNCHANGED_RUNS = 20 // len(UNCHANGED)
TIMED = ("a slower function four calls deep", "a full sort in place of a partition", "a slower second stage")
"""Causes that run without a profile too."""
TIMED_RUNS = 3


@dataclass(frozen=True)
class Case:
    """One kind of run: a cause, with its change or without, and the value of ``--perf-profile``."""

    cause: Cause
    wanted: int = 1
    changed: bool = True
    profile: str = "auto"

    @property
    def name(self) -> str:
        """Name in the file of results."""
        return f"{self.cause.name}{'' if self.changed else ', unchanged'}, profile {self.profile}"


_BY_NAME = {cause.name: cause for cause in CAUSES}
CASES = (
    *(Case(cause, TIMED_RUNS if cause.name in TIMED else 1) for cause in CAUSES),
    *(Case(_BY_NAME[name], UNCHANGED_RUNS, changed=False, profile="on") for name in UNCHANGED),
    *(Case(_BY_NAME[name], TIMED_RUNS, profile="off") for name in TIMED),
)


# --- one run --------------------------------------------------------------------------------------------------------


def run(case: Case) -> dict[str, Any]:
    """Run pytest on a case: what is kept of it.

    Raises:
        RuntimeError: there is no result, or pytest ended otherwise than with passed or failed tests.
    """
    top = PLACE / case.cause.folder
    make_repository(top, case.cause, changed=case.changed)
    ran = run_pytest(top, "--perf-against=HEAD", f"--perf-profile={case.profile}")
    (result,) = ran.results
    return {
        "kind": "run",
        "case": case.name,
        "failed": not result["passed"],
        "wall_s": round(ran.wall_s, 1),
        "load": os.getloadavg()[0],
        "where": where_lines(ran.output),
        "profile": _brief(result.get("profile")),
        "verdicts": [{name: one[name] for name in ("metric", "outcome", "change")} for one in result["verdicts"]],
        "output": ran.output,
    }


def where_lines(output: str) -> list[str]:
    """What a failure says after its label ``where``: each line as it was before it was wrapped."""
    lines = iter(line.removeprefix("E  ") for line in output.splitlines())
    first = next((line for line in lines if re.match(r"\s+where\s{2,}\S", line)), None)
    if first is None:
        return []
    indent = first.index("where") + 10
    found = [first[indent:]]
    for line in lines:
        if len(line) <= indent or line[:indent].strip():
            break
        if line[indent] == " ":
            found[-1] += f" {line.strip()}"
        else:
            found.append(line[indent:])
    return found


def _brief(profile: dict[str, Any] | None) -> dict[str, Any] | None:
    """What is judged of a profile: the functions that it names, each with the chain that leads to it."""
    if profile is None:
        return None
    frames = [(one[0], one[3]) for one in profile["frames"]]
    return {
        **{name: profile[name] for name in ("note", "notes", "slowdown", "blocks", "samples", "lost")},
        "changes": [
            {"chain": [frames[number] for number in one["chain"]], **{name: one[name] for name in ("change", "kind")}}
            for one in profile["changes"]
        ],
    }


_NOTHING = ("no function stands out", "profiled ")
"""Beginnings of lines that name nothing."""


# --- what it is worth -----------------------------------------------------------------------------------------------


def is_named(cause: Cause, run: dict[str, Any]) -> bool:
    """Whether the first line names the true function, or the true part if no function is true."""
    first = first_line(run)
    functions = any(re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", first) for name in cause.functions)
    parts = any(part in first for part in cause.parts)
    return functions or (parts and (cause.part_suffices or not cause.functions))


def first_line(run: dict[str, Any]) -> str:
    """What a reader sees first: the line on the parts of a request's time, and the first function that is named."""
    named = [line for line in run["where"][:2] if not line.startswith(_NOTHING)]
    return " / ".join(named)


def wrongly_named(cause: Cause, run: dict[str, Any]) -> list[str]:
    """Functions that are named as changed, are not what changed, and neither call it nor are called by it."""
    true = {*cause.functions, *cause.callers}
    found = []
    for change in (run["profile"] or {"changes": ()})["changes"]:
        chain = [name for name, _ in change["chain"]]
        is_part = not cause.functions and any(part in chain[-1] for part in cause.parts)
        if not is_part and chain[-1] not in true and not set(chain) & set(cause.functions):
            found.append(chain[-1])
    return found


def _change(run: dict[str, Any]) -> str:
    changes = [one["change"]["value"] for one in run["verdicts"] if one["metric"] == "rtm" and one["change"]]
    return f"{changes[0]:+.0%}" if changes else "–"


# --- all of them ----------------------------------------------------------------------------------------------------


def measure() -> Iterator[Table]:
    """What is recorded already, or one run of each case."""
    records = _records()
    if not records.of("run"):
        go_on(records, CASES)
    yield from tables(records)


def go_on(records: Records, cases: Sequence[Case], *, times: float = 1.0, until: float = float("inf")) -> None:
    """Run the case that is furthest behind, until all have what they want or time is up (of ``time.monotonic``)."""
    while time.monotonic() < until:
        done = [len(records.runs(case.name)) / (times * case.wanted) for case in cases]
        case = cases[done.index(min(done))]
        if min(done) >= 1:
            return
        records.add(run(case))
        last = records.all[-1]
        outcome = "FAIL" if last["failed"] else "pass"
        print(f"{last['at'][11:19]} {case.name}: {outcome} in {last['wall_s']} s; {first_line(last)}", flush=True)


def tables(records: Records) -> Iterator[Table]:
    """The causes, the unchanged pairs, and what a profile costs."""
    yield _causes(records)
    yield _unchanged(records)
    yield _cost(records)


def _causes(records: Records) -> Table:
    rows: list[Sequence[str]] = []
    named: list[float] = []
    wrong: list[str] = []
    for case in CASES:
        if not (case.changed and case.profile == "auto" and (runs := records.runs(case.name))):
            continue
        rights = [is_named(case.cause, one) for one in runs]
        wrongs = [name for one in runs for name in wrongly_named(case.cause, one)]
        named.append(sum(rights) / len(rights))
        wrong += wrongs
        rows.append(
            (
                case.cause.name,
                _change(runs[-1]),
                f"{sum(one['failed'] for one in runs)} of {len(runs)}",
                f"{sum(rights)} of {len(runs)}",
                ", ".join(wrongs) or "–",
                first_line(runs[-1])[:90],
            )
        )
    claims = [
        Claim("causes named", sum(share >= 0.5 for share in named), at_least=22 * len(named) / len(CAUSES)),
        Claim("named wrongly", len(wrong), at_most=0),
    ]
    return Table("causes", ("cause", "RTM", "failed", "named", "wrong", "the last first line"), rows, claims)


def _unchanged(records: Records) -> Table:
    rows: list[Sequence[str]] = []
    named = 0
    for case in CASES:
        if case.changed or not (runs := records.runs(case.name)):
            continue
        found = [change["chain"][-1][0] for one in runs for change in (one["profile"] or {"changes": ()})["changes"]]
        named += len(found)
        rows.append((case.cause.name, str(len(runs)), ", ".join(found) or "–"))
    claims = [Claim("functions named in unchanged pairs", named, at_most=0)]
    return Table("unchanged pairs", ("project", "runs", "named"), rows, claims)


def _cost(records: Records) -> Table:
    rows: list[Sequence[str]] = []
    claims: list[Claim] = []
    for name in TIMED:
        with_profile, without = (records.runs(Case(_BY_NAME[name], profile=how).name) for how in ("auto", "off"))
        if not (with_profile and without):
            continue
        times = [median(one["wall_s"] for one in runs) for runs in (with_profile, without)]
        slowdowns = [one["profile"]["slowdown"][0] for one in with_profile if one["profile"]["slowdown"]]
        slowdown = median(slowdowns) if slowdowns else float("nan")
        rows.append((name, f"{times[1]:.1f} s", f"{times[0]:.1f} s", f"{slowdown - 1:+.1%}"))
        claims.append(Claim(f"{name}: seconds of the profile", times[0] - times[1], at_most=8))
        claims.append(Claim(f"{name}: slower with the profiler", slowdown - 1, at_most=0.05))
    return Table("cost of a profile", ("cause", "off", "auto", "slower with the profiler"), rows, claims)


def _records(path: Path | None = None) -> Records:
    PLACE.mkdir(parents=True, exist_ok=True)
    return Records(path or PLACE / "results.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, help="the file of results")
    parser.add_argument("--only", default="", help="only cases whose name has these words")
    parser.add_argument("--times", type=float, default=1.0, help="so many times the usual number of runs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--report", action="store_true", help="run nothing, show what is recorded")
    arguments = parser.parse_args()
    records = _records(arguments.results)
    cases = [case for case in CASES if arguments.only in case.name]
    if not arguments.report:
        go_on(records, cases, times=arguments.times, until=time.monotonic() + arguments.seconds)
    for table in tables(records):
        print(f"\n{table}")


if __name__ == "__main__":
    main()
