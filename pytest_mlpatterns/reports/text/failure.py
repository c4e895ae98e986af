"""The text of a failure: the verdict, the facts of the measurement, and the next step."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.metric_definitions import GROWTHS, METRICS, priced_metric
from pytest_mlpatterns.records.acceptance import changes_to_accept, rounded_ceiling
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.outcomes import describe_failures
from pytest_mlpatterns.records.setup import SystemKind
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.text.comparison import compared_sentences, comparisons_of
from pytest_mlpatterns.reports.text.environment_lines import changed_facts
from pytest_mlpatterns.reports.text.function_lines import functions_explain
from pytest_mlpatterns.reports.text.notes import tokens_text
from pytest_mlpatterns.reports.text.overload_text import overload_picture
from pytest_mlpatterns.reports.text.sketches import latency_picture, load_picture
from pytest_mlpatterns.reports.text.styled_text import width_of
from pytest_mlpatterns.reports.text.suspicions import longer_command
from pytest_mlpatterns.reports.text.text_table import wrapped
from pytest_mlpatterns.reports.text.where import where_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_mlpatterns.records.result import Location, TestResult
    from pytest_mlpatterns.records.setup import Setup
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["failure_text", "measured_counts", "measurement_text", "next_step"]

_WIDTH = 64
"""Width after the label: with the label and the prefix that pytest adds, a line has 80 columns."""
_LABEL = 10
_COMMIT = re.compile(r"\(([0-9a-f]{7,40})\)$")
"""The commit at the end of a baseline's name, unless files were changed after it."""
_OF_STREAMS = ("ttft", "ttft:p95", "tpot", "itl", "itl:p95", "output_tokens", "output_tokens_per_user")
_METRICS = ("rtm", "p95", "throughput", "error_rate", "asl", "cpu_per_request", "peak_memory", "cost")


def failure_text(verdicts: Sequence[Verdict], result: TestResult, results_file: str = "") -> str:
    """The text of a failure: the verdicts with their figures, where the time is, the facts, and the next step.

    Args:
        verdicts: that failed the test.
        result: of the test.
        results_file: that the run will write; empty if it writes none.
    """
    lines = [
        *(verdict.reason for verdict in verdicts),
        *_labelled("where", _wrapped(where_texts(result, verdicts))),
        *_facts(result, {verdict.metric for verdict in verdicts}),
        *_labelled("next", next_step(verdicts, result, results_file)),
    ]
    return "\n".join(lines)


def measured_counts(result: TestResult) -> list[str]:
    """How much was measured: ``["2 launches", "24 blocks", "7,406 requests"]``."""
    return [
        wording.count(result.launch_count, "launch", "launches"),
        wording.count(result.blocks, "block"),
        wording.count(result.requests, "request"),
    ]


def measurement_text(result: TestResult) -> str:
    """The facts of the measurement, for a test that failed for another reason than a verdict."""
    return "\n".join(_facts(result, set()))


def _facts(result: TestResult, shown: set[str]) -> list[str]:
    """The facts behind a verdict; metrics in ``shown`` are left out."""
    setup = result.setup
    failed = sum(result.failed_requests.values())
    kinds = describe_failures(
        {int(code): count for code, count in result.failed_requests.items()}, result.first_failure
    )
    measured = [
        *measured_counts(result),
        f"{failed:,} failed{f' ({kinds})' if kinds else ''}",
        *([f"{result.cancelled_requests:,} cancelled"] if result.cancelled_requests else []),
        f"{result.seconds_spent:.1f} s",
    ]
    return [
        *_fact("test", [result.test]),
        *_fact("set-up", _set_up(setup)),
        *(_fact("against", [result.reference.name]) if result.reference is not None else ()),
        *_labelled("changed", _wrapped(changed_facts(result))),
        *_fact("measured", measured),
        *_fact("tokens", [text] if result.stream is not None and (text := tokens_text(result.stream)) else []),
        *_fact("metrics", _other_metrics(result, {*shown, *(verdict.figure for verdict in comparisons_of(result))})),
        *_labelled("compared", _wrapped(compared_sentences(result, leave_out=shown | _calm_growths(result)))),
        *_labelled("noise", _wrapped(text.partition(": ")[0] for text in result.noise)),
        *_distributions(result),
        *_labelled("load", load_picture(result)),
        *(line for one in result.overloads[-1:] for line in _labelled("overload", overload_picture(one))),
    ]


def _set_up(setup: Setup) -> list[str]:
    engine = [f"engine {setup.engine}"] if setup.engine else []
    return [f"pattern {setup.pattern}", *engine, f"load {setup.load}", f"wire {setup.wire}"]


def _calm_growths(result: TestResult) -> set[str]:
    """Growths that pass: nothing grew, which needs no line."""
    return {one.metric for one in comparisons_of(result) if one.metric in GROWTHS and one.outcome is Outcome.PASS}


def _distributions(result: TestResult) -> list[str]:
    """Sketches of the latency, or of the times of streams."""
    if result.stream is None:
        return _labelled("latency", latency_picture(result))
    return [line for name in ("ttft", "itl") for line in _labelled(name.upper(), latency_picture(result, name))]


def _wrapped(texts: Iterable[str]) -> list[str]:
    return [part for text in texts for part in wrapped(text, _WIDTH, others="  ")]


def _fact(label: str, parts: Sequence[str]) -> list[str]:
    """Parts joined by commas after a label, on several lines if they are too long; no line without parts."""
    lines: list[str] = []
    for number, part in enumerate(parts):
        text = part if number == len(parts) - 1 else f"{part},"
        if lines and width_of(lines[-1]) + width_of(text) < _WIDTH:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return _labelled(label, lines)


def _labelled(label: str, lines: Sequence[str]) -> list[str]:
    """Lines after a label."""
    return [f"  {'' if number else label:<{_LABEL}}{text}".rstrip() for number, text in enumerate(lines)]


def _other_metrics(result: TestResult, shown: set[str]) -> list[str]:
    return [
        f"{METRICS[name].label} {priced_metric(name, result.price).show(Estimate(*result.metrics[name]).value)}"
        for name in (*_OF_STREAMS, *_METRICS)
        if name in result.metrics and name not in shown
    ]


def next_step(verdicts: Sequence[Verdict], result: TestResult, results_file: str = "") -> list[str]:
    """The next step after these verdicts; a command has a line of its own, so that it can be copied."""
    again = result.command or f"pytest {shlex.quote(result.test)}"
    if any(verdict.outcome is Outcome.INCONCLUSIVE for verdict in verdicts):
        return [
            "measure longer: raise budget= and launches=",
            "in the marker of the test, or run",
            longer_command(result) or f"{again} --perf-budget 120s",
        ]
    wrong = _wrong({one.metric for one in verdicts})
    if any(verdict.against == "baseline" for verdict in verdicts):
        recorded = [f"find the change that {wrong}; if it is intended, record it:", f"{again} --perf-baseline update"]
        return [*recorded, *_against_recorded(verdicts, result, again)]
    if result.reference is not None and result.reference.entry:
        return [f"find the change that {wrong}; if it is intended, record it:", f"{again} --perf-baseline update"]
    if any(verdict.against == "revision" for verdict in verdicts):
        return [
            f"find the change that {wrong}; if it is intended, accept it",
            *_accepted_by(verdicts, result, results_file),
        ]
    where = result.test.partition("::")[0] if result.location is None else _position(result.location)
    return [f"find what {wrong.replace('slower', 'slow')}; if the limit is too tight, change it:", where]


def _accepted_by(verdicts: Sequence[Verdict], result: TestResult, results_file: str) -> list[str]:
    """What accepts these changes: a command where there is a result file, else an argument of the marker."""
    if results_file:
        command = ["python", "-m", "pytest_mlpatterns", "accept", results_file, result.test, "--reason", "WHY"]
        return [f"{shlex.join(command)}"]
    texts = [f'"{one} +{rounded_ceiling(change):g} %: why"' for one, change in changes_to_accept(verdicts)]
    shown = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return ["in the marker of the test:", f"accept={shown}"]


def _wrong(metrics: set[str]) -> str:
    """What a change does whose metrics are beyond their tolerance."""
    if metrics <= {*GROWTHS}:
        return "leaks"
    return "fails requests" if metrics == {"error_rate"} else "is slower"


def _against_recorded(verdicts: Sequence[Verdict], result: TestResult, again: str) -> list[str]:
    """The command that runs the baseline's commit beside the present, and so names functions; empty if it cannot."""
    commit = _COMMIT.search(result.reference.name) if result.reference is not None else None
    if commit is None or result.setup.pattern.kind is SystemKind.URL or result.setup.engine:
        return []
    if not any(functions_explain(verdict.metric) for verdict in verdicts):
        return []
    return ["to see which function got slower, compare with that commit:", f"{again} --perf-against {commit[1]}"]


def _position(location: Location) -> str:
    return f"{location.file}:{location.line}"
