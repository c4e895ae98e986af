"""Models of every kind and from every place."""

from pathlib import Path

import pytest
from support.project import Project

pytestmark = pytest.mark.processes

KINDS = """
import pytest

from pytest_mlpatterns import Replicated
from beside import beside_function, BesideClass, made_beside

OFFSET = 1
pytestmark = pytest.mark.perf(payload=[1])

def shifted(value):
    return value + OFFSET

def function(batch):
    return [shifted(value) for value in batch]

class Class:
    def __init__(self):
        self.weight = shifted(0)

    def __call__(self, batch):
        return [value + self.weight for value in batch]

def closure(weight):
    return lambda batch: [value + weight for value in batch]

class Asynchronous:
    async def __call__(self, batch):
        return [value + OFFSET for value in batch]

class Method:
    weight = 1

    def answer(self, batch):
        return [value + self.weight for value in batch]

@pytest.fixture
def perf_model(request):
    return {
        "function": function,
        "class": Class,
        "instance": Class(),
        "lambda": lambda batch: [value + 1 for value in batch],
        "closure": closure(1),
        "method": Method().answer,
        "asynchronous": Asynchronous,
        "import-string": "importable:predict",
        "import-string-of-a-class": "importable:Nested.Model",
        "conftest": request.getfixturevalue("from_conftest"),
        "beside-function": beside_function,
        "beside-class": BesideClass,
        "beside-closure": made_beside(1),
        "numpy": request.getfixturevalue("of_numpy"),
    }[request.node.callspec.params["kind"]]

@pytest.fixture
def of_numpy():
    import numpy

    return lambda batch: numpy.asarray(batch) + 1

@pytest.mark.parametrize(
    "kind",
    ["function", "class", "instance", "lambda", "closure", "method", "asynchronous", "import-string",
     "import-string-of-a-class", "conftest", "beside-function", "beside-class", "beside-closure", "numpy"],
)
def test_kind(perf, kind):
    assert perf.predict(41) == 42

@pytest.mark.parametrize("kind", ["class", "beside-class"])
@pytest.mark.perf(pattern=Replicated())
def test_replicated(perf, kind):
    assert [perf.predict(41), perf.predict(1)] == [42, 2]
"""
MODELS = (
    Project()
    .with_file("checks/test_kinds.py", KINDS)
    .with_file(
        "checks/beside.py",
        """
        from further import WEIGHT

        def beside_function(batch):
            return [value + WEIGHT for value in batch]

        class BesideClass:
            def __call__(self, batch):
                return beside_function(batch)

        def made_beside(weight):
            return lambda batch: [value + weight for value in batch]
        """,
    )
    .with_file("checks/further.py", "WEIGHT = 1\n")
    .with_file(
        "checks/conftest.py",
        """
        import pytest

        BIAS = 1

        class Kept:
            def __call__(self, batch):
                return [value + BIAS for value in batch]

        @pytest.fixture
        def from_conftest():
            return Kept
        """,
    )
    .with_file(
        "importable.py",
        """
        def predict(batch):
            return [value + 1 for value in batch]

        class Nested:
            class Model:
                def __call__(self, batch):
                    return predict(batch)
        """,
    )
)


def test_a_model_may_be_of_any_kind_and_from_anywhere(tmp_path: Path) -> None:
    run = MODELS.run(tmp_path, "--perf-smoke", "-v")
    assert (run.exit_code, run.outcomes["passed"]) == (0, 16)


@pytest.mark.parametrize("how", [("--import-mode=importlib",), ("-n", "1")], ids=["importlib", "xdist"])
def test_models_reach_their_process_however_modules_are_imported(tmp_path: Path, how: tuple[str, ...]) -> None:
    """Three kinds, whose way into another process depends on that."""
    project = MODELS.with_ini(pythonpath=". checks")
    run = project.run(tmp_path, "--perf-smoke", "-v", "-k", "[closure or conftest or beside-class", *how)
    assert (run.exit_code, run.outcomes["passed"]) == (0, 4)


def test_a_module_beside_a_test_reaches_a_process_that_cannot_import_their_package(
    tmp_path: Path,
) -> None:
    project = (
        Project()
        .with_ini(pythonpath="elsewhere")
        .with_file("elsewhere/checks/other.py", "")
        .with_file("checks/__init__.py", "")
        .with_file("checks/beside.py", "def model(batch):\n    return batch\n")
        .with_file(
            "checks/test_it.py",
            """
            import pytest

            from .beside import model

            @pytest.mark.perf(model=model, payload=[1])
            def test_it(perf): pass
            """,
        )
    )
    off_path = {"PYTHONSAFEPATH": "1"}  # else the working directory is on the import path
    run = project.run_apart(tmp_path, "--perf-smoke", "--import-mode=importlib", environment=off_path)
    assert (run.exit_code, run.outcomes["passed"]) == (0, 1)
