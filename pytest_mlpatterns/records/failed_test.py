"""A perf test that failed, as plain values that travel to the process that writes the files.

A test that fails before anything is measured has no result; this stands for it in the reports.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.records.kind import Gate, Kind
from pytest_mlpatterns.records.result import Location

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FailedTest"]


@dataclass(frozen=True, slots=True)
class FailedTest:
    """A perf test that failed, or would have without ``--perf-gate warn``, with or without a measurement.

    Attributes:
        test: its id.
        reason: why, in a few lines.
        location: where it is defined.
        kind: of the failure.
        gate: ``warn`` if the test passed although its verdict failed.
        group: its id without its pattern.
        pattern: under which it ran, as text.
        text: the whole message of a verdict that did not fail the test, which pytest does not show then.
    """

    test: str
    reason: str
    location: Location | None
    kind: Kind = Kind.TEST_ERROR
    gate: Gate = Gate.FAIL
    group: str = ""
    pattern: str = ""
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same as dictionaries and plain text; execnet accepts no subclass of it."""
        return {**asdict(self), "kind": self.kind.value, "gate": self.gate.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FailedTest:
        """The inverse of :meth:`to_json`."""
        location = None if data["location"] is None else Location(**data["location"])
        return cls(**{**data, "location": location, "kind": Kind(data["kind"]), "gate": Gate(data["gate"])})
