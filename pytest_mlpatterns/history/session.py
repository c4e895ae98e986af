"""What one run does with the history: appends a line for each test, and reports the changes that they made known.

One object lives as long as the session, in the process that has all results. This module must not know pytest.
"""

from __future__ import annotations

import datetime
import functools
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.config.run_settings import HistoryFail
from pytest_mlpatterns.history.checkout import checkout_of, first_parents, position_in
from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.history.lines import RunOfLines, lines_of
from pytest_mlpatterns.records.change import NewChange
from pytest_mlpatterns.records.history import HistoryRead
from pytest_mlpatterns.records.result import id_from
from pytest_mlpatterns.reports.text.change_sentence import bisect_command, change_sentence
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_mlpatterns.config.run_settings import RunSettings
    from pytest_mlpatterns.records.baseline_entry import Level
    from pytest_mlpatterns.records.change import Change
    from pytest_mlpatterns.records.history import HistoryLine
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.setup import Environment

__all__ = ["HistorySession"]

_MOST_NAMED = 3
"""Files that differ from the commit, which a line of the terminal names at most."""


class HistorySession:
    """The history during one run.

    Args:
        run: names the file of the history.
        environment: the machine and its software.
        root: directory that test ids are relative to.

    Attributes:
        lines: what was done with the history, in sentences for the terminal.
        changes: what this run made known.

    Raises:
        HistoryError: the history cannot be read, which is better known before anything is measured.
    """

    def __init__(self, run: RunSettings, environment: Environment, *, root: Path) -> None:
        self._run = run
        self._environment = environment
        self._root = root
        assert run.history is not None
        name = run.history.relative_to(root) if run.history.is_relative_to(root) else run.history
        self._history = History(run.history, str(name))
        self._before = HistoryRead(()) if run.smoke else self._history.read()
        self._checkout = checkout_of(root, (run.baseline_file, *run.results_files))
        self._added: tuple[HistoryLine, ...] = ()
        self.lines: list[str] = [f"WARNING: {warning}" for warning in self._before.warnings]
        self.changes: tuple[NewChange, ...] = ()

    @property
    def known(self) -> Sequence[HistoryLine]:
        """The lines of the history without those of this run."""
        return self._before.lines

    @property
    def fails(self) -> bool:
        """Whether a new change fails the run."""
        return any(one.fails for one in self.changes)

    def close(self, results: Sequence[TestResult], *, complete: bool) -> None:
        """Append a line for each test, and look for new changes.

        Args:
            results: of the tests that ran.
            complete: whether the run was completed; an incomplete one adds nothing.

        Raises:
            HistoryError: the history cannot be written; it is as it was.
        """
        if self._run.smoke or not results:
            return
        if not complete:
            self.lines.append(f"history {self._history.name} not extended: the run was not completed")
            return
        lines = self._lines_of(results)
        if not lines:
            self.lines.append(f"history {self._history.name} not extended: no test was measured validly")
            return
        said = self._history.append(lines)
        self._added = lines
        self.lines += [self._added_lines(), *said]
        self.changes = self._new_changes(results)

    def levels(self) -> dict[str, Level]:
        """The level of each test of this run as the last runs have it, or why there is none."""
        from pytest_mlpatterns.history.stable_level import stable_levels

        return stable_levels(self._before.lines, self._added, first_parents(self._root))

    def report(self) -> dict[str, Any]:
        """What was done with the history, as plain values for the result file."""
        return {
            "place": self._history.name,
            "added": len(self._added),
            "position": self._checkout.at.position,
            "clean": self._checkout.clean,
            "changes": [one.to_json() for one in self.changes],
        }

    def _lines_of(self, results: Sequence[TestResult]) -> tuple[HistoryLine, ...]:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        run = RunOfLines(self._environment, self._checkout.at, self._checkout.clean, now)
        position_of = functools.cache(functools.partial(position_in, self._root))
        return lines_of(results, run, position_of)

    def _added_lines(self) -> str:
        """How many lines were added, and why they do not count if files were changed."""
        text = f"history {self._history.name}: {count(len(self._added), 'line')} added"
        changed = self._checkout.changed
        if not changed:
            return text
        more = len(changed) - _MOST_NAMED
        named = ", ".join(changed[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"{text}, which no change is looked for in, since files differ from the commit: {named}"

    def _new_changes(self, results: Sequence[TestResult]) -> tuple[NewChange, ...]:
        """The new changes of the tests of this run, with their sentences."""
        if not self._checkout.clean:
            return ()
        from pytest_mlpatterns.history.new_changes import new_changes

        by_test = {result.test: result for result in results}
        before = self._before.lines
        everything = (*before, *self._added)
        return tuple(
            self._described(change, everything, by_test[change.test])
            for change in new_changes(before, self._added, first_parents(self._root))
        )

    def _described(self, change: Change, lines: Sequence[HistoryLine], result: TestResult) -> NewChange:
        """A change with its sentence; ``result`` is that of its test."""
        from pytest_mlpatterns.history.new_changes import each_passed

        is_known = is_known_metric(change.metric)
        tolerance = Tolerances(result.definition.tolerance).of(change.metric) if is_known else None
        sentence = change_sentence(change, passed=each_passed(change, lines), tolerance=tolerance)
        fails = self._run.history_fail is HistoryFail.NEW and change.is_worse and change.is_confirmed
        test = id_from(self._run.invoked_in, change.test, self._root)
        command = bisect_command(change, test) if change.is_worse else ""
        return NewChange(change, sentence, command, fails, result.definition.location)
