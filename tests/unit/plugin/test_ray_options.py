"""A run that asks for Ray, where it is not installed or its settings cannot be read: one line, and nothing has run."""

from pathlib import Path

import pytest
from support.project import Project

WITHOUT_RAY = """
    from pytest_mlpatterns.engines.ray import engine

    engine._is_installed = lambda package: False
"""
PROJECT = Project().with_tests("def test_rtm(perf):\n    perf.assert_rtm_below('1s')")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--perf-engine=ray"], 'engine="ray" needs the package ray, which is not installed'),
        (["--perf-generators-on=ray"], 'generators_on="ray" needs the package ray, which is not installed'),
    ],
)
def test_without_the_extra_the_run_ends_with_what_to_install(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_mlpatterns.engines.ray.engine._is_installed", lambda _package: False)
    run = PROJECT.with_file("conftest.py", WITHOUT_RAY).run(tmp_path, *arguments)
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR == 4
    assert [*filter(None, run.errors)] == [f"ERROR: {message}; install it: pip install 'pytest-mlpatterns[ray]'"]


def test_an_unreadable_address_ends_the_run_if_a_test_uses_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_mlpatterns.engines.ray.engine._is_installed", lambda _package: True)
    project = PROJECT.with_file("conftest.py", WITHOUT_RAY.replace("False", "True"))
    environment = {"RAY_ADDRESS": "ray://10.0.0.1:10001"}
    run = project.run(tmp_path, "--perf-engine=ray", environment=environment)
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    (error,) = filter(None, run.errors)
    assert error.startswith("ERROR: RAY_ADDRESS=ray://10.0.0.1:10001: Ray Client is not supported")


@pytest.mark.processes
def test_an_address_that_cannot_be_read_is_no_error_of_a_run_without_ray(tmp_path: Path) -> None:
    run = PROJECT.run(tmp_path, "--perf-smoke", environment={"RAY_ADDRESS": "ray://10.0.0.1:10001"})
    assert run.outcomes == {"passed": 1}
