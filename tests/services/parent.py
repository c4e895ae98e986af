"""A parent process of children in the states that its arguments name, which waits to be killed.

It prints what it knows as JSON: the ids of its children, and what each of them answered.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from pytest_mlpatterns.children import Child


def main() -> None:
    directory, *states = sys.argv[1:]
    children = [Child("services.child", log=Path(directory) / f"{state}.log") for state in states]
    for child, state in zip(children, states, strict=True):
        child.send((state, "listening"))
    answers = [child.receive(60) for child in children]
    os.write(1, json.dumps([[child.pid for child in children], answers]).encode() + b"\n")
    threading.Event().wait()


if __name__ == "__main__":
    main()
