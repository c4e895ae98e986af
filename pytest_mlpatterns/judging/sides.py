"""Whether one service is faster than another one beside it, or not slower: what is asked, measured and judged.

This module must not know how variants are started, nor pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns import wording
from pytest_mlpatterns.analysis.health.machine import why_busy
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.analysis.statistics.alpha_spending import REVISION_ALPHA, SequentialPlan, looks_of_pairs
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.look import Pairs
from pytest_mlpatterns.judging.ratio_rules import RatioQuestion
from pytest_mlpatterns.measurement.answer_check import AnswerComparison, Side
from pytest_mlpatterns.measurement.variant import StartedDeployments
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import format_percent, parse_number, parse_ratio

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.other_side import OtherSide
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun
    from pytest_mlpatterns.measurement.launch import LaunchRunner


class Factor(Struct, frozen=True):
    """How many times as fast one side has to be as the other."""

    on: str  # one of the metrics with the role ``FACTOR``; a lower RTM is faster
    least: float  # smallest acceptable factor
    margin: float | None = None  # how many times as slow it may be, if that was asked; None if it has to be faster

    @classmethod
    def faster(cls, on: object, by: object, *, method: str) -> Factor:
        """One side is ``by`` times as fast as the other; ``method`` names the assertion in messages."""
        times = parse_number(by, name=f"{method}(by=...)", example="2.0")
        if not times:
            given = wording.shown(by)
            raise SettingError(f"{method}(by={given}), expected more than 0, which any service is; write 2.0")
        return cls(_read_on(on, method), times)

    @classmethod
    def not_slower(cls, on: object, by: object, tolerances: Tolerances, *, method: str) -> Factor:
        """One side is slower than the other by at most the margin ``by``; None is the tolerance of the metric."""
        name = _read_on(on, method)
        margin = tolerances.of(name) + 1 if by is None else _read_margin(by, f"{method}(by=...)")
        return cls(name, 1 / margin, margin)

    def looks(self, budget_ns: int) -> SequentialPlan:
        """When the launches are judged. Two services within a margin take as many as a comparison with a revision."""
        if self.on == "nmrt":
            return SequentialPlan(first=2, last=8)
        if self.margin is None:
            return SequentialPlan(first=3, last=8)
        return looks_of_pairs(self.margin - 1, REVISION_ALPHA, budget_ns)

    @property
    def words(self) -> str:
        """What is at least reached, in a sentence."""
        if self.margin is None:
            return f"{self.least:g}"
        share = self.margin - 1
        allowed = f"{self.margin:g} times as slow" if share >= 1 else f"{format_percent(share)} slower"
        return f"{self.least:.3g} (at most {allowed})"


class SideComparison:
    """Measures one test's service beside another one.

    ``difference``: the first answers of both sides that differed in the last comparison; empty if they did not.
    """

    def __init__(self, experiment: Experiment, measurement: SequentialMeasurement, runner: LaunchRunner) -> None:
        self._experiment = experiment
        self._measurement = measurement
        self._runner = runner
        self.difference: str = ""

    def ask_both(self, other: OtherSide) -> None:
        """Ask both sides once, which is all that a smoke run does.

        Raises Exception: any that the check raises, for answers of either side.
        """
        self._measurement.measure_at_least(1)
        answers = self._answers(other)
        with StartedDeployments([other.variant]) as (theirs,):
            if other.answers_alike:
                answers.look(self._runner.deployment, theirs)
        self.difference = answers.difference

    def decide(self, other: OtherSide, factor: Factor) -> Verdict:
        """Measure both sides until the factor is decided.

        Raises Exception: any that the check raises, for answers of either side.
        """
        answers = self._answers(other)
        look = answers.look if other.answers_alike else None
        self._runner.close()  # both sides need the machine to themselves
        run = self._experiment.interleave(self._experiment.variant(other.own), other.variant, look)
        self._measurement.watch(run)
        neighbours = self._experiment.settings.noise is not NoisePolicy.TRUST
        verdict = judge_factor(run, factor, budget_ns=self._measurement.time_of(run), neighbours=neighbours)
        self.difference = answers.difference
        verdict = replace(verdict, against=other.kind)
        return replace(verdict, reason=f"{verdict.reason}; {self.difference}") if self.difference else verdict

    def _answers(self, other: OtherSide) -> AnswerComparison:
        return AnswerComparison(Side(other.own, self._experiment.plan), Side(other.variant.name, other.variant.plan))


def _read_on(on: object, method: str) -> str:
    """The name of the metric that is compared."""
    known = with_role(Role.FACTOR)
    if not isinstance(on, str) or on not in known:
        expected = ", ".join(map(repr, known))
        raise SettingError(f"{method}(on={wording.shown(on)}), expected one of {expected}")
    return on


def _read_margin(by: object, name: str) -> float:
    """The margin as a factor of time."""
    if isinstance(by, str) and by.strip().endswith("%"):
        return 1 + parse_ratio(by, name=name)
    factor = parse_number(by, name=name, example='"10%"')
    if factor < 1:
        raise SettingError(
            f"{name} is {wording.shown(by)}, expected a share as text or a factor of at least 1; "
            'write "10%", or 2.0 for twice the time'
        )
    return factor


def judge_factor(run: InterleavedRun, asked: Factor, *, budget_ns: int, neighbours: bool) -> Verdict:
    """Measure until it is decided whether the first variant is faster than the second by the asked factor.

    ``run``: an interleaved run of the test's side and the other, in that order. ``asked``: the factor. ``neighbours``:
    whether busy neighbours leave a missed factor open.
    """
    looks = asked.looks(budget_ns)

    def look(_found: object) -> Outcome:
        return rule_factor(Pairs.of(run), asked, looks, neighbours=neighbours).outcome

    decide = run.decide_nmrt if asked.on == "nmrt" else run.decide
    decide(look, budget_ns, max_launches=looks.last)
    return rule_factor(Pairs.of(run), asked, looks, neighbours=neighbours)


def rule_factor(pairs: Pairs, asked: Factor, looks: SequentialPlan, *, neighbours: bool) -> Verdict:
    """Whether the first variant is faster than the second by the asked factor.

    Neighbours do not make the slower variant the faster one, but waiting for a core takes both equally long, and so the
    factor shrinks. A missed factor therefore rests on quiet launches alone.
    """
    metric, by = METRICS[asked.on], asked.least
    lower = metric.better == "lower"
    question = RatioQuestion(metric.name, by if lower else 1 / by, "higher" if lower else "lower", looks)
    verdict, busy = question.verdict(pairs.ratios(metric.name)), None
    if verdict.outcome is Outcome.FAIL and neighbours and by > 1 and metric.name != "nmrt":
        quiet = pairs.quiet
        if len(quiet.launches) >= looks.first:
            verdict = question.verdict(quiet.ratios(metric.name))
        else:
            busy = why_busy([*pairs.first.launches, *pairs.second.launches])
    faster = verdict.judged
    if not lower:
        faster = Estimate(1 / faster.value, 1 / faster.high, 1 / faster.low)
    reason = (
        f"{metric.label} {pairs.named(metric.name, pairs.printed(metric.name, verdict))}: {faster.value:.3g} times as "
        f"fast ({faster.low:.3g} to {faster.high:.3g}), which {verdict.outcome.verb} at least {asked.words}; "
        f"{pairs.measured(verdict)}"
    )
    judged = Verdict(metric.name, "pattern", verdict.outcome, reason)
    if not busy:
        return judged
    return judged.left_open(WhyOpen(OpenBy.MACHINE, busy), f"but {busy} meanwhile, which makes both sides alike")
