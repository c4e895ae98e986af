"""Environments of their own for public servers: made on demand, kept where git ignores them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(__file__).resolve().parent / ".environments"
INSTALL_S = 900.0


def python_of(name: str, requirements: Path, *packages: str) -> str:
    """The Python of an environment, which is made where it is missing or the requirements changed.

    Args:
        name: the environment's.
        requirements: a file of them; a file ``requirements-alone.txt`` beside it names what is installed without what
            that needs.
        packages: what else is installed, as pip's arguments; what is installed in place follows its own changes.

    Raises:
        RuntimeError: something cannot be installed; the last line says what.
    """
    directory = ENVIRONMENTS / name
    python, done = directory / "bin" / "python", directory / requirements.name
    if not (python.exists() and done.exists() and done.read_bytes() == requirements.read_bytes()):
        print(f"installing {name} …", file=sys.stderr)
        _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(directory))
        ours = (sys.executable, "-m", "pip", "--python", str(python))  # to install another pip takes seconds
        pip = (*ours, "--quiet", "--disable-pip-version-check", "install")
        _run(*pip, "--requirement", str(requirements), *packages)
        if (alone := requirements.with_name("requirements-alone.txt")).exists():
            _run(*pip, "--no-deps", "--requirement", str(alone))
        shutil.copyfile(requirements, done)  # the last step: what was cut off is made again
    return str(python)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
