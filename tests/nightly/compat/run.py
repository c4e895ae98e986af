"""``make compat``: the package in many environments, beside what other projects install: ``python run.py [NAME…]``.

Each environment is made by uv, runs its tests, and leaves a result in ``.compat/results``. A result is used again until
the package, the tests or the environment's definition change, or ``FRESH=1`` asks for all anew; so a run that was
interrupted goes on where it was. When all have a result, the tables of docs/reference/compatibility.md are written.

Only the standard library is imported here: this runs on any Python that can make an environment.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from environments import ENVIRONMENTS, Environment
from outcome import Outcome, outcome_of
from page import write_page, write_table
from servers import table_of_servers
from tools import CACHE, PROJECTS, ROOT, Tools, digest_of

RUN_S = 600.0
MACOS = "sitecustomize_macos.py"
SERVERS = "servers"  # Name of the table of those that are resolved only
AT_ONCE = int(os.environ.get("AT_ONCE", "2"))


def main(names: list[str]) -> int:
    """Run the environments with these names, or all and ``servers``; returns the exit code."""
    known = {environment.name: environment for environment in ENVIRONMENTS}
    if unknown := set(names) - {*known, SERVERS}:
        sys.exit(f"there is no environment {', '.join(sorted(unknown))}, expected of: {', '.join([*known, SERVERS])}")
    tools = Tools()
    wheel = tools.build_wheel()
    wanted = [known[name] for name in names if name != SERVERS] if names else [*ENVIRONMENTS]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = dict(zip(wanted, pool.map(lambda one: kept_or_new(one, tools, wheel), wanted), strict=True))
    failed = [environment.name for environment, outcome in outcomes.items() if outcome.problem]
    missing = [environment.name for environment in ENVIRONMENTS if load(environment, wheel) is None]
    if missing:
        print(f"the page is not written: no result for {', '.join(missing)}")
    else:
        write_page({environment: load(environment, wheel) for environment in ENVIRONMENTS})
    if not names or SERVERS in names:
        table, unfit = table_of_servers(tools.resolve, f"pytest-mlpatterns @ {wheel.as_uri()}")
        write_table(SERVERS, table)
        print(table)
        failed += unfit
    absent = sum(bool(outcome.absent) for outcome in outcomes.values())
    print(f"{absent} cannot be made on this machine")
    print(f"{sum(not one.problem for one in outcomes.values()) - absent} passed, {len(failed)} failed")
    return 1 if failed else 0


def kept_or_new(environment: Environment, tools: Tools, wheel: Path) -> Outcome:
    """The result of an environment: the one that is kept, if it passed and nothing has changed, or a new one."""
    kept = load(environment, wheel)
    if kept is not None and not kept.problem and not os.environ.get("FRESH"):
        print(f"{environment.name}: {kept} (kept)", flush=True)
        return kept
    started = time.monotonic()
    try:
        found = run(environment, tools, wheel)
    except subprocess.SubprocessError as error:
        found = Outcome(problem=f"{type(error).__name__}: {error}")
    except OSError as error:
        found = Outcome(problem=str(error))
    store(environment, wheel, found)
    print(f"{environment.name}: {found} ({time.monotonic() - started:.0f} s)", flush=True)
    return found


def run(environment: Environment, tools: Tools, wheel: Path) -> Outcome:
    """Make an environment and run its tests."""
    interpreter = tools.python(environment.python)
    if interpreter is None:
        return Outcome(absent=f"this machine has no Python {environment.python}")
    python = tools.make_environment(environment, interpreter, wheel)
    project = CACHE / "projects" / environment.folder
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir(parents=True)
    (project / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    files = [*(["test_mixed.py"] if environment.mixed else []), *environment.files]
    for name in files:
        source = PROJECTS / name if name != "test_installed.py" else ROOT / "tests" / "live" / "package" / name
        shutil.copy(source, project / ("sitecustomize.py" if name == MACOS else name))
    of_django = ["conftest_django.py"] if "test_pytest_django.py" in files else []
    conftest = "".join((PROJECTS / name).read_text(encoding="utf-8") for name in ["conftest.py", *of_django])
    (project / "conftest.py").write_text(conftest, encoding="utf-8")
    done = [pytest_in(project, python, arguments, number) for number, arguments in enumerate(environment.runs)]
    return outcome_of(environment, project, done, tools.versions(python))


def pytest_in(project: Path, python: Path, arguments: tuple[str, ...], number: int) -> subprocess.CompletedProcess[str]:
    """One run of pytest in the project; its output stays there as ``run-NUMBER.txt``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_", "CI"))}
    reports = (f"--junitxml=junit-{number}.xml", f"--perf-json=perf-{number}.json")
    of_macos = {"PYTHONPATH": str(project)} if (project / "sitecustomize.py").exists() else {}
    done = subprocess.run(
        [str(python), "-m", "pytest", "-ra", *reports, *arguments],
        cwd=project,
        env={**kept, **of_macos, "COLUMNS": "200", "PATH": f"{python.parent}{os.pathsep}{kept['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    (project / f"run-{number}.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    return done


def load(environment: Environment, wheel: Path) -> Outcome | None:
    """The result that is kept; None if there is none, or something has changed since."""
    try:
        kept = json.loads(_file(environment).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Outcome(**kept["outcome"]) if kept.get("digest") == digest_of(environment, wheel) else None


def store(environment: Environment, wheel: Path, outcome: Outcome) -> None:
    """Keep a result."""
    _file(environment).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"digest": digest_of(environment, wheel), "outcome": outcome.to_json()}, indent=1)
    _file(environment).write_text(text, encoding="utf-8")


def _file(environment: Environment) -> Path:
    return CACHE / "results" / f"{environment.folder}.json"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
