"""This process as a fresh Python in another directory would be, for as long as a run of pytest takes there.

What the run imports from that directory is forgotten at its end; what it imports of installed packages stays, as some
of them load only once in a process.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

__all__ = ["run_pytest"]

_SUITE = Path(__file__).resolve().parents[1]


def run_pytest(directory: Path, arguments: list[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """The exit code, standard output and standard error of ``python -m pytest`` in a directory."""
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="", write_through=True) for _ in range(2))
    with (
        _environment(environment),
        contextlib.chdir(directory),
        _import_state(directory.resolve()),
        _default_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch("sys.__stdout__", out),
    ):
        code = pytest.main(arguments)
    return int(code), *(stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]


@contextlib.contextmanager
def _environment(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    _replace(environment)
    try:
        yield
    finally:
        _replace(before)


def _replace(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


@contextlib.contextmanager
def _import_state(directory: Path) -> Iterator[None]:
    """Modules of the suite are out of the way, and those of the directory are forgotten afterwards."""
    modules, path, finders = dict(sys.modules), list(sys.path), list(sys.meta_path)
    writes_none = sys.dont_write_bytecode
    for name, module in modules.items():
        if _stands_in(_SUITE, module):
            del sys.modules[name]
    sys.path[:] = [str(directory), *(entry for entry in path if entry and not _is_in(_SUITE, entry))]
    sys.dont_write_bytecode = True  # a file that is rewritten within a second would not be compiled again
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for name in [name for name, module in sys.modules.items() if _stands_in(directory, module)]:
            del sys.modules[name]
        sys.modules.update(modules)
        sys.path[:], sys.meta_path[:] = path, finders
        sys.dont_write_bytecode = writes_none


def _stands_in(directory: Path, module: ModuleType) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place is not None and _is_in(directory, place) for place in places)


def _is_in(directory: Path, place: str) -> bool:
    return Path(place).is_relative_to(directory)


@contextlib.contextmanager
def _default_warnings() -> Iterator[None]:
    """The filters that Python begins with, in place of those that make an error of every warning of the suite."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        yield
