"""A process that serves a user's ASGI application: imports it as the test file is imported, and runs uvicorn.

The application comes from the environment, so that granian's own processes find it too (:func:`load`). What it prints,
and why it cannot be imported, goes to standard error. This module must not know tests or load.
"""

from __future__ import annotations

import json
import os
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VARIABLE", "description_of", "load", "main"]

VARIABLE = "PYTEST_MLPATTERNS_APP"
_NOT_STARTED = 3
"""What uvicorn's own command exits with where the application's start-up fails."""
_GRACE_S = 3


def description_of(app: str, *, factory: bool, import_path: Sequence[str], trees: tuple[Path, Path] | None) -> str:
    """What :data:`VARIABLE` holds.

    Args:
        app: import string.
        factory: it names a function that makes the application.
        import_path: ``sys.path`` of the process.
        trees: as :class:`pytest_mlpatterns.serving.local.messages.WorkerJob` takes them.
    """
    tops = None if trees is None else [str(top) for top in trees]
    return json.dumps({"app": app, "factory": factory, "import_path": list(import_path), "trees": tops})


def load() -> Any:
    """The application that the environment describes. What the user's code raises is raised."""
    job = json.loads(os.environ[VARIABLE])
    sys.path[:] = job["import_path"]
    trees = None if job["trees"] is None else (Path(job["trees"][0]), Path(job["trees"][1]))
    if trees is not None:
        from pytest_mlpatterns.system.import_redirect import install

        install(*trees)
    found: Any = pkgutil.resolve_name(job["app"])
    app = found() if job["factory"] else found
    if trees is not None:
        from pytest_mlpatterns.system.import_redirect import modules_from, wrong_tree

        if strays := modules_from(*trees):
            raise wrong_tree(strays, *trees)
    return app


def main() -> None:
    """Serve on an inherited listening socket, whose descriptor is the one argument, until SIGTERM."""
    import uvicorn

    from pytest_mlpatterns.system.sockets import BACKLOG, inherited_socket

    config = uvicorn.Config(
        load(), access_log=False, log_level="warning", backlog=BACKLOG, timeout_graceful_shutdown=_GRACE_S
    )
    server = uvicorn.Server(config)
    server.run(sockets=[inherited_socket(int(sys.argv[1]))])
    if not server.started:
        raise SystemExit(_NOT_STARTED)
