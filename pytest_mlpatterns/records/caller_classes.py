"""Classes of callers of a mix, as launches and results keep them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.records.latency import RequestCounts

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ClassRecord", "ClassRequests", "read_counts"]


@dataclass(frozen=True, slots=True)
class ClassRequests:
    """The requests of one class of callers in a launch.

    Attributes:
        name: of the class.
        load: its schedule, as records name it.
        first: index of its first prepared request.
        end: index after its last one.
        closed: whether its callers wait for their answers.
        rate_rps: of an open loop whose mean rate does not change; None for other loads.
    """

    name: str
    load: str
    first: int
    end: int
    closed: bool
    rate_rps: float | None = None


@dataclass(frozen=True, slots=True)
class ClassRecord:
    """One class of callers in a result.

    Attributes:
        name: of the class.
        load: its schedule.
        counts: requests, failures and latencies of each launch.
    """

    name: str
    load: str
    counts: tuple[RequestCounts, ...]

    @property
    def requests(self) -> int:
        """Requests that were due in the windows of all launches."""
        return sum(launch.requests for launch in self.counts)

    @property
    def failed(self) -> int:
        """Those of them that failed."""
        return sum(launch.failed for launch in self.counts)

    def to_json(self) -> dict[str, Any]:
        """The same as dictionaries, lists, text and numbers."""
        return {"requests": self.requests, "failed": self.failed, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClassRecord:
        """The inverse of :meth:`to_json`, also after a trip through JSON."""
        return cls(data["name"], data["load"], tuple(map(read_counts, data["counts"])))


def read_counts(data: Mapping[str, Any]) -> RequestCounts:
    """The counts of a launch from JSON, whose keys are text."""
    return RequestCounts(**{**data, "latencies": {int(ns): count for ns, count in data["latencies"].items()}})
