"""One test compared with the same test at another git revision.

Both are measured interleaved. It must not know pytest, nor which verdicts fail a test. Also: the fewest pairs of
launches, and after how many a failure counts, are in ``analysis/statistics/alpha_spending.py``, and
``judging/metric_rules.py`` decides whether a further pair may change a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric import USUAL_TOLERANCE, Nmrt
from pytest_mlpatterns.analysis.statistics.alpha_spending import (
    CONFIRMING_PAIRS,
    FEWEST_PAIRS,
    REVISION_ALPHA,
    SequentialPlan,
    looks_of_pairs,
    looks_that_fit,
)
from pytest_mlpatterns.analysis.verdicts.open_reasons import failed_together
from pytest_mlpatterns.errors import PerfFailure, SettingError
from pytest_mlpatterns.judging.compared_metrics import (
    Choice,
    Chosen,
    ComparedMetric,
    is_asked_for,
    left_out_if_measured,
    requests_for_tails,
)
from pytest_mlpatterns.judging.leaks import confirm_growths
from pytest_mlpatterns.judging.look import Look, Pairs, UnknownMetricError
from pytest_mlpatterns.judging.loop import Ruling, decide_pairs, ruling_of
from pytest_mlpatterns.judging.metric_rules import RatioQuestion, change_verdict, judge_metrics, rule_pairs
from pytest_mlpatterns.judging.result_builder import reference_from_interleaved
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.records.setup import Setup, differing_facts
from pytest_mlpatterns.records.verdict import Gate, LeftOut, Verdict
from pytest_mlpatterns.revision.client import NothingToCompareError, RevisionClient
from pytest_mlpatterns.revision.messages import Reason
from pytest_mlpatterns.serving.targets import require_other_ports
from pytest_mlpatterns.system.environment_facts import environment_facts
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.workload.schedule import Schedule

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.basis import Basis
    from pytest_mlpatterns.measurement.interleaved import InterleavedRun

NOT_INTERLEAVED = "its steps need a whole window, and two sides are measured in short turns"
"""Why a test with a function beside its load is compared with a stored baseline only."""
_SEARCHED = LeftOut("is searched for on both sides only if compare= names it")
"""Why NMRT and what comes with it are not compared although the test measured them."""
_BLOCKS = 4  # Blocks A B B A of a launch
_ONE_LOOK = SequentialPlan(first=1, last=1)


class RevisionComparison:
    """Compares one test with itself at another revision, in an interleaved run.

    Raises PerfFailure: no revision can serve the test, which fails before it is measured, unless its gate only warns.
    """

    def __init__(self, basis: Basis, revision: RevisionClient) -> None:
        self._basis, self._experiment, self._measurement = basis, basis.experiment, basis.measurement
        self._revision, self._name = revision, revision.name
        settings, why = self._experiment.settings, self._why_not()
        basis.keep("code", name=revision.name, why_not=why)
        fails = settings.during is None and settings.gate is Gate.FAIL and not self._experiment.smoke
        if why and fails:
            raise PerfFailure(why)

    def judge(self, choice: Choice) -> Sequence[Verdict]:
        """Compare the metrics of a choice with the other revision, and measure as much as that takes."""
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

    def _why_not(self) -> str:
        """Why nothing can be compared, as far as that is known before anything is measured; empty if something can."""
        system = self._experiment.system
        if self._experiment.settings.during is not None:
            why = f"it has during=, and {NOT_INTERLEAVED}"
        elif not system.is_attached:
            return ""
        elif system.is_in_process:
            why = "perf_client is measured by itself, in this tree alone; deselect it: a baseline file compares it"
        else:
            why = (
                f"{self._experiment.setup.pattern} runs already and is the same service on both sides; name it as "
                "App(...) or Command(...), which a revision can start, or deselect the test"
            )
        return f"not compared with {self._name}: {why}"

    def _fail_unless_compared(self) -> None:
        """Fail a test that was not compared; one that is new at the present revision has nothing to compare with."""
        side, missing, is_required = self._basis.code, self._basis.code.missing, self._experiment.comparison_required
        has_nothing = side.is_new or self._experiment.settings.during is not None
        if not missing or (has_nothing and not is_required):
            return
        why = f"{missing}, and --perf-baseline require asks for a comparison" if is_required else missing
        raise PerfFailure("\n\n".join(filter(None, (why, side.details))))

    def compare(self, choice: Choice) -> Sequence[Verdict]:
        """Measure both revisions and judge; nothing is an error here that only makes a comparison impossible."""
        if self._basis.code.why_not or not (choice(False) or choice(True)):
            return ()
        try:
            if (run := self._basis.code.run or self._interleaved_run()) is None:
                return ()
            self._basis.keep("code", run=run)
            self._measurement.watch(run)
            self._measurement.runner.close()  # both revisions need the machine to themselves
            verdicts = self._judge(run, choice)
            launches = (*run.first_launches, *run.second_launches)
            starts_ns = [launch.cold_start_ns for launch in launches if launch.cold_start_ns is not None]
            self._basis.causes.search(self._revision, verdicts, starts_ns)
            return verdicts
        except NothingToCompareError as error:
            is_new = error.reason is Reason.ABSENT
            new = f"new: nothing to compare with at {self._name}"
            self._basis.keep("code", why_not=new if is_new else str(error), details=error.details, is_new=is_new)
            return ()
        finally:
            self._revision.close()

    def _interleaved_run(self) -> InterleavedRun | None:
        """A run of both revisions, which later metrics share; None if they do not compare, and notes why."""
        theirs = self._revision.setup()
        if differences := self._experiment.setup.differences(theirs.setup, timing=False):
            self._note_incomparable(theirs.setup, "; ".join(differences))
            facts = differing_facts(self._revision.facts(), environment_facts(), same_program=False)
            self._basis.keep("code", facts_changed=facts)
            return None
        require_other_ports(self._experiment.system.service, self._experiment.system.service)
        check_length(self._experiment.plan.schedule, self._experiment.settings.budget_ns, self._name)
        own = self._experiment.plan  # whose client sends the requests to both sides
        plan = replace(own, payload=replace(theirs.payload, wire=own.payload.wire))
        return self._experiment.interleave(
            Variant(self._name, self._experiment.starts.patient(self._revision.start, self._name), plan),
            self._experiment.variant("the working tree"),
        )

    def _note_incomparable(self, theirs: Setup, differences: str) -> None:
        """Note why a test is not compared whose set-up is another one there.

        A version that the user gave the model, and nothing else, makes it new: a name of its own would do the same.
        """
        own = self._experiment.setup
        is_new = not own.differences(replace(theirs, model=own.model), timing=False)
        why_not = (
            f"not comparable with {self._name} ({differences}); give the test another name: a new test has nothing to "
            "compare with"
        )
        if is_new:
            why_not = f"new: another model than at {self._name} ({differences}), so there is nothing to compare with"
        self._basis.keep("code", why_not=why_not, is_new=is_new)

    def _judge(self, run: InterleavedRun, choice: Choice) -> Sequence[Verdict]:
        run.want_requests(requests_for_tails(choice(False)))
        try:
            chosen = Chosen.of(choice, self._experiment.scatter, **self._streams(run, choice))
            found = self._measured(run, chosen)
        finally:
            self._measurement.take(run)
        experiment, compared = self._experiment, chosen.compared
        if run.launches:
            before, now = (launches[0].facts for launches in (run.first_launches, run.second_launches))
            entry = experiment.baseline.name if experiment.revision is None else ""
            reference = reference_from_interleaved(run, commit=self._revision.commit, entry=entry)
            self._basis.keep("code", reference=reference, facts_changed=differing_facts(before, now))
        self._basis.judged("code", found, compared, look=Look.at_pairs(Pairs.of(run), _ONE_LOOK))
        unasked = [one for one in compared if one.metric.of is None and not is_asked_for(one, experiment.settings)]
        searched = left_out_if_measured(unasked, self._measurement.so_far, _SEARCHED)
        self._basis.leave_out("code", {**searched, **chosen.left_out})
        return found.verdicts

    def _streams(self, run: InterleavedRun, choice: Choice) -> dict[str, bool]:
        """Whether the answers streamed ``before``, and do ``now``, by the first pair, which every metric needs."""
        if not run.launches and any(one.metric.of is not None for one in (*choice(False), *choice(True))):
            run.measure(self._measurement.time_of(run))
        sides = {"before": run.first_launches, "now": run.second_launches}
        return {name: bool(found) and found[0].samples.came_in_pieces for name, found in sides.items()}

    def _measured(self, run: InterleavedRun, chosen: Chosen) -> Ruling:
        """What all metrics come to, after as many pairs, searches and longer loads as that takes."""
        found = Ruling()
        if chosen.together:
            found = judge_no_slower(run, chosen.together, budget_ns=self._measurement.time_of(run))
        verdicts, left_out = [*found.verdicts], {**found.left_out}
        if growths := chosen.growths:
            found = judge_metrics(growths, Look.at_pairs(Pairs.of(run), _ONE_LOOK))
            verdicts += confirm_growths(found.verdicts, growths, self._measurement.follow_growth)
            left_out |= found.left_out
        for one in chosen.compared:
            if one.metric.of is not None or not is_asked_for(one, self._experiment.settings):
                continue
            if one.metric.kind != Nmrt():
                left_out[one.metric.name] = UnknownMetricError("is not compared with a revision; record a baseline")
            else:
                verdicts.append(judge_nmrt_no_lower(run, one, budget_ns=self._measurement.time_of(run)))
        return Ruling(verdicts=verdicts, left_out=left_out)


def judge_no_slower(run: InterleavedRun, compared: Sequence[ComparedMetric], *, budget_ns: int) -> Ruling:
    """Measure until it is decided whether the second side is worse than the first beyond the tolerance.

    Latency, throughput and CPU time are ratios of neighbouring blocks; the others compare the launches of both sides.

    ``compared``: any metrics except NMRT, at least one.
    """
    tolerance = min((one.tolerance for one in compared if not one.is_guard), default=USUAL_TOLERANCE)
    planned = looks = looks_of_pairs(tolerance, REVISION_ALPHA, budget_ns)

    def rule(pairs: Pairs) -> Ruling:
        nonlocal looks
        if len(pairs.launches) == looks.first:
            looks = looks_that_fit(looks, budget_ns, pairs.spent_s / looks.first, beyond_ns=run.beyond_ns)
        return rule_pairs(compared, Look.at_pairs(pairs, looks))

    ruling = decide_pairs(rule, run, planned, budget_ns=budget_ns)
    may_count_together = len(run.launches) >= CONFIRMING_PAIRS
    return replace(ruling, verdicts=failed_together(ruling.verdicts)) if may_count_together else ruling


def judge_nmrt_no_lower(run: InterleavedRun, compared: ComparedMetric, *, budget_ns: int) -> Verdict:
    """Search on both sides until it is decided whether NMRT of the second one is lower."""
    plan = SequentialPlan(first=2, last=8, alpha=compared.alpha, pass_alpha=REVISION_ALPHA)
    question = RatioQuestion.of_change(METRICS["nmrt"], compared.tolerance, plan)

    def rule(pairs: Pairs) -> Ruling:
        verdict = question.verdict(pairs.ratios("nmrt"))
        judged = change_verdict(question, verdict, pairs, tolerance=compared.tolerance)
        return ruling_of([judged], "search")

    (verdict,) = decide_pairs(rule, run, plan, budget_ns=budget_ns, wants="search").verdicts
    return verdict


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
