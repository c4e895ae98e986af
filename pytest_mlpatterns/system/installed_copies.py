"""Is the project imported from a copy in site-packages? Then both sides of a comparison would run the same code.

``pip install .``, without ``-e``, copies the code. Nothing is imported here: what is installed is read from metadata.
The environment of a server is asked too, so this module needs no other package.
"""

import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.system.loaded_packages import spelled
from pytest_mlpatterns.wording import count

_OURS = "pytest-mlpatterns"


class InstalledCopy(NamedTuple):
    """A package of the project that is imported from a copy."""

    package: str
    folder: Path
    source: Path


def installed_copies(root: Path, top: Path, found: Iterable[Distribution] | None = None) -> list[InstalledCopy]:
    """The packages of this project that Python imports from a copy, of all that it can import if ``found`` is None."""
    root, top = root.resolve(), top.resolve()
    names = {directory: name for directory in (root, *root.parents) if (name := project_name(directory))}
    copies = []
    for distribution in _candidates(names.values()) if found is None else found:
        if spelled(distribution.metadata["Name"] or "") == _OURS:
            continue
        source = _source(distribution, names)
        if source is None or not (source.is_relative_to(top) or root.is_relative_to(source)):
            continue
        related = source.is_relative_to(root) or root.is_relative_to(source)
        folder = Path(str(distribution.locate_file(""))).resolve()
        copies += [
            InstalledCopy(package, folder, source)
            for package in sorted(set(_packages(distribution)))
            if (related or package in sys.modules) and _is_imported_from(package, folder)
        ]
    return copies


def copy_error(copies: Sequence[InstalledCopy], root: Path, python: str = "") -> SettingError:
    """The error for packages that are imported from a copy. ``copies``: at least one.

    ``python``: of another environment, which imports them; empty for this process's own.
    """
    first, others = copies[0], copies[1:]
    more = f" (and {count(len(others), 'more package')})" if others else ""
    source = "." if first.source == root.resolve() else str(first.source)
    path = "src" if (first.source / "src" / first.package).exists() else "."
    ours = f"pip install -e {source}, or set pythonpath = {path} in the ini file, or give --perf-against-env"
    return SettingError(
        f"{first.package}{more} is imported from {first.folder}, a copy of this project: both sides would run the same "
        f"code; run {f'{python} -m pip install -e {source}' if python else ours}"
    )


def _candidates(names: Iterable[str]) -> Iterator[Distribution]:
    """What has a record of its origin or a name of the project's; the metadata of others is not read, for speed."""
    named = (distribution for name in names for distribution in distributions(name=name))
    yield from (distribution for distribution in distributions() if _records_origin(distribution))
    yield from (distribution for distribution in named if not _records_origin(distribution))


def _records_origin(distribution: Distribution) -> bool:
    return distribution.read_text("direct_url.json") is not None


def _source(distribution: Distribution, names: Mapping[Path, str]) -> Path | None:
    """The directory that a distribution was copied from; None if it is another's, or installed in place."""
    try:
        given = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        given = {}
    if given.get("dir_info", {}).get("editable"):
        return None
    if "dir_info" in given and (url := urlsplit(given.get("url", ""))).scheme == "file":
        return Path(unquote(url.path)).resolve()
    # an archive that tox or build made of the project, or an index that serves it
    name = spelled(distribution.metadata["Name"] or "")
    return next((directory for directory, one in names.items() if one == name), None)


def project_name(directory: Path) -> str:
    """The normalized name of the project of a directory; empty if it states none."""
    try:
        with (directory / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file).get("project", {})
    except (OSError, tomllib.TOMLDecodeError):
        return ""
    return spelled(str(project.get("name", "")))


def _packages(distribution: Distribution) -> Iterator[str]:
    """The names that its files add to imports."""
    for file in distribution.files or ():
        first = file.parts[0]
        if len(file.parts) > 1 and file.suffix in (".py", ".so", ".pyd") and first.isidentifier():
            yield first
        elif len(file.parts) == 1 and file.suffix == ".py" and file.stem.isidentifier():
            yield file.stem


def _is_imported_from(package: str, folder: Path) -> bool:
    """Whether an import of the package finds this folder's files, and no others."""
    module = sys.modules.get(package)
    spec = module.__spec__ if module is not None else PathFinder.find_spec(package)
    if spec is None:
        return False
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return bool(places) and all(Path(place).resolve().is_relative_to(folder) for place in places)


def require_no_copy(root: Path, present_top: Path) -> None:
    """Refuse a project that is imported from a copy, which is the same code on both sides."""
    if copies := installed_copies(root, present_top):
        raise copy_error(copies, root)
