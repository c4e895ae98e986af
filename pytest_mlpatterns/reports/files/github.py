"""What GitHub Actions shows of a run: a job summary in Markdown, and an annotation at the line of each failing test.

Results → text; where it goes is the caller's business. Everything that users or models may have written is escaped:
an id with a pipe stays in its cell, and one with a line break cannot begin another workflow command.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns import wording
from pytest_mlpatterns.records.result import Location, State
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.text.sketches import latency_picture, load_picture
from pytest_mlpatterns.reports.text.summary_table import cells_of, verdict_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import PurePath

    from pytest_mlpatterns.records.result import TestResult

__all__ = ["Failure", "annotation", "job_summary"]

_MOST_DETAILS = 20
"""A job summary holds a megabyte, and a reader less."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~$#@])")


@dataclass(frozen=True, slots=True)
class Failure:
    """A perf test that failed, whether or not anything was measured: where it stands, and why in a line or a few."""

    test: str
    reason: str
    location: Location | None


def annotation(failure: Failure, root: PurePath | None = None) -> str:
    """A workflow command that puts a failure beside the line of its test.

    Args:
        failure: of which test, and why.
        root: pytest's root directory relative to the top of the repository; None where they are the same.
    """
    position: dict[str, str] = {}
    if failure.location is not None:
        file = failure.location.file if root is None else (root / failure.location.file).as_posix()
        position = {"file": file, "line": str(failure.location.line)}
    properties = {**position, "title": failure.test}
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::error {told}::{_data(failure.reason)}"


def job_summary(
    results: Sequence[TestResult], failures: Sequence[Failure], rankings: Mapping[str, str], notes: Sequence[str] = ()
) -> str:
    """A job summary: how many failed and why, the table of all results, and which patterns to choose.

    Args:
        results: in the order in which the tests ran.
        failures: those that failed, results or not.
        rankings: by the group of tests, the decision in a sentence.
        notes: what else the run has to say, a line each.
    """
    parts = [f"### Performance: {_headline(results, failures)}"]
    parts += [_failure_item(failure) for failure in failures]
    parts += [_undecided_item(result) for result in results if result.outcome is State.UNDECIDED]
    if results:
        parts.append(_table(results))
    drawn = [result for result in results if result.outcome is State.FAILED][:_MOST_DETAILS]
    parts += [details for result in drawn if (details := _details(result))]
    parts += [f"**{escaped(group)}**: {escaped(sentence)}" for group, sentence in rankings.items()]
    parts += [escaped(note) for note in notes]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _headline(results: Sequence[TestResult], failures: Sequence[Failure]) -> str:
    tests = {*(result.test for result in results), *(failure.test for failure in failures)}
    count = wording.count(len(tests), "test")
    undecided = sum(1 for result in results if result.outcome is State.UNDECIDED)
    parts = [f"{len(failures)} of {count} failed" if failures else f"{count}, none failed"]
    return ", ".join([*parts, *([f"{undecided} undecided"] if undecided else [])])


def _failure_item(failure: Failure) -> str:
    reasons = " <br> ".join(escaped(line) for line in failure.reason.splitlines())
    return f"- ✗ **{escaped(failure.test)}**: {reasons}"


def _undecided_item(result: TestResult) -> str:
    reasons = [verdict.reason for verdict in result.verdicts if verdict.outcome is Outcome.INCONCLUSIVE]
    return f"- ? **{escaped(result.test)}**: undecided: {' <br> '.join(map(escaped, reasons))}"


def _table(results: Sequence[TestResult]) -> str:
    rows = [cells_of(result) for result in results]
    headings = ["", "test", "pattern", *rows[0]]
    used = [name for name in headings[3:] if any(row[name] != "–" for row in rows)]
    lines = [
        f"| {' | '.join(['', 'test', 'pattern', *used])} |",
        f"|{'|'.join([':--', ':--', ':--', *('--:' for _ in used)])}|",
    ]
    for result, row in zip(results, rows, strict=True):
        verdict = verdict_of(result)
        texts = [f"{verdict.sign} {verdict.word}", result.group or result.test, str(result.setup.pattern)]
        lines.append(f"| {' | '.join(map(escaped, [*texts, *(row[name] for name in used)]))} |")
    return "\n".join(lines)


def _details(result: TestResult) -> str:
    """The pictures of a failed test, folded; empty where there is nothing to draw."""
    drawn = [*latency_picture(result), *load_picture(result)]
    if not drawn:
        return ""
    title = escaped(result.test)
    return f"<details><summary>{title}</summary>\n\n```\n{chr(10).join(drawn)}\n```\n\n</details>"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
