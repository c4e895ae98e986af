"""Two callers of a language model with two slots, computed step by step: what its verdicts come to.

A step of the server takes the time of a token of every answer in work, and that of the prompts that have arrived: they
are computed together, and every answer waits for them. So two prompts that arrive together keep both callers waiting
for the first token, and one that arrives during an answer stretches the time per token of that answer. Which of both
holds goes on for some rounds. A paired launch has the blocks that ``measurement/paired_blocks.py`` plans; verdicts are
those of the plugin, over TTFT and TPOT together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table
from msgspec import structs

from pytest_mlpatterns.analysis.metrics.blocked_values import BlockedValues
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan
from pytest_mlpatterns.analysis.statistics.distributions import location
from pytest_mlpatterns.analysis.statistics.intervals import block_weights, launch_deviation, median_error
from pytest_mlpatterns.analysis.statistics.log_ratio import LogRatio, judge_ratio, paired_log_ratio
from pytest_mlpatterns.analysis.verdicts.tolerances import judged_statistic
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change
from pytest_mlpatterns.measurement.paired_blocks import BlockDesign, ResponsePace
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.analysis.metrics.metric import Metric

    Times = NDArray[np.float64]

CLAIM = (
    "llama.cpp with two callers on two slots: of unchanged runs at most 1 % fail and at most 5 % are undecided, at a "
    "tolerance of 15 % in 30 s and of 10 % in 60 s (10 % if callers are late more often); TTFT 73 % longer fails at "
    "25 %, and 35 % longer at 15 %"
)
RUNS = 200
STEP_S, PROMPT_S, TOKENS = 0.0238, 0.19, 8
INPUTS = (1.0, 1.1, 0.95, 1.02)
"""Prompts, by their length."""
START_S = 3.5
"""Start and warm-up of both sides of a paired launch."""
BUDGETS_S = (30, 60, 120)
TOLERANCES = (0.10, 0.15, 0.25)
LAUNCH_SD, BLOCK_SD, STEP_SD = 0.017, 0.03, 0.03
RECORDED, SCREENED, WINDOW, WARM = 8, 3, 24, 4
PRIMARY = 4
"""Metrics that share the probability of a false alarm: TTFT, TPOT, tokens per second, CPU time."""
ALPHA, PASS_ALPHA = 0.025, 0.025
FILE_ALPHA = 0.01
"""Both probabilities of a stored baseline."""
QUANTITIES = ("ttft", "tpot")
CONFIRMING = 4
"""Pairs that a failing ratio rests on if there is time for them."""


@dataclass(frozen=True)
class Service:
    """A language model.

    Attributes:
        label: in tables.
        prompt: how many times as long a prompt takes.
        turn_s: median time from the last token of a caller to the arrival of its next prompt.
        late: share of these that take 30 ms longer in the mean.
        race_s: deviation of the arrival of the first prompts.
    """

    label: str
    prompt: float = 1.0
    turn_s: float = 0.004
    late: float = 0.03
    race_s: float = 0.002

    def requests(self, rng: np.random.Generator, count: int, *, first: int = 0, stagger_s: float = 0.0) -> Times:
        """TTFT and TPOT of requests in the order in which they began, in seconds, shape ``(count, 3)``: begin first."""
        arriving = [(k * stagger_s + self._after(rng, self.race_s), k * stagger_s) for k in range(2)]
        working: list[tuple[float, list[float]]] = []
        found: list[tuple[float, float, float]] = []
        now, begun = 0.0, 0
        while len(found) < count:
            if not working:
                now = max(now, min(arriving)[0] + 0.0007)
            new = sorted(one for one in arriving if one[0] <= now)[: count - begun]
            arriving = [one for one in arriving if one not in new]
            length = STEP_S * bool(working)
            length += sum(self.prompt * PROMPT_S * INPUTS[(first + begun + k) % len(INPUTS)] for k in range(len(new)))
            begun += len(new)
            now += length * math.exp(rng.normal(0, STEP_SD))
            for sent_s, tokens in working:
                tokens.append(now)
                if len(tokens) == TOKENS:
                    found.append((sent_s, tokens[0] - sent_s, (now - tokens[0]) / (TOKENS - 1)))
                    if begun < count:
                        arriving.append((now + self._after(rng, self.turn_s), now))
            working = [one for one in working if len(one[1]) < TOKENS] + [(sent_s, [now]) for _, sent_s in new]
        return np.array(sorted(found))

    def _after(self, rng: np.random.Generator, middle_s: float) -> float:
        late_s = rng.exponential(0.03) if rng.random() < self.late else 0.0
        return float(middle_s * math.exp(rng.normal(0, 0.6)) + late_s)


QUIET = Service("quiet machine")
SLIPS = Service("callers that are late more often", turn_s=0.010, late=0.15)
SERVICES = (QUIET, SLIPS)
LONGER, LONGEST = 1.40, 1.84
"""Prompts that make TTFT 35 and 73 % longer."""


@dataclass(frozen=True)
class Design:
    """How blocks are measured and when they are looked at."""

    label: str
    staggered: bool
    looks_that_fit: bool


BEFORE = Design("before", staggered=False, looks_that_fit=False)
AFTER = Design("after", staggered=True, looks_that_fit=True)
DESIGNS = (BEFORE, replace(AFTER, label="callers apart", looks_that_fit=False), AFTER)


# --- a revision -----------------------------------------------------------------------------------------------------


@dataclass
class Pairs:
    """The log ratios of paired launches, and the first side of each, by metric."""

    ratios: dict[str, list[LogRatio]]
    first: dict[str, list[LaunchValue]]


def paired_run(rng: np.random.Generator, sides: Sequence[Service], *, design: Design, budget_s: float) -> Pairs:
    """The paired launches that fit into a budget."""
    answer_s = [PROMPT_S * side.prompt + (TOKENS - 1) * STEP_S / 2 for side in sides]
    paces = [ResponsePace(1e9 * one, 2e9 * one) for one in answer_s]
    plan = BlockDesign().within(int(budget_s * 1e9), 3).blocks(paces, START_S, len(INPUTS))
    assert plan.requests is not None
    launch_s = START_S + 2 * plan.requests * sum(answer_s)
    stagger_s = fmean(answer_s) / 4 if design.staggered else 0.0
    found = Pairs({}, {})
    for _ in range(max(3, int(budget_s / launch_s))):
        blocks: dict[str, tuple[list[float], list[float]]] = {}
        speeds = rng.normal(0, LAUNCH_SD / math.sqrt(2), 2)
        for number in range(2):
            shared = rng.normal(0, BLOCK_SD * math.sqrt(0.5))
            for side, service in enumerate(sides):
                times = service.requests(rng, plan.requests, first=number * plan.requests, stagger_s=stagger_s)
                slower = math.exp(speeds[side] + shared + rng.normal(0, BLOCK_SD * math.sqrt(0.5)))
                for name, values in zip(QUANTITIES, (1e9 * slower * times[:, 1:]).T, strict=True):
                    blocks.setdefault(name, ([], []))[side].append(float(np.median(values)))
                    blocks.setdefault(f"{name}_mean", ([], []))[side].append(location(values))
        for name, values in blocks.items():
            found.ratios.setdefault(name, []).append(paired_log_ratio(*values))
            found.first.setdefault(name, []).append(LaunchValue(fmean(values[0]), median_error(values[0])))
    return found


def of_pairs(pairs: Pairs, tolerance: float, design: Design) -> Outcome:
    """The verdict on TTFT and TPOT together."""
    launches = len(pairs.ratios["ttft"])
    last = launches + 1 if design.looks_that_fit else 14
    plan = SequentialPlan(last=last, alpha=ALPHA / PRIMARY, pass_alpha=PASS_ALPHA)
    outcome = Outcome.INCONCLUSIVE
    for number in range(3, launches + 1):
        found = []
        for name in QUANTITIES:
            judged = _judged(METRICS[name], pairs, number)
            verdict = judge_ratio(judged, 1 + tolerance, "lower", plan=plan)
            if verdict.outcome is Outcome.FAIL and verdict.launches < CONFIRMING <= number:
                verdict = judge_ratio(judged, 1 + tolerance, "lower", plan=structs.replace(plan, since=CONFIRMING))
            found.append(verdict.outcome)
        outcome = together(found)
        if outcome is Outcome.PASS or (outcome is Outcome.FAIL and number >= CONFIRMING):
            return outcome
    return outcome


def _judged(metric: Metric, pairs: Pairs, number: int) -> list[LogRatio]:
    judged = judged_statistic(metric, lambda of: launch_deviation(pairs.first[of.name][:number]))
    return pairs.ratios[judged.name][:number]


def together(found: Sequence[Outcome]) -> Outcome:
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        if outcome in found:
            return outcome
    return Outcome.PASS


# --- a stored baseline ----------------------------------------------------------------------------------------------

Launches = dict[str, list[LaunchValue]]


def launches_of(rng: np.random.Generator, service: Service, number: int) -> Launches:
    """Launches of a stored baseline, or beside one."""
    found: Launches = {}
    for _ in range(number):
        times = service.requests(rng, WARM + WINDOW)[WARM:]
        slower = math.exp(rng.normal(0, LAUNCH_SD))
        length_s = float(np.ptp(times[:, 0])) + 0.25
        blocks = max(8, round(length_s / 0.25))
        block = ((times[:, 0] - times[0, 0]) / length_s * blocks).astype(np.int64)
        inputs = (np.arange(WINDOW) % len(INPUTS)).astype(np.uint32)
        for name, values in zip(QUANTITIES, (1e9 * slower * times[:, 1:]).T, strict=True):
            known = BlockedValues(values, block, block_weights(blocks), inputs=inputs)
            for metric, value in ((name, known.percentile(50)), (f"{name}_mean", known.location())):
                assert value is not None
                found.setdefault(metric, []).append(value)
    return found


def of_file(recorded: Launches, present: Launches, tolerance: float) -> Outcome:
    """The verdict of a screen on TTFT and TPOT together."""
    plan = SequentialPlan(first=1, last=8, alpha=FILE_ALPHA / PRIMARY, pass_alpha=FILE_ALPHA, fixed_launches=RECORDED)
    outcome = Outcome.INCONCLUSIVE
    for number in range(1, SCREENED + 1):
        found = []
        for name in QUANTITIES:
            judged = judged_statistic(METRICS[name], lambda of: launch_deviation(recorded[of.name]))
            now = present[judged.name][:number]
            found.append(judge_change(judged, now, recorded[judged.name], tolerance=tolerance, plan=plan).outcome)
        outcome = together(found)
        if outcome is Outcome.PASS or (outcome is Outcome.FAIL and number > 1):
            return outcome
    return outcome


# --- the tables -----------------------------------------------------------------------------------------------------

CHANGES = (1.0, LONGER, LONGEST)


def measure() -> Iterator[Table]:
    yield of_a_revision()
    yield of_a_file()


def of_a_revision() -> Table:
    """Before and after, by budget and tolerance."""
    rows: list[Sequence[str]] = []
    claims: list[Claim] = []
    for service in SERVICES:
        for budget_s in BUDGETS_S:
            for design in DESIGNS:
                rng = np.random.default_rng(7)
                runs = {
                    change: _paired_runs(rng, service, change, design=design, budget_s=budget_s) for change in CHANGES
                }
                cells = [_cell([of_pairs(one, limit, design) for one in runs[1.0]]) for limit in TOLERANCES]
                limits = {LONGER: 0.15, LONGEST: 0.25}
                caught = {
                    change: [of_pairs(one, limit, design) for one in runs[change]].count(Outcome.FAIL) / RUNS
                    for change, limit in limits.items()
                }
                pairs = len(runs[1.0][0].ratios["ttft"])
                scatter = np.std([one.value for run in runs[1.0] for one in run.ratios["tpot_mean"]])
                shown = (f"{100 * share:.0f} %" for share in caught.values())
                row = (
                    service.label,
                    f"{budget_s} s",
                    design.label,
                    f"{pairs}",
                    f"{100 * scatter:.1f} %",
                    *cells,
                    *shown,
                )
                rows.append(row)
                if design is AFTER:
                    limit = 0.15 if budget_s == min(BUDGETS_S) else 0.10
                    unchanged = [of_pairs(one, limit, design) for one in runs[1.0]]
                    where = f"{service.label}, {budget_s} s, unchanged at {100 * limit:.0f} %"
                    claims += _claims(where, unchanged, caught=caught, most_open=0.05 if service is QUIET else 0.10)
    headings = (
        "machine",
        "budget",
        "design",
        "pairs",
        "TPOT scatters by",
        *_headings(),
        "+35 % at 15 %",
        "+73 % at 25 %",
    )
    return Table(f"against a revision, {RUNS} runs each", headings, rows, claims, [_NOTE])


_NOTE = "Unchanged: percent that fail / percent that stay undecided. TTFT 35 and 73 % longer: percent that fail."


def _paired_runs(
    rng: np.random.Generator, service: Service, change: float, *, design: Design, budget_s: float
) -> list[Pairs]:
    sides = service, replace(service, prompt=change)
    return [paired_run(rng, sides, design=design, budget_s=budget_s) for _ in range(RUNS)]


def _headings() -> list[str]:
    return [f"unchanged at {100 * limit:.0f} %" for limit in TOLERANCES]


def _cell(found: Sequence[Outcome]) -> str:
    return " / ".join(f"{100 * found.count(one) / len(found):.0f}" for one in (Outcome.FAIL, Outcome.INCONCLUSIVE))


def _claims(
    where: str, unchanged: Sequence[Outcome], *, caught: dict[float, float], most_open: float
) -> Iterator[Claim]:
    failed, undecided = (unchanged.count(one) / RUNS for one in (Outcome.FAIL, Outcome.INCONCLUSIVE))
    yield Claim(f"{where}: FAIL", failed, at_most=0.01)
    yield Claim(f"{where}: undecided", undecided, at_most=most_open)
    yield Claim(f"{where.partition(', unchanged')[0]}, +35 % at 15 %: FAIL", caught[LONGER], at_least=0.95)
    yield Claim(f"{where.partition(', unchanged')[0]}, +73 % at 25 %: FAIL", caught[LONGEST], at_least=0.95)


def of_a_file() -> Table:
    """The file alone, after at most three launches; what it leaves open, the recorded code settles."""
    rows: list[Sequence[str]] = []
    for service in SERVICES:
        rng = np.random.default_rng(8)
        cells = {change: {limit: list[Outcome]() for limit in TOLERANCES} for change in CHANGES}
        for _ in range(RUNS):
            recorded = launches_of(rng, service, RECORDED)
            for change in CHANGES:
                present = launches_of(rng, replace(service, prompt=change), SCREENED)
                for limit in TOLERANCES:
                    cells[change][limit].append(of_file(recorded, present, limit))
        caught = (
            cells[change][limit].count(Outcome.FAIL) / RUNS for change, limit in ((LONGER, 0.15), (LONGEST, 0.25))
        )
        shown = (f"{100 * share:.0f} %" for share in caught)
        rows.append((service.label, *(_cell(cells[1.0][limit]) for limit in TOLERANCES), *shown))
    title = f"a stored baseline of {RECORDED} launches, {RUNS} runs each, by the file alone"
    return Table(title, ("machine", *_headings(), "+35 % at 15 %", "+73 % at 25 %"), rows, (), [_NOTE])


if __name__ == "__main__":
    for table in measure():
        print(f"{table}\n", flush=True)
