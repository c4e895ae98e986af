"""One test compared with the same test at another git revision.

Both are measured interleaved. It must not know pytest, nor which verdicts fail a test.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import GROWTHS
from pytest_mlpatterns.analysis.metrics.metric import Nmrt
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.alpha_spending import FEWEST_PAIRS, REVISION_ALPHA
from pytest_mlpatterns.errors import PerfFailure, SettingError
from pytest_mlpatterns.judging.baseline_comparison import describe_left_out
from pytest_mlpatterns.judging.compared_metrics import (
    Basis,
    choose,
    is_asked_for,
    left_out_if_measured,
    sizes_for_tails,
    tails_left_out,
    why_left_out,
    with_own_scatter,
)
from pytest_mlpatterns.judging.guards import AbsentMetricError, UnknownMetricError, left_out_by, not_judged
from pytest_mlpatterns.judging.interleaved_verdicts import judge_growths, judge_nmrt_no_lower, judge_no_slower
from pytest_mlpatterns.judging.leaks import confirm_growths
from pytest_mlpatterns.judging.result_builder import reference_from_interleaved
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.records.setup import FactChange, Setup, differing_facts
from pytest_mlpatterns.records.verdict import LeftOut, Verdict
from pytest_mlpatterns.revision.client import NothingToCompareError, RevisionClient
from pytest_mlpatterns.revision.messages import Reason
from pytest_mlpatterns.system.environment_facts import environment_facts
from pytest_mlpatterns.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_mlpatterns.judging.causes import Causes
    from pytest_mlpatterns.judging.compared_metrics import Choice
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.sequential import SequentialMeasurement
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun
    from pytest_mlpatterns.measurement.launch import LaunchRunner
    from pytest_mlpatterns.records.result_parts import Reference
    from pytest_mlpatterns.workload.schedule import Schedule

NOT_IN_BLOCKS = "its steps need a whole window, and two sides are measured in short blocks that alternate"
"""Why a test with a function beside its load is compared with a stored baseline only."""
_SEARCHED = LeftOut("is searched for on both sides only if compare= names it")
"""Why NMRT and what comes with it are not compared although the test measured them."""
_BLOCKS = 4  # Blocks A B B A of a launch


class RevisionComparison:
    """Compares one test with itself at another revision. ``name``: of the revision in messages; empty for its own."""

    alpha: float = REVISION_ALPHA
    kind: Literal["baseline", "revision"] = "revision"

    def __init__(
        self,
        experiment: Experiment,
        revision: RevisionClient,
        measurement: SequentialMeasurement,
        *,
        runner: LaunchRunner,
        causes: Causes,
        name: str = "",
    ) -> None:
        self._name = name or revision.name
        self._experiment = experiment
        self._revision = revision
        self._measurement = measurement
        self._runner = runner
        self._causes = causes
        self._run: InterleavedRun | None = None
        self._why_not = ""
        self._details = ""
        self._is_new = False
        self._left_out: dict[str, LeftOut] = {}
        self._judged = False
        self._reference: Reference | None = None
        self._facts_changed: tuple[FactChange, ...] | None = None

    @property
    def run(self) -> InterleavedRun | None:
        """The interleaved run; None if nothing was measured."""
        return self._run

    @property
    def basis(self) -> Basis:
        """What was compared with so far, and what was not compared."""
        missing = self._why_not
        if self._left_out and not self._judged:
            missing = f"not compared with {self._revision.name}: {describe_left_out(self._left_out)}"
        return Basis(
            reference=self._reference,
            missing=missing,
            left_out=self._left_out,
            note="" if self._experiment.smoke else self._why_not,
            is_interleaved=True,
            facts_changed=self._facts_changed,
        )

    def judge(self, choice: Choice) -> Sequence[Verdict]:
        """Compare the metrics of a choice with the other revision.

        See :meth:`pytest_mlpatterns.judging.compared_metrics.Comparison.judge`.
        """
        settings, plan = self._experiment.settings, self._experiment.plan
        may_lag = not plan.schedule.closed and not settings.overload  # blocks are too short for a backlog
        if self._experiment.smoke or plan.check is not None or may_lag:
            self._measurement.measure_at_least(1)
        if self._experiment.smoke:
            return ()
        if may_lag:
            self._measurement.require_valid()
        verdicts = self.compare(choice)
        self._measurement.measure_at_least(1)  # if nothing could be compared
        self._measurement.require_valid()
        self._fail_unless_compared()
        return verdicts

    def _fail_unless_compared(self) -> None:
        """Fail a test that was not compared; one that is new at the present revision has nothing to compare with."""
        missing, why = self.basis.missing, self.basis.missing
        if self._experiment.comparison_required and missing:
            why = f"{missing}, and --perf-baseline require asks for a comparison"
        elif self._is_new or self._experiment.settings.during is not None:
            return
        if missing:
            raise PerfFailure("\n\n".join(filter(None, (why, self._details))))

    def compare(self, choice: Choice) -> Sequence[Verdict]:
        """Measure both revisions and judge; nothing is an error here that only makes a comparison impossible."""
        if self._experiment.system.is_attached:
            self._why_not = (
                f"not compared with {self._name}: {self._experiment.setup.pattern} runs already and is the "
                "same service on both sides; name it as App(...) or Command(...), which a revision can start, or "
                "deselect the test"
            )
        if self._experiment.settings.during is not None:
            self._why_not = f"not compared with {self._name}: it has during=, and {NOT_IN_BLOCKS}"
        if self._why_not or not (choice(False) or choice(True)):
            return ()
        try:
            if self._run is None:
                self._run = self._interleaved_run()
            if self._run is None:
                return ()
            self._measurement.watch(self._run)
            self._runner.close()  # both revisions need the machine to themselves
            verdicts = self._judge(self._run, choice)
            launches = (*self._run.first_launches, *self._run.second_launches)
            starts_ns = [launch.cold_start_ns for launch in launches if launch.cold_start_ns is not None]
            self._causes.search(self._revision, verdicts, starts_ns)
            return verdicts
        except NothingToCompareError as error:
            self._is_new = error.reason is Reason.ABSENT
            new = f"new: nothing to compare with at {self._name}"
            self._why_not, self._details = new if self._is_new else str(error), error.details
            return ()
        finally:
            self._revision.close()

    def _interleaved_run(self) -> InterleavedRun | None:
        """A run of both revisions, which later metrics share; None if they do not compare, and notes why."""
        theirs = self._revision.setup()
        if differences := self._experiment.setup.differences(theirs.setup, timing=False):
            self._why_not = self._incomparable(theirs.setup, "; ".join(differences))
            self._facts_changed = differing_facts(self._revision.facts(), environment_facts(), same_program=False)
            return None
        check_length(self._experiment.plan.schedule, self._experiment.settings.budget_ns, self._name)
        plan = replace(self._experiment.plan, payload=theirs.payload)
        return self._experiment.interleave(
            Variant(self._name, self._revision.start, plan), self._experiment.variant("the present")
        )

    def _incomparable(self, theirs: Setup, differences: str) -> str:
        """Why a test is not compared whose set-up is another one there.

        A version that the user gave the model, and nothing else, makes it new: a name of its own would do the same.
        """
        own = self._experiment.setup
        self._is_new = not own.differences(replace(theirs, model=own.model), timing=False)
        if self._is_new:
            return f"new: another model than at {self._name} ({differences}), so there is nothing to compare with"
        return (
            f"not comparable with {self._name} ({differences}); give the test another name: a new test has nothing to "
            "compare with"
        )

    def _judge(self, run: InterleavedRun, choice: Choice) -> Sequence[Verdict]:
        verdicts: list[Verdict] = []
        why_not: dict[str, Exception] = {}
        run.want_requests(max(sizes_for_tails(choice(False)), default=0))
        with self._taking(run):
            streams = self._streaming(run) if choice(True) != choice(False) else {"before": False, "now": False}
            compared = with_own_scatter(choose(choice, **streams), self._experiment.scatter)
            asked = {one.metric.name for one in compared if is_asked_for(one, self._experiment.settings)}
            searched = [one for one in compared if one.metric.of is None and one.metric.name in asked]
            growths = [one for one in compared if one.metric.name in GROWTHS]
            together = [one for one in compared if one.metric.of is not None and one not in growths]
            if together:
                found, why_not = judge_no_slower(run, together, budget_ns=self._measurement.time_of(run))
                verdicts += found
            if growths:
                found, unknown = judge_growths(run, growths, budget_ns=self._measurement.time_of(run))
                verdicts += confirm_growths(found, growths, self._measurement.follow_growth)
                why_not |= unknown
            for one in searched:
                if one.metric.kind != Nmrt():
                    why_not[one.metric.name] = UnknownMetricError("is not compared with a revision; record a baseline")
                else:
                    verdicts.append(judge_nmrt_no_lower(run, one, budget_ns=self._measurement.time_of(run)))
        if run.launches:
            self._reference = replace(reference_from_interleaved(run), revision_commit=self._revision.commit)
            before, now = (launches[0].facts for launches in (run.first_launches, run.second_launches))
            self._facts_changed = differing_facts(before, now)
        for one in compared:
            if (why := why_not.get(one.metric.name)) is None:
                continue
            if one.requested:
                raise not_judged(one.metric, left_out_by(why), self._name)
            may_be_absent = one.is_guard and one in growths and isinstance(why, AbsentMetricError)
            if not may_be_absent or one.metric.name in asked:  # a short window knows no growth
                self._left_out[one.metric.label] = left_out_by(why)
        unasked = [one for one in compared if one.metric.of is None and one.metric.name not in asked]
        self._left_out |= left_out_if_measured(unasked, self._measurement.so_far, _SEARCHED)
        tails = tails_left_out([one.metric for one in compared], Metrics(tuple(run.second_launches)))
        self._left_out |= {label: why for label, why in tails.items() if label in self._left_out}
        self._left_out |= why_left_out(choice, **streams)
        self._judged |= bool(verdicts)
        return verdicts

    def _streaming(self, run: InterleavedRun) -> dict[str, bool]:
        """Whether the answers streamed ``before``, and do ``now``, by the first paired launch."""
        if not run.launches:
            run.measure_first(self._measurement.time_of(run))
        before, now = (launches[0].samples.came_in_pieces for launches in (run.first_launches, run.second_launches))
        return {"before": before, "now": now}

    @contextmanager
    def _taking(self, run: InterleavedRun) -> Iterator[None]:
        """Adopt what an interleaved run measures of the present, and count the time that it takes."""
        launches, before_s = len(run.second_launches), run.spent_s
        try:
            yield
        finally:
            new, spent_s = run.second_launches[launches:], run.spent_s - before_s
            self._measurement.take(new, run.second_starts_ns, spent_s=spent_s)


def check_length(schedule: Schedule, budget_ns: int, revision: str) -> None:
    """Refuse a load with a length of its own that a comparison cannot repeat within the budget."""
    times, needed_ns = FEWEST_PAIRS * _BLOCKS, least_ns(schedule)
    if schedule.length_ns is None or needed_ns <= budget_ns:
        return
    raise SettingError(
        f"{schedule} takes {format_duration(schedule.length_ns)}, and a comparison with {revision} sends it "
        f"{times} times ({FEWEST_PAIRS} launches of A B B A), {format_duration(needed_ns)} in all; "
        f"expected at most the budget of {format_duration(budget_ns)}: shorten the load, or give "
        f'budget="{math.ceil(needed_ns / 1e9)}s"'
    )


def least_ns(schedule: Schedule) -> int:
    """The time that a comparison sends a load with a length of its own, at least; 0 for one without."""
    return FEWEST_PAIRS * _BLOCKS * (schedule.length_ns or 0)
