"""Redirects imports of the project into another source tree: paths under one top map to the same paths under another.

A comparison with a git revision starts a fresh interpreter in the same environment. The import paths of that
interpreter lead into the present tree if the project is installed in place. :func:`install` redirects them into the
reference tree, and :func:`modules_from` finds modules that were loaded from the present tree nevertheless. Virtual
environments inside the project are not the project's code and are not redirected; neither is this package, which serves
both variants. Paths are compared with symbolic links resolved.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from pytest_mlpatterns.errors import DeploymentError

_OURS = __name__.partition(".")[0]


class Stray(NamedTuple):
    """A module that was loaded from the wrong tree, with its file or folder."""

    name: str
    file: str


def install(present_top: Path, reference_top: Path) -> list[str]:
    """Make this interpreter import the project from the reference tree; call it before the project is imported.

    Maps ``sys.path`` and the finders of editable installs, unloads modules that came from the present tree, and sets
    ``PYTHONPATH`` so that Python processes of the user's code do the same. A second call changes nothing; an
    interpreter serves one reference tree.
    """
    strays = [stray.name for stray in modules_from(present_top, reference_top)]
    for name in strays:
        del sys.modules[name]
    packages = remap_editable_finders(present_top, reference_top)
    before, sys.path[:] = list(sys.path), mapped_sys_path(sys.path, present_top, reference_top)
    if not any(isinstance(finder, _Redirect) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Redirect(_Trees(present_top, reference_top)))
    importlib.invalidate_caches()
    given = os.environ.get("PYTHONPATH")
    # A path with this package in it would make such a process load the reference's version of this package.
    entries = [
        *(new for new, old in zip(sys.path, before, strict=True) if new != old and not _contains_this_package(new)),
        *(folder for folder in packages if not _contains_this_package(folder)),
        *mapped_sys_path(given.split(os.pathsep) if given else [], present_top, reference_top),
    ]
    if entries:
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(entries))
    return strays


def map_path(entry: str, present_top: Path, reference_top: Path) -> str:
    """Map a path under the present tree to the reference tree; any other path is returned unchanged."""
    return _Trees(present_top, reference_top).mapped(entry)


def mapped_sys_path(sys_path: Sequence[str], present_top: Path, reference_top: Path) -> list[str]:
    """Map every entry of ``sys.path``; ``.pth`` files of editable installs add plain entries to it."""
    return _Trees(present_top, reference_top).all_mapped(sys_path)


def remap_editable_finders(present_top: Path, reference_top: Path) -> list[str]:
    """Redirect the finders of setuptools' editable installs in this process to the reference tree."""
    trees = _Trees(present_top, reference_top)
    folders: dict[str, None] = {}
    for finder in sys.meta_path:
        names = vars(sys.modules.get(getattr(finder, "__module__", ""), object))
        packages, namespaces = names.get("MAPPING"), names.get("NAMESPACES")
        if isinstance(packages, dict) and isinstance(namespaces, dict):
            for package, path in packages.items():
                packages[package] = mapped = trees.mapped(path)
                if mapped != path:
                    folders[os.path.normpath(os.path.join(mapped, *[os.pardir] * len(package.split("."))))] = None
            for namespace, paths in namespaces.items():
                namespaces[namespace] = trees.all_mapped(paths)
    return list(folders)


def modules_from(
    present_top: Path, reference_top: Path, modules: Mapping[str, ModuleType] | None = None
) -> list[Stray]:
    """Modules, of ``sys.modules`` if None, that were loaded from the present tree, in the order of their import."""
    trees = _Trees(present_top, reference_top)
    strays = []
    for name, module in list((sys.modules if modules is None else modules).items()):
        paths = () if _is_ours(name) else dict.fromkeys(_paths_of(module))
        stray = next((path for path in paths if trees.relative(path) is not None), None)
        if stray is not None:
            strays.append(Stray(name, stray))
    return strays


def wrong_tree(strays: Sequence[Stray], present_top: Path, reference_top: Path) -> DeploymentError:
    """The error for modules that were loaded from the present tree."""
    first, others = strays[0], [stray.name for stray in strays[1:]]
    more = f" (and {len(others)} more: {', '.join(others[:5])}{', …' if others[5:] else ''})" if others else ""
    return DeploymentError(
        f"the reference side loaded {first.name}{more} from the working tree, {first.file}, expected "
        f"{map_path(first.file, present_top, reference_top)}: import it by its package's name, or find it from "
        "__file__, not by an absolute path"
    )


def is_environment(folder: str) -> bool:
    """Whether a folder contains installed packages: a virtual or conda environment, or its site-packages."""
    return os.path.basename(folder) in {"site-packages", "dist-packages", "__pypackages__"} or any(
        os.path.exists(os.path.join(folder, mark)) for mark in ("pyvenv.cfg", "conda-meta")
    )


def is_installed(path: str) -> bool:
    """Whether an entry of ``sys.path`` holds Python itself or installed packages."""
    import sysconfig  # an application's process needs none

    if os.path.basename(path) in ("site-packages", "dist-packages"):
        return True
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return path.endswith(".zip") or any(path == top or path.startswith(os.path.join(top, "")) for top in libraries)


class _Trees:
    """The two tops with symbolic links resolved, for mapping many paths."""

    def __init__(self, present_top: Path, reference_top: Path) -> None:
        self._present = os.path.realpath(present_top)
        self._reference = os.path.realpath(reference_top)
        self._prefixes = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}

    def mapped(self, entry: str) -> str:
        """The path in the reference tree, or the path itself if it is not the project's code."""
        relative = self.relative(entry)
        return entry if relative is None else os.path.normpath(os.path.join(self._reference, relative))

    def all_mapped(self, entries: Sequence[str]) -> list[str]:
        """All of these paths, mapped."""
        return [self.mapped(entry) for entry in entries]

    def relative(self, entry: str) -> str | None:
        """The path relative to the present top; None if it is not the project's code there."""
        if entry and not os.path.isabs(entry) and not os.path.exists(entry):
            return None  # a placeholder for a path hook
        real = os.path.realpath(entry)
        if not _inside(real, self._present) or _inside(real, self._reference):
            return None
        folder = real
        while folder != self._present:
            if folder in self._prefixes or is_environment(folder):
                return None
            folder = os.path.dirname(folder)
        return os.path.relpath(real, self._present)


class _Redirect:
    """The first finder: loads from the reference tree what other finders find in the present tree.

    Covers finders of other build tools, and packages that are linked into site-packages.
    """

    def __init__(self, trees: _Trees) -> None:
        self._trees = trees

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the first other finder, redirected to the reference tree."""
        if _is_ours(name):
            return None
        others = (getattr(finder, "find_spec", None) for finder in sys.meta_path if not isinstance(finder, _Redirect))
        found = (find(name, path, target) for find in others if find is not None)
        spec: ModuleSpec | None = next((spec for spec in found if spec is not None), None)
        return None if spec is None else self._redirected(spec)

    def _redirected(self, spec: ModuleSpec) -> ModuleSpec:
        origin = spec.origin if spec.has_location and spec.origin is not None else ""
        mapped = self._trees.mapped(origin) if origin else ""
        if spec.submodule_search_locations is not None:
            locations = list(spec.submodule_search_locations)
            mapped_locations = self._trees.all_mapped(locations)
            if mapped != origin:
                mapped_locations.append(os.path.dirname(mapped))  # modules that exist only there are in no table
            if mapped_locations != locations:
                spec.submodule_search_locations = list(dict.fromkeys(mapped_locations))
        if mapped == origin:
            return spec
        moved = spec_from_file_location(spec.name, mapped, submodule_search_locations=spec.submodule_search_locations)
        if moved is None or not os.path.exists(mapped):
            # None would pass the request to the finder that loads from the present tree.
            raise ModuleNotFoundError(
                f"No module named {spec.name!r} in the reference tree: there is no {mapped}", name=spec.name
            )
        return moved


def _inside(path: str, top: str) -> bool:
    return path == top or path.startswith(os.path.join(top, ""))


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == _OURS


def _contains_this_package(folder: str) -> bool:
    return os.path.isdir(os.path.join(folder, _OURS))


def _paths_of(module: object) -> Iterator[str]:
    """Paths that a module was loaded from, read without triggering lazy attributes."""
    with contextlib.suppress(Exception):  # sys.modules may contain any object, with any failure
        names = object.__getattribute__(module, "__dict__")
        spec = names.get("__spec__")
        origin = spec.origin if spec is not None and spec.has_location else None
        yield from (path for path in (names.get("__file__"), origin) if isinstance(path, str))
        yield from (path for path in names.get("__path__", ()) if isinstance(path, str))
