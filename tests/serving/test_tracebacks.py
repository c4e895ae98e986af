"""Tracebacks: the user's frames without those of this package and of importlib, and whole ones in a log."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import pytest_mlpatterns
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.serving.model import ModelSource
from pytest_mlpatterns.serving.tracebacks import error_line, last_traceback, user_traceback

LOG = """INFO: started
Traceback (most recent call last):
  File "a.py", line 1, in first
    int("x")

ValueError: invalid literal

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 2, in second
KeyError: 'no_such_feature'
INFO: next request
"""


def test_error_of_an_imported_module_has_only_the_frames_of_its_author(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_service.py").write_text("def load():\n    raise OSError('no licence')\n\nload()\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(OSError, match="no licence") as caught:
            ModelSource("broken_service:app", "broken_service:app").load()
    finally:
        sys.modules.pop("broken_service", None)

    text = user_traceback(caught.value)

    assert "importlib" not in text
    assert "pkgutil" not in text
    assert "/serving/model.py" not in text
    assert "load()" in text
    assert text.endswith("OSError: no licence")


def test_frames_of_causes_are_hidden_too() -> None:
    def fails() -> None:
        try:
            importlib.import_module("no.such.package")
        except ImportError as error:
            raise RuntimeError("cannot start") from error

    with pytest.raises(RuntimeError) as caught:
        fails()

    text = user_traceback(caught.value)

    assert "ModuleNotFoundError: No module named 'no'" in text
    assert "importlib/__init__" not in text
    assert "<frozen" not in text


def test_error_of_this_package_keeps_its_frames() -> None:
    code = compile("raise TypeError('ours')", f"{Path(pytest_mlpatterns.__file__).parent}/any.py", "exec")
    with pytest.raises(TypeError) as caught:
        exec(code)
    assert caught.value.__traceback__ is not None
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # without the frame of this test
    assert "any.py" in user_traceback(caught.value)


def test_a_message_of_this_package_stands_without_frames() -> None:
    place = f"{Path(pytest_mlpatterns.__file__).parent}/any.py"
    with pytest.raises(DeploymentError) as caught:
        exec(compile("raise error", place, "exec"), {"error": DeploymentError("redis is not installed")})
    assert caught.value.__traceback__ is not None
    shown_from_here = user_traceback(caught.value)
    assert "any.py" not in shown_from_here
    assert "test_tracebacks.py" in shown_from_here, "a line of the user's stays"
    caught.value.__traceback__ = None
    assert user_traceback(caught.value) == "pytest_mlpatterns.DeploymentError: redis is not installed"


def test_last_whole_traceback_of_a_log_is_found() -> None:
    assert last_traceback(LOG).startswith('Traceback (most recent call last):\n  File "b.py"')
    assert last_traceback(LOG).endswith("KeyError: 'no_such_feature'")
    assert error_line(LOG) == "KeyError: 'no_such_feature'"
    assert error_line("Traceback (most recent call last):\n  File a\nE: x") == "E: x"


@pytest.mark.parametrize("length", [0, 20, 60, LOG.index("ValueError") + 8])
def test_half_a_traceback_is_none(length: int) -> None:
    assert last_traceback(LOG[:length]) == ""
    assert error_line("no traceback") == ""
