"""How often a verdict on a slow service is wrong or missing, live: a language model, and services of declared times.

    python benchmarks/slow_services.py [RESULTS] [--times N] [--seconds S] [--only CASE ...] [--report]

Every run is one line of RESULTS (JSON lines); the benchmark goes on where it stopped last. The cases take turns, so
that each sees the machine in the same moods; ``--only`` takes names and patterns of them, such as ``'llama check *'``.
The language model is the example with llama.cpp, in an environment of its own, a copy of it in a git repository. Each
run has a working tree that differs, if by a comment only, so that a baseline that is settled is measured on both sides.
The other services sleep: 0.5 to 20 answers per second of one caller, in one mode, in two, or with a heavy tail.
Failures are not profiled, which would take some seconds more. A run that ends without a result is counted as one.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import HERE, Claim, Table
from environments import python_of
from peers.slow_projects import EXAMPLE, RATES, SHAPES, Declared, Edit, declared_text, language_model, sleepers
from plugin_runs import Records, run_pytest, take_turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peers.slow_projects import Project

CLAIM = (
    "llama.cpp with two callers, four answers per second: of 20 unchanged runs a mode none fails and at most 1 is "
    "undecided; a prompt three times as long fails in 20 of 20 at 25 %, in a median of 40 s against the file and 60 s "
    "against a revision, one twice as long in 18 of 20 at 15 %; more threads, one slot, longer answers and a colder "
    "prompt cache fail and are named"
)
PLACE = HERE / ".environments" / "slow_services"
RUNS_PER_BASELINE = 8
BASELINE_AGE_S = 1800
UPDATES = 3
"""Tries to record a baseline, in case one records nothing."""
SPARE_S = 120.0
"""What a run may take beside its budgets: starts, warm-ups, installed packages that are read for the first time."""
KEPT = ("launches", "verdicts", "not_compared", "noise", "seconds_spent", "notes", "baseline_note", "metrics", "passed")
"""What is kept of a result."""
OUTCOMES = ("fail", "pass", "inconclusive")


@dataclass(frozen=True)
class Case:
    """One kind of run.

    Attributes:
        service: ``llama``, a variant of it, or rate and shape of a sleeping one.
        mode: ``against`` a revision, or ``check`` against a stored baseline, settled by its commit.
        change: of the working tree; empty for a comment.
        tolerance: of the primary metrics; None for the test's own.
        budget_s: of the test.
        wanted: number of runs.
    """

    service: str
    mode: str
    change: str
    tolerance: float | None = None
    budget_s: int = 30
    wanted: int = 5

    @property
    def name(self) -> str:
        tolerance = "" if self.tolerance is None else f"{self.tolerance:g}"
        budget = "" if self.service.startswith("llama") else f"{self.budget_s}s"
        return " ".join(filter(None, (self.service, self.mode, tolerance, budget, self.change or "unchanged")))

    @property
    def options(self) -> tuple[str, ...]:
        """pytest's."""
        how = "--perf-against=main" if self.mode == "against" else "--perf-baseline=check"
        own = () if self.tolerance is None else (f"--perf-tolerance={self.tolerance}",)
        return (how, "--perf-profile=off", "--perf-count=off", f"--perf-budget={self.budget_s}s", *own)


MODES = ("check", "against")
_UNCOUNTED = Edit(
    "test_perf.py",
    """    if not perf.smoke:  # one request makes no batch
        assert perf.metrics.batch_size.value > 1
        assert perf.metrics.output_tokens.value == TOKENS
""",
    "",
)
"""Asserts nothing of batches and tokens, so that only the comparison fails."""
LANGUAGE_MODELS: dict[str, tuple[Edit, ...]] = {
    "llama": (_UNCOUNTED,),
    "llama-cached": (
        _UNCOUNTED,
        Edit("serve.py", "cache_prompt = False", "cache_prompt = True"),
        Edit("serve.py", '"SLOWDOWN", "1"', '"SLOWDOWN", "3"'),
    ),
    "llama-open": (
        _UNCOUNTED,
        Edit("serve.py", "    server = ", "    params.n_predict = 8\n    server = "),
        Edit("test_perf.py", '"max_tokens": TOKENS, ', ""),
    ),
}
"""What is committed of each variant beside the example: one whose cache keeps prompts, one that limits answers."""
CHANGES: dict[str, tuple[Edit, ...]] = {
    "": (),
    "prompt-x3": (Edit("serve.py", '"SLOWDOWN", "1"', '"SLOWDOWN", "3"'),),
    "prompt-x2": (Edit("serve.py", '"SLOWDOWN", "1"', '"SLOWDOWN", "2"'),),
    "threads-2": (Edit("serve.py", '"THREADS", "1"', '"THREADS", "2"'),),
    "slots-1": (Edit("serve.py", "params.n_parallel = chosen.slots", "params.n_parallel = 1"),),
    "cold-cache": (Edit("serve.py", "cache_prompt = True", "cache_prompt = False"),),
    "longer-answer": (Edit("serve.py", "n_predict = 8", "n_predict = 12"),),
}
"""Edits of the working tree of a language model."""
SEEN: dict[str, dict[float, dict[int, float]]] = {
    "one": {
        0.5: {60: 0.90, 120: 0.68},
        2.0: {30: 0.65, 60: 0.35, 120: 0.25},
        5.0: {30: 0.46, 60: 0.26, 120: 0.18},
        20.0: {30: 0.27, 60: 0.19, 120: 0.16},
    },
    "two": {
        0.5: {60: 2.57, 120: 1.51},
        2.0: {30: 1.51, 60: 0.68, 120: 0.43},
        5.0: {30: 1.08, 60: 0.56, 120: 0.36},
        20.0: {30: 0.73, 60: 0.36, 120: 0.24},
    },
    "tail": {
        0.5: {60: 1.38, 120: 0.65},
        2.0: {30: 0.65, 60: 0.36, 120: 0.25},
        5.0: {30: 0.46, 60: 0.27, 120: 0.19},
        20.0: {30: 0.28, 60: 0.19, 120: 0.16},
    },
}
"""By shape, answers per second and budget in seconds, a change that ``location_simulation.py`` sees in 95 % of runs
or more in both modes: its families of one mode, of two of 50 ± 5 %, and with 1 % that take ten times as long."""
USUAL_BUDGET_S = 60
"""Its cases are run more often than those of the other budgets."""


def _sleeping(rate: float, shape: str) -> Iterator[Case]:
    name = f"sleep-{rate:g}-{shape}"
    for budget_s, slower in SEEN[shape][rate].items():
        wanted = 5 if budget_s == USUAL_BUDGET_S else 2
        for mode in MODES:
            yield Case(name, mode, "", None, budget_s, wanted)
            yield Case(name, mode, f"slower-{slower:g}", None, budget_s, wanted)
            if shape == "two" and rate >= 5:
                yield Case(name, mode, f"second-{_of_one_mode(slower):.2g}", None, budget_s, 2)


def _of_one_mode(slower: float) -> float:
    """A change of the slow mode that moves the mean as one of all times does: four ninths of what is not trimmed."""
    return float((1 + slower) ** (9 / 4) - 1)


def _of_language_models() -> Iterator[Case]:
    """Two sides share the budget of a comparison with a revision, so it gets twice as much."""
    for mode, budget_s in (("check", 30), ("against", 60)):
        for tolerance, change in ((None, ""), (0.25, ""), (0.25, "prompt-x3"), (0.15, "prompt-x2")):
            yield Case("llama", mode, change, tolerance, budget_s, wanted=20)
        for change in ("threads-2", "slots-1"):
            yield Case("llama", mode, change, None, budget_s)
        for service, change in (("llama-cached", "cold-cache"), ("llama-open", "longer-answer")):
            yield Case(service, mode, "", None, budget_s)
            yield Case(service, mode, change, None, budget_s)


CASES = (
    *_of_language_models(),
    *(case for rate in RATES for shape in SHAPES for case in _sleeping(rate, shape)),
)


class Laboratory:
    """Runs pytest on the projects, and keeps what it said."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._projects: dict[str, Project] = {}

    def run(self, case: Case) -> None:
        """One run of a case, on a baseline that is young."""
        if case.mode == "check" and not self._has_baseline(case):
            self._add(case, {"outcome": "no baseline", "wall_s": 0.0, "named": []})
            return
        self._change(case, len(self._records.all))
        ran = self._pytest(case, *case.options)
        self._add(case, {"outcome": _outcome(ran), "named": _named(ran), **ran})

    def _add(self, case: Case, found: dict[str, Any]) -> None:
        self._records.add({"kind": "run", "case": case.name, "load": os.getloadavg()[0], **found})

    def _project(self, case: Case) -> Project:
        name = "sleepers" if case.service.startswith("sleep-") else case.service
        if name not in self._projects:
            edits = LANGUAGE_MODELS.get(name)
            project = sleepers(PLACE / name) if edits is None else language_model(PLACE / name, edits)
            project.lay_out()
            self._projects[name] = project
        return self._projects[name]

    def _change(self, case: Case, number: int) -> None:
        project = self._project(case)
        if case.service.startswith("llama"):
            project.change(CHANGES[case.change], number)
            return
        kind, _, value = case.change.partition("-")
        declared = Declared(number=number, **({kind: float(value)} if kind else {}))
        project.write({"declared.py": declared_text(declared)})

    def _has_baseline(self, case: Case) -> bool:
        """Record one where there is none or an old one; False if that fails."""
        made = [one for one in self._records.of("baseline") if one["service"] == case.service and one["recorded"]]
        file = self._project(case).top / "perf-baseline.json"
        if made and file.exists():
            names = {one.name for one in CASES if one.service == case.service and one.mode == "check"}
            used = sum(one["case"] in names and one["at"] >= made[-1]["at"] for one in self._records.of("run"))
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(made[-1]["at"])
            if used < RUNS_PER_BASELINE and age.total_seconds() < BASELINE_AGE_S:
                return True
        return any(self._record_baseline(case) for _ in range(UPDATES))

    def _record_baseline(self, case: Case) -> bool:
        project = self._project(case)
        project.write({})
        file = project.top / "perf-baseline.json"
        before = file.read_bytes() if file.exists() else b""
        ran = self._pytest(case, "--perf-baseline=update", "--perf-profile=off")
        recorded = file.exists() and file.read_bytes() != before
        self._records.add({"kind": "baseline", "service": case.service, "recorded": recorded, **ran})
        print(
            f"{case.service}: baseline {'recorded' * recorded or 'NOT recorded'} in {ran['wall_s']:.1f} s", flush=True
        )
        return recorded

    def _pytest(self, case: Case, *arguments: str) -> dict[str, Any]:
        """One run; ``error`` is what it printed if it has no result."""
        is_model = case.service.startswith("llama")
        python = _python_of_example() if is_model else sys.executable
        test = "test_perf.py" if is_model else _test_of(case)
        limit_s = SPARE_S + 4 * case.budget_s  # more than a settled test may take
        started = time.perf_counter()
        try:
            ran = run_pytest(self._project(case).top, *arguments, test, python=python, timeout_s=limit_s)
        except RuntimeError as error:
            return {"wall_s": round(time.perf_counter() - started, 2), "error": str(error)[-3000:]}
        (result, *_) = ran.results
        return {
            "wall_s": ran.wall_s,
            "result": {name: result[name] for name in KEPT},
            "printed": "" if result["passed"] else ran.output[-3000:],
            "log_ratios": (result["reference"] or {}).get("log_ratios", {}),
        }


def _python_of_example() -> str:
    return python_of("example-llama_cpp", EXAMPLE / "requirements.txt", "--editable", str(HERE.parent))


def _test_of(case: Case) -> str:
    return f"test_sleeping.py::test_answers[{case.service.removeprefix('sleep-')}]"


def _compared(ran: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in ran["result"]["verdicts"] if one["against"] in ("baseline", "revision")]


def _named(ran: dict[str, Any]) -> list[str]:
    """The metrics that fail."""
    return [] if "error" in ran else sorted({one["metric"] for one in _compared(ran) if one["outcome"] == "fail"})


def _outcome(ran: dict[str, Any]) -> str:
    if "error" in ran:
        return "no result"
    if not ran["result"]["passed"]:
        return "fail" if _named(ran) else "invalid"
    found = {one["outcome"] for one in _compared(ran)}
    return next((outcome for outcome in ("inconclusive", "pass") if outcome in found), "not judged")


def measure() -> Iterator[Table]:
    """What is recorded already, or a tenth of the runs where nothing is."""
    PLACE.mkdir(parents=True, exist_ok=True)
    records = Records(PLACE / "results.jsonl")
    if not records.of("run"):
        go_on(records, times=0.1)
    yield from tables(records)


def go_on(records: Records, times: float = 1.0, until: float = float("inf"), *, cases: Sequence[Case] = CASES) -> None:
    """Run the case that is furthest behind, until all have what they want or time is up (of ``time.monotonic``)."""
    laboratory = Laboratory(records)
    for case, last in take_turns(records, cases, laboratory.run, times=times, until=until):
        named = f" by {', '.join(last['named'])}" if last["named"] else ""
        print(f"{last['at'][11:19]} {case.name}: {last['outcome']}{named} in {last['wall_s']:.1f} s", flush=True)


def tables(records: Records) -> Iterator[Table]:
    """One of the language model, one of the services that sleep, one of the baselines."""
    for title, prefix in (("llama.cpp with SmolLM2", "llama"), ("services of declared times", "sleep-")):
        found = [(case, records.runs(case.name)) for case in CASES if case.service.startswith(prefix)]
        judged = [(case, runs) for case, runs in found if runs]
        if not judged:
            continue
        claims = [claim for case, runs in judged for claim in _claims(case, runs)]
        headings = ("case", "change measured", "runs", "FAIL", "PASS", "no verdict", "other", "fails by", "time", "p95")
        yield Table(f"live verdicts, {title}", headings, [_row(case, runs) for case, runs in judged], claims)
    updates: dict[str, list[dict[str, Any]]] = {}
    for one in records.of("baseline"):
        updates.setdefault(one["service"], []).append(one)
    rows = [
        (
            service,
            str(len(made)),
            str(sum(one["recorded"] for one in made)),
            f"{median(one['wall_s'] for one in made):.1f} s",
        )
        for service, made in sorted(updates.items())
    ]
    if rows:
        yield Table("baselines", ("service", "updates", "recorded", "time, median"), rows)


def _row(case: Case, runs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    outcomes = [run["outcome"] for run in runs]
    seconds = sorted(run["wall_s"] for run in runs)
    named = [metric for run in runs for metric in run["named"]]
    often = sorted(set(named), key=lambda metric: (-named.count(metric), metric))
    others = {name: outcomes.count(name) for name in sorted(set(outcomes) - set(OUTCOMES))}
    return (
        case.name,
        _measured(runs),
        str(len(runs)),
        *(str(outcomes.count(name)) for name in OUTCOMES),
        ", ".join(f"{name}: {count}" for name, count in others.items()) or "0",
        ", ".join(f"{metric} {named.count(metric)}" for metric in often[:4]) or "–",
        f"{median(seconds):.1f} s",
        f"{seconds[int(0.95 * len(seconds))]:.1f} s",
    )


def _measured(runs: Sequence[dict[str, Any]]) -> str:
    """The median change of TTFT, or of RTM where nothing streams; worse is positive."""
    for metric in ("ttft", "rtm"):
        changes = [
            one["change"]["value"]
            for run in runs
            if "result" in run
            for one in _compared(run)
            if one["metric"] == metric and one["change"]
        ]
        if changes:
            return f"{metric} {median(changes):+.1%}"
    return "–"


def _claims(case: Case, runs: Sequence[dict[str, Any]]) -> Iterator[Claim]:
    outcomes = [run["outcome"] for run in runs]
    share = {name: outcomes.count(name) / len(runs) for name in OUTCOMES}
    seconds = median(run["wall_s"] for run in runs)
    if not case.change:
        yield Claim(f"{case.name}: FAIL", share["fail"], at_most=0.0 if case.service == "llama" else 0.01)
        if case.service == "llama":
            yield Claim(f"{case.name}: no verdict", share["inconclusive"], at_most=0.05)
        return
    least = {"prompt-x2": 0.9}.get(case.change, 1.0 if case.service.startswith("llama") else 0.95)
    yield Claim(f"{case.name}: FAIL", share["fail"], at_least=least)
    if case.change == "prompt-x3":
        yield Claim(f"{case.name}: seconds, median", seconds, at_most=40.0 if case.mode == "check" else 60.0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=PLACE / "results.jsonl", help="the file of results")
    parser.add_argument("--times", type=float, default=1.0, help="so many times the usual number of runs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--only", nargs="+", metavar="CASE", default=["*"], help="such as 'llama check *prompt-x3'")
    parser.add_argument("--report", action="store_true", help="run nothing, show what is recorded")
    parser.add_argument("--cases", action="store_true", help="run nothing, list the names of the cases")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    cases = [case for case in CASES if any(fnmatch.fnmatch(case.name, one) for one in arguments.only)]
    if not cases:
        sys.exit(f"no case is called {' or '.join(arguments.only)}; --cases lists them")
    if arguments.cases:
        print(*(f"{case.name} ({case.wanted} runs)" for case in cases), sep="\n")
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    records = Records(arguments.results)
    if not arguments.report:
        go_on(records, arguments.times, time.monotonic() + arguments.seconds, cases=cases)
    if arguments.report or arguments.seconds == float("inf"):
        for table in tables(records):
            print(f"\n{table}")


if __name__ == "__main__":
    main()
