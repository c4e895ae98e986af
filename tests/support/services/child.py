"""A child process that does what it is told: one command a message, ``(name, argument)``."""

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from pytest_mlpatterns.system.child import Channel
from pytest_mlpatterns.system.orphans import adopt_orphans

WAIT = "import threading; threading.Event().wait()"


def main() -> None:
    channel = Channel()
    while True:
        try:
            name, argument = channel.receive()
        except EOFError:
            return
        COMMANDS[name](channel, argument)


def _print(channel: Channel, line: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.write(f"{line}\n")
        stream.flush()
    os.write(1, f"{line}\n".encode())
    subprocess.run([sys.executable, "-S", "-c", f"print({line!r}, flush=True)"], check=True)
    channel.send("printed")


def _exit(_channel: Channel, code: int | None) -> None:
    sys.stdout.write("last words\n")
    raise SystemExit(code)


def _raise(_channel: Channel, text: str) -> None:
    raise RuntimeError(text)


def _hang_up(_channel: Channel, _: None) -> None:
    os.closerange(3, 64)
    threading.Event().wait()


def _listen(channel: Channel, _: None) -> None:
    closed = threading.Event()
    channel.listen(lambda message: channel.send(("heard", message)), closed.set)
    channel.send("listening")
    closed.wait()
    raise SystemExit(0)


def _listen_badly(channel: Channel, _: None) -> None:
    """Listen with a function that fails at the first message."""
    channel.listen(lambda message: message["no such key"], lambda: None)
    channel.send("listening")
    threading.Event().wait()


def _serve(channel: Channel, _: None) -> None:
    """Start a process, and end in good order when the channel is closed."""
    closed = threading.Event()
    channel.listen(lambda _: None, closed.set)
    _spawn(channel, None)
    closed.wait()
    raise SystemExit(0)


def _await_end(channel: Channel, log: str) -> None:
    """Note what is called at the end of Python: for a thread, for what asked for it, and for a module."""

    def note(word: str) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{word} ")

    class Kept:
        def __del__(self) -> None:
            note("module")

    atexit.register(note, "asked")
    globals()["kept"] = Kept()
    threading.Timer(0.2, note, ["thread"]).start()
    channel.send("noted")


def _spawn(channel: Channel, _: None) -> None:
    channel.send(subprocess.Popen([sys.executable, "-S", "-c", WAIT]).pid)


def _daemonize(channel: Channel, ignored: str) -> None:
    """Start a daemon, as in the books: fork, setsid, fork. It is a copy that holds all pipes open."""
    adopt_orphans()
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if ignored == "SIGTERM":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, str(os.getpid()).encode())
            threading.Event().wait()
        os._exit(0)
    os.wait()
    channel.send(int(os.read(reading, 20)))


def _busy(channel: Channel, state: str) -> None:
    if state == "listening":
        channel.listen(lambda _: None, lambda: None)
    channel.send("busy")
    while True:
        pass


COMMANDS: dict[str, Callable[[Channel, Any], object]] = {
    "echo": lambda channel, value: channel.send(value),
    "print": _print,
    "read": lambda channel, _: channel.send(sys.stdin.read()),
    "descriptor": lambda channel, number: channel.send(os.read(number, 100)),
    "exit": _exit,
    "raise": _raise,
    "kill": lambda _, name: os.kill(os.getpid(), getattr(signal, name)),
    "hang up": _hang_up,
    "listen": _listen,
    "listen badly": _listen_badly,
    "serve": _serve,
    "await end": _await_end,
    "spawn": _spawn,
    "daemonize": _daemonize,
    "busy": _busy,
}
