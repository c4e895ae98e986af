"""Examples as users run them: a copy of a folder, and Python in it without the variables of the outer run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from support import ROOT

EXAMPLES = ROOT / "examples"
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider")
_LEFT_OUT = ("PYTEST_", "COVERAGE_")
"""What examples run is covered elsewhere, and would take twice as long."""


def copied(example: str, directory: Path) -> Path:
    """A copy of an example, without what its runs leave."""
    ignored = shutil.ignore_patterns("*.joblib", "*.npz", "__pycache__", ".*", "perf-*")
    return Path(shutil.copytree(EXAMPLES / example, directory / Path(example).name, ignore=ignored))


def run_python(*arguments: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments and variables, as a process of its own in a directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**kept, "COLUMNS": "160", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
