"""By how much the launches of each test of a run differ, as the history knows it for this machine and set-up.

One object lives as long as the session, also in the workers of a distributed run, where tests are measured. This module
must not know how verdicts use the scatter.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.changes.launch_scatter import USUAL_SCATTER, LaunchScatter, scatter_in
from pytest_mlpatterns.errors import HistoryError
from pytest_mlpatterns.history.file import History
from pytest_mlpatterns.records.history import HistoryLine, digest_of
from pytest_mlpatterns.records.verdict import ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.config.run_settings import RunSettings
    from pytest_mlpatterns.records.setup import Environment, Setup

__all__ = ["OwnScatter"]


class OwnScatter:
    """The scatter of every test of a session.

    Args:
        run: names the file of the history, if there is one.
        environment: the machine and its software.
        known: the lines of the history, if this process has read them; None to read them when the first test asks.
    """

    def __init__(
        self, run: RunSettings, environment: Environment, *, known: Sequence[HistoryLine] | None = None
    ) -> None:
        self._run = run
        self._environment = environment
        self._known = known

    def of(self, test: str, setup: Setup, cluster: str = "") -> LaunchScatter:
        """The scatter of one test: of its runs on this machine with the present set-up.

        Args:
            test: its id.
            setup: what it measures.
            cluster: node types and counts of the cluster that takes part; empty without one.
        """
        if self._run.history is None or self._run.smoke:
            return USUAL_SCATTER
        machine, digest = self._environment.machine_of(cluster), digest_of(setup.to_json())
        ours = [
            line
            for line in self._lines.get(test, ())
            if line.machine == machine and line.setup == digest and line.kind not in ERRORS
        ]
        return scatter_in(sorted(ours, key=lambda line: line.date))

    @functools.cached_property
    def _lines(self) -> dict[str, Sequence[HistoryLine]]:
        """The lines of the history by test; none if it cannot be read, which the session reports."""
        found: dict[str, list[HistoryLine]] = {}
        for line in self._read() if self._known is None else self._known:
            found.setdefault(line.test, []).append(line)
        return {**found}

    def _read(self) -> Sequence[HistoryLine]:
        assert self._run.history is not None
        try:
            return History(self._run.history, str(self._run.history)).read().lines
        except HistoryError:
            return ()
