"""A real server whose children hide from it: ``python hiding.py PORT WAY…``; then it is ``behaving.py``.

Each way starts a process that sleeps, and that ends by SIGKILL only where its name begins with ``stubborn``.
"""

import os
import subprocess
import sys
from pathlib import Path

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
STUBBORN = [
    *(sys.executable, "-S", "-c"),
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def stubborn(**how: object) -> None:
    """Start a process that ignores SIGTERM, and wait until it does."""
    process = subprocess.Popen(STUBBORN, stdout=subprocess.PIPE, **how)  # type: ignore[call-overload]
    process.stdout.readline()


def daemon(*, adopts: bool = False) -> None:
    """Fork, begin a session, fork, as in the books."""
    if (first := os.fork()) == 0:
        os.setsid()
        if adopts:
            from pytest_mlpatterns.system.orphans import adopt_orphans

            adopt_orphans()
        if os.fork() == 0:
            os.execv(SLEEP[0], SLEEP)
        if adopts:
            os.execv(SLEEP[0], SLEEP)
        os._exit(0)
    if not adopts:
        os.waitpid(first, 0)


WAYS = {
    "child": lambda: subprocess.Popen(SLEEP),
    "session": lambda: subprocess.Popen(SLEEP, start_new_session=True),
    "group": lambda: subprocess.Popen(SLEEP, process_group=0),
    "daemon": daemon,
    "own-adoption": lambda: daemon(adopts=True),
    "no-environment": lambda: subprocess.Popen(SLEEP, env={}, start_new_session=True),
    "stubborn": stubborn,
    "stubborn-session": lambda: stubborn(start_new_session=True),
    "stubborn-no-environment": lambda: stubborn(start_new_session=True, env={}),
    "grandchildren": lambda: subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600 & setsid sleep 600"]),
}

if __name__ == "__main__":
    port, *ways = sys.argv[1:]
    for way in ways:
        WAYS[way]()
    os.execv(sys.executable, [sys.executable, str(Path(__file__).with_name("behaving.py")), port])
