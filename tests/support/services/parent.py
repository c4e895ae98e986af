"""A parent process of children in the states that its arguments name, which waits to be killed.

It prints what it knows as JSON: the ids of its children, and what each of them answered. With the argument
``--fork``, a forked copy of the parent, whose id is the last answer, holds all its pipes open.
"""

import json
import os
import sys
import threading
from pathlib import Path

from pytest_mlpatterns.system.child import Child


def main() -> None:
    directory, *states = [argument for argument in sys.argv[1:] if argument != "--fork"]
    children = [Child("support.services.child", log=Path(directory) / f"{state}.log") for state in states]
    for child, state in zip(children, states, strict=True):
        child.send((state, "listening"))
    answers = [child.receive(60) for child in children]
    if "--fork" in sys.argv:
        answers.append(os.fork())
        if answers[-1] == 0:
            threading.Event().wait()
    os.write(1, json.dumps([[child.pid for child in children], answers]).encode() + b"\n")
    threading.Event().wait()


if __name__ == "__main__":
    main()
