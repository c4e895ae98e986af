"""Linux made to look like macOS to the package, in pytest and every process: what only Linux has is taken away."""

import os
import select

del select.epoll

import asyncio  # noqa: E402, F401
import ctypes  # noqa: E402, F401
import selectors  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402, F401
import sys  # noqa: E402
import sysconfig  # noqa: E402
import urllib.request  # noqa: E402, F401

sysconfig.get_config_vars()
import psutil  # noqa: E402
import uvloop  # noqa: E402, F401

assert selectors.DefaultSelector is selectors.PollSelector
MISSING = {
    os: "sched_setaffinity sched_getaffinity sched_setscheduler timerfd_create pidfd_open memfd_create eventfd",
    socket: "SO_INCOMING_CPU TCP_QUICKACK TCP_DEFER_ACCEPT",
}
for module, names in MISSING.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)


def _refused(*_):
    raise psutil.AccessDenied


psutil.net_connections = _refused
psutil.Process.threads = _refused
sys.platform = "darwin"  # those above have looked already: they are the real ones
