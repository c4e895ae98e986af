"""The baseline entry that a test is compared with on this machine, or why there is none.

An entry of this machine is used as it is. If there is none, and calibration is on, an entry of another machine is
scaled by how fast both machines run a fixed workload. This module must not know verdicts.
"""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.baseline.calibration import measure_calibration, ratio_between, scaled
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.records.baseline_entry import EntryKey
from pytest_mlpatterns.records.result import BaselineGap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytest_mlpatterns.config.run_settings import RunSettings
    from pytest_mlpatterns.records.baseline_entry import Baselines, Calibration, Entry
    from pytest_mlpatterns.records.environment_facts import EnvironmentFacts
    from pytest_mlpatterns.records.setup import Environment, Setup

__all__ = ["BaselineLookup", "BaselineMatch"]

_TRIES = 3
"""Calibrations of which the fastest counts: a neighbour may slow the machine for less time than three take."""
_WIDENING = 2.0
"""Factor on the tolerance when the baseline is another machine's, scaled."""


@dataclass(frozen=True, slots=True)
class BaselineMatch:
    """Outcome of looking for the entry that a test is compared with.

    Attributes:
        setup: what the test measures; an entry of another set-up is not given.
        mode: what the run does with the baseline; a run that prunes compares as ``check`` does.
        entry: the comparable entry; None if there is none, or if nothing is compared.
        gap: why there is no comparable entry; None if there is one, or if nothing is compared.
        details: what differs, for a reader; empty if nothing does.
        facts: the environment of the entry, also of one that is not comparable (of several the latest); may be empty.
        widening: factor on the tolerance.
        note: what a reader of the comparison has to know; empty if there is nothing.
        name: name of the entry in reports.
        recorded: the entry whose code a comparison can be settled with, also one of another machine or of other server
            software; None without one.
        accepted: the acceptances that held when that entry was recorded.
        slowdown: measures how many times as long a fixed workload takes now as when the entry was recorded; returns
            None if that is unknown.
    """

    setup: Setup
    mode: BaselineMode
    entry: Entry | None = None
    gap: BaselineGap | None = None
    details: str = ""
    facts: EnvironmentFacts = field(default_factory=dict)
    widening: float = 1.0
    note: str = ""
    name: str = ""
    recorded: EntryKey | None = None
    accepted: tuple[str, ...] = ()
    slowdown: Callable[[], float | None] = field(default=lambda: None, compare=False)

    @property
    def missing(self) -> str:
        """Why there is no comparable entry, as a sentence; empty if there is one, or if nothing is compared."""
        if self.gap is BaselineGap.NOT_COMPARABLE:
            return f"baseline not comparable ({self.details})"
        return str(self.gap or "")


class BaselineLookup:
    """Finds the entry for each test of a run.

    Args:
        run: what the run does with the baseline.
        environment: the machine and the installed packages.
        entries: the baseline file when the run began.
        directory: takes the log of a calibration.

    Attributes:
        calibration: how fast this machine is; None until it was measured or another process measured it.
    """

    def __init__(self, run: RunSettings, environment: Environment, entries: Baselines, *, directory: Path) -> None:
        self._run = run
        self._environment = environment
        self._entries = entries
        self._directory = directory
        self.calibration: Calibration | None = None

    def match(self, test: str, setup: Setup, cluster: str = "") -> BaselineMatch:
        """Find the entry that a test is compared with; calibrates the machine if that is needed.

        A calibration is of one machine: none is made for a cluster, whose entries are compared on it only.

        Args:
            test: the test's id.
            setup: what the test measures.
            cluster: node types and counts of the Ray cluster that takes part; empty without one.

        Raises:
            ChildError: another machine's entry had to be scaled, and the calibration workload did not end.
        """
        mode = BaselineMode.CHECK if self._run.baseline is BaselineMode.PRUNE else self._run.baseline
        if self._run.smoke or mode is BaselineMode.OFF:
            return BaselineMatch(setup, mode)
        if mode is BaselineMode.UPDATE:
            if not cluster:
                with contextlib.suppress(ChildError):  # an entry without a calibration is still useful
                    self._calibrate()  # now, while no load runs
            return BaselineMatch(setup, mode)
        by_machine, sought = self._entries.get(test, {}), BaselineMatch(setup, mode)
        machine = self._environment.machine_of(cluster)
        if (own := by_machine.get(machine)) is None:
            return self._match_elsewhere(test, by_machine, sought, cluster=cluster)
        if differences := self._differences(own, setup):
            details = "; ".join(differences)
            sought = replace(sought, gap=BaselineGap.NOT_COMPARABLE, details=details, facts=own.facts)
            return self._with_recorded(sought, test, {machine: own})
        slowdown = functools.partial(self._slowdown_since, own.calibration)
        entry = own.compared_under(self._environment.versions)
        found = replace(sought, entry=entry, facts=own.facts, name=self._name_of(own), slowdown=slowdown)
        return self._with_recorded(found, test, {machine: own})

    def _with_recorded(self, found: BaselineMatch, test: str, entries: Mapping[str, Entry]) -> BaselineMatch:
        """The match with the latest entry of the same set-up, whose code says what the test was."""
        same = {name: entry for name, entry in entries.items() if not found.setup.differences(entry.setup)}
        if not same:
            return found
        machine = max(same, key=lambda name: same[name].date)
        entry = same[machine]
        key = EntryKey(test, machine, entry.commit, entry.tree)
        return replace(found, recorded=key, accepted=entry.accepted, name=self._name_of(entry))

    def _match_elsewhere(
        self, test: str, by_machine: Mapping[str, Entry], sought: BaselineMatch, *, cluster: str
    ) -> BaselineMatch:
        """The entry of the machine whose speed is closest, scaled to this one; or why there is none."""
        if not by_machine:
            return replace(sought, gap=BaselineGap.ABSENT)
        is_scaled = self._run.calibrate and not cluster
        ratios = self._speed_ratios(by_machine, sought.setup) if is_scaled else {}
        if not ratios:
            machines = f"machine: {'; '.join(by_machine)} → {self._environment.machine_of(cluster)}"
            why = "; no entry with as many cores and this set-up has a calibration" if is_scaled else ""
            latest = max(by_machine.values(), key=lambda entry: entry.date)
            found = replace(sought, gap=BaselineGap.NOT_COMPARABLE, details=machines + why, facts=latest.facts)
            return self._with_recorded(found, test, by_machine)
        machine = min(ratios, key=lambda name: abs(math.log(ratios[name])))
        entry = scaled(by_machine[machine].compared_under(self._environment.versions), ratios[machine])
        note = f"baseline of {machine}, its times × {ratios[machine]:.2f} by calibration, at twice the tolerance"
        note = "; ".join(filter(None, (note, entry.warning)))
        found = replace(sought, entry=entry, facts=entry.facts, widening=_WIDENING, note=note)
        return self._with_recorded(found, test, {machine: by_machine[machine]})

    def _speed_ratios(self, by_machine: Mapping[str, Entry], setup: Setup) -> dict[str, float]:
        """How much longer work takes here, by machine, of the machines whose entry is comparable and calibrated."""
        return {
            machine: ratio
            for machine, entry in by_machine.items()
            if entry.calibration is not None
            and not self._differences(entry, setup)
            and (ratio := ratio_between(self._calibrate(), entry.calibration)) is not None
        }

    def _calibrate(self) -> Calibration:
        if self.calibration is None:
            self.calibration = measure_calibration(self._directory, self._environment.cores)
        return self.calibration

    def _slowdown_since(self, then: Calibration | None) -> float | None:
        """How many times as long the calibration workload takes now; measured at every call, as machines vary."""
        if then is None:
            return None
        try:
            tries = [measure_calibration(self._directory, then.cores) for _ in range(_TRIES)]
            return ratio_between(min(tries, key=lambda one: one.ns), then)
        except ChildError:  # the workload did not end, so the machine's speed is unknown
            return None

    def _differences(self, entry: Entry, setup: Setup) -> tuple[str, ...]:
        return entry.differences(setup, self._environment.versions)

    def _name_of(self, entry: Entry) -> str:
        return f"{self._run.baseline_file.name}, {entry.recorded_at}"
