"""Messages between the client and the server of a revision.

The client sends one :class:`ReferenceJob`. The server answers :class:`RevisionSetup`, or :class:`RevisionFailed` and
ends. Then the client sends :class:`StartDeployment` and :attr:`Question.STOP` in turn, and the server answers
:class:`DeploymentStarted` and the question, or :class:`RevisionFailed`. Between these two the client asks the other
questions, as often as it likes; the server answers with the value, or :class:`DeploymentFailed`, and goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.records.count import RunUnder
from pytest_mlpatterns.records.samples import Traced
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.records.verdict import Acceptance

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mlpatterns.serving.deployment import Traits
    from pytest_mlpatterns.workload.endpoint import Endpoint
    from pytest_mlpatterns.workload.payload import Payload


class InheritedOptions(Struct, frozen=True):
    """Options of the user's pytest run that the run at the other revision uses too."""

    options: tuple[str, ...]
    values: Mapping[str, object]  # values of the options that conftest files add, by destination
    import_path: tuple[str, ...]  # ``sys.path`` with absolute paths, because ``python -m pytest`` adds to it
    # folders of the revision's project, if the process has an environment of its own; its own ``sys.path`` then
    # follows ``import_path``. None if it has not
    project_paths: tuple[str, ...] | None = None
    # ``PYTHONPATH`` in place of the one of the process that starts it; None to leave that
    python_path: str | None = None


class ReferenceJob(Struct, frozen=True):
    """One test in one tree."""

    test: str
    directory: Path
    present_top: Path
    reference_top: Path
    inherited_options: InheritedOptions


class RevisionSetup(Struct, frozen=True):
    """What the test measures at the revision."""

    setup: Setup  # pattern, load and other facts, to compare with the working tree's
    payload: Payload  # what is sent; without inputs if their encoded bodies are enough
    accept: tuple[Acceptance, ...] = ()  # what the marker of the test accepts there


class StartDeployment(Struct, frozen=True):
    """Start the deployment."""

    profiled: bool = False
    traced: Traced = ""
    under: RunUnder | None = None
    timeout_ns: int | None = None  # start-up time limit; None for the test's


class DeploymentStarted(Struct, frozen=True):
    """A deployment runs and is ready."""

    endpoint: Endpoint
    pids: tuple[int, ...]  # its processes, without their children
    traits: Traits  # what else is known of it, as far as another process can know that


class Question(Enum):
    """What the client asks for a deployment."""

    STOP = "its end"
    STATS = "its statistics since its start, a PatternStats"
    FACTS = "the environment of its processes, or if none runs, of the server, a dictionary"


class DeploymentFailed(Struct, frozen=True):
    """The deployment cannot answer, because one of its processes has ended or does not respond."""

    text: str


Wanted = StartDeployment | Question  # What the client sends after the job


class Reason(Enum):
    """Why a revision has no deployment of the test."""

    ABSENT = "does not exist"
    FAILED = "fails"
    WRONG = "loads code of another tree"


class RevisionFailed(Struct, frozen=True):
    """The revision has no deployment of the test."""

    reason: Reason
    text: str
    retry: bool | None = None  # as of the :class:`DeploymentError` of its start
