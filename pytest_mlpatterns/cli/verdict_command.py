"""``python -m pytest_mlpatterns verdict``: the kind of each test of a result file, and an exit code."""

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_mlpatterns.cli.output import Commands, add_command, discard_output, for_people, read_results_file
from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.result import FailedTest, RunEnd, TestResult
from pytest_mlpatterns.records.result_parts import Location
from pytest_mlpatterns.records.verdict import OPEN_KINDS, Gate, Kind, Outcome
from pytest_mlpatterns.reports.files.result_file import Results
from pytest_mlpatterns.reports.text.failure import failures_of, next_step
from pytest_mlpatterns.reports.text.summary_table import headline, incompleteness, kind_word, kinds_of
from pytest_mlpatterns.reports.text.undecided import Command, busy_machine, open_step, run_again
from pytest_mlpatterns.wording import count

VERDICT_ERROR = 1
"""Exit code if a test is broken, or if there is no verdict: the file cannot be read, or the arguments are wrong."""
_EXIT_CODES: Mapping[Kind, int] = {
    Kind.TEST_ERROR: VERDICT_ERROR,
    Kind.INVALID: VERDICT_ERROR,
    Kind.REGRESSION: 2,
    Kind.LIMIT: 2,
    Kind.PROBABLY_SLOWER: 3,
    Kind.UNDECIDED: 3,
    Kind.INTERRUPTED: 3,
    Kind.NOT_COMPARED: 3,
    Kind.ACCEPTED: 0,
    Kind.PASSED: 0,
}
"""Exit code for each kind. Of several the lowest above zero counts: an error hides no regression from its reader, but a
script that allows regressions must not allow an error with them."""
_PROBABLY = {"undecided": Kind.UNDECIDED, "fail": Kind.REGRESSION}
"""The kind as which a test that is probably slower counts, by the option."""
_AGAIN = "to run it again"
_MOST_NAMED = 20  # Number of tests without a result that people see by name; programs see all


def add_verdict_command(commands: Commands) -> None:
    """Add the command to a parser."""
    what = (
        "exit with 0 if all tests passed, 1 after an error, 2 after a regression or a missed limit, "
        "3 if one is open, or the run was not completed or measured nothing"
    )
    command = add_command(commands, "verdict", what)
    command.add_argument("results", metavar="RESULTS", help="file written by pytest --perf-json")
    command.add_argument(
        "--format", choices=("text", "json"), default="text", help="of what is printed (default: %(default)s)"
    )
    command.add_argument(
        "--probably",
        choices=("undecided", "fail"),
        default="undecided",
        help="whether a test that is probably slower counts as undecided, or fails with 2 (default: %(default)s)",
    )
    command.set_defaults(run=lambda options: _run(options, read_results_file(options.results)), failed=VERDICT_ERROR)


def _run(options: argparse.Namespace, results: Results) -> int:
    kinds, run = kinds_of(results.results, results.unmeasured), results.run
    of_kind = {**_EXIT_CODES, Kind.PROBABLY_SLOWER: _EXIT_CODES[_PROBABLY[options.probably]]}
    codes = [of_kind[kind] for kind in kinds.values()] + [VERDICT_ERROR] * bool(run.other_failures)
    codes += [_EXIT_CODES[Kind.INTERRUPTED]] * bool(incompleteness(run))  # what was not measured is no pass
    if not codes:
        raise ResultFileError(
            f"{options.results} has no result of a perf test, expected at least one; select tests that use the fixture "
            "perf, and do not skip all of them"
        )
    code = min(filter(None, codes), default=0)
    tests = _tests(results, options.results)
    of_results = headline(kinds.values()) if kinds else ""
    others = count(len(run.other_failures), "other failure") if run.other_failures else ""
    whole = "; ".join(filter(None, (of_results, busy_machine(results.results), incompleteness(run), others)))
    if options.format == "json":
        counts = Counter(kind.value for kind in kinds.values())
        data = {"exit_code": code, "headline": whole, "counts": counts, "tests": tests, "run": run.to_json()}
        text = json.dumps(data, indent=2) + "\n"
    else:
        text = for_people("\n".join([*_lines(tests), *_lines_of_run(run), whole]) + "\n", sys.stdout)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader ended early, such as head; the exit code still has to be the verdict
        discard_output()
    return code


def _lines_of_run(run: RunEnd) -> list[str]:
    """The tests that have no result and need attention, a paragraph for those that failed and one for the others."""
    lines: list[str] = []
    for heading, tests in (("failed beside the perf tests:", run.other_failures), ("not run:", run.not_run or ())):
        if tests:
            left = len(tests) - _MOST_NAMED
            more = [f"  and {left:,} more"] if left > 0 else []
            lines += [heading, *(f"  {test}" for test in tests[:_MOST_NAMED]), *more, ""]
    return lines


def _tests(results: Results, file: str) -> list[dict[str, Any]]:
    """Each test as plain values: its kind, whether its gate let it pass, and why, where, and what to run next."""
    let_pass = {failed.test for failed in results.failures if failed.gate is Gate.WARN}

    def plain(
        one: TestResult | FailedTest, reasons: list[str], *, at: Location | None, steps: list[dict[str, str]]
    ) -> dict[str, Any]:
        return {
            "test": one.test,
            "kind": one.kind.value,
            "advisory": one.test in let_pass,
            "reasons": reasons,
            "location": at and str(at),
            "next": steps,
        }

    found = {
        one.test: plain(one, _reasons(one), at=one.definition.location, steps=_next(one, file))
        for one in results.results
    }
    for failed in results.unmeasured:
        step = _step(_AGAIN, f"pytest {shlex.quote(failed.test)}")
        found.setdefault(failed.test, plain(failed, failed.reason.splitlines(), at=failed.location, steps=[step]))
    return [*found.values()]


def _reasons(result: TestResult) -> list[str]:
    """Why a test is of its kind; empty if it passed."""
    if result.judged.unjudged is not None:
        return [result.judged.unjudged.reason]
    if result.kind is Kind.ACCEPTED:
        return [one.accepted for one in result.verdicts if one.accepted]
    if result.kind in OPEN_KINDS:
        reasons = [one.reason for one in result.verdicts if one.outcome is Outcome.INCONCLUSIVE]
        return [*reasons, *filter(None, [open_step(result).why])]
    return [one.reason for one in result.verdicts if one.outcome is Outcome.FAIL]


def _next(result: TestResult, file: str) -> list[dict[str, str]]:
    """What to do next, each with its command, as the failure and the page have it; nothing after a pass."""
    again = _step(_AGAIN, run_again(result))
    match result.kind:
        case Kind.PASSED | Kind.ACCEPTED:
            return []
        case Kind.PROBABLY_SLOWER | Kind.UNDECIDED | Kind.REGRESSION | Kind.LIMIT:
            steps = [step for judged in failures_of(result) for step in _steps(next_step(judged, result, file))]
            return steps if steps and result.kind in OPEN_KINDS else [*steps, again]
        case Kind.NOT_COMPARED if result.judged.baseline_gap is not None:
            return [_step("to record it", run_again(result, "--perf-baseline update"))]
        case _:
            return [again]


def _steps(lines: Sequence[str]) -> list[dict[str, str]]:
    """Each command with the words before it; words after the last command have none."""
    found, words = [], ""
    for line in lines:
        if isinstance(line, Command):
            found.append(_step(words.rstrip(":"), line))
        words = "" if isinstance(line, Command) else f"{words} {line}".strip()
    return [*found, _step(words, "")] if words else found


def _step(purpose: str, command: str) -> dict[str, str]:
    return {"purpose": purpose, "command": command}


def _lines(tests: list[dict[str, Any]]) -> list[str]:
    """The tests that need attention, a paragraph each."""
    lines: list[str] = []
    for test in tests:
        if not test["next"]:
            continue
        advisory = " (advisory)" if test["advisory"] else ""
        lines.append(f"{test['test']}: {kind_word(Kind(test['kind']))}{advisory}")
        lines += [f"  {reason}" for reason in test["reasons"]]
        for step in test["next"]:
            command = step["command"]
            lines += [f"  {step['purpose']}:", f"    {command}"] if command else [f"  {step['purpose']}"]
        lines.append("")
    return lines
