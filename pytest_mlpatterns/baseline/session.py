"""What one run does with the baseline file: finds an entry for each test, records what passed, prunes.

One object lives as long as the session. In a distributed run the workers' objects match entries and look for orphaned
ones; what they found travels to the process that writes. This module must not know pytest.
"""

import datetime
import functools
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.baseline.file import FORMAT, read_baselines, write_baselines
from pytest_mlpatterns.baseline.lookup import BaselineLookup, BaselineMatch
from pytest_mlpatterns.baseline.updates import RunFacts, drift_notes, update_at_level, update_of
from pytest_mlpatterns.config.run_settings import BaselineMode, RunSettings
from pytest_mlpatterns.errors import BaselineFileError, DeploymentError, SettingError
from pytest_mlpatterns.records.baseline_entry import Baselines, Entry, Level, Update
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import BaselineGap
from pytest_mlpatterns.records.setup import Environment, Setup
from pytest_mlpatterns.reports.text.comparison import gone_lines, update_lines
from pytest_mlpatterns.system.empty_results import head_of
from pytest_mlpatterns.system.git import commit, repository_above, tree_digest
from pytest_mlpatterns.wording import count, listed

_NO_LINE = Level(why_not="this run added no line to the history")
"""What a history gives for a test whose line was not added."""
_MOST_RENAMED = 3  # Entries that are named, of a test that may have another name now


class Collected(Struct, frozen=True):
    """What a run collected, before options such as ``-k`` deselected tests."""

    files: Collection[str] = ()  # files that were collected completely and without errors
    tests: Collection[str] = ()
    variable: Collection[str] = ()  # ids of tests, without their brackets, whose brackets depend on the command line


class BaselineSession:
    """The baseline file during one run. ``root``: directory that test ids are relative to.

    ``refused``: whether the history has no level of a test that was to be recorded, which is no success.
    """

    def __init__(self, run: RunSettings, environment: Environment, *, root: Path) -> None:
        self._run = run
        self._environment = environment
        self._root = root
        self._before: Baselines = {} if run.baseline is BaselineMode.OFF else read_baselines(run.baseline_file)
        self._lookup = BaselineLookup(run, environment, self._before)
        self._gone: set[str] = set()
        self._updates: list[Update] = []
        self._not_recorded: dict[str, str] = {}
        self.refused: bool = False
        self._tree: str | None = None
        self._pruned: list[str] = []
        self.lines: list[str] = []

    # --- while tests are collected and run -----------------------------------------------------------------------

    def look_for_gone(self, collected: Collected) -> None:
        """Note the entries without a test: the file is gone, or was collected and does not hold the test."""
        files, tests = set(collected.files), set(collected.tests)

        def is_gone(test: str) -> bool:
            file = test.partition("::")[0]
            if not (self._root / file).exists():
                return True
            varies = any(test == name or test.startswith(f"{name}[") for name in collected.variable)
            return file in files and test not in tests and not varies

        self._gone.update(filter(is_gone, self._before))

    def match(self, test: str, setup: Setup, cluster: str = "") -> BaselineMatch:
        """Find the entry that a test is compared with; see :meth:`BaselineLookup.match`.

        Raises SettingError: it has none, since pytest ran with another root directory when it was recorded.
        """
        if self._tree is None and self._run.baseline is BaselineMode.UPDATE and not self._run.smoke:
            try:  # before the run writes others
                self._tree = tree_digest(self._root, (self._run.baseline_file, *self._run.results_files))
            except (SettingError, DeploymentError):  # outside git
                self._tree = ""
        found = self._lookup.match(test, setup, cluster)
        if found.gap is not BaselineGap.ABSENT:
            return found
        self._require_no_entry_elsewhere(test)
        return replace(found, details=self._renamed(test, setup))

    def _require_no_entry_elsewhere(self, test: str) -> None:
        """Refuse a test with an entry in the file of another root directory: it would pass, compared with nothing.

        pytest chooses its root directory anew if it is started in another folder, or for several folders of a project.
        """
        name, _, inside = test.partition("::")
        at, file = self._root / name, self._run.baseline_file
        parents = [*at.parents]
        top = repository_above(at.parent) or self._root  # above it lies what is not ours
        if file.parent != self._root or top not in parents:
            return
        for other in parents[: parents.index(top) + 1]:
            own = f"{at.relative_to(other).as_posix()}::{inside}"
            if other != self._root and own in self._tests_in(other / file.name):
                raise SettingError(
                    f"{test} has no baseline, but {other / file.name} has {own}, recorded with {other} as pytest's "
                    f"root directory, which is {self._root} now; run pytest --rootdir={shlex.quote(str(other))} "
                    f"{shlex.quote(str(at))}, or record it here: pytest --perf-baseline update"
                )

    @functools.cache  # noqa: B019 - lives as long as the session
    def _tests_in(self, file: Path) -> frozenset[str]:
        try:
            return frozenset(read_baselines(file))
        except BaselineFileError:
            return frozenset()

    def _no_file(self, absent: Collection[str]) -> list[str]:
        """That the file does not exist, and which other one has entries of these tests; none if this is a first run."""
        file = self._run.baseline_file
        if not absent or file.exists():
            return []
        near = sorted({*file.parent.glob("*.json"), *self._root.glob("*.json")})
        others = [one for one in near if _is_baseline(one) and not self._tests_in(one).isdisjoint(absent)]
        names = [Path(os.path.relpath(one, self._run.invoked_in)).as_posix() for one in (file, *others)]
        if others:
            found = f"{listed(names[1:])} {'has' if len(others) == 1 else 'have'} entries of these tests"
            return [f"there is no baseline file {names[0]}, but {found}: --perf-baseline-file={names[1]}"]
        return [] if file == self._root / "perf-baseline.json" else [f"there is no baseline file {names[0]}"]

    def _renamed(self, test: str, setup: Setup) -> str:
        """The entries without a test that may be this one's under an earlier name: of its set-up, else of its file."""
        gone, file = sorted(self._gone), test.partition("::")[0]
        near = [one for one in gone if one.partition("::")[0] == file]
        alike = [one for one in gone if not all(own.setup.differences(setup) for own in self._before[one].values())]
        found = ([one for one in near if one in alike] or alike or near)[:_MOST_RENAMED]
        if not found:
            return ""
        verb = "no longer exists" if len(found) == 1 else "no longer exist"
        entries = f"{self._run.baseline_file.name} has {listed(found)}, which {verb}"
        return f"{entries}: rename the entry there if the test was renamed"

    def with_drift(self, result: TestResult) -> TestResult:
        """The result, with notes on its entry.

        They report that it was recorded although something was wrong, or that the result is worse than its anchor
        although not worse than the entry.
        """
        entry = self._entry_of(result)
        if entry is None or result.judged.interrupted or self._run.smoke or result.compares_nothing:
            return result
        if entry.differences(result.setup, self._environment.versions):
            return result
        by_the_file = result.reference is not None and result.reference.kind == "baseline"
        warning = [entry.warning] if entry.disturbed and by_the_file else []
        return result.with_notes([*warning, *drift_notes(result, entry)])

    # --- between the processes of a distributed run --------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """What a worker found and the process that writes needs, as plain values."""
        return {"gone": sorted(self._gone), "tree": self._tree}

    def merge(self, data: Mapping[str, Any]) -> None:
        """Add what a worker's :meth:`to_json` gave."""
        self._gone.update(data["gone"])
        self._tree = self._tree or data.get("tree")

    # --- at the end ----------------------------------------------------------------------------------------------

    def close(
        self, results: Sequence[TestResult], *, complete: bool, levels: Mapping[str, Level] | None = None
    ) -> None:
        """Update or prune the file as the run's mode asks, and report it in :attr:`lines`.

        ``levels``: by test, the level that an update records, or why it does not; None to record the run's.
        """
        mode = self._run.baseline
        if mode is BaselineMode.UPDATE and not self._run.smoke:
            compared = [result for result in results if not result.compares_nothing]
            passed = [result for result in compared if result.judged.passed or result.advisory]
            self._not_recorded = {result.test: "the test failed" for result in compared if result not in passed}
            self._update(passed, levels, complete=complete)
        if mode is BaselineMode.PRUNE:
            self._prune(complete=complete)
        elif complete and self._gone:
            self.lines += gone_lines({test: len(self._before.get(test, ())) for test in sorted(self._gone)})
        self.lines += self._no_file([one.test for one in results if one.judged.baseline_gap is BaselineGap.ABSENT])

    @property
    def recorded_nothing(self) -> bool:
        """Whether the run was to update the file and recorded no entry, so that it must not look like a success."""
        return self._run.baseline is BaselineMode.UPDATE and not self._run.smoke and not self._updates

    def report(self) -> dict[str, Any]:
        """What was done with the file, as plain values for the result file."""
        return {
            "mode": str(self._run.baseline),
            "accepted_file": self._run.accepted_from_here,
            "recorded": [update.test for update in self._updates],
            "not_recorded": self._not_recorded,
            "recorded_although_disturbed": {
                update.test: list(update.after.disturbed) for update in self._updates if update.after.disturbed
            },
            "recorded_although_worse": [
                {"test": update.test, **verdict.to_json()} for update in self._updates for verdict in update.worse
            ],
            "without_test": sorted(self._gone),
            "pruned": self._pruned,
        }

    def _entry_of(self, result: TestResult) -> Entry | None:
        """The entry of the test on the machine or cluster that gave the result."""
        return self._before.get(result.test, {}).get(self._machine_of(result))

    def _machine_of(self, result: TestResult) -> str:
        return self._environment.machine_of(result.conditions.cluster)

    def _update(self, passed: Sequence[TestResult], levels: Mapping[str, Level] | None, *, complete: bool) -> None:
        if not complete or not passed:
            why = "no perf test passed that is compared" if complete else "the run was not completed"
            self.lines.append(f"baseline not updated: {why}")
            return
        if levels is not None and not (passed := self._with_level(passed, levels)):
            return
        file = self._run.baseline_file
        facts = RunFacts(
            versions=self._environment.versions,
            commit=commit(self._root),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            tree=self._tree or "",
        )
        updates = [
            update_of(result, self._entry_of(result), facts)
            if levels is None
            else update_at_level(result, self._entry_of(result), facts, level=levels[result.test])
            for result in passed
        ]
        machines = {result.test: self._machine_of(result) for result in passed}
        write_baselines(file, {update.test: {machines[update.test]: update.after} for update in updates})
        self.lines += [f"baseline {file} updated:", *update_lines(updates)]
        self._updates = updates

    def _with_level(self, passed: Sequence[TestResult], levels: Mapping[str, Level]) -> list[TestResult]:
        """The results of tests whose level the history has; reports why the others are not recorded."""
        found = {result.test: levels.get(result.test, _NO_LINE) for result in passed}
        why_not = {test: level.why_not for test, level in found.items() if level.why_not}
        self._not_recorded |= why_not
        self.refused = bool(why_not)
        if why_not:
            self.lines.append("not recorded from the history (--perf-baseline-from run records this run alone):")
            self.lines += [f"  {test}: {why}" for test, why in why_not.items()]
        recorded = [result for result in passed if not found[result.test].why_not]
        self.lines += [
            f"  {result.test}: the level of {count(level.runs, 'run')} since {level.since}"
            for result in recorded
            for level in [found[result.test]]
        ]
        return recorded

    def _prune(self, *, complete: bool) -> None:
        if not complete or not self._gone:
            why = "every entry that this run collected has a test" if complete else "the run was not completed"
            self.lines.append(f"baseline not pruned: {why}")
            return
        file = self._run.baseline_file
        write_baselines(file, {}, remove=self._gone)
        self._pruned, self._gone = sorted(self._gone), set()
        self.lines += [f"baseline {file} pruned:", *(f"  {test}" for test in self._pruned)]


def _is_baseline(file: Path) -> bool:
    """Whether a file begins as a baseline file does; others may be large, and are not read."""
    try:
        return file.is_file() and FORMAT.encode() in head_of(file)
    except OSError:
        return False
