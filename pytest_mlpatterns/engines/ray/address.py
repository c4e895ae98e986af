"""Addresses of Ray clusters: which are taken, and whether something listens there."""

from __future__ import annotations

import platform
import re
import socket

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import named

__all__ = ["checked_address", "host_and_port", "require_reachable", "way_out", "why_refused"]

_CONNECT_S = 5.0
"""Time limit to reach a cluster, in seconds; one in the same network answers in milliseconds."""
_EXPECTED = "expected host:port of a cluster, or auto"
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


def checked_address(address: str, source: str) -> str | None:
    """The address of a cluster to attach to; None for ``local``, which asks for a Ray of one's own.

    Raises:
        SettingError: it is no address, or one of Ray Client.
    """
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
    """Host and port of an address.

    Raises:
        SettingError: it has not this form.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in host:
        raise SettingError(f"{source}={named(address)}, {_EXPECTED}; write 10.0.0.1:6379")
    return host, int(port)


def require_reachable(address: str, source: str) -> None:
    """Check that something listens at an address.

    Raises:
        SettingError: nothing does.
    """
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
