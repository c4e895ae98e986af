"""A run on a Ray cluster: the names of the run and of its applications, and the files of its runtime environment.

A run is ``mlpatterns-<seconds since 1970>-<8 hexadecimal digits>``. All its names begin so, and no others are ever
touched. A driver that joins a run has a longer name of its own within it.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pytest_mlpatterns.system.import_redirect import Stray

_RUN = re.compile(r"(mlpatterns-(\d{9,11})-[0-9a-f]{8})(?:-[0-9a-z-]+)?")
_FILES = ("pip", "uv", "conda")  # Fields that may be the path of a file, or something else


def new_run(now_s: float) -> str:
    """A name for a run that begins now, in seconds since 1970."""
    return f"mlpatterns-{int(now_s)}-{secrets.token_hex(4)}"


def part_of(run: str) -> str:
    """A name for a driver that joins a run."""
    return f"{run}-{secrets.token_hex(2)}"


def base_of(run: str) -> str:
    """The run that a driver belongs to, by its own name or by that of one of its applications."""
    if (found := _RUN.fullmatch(run)) is None:
        raise ValueError(f"{run!r} is no name of a run")
    return found[1]


def belongs_to(name: str, run: str) -> bool:
    """Whether an application belongs to this run, or to this part of one."""
    return name.startswith(f"{run}-")


def age_of(run: str, now_s: float) -> float:
    """Seconds since a run began, by its name."""
    found = _RUN.fullmatch(run)
    return 0.0 if found is None else max(0.0, now_s - int(found[2]))


def applications_by_run(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of applications that are ours, by the run that they belong to; all others are left out."""
    found: dict[str, list[str]] = {}
    for name in names:
        if (match := _RUN.fullmatch(name)) is not None and match[1] != name:
            found.setdefault(match[1], []).append(name)
    return found


def removed_note(run: str, applications: int, now_s: float) -> str:
    """The note on a killed run whose applications were removed."""
    age_s = age_of(run, now_s)
    value, unit = next(
        (age_s / size, unit)
        for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
        if age_s >= size or size == 1
    )
    what = count(applications, "application")
    verb = "was" if applications == 1 else "were"
    return f"{what} of a run that began {value:.0f} {unit} ago and was killed {verb} removed from the Ray cluster"


def brings_code(runtime_env: Mapping[str, Any]) -> bool:
    """Whether the nodes get code of the project by it."""
    return bool(runtime_env.get("working_dir") or runtime_env.get("py_modules"))


def with_absolute_paths(runtime_env: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The same with absolute paths. ``root``: directory to which its paths are relative."""
    found = dict(runtime_env)
    if isinstance(directory := found.get("working_dir"), str):
        found["working_dir"] = _absolute(directory, root)
    if isinstance(modules := found.get("py_modules"), list | tuple):
        found["py_modules"] = [_absolute(one, root) if isinstance(one, str) else one for one in modules]
    for name in _FILES:
        if isinstance(file := found.get(name), str) and (root / file).is_file():
            found[name] = str(root / file)
    return found


def _absolute(path: str, root: Path) -> str:
    return path if "://" in path else str((root / path).resolve())


def not_sent(stray: Stray) -> DeploymentError:
    """The error for a module of the present tree on a machine to which the reference tree was not sent."""
    return DeploymentError(
        f"the reference side loaded {stray.name} from the present tree, {stray.file}, on a node without the code of "
        'the revision; send it with the replicas: perf_ray_runtime_env = {"working_dir": "."}'
    )
