"""The Ray driver: a child process that is connected to a cluster, and calls functions there for its parent.

Every call runs in a thread of its own. When the parent ends, also by a crash, this process ends in good order: it
removes its applications, and ends a cluster that it started. If it is not connected yet, it ends what it has started
until then, at once. The module loads without Ray; connecting imports it.
"""

import os
import threading
import time
import traceback
from dataclasses import replace
from importlib import import_module
from operator import attrgetter
from typing import Any

from pytest_mlpatterns.engines.ray.messages import Call, DriverFailed, Leave, Raised, RayJob, Returned
from pytest_mlpatterns.errors import DeploymentError, MlpatternsError
from pytest_mlpatterns.system import orphans
from pytest_mlpatterns.system.child import Channel
from pytest_mlpatterns.system.scratch_directory import ScratchDirectory

_CLUSTER = "pytest_mlpatterns.engines.ray.remote.cluster"
_END_S = 20.0  # Time limit for removing applications, and ending a cluster, after the parent is gone
_REMOVE_S = 10.0  # Time in which processes of Ray that are about to end may write files among those that are removed
_AGAIN_S = 0.1  # Time between two attempts
_PREFIX = "mlp-"  # Beginning of the names of the directories, which is short as Ray's sockets need it


def main() -> None:
    """The child process."""
    serve_calls(_CLUSTER)


def serve_calls(cluster: str) -> None:
    """Connect, and serve the parent's calls until it closes the channel.

    ``cluster``: module whose ``connect(job)`` returns a connection with ``ready`` and ``leave()``. If the job names no
    cluster, ``job.temporary`` is a new directory for the one that it starts.
    """
    channel = Channel()
    job: RayJob = channel.receive()
    _Driver(channel).run(job, cluster)


class _Driver:
    """The state of the process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._connected = threading.Event()
        self._leaving = threading.Event()
        self._left = threading.Event()
        self._removing = threading.Lock()
        self._scratch: ScratchDirectory | None = None

    def run(self, job: RayJob, cluster: str) -> None:
        if job.address is None:
            self._scratch = ScratchDirectory(job.temporary, _PREFIX)
            job = replace(job, temporary=self._scratch.path)
        self._channel.listen(self._take, self._end)
        connection = None
        try:
            connection = self._connect(job, cluster)
            if connection is not None:
                self._connected.set()
                self._channel.send(connection.ready)
                self._leaving.wait()  # the handler of SIGTERM, which Ray installs, raises SystemExit here
        finally:
            try:
                if connection is not None:
                    connection.leave()
            finally:
                self._remove_files()
                self._left.set()

    def _connect(self, job: RayJob, cluster: str) -> Any:
        """The connection of :func:`serve_calls`; None if there is none."""
        try:
            return import_module(cluster).connect(job)
        except MlpatternsError as error:
            self._channel.send(DriverFailed(error))
        except Exception:  # Ray documents no list of its errors; the parent shows it
            self._channel.send(DriverFailed(DeploymentError(f"{job.subject}:\n{traceback.format_exc()}")))
        return None

    def _take(self, message: object) -> None:
        if isinstance(message, Call):
            name = f"call {message.number}"
            threading.Thread(target=self._answer, args=(message,), name=name, daemon=True).start()
        elif isinstance(message, Leave):
            self._leaving.set()

    def _answer(self, call: Call) -> None:
        try:
            module, _, function = call.function.partition(":")
            answer: object = Returned(call.number, attrgetter(function)(import_module(module))(*call.arguments))
        except MlpatternsError as error:
            answer = Raised(call.number, error)
        except BaseException:  # also SystemExit: the parent waits for an answer
            answer = Raised(call.number, None, traceback.format_exc())
        try:
            self._channel.send(answer)
        except Exception:  # a value that cannot be pickled
            self._channel.send(Raised(call.number, None, traceback.format_exc()))

    def _end(self) -> None:
        """The parent is gone: wait for the main thread, which removes what is ours, if it can do so by now."""
        self._leaving.set()
        if not self._left.wait(_END_S if self._connected.is_set() else 0.0):
            self._abandon()

    def _abandon(self) -> None:
        """End this process and all that descend from it, which keep nothing, and remove their files.

        Some of Ray's processes overwrite their environment with their title, so only their parent finds them.
        """
        orphans.adopt_orphans()
        known = orphans.below(os.getpid())
        orphans.end_remaining(lambda: orphans.alive(known) | orphans.below(os.getpid()), 0.0)
        self._remove_files()
        os._exit(1)  # the main thread would go on to start processes, and to make files

    def _remove_files(self) -> None:
        with self._removing:
            if self._scratch is None:
                return
            self._scratch.remove()
            until_s = time.monotonic() + _REMOVE_S
            while self._scratch.path.exists() and time.monotonic() < until_s:
                time.sleep(_AGAIN_S)
                self._scratch.remove()
