"""The examples with real servers, each against the real thing: ``python real_servers.py [NAME…]``.

Every folder of examples/servers gets an environment of its own. Its performance test records a baseline and passes; the
same service made ten times as slow fails it, as a regression or beside another service; and
of what either run started nothing is left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex

from environments import python_of
from plugin_runs import kill_processes_of, marked

ROOT = Path(__file__).resolve().parents[1]
SERVERS = ROOT / "examples" / "servers"
RUN_S = 300.0
SLOWDOWN = 10
COMPARED = ("parity",)
"""Examples that compare two services: slowed down, they miss the limit of that comparison."""
SLOWED = ("--perf-json=results.json", "--perf-noise", "trust")
"""Options of the slowed run: no neighbour excuses ten times as slow, also where other tests run beside it."""


def main(names: list[str]) -> int:
    found = sorted(folder.parent.name for folder in SERVERS.glob("*/requirements.txt"))
    if unknown := set(names) - set(found):
        sys.exit(f"there is no example {', '.join(sorted(unknown))}, expected of {', '.join(found)}")
    wanted = names or found
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        pythons = dict(zip(wanted, pool.map(installed, wanted), strict=True))
    print(f"{len(wanted)} environments: {time.monotonic() - started:.0f} s")
    failed = 0
    for name, python in pythons.items():
        started = time.monotonic()
        problem = problem_of(name, python)
        failed += problem is not None
        outcome = problem or "passes; slowed down it fails; nothing is left"
        print(f"{name}: {outcome} ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"{len(wanted) - failed} passed, {failed} failed")
    return 1 if failed else 0


def installed(name: str) -> str:
    """The Python of an example's environment."""
    return python_of(f"example-{name}", SERVERS / name / "requirements.txt", "--editable", str(ROOT))


def problem_of(name: str, python: str) -> str | None:
    """What is wrong with an example, None if nothing is; what its runs left is killed."""
    token = token_hex(8)
    with tempfile.TemporaryDirectory() as directory:
        project = Path(directory) / name
        shutil.copytree(SERVERS / name, project, ignore=shutil.ignore_patterns("__pycache__", ".*", "perf-*.json"))
        try:
            problem = problem_in(project, python, token)
        except subprocess.TimeoutExpired as error:
            problem = f"no end after {error.timeout:.0f} s: {error.stdout!r}"
        finally:
            left = kill_processes_of(token)
    return problem or (f"these are left: {', '.join(left)}" if left else None)


def problem_in(project: Path, python: str, token: str) -> str | None:
    """What is wrong with the verdicts on a copy of an example, None if nothing is."""
    recorded = run(python, project, token, "--perf-baseline", "update")
    if recorded.returncode:
        return f"its test fails:\n{recorded.stdout}{recorded.stderr}"
    slowed = run(python, project, token, *SLOWED, SLOWDOWN=str(SLOWDOWN))
    failure = "LimitFailure" if project.name in COMPARED else "RegressionFailure"
    if slowed.returncode != 1 or failure not in slowed.stdout:
        return f"{SLOWDOWN} times as slow it has no {failure}:\n{slowed.stdout}{slowed.stderr}"
    print(*changes_in(project / "results.json"), sep="\n")
    return None


def run(
    python: str, project: Path, token: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """pytest in the project; what it starts is known by the token in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_"))}
    return subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        env=marked({**kept, **environment}, token),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def changes_in(results: Path) -> list[str]:
    """What the run says of every comparison that failed."""
    tests = json.loads(results.read_text(encoding="utf-8"))["results"]
    return [
        f"  {one['test']}: {found['reason']}"
        for one in tests
        for found in one["verdicts"]
        if found["outcome"] == "fail"
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
