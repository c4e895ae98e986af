"""This process as a fresh Python in another directory would be, for as long as a run of pytest takes there.

What the run imports from that directory is forgotten at its end; what it imports of installed packages stays, as some
of them load only once in a process.
"""

import contextlib
import functools
import gc
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

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
        _known_plugins(),
        _small_heap(),
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
    """Modules of the suite are out of the way; those of the directory, and of others beside it, are forgotten."""
    modules, path, finders = dict(sys.modules), list(sys.path), list(sys.meta_path)
    writes_none = sys.dont_write_bytecode
    for name in _modules_in(_SUITE, modules):
        del sys.modules[name]
    sys.path[:] = [str(directory), *(entry for entry in path if entry and not Path(entry).is_relative_to(_SUITE))]
    sys.dont_write_bytecode = True  # a file that is rewritten within a second would not be compiled again
    importlib.invalidate_caches()
    try:
        yield
    finally:
        new = {name: module for name, module in sys.modules.items() if modules.get(name) is not module}
        for name in _modules_in(directory.parent, new):
            del sys.modules[name]
        sys.modules.update(modules)
        sys.path[:], sys.meta_path[:] = path, finders
        sys.dont_write_bytecode = writes_none


def _modules_in(directory: Path, modules: Mapping[str, ModuleType]) -> list[str]:
    """Names of the modules whose files, or whose packages, lie in a directory."""
    within = f"{directory}{os.sep}"
    return [
        name for name, module in modules.items() if any(str(place).startswith(within) for place in _places_of(module))
    ]


def _places_of(module: ModuleType) -> Iterable[str]:
    file = getattr(module, "__file__", None)
    return getattr(module, "__path__", ()) if file is None else (file,)


@contextlib.contextmanager
def _known_plugins() -> Iterator[None]:
    """What is installed beside pytest is read once for all runs: to look for plugins takes a third of a short run."""
    with contextlib.ExitStack() as patches:
        for name in ("entry_points", "files", "metadata"):
            patches.enter_context(mock.patch.object(Distribution, name, property(_read_once(name))))
        yield


@functools.cache
def _read_once(name: str) -> Callable[[Distribution], Any]:
    read, known = getattr(Distribution, name).fget, {}

    def value(distribution: Distribution) -> Any:
        place = str(distribution._path) if isinstance(distribution, PathDistribution) else ""  # type: ignore[attr-defined]
        if not place.startswith(sys.prefix + os.sep):  # a test may install another version in the same place
            return read(distribution)
        if place not in known:
            known[place] = read(distribution)
        return known[place]

    return value


@contextlib.contextmanager
def _default_warnings() -> Iterator[None]:
    """The filters that Python begins with, in place of those that make an error of every warning of the suite."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def _small_heap() -> Iterator[None]:
    """pytest collects garbage ten times a run; to search what the suite holds would take longer than a short run."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
