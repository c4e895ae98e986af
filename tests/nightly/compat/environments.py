"""The environments of ``make compat``: what is installed beside the package, what runs there, and what has to come out.

Every environment runs ``test_mixed.py``: tests of most kinds, one of which measures. A neighbour has a test file of its
own besides, ``test_NAME.py`` in the folder ``projects``, in which it and this package work in the same tests.
"""

from dataclasses import dataclass

__all__ = ["ENVIRONMENTS", "PYTHONS", "Environment", "Kind"]

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Versions of Python that the package promises."""


_PYTEST_PERF = (
    "pytest-mlpatterns and pytest-perf both own the option --perf-baseline; "
    "switch one off: pytest -p no:perf or pytest -p no:mlpatterns"
)


class Kind:
    """The tables of the page, by their heading."""

    VERSIONS = "versions"
    NEIGHBOURS = "neighbours"
    CLIENTS = "clients"


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment.

    Attributes:
        name: what it is for; the first cell of its row.
        requirements: what is installed beside the package.
        kind: the table of its row.
        shown: the package whose version the row has; the first requirement's if empty.
        files: files of ``projects`` beside ``test_mixed.py``.
        runs: arguments of pytest, for each run of it.
        passed: how many tests pass in all runs together, beside those of ``test_mixed.py``.
        mixed: whether ``test_mixed.py`` is run.
        python: version of Python; empty for the one that runs this.
        resolution: uv's strategy for versions.
        prerelease: whether pre-releases are taken.
        extras: extras of the package.
        clash: the line with which the run ends instead, where both cannot be loaded together.
        remark: what a user should know, in the table.
    """

    name: str
    requirements: tuple[str, ...] = ()
    kind: str = Kind.NEIGHBOURS
    shown: str = ""
    files: tuple[str, ...] = ()
    runs: tuple[tuple[str, ...], ...] = ((),)
    passed: int = 0
    mixed: bool = True
    python: str = ""
    resolution: str = "highest"
    prerelease: bool = False
    extras: str = ""
    clash: str = ""
    remark: str = ""

    @property
    def folder(self) -> str:
        """Its name as that of a folder."""
        return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in self.name)


def _beside(name: str, *requirements: str, **settings: object) -> Environment:
    """A neighbour with a test file of its own."""
    file = f"test_{name.replace('-', '_').replace(' ', '_')}.py"
    return Environment(name, requirements or (name,), files=(file,), **settings)  # type: ignore[arg-type]


def _version(name: str, *requirements: str, **settings: object) -> Environment:
    """A version of pytest, of Python, or of what the package needs, which runs every pattern too."""
    return Environment(name, requirements, kind=Kind.VERSIONS, files=("test_installed.py",), passed=7, **settings)  # type: ignore[arg-type]


ENVIRONMENTS = (
    _version("pytest 8.2", "pytest==8.2.*"),
    _version("pytest 8, newest", "pytest==8.*"),
    _version("pytest 9, newest", "pytest==9.*"),
    _version("pre-releases of everything", "pytest", prerelease=True),
    *(_version(f"Python {version}", python=version) for version in PYTHONS),
    _version("lowest direct dependencies", resolution="lowest-direct"),
    Environment(
        "lowest direct dependencies, those of the extras too",
        kind=Kind.VERSIONS,
        files=("test_installed.py", "test_extras.py", "service.py"),
        passed=13,
        resolution="lowest-direct",
        extras="all",
    ),
    Environment(
        "Linux made to look like macOS",
        kind=Kind.VERSIONS,
        files=("test_installed.py", "sitecustomize_macos.py"),
        passed=7,
        remark="without epoll, timerfd, affinity and what macOS shows to root only",
    ),
    Environment("pytest-xdist", ("pytest-xdist",), runs=(("-n", "2"),)),
    _beside("pytest-asyncio", passed=3),
    _beside("anyio", "anyio", "trio", passed=4),
    _beside("pytest-cov", runs=(("--cov=.", "--cov-branch"),), passed=1),
    _beside("pytest-timeout", runs=(("--timeout=200",),), passed=2),
    Environment("pytest-randomly", ("pytest-randomly",), runs=(("-p", "randomly", "-p", "no:cacheprovider"),)),
    _beside("pytest-rerunfailures", runs=(("--reruns=2",),), passed=1, remark="a rerun measures anew"),
    _beside("pytest-repeat", runs=(("--count=2", "test_pytest_repeat.py"),), passed=2, mixed=False),
    _beside("flaky", passed=1),
    _beside("pytest-benchmark", passed=2),
    _beside("pytest-codspeed", runs=((), ("--codspeed", "test_pytest_codspeed.py")), passed=3),
    _beside("pytest-httpserver", passed=1),
    _beside("pytest-mock", passed=1),
    _beside("hypothesis", passed=2),
    _beside("pytest-django", "pytest-django", "django", passed=2),
    _beside("pytest-flask", passed=2),
    Environment("pytest-docker", ("pytest-docker",), remark="its containers are not started here"),
    Environment("pytest-sugar", ("pytest-sugar",), runs=(("--force-sugar",),)),
    Environment("pytest-rich", ("pytest-rich",), runs=(("--rich",),)),
    Environment("pytest-html", ("pytest-html",), runs=(("--html=report.html", "--self-contained-html"),)),
    Environment("allure-pytest", ("allure-pytest",), runs=(("--alluredir=allure",),)),
    Environment("pytest-split", ("pytest-split",), runs=(("--splits=2", "--group=1"), ("--splits=2", "--group=2"))),
    _beside("pytest-order", passed=2),
    _beside("pytest-subtests", passed=3, remark="pytest 9 has subtests of its own"),
    Environment(
        "pytest-memray",
        ("pytest-memray",),
        runs=(("--memray",),),
        remark="it sees the process of pytest, not the processes that serve",
    ),
    _beside("locust", runs=(("--host=http://127.0.0.1",),), passed=2),
    Environment("pytest-perf", ("pytest-perf",), clash=_PYTEST_PERF),
    Environment("switched-off pytest-perf", ("pytest-perf",), runs=(("-p", "no:perf"),)),
    Environment("pytest-perf-report", ("pytest-perf-report",), runs=(("--perf-report", "report.html"),)),
    Environment(
        "KServe's SDK", ("kserve",), kind=Kind.CLIENTS, files=("test_kserve.py",), passed=2, mixed=False, extras="grpc"
    ),
    Environment(
        "MLflow", ("mlflow", "scikit-learn"), kind=Kind.CLIENTS, files=("test_mlflow.py",), passed=2, mixed=False
    ),
)
