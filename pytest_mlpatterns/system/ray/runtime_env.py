"""Ray's runtime environment as a test names it: which paths in it are files of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["brings_code", "with_absolute_paths"]

_FILES = ("pip", "uv", "conda")
"""Fields that may be the path of a file, or something else."""


def brings_code(runtime_env: Mapping[str, Any]) -> bool:
    """Whether the nodes get code of the project by it."""
    return bool(runtime_env.get("working_dir") or runtime_env.get("py_modules"))


def with_absolute_paths(runtime_env: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The same with absolute paths.

    Args:
        runtime_env: Ray's runtime environment.
        root: directory to which its paths are relative.
    """
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
