"""Whose code a process imports: paths under the project, mapped to the same places of another tree.

The reference side of a comparison runs in a fresh interpreter of the same environment, whose import paths lead into
the present tree wherever the project is installed in place. :func:`install` turns them into the reference tree, and
:func:`modules_from` finds what came from the present tree after all. Environments that lie inside the project are not
the project's code and stay; so does this package, which serves both sides. Paths are compared as they really are, with
symbolic links resolved. This module must not know where the reference tree comes from, nor what is imported.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from dataclasses import dataclass
from importlib.util import spec_from_file_location
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import DeploymentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from types import ModuleType

__all__ = [
    "Stray",
    "install",
    "is_environment",
    "map_path",
    "mapped_sys_path",
    "modules_from",
    "remap_editable_finders",
    "wrong_tree",
]

_OURS = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Stray:
    """A module that was loaded from the wrong tree, and the file or folder there."""

    name: str
    file: str


def install(present_top: Path, reference_top: Path) -> list[str]:
    """Make this interpreter import the project from the reference tree; call it before anything imports the project.

    Maps ``sys.path`` and the finders of editable installs, forgets modules that came from the present tree, and sets
    ``PYTHONPATH`` so that Python processes that the user's code starts follow. Calling it twice does no more than once;
    an interpreter is for one reference tree.

    Args:
        present_top: top of the tree in which the user works.
        reference_top: top of the tree that replaces it.

    Returns:
        The modules that were forgotten, by name; start-up files of the environment may have imported some.
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
    # A path that holds this package would make such a process load the reference's version of it.
    entries = [
        *(new for new, old in zip(sys.path, before, strict=True) if new != old and not _holds_us(new)),
        *(folder for folder in packages if not _holds_us(folder)),
        *mapped_sys_path(given.split(os.pathsep) if given else [], present_top, reference_top),
    ]
    if entries:
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(entries))
    return strays


def map_path(entry: str, present_top: Path, reference_top: Path) -> str:
    """The same place in the reference tree, for a path under the present tree; any other path as it is.

    Args:
        entry: a path, or what else ``sys.path`` may hold; ``""`` is the working directory.
        present_top: top of the present tree.
        reference_top: top of the reference tree, which may lie inside the present one.
    """
    return _Trees(present_top, reference_top).mapped(entry)


def mapped_sys_path(sys_path: Sequence[str], present_top: Path, reference_top: Path) -> list[str]:
    """``sys.path`` with every entry mapped: what ``.pth`` files of editable installs added are plain entries there."""
    return _Trees(present_top, reference_top).all_mapped(sys_path)


def remap_editable_finders(present_top: Path, reference_top: Path) -> list[str]:
    """Turn the finders that setuptools' editable installs put into this process to the reference tree.

    Returns:
        The folders of the reference tree in which the packages that changed lie.
    """
    trees = _Trees(present_top, reference_top)
    folders: dict[str, None] = {}
    for finder in sys.meta_path:
        names = vars(sys.modules.get(getattr(finder, "__module__", ""), object))
        packages, namespaces = names.get("MAPPING"), names.get("NAMESPACES")
        if isinstance(packages, dict) and isinstance(namespaces, dict):
            for package, place in packages.items():
                packages[package] = mapped = trees.mapped(place)
                if mapped != place:
                    folders[os.path.normpath(os.path.join(mapped, *[os.pardir] * len(package.split("."))))] = None
            for namespace, places in namespaces.items():
                namespaces[namespace] = trees.all_mapped(places)
    return list(folders)


def modules_from(
    present_top: Path, reference_top: Path, modules: Mapping[str, ModuleType] | None = None
) -> list[Stray]:
    """The modules that come from the present tree, in the order in which they were imported.

    Args:
        present_top: top of the present tree.
        reference_top: top of the reference tree, which may lie inside the present one.
        modules: by name; ``sys.modules`` by default.
    """
    trees = _Trees(present_top, reference_top)
    strays = []
    for name, module in list((sys.modules if modules is None else modules).items()):
        places = () if _is_ours(name) else dict.fromkeys(_places(module))
        stray = next((place for place in places if trees.place(place) is not None), None)
        if stray is not None:
            strays.append(Stray(name, stray))
    return strays


def wrong_tree(strays: Sequence[Stray], present_top: Path, reference_top: Path) -> DeploymentError:
    """The error that names modules that were loaded from the present tree.

    Args:
        strays: at least one.
        present_top: top of the present tree.
        reference_top: top of the reference tree.
    """
    first, others = strays[0], [stray.name for stray in strays[1:]]
    more = f" (and {len(others)} more: {', '.join(others[:5])}{', …' if others[5:] else ''})" if others else ""
    return DeploymentError(
        f"the reference side loaded {first.name}{more} from the present tree, {first.file}, expected "
        f"{map_path(first.file, present_top, reference_top)}: import it by its package's name, or find it from "
        "__file__, not by an absolute path"
    )


def is_environment(folder: str) -> bool:
    """Whether a folder holds installed packages: a virtual or conda environment, or a site-packages of one."""
    return os.path.basename(folder) in {"site-packages", "dist-packages", "__pypackages__"} or any(
        os.path.exists(os.path.join(folder, mark)) for mark in ("pyvenv.cfg", "conda-meta")
    )


class _Trees:
    """The two tops as they really are, resolved once for many paths."""

    def __init__(self, present_top: Path, reference_top: Path) -> None:
        self._present = os.path.realpath(present_top)
        self._reference = os.path.realpath(reference_top)
        self._prefixes = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}

    def mapped(self, entry: str) -> str:
        """A path's place in the reference tree, or the path itself."""
        place = self.place(entry)
        return entry if place is None else os.path.normpath(os.path.join(self._reference, place))

    def all_mapped(self, entries: Sequence[str]) -> list[str]:
        """Each of these paths, mapped."""
        return [self.mapped(entry) for entry in entries]

    def place(self, entry: str) -> str | None:
        """Where a path lies under the present top; None where it is not the project's code there."""
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
    """First among the finders: what the others find in the present tree is loaded from the reference tree.

    Covers what no table that we know of maps: the finders of other build tools, packages linked into site-packages.
    """

    def __init__(self, trees: _Trees) -> None:
        self._trees = trees

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module as the first other finder knows it, in the reference tree.

        Raises:
            ModuleNotFoundError: it exists in the present tree only.
        """
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
                mapped_locations.append(os.path.dirname(mapped))  # what only the reference has is in no table
            if mapped_locations != locations:
                spec.submodule_search_locations = list(dict.fromkeys(mapped_locations))
        if mapped == origin:
            return spec
        moved = spec_from_file_location(spec.name, mapped, submodule_search_locations=spec.submodule_search_locations)
        if moved is None or not os.path.exists(mapped):
            # To return None would hand the question to the finder that answers with the present tree.
            raise ModuleNotFoundError(
                f"No module named {spec.name!r} in the reference tree: there is no {mapped}", name=spec.name
            )
        return moved


def _inside(path: str, top: str) -> bool:
    return path == top or path.startswith(os.path.join(top, ""))


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == _OURS


def _holds_us(folder: str) -> bool:
    return os.path.isdir(os.path.join(folder, _OURS))


def _places(module: object) -> Iterator[str]:
    """Where a module says that it comes from, read so that nothing lazy in it wakes up."""
    with contextlib.suppress(Exception):  # anything may stand in sys.modules, and fail in its own way
        names = object.__getattribute__(module, "__dict__")
        spec = names.get("__spec__")
        origin = spec.origin if spec is not None and spec.has_location else None
        yield from (place for place in (names.get("__file__"), origin) if isinstance(place, str))
        yield from (place for place in names.get("__path__", ()) if isinstance(place, str))
