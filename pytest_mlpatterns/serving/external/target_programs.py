"""The programs of an ``App`` or ``Command``: command line, environment and working directory."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import DeploymentError, missing_extra
from pytest_mlpatterns.serving.external import asgi_server as asgi
from pytest_mlpatterns.serving.external.programs import SOCKET, Program
from pytest_mlpatterns.serving.targets import App, Command
from pytest_mlpatterns.system.import_redirect import map_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.serving.engine import StartOptions

__all__ = ["programs_of"]

_UVICORN = ("{python}", "-P", "-c", "from pytest_mlpatterns.serving.external.asgi_server import main; main()", SOCKET)
_GRANIAN = (
    *("{python}", "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}"),
    *("--log-level", "warning", "--no-access-log", "--factory", "pytest_mlpatterns.serving.external.asgi_server:load"),
)


def programs_of(target: App | Command, options: StartOptions) -> list[Program]:
    """The programs to start for a target.

    Args:
        target: what is started.
        options: directories, and the trees of a comparison with a revision.

    Raises:
        DeploymentError: a package or the working directory is missing.
    """
    return _app_programs(target, options) if isinstance(target, App) else [_command_program(target, options)]


def _command_program(target: Command, options: StartOptions) -> Program:
    words: Sequence[str] = target.words
    if options.trees is not None:  # paths into the user's tree become paths into the worktree
        exists = [os.path.isabs(word) and os.path.exists(word) for word in words]
        words = [map_path(word, *options.trees) if found else word for word, found in zip(words, exists, strict=True)]
    return _program(target, words, target.env, cwd=_directory(target, options), options=options)


def _app_programs(target: App, options: StartOptions) -> list[Program]:
    cwd = _directory(target, options)
    import_path = [str(cwd), *sys.path]
    described = asgi.description_of(
        target.app,
        factory=target.factory,
        import_path=import_path,
        trees=options.trees,
        profiled=options.profiled,
    )
    env = {**target.env, asgi.VARIABLE: described}
    if target.server == "uvicorn":
        return [_program(target, _UVICORN, env, cwd=cwd, options=options) for _ in range(target.workers)]
    if importlib.util.find_spec("granian") is None:
        raise DeploymentError(missing_extra(str(target), "granian", "granian"))
    if target.balance == "shared-socket":
        return [_program(target, [*_GRANIAN, "--workers", str(target.workers)], env, cwd=cwd, options=options)]
    return [_program(target, _GRANIAN, env, cwd=cwd, options=options) for _ in range(target.workers)]


def _directory(target: App | Command, options: StartOptions) -> Path:
    cwd = options.root / (target.cwd or "")
    if options.trees is not None:
        cwd = Path(map_path(str(cwd), *options.trees))
    if not cwd.is_dir():
        raise DeploymentError(f"{target}: {cwd} does not exist, expected the working directory; correct cwd=")
    return cwd


def _program(
    target: App | Command, words: Sequence[str], env: Mapping[str, str], *, cwd: Path, options: StartOptions
) -> Program:
    env = dict(env)
    if options.trees is not None and "PYTHONPATH" in env:
        given = [map_path(entry, *options.trees) for entry in env["PYTHONPATH"].split(os.pathsep)]
        env["PYTHONPATH"] = os.pathsep.join([*given, *filter(None, [os.environ.get("PYTHONPATH")])])
    commands = [
        str(Path(sys.executable).parent),
        *filter(None, [os.environ.get("PATH")]),
    ]  # as in an activated environment
    env.setdefault("PATH", os.pathsep.join(commands))
    log = options.directory / f"server-{time.perf_counter_ns():x}.log"
    words = tuple(word.replace("{python}", sys.executable) for word in words)
    return Program(words, env, cwd, log, profiled=options.profiled)
