"""What the baseline file holds for one test: an entry with its anchor and calibration, and an update of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.setup import SystemKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.records.launch import LaunchValue
    from pytest_mlpatterns.records.result import Percentiles
    from pytest_mlpatterns.records.setup import Setup
    from pytest_mlpatterns.records.verdict import Verdict

__all__ = ["Anchor", "Baselines", "Calibration", "Entry", "Update"]

_ANCHORED = ("rtm", "throughput")


@dataclass(frozen=True, slots=True)
class Calibration:
    """How fast a machine is: CPU time of a fixed workload, which version of the workload, and how many cores."""

    ns: float
    cores: int
    workload: int


@dataclass(frozen=True, slots=True)
class Anchor:
    """An earlier entry of the test, since which every update changed little: RTM and throughput, and where it was."""

    metrics: Mapping[str, tuple[LaunchValue, ...]]
    commit: str | None
    date: str

    @property
    def recorded_at(self) -> str:
        """Date and commit, ``2026-01-31 (1a2b3c4)``."""
        return _dated(self.date, self.commit)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one test gave on one machine: set-up, every metric launch by launch, and where it came from.

    ``latency`` is the shape of its distribution, for pictures; entries of before there was one have none.
    """

    setup: Setup
    metrics: Mapping[str, tuple[LaunchValue, ...]]
    versions: Mapping[str, str]
    commit: str | None
    date: str
    calibration: Calibration | None = None
    anchor: Anchor | None = None
    latency: Percentiles = ()

    @property
    def recorded_at(self) -> str:
        """Date and commit, ``2026-01-31 (1a2b3c4)``."""
        return _dated(self.date, self.commit)

    @property
    def anchored(self) -> Anchor:
        """What slow drift is told against; an entry that no update has followed is its own."""
        if self.anchor is not None:
            return self.anchor
        metrics = {name: self.metrics[name] for name in _ANCHORED if name in self.metrics}
        return Anchor(metrics, self.commit, self.date)

    def differences(self, setup: Setup, versions: Mapping[str, str]) -> tuple[str, ...]:
        """Why this entry says nothing about a test: what differs, as ``load: closed(8) → closed(16)``.

        Args:
            setup: what the test measures.
            versions: of the packages that are installed; those that serve count, others do not.
        """
        then, now = _serving(self.setup, self.versions), _serving(setup, versions)
        served = [f"{name}: {then[name]} → {now[name]}" for name in then if name in now and then[name] != now[name]]
        return (*setup.differences(self.setup), *served)


Baselines = dict[str, dict[str, Entry]]
"""Test id → machine → entry."""


@dataclass(frozen=True, slots=True)
class Update:
    """One entry that is written: what stood there before, if anything, and how the new one compares with it.

    ``differences`` says why the two are not comparable; ``worse`` are the verdicts on metrics that are worse than
    before beyond the test's tolerance.
    """

    test: str
    before: Entry | None
    after: Entry
    differences: tuple[str, ...] = ()
    worse: tuple[Verdict, ...] = ()


def _serving(setup: Setup, versions: Mapping[str, str]) -> dict[str, str]:
    """What serves a model and shapes its figures, by name; nothing of it where the service runs without us."""
    if setup.pattern.kind is SystemKind.URL:
        return {}
    loop = f"uvloop {versions['uvloop']}" if "uvloop" in versions else "asyncio"
    return {"event loop": loop, **{name: versions.get(name, "none") for name in ("uvicorn", "httptools")}}


def _dated(date: str, commit: str | None) -> str:
    return f"{date} ({commit})" if commit else date
