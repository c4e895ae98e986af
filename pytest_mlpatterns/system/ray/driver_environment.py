"""Environment variables of the Ray driver, which Ray reads while it is imported."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.system.ray.messages import RayJob

__all__ = ["driver_environment"]

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0", "RAY_DEDUP_LOGS": "0"}
_NO_PRESTART = {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
"""A node otherwise starts a process for each of its logical CPUs."""
_SOON = {"RAY_gcs_server_request_timeout_seconds": "12"}
"""How long a driver looks for a node on its machine, and waits for an answer of the cluster."""
_SHARES_HELD_PORT = {"SERVE_SOCKET_REUSE_PORT_ENABLED": "1"}
"""Ray Serve binds a port that the driver holds, which is its default."""
_LOOPBACK = "127.0.0.1"
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray otherwise replaces the loopback address by the machine's own (Linux), and listens on all interfaces."""


def driver_environment(job: RayJob) -> Mapping[str, str]:
    """The variables of a driver, beside those of this process.

    A Ray of this run's own asks for a token that only this run knows; without one, Ray writes one into the home
    directory.
    """
    if job.address is not None:
        is_local = job.address.startswith(f"{_LOOPBACK}:")
        return {**_QUIET, **_SOON, **(_ON_LOOPBACK if is_local else {}), **job.environment}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {**_QUIET, **_NO_PRESTART, **_ON_LOOPBACK, **_SHARES_HELD_PORT, **token, **job.environment}
