"""What the two ends of a reference side say to each other: values that cross the pipe.

The parent sends one :class:`ReferenceJob`; the child answers :class:`RevisionSetup`, or :class:`RevisionFailed` once
and for all.
Then the parent sends :class:`StartDeployment` and :class:`StopDeployment` in turn, and the child answers
:class:`DeploymentStarted` and
:class:`DeploymentStopped`, or that it has :class:`RevisionFailed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_mlpatterns.records.setup import Setup
    from pytest_mlpatterns.workload.endpoint import Endpoint
    from pytest_mlpatterns.workload.payload import Payload

__all__ = [
    "DeploymentStarted",
    "DeploymentStopped",
    "InheritedOptions",
    "Reason",
    "ReferenceJob",
    "RevisionFailed",
    "RevisionSetup",
    "StartDeployment",
    "StopDeployment",
]


@dataclass(frozen=True, slots=True)
class InheritedOptions:
    """What of the user's run of pytest holds at the other revision too.

    ``options`` are words of the command line, ``values`` those of the options that conftest files add, by their
    destination. ``import_path`` is ``sys.path``, all of it absolute: ``python -m pytest`` adds to it.
    """

    options: tuple[str, ...]
    values: Mapping[str, object]
    import_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReferenceJob:
    """Which test, in which tree; ``present_top`` and ``reference_top`` are the tops of both working trees."""

    test: str
    directory: Path
    present_top: Path
    reference_top: Path
    handed_on: InheritedOptions


@dataclass(frozen=True, slots=True)
class RevisionSetup:
    """What the test measures there, and what is sent; ``payload`` has no inputs where their bodies tell everything."""

    setup: Setup
    payload: Payload


@dataclass(frozen=True, slots=True)
class StartDeployment:
    """Start the deployment."""


@dataclass(frozen=True, slots=True)
class StopDeployment:
    """Stop the deployment."""


@dataclass(frozen=True, slots=True)
class DeploymentStarted:
    """A deployment runs."""

    endpoint: Endpoint
    pids: tuple[int, ...]
    cold_start_ns: int | None


@dataclass(frozen=True, slots=True)
class DeploymentStopped:
    """The deployment is gone."""


class Reason(Enum):
    """Why there is nothing to compare with."""

    ABSENT = "does not exist"
    FAILED = "fails"
    WRONG = "is not itself"


@dataclass(frozen=True, slots=True)
class RevisionFailed:
    """This revision gives no deployment of the test."""

    reason: Reason
    text: str
