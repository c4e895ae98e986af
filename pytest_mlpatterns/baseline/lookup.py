"""The baseline entry that a test is compared with on this machine, or why there is none.

The comparison uses entries of this machine only. An entry of another machine names the code that settles the test. This
module must not know verdicts. Also: the keys are in ``Baselines`` of ``records/baseline_entry.py``, and
``records/setup.py`` names a machine and says what makes two entries comparable.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.config.run_settings import BaselineMode, RunSettings
from pytest_mlpatterns.records.baseline_entry import Baselines, Entry, EntryKey
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.result_parts import BaselineGap
from pytest_mlpatterns.records.setup import Environment, EnvironmentFacts, Setup


class BaselineMatch(Struct, frozen=True):
    """Outcome of looking for the entry that a test is compared with."""

    setup: Setup  # what the test measures; an entry of another set-up is not given
    mode: BaselineMode  # what the run does with the baseline; a run that prunes compares as ``check`` does
    entry: Entry | None = None  # the comparable entry; None if there is none, or if nothing is compared
    gap: BaselineGap | None = None  # why there is no comparable entry; None if there is one, or if nothing is compared
    details: str = ""  # what differs, or which entry may be meant instead, for a reader; empty if there is nothing
    # the environment of the entry, also of one that is not comparable (of several the latest); may be empty
    facts: EnvironmentFacts = {}
    name: str = ""
    # the entry whose code a comparison can be settled with, also one of another machine or of other server
    # software; None without one
    recorded: EntryKey | None = None
    accepted: tuple[str, ...] = ()  # the acceptances that held when that entry was recorded
    # the entry of the same set-up with a count, also one of another machine; None without one
    counted: Entry | None = None

    @property
    def missing(self) -> str:
        """Why there is no comparable entry, as a sentence; empty if there is one, or if nothing is compared."""
        words = str(self.gap or "")
        return f"{words} ({self.details})" if words and self.details else words


class BaselineLookup:
    """Finds the entry for each test of a run."""

    def __init__(self, run: RunSettings, environment: Environment, entries: Baselines) -> None:
        self._run = run
        self._environment = environment
        self._entries = entries

    def match(self, test: str, setup: Setup, cluster: str = "") -> BaselineMatch:
        """Find the entry that a test is compared with; ``cluster``: its node types and counts, empty without one."""
        mode = BaselineMode.CHECK if self._run.baseline is BaselineMode.PRUNE else self._run.baseline
        if self._run.smoke or mode in (BaselineMode.OFF, BaselineMode.UPDATE):
            return BaselineMatch(setup, mode)
        by_machine, machine = self._entries.get(test, {}), self._environment.machine_of(cluster)
        sought = BaselineMatch(setup, mode, counted=_with_work(by_machine, setup, machine))
        if (own := by_machine.get(machine)) is None:
            return self._match_elsewhere(test, by_machine, sought, machine=machine)
        if differences := own.differences(setup, self._environment.versions):
            details = "; ".join(differences)
            sought = replace(sought, gap=BaselineGap.NOT_COMPARABLE, details=details, facts=own.facts)
            return self._with_recorded(sought, test, {machine: own})
        found = replace(sought, entry=own, facts=own.facts, name=self._name_of(own))
        return self._with_recorded(found, test, {machine: own})

    def _with_recorded(self, found: BaselineMatch, test: str, entries: Mapping[str, Entry]) -> BaselineMatch:
        """The match with the latest entry of the same set-up, whose code shows what the test was."""
        same = {name: entry for name, entry in entries.items() if not found.setup.differences(entry.setup)}
        if not same:
            return found
        machine = max(same, key=lambda name: same[name].date)
        entry = same[machine]
        key = EntryKey(test, machine, entry.commit, entry.tree)
        return replace(found, recorded=key, accepted=entry.accepted, name=self._name_of(entry))

    def _match_elsewhere(
        self, test: str, by_machine: Mapping[str, Entry], sought: BaselineMatch, *, machine: str
    ) -> BaselineMatch:
        """The match without an entry of this machine: why there is none, and the entry whose code settles the test."""
        if not by_machine:
            return replace(sought, gap=BaselineGap.ABSENT)
        details = f"machine: {'; '.join(by_machine)} → {machine}"
        latest = max(by_machine.values(), key=lambda entry: entry.date)
        found = replace(sought, gap=BaselineGap.NOT_COMPARABLE, details=details, facts=latest.facts)
        return self._with_recorded(found, test, by_machine)

    def _name_of(self, entry: Entry) -> str:
        return f"{self._run.baseline_file.name}, {entry.recorded_at}"


def _with_work(by_machine: Mapping[str, Entry], setup: Setup, machine: str) -> Entry | None:
    """The entry of this machine if it has a count, else the latest one: a count holds on machines that are alike."""
    found = [
        (name == machine, entry.date, entry)
        for name, entry in by_machine.items()
        if entry.work is not None and not setup.differences(entry.setup)
    ]
    return max(found, key=lambda one: one[:2])[2] if found else None


def scaled(entry: Entry, ratio: float) -> Entry:
    """What an entry would be on a machine that takes ``ratio`` times as long: times multiplied, rates divided.

    Shares, sizes, counts and unknown metrics stay as they are, and so does what a paced load sets: an open loop, or a
    closed loop with think time.
    """
    paced = with_role(Role.PACED) if entry.setup.load.paced else {}
    metrics = {
        name: tuple(LaunchValue(launch.value * factor, launch.relative_error) for launch in launches)
        for name, launches in entry.metrics.items()
        for factor in [1.0 if name in paced or not is_known_metric(name) else metric_named(name).unit.scale(ratio)]
    }
    latency = tuple((percent, ns * ratio) for percent, ns in entry.latency)
    return replace(
        entry,
        metrics=metrics,
        anchor=None,
        latency=latency,
        counts=tuple(
            replace(
                launch,
                latencies=_longer(launch.latencies, ratio),
                streams={quantity: _longer(times, ratio) for quantity, times in launch.streams.items()},
            )
            for launch in entry.counts
        ),
        sorting_ns=tuple(ns * ratio for ns in entry.sorting_ns),
    )


def _longer(counts: Mapping[int, int], ratio: float) -> dict[int, int]:
    return {round(ns * ratio): count for ns, count in counts.items()}
