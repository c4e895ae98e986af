"""What an undecided test leaves open: its figures, one reason, and what would decide it. Pure.

It does not fail, so a reader would miss it, and it needs no more room than a failure. The reason stands once, and the
next step follows from it: more measuring is advised only where it would decide. Also: the reasons come from
``analysis/verdicts/open_reasons.py``.
"""

import math
import shlex
from collections.abc import Sequence
from statistics import fmean, stdev

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.metrics.definitions import known_metric, metric_named
from pytest_mlpatterns.analysis.metrics.metric import USUAL_TOLERANCE, Role
from pytest_mlpatterns.analysis.statistics.log_ratio import RATIO_SD
from pytest_mlpatterns.analysis.verdicts.open_reasons import (
    LONGEST_S,
    OpenChange,
    OpenReason,
    busy_reason,
    known_reason,
    reason_of,
)
from pytest_mlpatterns.analysis.verdicts.verdicts import seconds_to_decide
from pytest_mlpatterns.records.launch import Busy
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.setup import SystemKind
from pytest_mlpatterns.records.verdict import OPEN_KINDS, Kind, OpenBy, Outcome, Verdict
from pytest_mlpatterns.reports.text.comparison import (
    comparison_row,
    comparisons_of,
    metric_label,
    most_severe_first,
    named_change,
)
from pytest_mlpatterns.reports.text.terminal_text import Line, Style, line, wrapped
from pytest_mlpatterns.units import format_percent

_DEFAULT_S = 120  # Budget that is recommended where none can be computed: twice the usual one
_STEP_S = 10  # Step to which a computed budget is rounded up
_MOST_ROWS = 7
"""Rows of the text on an undecided test: with its row in the table and the line that pytest writes, 12 at most."""
_MOST_REASONS = 2  # Verdicts that are shown with their reasons: each fills two rows of 80 columns
_MORE = 4  # Factor of the measurement that is recommended where none can be computed: it halves an interval
PROBABLY_SLOWER = "probably slower"  # What an undecided test is called whose estimate is far beyond its tolerance
_MOST_LAUNCHES = 100  # Most launches that a marker takes
_BY_LAUNCHES = ("limit", "baseline")  # References beside which the test's launches are limited by its marker
_OF_SIDES = ("limit", "pattern", "service")
"""References without a change in tolerances, so that the reason of a verdict has its figures."""
_WORK = "instructions"  # The metric that is counted, and shown although it passes
_LABEL = 6  # Columns of a label, such as ``next``, and the space after it


class Command(str):
    """A line that a reader can run, or copy into a marker, as it is; other lines are words."""

    __slots__ = ()


def run_again(result: TestResult, *options: str) -> Command:
    """The command that runs the test alone, with these options."""
    return Command(" ".join([result.definition.command or f"pytest {shlex.quote(result.test)}", *options]))


def accept_command(results_file: str, test: str) -> Command:
    """The command that accepts what a test measured."""
    command = ["python", "-m", "pytest_mlpatterns", "accept", results_file, test, "--reason", "WHY"]
    return Command(shlex.join(command))


class OpenStep(OpenReason, frozen=True):
    """Why a test is undecided, and what to do about it."""

    command: str = ""  # what to run; empty if no command decides it
    sign: str = ":"  # what stands between advice and command

    @property
    def lead(self) -> str:
        """The advice as it stands before the command."""
        return f"{self.advice}{self.sign}" if self.advice and self.command else self.advice


def undecided_lines(
    result: TestResult, width: int, *, notes: Sequence[str] = (), is_short: bool = True, as_above: bool = False
) -> list[Line]:
    """The text on an undecided test below the table."""
    step = open_step(result)
    as_above = as_above and step.by is OpenBy.MACHINE
    rows = _figures(result, width)
    why = f"{step.preface}the machine, as above" if as_above and step.why else step.why
    work = next((comparison_row(one) for one in result.verdicts if one.metric == _WORK), None)
    counted = _not_counted(result) if work is None else f"{work.label} {work.reference} → {work.present}: {work.change}"
    rows += _labelled("why", "; ".join(filter(None, (why, counted))), width) + _labelled(
        "next", "" if as_above else step.lead, width
    )
    if step.command and not as_above:
        rows += [f"  {'' if step.advice else 'next':<{_LABEL}}{step.command}"]
    further = [part for text in notes for part in wrapped(text, width, "  ", others="    ")]
    if is_short and 1 + len(rows) + len(further) > _MOST_ROWS:
        further = ["  -v shows more about it"] if len(rows) + 2 <= _MOST_ROWS else []
    is_likely = result.kind is Kind.PROBABLY_SLOWER
    title = f"{result.test}: {PROBABLY_SLOWER if is_likely else 'undecided'}"
    return [line(title, Style.BAD if is_likely else Style.STRONG), *map(line, [*rows, *further])]


def _not_counted(result: TestResult) -> str:
    """Why the count that was to decide the test in place of times failed; empty if it did not."""
    label = metric_named(_WORK).label
    why = result.judged.not_compared.get(label)
    return "" if why is None else why.of(label)


def is_of_the_machine(result: TestResult) -> bool:
    """Whether the machine left the test undecided, so that another moment would decide it."""
    return open_step(result).by is OpenBy.MACHINE


def busy_machine(results: Sequence[TestResult]) -> str:
    """That the machine left tests undecided: ``the machine was busy (1.6 of 2 cores): 5 of 6 tests undecided``.

    Also names the tool that would have counted them instead; empty if there is neither.
    """
    tools = [one.judged.not_counted for one in results if one.judged.not_counted]
    missing = f"instructions are not counted: {tools[0]}" if tools else ""
    undecided = [one for one in results if one.kind in OPEN_KINDS]
    of_machine = [one for one in undecided if is_of_the_machine(one)]
    known = [one.measured.busy for one in of_machine if one.measured.busy is not None]
    if not known:
        return missing
    most = max(known, key=lambda one: one.others_cores)
    share = f"{format_percent(most.steal_ratio or most.throttled_ratio)} of its time"
    taken = f"{most.others_cores:.1f} of {most.cores} cores" if most.others_cores else share
    left = f"{len(of_machine)} of {wording.count(len(results), 'test')} undecided"
    because = "" if len(of_machine) == len(undecided) else " because of it"
    return "; ".join(filter(None, [f"the machine was busy ({taken}): {left}{because}", missing]))


def suspected_sentences(result: TestResult) -> list[str]:
    """For each suspected metric its figures, and the reason once; empty without a suspicion."""
    suspected = [verdict for verdict in _open_comparisons(result) if verdict.suspected]
    if not suspected:
        return []
    *others, last = map(_figure, suspected)
    return [*others, "; ".join(filter(None, [last, open_step(result).why]))]


def open_in_short(verdicts: Sequence[Verdict], *, is_likely: bool = False) -> str:
    """Open verdicts, or likely slower ones, in few words for the line that pytest lists: ``undecided: mean +8.9 %``."""
    first = most_severe_first(verdicts)[0]
    text = metric_label(first.metric) if first.change is None or _is_beyond(first) else named_change(first)
    return f"{PROBABLY_SLOWER if is_likely else 'undecided'}: {text}, see below"


def open_step(result: TestResult, verdicts: Sequence[Verdict] | None = None) -> OpenStep:
    """Why a test is undecided, and what would decide it; the command measures for that time, if any suffices."""
    found = result.verdicts if verdicts is None else verdicts
    still = most_severe_first([one for one in found if one.outcome is Outcome.INCONCLUSIVE])
    if not still:
        return OpenStep()
    reasons = [one for one in still if one.why_open]
    compared = [one for one in still if one.change and one.tolerance is not None and not _is_beyond(one)]
    known = next((one for one in reasons if one.by_machine), None)
    if known is None and reasons and (not compared or reasons[0] is still[0]):
        known = reasons[0]
    if known is not None and known.why_open is not None:
        is_said = known.change is None or _is_beyond(known)
        reason = known_reason(known.why_open, _busy(result, known), is_said=is_said)
    elif compared:
        reason = _reason_of_change(result, compared, is_all=not any(map(_is_beyond, still)))
    elif (busy := _busy(result, still[0])) is not None and _is_wide(still[0], result):
        reason = busy_reason(busy)
    else:
        write, command = _longer(result, still)
        how = f"{write}, and run" if write else "raise budget= and launches= in the marker of the test, or run"
        return OpenStep(advice=f"measure longer: {how}", command=command, sign="")
    return _step(result, reason, compared)


def _is_beyond(verdict: Verdict) -> bool:
    """Whether a tail is open by requests beyond its percentile, whose own change is within the tolerance."""
    metric = known_metric(verdict.metric)
    is_tail = metric is not None and metric.is_tail
    return is_tail and verdict.change is not None and verdict.tolerance is not None and not verdict.suspected


def _step(result: TestResult, reason: OpenReason, compared: Sequence[Verdict]) -> OpenStep:
    """The reason with the command of its next step, and what of the marker that step needs."""
    write, advice, sign = "", reason.advice, ":"
    command: str = run_again(result)
    if reason.by is OpenBy.RECORDED:
        write, command = _longer(result, (), None, "--perf-baseline update")
    elif reason.seconds is not None:
        write, command = _longer(result, compared, reason.seconds)
        sign = ":" if advice else ""
    elif reason.by is not OpenBy.MACHINE:
        command = ""
    elif beside := beside_recorded(result):
        advice, command = f"{advice}, or beside the recorded code", beside
    if write:
        advice = f"{write}, and {advice or 'run'}"
    return OpenStep(reason.by, reason.why, advice, reason.seconds, reason.preface, command, sign)


def beside_recorded(result: TestResult) -> str:
    """The command that runs the baseline's commit beside the working tree; empty if it cannot."""
    if result.reference is None or result.reference.kind != "baseline":
        return ""
    commit = result.reference.recorded_commit
    if not commit or result.setup.pattern.kind is SystemKind.URL or result.setup.engine:
        return ""
    return run_again(result, f"--perf-against {commit}")


def _reason_of_change(result: TestResult, compared: Sequence[Verdict], *, is_all: bool) -> OpenReason:
    """The reason of the most severe open change, with the time that decides it and others."""
    suspected = [one for one in compared if one.suspected] or list(compared)
    times = [time for one in suspected if (time := _time(one, result)) is not None]
    first, measured, terms = suspected[0], result.measured, result.definition.terms
    metric = known_metric(first.metric)
    tolerance, is_beside = first.tolerance or 0.0, first.against == "revision"
    pairs = 0 if result.reference is None or not is_beside else result.reference.pairs
    usual = tolerance if terms is None else terms.tolerances.get(first.metric, tolerance)
    by_launch, explained = _launch_values(result, first)
    assert first.change is not None
    allowed = tolerance
    if metric is not None and first.reference_value and metric.launch_sd:
        allowed = metric.allowed(tolerance, first.reference_value)
    return reason_of(
        OpenChange(
            first.metric,
            first.change,
            allowed,
            measured.seconds_spent,
            launches=pairs or measured.launch_count,
            answers=0 if is_beside else measured.requests,
            recorded=0 if is_beside or result.reference is None else result.reference.launches,
            scatter=stdev(by_launch) if len(by_launch) > 1 else 0.0,
            explained=explained,
            busy=_busy(result, first),
            seconds=max(times, default=None),
            decides="it" if is_all and len(times) == len(suspected) else "what can be decided",
            is_agreed=metric is None or metric.counts_failures or tolerance > usual,
        )
    )


def _launch_values(result: TestResult, verdict: Verdict) -> tuple[list[float], float]:
    """Logarithms of a metric of each launch, or of the ratios of pairs; and how much these differ without a reason."""
    if verdict.against == "revision" and result.reference is not None:
        found, sd = result.reference.log_ratios.get(verdict.figure, ()), RATIO_SD
        values = [value for value, _ in found]
    else:
        found = result.measured.launches.get(verdict.figure, ())
        metric = known_metric(verdict.metric)
        sd = 0.0 if metric is None else metric.launch_sd
        values = [math.log(value) for value, _ in found if value > 0]
    return values, math.hypot(sd, fmean(error for _, error in found) if found else 0.0)


def _busy(result: TestResult, verdict: Verdict) -> Busy | None:
    """What others took of the machine, if that changes the metric."""
    metric = known_metric(verdict.metric)
    return None if metric is not None and Role.STANDING in metric.roles else result.measured.busy


def _is_wide(verdict: Verdict, result: TestResult) -> bool:
    """Whether the interval of what is compared with a limit is wider than a usual tolerance."""
    if verdict.change is not None:
        return verdict.change.high - verdict.change.low > (verdict.tolerance or 0.0)
    value, low, high = result.metrics.get(verdict.metric, (0.0, 0.0, 0.0))
    return high - low > USUAL_TOLERANCE * value


def _longer(
    result: TestResult, still: Sequence[Verdict], seconds: float | None = None, *options: str
) -> tuple[str, Command]:
    """What to write in the marker of the test, empty if nothing, and the command, so that it is measured longer.

    The budget of a marker counts before the option's, and launches have no option.
    """
    terms, measured = result.definition.terms, result.measured
    if terms is None:
        return "", run_again(result, *options, f"--perf-budget {_rounded(seconds or _DEFAULT_S)}s")
    budget_s, spent_s, count = terms.budget_ns / 1e9, measured.seconds_spent, measured.launch_count
    launches = math.ceil(count * seconds / spent_s) if seconds and spent_s else _MORE * count
    written = []
    is_counted = any(one.against in _BY_LAUNCHES for one in still)
    if is_counted and (count >= terms.launches or (seconds and launches > terms.launches)):
        launches = min(max(launches, terms.launches + 1), _MOST_LAUNCHES)
        needed_s = _rounded(spent_s * launches / max(count, 1))
        written.append(f"launches={launches}")
    else:
        needed_s = _rounded(seconds or _DEFAULT_S)
        needed_s = needed_s if needed_s > budget_s else _rounded(2 * budget_s)
    if needed_s > budget_s and terms.budget_in_marker:
        written.append(f'budget="{needed_s}s"')
    elif needed_s > budget_s:
        options = (*options, f"--perf-budget {needed_s}s")
    return f"write {' and '.join(written)} in the marker of the test" if written else "", run_again(result, *options)


def _rounded(seconds: float) -> int:
    """A budget in whole steps, not below a time."""
    return math.ceil(seconds / _STEP_S) * _STEP_S


def _open_comparisons(result: TestResult) -> list[Verdict]:
    """The open comparisons, the largest change in tolerances first."""
    return most_severe_first([one for one in comparisons_of(result) if one.outcome is Outcome.INCONCLUSIVE])


def _figures(result: TestResult, width: int) -> list[str]:
    """The most severe open comparison with its interval, the others in short, and what else is open with its reason."""
    compared = [one for one in _open_comparisons(result) if not _is_beyond(one)]
    rows = wrapped(_figure(compared[0]), width, "  ", others="    ") if compared else []
    if compared[1:]:
        rows += wrapped(f"also {', '.join(map(named_change, compared[1:]))}", width, "  ", others="    ")[:1]
    named = {one.metric for one in compared}
    reasons = list(
        dict.fromkeys(
            one.reason
            for one in result.verdicts
            if one.outcome is Outcome.INCONCLUSIVE and (one.against in _OF_SIDES or one.metric not in named)
        )
    )
    for reason in reasons[:_MOST_REASONS]:
        rows += wrapped(reason, width, "  ", others="    ")
    if (more := len(reasons) - _MOST_REASONS) > 0:
        rows.append(f"  and {wording.count(more, 'more open verdict')}")
    return rows


def _figure(verdict: Verdict) -> str:
    """``p99 latency 2.00 ms → 3.00 ms: +50.0 % (+10.0 % to +100 %), tolerance 20.0 %``."""
    row = comparison_row(verdict)
    interval = f" ({row.interval})" if row.interval else ""
    return f"{row.label} {row.reference} → {row.present}: {row.change}{interval}, tolerance {row.tolerance}"


def _labelled(label: str, text: str, width: int) -> list[str]:
    """A text after a label, on as many rows as it needs; none without a text."""
    return wrapped(text, width, f"  {label:<{_LABEL}}", others=" " * (2 + _LABEL)) if text else []


def _time(verdict: Verdict, result: TestResult) -> float | None:
    """Seconds that would decide an open comparison; None if that is too long."""
    if verdict.change is None or verdict.tolerance is None:
        return None
    recorded = 0 if result.reference is None or verdict.against == "revision" else result.reference.launches
    seconds = seconds_to_decide(
        verdict.change,
        verdict.tolerance,
        result.measured.seconds_spent,
        launches=result.measured.launch_count,
        recorded=recorded,
    )
    return seconds if seconds is not None and seconds <= LONGEST_S else None
