"""Public names: every one resolves, is told to type checkers, and shows in tracebacks as users import it."""

import ast
import inspect
import pickle
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest
from support.each_row import each_row

import pytest_mlpatterns
from pytest_mlpatterns import errors
from pytest_mlpatterns.errors import LimitFailure, PerfFailure

PUBLIC = [name for name in pytest_mlpatterns.__all__ if name != "__version__"]


def imports_for_type_checkers() -> dict[str, str]:
    """Name → module, of the imports of the stub."""
    stub = Path(pytest_mlpatterns.__file__).with_suffix(".pyi")
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    return {
        name: str(node.module)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        for name in given_on(alias, str(node.module))
    }


def given_on(alias: ast.alias, module: str) -> list[str]:
    """The names that an import of a stub gives on: of ``A as A`` that name, of ``*`` what the module lists."""
    names: list[str] = import_module(module).__all__ if alias.name == "*" else [alias.asname or ""]
    return names


def test_every_public_name_resolves() -> None:
    for name in pytest_mlpatterns.__all__:
        assert getattr(pytest_mlpatterns, name) is not None, name
    assert set(pytest_mlpatterns.__all__) <= set(dir(pytest_mlpatterns))


def test_public_names_are_those_that_type_checkers_see() -> None:
    assert sorted(imports_for_type_checkers()) == sorted(PUBLIC)


def test_a_public_name_is_the_one_that_type_checkers_see() -> None:
    for name, module in imports_for_type_checkers().items():
        assert getattr(pytest_mlpatterns, name) is getattr(import_module(module), name), name


@pytest.mark.parametrize("name", ["Nonsense", "_HOMES_", "metrics_"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'pytest_mlpatterns' has no attribute '{name}'"):
        getattr(pytest_mlpatterns, name)


def test_an_unknown_name_cannot_be_imported() -> None:
    with pytest.raises(ImportError, match="Nonsense"):
        exec("from pytest_mlpatterns import Nonsense")


@pytest.mark.processes
def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, pytest_mlpatterns\n"
        "print(sorted(sys.modules.keys() & {'numpy', 'httpx', 'uvicorn', 'psutil', 'orjson', 'httptools'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert pytest_mlpatterns.__version__ == version("pytest-mlpatterns")


CLASSES = [name for name in errors.__all__ if name != "missing_extra"]


def test_every_error_and_warning_is_public_and_has_a_docstring() -> None:
    for name in CLASSES:
        found = getattr(pytest_mlpatterns, name)
        assert found is getattr(errors, name), name
        assert inspect.getdoc(found), name


def test_every_class_of_the_module_is_listed() -> None:
    classes = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    defined = [name for name, one in classes.items() if issubclass(one, Exception) and name[0] != "_"]
    assert sorted(defined) == sorted(CLASSES)
    assert Sequence.__module__ == "collections.abc"  # by which it is pickled


def test_a_verdict_shows_its_figures_first_and_every_other_error_the_name_to_import() -> None:
    """A class of ``builtins`` is printed without its module."""
    for name in CLASSES:
        found = getattr(errors, name)
        module = "builtins" if issubclass(found, errors.PerfFailure) else "pytest_mlpatterns"
        assert found.__module__ == module, name


@each_row(
    ("name", "base"),
    ("SettingError", ValueError),
    ("UnitError", errors.SettingError),
    ("ModelLoadError", errors.DeploymentError),
    ("PerfFailure", AssertionError),
    ("LimitFailure", errors.PerfFailure),
    ("RegressionFailure", errors.PerfFailure),
    ("InconclusiveFailure", errors.PerfFailure),
    ("PerfWarning", UserWarning),
    ("InconclusiveWarning", errors.PerfWarning),
    ("UnusedMarkerWarning", errors.PerfWarning),
)
def test_errors_can_be_caught_by_their_kind(name: str, base: type) -> None:
    assert issubclass(getattr(errors, name), base)


def test_an_error_is_no_verdict_and_a_verdict_no_error() -> None:
    for name in CLASSES:
        kinds = (errors.MlpatternsError, errors.PerfFailure, errors.PerfWarning)
        assert sum(issubclass(getattr(errors, name), kind) for kind in kinds) == 1


@each_row(
    ("failure", "reasons"),
    (LimitFailure("median latency is slow\n  test t", ["median latency is slow"]), ("median latency is slow",)),
    (PerfFailure("no baseline\n  more"), ("no baseline",)),
    (PerfFailure(), ()),
)
def test_a_failure_carries_its_reasons(failure: PerfFailure, reasons: tuple[str, ...]) -> None:
    assert failure.reasons == reasons


@pytest.mark.parametrize(
    "kind", [PerfFailure, errors.LimitFailure, errors.RegressionFailure, errors.InconclusiveFailure]
)
def test_a_failure_travels_between_processes(kind: type[PerfFailure]) -> None:
    failure = pickle.loads(pickle.dumps(kind("the first\nthe second", ["one", "two"])))
    assert type(failure) is kind
    assert failure.args == ("the first\nthe second",)
    assert failure.reasons == ("one", "two")
    assert type(pickle.loads(pickle.dumps(kind()))) is kind
