"""The baseline of one test: an entry with its anchor, and an update of it."""

import re
from collections.abc import Mapping

from msgspec import Struct

from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.latency import LatencySplits, Percentiles, RequestCounts
from pytest_mlpatterns.records.launch import LaunchValue, Taken
from pytest_mlpatterns.records.setup import EnvironmentFacts, Setup, SystemKind
from pytest_mlpatterns.records.verdict import Verdict

_OURS = "pytest-mlpatterns"


class Anchor(Struct, frozen=True):
    """An earlier entry of the test, since which each of the ``updates`` changed little: its speed, commit and date."""

    metrics: Mapping[str, tuple[LaunchValue, ...]]
    commit: str | None
    date: str
    updates: int = 0

    @property
    def recorded_at(self) -> str:
        """Date and commit, ``2026-01-31 (1a2b3c4)``."""
        return _dated(self.date, self.commit)


class Entry(Struct, frozen=True):
    """The stored result of one test on one machine."""

    setup: Setup  # what was measured
    metrics: Mapping[str, tuple[LaunchValue, ...]]  # value and error per launch, by the metric's name
    versions: Mapping[str, str]  # of the installed packages
    commit: str | None  # short hash; None outside git
    date: str  # ISO date
    anchor: Anchor | None = None  # earlier entry that slow drift is measured from; None if this entry is its own anchor
    latency: Percentiles = ()  # latency distribution, for charts only; may be empty
    disturbed: tuple[str, ...] = ()  # what was wrong when it was recorded, a phrase each; empty if nothing was
    # requests, failures and latencies of each launch, those below the median as one; empty in entries of older
    # versions, whose tail and failures are then not compared
    counts: tuple[RequestCounts, ...] = ()
    facts: EnvironmentFacts = {}  # the environment of the service; empty in entries of older versions
    # where the time of requests went, to name what changed; empty in entries of older versions
    split: LatencySplits = {}
    # digest of the files that were measured (:mod:`pytest_mlpatterns.system.git`); empty in entries of older
    # versions and outside git
    tree: str = ""
    taken: Taken = Taken()  # what of the machine the deployment could not have while it was recorded
    accepted: tuple[str, ...] = ()  # the acceptances that held when it was recorded, whose change it has
    # CPU times of a fixed work in the launches, by which later launches judge whether the machine is faster or
    # slower; empty in entries of older versions
    sorting_ns: tuple[float, ...] = ()
    work: Count | None = None  # the last pass that counted the instructions of a request; None without one

    @property
    def recorded_at(self) -> str:
        """Date and commit, ``2026-01-31 (1a2b3c4)``."""
        return _dated(self.date, self.commit)

    @property
    def unchanged_commit(self) -> str:
        """The commit whose files were measured as they are in it; empty if files were changed, or outside git."""
        return _unchanged(self.commit)

    @property
    def warning(self) -> str:
        """What was wrong when it was recorded, as a sentence; empty if nothing was."""
        if not self.disturbed:
            return ""
        return f"the baseline of {self.recorded_at} was recorded although {'; '.join(self.disturbed)}"

    def differences(self, setup: Setup, versions: Mapping[str, str]) -> tuple[str, ...]:
        """Why this entry is not comparable with a test: what differs, as ``load: closed(8) → closed(16)``."""
        then, now = _server_versions(self.setup, self.versions), _server_versions(setup, versions)
        servers = [f"{name}: {then[name]} → {now[name]}" for name in then if name in now and then[name] != now[name]]
        return (*setup.differences(self.setup), *servers)


Baselines = dict[str, dict[str, Entry]]  # Test id → machine → entry


class EntryKey(Struct, frozen=True):
    """Which entry of the baseline file it is, and what the entry knows of the code that it was recorded from."""

    test: str  # the test's id
    machine: str  # identity of the machine
    commit: str | None  # the commit that was checked out then, with ``+`` if files were changed; None outside git
    tree: str = ""  # digest of the files that were measured; empty if unknown

    @property
    def unchanged_commit(self) -> str:
        """The commit whose files were measured as they are in it; empty if files were changed, or outside git."""
        return _unchanged(self.commit)


class Update(Struct, frozen=True):
    """A new entry, the entry that it replaces, and how both compare."""

    test: str  # the test's id
    before: Entry | None  # the entry that is replaced; None if there is none
    after: Entry  # the new entry
    differences: tuple[str, ...] = ()  # why both are not comparable; empty if they are
    # verdicts on the metrics that are worse than before by more than the test's tolerance
    worse: tuple[Verdict, ...] = ()
    # smallest change for the worse that a comparison with the new entry sees, as a share; None if that is not
    # known
    seen_from: float | None = None
    is_wide: bool = False  # whether that is too far beyond the tolerance for the entry to decide alone


class Level(Struct, frozen=True):
    """The level of a test as the last runs of a history have it, which an entry may hold instead of one run's."""

    # value and error per launch of these runs, by the metric's name
    metrics: Mapping[str, tuple[LaunchValue, ...]] = {}
    runs: int = 0  # their number
    since: str = ""  # ISO date of the first of them; empty if there are none
    why_not: str = ""  # why there is no level, as a clause; empty if there is one


def _server_versions(setup: Setup, versions: Mapping[str, str]) -> dict[str, str]:
    """The server software that influences the figures, by name; empty for a service that brings its own."""
    kind = setup.pattern.kind
    if kind in (SystemKind.URL, SystemKind.COMMAND):
        return {}
    loop = f"uvloop {versions['uvloop']}" if "uvloop" in versions else "asyncio"
    names = ["uvicorn", "httptools", *filter(None, [setup.engine])]  # an engine has the name of its package, if any
    found = {"event loop": loop, **{name: versions.get(name, "none") for name in names}}
    release = ".".join(versions.get(_OURS, "").split(".")[:2])  # the server and the load generator change with it
    return found if kind is SystemKind.APP or not release else {_OURS: release, **found}


_COMMIT = re.compile(r"\(([0-9a-f]{7,40})\)$")


def commit_in(name: str) -> str:
    """The commit at the end of an entry's name, for files that do not hold it apart; empty if files were changed."""
    found = _COMMIT.search(name)
    return found[1] if found else ""


def _unchanged(commit: str | None) -> str:
    return "" if commit is None or commit.endswith("+") else commit


def _dated(date: str, commit: str | None) -> str:
    return f"{date} ({commit})" if commit else date
