"""Process that serves a user's ASGI application with uvicorn, and the loader that granian uses.

An environment variable describes the application, because granian loads it in processes of its own (:func:`load`).
The application is imported with the import path of pytest. An import error goes to standard error.

This may run in another environment, which has neither this package nor what it requires: the standard library and
uvicorn are all that it imports.
"""

import json
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_mlpatterns.serving.import_string import meant_name
from pytest_mlpatterns.serving.tracebacks import user_traceback
from pytest_mlpatterns.system.loaded_packages import log_modules
from pytest_mlpatterns.system.process_limits import permit_tracer

VARIABLE = "PYTEST_MLPATTERNS_APP"  # Environment variable that describes the application
DIRECTORY = "PYTEST_MLPATTERNS_DIRECTORY"  # Environment variable that names the directory for lists of modules
_NOT_STARTED = 3  # Exit code of a failed start-up, the same as the uvicorn command's
_GRACE_S = 3  # Time that uvicorn gives open requests at its end, in seconds


def description_of(
    app: str, *, factory: bool, import_path: Sequence[str], trees: tuple[Path, Path] | None, profiled: bool, whole: bool
) -> str:
    """Value of the environment variable :data:`VARIABLE`.

    ``whole``: the import path is the process's; else the path of its own environment follows.
    """
    tops = None if trees is None else [str(top) for top in trees]
    found = {"app": app, "factory": factory, "import_path": list(import_path), "trees": tops, "profiled": profiled}
    return json.dumps({**found, "whole": whole})


def load() -> Any:
    """Load the application that :data:`VARIABLE` describes; if that fails, print why and end the process."""
    try:
        return _load()
    except Exception as error:  # any error of the user's code
        hint = meant_name(json.loads(os.environ[VARIABLE])["app"], error)
        sys.stderr.write(f"{user_traceback(error)}{hint and f'; {hint}'}\n")
        raise SystemExit(1) from None


def _load() -> Any:
    job = json.loads(os.environ[VARIABLE])
    if job["profiled"]:
        permit_tracer()  # granian's processes, which it starts itself
    sys.path[:] = [*job["import_path"], *(() if job["whole"] else sys.path)]
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
    log_modules(os.environ[DIRECTORY])
    return app


def main() -> None:
    """Serve until SIGTERM on the listening socket whose descriptor is the only argument."""
    import uvicorn

    from pytest_mlpatterns.system.sockets import BACKLOG, inherited_socket

    class Server(uvicorn.Server):
        modules = 0

        async def on_tick(self, counter: int) -> bool:  # ten times a second
            if self.modules != len(sys.modules):  # the application loads some with its first request
                self.modules = len(sys.modules)
                log_modules(os.environ[DIRECTORY])
            return await super().on_tick(counter)

    config = uvicorn.Config(
        load(), access_log=False, log_level="warning", workers=1, backlog=BACKLOG, timeout_graceful_shutdown=_GRACE_S
    )
    server = Server(config)
    server.run(sockets=[inherited_socket(int(sys.argv[1]))])
    if not server.started:
        raise SystemExit(_NOT_STARTED)
