"""Which Ray cluster a run uses, and what its nodes need: options > ini > environment > a Ray of the run's own.

An address is taken as Ray takes it, and something must listen there.
"""

import json
import platform
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_mlpatterns.engines.ray.messages import RayJob
from pytest_mlpatterns.errors import MissingExtraError, SettingError, missing_extra
from pytest_mlpatterns.wording import named, shown

_ADDRESS = "RAY_ADDRESS"
RUN_VARIABLE = "MLPATTERNS_RAY_RUN"  # Names the run that a pytest belongs to, which serves another revision for it
_FILES = (".json", ".yaml", ".yml")


def read_ray_job(
    options: Mapping[str, object], ini: Mapping[str, object], environ: Mapping[str, str], *, root: Path
) -> RayJob:
    """Read what a driver connects to.

    ``options``: command-line values by option name, None if not given. ``ini``: ini values by option name, None or
    empty if not given.
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


_CONNECT_S = 5.0  # Time limit to reach a cluster, in seconds; one in the same network answers in milliseconds
_EXPECTED = "expected host:port of a cluster, or auto"
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


def checked_address(address: str, source: str) -> str | None:
    """The address of a cluster to attach to; None for ``local``, which asks for a Ray of one's own."""
    address = address.strip()
    if address == "local":
        return None
    if address.startswith("ray://"):
        raise SettingError(
            f"{source}={named(address)}: Ray Client is not supported, since the load would pass through it; "
            "run pytest as a Ray job (ray job submit -- pytest)"
        )
    if address != "auto":
        host_and_port(address, source)
    return address


def host_and_port(address: str, source: str) -> tuple[str, int]:
    """Host and port of an address."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in host:
        raise SettingError(f"{source}={named(address)}, {_EXPECTED}; write 10.0.0.1:6379")
    return host, int(port)


def require_reachable(address: str, source: str) -> None:
    """Check that something listens at an address."""
    try:
        with socket.create_connection(host_and_port(address, source), _CONNECT_S):
            return
    except OSError as error:
        raise SettingError(
            f"{source}={address}: nothing answers there within {_CONNECT_S:g}s ({error}); "
            f"start Ray there (ray start --head), or {way_out(source)}"
        ) from None


def way_out(source: str) -> str:
    """How to run without this cluster, as the end of a message."""
    leave = "unset it" if source == "RAY_ADDRESS" else "leave it out"
    return f"{leave} for a Ray of this run's own"


def why_refused(error: BaseException, source: str, version: str) -> str:
    """Why a driver cannot connect, and what to do."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    text = "\n".join(map(str, causes))
    if "Version mismatch" in text and (found := _VERSIONS.search(text)):
        here = f"Ray {version} and Python {platform.python_version()}"
        return (
            f"the cluster runs Ray {found[1]} and Python {found[2]}, this environment has {here}; "
            "install the same versions on both sides"
        )
    if "Could not find any running Ray" in text:
        return f"no Ray runs on this machine; start one (ray start --head), or {way_out(source)}"
    if "resolve node to connect to" in text:
        return (
            "this machine is no node of that cluster, and a Ray driver has to run on one; run pytest on a node, "
            "as a Ray job (ray job submit -- pytest)"
        )
    return f"Ray cannot connect: {text}"
