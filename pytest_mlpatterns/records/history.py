"""One line of a history: what one run measured of one test on one machine, and at which commit.

A line keeps what later readers need to compare runs: the values of each launch with their errors, the ratios to a
revision that was measured interleaved, and digests by which a changed set-up or environment is noticed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.verdict import Kind

__all__ = [
    "CommitPosition",
    "Compaction",
    "HistoryLine",
    "HistoryRead",
    "PairedRatio",
    "Transfer",
    "digest_of",
]

_DIGITS = 10
"""Length of a digest in hexadecimal digits; two set-ups of one test never share it by chance."""


@dataclass(frozen=True, slots=True)
class CommitPosition:
    """A commit, and where it stands.

    Attributes:
        commit: its hash, 12 digits or more; empty outside git.
        position: number of commits from the first one to this one, along first parents; 0 if unknown.
    """

    commit: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class PairedRatio:
    """One metric of one launch over that of the launch of a revision beside it.

    Attributes:
        log_ratio: natural logarithm of present over reference.
        error: its standard error.
    """

    log_ratio: float
    error: float


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """What one run measured of one test on one machine.

    Attributes:
        test: the test's id.
        machine: identity of the machine or cluster.
        date: end of the run, ISO 8601 in UTC with seconds.
        at: the commit that was checked out.
        clean: whether the files were those of the commit.
        setup: digest of the set-up; values of different ones are not comparable.
        facts: digest of the environment of the service; empty if it is not known.
        kind: what came of the test.
        values: of each launch, by the metric's name.
        ratios: of each paired launch, by the metric's name; empty if nothing was measured interleaved.
        reference: the revision that the ratios refer to; None without ratios.
        runs: number of runs that the line stands for; more than one after a compaction.
    """

    test: str
    machine: str
    date: str
    at: CommitPosition
    clean: bool
    setup: str
    facts: str
    kind: Kind
    values: Mapping[str, tuple[LaunchValue, ...]]
    ratios: Mapping[str, tuple[PairedRatio, ...]] = field(default_factory=dict)
    reference: CommitPosition | None = None
    runs: int = 1


@dataclass(frozen=True, slots=True)
class HistoryRead:
    """What a history holds.

    Attributes:
        lines: in the order in which they were appended, without exact duplicates.
        warnings: what was left out and why, one sentence each; empty if nothing was.
        skipped: number of lines that were left out.
    """

    lines: tuple[HistoryLine, ...]
    warnings: tuple[str, ...] = ()
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did.

    Attributes:
        lines: number of lines before and after it.
        size_bytes: size of the history before and after it.
    """

    lines: tuple[int, int]
    size_bytes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Transfer:
    """What was exchanged with a remote repository.

    Attributes:
        received: number of commits whose lines were changed here.
        sent: number of commits whose lines were changed there.
    """

    received: int = 0
    sent: int = 0


def digest_of(values: Mapping[str, object]) -> str:
    """A short digest of plain values by name, whatever their order; empty if there are none."""
    if not values:
        return ""
    text = json.dumps(dict(values), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
