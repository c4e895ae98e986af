"""A parent process whose deployment never finishes loading: it tells the ids of its children, and waits."""

import os
import sys
import threading
from pathlib import Path

import psutil

from support.services.deploy import deployed


def never(*_: object) -> None:
    """Build a model for ever, which a parent waits for."""
    threading.Event().wait()


class NeverBuilt:
    """A model whose building does not end."""

    def __init__(self) -> None:
        Path(os.environ["LOADING"]).write_text(str(os.getpid()))
        never()

    def __call__(self, batch: list[object]) -> list[object]:
        return batch


def main() -> None:
    threading.Thread(target=_tell, daemon=True).start()
    with deployed("support.services.loading:NeverBuilt", Path(sys.argv[1])):
        pass


def _tell() -> None:
    """Print the worker's id once its model is being built."""
    loading = Path(os.environ["LOADING"])
    while not (loading.exists() and loading.read_text()):
        threading.Event().wait(0.02)
    assert psutil.pid_exists(int(loading.read_text()))
    os.write(1, loading.read_bytes() + b"\n")


if __name__ == "__main__":
    main()
