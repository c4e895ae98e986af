"""What a run does with the baseline file: gives each test its reference, records what passed, prunes, and says so.

One ledger lives as long as the session. In a distributed run the workers' ledgers give references and look for entries
whose tests are gone; what they found travels to the one that writes. This module must not know pytest.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.analysis.latency_distribution import stored_percentiles
from pytest_mlpatterns.analysis.metric_definitions import metric_named, objectives_of
from pytest_mlpatterns.baseline.calibration import measure_calibration, ratio_between, scaled
from pytest_mlpatterns.baseline.file import read_baselines, write_baselines
from pytest_mlpatterns.baseline.lookup import _BESIDE, BaselineMatch
from pytest_mlpatterns.baseline.updates import _DRIFTS, _is_worse, _judged, _values
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.records.baseline_entry import Anchor, Baselines, Calibration, Entry, Update
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.reports.text.baseline_changes import gone_lines, update_lines
from pytest_mlpatterns.system.git import commit
from pytest_mlpatterns.units import format_percent

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from pytest_mlpatterns.config.run_settings import RunSettings
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.setup import Environment, Setup

__all__ = ["BaselineSession", "Collected"]

_LISTED = (*_DRIFTS, *_BESIDE)
"""What an update lists where it got worse, beside NMRT; the anchor is about those that are not merely beside."""
_TRIES = 3
_WIDENING = 2.0
"""Factor on the tolerance where the baseline is another machine's, scaled."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a run looked at, before options such as ``-k`` took tests away.

    Attributes:
        files: those that were collected as a whole and without errors.
        tests: the ids of the tests in them.
        variable: ids of tests, without what stands in brackets, that get other brackets from the command line.
    """

    files: Collection[str] = ()
    tests: Collection[str] = ()
    variable: Collection[str] = ()


class BaselineSession:
    """The baseline file during one run.

    Args:
        run: what the run was asked to do.
        environment: the machine and what is installed.
        root: directory that test ids are relative to.
        directory: takes the log of a calibration.

    Attributes:
        lines: what was done with the file, in words.

    Raises:
        BaselineFileError: the file is damaged, foreign or newer.
    """

    def __init__(self, run: RunSettings, environment: Environment, *, root: Path, directory: Path) -> None:
        self._run = run
        self._environment = environment
        self._root = root
        self._directory = directory
        self._before: Baselines = {} if run.baseline is BaselineMode.OFF else read_baselines(run.baseline_file)
        self._gone: set[str] = set()
        self._calibration: Calibration | None = None
        self._updates: list[Update] = []
        self._pruned: list[str] = []
        self.lines: list[str] = []

    # --- while tests are collected and run -----------------------------------------------------------------------

    def look_for_gone(self, collected: Collected) -> None:
        """Note the entries that belong to no test: its file is gone, or was collected and does not hold it."""
        files, tests = set(collected.files), set(collected.tests)

        def is_gone(test: str) -> bool:
            file = test.partition("::")[0]
            if not (self._root / file).exists():
                return True
            varies = any(test == name or test.startswith(f"{name}[") for name in collected.variable)
            return file in files and test not in tests and not varies

        self._gone.update(filter(is_gone, self._before))

    def reference(self, test: str, setup: Setup) -> BaselineMatch:
        """What a test is compared with; measures the calibration where one is needed and not yet known.

        Raises:
            ChildError: another machine's entry was to be scaled, and the calibration workload did not come to its end.
        """
        mode = BaselineMode.CHECK if self._run.baseline is BaselineMode.PRUNE else self._run.baseline
        if self._run.smoke or mode is BaselineMode.OFF:
            return BaselineMatch(setup, mode)
        if mode is BaselineMode.UPDATE:
            with contextlib.suppress(ChildError):  # an entry is of use without it too
                self._calibrated()  # beside the test, while nothing else runs
            return BaselineMatch(setup, mode)
        recorded = self._before.get(test, {})
        if (own := recorded.get(self._environment.machine)) is None:
            return self._from_others(recorded, setup, mode)
        if differences := self._differences(own, setup):
            return BaselineMatch(setup, mode, missing=f"baseline not comparable ({'; '.join(differences)})")
        slowdown = functools.partial(self._slowdown, own.calibration)
        return BaselineMatch(setup, mode, own, name=self._named(own), slowdown=slowdown)

    def with_drift(self, result: TestResult) -> TestResult:
        """The result with a note where it is worse than the anchor of its entry, but not worse than the entry."""
        entry = self._before.get(result.test, {}).get(self._environment.machine)
        if entry is None or result.interrupted or self._run.smoke or self._differences(entry, result.setup):
            return result
        notes, anchor = [], entry.anchored
        for name in _DRIFTS:
            against_entry, against_anchor = (_judged(name, result, old) for old in (entry.metrics, anchor.metrics))
            if not against_entry or not against_anchor or against_entry.outcome is Outcome.FAIL:
                continue
            if against_anchor.outcome is Outcome.FAIL and against_anchor.change is not None:
                much = format_percent(against_anchor.change.value)
                notes.append(f"{metric_named(name).label} {much} worse than on {_dated(anchor)}, little by little")
        return replace(result, notes=(*result.notes, *notes))

    # --- between the processes of a distributed run --------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """What a worker knows and the process that writes has to know, as plain values."""
        return {
            "gone": sorted(self._gone),
            "calibration": None if self._calibration is None else asdict(self._calibration),
        }

    def take(self, data: Mapping[str, Any]) -> None:
        """Take what a worker's :meth:`to_json` gave."""
        self._gone.update(data["gone"])
        if data["calibration"] is not None:
            self._calibration = Calibration(**data["calibration"])

    # --- at the end ----------------------------------------------------------------------------------------------

    def close(self, results: Sequence[TestResult], *, complete: bool) -> None:
        """Do with the file what the run was asked for, and say it in :attr:`lines`.

        Args:
            results: of all tests that ran.
            complete: whether the run came to its end; one that did not changes nothing.

        Raises:
            BaselineFileError: the file cannot be read any more, or not be written; it stays as it was.
        """
        file, mode = self._run.baseline_file, self._run.baseline
        if mode is BaselineMode.UPDATE and not self._run.smoke:
            passed = [result for result in results if result.passed]
            if complete and passed:
                updates = self._updates_of(passed)
                machine = self._environment.machine
                write_baselines(file, {update.test: {machine: update.after} for update in updates})
                self._updates = updates
                self.lines += [f"baseline {file} updated:", *update_lines(updates)]
            else:
                why = "no perf test passed" if complete else "the run did not come to its end"
                self.lines.append(f"baseline not updated: {why}")
        if mode is BaselineMode.PRUNE:
            if complete and self._gone:
                write_baselines(file, {}, remove=self._gone)
                self._pruned, self._gone = sorted(self._gone), set()
                self.lines += [f"baseline {file} pruned:", *(f"  {test}" for test in self._pruned)]
            else:
                why = "nothing that this run looked at is gone" if complete else "the run did not come to its end"
                self.lines.append(f"baseline not pruned: {why}")
        elif complete and self._gone:
            self.lines += gone_lines({test: len(self._before.get(test, ())) for test in sorted(self._gone)})

    def account(self) -> dict[str, Any]:
        """The same for the result file: plain values."""
        return {
            "mode": str(self._run.baseline),
            "recorded": [update.test for update in self._updates],
            "recorded_although_worse": [
                {"test": update.test, **asdict(verdict), "outcome": str(verdict.outcome)}
                for update in self._updates
                for verdict in update.worse
            ],
            "without_test": sorted(self._gone),
            "pruned": self._pruned,
        }

    # --- pieces --------------------------------------------------------------------------------------------------

    def _differences(self, entry: Entry, setup: Setup) -> tuple[str, ...]:
        return entry.differences(setup, self._environment.versions)

    def _named(self, entry: Entry) -> str:
        return f"{self._run.baseline_file.name}, {_dated(entry)}"

    def _calibrated(self) -> Calibration:
        if self._calibration is None:
            self._calibration = measure_calibration(self._directory, self._environment.cores)
        return self._calibration

    def _slowdown(self, then: Calibration | None) -> float | None:
        """How many times as long the calibration workload takes as it took then; measured anew, as machines vary.

        The best of three, since a neighbour may slow the machine for less time than that.
        """
        if then is None:
            return None
        try:
            tries = [measure_calibration(self._directory, then.cores) for _ in range(_TRIES)]
            return ratio_between(min(tries, key=lambda one: one.ns), then)
        except ChildError:  # the workload did not end: whatever the machine does, its speed is not known
            return None

    def _from_others(self, recorded: Mapping[str, Entry], setup: Setup, mode: BaselineMode) -> BaselineMatch:
        """Where this machine has no entry: another one's as it would be here, or why there is none."""
        if not recorded:
            return BaselineMatch(setup, mode, missing="no baseline")
        ratios = self._ratios(recorded, setup) if self._run.calibrate else {}
        if not ratios:
            machines = f"machine: {'; '.join(recorded)} → {self._environment.machine}"
            why = "; none tells how fast its machine was, of as many cores and this set-up" * self._run.calibrate
            return BaselineMatch(setup, mode, missing=f"baseline not comparable ({machines}{why})")
        machine = min(ratios, key=lambda name: abs(math.log(ratios[name])))
        said = f"baseline of {machine}, its times × {ratios[machine]:.2f} by calibration, at twice the tolerance"
        entry = scaled(recorded[machine], ratios[machine])
        return BaselineMatch(setup, mode, entry, widening=_WIDENING, said=said, name=self._named(entry))

    def _ratios(self, recorded: Mapping[str, Entry], setup: Setup) -> dict[str, float]:
        """How much longer work takes here, by machine, where that machine's entry is comparable and calibrated."""
        return {
            machine: ratio
            for machine, entry in recorded.items()
            if entry.calibration is not None
            and not self._differences(entry, setup)
            and (ratio := ratio_between(self._calibrated(), entry.calibration)) is not None
        }

    def _updates_of(self, passed: Sequence[TestResult]) -> list[Update]:
        revision = commit(self._root)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        return [self._update_of(result, revision, today) for result in passed]

    def _update_of(self, result: TestResult, revision: str | None, today: str) -> Update:
        """The new entry of one test. Its anchor stays while updates change little, and begins anew after a step."""
        metrics = {name: _values(launches) for name, launches in result.launches.items()}
        entry = Entry(
            setup=result.setup,
            metrics=metrics,
            versions=self._environment.versions,
            commit=revision,
            date=today,
            calibration=self._calibration,
            latency=stored_percentiles(result.latency),
        )
        before = self._before.get(result.test, {}).get(self._environment.machine)
        if before is None:
            return Update(result.test, None, entry)
        if differences := self._differences(before, result.setup):
            return Update(result.test, before, entry, differences)
        names = [name for name in metrics if name in _LISTED or name in objectives_of(metrics)]
        verdicts = [found for name in names if (found := _judged(name, result, before.metrics))]
        worse = tuple(found for found in verdicts if _is_worse(found, result.tolerance))
        steps = [found for found in verdicts if found.metric not in _BESIDE]
        better = [found for found in steps if found.change and found.change.high < -result.tolerance]
        if not better and not any(found in worse for found in steps):
            entry = replace(entry, anchor=before.anchored)
        return Update(result.test, before, entry, worse=worse)


def _dated(recorded: Entry | Anchor) -> str:
    return f"{recorded.date}{f' ({recorded.commit})' if recorded.commit else ''}"
