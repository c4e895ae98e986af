"""A run for continuous integration: GitHub's job summary and annotations, and properties of a JUnit report.

Results → text. Text from users and models is escaped: a test id with a pipe stays in its cell, and one with a line
break cannot begin another workflow command.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.metrics.definitions import metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.records.history import NewChange
from pytest_mlpatterns.records.result import FailedTest, RunEnd, State, TestResult
from pytest_mlpatterns.records.verdict import Gate, Kind, Outcome
from pytest_mlpatterns.reports.text.comparison import accepted_sentences, explained, is_accepted
from pytest_mlpatterns.reports.text.notes import changed_facts
from pytest_mlpatterns.reports.text.summary_table import (
    by_kind,
    cells_of,
    headline,
    incompleteness,
    kind_word,
    kinds_of,
    let_pass,
    verdict_of,
)
from pytest_mlpatterns.reports.text.terminal_text import latency_picture, load_picture
from pytest_mlpatterns.reports.text.undecided import busy_machine, suspected_sentences
from pytest_mlpatterns.reports.text.where import function_table_lines
from pytest_mlpatterns.wording import visible

_MOST_DETAILS = 20  # Most tests with sparklines; GitHub limits a job summary to 1 MiB
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~$#@])")


def workflow_commands(
    results: Sequence[TestResult],
    failures: Iterable[FailedTest],
    changes: Iterable[NewChange],
    *,
    root: PurePath | None,
) -> list[str]:
    """What shows at the lines of tests what failed or is probably slower, changed or was accepted.

    ``root``: as for :func:`annotation`.
    """
    likely = [one for one in results if one.kind is Kind.PROBABLY_SLOWER and one.judged.passed]
    return [
        *(annotation(failure, root) for failure in failures),
        *(probably_slower_annotation(one, root) for one in likely),
        *(new_change_annotation(one, root) for one in changes if one.change.is_worse),
        *(_accepted_annotation(one, root) for one in results if is_accepted(one)),
    ]


def annotation(failure: FailedTest, root: PurePath | None = None) -> str:
    """A workflow command that shows a failure at the line of its test: an error, or a warning if the gate only warns.

    ``root``: pytest's root directory relative to the top of the repository; None if they are the same.
    """
    return _command("warning" if failure.gate is Gate.WARN else "error", failure, root)


def _command(level: str, failure: FailedTest, root: PurePath | None) -> str:
    position: dict[str, str] = {}
    if failure.location is not None:
        file = failure.location.file if root is None else (root / failure.location.file).as_posix()
        position = {"file": file, "line": str(failure.location.line)}
    properties = {**position, "title": failure.test}
    shown = ",".join(
        f"{name}={_data(value).replace(':', '%3A').replace(',', '%2C')}" for name, value in properties.items()
    )
    return f"::{level} {shown}::{_data(failure.reason)}"


def _accepted_annotation(result: TestResult, root: PurePath | None = None) -> str:
    """As :func:`annotation`, a notice that a test passed by an acceptance."""
    text = "\n".join(accepted_sentences(result))
    return _command("notice", FailedTest(result.test, text, result.definition.location), root)


def probably_slower_annotation(result: TestResult, root: PurePath | None = None) -> str:
    """As :func:`annotation`, a warning that a test is probably slower, which is undecided."""
    text = "\n".join([f"{kind_word(result.kind)}:", *suspected_sentences(result)])
    return _command("warning", FailedTest(result.test, text, result.definition.location), root)


def new_change_annotation(one: NewChange, root: PurePath | None = None) -> str:
    """As :func:`annotation`, a change in the history: an error if it fails the run, else a warning."""
    reason = "\n".join(filter(None, (f"changed in the history: {one.sentence}", one.command)))
    return _command("error" if one.fails else "warning", FailedTest(one.change.test, reason, one.location), root)


def job_summary(
    results: Sequence[TestResult],
    failures: Sequence[FailedTest],
    rankings: Mapping[str, str],
    *,
    changes: Sequence[NewChange] = (),
    notes: Sequence[str] = (),
    run: RunEnd | None = None,
) -> str:
    """A job summary: the failures with their reasons, the table of all results, and the rankings.

    ``results``: in the order in which the tests ran. ``run``: how it ended; None if it was complete.
    """
    kinds = kinds_of(results, failures)
    parts = [f"### Performance: {headline(kinds.values())}"]
    said = (
        busy_machine(results).capitalize(),
        incompleteness(run or RunEnd()).capitalize(),
        let_pass(results, failures),
    )
    parts += [f"{text}." for text in said if text]
    parts += [_failure_item(failure, kinds[failure.test]) for failure in failures]
    parts += [_undecided_item(result) for result in results if result.outcome is State.UNDECIDED]
    parts += [
        f"- ✓ **{escaped(result.test)}**: {' <br> '.join(map(escaped, accepted_sentences(result)))}"
        for result in results
        if is_accepted(result)
    ]
    parts += map(_change_item, changes)
    parts += map(_rows, by_kind(results))
    parts += filter(None, [explained(" ".join(parts))])
    drawn = [result for result in results if result.outcome is State.FAILED][:_MOST_DETAILS]
    parts += [details for result in drawn if (details := _details(result))]
    parts += [f"**{escaped(group)}**: {escaped(sentence)}" for group, sentence in rankings.items()]
    parts += [escaped(note) for note in notes]
    return wording.visible("\n\n".join(parts) + "\n")


def escaped(text: str) -> str:
    """A text escaped for Markdown, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def _failure_item(failure: FailedTest, kind: Kind) -> str:
    reasons = " <br> ".join(escaped(line) for line in failure.reason.splitlines())
    return f"- ✗ **{escaped(failure.test)}**: {kind_word(kind)}: {reasons}"


def _undecided_item(result: TestResult) -> str:
    suspected = suspected_sentences(result)
    reasons = [
        verdict.reason
        for verdict in result.verdicts
        if verdict.outcome is Outcome.INCONCLUSIVE and not verdict.suspected
    ]
    what = "suspected regression" if suspected and result.kind is Kind.UNDECIDED else kind_word(result.kind)
    return f"- ? **{escaped(result.test)}**: {what}: {' <br> '.join(map(escaped, [*suspected, *reasons]))}"


def _change_item(one: NewChange) -> str:
    command = f" <br> {escaped(one.command)}" if one.command else ""
    sign = "✗" if one.fails else "!" if one.change.is_worse else "✓"
    return f"- {sign} **{escaped(one.change.test)}** changed in the history: {escaped(one.sentence)}{command}"


def _rows(results: Sequence[TestResult]) -> str:
    """The table of results of one kind."""
    rows = [cells_of(result) for result in results]
    headings = ["", "test", "pattern", *rows[0]]
    used = [name for name in headings[3:] if any(row[name] != "–" for row in rows)]
    lines = [
        f"| {' | '.join(['', 'test', 'pattern', *used])} |",
        f"|{'|'.join([':--', ':--', ':--', *('--:' for _ in used)])}|",
    ]
    for result, row in zip(results, rows, strict=True):
        verdict = verdict_of(result)
        texts = [f"{verdict.sign} {verdict.word}", result.definition.group or result.test, str(result.setup.pattern)]
        lines.append(f"| {' | '.join(map(escaped, [*texts, *(row[name] for name in used)]))} |")
    return "\n".join(lines)


def _details(result: TestResult) -> str:
    """What changed in the environment of a failed test, its functions and sparklines, folded; empty without one."""
    changed = [f"changed: {text}" for text in changed_facts(result)]
    drawn = [*changed, *function_table_lines(result.causes.profile), *_pictures(result), *load_picture(result)]
    if not drawn:
        return ""
    title = html.escape(" ".join(result.test.split()))  # a block of HTML, in which Markdown escapes nothing
    return f"<details><summary>{title}</summary>\n\n```\n{chr(10).join(drawn)}\n```\n\n</details>"


def _pictures(result: TestResult) -> list[str]:
    """The distribution of the latency, or of the times of streams with their names."""
    if result.stream is None:
        return latency_picture(result)
    pictures = {name.upper(): latency_picture(result, name) for name in with_role(Role.PICTURED)}
    return [line for name, picture in pictures.items() if picture for line in (name, *picture)]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


_WHOLE = ("ns", "bytes")


def properties_of(result: TestResult) -> list[tuple[str, str]]:
    """Outcome, kind, set-up, and each metric with its interval: ``perf_rtm_ns``, ``perf_rtm_ns_low`` and ``_high``."""
    setup = result.setup
    found = [
        ("perf_outcome", result.outcome.value),
        ("perf_kind", result.kind.value),
        ("perf_pattern", str(setup.pattern)),
        ("perf_load", str(setup.load)),
        ("perf_wire", setup.wire),
        ("perf_requests", str(result.measured.requests)),
    ]
    if setup.engine:
        found.append(("perf_engine", setup.engine))
    if result.definition.price is not None:
        found.append(("perf_price", str(result.definition.price)))
    if result.stream is not None:
        means = {"input": result.stream.input_tokens, "output": result.stream.output_tokens}
        found += [(f"perf_{name}_tokens_per_request", f"{mean[0]:.6g}") for name, mean in means.items() if mean]
    for metric, (value, low, high) in result.metrics.items():
        unit = metric_named(metric).unit.value
        name = f"perf_{metric}" if not unit or metric.endswith(unit) else f"perf_{metric}_{unit}"
        found += [
            (name, _number(value, unit)),
            (f"{name}_low", _number(low, unit)),
            (f"{name}_high", _number(high, unit)),
        ]
    found += [("perf_accepted", one.accepted) for one in result.verdicts if one.accepted]
    found += [(f"perf_{one.metric}_against_{one.against}", one.reason) for one in result.verdicts]
    return [(visible(name), visible(value)) for name, value in found]


def _number(value: float, unit: str) -> str:
    return str(round(value)) if unit in _WHOLE else f"{value:.6g}"
