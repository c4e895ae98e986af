"""What a search for the commit of a change found: values for text, for JSON and for exit codes."""

from enum import StrEnum
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.records.codec import plain
from pytest_mlpatterns.records.launch import Estimate


class SearchEnd(StrEnum):
    """How a search ended."""

    FOUND = "found"  # At one commit, which was confirmed beside its parent
    NONE = "none"  # Both ends do not differ, or it was not shown that they do
    RANGE = "range"  # At a range, which has the commit or several of them


class WhyRange(StrEnum):
    """Why a search ended at a range."""

    NOT_RUN = "not run"  # The commits between cannot be measured, or could not be decided
    GRADUAL = "gradual"  # What is left of the change is below what is searched for: many commits have a part in it
    UNCONFIRMED = "unconfirmed"  # The commit that was found does not change the metric beside its parent
    TIME = "time"  # The time of the search was over


class CommitName(Struct, frozen=True):
    """A commit as people name it."""

    sha: str  # its whole hash
    short: str  # its abbreviated hash
    subject: str = ""  # the first line of its message
    author: str = ""  # name of its author
    date: str = ""  # of the commit, ISO 8601


class SearchExtent(Struct, frozen=True):
    """The size of a search, and how long it may take."""

    test: str  # id of the test
    metric: str  # name of the metric
    good: CommitName  # the first end
    bad: CommitName  # the last one
    between: int  # number of the commits that may have changed the metric
    steps: int  # most commits between both ends that are measured, if each of them runs
    budget_ns: int  # time of one measurement
    most_ns: int  # time of the whole search


class SearchedCommit(Struct, frozen=True):
    """A commit that was measured, or could not be."""

    commit: CommitName  # which one
    left: int  # number of commits that the change may be at, after it
    change: Estimate | None = None  # the commit over the good one, with its 95 % interval; None if it was not measured
    launches: int = 0  # paired launches that this rests on
    # what it is like, ``good``, ``bad``, ``near good``, ``near bad`` or ``undecided``; empty while it is not
    # decided
    likeness: str = ""
    skipped: str = ""  # why it cannot be measured; empty if it was


class BisectResult(Struct, frozen=True):
    """The end of a search."""

    test: str  # id of the test
    metric: str  # name of the metric that was searched for
    figure: str  # name of the metric whose ratios were compared, such as ``latency_mean`` for ``rtm``
    good: CommitName  # the first end
    bad: CommitName  # the last one
    end: SearchEnd  # how the search ended
    why: WhyRange | None = None  # why that is a range; None for another end
    whole: Estimate | None = None  # bad over good, with its 95 % interval; None if that was not measured
    before: CommitName | None = None  # the last commit that is surely before the change, as far as it is known
    first: CommitName | None = None  # the first commit that surely has it, as far as it is known
    # ``first`` over ``before``, measured beside each other, with its 95 % interval; None if that was not done
    step: Estimate | None = None
    is_part: bool = False  # whether the whole change is larger than that
    is_open: bool = False  # whether a change that is searched for is not excluded, if there is no end that differs
    searched: tuple[SearchedCommit, ...] = ()  # the commits that were measured or tried, in that order
    cause: str = ""  # text of what explains the step, as a failure has it; empty without one

    def to_json(self) -> dict[str, Any]:
        """The same as dictionaries, lists, text and numbers; ratios are shares of change, 0.05 for 5 % more."""
        searched = [{**plain(one), "change": _share(one.change)} for one in self.searched]
        shares = {"whole": _share(self.whole), "step": _share(self.step)}
        return {**plain(self), **shares, "searched": searched}


def _share(ratio: Estimate | None) -> list[float] | None:
    """``[value, low, high]`` of a change; None if it was not measured."""
    return None if ratio is None else [bound - 1 for bound in (ratio.value, ratio.low, ratio.high)]
