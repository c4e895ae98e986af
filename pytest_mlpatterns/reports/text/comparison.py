"""What a test was compared with, metric by metric, and what a run did with the baseline file. Pure.

The terminal, the HTML report and the job summary show the same rows, which are the verdicts of the result file. Also:
``analysis/verdicts/verdicts.py`` writes the sentence of a verdict, and ``reports/text/failure.py`` the whole failure.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from pytest_mlpatterns.analysis.metrics.definitions import (
    GROWTHS,
    are_of_streams,
    known_metric,
    metric_named,
    objectives_of,
    with_role,
)
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.analysis.statistics.intervals import estimate
from pytest_mlpatterns.records.baseline_entry import Entry, Update
from pytest_mlpatterns.records.latency import Latency, Percentiles
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Kind, Outcome, Verdict
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import count

_MOST_GONE = 10  # Most entries without a test that are listed; of further ones their number is
_TOO_WIDE = "too wide to decide alone"
_AGAIN = "record them again while the machine does nothing else"
_INSTEAD = ", or compare with a commit, such as pytest --perf-against HEAD"


def update_lines(updates: Sequence[Update]) -> list[str]:
    """What ``--perf-baseline update`` wrote: old → new for every test, at least one, then those that got worse."""
    lines = [f"{update.test}: {_written(update)}{_seen(update)}" for update in updates]
    disturbed = [f"  {update.test}: {text}" for update in updates for text in update.after.disturbed]
    worse = [f"  {update.test}: {verdict.reason}" for update in updates for verdict in update.worse]
    is_wide = any(update.is_wide for update in updates)
    advice = f"{_AGAIN}{_INSTEAD if is_wide else ''}"
    if disturbed:
        lines += [f"recorded although disturbed; {advice}:", *disturbed]
    elif is_wide:
        lines.append(f"{_TOO_WIDE}: {advice}")
    return [
        *lines,
        *(["recorded although worse:", *worse] if worse else []),
    ]


def gone_lines(entries: Mapping[str, int]) -> list[str]:
    """The entries without a test, and how to remove them. ``entries``: number of entries by test id; at least one."""
    what = count(sum(entries.values()), "entry of the baseline belongs", "entries of the baseline belong")
    shown = [f"  {test}" for test in entries][:_MOST_GONE]
    more = [f"  and {len(entries) - _MOST_GONE} more tests"] if len(entries) > _MOST_GONE else []
    return [f"{what} to no test; remove what is not needed: pytest --perf-baseline prune", *shown, *more]


def _written(update: Update) -> str:
    """The new entry of one test."""
    then, now = update.before, update.after
    primary = with_role(Role.PRIMARY, streams=are_of_streams(now.metrics))
    names = [*(name for name in primary if name in now.metrics), *objectives_of(now.metrics)]
    if then is None or update.differences:
        how = "new" if then is None else f"replaced ({'; '.join(update.differences)})"
        return ", ".join([how, *(f"{metric_named(name).label} {_recorded(now, name)}" for name in names)])
    changes = [
        f"{metric_named(name).label} {_recorded(then, name)} → {_recorded(now, name)}{_percent(then, now, name)}"
        for name in names
        if name in then.metrics
    ]
    return ", ".join(changes) or "recorded"


def _seen(update: Update) -> str:
    """From which change on a comparison with the new entry fails; rounded up, so that it holds as it is printed."""
    if update.seen_from is None:
        return ""
    seen = f"; this entry sees changes from {math.ceil(100 * update.seen_from - 1e-9)} % on"
    return f"{seen}: {_TOO_WIDE}" if update.is_wide else seen


def _recorded(entry: Entry, name: str) -> str:
    return metric_named(name).show(_value(entry, name))


def _percent(then: Entry, now: Entry, name: str) -> str:
    before = _value(then, name)
    return f" ({format_percent(_value(now, name) / before - 1, signed=True)})" if before else ""


def _value(entry: Entry, name: str) -> float:
    return estimate(entry.metrics[name], metric_named(name).launch_sd).value


_NOTABLE = 0.5
"""Share of its tolerance from which on the worst metric is shown instead of the median latency, or TTFT."""
_RANKS = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL)  # Outcomes, the worst one last
_OUTCOMES = {Outcome.PASS: "pass", Outcome.FAIL: "FAIL", Outcome.INCONCLUSIVE: "undecided"}
_NEVER = "never"  # A percentile that falls among failed requests, which are answered never


MEANINGS = {
    "median(?! TTFT| TPOT| ITL)": "half of the requests are faster (RTM)",
    "ASL": "CPU share of the machine",
    "NMRT": "capacity",
    "PC": "performance coefficient, 1 / (RTM × ASL)",
    "HSX": "horizontal scaling index",
}
"""What short names of metrics mean, by a pattern of the name; ``rtm`` is what tests and options call the median."""


def explained(text: str) -> str:
    """What the short names of metrics in a text mean; empty without one."""
    found = ((re.search(rf"\b{name}\b", text), meaning) for name, meaning in MEANINGS.items())
    return "; ".join(f"{name[0]}: {meaning}" for name, meaning in found if name)


class ComparisonRow(Struct, frozen=True):
    """One compared metric as text."""

    label: str  # of the metric
    reference: str  # the figure of the baseline or the revision; a dash if unknown
    present: str  # the figure that is compared with it
    change: str  # of the value with its sign
    interval: str  # ``+9.0 % to +15 %``; empty if there is none
    tolerance: str  # a dash if unknown
    outcome: str  # ``pass``, ``accepted``, ``FAIL``, ``suspected`` or ``undecided``


def comparisons_of(result: TestResult) -> list[Verdict]:
    """The verdicts on changes against the baseline or the revision; the last one of each metric counts.

    One without a figure, since the load generator was the limit, compared nothing.
    """
    found = {one.metric: one for one in result.verdicts if one.against in ("baseline", "revision")}
    return [one for one in found.values() if (one.change, one.reference_value, one.present_value) != (None,) * 3]


def figure_of(result: TestResult, name: str) -> tuple[float, float, float] | None:
    """Value and interval of a metric, from the same measurement as its change; None if it is not known.

    An interleaved run with a revision measures the present once more, and a suspected growth is followed by a longer
    load. What is shown beside a change is the figure that was compared.
    """
    found = result.metrics.get(name)
    if result.reference is None or (result.reference.kind == "baseline" and name not in GROWTHS):
        return found
    found = result.reference.present.metrics.get(name, found)
    judged = next((one.present_value for one in comparisons_of(result) if one.figure == name), None)
    if found is None or judged is None or not math.isfinite(judged) or judged == found[0]:
        return found
    if found[0] <= 0 or judged <= 0:
        return judged, judged, judged
    return judged, found[1] * judged / found[0], found[2] * judged / found[0]


def compared_sentences(result: TestResult) -> list[str]:
    """Each row in a line: ``peak memory 31.7 MiB → 162 MiB: +410 % (tolerance 15.0 %, FAIL)``."""
    return [
        f"{row.label} {row.reference} → {row.present}: {row.change} (tolerance {row.tolerance}, {row.outcome})"
        for row in map(comparison_row, comparisons_of(result))
    ]


def accepted_sentences(result: TestResult) -> list[str]:
    """Each change that passed because it is accepted: ``mean latency 4.0 ms → 5.9 ms: +47 %; accepted is rtm …``."""
    rows = [(comparison_row(one), one.accepted) for one in comparisons_of(result) if one.accepted]
    return [f"{row.label} {row.reference} → {row.present}: {row.change}; accepted is {text}" for row, text in rows]


def is_accepted(result: TestResult) -> bool:
    """Whether a test passed because one of its changes is accepted."""
    return result.kind is Kind.ACCEPTED


def worst_comparison(result: TestResult) -> Verdict | None:
    """The comparison that a reader should see first; None if nothing was compared.

    That is the metric whose change is the largest part of its tolerance, failures before what is undecided, that before
    others, and requests that fail before all; the median latency, or TTFT if the answers stream, if none uses half of
    its tolerance. A growth that passes is no such part: it may be several times a growth of nearly nothing.
    """
    compared = comparisons_of(result)
    if not compared:
        return None
    worst = max(compared, key=_severity)
    known = {verdict.metric: verdict for verdict in compared if verdict.change is not None}
    usual = next((known[name] for name in with_role(Role.LEADING) if name in known), None)
    calm = worst.outcome is not Outcome.FAIL and _severity(worst)[-1] < _NOTABLE
    return usual if usual is not None and calm else worst


def most_severe_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Verdicts by their change in tolerances, the largest first; those without a change last."""
    return sorted(verdicts, key=_severity, reverse=True)


def named_change(verdict: Verdict) -> str:
    """A change with the short name of its figures: ``mean +2.1 %``, ``p99 +310 %``."""
    metric = known_metric(verdict.figure)
    return f"{verdict.figure if metric is None else metric.short} {shown_change(verdict)}"


def shown_change(verdict: Verdict) -> str:
    """The change of the value with its sign; the change in a verdict is positive if worse.

    That of a growth is a difference: from nothing to something is any number of per cent.
    """
    if verdict.metric in GROWTHS and verdict.reference_value is not None and verdict.present_value is not None:
        difference = verdict.present_value - verdict.reference_value
        return f"{'+' if difference >= 0 else ''}{metric_named(verdict.metric).show(difference)}"
    if verdict.change is None:
        return _NEVER if _is_infinite(verdict) else "–"
    return format_percent(_sign(verdict) * verdict.change.value, signed=True)


def compared_line(result: TestResult) -> str:
    """How many metrics were compared, and why others were not; empty if all were.

    For example ``4 of 6 metrics compared; at 4.0 answers a second p99 latency needs 115 s; peak memory is not recorded
    yet``. A reason that several metrics share names them, and is shown once.
    """
    if not (left_out := result.judged.not_compared):
        return ""
    compared = len(comparisons_of(result))
    reasons = dict.fromkeys(why.of(label) for label, why in left_out.items())
    return f"{compared} of {compared + len(left_out)} metrics compared; {'; '.join(reasons)}"


def comparison_row(verdict: Verdict) -> ComparisonRow:
    """The row of one verdict on a change."""
    interval = ""
    if (change := verdict.change) is not None and change.low != change.high and verdict.metric not in GROWTHS:
        ends = sorted(_sign(verdict) * end for end in (change.low, change.high))
        interval = " to ".join(format_percent(end, signed=True) for end in ends)
    return ComparisonRow(
        label=metric_label(verdict.figure),
        reference=_shown(verdict, verdict.reference_value),
        present=_NEVER if _is_infinite(verdict) else _shown(verdict, verdict.present_value),
        change=shown_change(verdict),
        interval=interval,
        tolerance="–" if verdict.tolerance is None else format_percent(verdict.tolerance),
        outcome="suspected" if verdict.suspected else "accepted" if verdict.accepted else _OUTCOMES[verdict.outcome],
    )


def fails_requests(verdict: Verdict) -> bool:
    """Whether more requests fail. It leads: they count as infinitely late, so the tail gets worse with them."""
    return verdict.metric == "error_rate" and verdict.outcome is Outcome.FAIL


def _severity(verdict: Verdict) -> tuple[int, bool, float]:
    """How bad a change is: whether it passes, is undecided or fails, and its size in tolerances."""
    rank, leads = _RANKS.index(verdict.outcome), fails_requests(verdict)
    if verdict.change is None or (verdict.metric in GROWTHS and verdict.outcome is Outcome.PASS):
        return rank, leads, math.inf if _is_infinite(verdict) else -math.inf
    return rank, leads, verdict.change.value / (verdict.tolerance or 0.1)


def _is_infinite(verdict: Verdict) -> bool:
    """Whether the present's percentile falls among failed requests; files do not hold infinity."""
    infinite = verdict.present_value is None or math.isinf(verdict.present_value)
    return verdict.change is None and verdict.reference_value is not None and infinite


def _sign(verdict: Verdict) -> int:
    metric = known_metric(verdict.metric)
    return -1 if metric is not None and metric.better == "higher" else 1


def metric_label(name: str) -> str:
    """The label of a metric; the name itself for one of a later version."""
    metric = known_metric(name)
    return name if metric is None else metric.label


def _shown(verdict: Verdict, value: float | None) -> str:
    if value is None:
        return "–"
    metric = known_metric(verdict.metric)
    return f"{value:.4g}" if metric is None else metric.show(value)


LATENCY = "latency"  # The time of the whole answer


class Distributions(Struct, frozen=True):
    """One time of the requests of a test."""

    own: Latency | None  # of the test; None if no request has it
    other: Percentiles  # percentiles of the reference; empty if its distribution is unknown
    beside: Percentiles  # percentiles of the present, measured together with the reference; empty if it was not

    @property
    def present(self) -> Percentiles:
        """Percentiles of the present, from the same measurement as the reference's."""
        own = () if self.own is None else self.own.percentiles
        return self.beside if self.other and self.beside else own


def distributions_of(result: TestResult, quantity: str = LATENCY) -> Distributions:
    """The distribution of a time. ``quantity``: ``latency``, ``ttft``, ``itl`` or ``tpot``."""
    is_whole, own = quantity == LATENCY, result.measured.latency
    if not is_whole:
        own = None if result.stream is None else result.stream.of(quantity)
    if result.reference is None:
        return Distributions(own, (), ())
    other, beside = (
        side.latency_percentiles if is_whole else side.stream_percentiles.get(quantity, ())
        for side in (result.reference, result.reference.present)
    )
    return Distributions(own, other, beside)
