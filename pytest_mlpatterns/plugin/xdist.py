"""A distributed run (pytest-xdist): what its controller and workers send each other, and the lock between their tests.

The lock consists of two file locks, which the kernel releases when a process dies, so that a crashed worker blocks no
other. A test passes the gate to enter the room. A perf test holds the gate while it waits for the room to empty, so
that a stream of ordinary tests cannot starve it. They are POSIX record locks because a forked child does not inherit
those, unlike ``flock``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import Struct

from pytest_mlpatterns.records.package_layers import describe_layer_kind, own_layer_kinds
from pytest_mlpatterns.records.result import FailedTest
from pytest_mlpatterns.system.files import replace_file
from pytest_mlpatterns.wording import visible

if TYPE_CHECKING:
    from pytest_mlpatterns.baseline.session import BaselineSession
    from pytest_mlpatterns.revision.worktree import Worktree

_INPUT = "mlpatterns_input"
_USAGE_ERROR = "mlpatterns_usage_error"
_BASELINE = "mlpatterns_baseline"
_LAYER_KINDS = "mlpatterns_layer_kinds"
_SELECTED = "selected-"  # Begins the names of the files with the perf tests of a worker


class WorkerInput(Struct, frozen=True):
    """What the controller sends to each worker; nothing if it has not loaded this plugin."""

    lock_directory: Path | None = None  # directory of the machine lock
    ascii_only: bool | None = None  # whether the controller's terminal shows ASCII only
    worktree: Worktree | None = None  # of the revision that is compared with; None without one

    @classmethod
    def of(cls, config: pytest.Config) -> WorkerInput | None:
        """What this process was sent; None in the controller and in a serial run."""
        if (values := getattr(config, "workerinput", None)) is None:
            return None
        found: WorkerInput = pickle.loads(values[_INPUT]) if _INPUT in values else cls()  # noqa: S301 - from the controller
        return found


def report_usage_error(config: pytest.Config, text: str) -> None:
    """In a worker: send a usage error to the controller, the only process that can end the run with one line."""
    config.workeroutput[_USAGE_ERROR] = text  # type: ignore[attr-defined]  # pytest-xdist's


def report_end(config: pytest.Config, baseline: BaselineSession) -> None:
    """In a worker: send what it learned about the baseline file to the controller, which writes the file.

    The controller may not import the classes of the project's own patterns, so their descriptions are sent too.
    """
    output: dict[str, Any] = config.workeroutput  # type: ignore[attr-defined]  # pytest-xdist's
    output |= {_BASELINE: baseline.to_json(), _LAYER_KINDS: pickle.dumps(own_layer_kinds())}


class ControllerHooks:
    """The controller's hooks; pytest calls them in a distributed run only."""

    def __init__(self, worker_input: WorkerInput, baseline: BaselineSession) -> None:
        self._worker_input = worker_input
        self._baseline = baseline
        self._collected: set[str] = set()
        self._ended: set[str] = set()
        self._lost_one = False

    @property
    def is_cut(self) -> bool:
        """Whether a worker was lost with tests that no other one has run, or before the tests were known."""
        return self._lost_one and not (self._collected and self._collected <= self._ended)

    def selected(self) -> Sequence[str] | None:
        """The ids of the perf tests that the workers were to run; None if none has collected its tests."""
        directory = self._worker_input.lock_directory
        if not self._collected or directory is None:
            return None
        found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(directory.glob(f"{_SELECTED}*"))]
        return [*dict.fromkeys(test for tests in found for test in tests)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Note the tests of all workers."""
        self._collected.update(ids)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note each test that came to an end; a lost worker's has a report of its own."""
        self._ended.add(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Send a worker its input, before it starts."""
        node.workerinput[_INPUT] = pickle.dumps(self._worker_input)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take what a worker sent: a usage error ends the run. One that was lost sent nothing."""
        self._lost_one = self._lost_one or error is not None
        sent: Mapping[str, Any] = getattr(node, "workeroutput", {})
        if text := sent.get(_USAGE_ERROR):
            raise pytest.UsageError(visible(text))
        if found := sent.get(_BASELINE):
            self._baseline.merge(found)
        if described := sent.get(_LAYER_KINDS):
            for name, kind in pickle.loads(described).items():  # noqa: S301 - from a worker of this run
                describe_layer_kind(name, kind)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any) -> None:
        """Attach to the report of a test whose worker died the failure that the worker left, if it is a perf test."""
        directory = self._worker_input.lock_directory
        if directory is not None and (file := _word_of(directory, crashitem)).exists():
            report.perf_failure = json.loads(file.read_text(encoding="utf-8"))


class Spent(Struct, frozen=True):
    """What the tests of a run that have ended took together."""

    ns: int = 0
    tests: int = 0  # their number


class RunTime:
    """The time of a run, of which each perf test gets an equal part of what the tests before it have left.

    ``directory``: of the file by which workers, which take turns, share it; None in a serial run.
    """

    def __init__(self, limit_ns: int, directory: Path | None) -> None:
        self._limit_ns = limit_ns
        self._file = None if directory is None else directory / "time.json"
        self._known = Spent()

    def share_ns(self, tests: int) -> int:
        """What the next test may take. ``tests``: of the run in all."""
        spent = self._read()
        return max(self._limit_ns - spent.ns, 0) // max(tests - spent.tests, 1)

    def note(self, took_ns: int) -> None:
        """Note that a test has ended, and what it took."""
        before = self._read()
        self._known = known = Spent(before.ns + took_ns, before.tests + 1)
        if self._file is not None:
            replace_file(self._file, lambda: msgspec.json.encode(known).decode())

    def _read(self) -> Spent:
        if self._file is None or not self._file.exists():
            return self._known
        return msgspec.json.decode(self._file.read_bytes(), type=Spent)


class MachineLock:
    """A readers-writer lock; all processes that name the same directory share it."""

    def __init__(self, directory: Path) -> None:
        self._gate = os.open(directory / "gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._room = os.open(directory / "room", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._directory = directory

    @contextlib.contextmanager
    def held(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the lock; waits until it is free.

        ``exclusive``: exclude all other holders; otherwise only exclusive ones.
        """
        self._enter(exclusive=exclusive)
        try:
            yield
        finally:
            fcntl.lockf(self._room, fcntl.LOCK_UN)

    def leave_word(self, failure: FailedTest) -> None:
        """Leave word of the perf test that runs now, for the controller, in case this process dies with it."""
        _word_of(self._directory, failure.test).write_text(json.dumps(failure.to_json()), encoding="utf-8")

    def leave_selected(self, tests: Sequence[str]) -> None:
        """Leave word of the perf tests of this process, for the controller, in case it is lost."""
        replace_file(self._directory / f"{_SELECTED}{os.getpid()}", lambda: json.dumps(tests))

    def make_exclusive(self) -> None:
        """Exclude all other holders from now on; waits until they are gone. The lock is held already."""
        fcntl.lockf(self._room, fcntl.LOCK_UN)  # two holders that wait for each other to leave would wait for ever
        self._enter(exclusive=True)

    def _enter(self, *, exclusive: bool) -> None:
        fcntl.lockf(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.lockf(self._room, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        finally:
            fcntl.lockf(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file descriptors."""
        os.close(self._gate)
        os.close(self._room)


def _word_of(directory: Path, test: str) -> Path:
    """The file with the word on one test: one each, so that none reads what another worker is writing."""
    return directory / f"running-{hashlib.sha256(test.encode('utf-8', 'replace')).hexdigest()[:32]}"
