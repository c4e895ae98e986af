"""Where the time of a failure is: which part of the latency changed, or for a limit, what it consists of. Pure."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from pytest_mlpatterns.analysis.causes.latency_split import CallsChange, PartChange, SplitChange, split_change
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, known_metric, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.records.latency import LatencySplit, LatencySplits, SplitMetric
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.profile import FunctionChange, NativeChange, ProfileRecord
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.samples import MemorySite
from pytest_mlpatterns.records.setup import SystemKind
from pytest_mlpatterns.records.verdict import Verdict
from pytest_mlpatterns.reports.text.terminal_text import Span, TextColumn, table_lines, text_of
from pytest_mlpatterns.units import Unit, format_count, format_duration, format_percent, format_size
from pytest_mlpatterns.wording import count, listed

_MOST = 4  # Parts that a line names
_LARGE = 0.05  # Share of the whole from which a part is named where nothing is compared
_LEAST_REST = 0.005  # Share of the whole below which the rest is not worth a word
_CPU_PARTS = ("model_cpu", "model_gc", "wire")
"""Parts that are CPU time of the deployment, and nothing else; the rest of it is known as a whole only."""
_LAYER_PARTS = ("wire", "hop")
"""Parts that are spent in the layers of this package, so that no function of a model explains them."""
_AGREES = 0.1  # Relative difference up to which the changes of a verdict and of the split are the same figure
_COUNTED = ("cache_hit_ratio", "batch_size")  # Metrics that explain how often a model is called


class _Looked(Struct, frozen=True):
    """How a failed metric is looked up in the splits."""

    metric: SplitMetric  # the split
    of: Literal["mean", "median"]  # its statistic
    label: str = ""  # names the latency; empty if it is the failed metric itself


class _Split(Struct, frozen=True):
    """The line on the parts of a request's time."""

    text: str  # the line; empty without one
    change: SplitChange | None = None  # of the parts; None if nothing is compared


def where_texts(result: TestResult, verdicts: Iterable[Verdict]) -> list[str]:
    """A line on the first of these verdicts that the time of requests explains, then on functions and memory; or none.

    For example ``+12.0 ms: model on CPU +11.7 ms in normalize (model.py:41), the rest +300 µs``. If the parts that
    changed are waits alone, what the profile names comes first, since waits follow from what takes longer.
    """
    judged = list(verdicts)
    failing = (verdict for verdict in judged if verdict.is_worse)
    splits = (found for verdict in failing if (found := _split(result, verdict)) is not None and found.text)
    split = next(splits, None)
    parts = [] if split is None else [split.text]
    work, record = work_texts(result, judged), result.causes.profile
    causes, further = function_texts(result, judged), [*profile_texts(result, judged), *held_texts(result, judged)]
    if work:  # which no time of a function explains on a busy machine, if none stands out
        causes = [*work, *(causes if record is not None and record.changes else [])]
    change = None if split is None else split.change
    if change is not None and change.follows_from(cause_ns(result), _callers_per_process(result)):
        return [*causes, *parts, *further]
    return [*parts, *causes, *further]


def work_texts(result: TestResult, verdicts: Iterable[Verdict]) -> list[str]:
    """Where a request needs more instructions: libraries, their functions, and what is called more often; or nothing.

    For example ``+645 k instructions a request: libpython3.11.so.1.0 +640 k``.
    """
    metric, work = METRICS["instructions"], result.causes.work
    if work is None or work.before is None or not any(one.metric == metric.name and one.is_worse for one in verdicts):
        return []
    then, now = work.before, work.now
    whole = now.per_request.value - then.per_request.value
    texts = [f"+{metric.show(whole)} instructions a request"]
    for before, after, said in ((then.libraries, now.libraries, ""), (then.functions, now.functions, "mostly in ")):
        grown = [f"{place} +{metric.show(more)}" for place, more in _grown(before, after, _SHARE_OF_WORK * whole)]
        texts += [f"{said or texts.pop() + ': '}{', '.join(grown)}"] if grown else []
    steady = {place: times for place, times in now.calls.items() if place not in _BY_TIMING}
    calls = [
        f"{place} {format_count(now.calls[place] - more)} → {format_count(now.calls[place])}"
        for place, more in _grown(then.calls, steady, _MORE_CALLS)
    ]
    return [*texts, *([f"called more often per request: {', '.join(calls)}"] if calls else [])]


def _grown(before: Mapping[str, float], now: Mapping[str, float], least: float) -> list[tuple[str, float]]:
    """The places that grew by at least this, the most first; one that is not known had at most the smallest known."""
    unknown = min(before.values(), default=math.inf)
    grown = [(place, value - before.get(place, unknown)) for place, value in now.items()]
    return sorted((one for one in grown if one[1] >= least), key=lambda one: -one[1])[:_MOST_GROWN]


_SHARE_OF_WORK = 0.2  # Share of the further instructions from which a library or a function is named
_MORE_CALLS = 0.5  # Further calls per request from which a function is named
_BY_TIMING = frozenset(map("all functions ({})".format, ("threading", "queue", "asyncio", "selectors", "concurrent")))
"""Whose calls depend on which thread waits for which, so that the same code has 24 of a request and 34 of the next."""
_MOST_GROWN = 2  # Places that a line on work names


def where_sentence(result: TestResult, verdicts: Iterable[Verdict]) -> str:
    """The same as a sentence: ``where: +12.0 ms: model on CPU +11.7 ms, …``; empty without a line."""
    texts = where_texts(result, verdicts)
    return f"where: {texts[0]}" if texts else ""


def _split(result: TestResult, verdict: Verdict) -> _Split | None:
    """The line on the parts of a request's time; None if that does not explain the verdict."""
    looked = _looked(result, verdict.metric)
    if looked is None:
        return None
    before, now = _sides(result, verdict, looked.metric)
    if now is None:
        return None
    if before is None:
        return None if verdict.metric == "cpu_per_request" else _Split(_consists_of(now, looked))
    only = _CPU_PARTS if verdict.metric == "cpu_per_request" else ()
    compare = functools.partial(split_change, before, now, callers_per_process=_callers_per_process(result), only=only)
    if verdict.judged_by:
        looked = _as_judged(verdict, looked.metric, compare)
    change = compare(of=looked.of)
    return _Split(_changed(result, verdict, looked=looked, change=change), change)


def _as_judged(verdict: Verdict, metric: SplitMetric, compare: Callable[..., SplitChange]) -> _Looked:
    """How a location that got worse is looked up: the median if that changed as much, else the mean.

    The mean moves with any mode of the times, and is named unless it changed as much.
    """
    change_ns = (verdict.present_value or 0.0) - (verdict.reference_value or 0.0)
    for of in ("median", "mean"):
        if _agree(change_ns, compare(of=of).total_ns):
            return _Looked(metric, of)
    return _Looked(metric, "mean", "on average")


def _agree(judged_ns: float, split_ns: float) -> bool:
    """Whether the changes of a verdict and of a split are the same figure."""
    return abs(judged_ns - split_ns) <= _AGREES * abs(judged_ns)


def _looked(result: TestResult, metric: str) -> _Looked | None:
    """Where the time of a metric is found; None if the time of requests does not explain it."""
    name, _, percentile = metric.partition(":")
    match name:
        case "rtm":
            return _Looked("rtm", "median")
        case "throughput":
            return None if result.setup.load.in_flight is None else _Looked("rtm", "median", "median latency")
        case "cpu_per_request":
            return _Looked("rtm", "mean")
        case "ttft" | "tpot":
            return _Looked(name, "mean", f"mean {name.upper()}") if percentile else _Looked(name, "median")
        case "itl" | "output_tokens" | "output_tokens_per_user":
            return _Looked("tpot", "median", "median TPOT")
    is_tail = name[:1] == "p" and name[1:].replace(".", "").isdigit()
    return _Looked("rtm", "mean", "mean latency") if is_tail else None


def _sides(
    result: TestResult, verdict: Verdict, metric: SplitMetric
) -> tuple[LatencySplit | None, LatencySplit | None]:
    """The splits of the reference and the present that a verdict is about; None for what is not known."""
    reference, now = result.reference, result.causes.split
    before: LatencySplits = {}
    if verdict.against in ("baseline", "revision") and reference is not None:
        before, now = reference.split, reference.present.split or now
    return before.get(metric), now.get(metric)


def _changed(result: TestResult, verdict: Verdict, *, looked: _Looked, change: SplitChange) -> str:
    """Which parts changed, as a line."""
    total_ns = _total_ns(verdict, looked, change.total_ns)
    whole = f"{looked.label} {signed_duration(total_ns)}".strip()
    if not change.parts and not change.calls:
        largest, is_known = change.largest, _asks_for_functions(verdict) and cause_ns(result) > 0
        return "" if largest is None or is_known else f"{whole}: no part stands out (largest: {_moved(largest)})"
    named = change.parts[:_MOST]
    rest_ns = total_ns - sum(part.change_ns for part in named)
    parts, function = _parts(result, named), ""
    if verdict.against == "revision" and named and named[0].is_service:
        function = named_function(result, named[0].change_ns, is_layer=named[0].name in _LAYER_PARTS)
        parts[0] += f" in {function}" if function else ""
    if [part.name for part in named] == ["service"] and not function:
        return ""  # which is no news
    texts = [*map(_called_more, change.calls), *parts]
    if abs(rest_ns) >= _LEAST_REST * abs(total_ns):
        texts.append(f"the rest {signed_duration(rest_ns)}")
    if change.calls:
        texts[0] += _counted(result, verdict)
    return f"{whole}: {', '.join(texts)}"


def _parts(result: TestResult, named: Sequence[PartChange]) -> list[str]:
    """Each named part with its change; the wait behind a service that got slower is one with it."""
    texts, callers = [], _callers_per_process(result)
    for place, part in enumerate(named):
        follows = (
            place > 0 and named[0].is_service and part.name == "socket" and part.change_ns * named[0].change_ns > 0
        )
        if follows and (callers is None or callers > 1):
            shared = "" if callers is None else f" ({_shared(result)})"
            texts.append(f"the wait behind it {signed_duration(part.change_ns)}{shared}")
        else:
            texts.append(_moved(part))
    return texts


def _consists_of(split: LatencySplit, looked: _Looked) -> str:
    """The largest parts of a latency, as a line."""
    whole_ns = split.mean_ns if looked.of == "mean" else split.median_ns
    if [part.name for part in split.parts] == ["service"]:
        return ""
    parts = [(part.label, part.mean_ns if looked.of == "mean" else part.median_ns) for part in split.parts]
    named = sorted((part for part in parts if part[1] >= _LARGE * whole_ns), key=lambda part: -part[1])[:_MOST]
    rest_ns = whole_ns - sum(ns for _, ns in named)
    texts = [f"{label} {format_duration(ns)}" for label, ns in named]
    if abs(rest_ns) >= _LEAST_REST * whole_ns:
        texts.append(f"the rest {format_duration(rest_ns)}")
    return f"{looked.label} {format_duration(whole_ns)}: {', '.join(texts)}".lstrip()


def _total_ns(verdict: Verdict, looked: _Looked, split_ns: float) -> float:
    """The verdict's change if the split explains the same figure, else the split's own."""
    if looked.label or verdict.reference_value is None or verdict.present_value is None:
        return split_ns
    change_ns = verdict.present_value - verdict.reference_value
    if verdict.metric == "cpu_per_request":
        return change_ns
    return change_ns if _agree(change_ns, split_ns) else split_ns


def _called_more(change: CallsChange) -> str:
    model = f"{change.of} is" if change.of else "the model is"
    return f"{model} called {change.before:.2g} → {change.now:.2g} times per request"


def _counted(result: TestResult, verdict: Verdict) -> str:
    """What explains the number of calls: ``(cache hits 92 % → 0 %)``; empty if that is not known."""
    if (reference := result.reference) is None:
        return ""
    present = reference.present.metrics if verdict.against == "revision" else result.metrics
    sides = [
        (METRICS[name], reference.metrics[name][0], present[name][0])
        for name in _COUNTED
        if name in reference.metrics and name in present
    ]
    texts = [f"{metric.label} {metric.show(then)} → {metric.show(now)}" for metric, then, now in sides]
    return f" ({', '.join(texts)})" if texts else ""


def _callers_per_process(result: TestResult) -> float | None:
    """How many requests of a closed loop share a process; None in an open loop."""
    in_flight = result.setup.load.in_flight
    return None if in_flight is None else in_flight / _processes(result)


def _processes(result: TestResult) -> int:
    return max(len(result.measured.replica_share), 1)


def _shared(result: TestResult) -> str:
    """``8 callers share one process``; a service of the user's own may have any number of them."""
    callers = count(result.setup.load.in_flight or 1, "caller")
    if result.setup.pattern.kind is not SystemKind.PATTERN:
        return callers
    processes = _processes(result)
    return f"{callers} share {'one process' if processes == 1 else f'{processes} processes'}"


def _moved(part: PartChange) -> str:
    return f"{part.label} {signed_duration(part.change_ns)}"


_OF_FUNCTIONS = (Unit.DURATION, Unit.RATE, Unit.TOKEN_RATE, Unit.INSTRUCTIONS)
_NOT_OF_REQUESTS = ("cold_start", "recovery", "unhurt")  # Times that no function of a request explains
_IN_PART = 0.25  # Share of a function's change that the part of the latency at least has which it is named in
_WIDEST = 0.2  # Half the interval of a slow-down from which it shows nothing


def function_texts(result: TestResult, verdicts: Iterable[Verdict]) -> list[str]:
    """Lines on the functions of a comparison with a revision, or on why none is named; empty without a profile.

    For example ``predict → normalize (model.py:41): 400 µs → 2.70 ms per request, +2.30 ms (±200 µs) of +2.34 ms``.

    Libraries whose own threads use more CPU time have a line too; it stands in place of the functions if none of these
    got slower.
    """
    record = _asked_for(result, verdicts)
    if record is None:
        return []
    if record.note:
        return [record.note]
    return _changed_functions(record) if record.compared else []


def profile_texts(result: TestResult, verdicts: Iterable[Verdict]) -> list[str]:
    """Lines on how the profile was made that :func:`function_texts` reads; arguments as there."""
    record = _asked_for(result, verdicts)
    return [*record.notes, *_made(record)] if record is not None and record.compared and not record.note else []


def missing_profile(result: TestResult) -> str:
    """Why a test that asked for a profile has none; empty if it has one, or if :func:`function_texts` says it."""
    record = result.causes.profile
    if record is None or any(map(_asks_for_functions, result.verdicts)):
        return ""
    return record.note


def functions_explain(metric: str) -> bool:
    """Whether a metric is a time or a rate of requests, which functions that got slower explain."""
    known = known_metric(metric)
    return known is not None and known.unit in _OF_FUNCTIONS and metric not in _NOT_OF_REQUESTS


def named_function(result: TestResult, part_ns: float, *, is_layer: bool) -> str:
    """The function with the largest change, if that is a slowdown: ``normalize (model.py:41)``; else empty.

    ``is_layer``: whether it has to be a layer of this package, or has to be none.
    """
    record = result.causes.profile
    if record is None or not record.changes or not 0 < record.changes[0].change.value * _IN_PART <= part_ns:
        return ""
    frame = record.frames[record.changes[0].chain[-1]]
    return _place(record, record.changes[0]) if (frame.owner == "layer") is is_layer else ""


def cause_ns(result: TestResult) -> float:
    """By how much longer a request takes in what the profile names, a function or else native threads; 0 if nothing."""
    record = result.causes.profile
    if record is None:
        return 0.0
    if record.changes:
        return max(record.changes[0].change.value, 0.0)
    return 0.0 if record.native is None else record.native.now_ns - record.native.before_ns


def signed_duration(ns: float) -> str:
    """A change of a time: ``+2.30 ms``."""
    return f"{'+' if ns >= 0 else ''}{format_duration(ns)}"


def _asked_for(result: TestResult, verdicts: Iterable[Verdict]) -> ProfileRecord | None:
    return result.causes.profile if any(map(_asks_for_functions, verdicts)) else None


def _asks_for_functions(verdict: Verdict) -> bool:
    if verdict.against != "revision" or not verdict.is_worse:
        return False
    return functions_explain(verdict.metric)


def _changed_functions(record: ProfileRecord) -> list[str]:
    threads = [] if record.native is None else [_threads(record.native)]
    if record.changes:
        return [*(text for change in record.changes for text in _of(record, change)), *threads]
    if threads:
        return threads
    if record.largest is None:
        return ["no function stands out"]
    nearest = f"{_place(record, record.largest)} {_change(record.largest.change)}"
    return [f"no function stands out (largest: {nearest})"]


def _threads(native: NativeChange) -> str:
    """``onnxruntime: 0 → 3 busy native threads, 12.1 µs → 1.71 ms of CPU per request``."""
    of = f"{listed(list(native.libraries))}: " if native.libraries else ""
    busy = f"{native.busy_before} → {native.busy_now}" if native.busy_before != native.busy_now else native.busy_now
    times = f"{format_duration(native.before_ns)} → {format_duration(native.now_ns)}"
    return f"{of}{busy} busy native threads, {times} of CPU per request"


def _of(record: ProfileRecord, change: FunctionChange) -> list[str]:
    """The line of one function, and one on where in it the change is."""
    callers = "".join(f"{record.frames[index].function} → " for index in change.chain[:-1])
    before = "not seen" if not change.before_ns else format_duration(change.before_ns)
    now = "not seen" if not change.now_ns else f"{format_duration(change.now_ns)} per request"
    of_all = f" of {signed_duration(change.of_ns)}" if abs(change.of_ns) >= abs(change.change.value) else ""  # noise
    text = f"{callers}{_place(record, change)}: {before} → {now}, {_change(change.change)}{of_all}"
    source = f"line {change.line}: {change.source}".rstrip(": ") if change.line else ""
    inside = f"in {change.inside}" if change.inside else ""
    return [text, *([f"mostly {', '.join(filter(None, (inside, source)))}"] if source or inside else [])]


def _place(record: ProfileRecord, change: FunctionChange) -> str:
    """``normalize (model.py:41)``, with what it was before if that was something else."""
    frame = record.frames[change.chain[-1]]
    known = ", ".join(filter(None, [frame.place, f"was {change.was}" if change.was else ""]))
    return f"{frame.function} ({known})" if known else frame.function


def _change(of: Estimate) -> str:
    return f"{signed_duration(of.value)} (±{format_duration((of.high - of.low) / 2)})"


def _made(record: ProfileRecord) -> list[str]:
    """How the profile was made, and what that cost the requests meanwhile."""
    if not record.rate_hz:
        return []
    made = f"profiled {record.rate_hz:.0f} times a second by {record.profiler}"
    return [f"{made}, {cost}" if (cost := profiling_cost(record, "meanwhile")) else made]


def profiling_cost(record: ProfileRecord, when: str) -> str:
    """What the profiler cost the requests, such as ``2.1 % slower meanwhile (±1.3 %)``; empty if noise hides it."""
    if record.slowdown is None:
        return ""
    ratio, low, high = record.slowdown
    if (half := (high - low) / 2) > _WIDEST:
        return ""
    return f"{format_percent(abs(ratio - 1))} {'slower' if ratio >= 1 else 'faster'} {when} (±{format_percent(half)})"


_MOST_ROWS = 10  # Number of functions that the table names
_TABLE_WIDTH = 100  # Width of the table of functions, as in a file without a terminal


def function_table_lines(record: ProfileRecord | None) -> list[str]:
    """A line for each function, those with the largest changes first; empty without a profile."""
    if record is None or not record.functions:
        return []
    shown = record.functions[:_MOST_ROWS]
    # on one line, inside of Markdown's fences too
    names = [" ".join(record.frames[one.frame].placed.split()).replace("`", "'") for one in shown]
    columns = [TextColumn("time per request", list(map(Span, names)), right=False, least=20)]
    if record.compared:
        columns.append(TextColumn("before", [Span(format_duration(one.before_ns)) for one in shown]))
    columns.append(TextColumn("now", [Span(format_duration(one.now_ns)) for one in shown]))
    if record.compared:
        columns.append(TextColumn("change", [Span(_change(one.change) if one.change else "–") for one in shown]))
    return [text_of(line) for line in table_lines(columns, _TABLE_WIDTH)]


_MOST_SITES = 3  # Most lines of code that are named


def held_texts(result: TestResult, verdicts: Iterable[Verdict]) -> list[str]:
    """Lines on what holds the memory that a test needs more than a revision, or leaks; empty if nothing asked for them.

    For example ``+130 MiB held: Digits.__init__ (model.py:12) 31.0 MiB → 162 MiB``.
    """
    record, held = result.causes.held, with_role(Role.HELD)
    failing = [one for one in verdicts if one.is_worse and one.against == "revision" and one.metric in held]
    if record is None or not failing:
        return []
    if record.note:
        return [record.note]
    per = " per request" if record.per_request else ""
    whole = f"{_signed_bytes(record.now - record.before)} held{per}{_of_resident(failing[0], per)}"
    whole = whole if record.now > record.before else "memory by line"  # the rest is what tracemalloc does not see
    if not record.sites:
        unseen = "tracemalloc does not see what native libraries allocate for themselves"
        return [f"{whole}: no line of the project stands out; {unseen}"]
    named = record.sites[:_MOST_SITES]
    texts = [f"{whole}: {', '.join(map(_site, named))}"]
    return [*texts, *(f"line {site.line}: {site.source}" for site in named[:1] if site.source)]


def _of_resident(verdict: Verdict, per: str) -> str:
    """What the system shows of the same memory, since tracemalloc does not see all of it."""
    if per or verdict.present_value is None or verdict.reference_value is None:
        return ""
    return f" of {_signed_bytes(verdict.present_value - verdict.reference_value)} of resident memory"


def _site(site: MemorySite) -> str:
    place = f"{site.file}:{site.line}" if site.line else site.file
    name = f"the code of {place}" if site.function == "<module>" else f"{site.function} ({place})"
    return f"{name} {format_size(site.before)} → {format_size(site.now)}"


def _signed_bytes(size_bytes: float) -> str:
    return f"{'+' if size_bytes >= 0 else ''}{format_size(size_bytes)}"
