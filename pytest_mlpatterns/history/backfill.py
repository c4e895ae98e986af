"""A history filled up from old commits: which of them are measured, in which order, and what each adds.

Each commit is measured interleaved with one fixed reference, so that the error of a ratio does not grow with the number
of commits between. The order halves the range: if the time is over early, what was measured covers all of it. A commit
that the history has already is not measured again, so an interrupted backfill goes on. This module must not know how a
commit is measured, nor how a history is kept.
"""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.history.commit_runs import CommitRun, MeasuredAs, NotRun, WhyNotRun, limit_s
from pytest_mlpatterns.history.lines import RunOfLines, line_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pytest_mlpatterns.history.checkout import CommitRange
    from pytest_mlpatterns.history.commit_runs import Measures
    from pytest_mlpatterns.history.place import History
    from pytest_mlpatterns.records.history import CommitPosition, HistoryLine
    from pytest_mlpatterns.revision.commits import Revision

__all__ = ["Backfill", "BackfillEnd", "BackfillPlan", "Filled", "chosen_positions", "halving_order"]


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill measures.

    Attributes:
        tests: ids of the tests.
        commits: the range.
        positions: numbers of the commits in it that are measured, in the order in which they are.
        reference: the commit that all are compared with.
        budget_ns: time of one measurement.
        at_most_ns: time of all together.
    """

    tests: tuple[str, ...]
    commits: CommitRange
    positions: tuple[int, ...]
    reference: Revision
    budget_ns: int
    at_most_ns: int


@dataclass(frozen=True, slots=True)
class Filled:
    """One commit of one test.

    Attributes:
        test: id of the test.
        commit: the commit.
        left: measurements that are left after it.
        skipped: why it adds no line; empty if it does.
        notes: sentences about the history.
    """

    test: str
    commit: Revision
    left: int
    skipped: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackfillEnd:
    """What a backfill came to.

    Attributes:
        added: number of lines that it added.
        known: number of those that the history had already.
        skipped: number of measurements that gave no line.
        left: number of measurements for which there was no time.
    """

    added: int
    known: int
    skipped: int
    left: int


def halving_order(size: int) -> Iterator[int]:
    """The numbers below ``size``: the last, the first, the middle, the middles of both halves, and on."""
    if size > 0:
        yield size - 1
    if size > 1:
        yield 0
    stretches = [(0, size - 1)]
    while stretches:
        halves: list[tuple[int, int]] = []
        for low, high in stretches:
            if high - low > 1:
                middle = (low + high) // 2
                yield middle
                halves += [(low, middle), (middle, high)]
        stretches = halves


def chosen_positions(last: int, every: int, always: Collection[int] = ()) -> tuple[int, ...]:
    """The numbers of the commits that are measured, in their order.

    Args:
        last: number of the last commit of the range; it is measured, and each ``every``-th before it.
        every: distance, at least 1.
        always: further numbers, such as those of commits with a tag; 0 is the commit before the range.
    """
    found = sorted({*range(last, 0, -every), *(one for one in always if 0 < one <= last)})
    return tuple(found[number] for number in halving_order(len(found)))


class Backfill:
    """Fills up a history.

    Args:
        plan: what is measured.
        measures: for each test, what measures a commit.
        history: takes the lines.
        position_of: finds the position of a commit by its full hash.
        show: takes each measurement.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        plan: BackfillPlan,
        measures: Mapping[str, Measures],
        history: History,
        *,
        position_of: Callable[[str], CommitPosition],
        show: Callable[[Filled], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._measures = measures
        self._history = history
        self._position_of = position_of
        self._show = show
        self._clock = clock

    def run(self, machine: str) -> BackfillEnd:
        """Measure what the history does not have, until the time is over.

        Args:
            machine: identity of this one; lines of others do not count as known.

        Raises:
            SettingError: the newest commit cannot be compared with the reference, as no other could.
            HistoryError: the history cannot be read or written.
        """
        plan = self._plan
        deadline = self._clock() + plan.at_most_ns / 1e9
        known = _known(self._history.read().lines, plan.reference.sha, machine)
        whole = [(position, test) for position in plan.positions for test in plan.tests]
        wanted = [one for one in whole if not _is_known(known, one[1], plan.commits.shas[one[0]])]
        added = skipped = 0
        for number, (position, test) in enumerate(wanted):
            left_s = deadline - self._clock()
            filled = self._fill(test, plan.commits.revision(position), left_s, left=len(wanted) - number - 1)
            if filled is None:
                return BackfillEnd(added, len(whole) - len(wanted), skipped, len(wanted) - number)
            added, skipped = (added, skipped + 1) if filled.skipped else (added + 1, skipped)
            self._show(filled)
        return BackfillEnd(added, len(whole) - len(wanted), skipped, 0)

    def _fill(self, test: str, commit: Revision, left_s: float, *, left: int) -> Filled | None:
        """Measure one commit and add its line; None if there is no time for it."""
        plan = self._plan
        if left_s < plan.budget_ns / 1e9:
            return None
        usual_s = limit_s(plan.budget_ns)
        asked = MeasuredAs(plan.budget_ns)
        found = self._measures[test](commit, plan.reference, asked, most_s=min(usual_s, left_s))
        if isinstance(found, NotRun):
            if found.why is WhyNotRun.NOT_COMPARED and commit.sha == plan.commits.bad.sha:
                raise SettingError(
                    f"{test} at {commit.name} cannot be compared with {plan.reference.name}, as all commits are to be: "
                    f"{found.text}; name another commit with --against, such as {commit.name}"
                )
            is_cut = found.why is WhyNotRun.TIMEOUT and left_s < usual_s
            return None if is_cut else Filled(test, commit, left, str(found))
        line = self._line(found, commit.sha)
        if line is None:
            return Filled(test, commit, left, f"{found.result.kind.value} supports no line")
        return Filled(test, commit, left, notes=self._history.append([line]))

    def _line(self, found: CommitRun, sha: str) -> HistoryLine | None:
        date = datetime.datetime.fromisoformat(found.results.date).astimezone(datetime.UTC)
        run = RunOfLines(
            found.results.environment, self._position_of(sha), clean=True, date=date.isoformat(timespec="seconds")
        )
        return line_of(found.result, run, self._position_of)


def _known(lines: Sequence[HistoryLine], reference: str, machine: str) -> frozenset[tuple[str, str]]:
    """Test and commit of each line of this machine with ratios to the reference."""
    return frozenset(
        (line.test, line.at.commit)
        for line in lines
        if line.clean and line.machine == machine and line.at.commit and _is_same(line.reference, reference)
    )


def _is_same(position: CommitPosition | None, sha: str) -> bool:
    return position is not None and bool(position.commit) and sha.startswith(position.commit)


def _is_known(known: Collection[tuple[str, str]], test: str, sha: str) -> bool:
    return any(one == test and sha.startswith(commit) for one, commit in known)
