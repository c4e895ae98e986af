"""A system without what only Linux has: every module can be imported there."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

IMPORT_ALL = """
import asyncio, ctypes, importlib, os, pkgutil, select, signal, socket, subprocess, sys
import httpx, numpy, psutil, pytest, uvicorn, uvloop

MISSING = {
    os: ("sched_setaffinity", "sched_getaffinity", "sched_setscheduler", "pidfd_open", "memfd_create", "eventfd"),
    select: ("epoll",),
    signal: ("SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGSTKFLT", "pidfd_send_signal"),
    socket: ("SO_INCOMING_CPU", "TCP_QUICKACK", "TCP_DEFER_ACCEPT"),
}
for module, names in MISSING.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.platform = "darwin"

import pytest_mlpatterns

for found in pkgutil.walk_packages(pytest_mlpatterns.__path__, "pytest_mlpatterns."):
    if not found.name.endswith("__main__") and ".ray.remote." not in found.name:  # those run beside Ray alone
        importlib.import_module(found.name)
"""


def test_every_module_is_imported_without_what_only_linux_has() -> None:
    run = subprocess.run([sys.executable, "-c", IMPORT_ALL], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
