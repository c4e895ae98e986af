"""The terminal summary: a table with a row per perf test, the notes of each test, and the ranking of patterns. Pure.

A metric with the role ``COLUMN`` has a column in every table. Also: a column that is no metric stands here, in the
overview of ``reports/html/page.py``, and in the job summary of ``reports/files/ci_reports.py``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.metrics.definitions import (
    METRICS,
    metric_named,
    priced_metric,
    streams_first,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import LatencyPercentile, Metric, Nmrt, Role
from pytest_mlpatterns.records.latency import STREAM_QUANTITIES, Latency
from pytest_mlpatterns.records.result import FailedTest, RankedPattern, Ranking, RunEnd, State, TestResult
from pytest_mlpatterns.records.result_parts import BaselineGap
from pytest_mlpatterns.records.setup import SystemKind
from pytest_mlpatterns.records.verdict import Gate, Kind, Outcome, Verdict
from pytest_mlpatterns.reports.text.comparison import (
    accepted_sentences,
    compared_line,
    compared_sentences,
    explained,
    figure_of,
    is_accepted,
    named_change,
    worst_comparison,
)
from pytest_mlpatterns.reports.text.notes import changed_note, found_nmrt, generators_text, nodes_text, tokens_text
from pytest_mlpatterns.reports.text.terminal_text import (
    Line,
    Span,
    Style,
    TextColumn,
    cut,
    folded,
    line,
    natural_width,
    table_lines,
    text_of,
    wrapped,
)
from pytest_mlpatterns.reports.text.undecided import PROBABLY_SLOWER, busy_machine, is_of_the_machine, undecided_lines
from pytest_mlpatterns.reports.text.where import missing_profile
from pytest_mlpatterns.units import Unit, format_count, format_duration, format_percent, format_rate

_NOTHING = (
    "nothing to rank: no test was measured under several patterns; "
    "give its marker a list, pattern=[Single(), Cached()], or the run --perf-patterns"
)
SCORE_MEANING = (
    "Score: weighted geometric mean of the shares of the best value of each metric; 1 is the best in all. "
    "Their intervals are at 95 % confidence."
)
"""Explanation of the scores, below a ranking."""
_RANKING_INDENT = "  "


def ranking_lines(rankings: Sequence[Ranking], results: Sequence[TestResult], width: int) -> list[str]:
    """For each test the decision in a sentence, the table, and the notes."""
    if not rankings:
        return wrapped(_NOTHING, width)
    measured = {result.test: result.metrics for result in results}
    lines: list[str] = []
    for ranking in rankings:
        lines += wrapped(f"{ranking.group}: {ranking.sentence}", width, others=_RANKING_INDENT)
        lines += _ranking_rows(ranking, measured, width)
        words = [f"{row.pattern}: {row.excluded}" for row in ranking.rows if row.excluded is not None]
        words += [f"{row.pattern}: {doubt}" for row in ranking.rows for doubt in row.doubts]
        words += ranking.notes
        for text in words:
            lines += wrapped(text, width, first=_RANKING_INDENT, others=2 * _RANKING_INDENT)
        lines.append("")
    return lines + wrapped(SCORE_MEANING, width) + wrapped(explained("".join(lines)), width)


def _ranking_rows(ranking: Ranking, measured: Mapping[str, Mapping[str, Sequence[float]]], width: int) -> list[str]:
    """The patterns that can be chosen, with measured values beside their shares if there is room.

    A long pattern is written above its figures instead of being cut: its arguments distinguish it from others.
    """
    rows = [row for row in ranking.rows if row.rank is not None]
    if not rows:
        return []
    headings = ["rank", "score", "95 %"]
    headings += [f"{metric_named(name).short} × {weight:.2f}" for name, weight in ranking.weights.items()]
    full = _ranking_columns(headings, [_cells(row, measured[row.test]) for row in rows])
    terse = _ranking_columns(headings, [_cells(row, {}) for row in rows])
    patterns = TextColumn("pattern", [Span(row.pattern) for row in rows], right=False)
    for columns in ([patterns, *full], [patterns, *terse]):
        if natural_width(columns) + len(_RANKING_INDENT) <= width:
            return [_RANKING_INDENT + text_of(row) for row in table_lines(columns)]
    columns = full if natural_width(full) + 2 * len(_RANKING_INDENT) <= width else terse
    heading, *figures = [2 * _RANKING_INDENT + text_of(row) for row in table_lines(columns)]
    pairs = zip(rows, figures, strict=True)
    return [heading, *(text for row, texts in pairs for text in (_RANKING_INDENT + row.pattern, texts))]


def _ranking_columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[TextColumn]:
    cells = zip(*rows, strict=True)
    return [TextColumn(heading, list(map(Span, column))) for heading, column in zip(headings, cells, strict=True)]


def _cells(row: RankedPattern, values: Mapping[str, Sequence[float]]) -> list[str]:
    assert row.score is not None
    score, low, high = row.score
    shares = [
        f"{metric_named(name).show(values[name][0])}  {_number(share)}" if name in values else _number(share)
        for name, (share, _) in row.parts.items()
    ]
    return [f"{row.rank}", _number(score), f"{_number(low)}–{_number(high)}", *shares]


def _number(score: float) -> str:
    """Two decimals, or two significant digits below 0.1."""
    return f"{score:.2f}" if score >= 0.1 else f"{score:#.2g}"


_WIDE = 100  # Terminal width from which on the table has every column
_HEADINGS = {"median": "median latency", "ASL": "ASL (CPU share)"}
"""Headings that explain what is not known by that name elsewhere, if there is room for them."""
_UNITS = {Unit.RATE: "req/s", Unit.TOKEN_RATE: "tok/s", Unit.COST: "cost/million", Unit.INSTRUCTIONS: "instructions"}
"""Headings of columns whose unit says what they are, so that their cells have none."""
_LONGEST_SERVICE = 24  # Columns of a service in a narrow terminal: the name of its program; a command may have hundreds
_INDENT = "  "
_MIN_TEST, _MIN_PATTERN = 6, 6
_SHOWN_PERCENTS = (50, 75, 90, 95, 99, 99.9)  # Percentiles of a single test that are shown below its row


class VerdictMark(Struct, frozen=True):
    """An outcome as shown: a sign, a word and a colour."""

    sign: str
    word: str
    style: Style


_PASS = VerdictMark("✓", "pass", Style.GOOD)
_ACCEPTED = VerdictMark("✓", "accepted", Style.OPEN)
_LIKELY = VerdictMark("?!", PROBABLY_SLOWER, Style.BAD)
_CAUGHT = VerdictMark("✗", "caught", Style.OPEN)  # It passed, but an assertion in it did not
_MEASURED = VerdictMark("·", "measured", Style.PLAIN)
_VERDICTS = {
    State.PASSED: _PASS,
    State.FAILED: VerdictMark("✗", "FAIL", Style.BAD),
    State.UNDECIDED: VerdictMark("?", "undecided", Style.OPEN),
    State.INTERRUPTED: VerdictMark("!", "interrupted", Style.OPEN),
}


def verdict_of(result: TestResult) -> VerdictMark:
    """The mark of a test's outcome.

    One that passed has its own if it caught a failure, if a change is accepted, and if it has no verdict.
    """
    verdict = _LIKELY if result.kind is Kind.PROBABLY_SLOWER else _VERDICTS[result.outcome]
    if verdict is not _PASS:
        return verdict
    if result.judged.caught:
        return _CAUGHT
    return _ACCEPTED if is_accepted(result) else verdict if result.verdicts else _MEASURED


def by_kind(results: Sequence[TestResult]) -> list[list[TestResult]]:
    """The results whose answers come whole, then those whose answers stream, which have other columns."""
    kinds = [[one for one in results if (one.stream is not None) is streams] for streams in (False, True)]
    return [kind for kind in kinds if kind]


def cells_of(result: TestResult) -> dict[str, str]:
    """The figures of a row by heading; a dash if one is not known."""
    cells = {}
    for metric in _metrics(streams=result.stream is not None):
        cells[_heading(metric)] = _capacity(result) if isinstance(metric.kind, Nmrt) else _cell(result, metric)
        if Role.LEADING in metric.roles:
            cells["±"] = _half_width(result, metric.name)
    return {**cells, "change": _change(result).text}


def summary_lines(
    results: Sequence[TestResult], width: int, *, verbose: bool = False, spell: Callable[[str], str] = str
) -> list[Line]:
    """The table of all results, and below it the notes of each test.

    ``results``: in the order in which the tests ran, at least one. ``verbose``: add percentiles, the statistics of the
    load generator and the warm-up of every test. ``spell``: writes a text in characters that the terminal has, which
    may take more columns; the table is measured as it is written.
    """
    lines = _table(results, width, spell)
    if absent := _without_baseline(results):
        lines += [(), line(absent)]
    for result in results:
        notes = [*_words(result), *(_details(result) if verbose else ())]
        if notes and result.outcome is not State.UNDECIDED:
            shown = [part for text in notes for part in wrapped(text, width, _INDENT, others=2 * _INDENT)]
            lines += [(), line(result.test, Style.STRONG), *map(line, shown)]
    return [*lines, *_undecided(results, width, verbose=verbose)]


def _table(results: Sequence[TestResult], width: int, spell: Callable[[str], str]) -> list[Line]:
    """One table for answers that come whole, and one for those that stream."""
    tables = [_rows(kind, width, spell) for kind in by_kind(results)]
    lines = [row for number, rows in enumerate(tables) for row in ([(), *rows] if number else rows)]
    headings = [span.text for row in lines if row and row[0].style is Style.STRONG for span in row]
    legend = explained(" ".join(heading for heading in headings if heading.strip() not in _HEADINGS.values()))
    return [*lines, line(legend, Style.FAINT)] if legend else lines


def _rows(results: Sequence[TestResult], width: int, spell: Callable[[str], str]) -> list[Line]:
    """The table of results of one kind."""
    others = [one.spelled(spell) for one in _columns(results, wide=width >= _WIDE)]
    whole = _test_column([_group(result) for result in results]).spelled(spell)
    explained = [replace(one, heading=_HEADINGS.get(one.heading, one.heading)) for one in others]
    for columns in ([whole, *explained], [whole, *others]):
        if natural_width(columns) <= width:
            return table_lines(columns, width)
    short = _test_column([_group(result).partition("::")[2] for result in results]).spelled(spell)
    if natural_width([short, *others]) > width < _WIDE:  # names of tests are worth more
        others = [one for one in others if one.heading != "ASL"]
    columns, below = folded([short, *others], width)
    return _below_files(results, table_lines(columns, width), width, below=below)


def _below_files(
    results: Sequence[TestResult], rows: Sequence[Line], width: int, *, below: Sequence[Sequence[str]]
) -> list[Line]:
    """The rows of the table, the file of each group of tests on a line above them."""
    lines, file = [rows[0]], ""
    for result, row, further in zip(results, rows[1:], below, strict=True):
        if file != (file := result.test.partition("::")[0]):
            lines.append(line(cut(file, width, left=True), Style.FAINT))
        lines += [row, *map(line, further)]
    return lines


def _test_column(names: Sequence[str]) -> TextColumn:
    return TextColumn("test", [Span(name) for name in names], right=False, least=_MIN_TEST, cut_left=True)


def _columns(results: Sequence[TestResult], *, wide: bool) -> list[TextColumn]:
    """The columns after the test's, for results of one kind."""

    def column(heading: str, cell: Callable[[TestResult], Span], least: int | None = None) -> TextColumn:
        left = least is not None or cell is verdict
        return TextColumn(heading, [cell(result) for result in results], right=not left, least=least)

    def figure(heading: str, style: Style = Style.PLAIN) -> TextColumn:
        return column(heading, lambda result: Span(cells_of(result)[heading], style))

    def verdict(result: TestResult) -> Span:
        mark = verdict_of(result)
        return Span(f"{mark.sign} {mark.word}", mark.style)

    names = [column("pattern", lambda result: Span(_service(result, wide=wide)), _MIN_PATTERN)]
    if len({result.setup.wire for result in results}) > 1:
        names.append(column("wire", lambda result: Span(result.setup.wire), _MIN_PATTERN))
    figures = []
    for metric in _metrics(streams=results[0].stream is not None):
        if _has_room(metric, results, wide=wide):
            figures.append(figure(_heading(metric)))
            figures += [figure("±", Style.FAINT)] if wide and Role.LEADING in metric.roles else []
    return [*names, *figures, column("change", _change), column("verdict", verdict)]


def _metrics(*, streams: bool) -> list[Metric]:
    """The metrics with a column: where answers stream, the latency of whole answers has none."""
    metrics = [METRICS[name] for name in streams_first(with_role(Role.COLUMN))]
    return [one for one in metrics if (not isinstance(one.kind, LatencyPercentile) if streams else not one.of_streams)]


def _heading(metric: Metric) -> str:
    return metric.short if isinstance(metric.kind, Nmrt) else _UNITS.get(metric.unit, metric.short)


def _has_room(metric: Metric, results: Sequence[TestResult], *, wide: bool) -> bool:
    """Whether the table has a column: always, but for what nothing measured, and for details in a narrow terminal."""
    if isinstance(metric.kind, Nmrt):
        return any(result.limits.capacities for result in results)
    if metric.unit in (Unit.COST, Unit.INSTRUCTIONS):
        return (wide or metric.unit is Unit.COST) and any(metric.name in result.metrics for result in results)
    is_detail = metric.is_stream_tail or (metric.unit is Unit.RATE and results[0].stream is not None)
    return wide or not is_detail


def _service(result: TestResult, *, wide: bool) -> str:
    """The pattern, or a service of the user's own, which is shortened in a narrow terminal."""
    pattern = result.setup.pattern
    return cut(str(pattern), _LONGEST_SERVICE) if pattern.kind is not SystemKind.PATTERN and not wide else str(pattern)


def _group(result: TestResult) -> str:
    return result.definition.group or result.test


def _cell(result: TestResult, metric: Metric) -> str:
    """The value of a metric; a rate's without its unit, which the heading has."""
    if (found := figure_of(result, metric.name)) is None:
        return "–"
    if metric.unit in (Unit.RATE, Unit.TOKEN_RATE):
        return format_count(found[0])
    return priced_metric(metric.name, result.definition.price).show(found[0])


def _half_width(result: TestResult, name: str) -> str:
    found = figure_of(result, name)
    return format_percent((found[2] - found[1]) / (2 * found[0])) if found is not None and found[0] else "–"


def _capacity(result: TestResult) -> str:
    found = found_nmrt(result)
    if found is None:
        return "–"
    value, is_bound = found
    return f"{'≥' if is_bound else ''}{format_count(value)}"


def _change(result: TestResult) -> Span:
    """The change of the latency or TTFT, or of the worst metric, with the name of what was judged."""
    if (verdict := worst_comparison(result)) is None:
        return Span("–")
    if verdict.outcome is Outcome.FAIL:
        return Span(named_change(verdict), Style.BAD)
    if verdict.suspected:
        return Span(named_change(verdict), Style.BAD if result.kind is Kind.PROBABLY_SLOWER else Style.OPEN)
    better = _is_better(verdict, result)
    return Span(named_change(verdict), Style.GOOD if better else Style.PLAIN)


def _is_better(verdict: Verdict, result: TestResult) -> bool:
    """Whether the whole interval of a change is better than the tolerance."""
    tolerance = result.definition.tolerance if verdict.tolerance is None else verdict.tolerance
    return verdict.change is not None and verdict.change.high < -tolerance


def _undecided(results: Sequence[TestResult], width: int, *, verbose: bool) -> list[Line]:
    """The text on each undecided test; what the machine did to several stands at the first one."""
    lines: list[Line] = []
    is_said = False
    for result in results:
        if result.outcome is not State.UNDECIDED:
            continue
        notes = [*_words(result), *(_details(result) if verbose else ())]
        lines += [(), *undecided_lines(result, width, notes=notes, is_short=not verbose, as_above=is_said)]
        is_said = is_said or is_of_the_machine(result)
    return lines


def _words(result: TestResult) -> list[str]:
    better = [
        f"better than its baseline: {verdict.reason}; record it: --perf-baseline update"
        for verdict in result.verdicts
        if verdict.against == "baseline" and not result.judged.baseline_note
        if _is_better(verdict, result)
    ]
    accepted = accepted_sentences(result)
    is_counted = result.judged.baseline_note == BaselineGap.ABSENT  # in one line for all
    note = [] if is_counted else [*filter(None, [result.judged.baseline_note])]
    further = [changed_note(result), compared_line(result), missing_profile(result)]
    return [*accepted, *better, *note, *filter(None, further), *result.judged.notes]


def _without_baseline(results: Sequence[TestResult]) -> str:
    absent = sum(1 for result in results if result.judged.baseline_gap is BaselineGap.ABSENT)
    if not absent:
        return ""
    return (
        f"{wording.count(absent, 'test has', 'tests have')} no baseline yet; record it: pytest --perf-baseline update"
    )


def _details(result: TestResult) -> list[str]:
    """What ``-v`` adds: percentiles, the statistics of the load generator, the warm-up, and the nodes of a cluster."""
    parts = [*_distributions(result), ("generator", _generator(result)), ("warm-up", _warmups(result))]
    parts.append(("nodes", nodes_text(result.conditions.nodes)))
    if result.reference is not None:
        parts.append(("against", result.reference.name))
    parts += [("compared", text) for text in compared_sentences(result)]
    parts += [("noise", str(one)) for one in result.conditions.noise]
    return [f"{label:<10}{text}" for label, text in parts if text]


def _distributions(result: TestResult) -> list[tuple[str, str]]:
    """The percentiles of the latency, and of what streams have."""
    found = [("latency", _percentiles(result.measured.latency))]
    if result.stream is not None:
        found += [(name.upper(), _percentiles(result.stream.of(name))) for name in STREAM_QUANTITIES]
        found.append(("tokens", tokens_text(result.stream)))
    return found


def _percentiles(latency: Latency | None) -> str:
    if latency is None:
        return ""
    known = dict(latency.percentiles)
    shown = [f"p{percent:g} {format_duration(known[percent])}" for percent in _SHOWN_PERCENTS if percent in known]
    return ", ".join([*shown, f"slowest {format_duration(latency.percentiles[-1][1])}"])


def _generator(result: TestResult) -> str:
    """The statistics of the load generator that are known."""
    found = result.conditions.generator
    parts = []
    if isinstance(cpu := found.get("cpu_ns_per_request"), float):
        parts.append(f"{format_duration(cpu)} of CPU per request")
    if isinstance(share := found.get("core_share"), float):
        parts.append(f"{format_percent(share)} of a core")
    if isinstance(ceiling := found.get("ceiling_rps"), float):
        where = "on its node" if result.conditions.generator_parts else "on this machine"
        parts.append(f"at most {format_rate(ceiling)} {where}, against an empty server")
    if isinstance(lag := found.get("send_lag_p99_ns"), float) and lag > 0:
        parts.append(f"99 % sent at most {format_duration(lag)} late")
    if isinstance(connections := found.get("connections"), int | float):
        parts.append(wording.count(round(connections), "connection"))
    parts += filter(None, [generators_text(result.conditions.generator_parts)])
    return ", ".join(parts)


def _warmups(result: TestResult) -> str:
    """Duration of the warm-ups, and how they ended."""
    if not result.conditions.warmups:
        return ""
    count = Counter(warmup.steady for warmup in result.conditions.warmups)
    ended = {True: "steady", False: "not steady at its end", None: "fixed time"}
    how = ", ".join(
        f"{number} {ended[steady]}" if len(count) > 1 else ended[steady] for steady, number in count.items()
    )
    mean_ns = fmean(warmup.duration_ns for warmup in result.conditions.warmups)
    requests = fmean(warmup.requests for warmup in result.conditions.warmups)
    launches = f", mean of {len(result.conditions.warmups)} launches" if len(result.conditions.warmups) > 1 else ""
    return f"{how}: {format_duration(mean_ns)} and {requests:,.0f} requests{launches}"


_KIND_WORDS: Mapping[Kind, tuple[str, str]] = {
    Kind.REGRESSION: ("regression", "regressions"),
    Kind.LIMIT: ("missed limit", "missed limits"),
    Kind.TEST_ERROR: ("broken test", "broken tests"),
    Kind.INVALID: ("invalid test", "invalid tests"),
    Kind.PROBABLY_SLOWER: (PROBABLY_SLOWER, PROBABLY_SLOWER),
    Kind.UNDECIDED: ("undecided", "undecided"),
    Kind.INTERRUPTED: ("interrupted", "interrupted"),
    Kind.NOT_COMPARED: ("not compared", "not compared"),
    Kind.ACCEPTED: ("accepted", "accepted"),
    Kind.PASSED: ("passed", "passed"),
}
"""Kinds in the order of the headline, each as one test has it and as several have it."""
_OPEN = (Kind.UNDECIDED, Kind.INTERRUPTED, Kind.NOT_COMPARED)
_CALM = (Kind.PASSED, Kind.ACCEPTED)


def kind_word(kind: Kind) -> str:
    """A kind in words: ``missed limit``."""
    return _KIND_WORDS[kind][0]


def kinds_of(results: Iterable[TestResult], failures: Iterable[FailedTest]) -> dict[str, Kind]:
    """The kind of each test, by its id."""
    return {one.test: one.kind for one in failures} | {one.test: one.kind for one in results}


def counted(kinds: Iterable[Kind]) -> dict[Kind, str]:
    """How many tests are of each kind, in words: ``{Kind.PASSED: "12 passed"}``; the most urgent first."""
    counts = Counter(kinds)
    return {kind: wording.count(counts[kind], *words) for kind, words in _KIND_WORDS.items() if counts[kind]}


def headline(kinds: Iterable[Kind]) -> str:
    """How many tests are of each kind: ``1 regression, 1 broken test, 12 passed``."""
    return ", ".join(counted(kinds).values()) or "no perf test"


def incompleteness(run: RunEnd) -> str:
    """What is missing from a run, ``the run was not completed, 2 perf tests not run``; empty if all ended."""
    cut = "" if run.complete else "the run was not completed"
    smoke = "nothing was measured (--perf-smoke)" if run.smoke else ""
    missing = f"{wording.count(len(run.not_run), 'perf test')} not run" if run.not_run else ""
    return ", ".join(filter(None, (cut, smoke, missing)))


def headline_style(kinds: Iterable[Kind]) -> Style:
    """The colour of the headline: the most urgent kind's."""
    found = {*kinds}
    if found <= {*_CALM}:
        return Style.GOOD
    return Style.OPEN if found <= {*_CALM, *_OPEN} else Style.BAD


def end_lines(results: Sequence[TestResult], failures: Sequence[FailedTest], run: RunEnd) -> list[Line]:
    """What the gate let pass, with its whole text, and the number of tests of each kind; none without a test."""
    kinds = [*kinds_of(results, failures).values()]
    if not kinds:
        return []
    lines: list[Line] = []
    for failure in failures:
        if failure.gate is Gate.WARN:
            first, *others = failure.text.splitlines()
            lines += [(), line(failure.test, Style.BAD), line(f"  {first}", Style.BAD)]
            lines += [line(f"  {text}".rstrip()) for text in others]
    parts = (f"performance: {headline(kinds)}", busy_machine(results), let_pass(results, failures), incompleteness(run))
    return [*lines, (), line("; ".join(filter(None, parts)), headline_style(kinds))]


def let_pass(results: Sequence[TestResult], failures: Sequence[FailedTest]) -> str:
    """That tests passed although their verdicts failed; empty without such a test."""
    advised = sum(one.gate is Gate.WARN for one in failures)
    caught = sum(bool(one.judged.caught) for one in results)
    parts = [f"{wording.count(advised, 'test')} would fail with --perf-gate fail"] if advised else []
    return ", ".join([*parts, *([f"{wording.count(caught, 'test')} caught a failure and passed"] if caught else [])])
