"""The blocks of a paired launch, A B B A: their length and number, their figures, and their merge into one launch.

Between its blocks a variant waits for the other one. That time is cut out: the recordings are shifted so that the
blocks are adjacent in one window. Pure: this module must not know deployments, verdicts, or how a block is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from pytest_mlpatterns.analysis.metrics.blocked_values import AnswerCounts
from pytest_mlpatterns.analysis.metrics.samples import StreamTimes, join_samples, shift_samples, take_rows
from pytest_mlpatterns.analysis.statistics.alpha_spending import FEWEST_PAIRS
from pytest_mlpatterns.analysis.statistics.distributions import location
from pytest_mlpatterns.analysis.statistics.intervals import PRIOR_DEGREES, t_quantile
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, paired_log_ratio
from pytest_mlpatterns.records.launch import (
    GeneratorPart,
    GeneratorReport,
    NodeUsage,
    Source,
    Usage,
    columns_of,
    merged_reports,
)
from pytest_mlpatterns.records.samples import Samples, Window
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, GammaRate, PoissonRate, Schedule
from pytest_mlpatterns.workload.window_plan import SLOW_INTERVAL_NS, whole_rounds

_QUICK_START_S = 0.8  # Measured time to start two variants of a light model side by side, and to warm up both
_LAUNCHES = range(FEWEST_PAIRS, 13)
"""Numbers of launches of slow variants among which the plan chooses; further ones hardly change Student's t."""
_FEWEST_REQUESTS = 4  # Requests of a block from which another launch is worth more than longer blocks
_FEWEST_CYCLES = 2  # Answers to each caller, from which it is so: the first ones alone show how callers begin
_ENOUGH_INPUTS = 10
"""Requests of a block, up to which a round of the inputs in two blocks is worth more than another launch."""
_CONFIDENCE = 0.99  # Confidence of the interval whose width the plan compares; verdicts have about this one
_LEAST_SHARE = 0.25  # Smallest share of a launch that its blocks get
_LONGER = 5 / 3
"""How many times as long blocks get for the requests that a percentile needs: two launches beyond the first look would
be measured for it in any case, and each takes a start besides."""
_SPARE = 1.1  # Factor on that length, since the answers of a block vary
_SHORTEST_SLICE_NS = 5_000_000
"""Shortest slice of a side: the processes that alternate displace each other from the caches of a core, which is over
after a small part of it."""
_CYCLES_OF_A_SLICE = 1  # Answers to a single caller that a slice has time for
_CYCLES_OF_A_SHARED_SLICE = 16
"""Answers to each of several callers: at the begin of a slice all send at once, and at its end not all are busy."""
_FEWEST_SLICES = 3  # Slices of a block from which they see more of the same moments than blocks one after the other
_STAGGER = 0.25
"""Time between the first requests of two callers, of the time between two answers. Requests sent at once race for the
service: it computes both prompts together or one after the other, and its times stay the winner's for some
rounds. A quarter is longer than that race, and shorter than what the first request keeps the service busy for."""


class ResponsePace(Struct, frozen=True):
    """How fast a variant answers."""

    interval_ns: float
    cycle_ns: float  # time between two requests of one caller; in an open loop between two requests
    length_ns: int | None = None  # length of every block, if the schedule has a length of its own; else None

    @property
    def callers(self) -> int:
        """Requests in flight of a closed loop; 1 of an open one."""
        return max(round(self.cycle_ns / self.interval_ns), 1)

    def slice_ns(self, block_ns: int, slices: int) -> int:
        """Length of a slice of a block of this time, which goes on until the last caller has its answer.

        So it is shorter than its share of the block, by what that takes on average.
        """
        answers = max(round(block_ns / slices / self.cycle_ns), 1)
        return round((answers - self.callers / (self.callers + 1)) * self.cycle_ns)


class BlockPlan(Struct, frozen=True):
    """The plan of a launch."""

    lengths_ns: tuple[int, ...]
    rounds: int
    # of each block, on either side, and the length suits the slower one; None if blocks last their
    # length
    requests: int | None = None
    stagger_ns: int = 0  # time between the first requests of two callers of a block, on either side
    slices: int = 1  # slices of each side, where both blocks of a pair are measured at once; 1 if one follows the other
    slice_ns: tuple[int, ...] = ()  # length of a slice of each side, which ends with the answers to all callers

    def may_be_repeated(self, pairs: int) -> bool:
        """Whether a launch with these pairs of blocks may have further ones, since others disturbed too many.

        Long blocks are not repeated: in their time another launch is measured, which is evidence of its own.
        """
        return self.requests is None and pairs < 4 * self.rounds


class BlockDesign(Struct, frozen=True):
    """The design of a paired launch.

    Let c be the time to start and warm up both variants, b the time of a pair of blocks, s the standard deviation of a
    pair, and t the standard deviation between launches. For a given total time the interval is narrowest with
    s/t sqrt(c/b) pairs per launch: four at c = 0.8 s, as measured, and in proportion to sqrt(c).
    """

    block_ns: int = 100_000_000
    answers: int = 20  # answers that a block should have; blocks get longer for it, as far as there is time
    rounds: int = 2
    most_rounds: int = 8  # rounds of variants that start slowly, at most
    warmup_ns: int = 100_000_000  # shortest warm-up of each variant; a longer one in its plan replaces it
    # time for a launch. At least a quarter of it belongs to the blocks, however slowly the variants start. To
    # keep it, blocks are shortened down to two requests of a caller, then rounds are left out down to one
    launch_ns: int = 20_000_000_000
    least_ns: int = 0  # the same if less is left of the budget
    beyond_ns: int = 0  # time at the end of a budget that launches are not planned for
    # time for all launches of slow variants, which are as many as make the interval narrowest. None if
    # ``launch_ns`` holds for them too
    budget_ns: int | None = None
    enough: int = 0  # requests that a verdict needs of either side at the first look; 0 if none is known

    @property
    def longest_warmup_ns(self) -> int:
        """Time after which no caller of a warm-up begins another request, so that both take a quarter of a launch."""
        return max(self.warmup_ns, self.launch_ns // 16)

    def within(self, budget_ns: int, launches: int, enough: int = 0) -> BlockDesign:
        """The same for a run with a budget, which its first launches exceed only by their least time.

        ``enough``: requests that a verdict needs of either side.
        """
        budget_ns = max(budget_ns - self.beyond_ns, launches * self.least_ns)
        launch_ns = min(self.launch_ns, budget_ns // launches)
        budget = budget_ns if launches > 1 else None
        return structs.replace(self, launch_ns=launch_ns, budget_ns=budget, enough=enough)

    def blocks(self, paces: Sequence[ResponsePace], start_s: float, inputs: int = 1) -> BlockPlan:
        """Plan the blocks of one launch. ``start_s``: seconds that starting and warming up both variants took."""
        if all(one.length_ns is None and one.interval_ns >= SLOW_INTERVAL_NS for one in paces):
            return self._blocks_of_requests(paces, start_s, inputs)
        rounds = max(self.rounds, min(round(self.rounds * math.sqrt(start_s / _QUICK_START_S)), self.most_rounds))
        preferred = [self._preferred_ns(one, rounds) for one in paces]
        least = [max(self.block_ns, 2 * one.cycle_ns) for one in paces]
        room_ns = max(self.launch_ns - round(start_s * 1e9), round(_LEAST_SHARE * self.launch_ns))
        share = min(1.0, room_ns / (2 * rounds * sum(preferred)))
        lengths = tuple(
            one.length_ns or int(max(low, share * high)) for one, low, high in zip(paces, least, preferred, strict=True)
        )
        sides = list(zip(paces, lengths, strict=True))
        slices = min(_slices_of(one, length_ns) for one, length_ns in sides)
        slice_ns = tuple(one.slice_ns(length_ns, slices) for one, length_ns in sides) if slices > 1 else ()
        rounds = max(1, min(rounds, room_ns // (2 * sum(lengths))))
        return BlockPlan(lengths, rounds, slices=slices, slice_ns=slice_ns)

    def _preferred_ns(self, pace: ResponsePace, rounds: int) -> float:
        """The length of a block if there is time: some answers, and what a percentile needs if that is not far off."""
        usual = max(self.block_ns, self.answers * pace.interval_ns)
        needed = self.enough * pace.interval_ns / (2 * rounds * FEWEST_PAIRS)
        return max(usual, _SPARE * needed) if needed <= _LONGER * usual else usual

    def _blocks_of_requests(self, paces: Sequence[ResponsePace], start_s: float, inputs: int) -> BlockPlan:
        """One round of long blocks with the same requests on both sides, whole rounds of the inputs if they fit.

        The two blocks of a side may share a round of the inputs: each begins with the input after the block before.
        """
        interval_ns = sum(one.interval_ns for one in paces)
        callers = max(one.callers for one in paces)
        half = -(-inputs // 2)
        fewest = max(_FEWEST_REQUESTS, _FEWEST_CYCLES * callers, min(half, _ENOUGH_INPUTS))
        most = self._room_ns(start_s, 2 * interval_ns, fewest) / (2 * interval_ns)
        shares_a_round = inputs > most or inputs % 2 == 0
        requests = whole_rounds(self.answers, most, half if shares_a_round else inputs, callers=callers)
        longest_ns = int(requests * max(one.interval_ns for one in paces))
        stagger_ns = round(_STAGGER * interval_ns / len(paces)) if callers > 1 else 0
        return BlockPlan((longest_ns,) * len(paces), 1, requests, stagger_ns)

    def _room_ns(self, start_s: float, request_ns: float, fewest: int) -> float:
        """Time for the blocks of a launch, in as many launches as know most."""
        start_ns = start_s * 1e9
        if self.budget_ns is not None:
            rooms = {number: min(self.budget_ns / number, self.launch_ns) - start_ns for number in _LAUNCHES}
            used_ns = {
                number: min(room_ns, self.answers * request_ns)
                for number, room_ns in rooms.items()
                if room_ns >= fewest * request_ns
            }
            if used_ns:
                return rooms[min(used_ns, key=lambda number: _width(number, used_ns[number]))]
        return max(self.launch_ns - start_ns, _LEAST_SHARE * self.launch_ns)


def _width(launches: int, room_ns: float) -> float:
    """The width of an interval from some launches, each with this time for its blocks, in some unit.

    The mean of the blocks scatters with the inverse square root of their time, and the prior adds to what launches know
    of their scatter.
    """
    return t_quantile(_CONFIDENCE, launches - 1 + PRIOR_DEGREES) / math.sqrt(launches * room_ns)


def _slices_of(pace: ResponsePace, length_ns: int) -> int:
    """Slices into which a block may be cut, so that each has some answers to each caller."""
    if pace.length_ns is not None:
        return 1
    cycles = _CYCLES_OF_A_SLICE if pace.callers == 1 else _CYCLES_OF_A_SHARED_SLICE
    slices = int(length_ns // (max(math.ceil(_SHORTEST_SLICE_NS / pace.cycle_ns), cycles) * pace.cycle_ns))
    return slices if slices >= _FEWEST_SLICES else 1


def response_pace(schedule: Schedule, latency_ns: float) -> ResponsePace:
    """The one of a variant under a schedule, from the median latency of its warm-up."""
    if isinstance(schedule, ClosedLoop):
        cycle_ns = latency_ns + schedule.mean_think_time_ns
        return ResponsePace(cycle_ns / schedule.concurrency, cycle_ns)
    if isinstance(schedule, ConstantRate | PoissonRate | GammaRate):
        return ResponsePace(1e9 / schedule.rate_rps, 1e9 / schedule.rate_rps)
    return ResponsePace(latency_ns, latency_ns, schedule.length_ns)


def answer_rate(samples: Samples, window: Window, *, closed: bool, weights: NDArray[np.int64] | None = None) -> float:
    """Successful answers per second of a block, or what they count for.

    In a closed loop these are the answers of the window over its time, those at its end by the share of their time in
    it. If the very first answer arrived within the window, that time begins with the first request. In an open loop
    answers also arrive after the window, so the rate is taken from the first answer to the last.

    ``samples``: of the block, with the requests before its window and at least one answer. ``weights``: what each
    request of a closed loop counts for, such as its tokens; None for 1.
    """
    good = samples.succeeded
    done_ns, first_due_ns = samples.done_ns[good], int(samples.due_ns.min())
    if closed:
        start_ns = window.start_ns if done_ns[0] <= window.start_ns else first_due_ns
        of_each = None if weights is None else weights[good]
        counts = AnswerCounts(samples.due_ns[good], done_ns, closed=True, weights=of_each)
        cuts_ns = counts.cuts(np.array([start_ns, window.end_ns], dtype=np.float64))
        begun, ended = counts.by(cuts_ns)
        return float((ended - begun) * 1e9 / (cuts_ns[1] - cuts_ns[0]))
    if done_ns.size > 1:
        return float((done_ns.size - 1) * 1e9 / max(done_ns[-1] - done_ns[0], 1))
    return float(done_ns.size * 1e9 / max(done_ns[-1] - first_due_ns, 1))


def stream_figures(samples: Samples, window: Window, good: NDArray[np.bool_], *, closed: bool) -> dict[str, float]:
    """Median and location of TTFT and TPOT, and the output tokens per second, of a block; empty if answers came whole.

    A figure that is not known is 0. Tokens count as answers do; in an open loop, when they arrived.
    """
    if samples.stream is None or not samples.came_in_pieces:
        return {}
    times = StreamTimes(samples, samples.stream)
    found = {}
    for name, values in (("ttft", times.ttft_ns[good]), ("tpot", times.tpot_ns[good])):
        known = values[np.isfinite(values)]
        found[name] = float(np.median(known)) if known.size else 0.0
        found[f"{name}_mean"] = location(known) if found[name] else 0.0
    if closed:
        tokens = np.where(times.has_chunks, times.tokens, 0)
        return {**found, "output_tokens": answer_rate(samples, window, closed=True, weights=tokens)}
    in_time = samples.succeeded[times.owner] & (times.arrival_ns < window.end_ns)
    owner = times.owner[in_time]
    arrived = float((times.tokens[owner] / times.chunk_count[owner]).sum())
    return {**found, "output_tokens": arrived * 1e9 / max(window.end_ns - int(samples.due_ns.min()), 1)}


def block_ratios(
    first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]], disturbed: Sequence[bool]
) -> dict[str, LogRatio]:
    """The ratios second/first by metric, for each that is known of all blocks of both variants.

    If the second variant does not stream, its first content is the whole answer, so its TTFT is its latency.

    ``first``: one value of each block of the first variant, by metric; 0 if it is not known. ``second``: of the second
    one. ``disturbed``: as in :func:`paired_log_ratio`.
    """
    if "ttft" not in second:
        second = {**second, "ttft": second["rtm"], "ttft_mean": second["latency_mean"]}
    return {
        name: paired_log_ratio(values, second[name], disturbed)
        for name, values in first.items()
        if name in second and all([*values, *second[name]])
    }


class BlockRecording(Struct, frozen=True):
    """One block."""

    samples: Samples  # every request of the load, including those outside the window
    window: Window
    # resources used from the start of the window to the end of the load; None if the processes are not known
    usage: Usage | None
    report: GeneratorReport


def block_latencies(block: BlockRecording) -> NDArray[np.int64]:
    """Latencies, in nanoseconds, of the successful requests that were due in a block."""
    return block.samples.latency_ns[block.samples.successes_in(block.window)]


def joined_slices(samples: Samples, slices: Sequence[Window]) -> tuple[Samples, Window]:
    """The requests of all slices of one side as if one slice followed the other, and their window.

    A slice lasts until each caller has its last answer, on average over the callers. So the rate of one caller is that
    of its answers, however few of them a slice has.
    """
    parts, at_ns = [], slices[0].start_ns
    slice_of = np.searchsorted([one.start_ns for one in slices], samples.due_ns, side="right") - 1
    for number, one in enumerate(slices):
        own = take_rows(samples, np.flatnonzero(slice_of == number))
        parts.append(shift_samples(own, at_ns - one.start_ns))
        last_ns = own.done_ns[own.done_ns >= one.end_ns]
        at_ns += int(last_ns.mean() if last_ns.size else one.end_ns) - one.start_ns
    return join_samples(parts), Window(slices[0].start_ns, at_ns)


def own_part(block: BlockRecording, beside: BlockRecording) -> Usage | None:
    """What one side, and the machine in its slices, used while two blocks alternated; None if a side does not know it.

    What other processes used is divided by the time of the slices, since no one knows in which slice they used it.
    """
    usage, window = block.usage, block.window
    if usage is None or beside.usage is None:
        return None
    share = window.duration_ns / max(int(usage.time_ns[-1] - usage.time_ns[0]), 1)
    own_ns, beside_ns = _gain(usage, "cpu_ns"), _gain(beside.usage, "cpu_ns")
    sent_ns, all_sent_ns = block.report.cpu_ns, block.report.cpu_ns + beside.report.cpu_ns
    busy_ns = _gain(usage, "machine_busy_ns") - own_ns - beside_ns - all_sent_ns
    others_ns = _gain(usage, "others_ns") - beside_ns - (0 if usage.without_generator else all_sent_ns)

    def grown(name: str, by_ns: float) -> NDArray[np.int64]:
        first = int(getattr(usage, name)[0])
        return np.array([first, first + round(by_ns)], dtype=np.int64)

    shared: dict[str, Any] = {
        column.name: grown(column.name, _gain(usage, column.name) * share)
        for column in columns_of(Usage)
        if column.source is Source.MACHINE and column.is_counter
    }
    shared["machine_busy_ns"] = grown("machine_busy_ns", own_ns + sent_ns + max(busy_ns, 0) * share)
    return replace(
        usage,
        time_ns=np.array([window.start_ns, window.end_ns], dtype=np.int64),
        others_ns=grown("others_ns", max(others_ns, 0) * share + (0 if usage.without_generator else sent_ns)),
        **shared,
    )


def _gain(usage: Usage, name: str) -> int:
    """The growth of a column."""
    column = getattr(usage, name)
    return int(column[-1] - column[0])


def merge_windows(blocks: Sequence[BlockRecording]) -> Window:
    """The window of all blocks, adjacent; it starts with the first block."""
    start_ns = blocks[0].window.start_ns
    return Window(start_ns, start_ns + sum(block.window.duration_ns for block in blocks))


def merge_samples(blocks: Sequence[BlockRecording]) -> Samples:
    """The requests that were due in the blocks, in the order of completion.

    Requests before a block are left out. Requests that were answered after its end are kept: in a closed loop they are
    as many as were in flight at its start, so the rate of completions stays the same.
    """
    parts = []
    for block, shift_ns in zip(blocks, _shifts_ns(blocks), strict=True):
        inside = np.flatnonzero(block.window.covers(block.samples.due_ns))
        parts.append(shift_samples(take_rows(block.samples, inside), shift_ns))
    return join_samples(parts)


def merge_usage(blocks: Sequence[BlockRecording]) -> Usage | None:
    """Resources that the processes used in the blocks; None if one block does not know them."""
    usages = [block.usage for block in blocks if block.usage is not None]
    if len(usages) < len(blocks):
        return None
    lengths = [0, *(block.window.duration_ns for block in blocks)]
    columns = _merged_columns(usages)
    columns["time_ns"] = blocks[0].window.start_ns + np.cumsum(lengths, dtype=np.int64)
    busy_threads = max((usage.busy_threads for usage in usages), key=sum)
    return replace(usages[0], busy_threads=busy_threads, nodes=_merge_nodes(usages), **columns)


def _merge_nodes(usages: Sequence[Usage]) -> tuple[NodeUsage, ...]:
    """The nodes that have replicas in all blocks, merged as :func:`merge_usage` merges the whole."""
    by_name = [{node.node: node for node in usage.nodes} for usage in usages]
    merged = []
    for name, last in by_name[-1].items():
        if all(name in nodes for nodes in by_name):
            merged.append(replace(last, **_merged_columns([nodes[name] for nodes in by_name])))
    return tuple(merged)


def _merged_columns(parts: Sequence[Usage | NodeUsage]) -> dict[str, Any]:
    """Every column over the blocks: the growth of a counter from 0 on; of another one its first and each highest value.

    One that a block does not know is None.
    """
    found: dict[str, Any] = {}
    for column in columns_of(parts[0]):
        values = [getattr(part, column.name) for part in parts]
        if any(value is None for value in values):
            found[column.name] = None
        elif column.is_counter:
            found[column.name] = np.cumsum([0, *(value[-1] - value[0] for value in values)], dtype=np.int64)
        else:
            found[column.name] = np.array([values[0][0], *(value.max() for value in values)], dtype=np.int64)
    return found


def merge_reports(blocks: Sequence[BlockRecording]) -> GeneratorReport:
    """The generator's own figures over all blocks."""
    reports = [block.report for block in blocks]
    return merged_reports(
        reports,
        wall_ns=sum(report.wall_ns for report in reports),
        connections=max(report.connections for report in reports),
        parts=tuple(_merge_part(reports, number) for number in range(len(reports[-1].parts))),
    )


def _merge_part(reports: Sequence[GeneratorReport], number: int) -> GeneratorPart:
    """One generator's own figures over all blocks."""
    parts = [report.parts[number] for report in reports]
    busy_ns = sum(part.core_share * report.wall_ns for part, report in zip(parts, reports, strict=True))
    return structs.replace(
        parts[-1],
        completed=sum(part.completed for part in parts),
        core_share=busy_ns / max(sum(report.wall_ns for report in reports), 1),
        opened_late_ns=max(part.opened_late_ns for part in parts),
        clock_error_ns=max(part.clock_error_ns for part in parts),
    )


def _shifts_ns(blocks: Sequence[BlockRecording]) -> list[int]:
    """The shift of each block that makes it start at the end of the previous one."""
    shifts, at_ns = [], blocks[0].window.start_ns
    for block in blocks:
        shifts.append(at_ns - block.window.start_ns)
        at_ns += block.window.duration_ns
    return shifts
