"""What makes environments: uv, the interpreters of this machine, the wheel, and what identifies a result."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from environments import Environment

__all__ = ["CACHE", "PROJECTS", "ROOT", "Tools", "digest_of"]

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".compat"
PROJECTS = Path(__file__).resolve().parent / "projects"
INSTALL_S = 900.0
_LIST = "import importlib.metadata as m; print('\\n'.join(f'{d.name} {d.version}' for d in m.distributions()))"
_VERSION = "import platform; print(platform.python_version())"


class Tools:
    """uv, in an environment of its own unless the machine has it."""

    def __init__(self) -> None:
        CACHE.mkdir(exist_ok=True)
        found = shutil.which("uv")
        self._uv = found or str(CACHE / "tools" / "bin" / "uv")
        if not Path(self._uv).exists():
            _run(sys.executable, "-m", "venv", str(CACHE / "tools"))
            _run(str(CACHE / "tools" / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv")

    def build_wheel(self) -> Path:
        """The wheel of this tree."""
        folder = CACHE / "wheel"
        shutil.rmtree(folder, ignore_errors=True)
        self._call("build", "--wheel", "--quiet", "--out-dir", str(folder), str(ROOT))
        (wheel,) = folder.glob("*.whl")
        return wheel

    def python(self, version: str) -> Path | None:
        """An interpreter of this version, or the one that runs this; None if the machine has none."""
        if not version:
            return Path(sys.executable)
        candidates = [shutil.which(f"python{version}"), shutil.which("python3"), sys.executable]
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
        candidates += map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True))
        for candidate in filter(None, candidates):
            done = subprocess.run([candidate, "-c", _VERSION], capture_output=True, text=True, check=False)
            if done.returncode == 0 and done.stdout.startswith(f"{version}."):
                return Path(candidate)
        return None

    def make_environment(self, environment: Environment, interpreter: Path, wheel: Path) -> Path:
        """The Python of a new environment with the package and what stands beside it."""
        folder = CACHE / "environments" / environment.folder
        self._call("venv", "--quiet", "--clear", "--no-python-downloads", "--python", str(interpreter), str(folder))
        extras = f"[{environment.extras}]" if environment.extras else ""
        packages = [f"pytest-mlpatterns{extras} @ {wheel.as_uri()}", *environment.requirements]
        options = ["--resolution", environment.resolution, *(["--prerelease=allow"] if environment.prerelease else [])]
        if environment.resolution != "highest":  # which holds for what is named here, not for what a wheel needs
            options += ["--requirements", str(ROOT / "pyproject.toml")]
            options += [f"--extra={extra}" for extra in filter(None, environment.extras.split(","))]
        self._call("pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *options, *packages)
        return folder / "bin" / "python"

    def resolve(self, requirements: Iterable[str]) -> dict[str, str]:
        """The versions that would be installed for these requirements, by name; raises OSError if none fit."""
        asked = CACHE / f"resolve-{uuid.uuid4().hex}.in"
        asked.write_text("\n".join(requirements), encoding="utf-8")
        try:
            found = _run(
                self._uv, "pip", "compile", "--no-header", "--no-annotate", "--python", sys.executable, str(asked)
            )
        finally:
            asked.unlink()
        return dict(line.split("==") for line in found.splitlines() if "==" in line)

    @staticmethod
    def versions(python: Path) -> dict[str, str]:
        """The version of every installed package by name in lower case, and that of Python."""
        lines = _run(str(python), "-c", _LIST).splitlines()
        found = {line.split()[0].lower().replace("_", "-"): line.split()[1] for line in lines if line.strip()}
        return {**found, "python": _run(str(python), "-c", _VERSION).strip()}

    def _call(self, *arguments: str) -> None:
        _run(self._uv, *arguments)


def digest_of(environment: Environment, wheel: Path) -> str:
    """What identifies a result: the package, the tests and the environment's definition."""
    sha = hashlib.sha256(json.dumps(asdict(environment), sort_keys=True).encode())
    with zipfile.ZipFile(wheel) as archive:
        for entry in sorted(archive.infolist(), key=lambda one: one.filename):
            sha.update(f"{entry.filename} {entry.CRC}\n".encode())
    for file in sorted([*PROJECTS.glob("*.py"), ROOT / "tests" / "live" / "package" / "test_installed.py"]):
        if file.name == "test_mixed.py" or file.name in environment.files or file.name.startswith("conftest"):
            sha.update(file.read_bytes())
    return sha.hexdigest()[:16]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode:
        raise OSError(f"{Path(command[0]).name} {' '.join(command[1:3])} failed: {done.stderr.strip()[-1500:]}")
    return done.stdout
