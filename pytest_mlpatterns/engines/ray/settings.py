"""Which Ray cluster a run uses, and what its nodes need: options > ini > environment > a Ray of the run's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.engines.ray.address import checked_address
from pytest_mlpatterns.engines.ray.messages import RayJob
from pytest_mlpatterns.errors import MissingExtraError, SettingError, missing_extra
from pytest_mlpatterns.wording import named, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["RUN_VARIABLE", "read_ray_job"]

_ADDRESS = "RAY_ADDRESS"
RUN_VARIABLE = "MLPATTERNS_RAY_RUN"
"""Names the run that a pytest belongs to, which serves another revision for it."""
_FILES = (".json", ".yaml", ".yml")


def read_ray_job(
    options: Mapping[str, object], ini: Mapping[str, object], environ: Mapping[str, str], *, root: Path
) -> RayJob:
    """Read what a driver connects to.

    Args:
        options: command-line values by option name, None if not given.
        ini: ini values by option name, None or empty if not given.
        root: directory to which paths are relative.

    Raises:
        SettingError: an address or a runtime environment that cannot be read.
    """
    given, source = _given("ray-address", options, ini)
    if given is None and environ.get(_ADDRESS):
        given, source = environ[_ADDRESS], _ADDRESS
    address = None if given is None else checked_address(str(given), source)
    runtime_env, of_env = _given("ray-runtime-env", options, ini)
    return RayJob(
        address=address,
        source=source,
        runtime_env={} if runtime_env is None else _runtime_env(str(runtime_env), of_env, root),
        root=root,
        run=environ.get(RUN_VARIABLE, ""),
    )


def _given(name: str, options: Mapping[str, object], ini: Mapping[str, object]) -> tuple[object | None, str]:
    """A value and its source."""
    if options.get(name) not in (None, ""):
        return options[name], f"--perf-{name}"
    key = f"perf_{name.replace('-', '_')}"
    return (ini[name], f"ini key {key}") if ini.get(name) not in (None, "") else (None, "")


def _runtime_env(text: str, source: str, root: Path) -> dict[str, Any]:
    expected = f"{source} is {shown(text)}, expected a JSON object or the path of a .json or .yaml file"
    written, found = text, "it"
    if not text.lstrip().startswith("{"):
        if not text.endswith(_FILES):
            raise SettingError(f'{expected}; write {{"working_dir": "."}}')
        try:
            written = (root / text).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or error
            raise SettingError(f"{source} names the file {named(text)}, which cannot be read: {problem}") from None
        found = named(text)
    try:
        value = _yaml(written, source) if text.endswith(_FILES[1:]) else json.loads(written)
    except MissingExtraError:
        raise
    except ValueError as error:
        raise SettingError(f"{expected}; {found} cannot be read: {error}") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise SettingError(f"{expected}; {found} is {shown(value)}")
    return value


def _yaml(text: str, source: str) -> object:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError(missing_extra(f"{source} with a .yaml file", "pyyaml", "ray")) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
