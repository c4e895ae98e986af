"""The text of a failure: the verdict, where its time is, the facts that a reader needs, and the next step.

It has at most 18 lines in a terminal of 80 columns: what a reader needs least is left out first. The page has it all.
Also: ``analysis/verdicts/verdicts.py`` writes the sentence of a verdict, and ``reports/text/comparison.py`` the rows.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS, priced_metric, streams_first, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.verdicts.tolerances import changes_to_accept
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.package_layers import answer_figures
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.records.verdict import Outcome, Verdict, rounded_ceiling
from pytest_mlpatterns.reports.text.comparison import comparison_row, comparisons_of, metric_label
from pytest_mlpatterns.reports.text.notes import changed_facts, overload_picture, tokens_text
from pytest_mlpatterns.reports.text.terminal_text import latency_picture, load_picture, load_varies, width_of, wrapped
from pytest_mlpatterns.reports.text.undecided import Command, accept_command, beside_recorded, open_step, run_again
from pytest_mlpatterns.reports.text.where import functions_explain, where_texts

_TERMINAL = 80  # Columns that a line has with the prefix of pytest
_PREFIX = 8  # Columns of pytest's prefix in the body of a test; at its definition there are 4
_MOST_ROWS = 18
"""Rows of a terminal that a failure fills: with pytest's own lines around it, it stays on one screen of 24."""
_NAME_OF_FAILURE = 19  # Columns of the name of the exception, which stands before the first line
_WIDTH = 60  # Width after the label: with the label and the prefix, a line has 80 columns
_LABEL = 10  # Width of the labels of the facts
_MOST_WHERE = 8  # Lines on where the time of a failure is: its parts and a function in three each, its line in two
_MOST_CHANGED = 2  # Changes of the environment that are named
_USUAL = {"pattern": "single", "engine": "", "load": "closed(1)", "wire": "rest+json"}
"""The set-up of a test that chooses none."""
_WORDS = {Outcome.FAIL: "beyond tolerance", Outcome.INCONCLUSIVE: "undecided", Outcome.PASS: "within tolerance"}
_TO_DECIDE = "to decide it:"  # What a command is for whose reason says the rest
_MOST_OTHERS = 3
"""Further metrics beyond their tolerance that are named: a service that is slower is worse in each of its times."""


class _Part(Struct, frozen=True):
    """Some lines of a failure."""

    lines: Sequence[str]  # below each other, with their label
    order: int = 0  # in which parts are left out if there is no room, the highest first; 0 for one that always stays


def failure_text(verdicts: Sequence[Verdict], result: TestResult, results_file: str = "") -> str:
    """The text of a failure: the first verdict with its figures, where the time is, the facts, and the next step.

    ``results_file``: that the run will write; empty if it writes none.
    """
    first, *others = verdicts
    parts = [
        _Part([first.reason]),
        _Part(_labelled("where", _wrapped(where_texts(result, verdicts))[:_MOST_WHERE])),
        _Part(_labelled("also", _others(others, result, first)), 1),
        *_facts(result, {verdict.metric for verdict in verdicts}),
        _Part(_labelled("why", wrapped(why_open(verdicts, result), _WIDTH))),
        _Part(_labelled("next", _next(verdicts, result, results_file))),
    ]
    return "\n".join(line for part in _fitted(parts) for line in part.lines)


def _fitted(parts: Sequence[_Part]) -> list[_Part]:
    """The parts for which there is room."""
    kept = list(parts)
    for part in sorted(parts, key=lambda one: -one.order):
        if part.order == 0 or sum(map(_rows, kept)) + _wraps(kept) <= _MOST_ROWS:
            break
        kept.remove(part)
    return kept


def _rows(part: _Part) -> int:
    """How many rows of a terminal the lines of a part fill."""
    return sum(-(-(_PREFIX + width_of(line)) // _TERMINAL) for line in part.lines)


def _wraps(parts: Sequence[_Part]) -> int:
    """Rows that the name of the exception adds to the first line."""
    width = _PREFIX + width_of(parts[0].lines[0])
    return -(-(width + _NAME_OF_FAILURE) // _TERMINAL) - -(-width // _TERMINAL)


def measured_counts(result: TestResult) -> list[str]:
    """How much was measured: ``["2 launches", "7,406 requests"]``."""
    return [
        wording.count(result.measured.launch_count, "launch", "launches"),
        wording.count(result.measured.requests, "request"),
    ]


def measurement_text(result: TestResult) -> str:
    """The facts of the measurement, for a test that failed for another reason than a verdict."""
    return "\n".join(line for part in _facts(result, set()) for line in part.lines)


def _facts(result: TestResult, shown: set[str]) -> list[_Part]:
    """The facts behind a verdict; metrics in ``shown`` are left out, and all of them beside a comparison."""
    kinds = result.measured.failed_kinds
    measured = [
        *measured_counts(result),
        f"{result.measured.failed_count:,} failed{f' ({kinds})' if kinds else ''}",
        *_pairs(result),
        f"{result.measured.seconds_spent:.1f} s{_of_the_budget(result)}",
    ]
    tokens = tokens_text(result.stream) if result.stream is not None else ""
    metrics = [] if comparisons_of(result) else _other_metrics(result, shown)
    overloads = [line for one in result.limits.overloads[-1:] for line in _labelled("overload", overload_picture(one))]
    return [
        _Part(_fact("set-up", _set_up(result.setup)), 6),
        _Part(_fact("against", [result.reference.name] if result.reference is not None else []), 3),
        _Part(_labelled("changed", _wrapped(changed_facts(result, most=_MOST_CHANGED))), 2),
        _Part(_fact("measured", measured), 4),
        _Part(_fact("tokens", [tokens] if tokens else []), 7),
        _Part(_fact("metrics", metrics), 8),
        *(_Part(lines, 9) for lines in _distributions(result)),
        _Part(_labelled("load", load_picture(result) if load_varies(result) else []), 10),
        _Part(overloads, 5),
    ]


def _pairs(result: TestResult) -> list[str]:
    """How many paired launches came after the launches of its own load, whose requests are counted before."""
    pairs = result.reference.pairs if result.reference is not None and result.reference.kind == "revision" else 0
    return [f"then {wording.count(pairs, 'paired launch', 'paired launches')}"] if pairs else []


def _of_the_budget(result: TestResult) -> str:
    """The time that the test was allowed; empty if that is not known, or if it took longer, which a note explains."""
    terms = result.definition.terms
    budget_s = 0.0 if terms is None else terms.budget_ns / 1e9
    return f" of {budget_s:g} s" if result.measured.seconds_spent <= budget_s else ""


def _set_up(setup: Setup) -> list[str]:
    """What of a set-up is not the default."""
    parts = {"pattern": str(setup.pattern), "engine": setup.engine, "load": str(setup.load), "wire": setup.wire}
    return [f"{name} {text}" for name, text in parts.items() if text != _USUAL[name]]


def _others(others: Sequence[Verdict], result: TestResult, first: Verdict) -> list[str]:
    """Further verdicts that fail and limits that are open, each in short, and what became of all other comparisons."""
    lines = [part for one in others[:_MOST_OTHERS] for part in wrapped(_in_short(one), _WIDTH, others="  ")]
    if (more := len(others) - _MOST_OTHERS) > 0:
        lines.append(f"and {wording.count(more, 'more metric')} beyond tolerance")
    left = [one for one in result.verdicts if one.against == "limit" and one.outcome is Outcome.INCONCLUSIVE]
    lines += [f"undecided limit: {metric_label(one.metric)}" for one in left]
    judged = {one.metric for one in (first, *others)}
    counts = Counter(_WORDS[one.outcome] for one in comparisons_of(result) if one.metric not in judged)
    counted = [f"{wording.count(counts[word], 'other metric')} {word}" for word in _WORDS.values() if counts[word]]
    return [*lines, *([", ".join(counted)] if counted else [])]


def _in_short(verdict: Verdict) -> str:
    """A verdict without its interval and its tolerance: ``throughput 1,240 req/s → 905 req/s: -27.0 %``."""
    if verdict.tolerance is None:
        return verdict.reason
    row = comparison_row(verdict)
    return f"{row.label} {row.reference} → {row.present}: {row.change}"


def _distributions(result: TestResult) -> list[list[str]]:
    """Sketches of the latency, or of the times of streams."""
    if result.stream is None:
        return [_labelled("latency", latency_picture(result))]
    return [_labelled(name.upper(), latency_picture(result, name)) for name in with_role(Role.PICTURED)]


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
    names = (*streams_first(with_role(Role.FACT)), *(figure.name for figure in answer_figures()))
    return [
        f"{metric.label} {metric.show(Estimate(*result.metrics[metric.name]).value)}"
        for metric in (priced_metric(name, result.definition.price) for name in names)
        if metric.name in result.metrics and metric.name not in shown
    ]


def _next(verdicts: Sequence[Verdict], result: TestResult, results_file: str) -> list[str]:
    """The next step in lines; the advice on an open verdict is longer than one, and a command stays whole."""
    lines = next_step(verdicts, result, results_file)
    if not any(verdict.outcome is Outcome.INCONCLUSIVE for verdict in verdicts):
        return lines
    return [part for one in lines for part in ([one] if isinstance(one, Command) else wrapped(one, _WIDTH))]


def why_open(verdicts: Sequence[Verdict], result: TestResult) -> str:
    """Why these verdicts are open, if one is; empty if none is, or if their sentences have it."""
    return open_step(result, verdicts).why


def failures_of(result: TestResult) -> list[list[Verdict]]:
    """The verdicts of a test that want a next step, by the failure that reports them; a gate that warns has several.

    All comparisons are one failure, and so are all limits of one line. If nothing failed, those that are open.
    """
    failing = [one for one in result.verdicts if one.outcome is Outcome.FAIL]
    if not failing:
        still = [one for one in result.verdicts if one.outcome is Outcome.INCONCLUSIVE]
        return [still] if still else []
    found: dict[str, list[Verdict]] = {}
    for one in failing:
        failure = "" if one.against in ("baseline", "revision") else one.asserted_at or one.against
        found.setdefault(failure, []).append(one)
    return [*found.values()]


def next_step(verdicts: Sequence[Verdict], result: TestResult, results_file: str = "") -> list[str]:
    """The next step after these verdicts; a command has a line of its own, so that it can be copied."""
    record = run_again(result, "--perf-baseline update")
    if any(verdict.outcome is Outcome.INCONCLUSIVE for verdict in verdicts):
        step = open_step(result, verdicts)
        return [step.lead or _TO_DECIDE, step.command] if step.command else [step.advice]
    metrics = {one.metric for one in verdicts}
    wrong = _wrong(metrics, "is slower")
    if any(verdict.against == "baseline" for verdict in verdicts):
        steps = [f"find the change that {wrong}; if it is intended, record it:", record]
        command = beside_recorded(result)  # which names functions
        if command and any(functions_explain(verdict.metric) for verdict in verdicts):
            steps += ["to see which function got slower, compare with that commit:", command]
        return steps
    if any(verdict.against == "revision" for verdict in verdicts):
        if result.reference is not None and result.reference.entry:
            return [f"find the change that {wrong}; if it is intended, record it:", record]
        if any(verdict.needed_ceiling is None for verdict in verdicts if verdict.against == "revision"):
            return [f"find the change that {wrong}; no ceiling can accept it"]
        return [
            f"find the change that {wrong}; if it is intended, accept it{':' if results_file else ''}",
            *_accepted_by(verdicts, result, results_file),
        ]
    asserted = [verdict.asserted_at for verdict in verdicts if verdict.asserted_at]
    where = asserted[0] if asserted else str(result.definition.location or result.test.partition("::")[0])
    return [f"find what {_wrong(metrics, 'is slow')}; if the limit is too tight, change it:", where]


def _accepted_by(verdicts: Sequence[Verdict], result: TestResult, results_file: str) -> list[str]:
    """What accepts these changes: a command if there is a result file, else an argument of the marker."""
    if results_file:
        return [accept_command(results_file, result.test)]
    texts = [f'"{one} +{rounded_ceiling(change):g} %: why"' for one, change in changes_to_accept(verdicts)]
    shown = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return ["in the marker of the test:", Command(f"accept={shown}")]


def _wrong(metrics: set[str], slow: str) -> str:
    """What a change does whose metrics are beyond their tolerance; ``slow`` if it takes time."""
    if metrics <= {*GROWTHS}:
        return "leaks"
    if metrics <= {"recovery", "unhurt"} and "unhurt" in metrics:
        return "hurts requests"
    if metrics == {"instructions"}:
        return "adds work"
    if metrics == {"recovery"}:
        return "delays the recovery"
    if all(name.startswith("goodput(") for name in metrics):
        return "lets the goodput fall"
    return "fails requests" if "error_rate" in metrics else slow


def diagnosis_of(measured: Metrics | None, log: str) -> str:
    """The diagnosis as text; empty if there is nothing.

    ``measured``: so far; None if nothing was. ``log``: the end of the log of the processes of the deployment.
    """
    launches = () if measured is None else measured.launches
    tracebacks = [text for launch in launches if launch.stats for text in launch.stats.tracebacks]
    parts = [f"The model raised:\n{text}" for text in dict.fromkeys(tracebacks)]
    return "\n\n".join([*parts, f"The deployment printed last:\n{log}"] if log else parts)
