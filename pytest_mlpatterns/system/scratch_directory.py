"""The temporary directory of a run; the next run removes the directories and processes that killed runs left.

A process outlives a killed run only if it could not notice the end, for example because it was stopped (SIGSTOP).
"""

import contextlib
import fcntl
import os
import tempfile
import time
from pathlib import Path

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system import orphans
from pytest_mlpatterns.system.owned_files import NotOwnedError, owned_directory, remove_tree

_PREFIX = "pytest-mlpatterns-"
_LOCK = "in-use"
"""File that is locked while the run lasts. The kernel releases the lock when its process ends, in any way."""
_NEW = "new-"  # Beginning of the name of a directory that is not locked yet
_NEW_S = 60.0  # Age at which a directory that is still not locked belongs to a run that was killed meanwhile


class ScratchDirectory:
    """A new temporary directory, in the system's place by default; directories of runs that have ended are removed."""

    def __init__(self, base: Path | None = None, prefix: str = _PREFIX) -> None:
        base = base or Path(tempfile.gettempdir())
        for left in (*base.glob(f"{prefix}*"), *base.glob(f"{_NEW}{prefix}*")):
            _remove_if_unused(left)
        new = Path(tempfile.mkdtemp(prefix=f"{_NEW}{prefix}", dir=base))
        try:
            with owned_directory(new) as directory:
                self._lock = directory.open(_LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                name = new.name.removeprefix(_NEW)
                self.path: Path = directory.rename(name).path  # locked before another run can find it
        except NotOwnedError as error:
            raise SettingError(
                f"{error.filename} is new, and {(error.strerror or 'It is of another kind').replace('It ', 'it ', 1)}, "
                f"expected user {os.geteuid()}: the file system of {base} changes owners, as NFS with root_squash and "
                "CIFS do; set TMPDIR to a directory on a local disk"
            ) from None

    def remove(self) -> None:
        """Remove the directory and everything in it. Safe to call twice."""
        with contextlib.suppress(OSError):
            remove_tree(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _remove_if_unused(path: Path) -> None:
    """Remove the directory of a run that has ended; a link, and one of another user, is left alone."""
    with contextlib.suppress(OSError), owned_directory(path) as directory:  # of another version, in use, removed
        if path.name.startswith(_NEW):
            if time.time() - os.fstat(directory.descriptor).st_mtime > _NEW_S:
                directory.remove()
            return
        lock = directory.open(_LOCK, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left = orphans.of_runs_in(str(path))
            orphans.terminate(left)
            orphans.end_remaining(lambda: orphans.of_runs_in(str(path)), orphans.GRACE_S if left else 0.0)
            directory.remove()
        finally:
            os.close(lock)
