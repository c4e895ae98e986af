"""Another environment is asked once for all starts of a service, until it or its answer is another one."""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs
from support.services.deploy import make_start_options

from pytest_mlpatterns import App, Command
from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.serving.external import start
from pytest_mlpatterns.serving.model import StartOptions

KEPT = json.dumps(["/old/src", []])
COPIED = json.dumps(["/old/src", [["quill", "/venv/site-packages", "/here"]]])


@pytest.fixture
def options(tmp_path: Path) -> StartOptions:
    """A revision beside a present tree with an environment in it."""
    for tree in ("here", "old"):
        (tmp_path / tree).mkdir()
    (tmp_path / "here" / "python").touch(0o700)
    trees = (tmp_path / "here", tmp_path / "old")
    return structs.replace(make_start_options(tmp_path, [1]), root=tmp_path / "old", trees=trees)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Gives the answers in turn; what is left of them stays in the list."""

    def answer(*texts: str) -> list[str]:
        left = list(texts)

        def run(_words: list[str], **_: Any) -> Any:
            said = left.pop(0).encode()
            return nullcontext(SimpleNamespace(communicate=lambda *_: (said, b""), returncode=0))

        monkeypatch.setattr(start, "guarded", run)
        return left

    return answer


def test_it_is_asked_once_and_again_if_its_python_was_replaced(
    options: StartOptions, answering: Callable[..., list[str]]
) -> None:
    target, left = Command("serve {port}", python="python"), answering(KEPT, KEPT)
    for _ in range(3):
        (program,) = start.programs_of(target, options)
        assert program.env["PYTHONPATH"] == "/old/src"
    assert len(left) == 1
    os.utime(options.root.parent / "here" / "python", (1, 1))
    for _ in range(3):
        start.programs_of(target, options)
    assert not left


def test_what_is_refused_is_asked_again(options: StartOptions, answering: Callable[..., list[str]]) -> None:
    left = answering(COPIED, KEPT, "False", "True")
    with pytest.raises(SettingError, match="quill is imported from"):
        start.programs_of(Command("serve {port}", python="python"), options)
    start.programs_of(Command("serve {port}", python="python"), options)
    app = App("service:app", python="python")
    with pytest.raises(DeploymentError, match="has no uvicorn"):
        start.programs_of(app, options)
    for _ in range(2):
        start.programs_of(app, options)
    assert not left
