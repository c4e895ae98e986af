"""Addresses of Ray clusters: which are taken, and whether something listens there."""

from __future__ import annotations

import socket

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import named

__all__ = ["checked_address", "host_and_port", "require_reachable", "way_out"]

_CONNECT_S = 5.0
_EXPECTED = "expected host:port of a cluster, or auto"


def checked_address(address: str, source: str) -> str | None:
    """The address of a cluster to attach to; None for ``local``, which asks for a Ray of one's own.

    Args:
        address: as given.
        source: where it was given, for messages.

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


def require_reachable(address: str, source: str, timeout_s: float = _CONNECT_S) -> None:
    """Check that something listens at an address.

    Raises:
        SettingError: nothing does.
    """
    try:
        with socket.create_connection(host_and_port(address, source), timeout_s):
            return
    except OSError as error:
        raise SettingError(
            f"{source}={address}: nothing answers there within {timeout_s:g}s ({error}); "
            f"start Ray there (ray start --head), or {way_out(source)}"
        ) from None


def way_out(source: str) -> str:
    """How to run without this cluster, as the end of a message."""
    leave = "unset it" if source == "RAY_ADDRESS" else "leave it out"
    return f"{leave} for a Ray of this run's own"
