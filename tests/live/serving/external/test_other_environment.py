"""A service in another environment, which lacks this package and pytest."""

import os
import venv
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
from msgspec import structs
from support import SERVICES
from support.installed import installed_copy
from support.services.deploy import make_start_options

from pytest_mlpatterns import App, Command, DeploymentError
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.serving.external.start import deploy_target, programs_of
from pytest_mlpatterns.serving.model import StartOptions
from pytest_mlpatterns.serving.targets import Target

pytestmark = pytest.mark.processes

PYTHON = "venv/bin/python"
APP = """
import importlib.util, json, sys, where

async def app(scope, receive, send):
    if scope["type"] == "http":
        absent = [name for name in ("pytest", "msgspec", "httpx") if importlib.util.find_spec(name) is None]
        found = json.dumps({"predictions": [[sys.prefix, where.TREE, absent]]}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": found})
"""


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartOptions:
    """A project at a present tree, with an environment in it where its folder ``src`` is installed, and an old tree."""
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    for top in ("here", "old"):
        (tmp_path / top / "src").mkdir(parents=True)
        (tmp_path / top / "src" / "where.py").write_text(f"TREE = {top!r}")
        (tmp_path / top / "service.py").write_text(APP)
    venv.create(tmp_path / "here" / "venv", symlinks=True)
    (tmp_path / "files").mkdir()
    return structs.replace(make_start_options(tmp_path / "files", [1]), root=tmp_path / "here")


def site_of(options: StartOptions) -> Path:
    """Where its packages are."""
    return next((options.directory.parent / "here" / "venv").glob("lib/python3*/site-packages"))


def at_the_old_tree(options: StartOptions) -> StartOptions:
    """The same for a comparison with a revision."""
    top = options.directory.parent
    (site_of(options) / "project.pth").write_text(str(top / "here" / "src"))
    return structs.replace(options, root=top / "old", trees=(top / "here", top / "old"))


def test_an_application_is_served_there_without_this_package_from_either_tree(options: StartOptions) -> None:
    target, top = App("service:app", python=PYTHON), options.directory.parent
    with pytest.raises(DeploymentError, match=r"has no uvicorn, .*; install it: \S+/venv/bin/python -m pip install uv"):
        deploy_target(target, options)
    for name in ("uvicorn", "click", "h11"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (site_of(options) / name).symlink_to(Path(spec.origin).parent)
    for tree, options in (("old", at_the_old_tree(options)), ("here", options)):  # noqa: B020, PLR1704
        with closing(deploy_target(target, options)) as deployment:
            assert deployment.predict(1) == [str(top / "here" / "venv"), tree, ["pytest", "msgspec", "httpx"]]
            assert deployment.facts()["packages"] == "loaded"
    with pytest.raises(DeploymentError, match=r"(?s)No module named 'servce'; did you mean service\?") as caught:
        deploy_target(App("servce:app", python=PYTHON), options)
    assert "asgi_server" not in str(caught.value)


def test_a_command_has_its_python_its_commands_and_its_editable_projects_of_the_revision(options: StartOptions) -> None:
    old = at_the_old_tree(options)
    (program,) = programs_of(Command("{python} -m serve {port}", python=PYTHON), old)
    top = options.directory.parent
    assert program.words == (str(top / "here" / PYTHON), "-m", "serve", "{port}")
    assert program.env["PATH"].split(os.pathsep)[0] == str(top / "here" / "venv" / "bin")
    assert str(top / "old" / "src") in program.env["PYTHONPATH"].split(os.pathsep)
    assert "PYTHONPATH" not in programs_of(Command("serve {port}", python=PYTHON), options)[0].env


def test_a_copy_of_the_project_there_is_the_same_code_on_both_sides(options: StartOptions) -> None:
    old, top = at_the_old_tree(options), options.directory.parent / "here"
    installed_copy(site_of(options), top, {"quill/__init__.py": ""}, name="quill")
    command = Command("serve {port}", python=PYTHON)
    with pytest.raises(SettingError, match=rf"^quill is imported .*; run {top}/{PYTHON} -m pip install -e \.$"):
        programs_of(command, old)
    assert programs_of(command, options)  # with no revision beside it
    (options.directory.parent / "old" / "quill").mkdir()
    (options.directory.parent / "old" / "quill" / "__init__.py").touch()
    assert programs_of(command, old), "what lies in the working directory is found first"


def test_a_python_that_is_none_is_refused_and_one_that_hangs_is_ended(options: StartOptions, tmp_path: Path) -> None:
    wrapper = tmp_path / "python"
    wrapper.write_text("#!/no/such/python\n")
    wrapper.chmod(0o755)
    with pytest.raises(DeploymentError, match=r"is no Python that runs; it printed .*python"):
        deploy_target(App("service:app", python=wrapper), options)
    wrapper.write_text("#!/bin/sh\nsleep 600\n")
    with pytest.raises(DeploymentError, match="has not answered after 500 ms, expected a Python"):
        deploy_target(App("service:app", python=wrapper), structs.replace(options, timeout_ns=500_000_000))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (App("service:app", python="nowhere/bin/python"), "python='nowhere/bin/python', but "),
        (
            Command("serve {port}", python=Path("nowhere"), companions=[Command("sleep 9 {port}")]),
            "/nowhere does not exist, expected the Python",
        ),
        (Command("serve {port}", python="venv"), "/venv is a directory, expected the Python of the environment that"),
        (Command("serve {port}", python=SERVICES / "behaving.py"), "behaving.py cannot be run, expected the Python"),
        (App("service:app", python="/bin/false"), "is no Python that runs"),
    ],
    ids=["no file", "no file of a command", "directory", "not executable", "no Python"],
)
def test_another_environment_that_cannot_serve_is_refused_before_anything_starts(
    options: StartOptions, target: Target, expected: str
) -> None:
    with pytest.raises(DeploymentError) as caught:
        deploy_target(target, options)
    assert expected in str(caught.value)
    assert not [*options.directory.glob("supervisor*")]
