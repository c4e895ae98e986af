"""The system's limit on the open files of a process, of which each connection needs one.

Windows has no module ``resource``, so it is imported where it is used: tests have to be collected there too.
"""

from __future__ import annotations

import contextlib

__all__ = ["allowed_connections", "raise_file_limit"]

_FILE_LIMITS = (1_048_576, 65_536, 10_240)
"""Soft limits to try where the hard limit is refused; the last is macOS's OPEN_MAX."""
_OTHER_FILES = 200
"""Open files of a process beside its connections: libraries, logs, pipes, and what a model opens."""


def raise_file_limit() -> None:
    """Raise the soft limit of this process to the highest that the system takes.

    macOS has no hard limit by default, and refuses a soft limit without end.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, *_FILE_LIMITS):
        if _above(wanted, soft):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return


def allowed_connections() -> int | None:
    """Largest number of connections of a child process that raises its limit; None without a hard limit."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else max(hard - _OTHER_FILES, 0)


def _above(wanted: int, soft: int) -> bool:
    """Whether a limit is higher than the present one."""
    import resource

    infinity = resource.RLIM_INFINITY
    return soft != infinity and (wanted == infinity or wanted > soft)
