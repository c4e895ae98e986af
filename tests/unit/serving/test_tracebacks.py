"""Tracebacks: the user's frames without those of this package and of importlib, and whole ones in a log."""

import importlib
import sys
from pathlib import Path

import pytest
from support.each_row import each_row

import pytest_mlpatterns
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.serving.model import ModelSource
from pytest_mlpatterns.serving.tracebacks import error_line, folded, last_traceback, user_traceback

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


def test_error_of_an_imported_module_has_its_author_s_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def _frame(file: str, code: str = "    run()\n    ^^^^^\n") -> str:
    return f'  File "{file}", line 3, in run\n{code}'


def test_neighbouring_frames_of_packages_stand_in_one_line() -> None:
    server = [_frame(f"/venv/lib/python3.12/site-packages/{name}") for name in ("uvicorn/run.py", "uvicorn/a.py")]
    pool = _frame("/venv/lib/python3.12/site-packages/pool.py", "")
    mine = _frame("/home/me/app.py")
    head, error = "INFO: ready\nTraceback (most recent call last):\n", "KeyError: 'a'\nINFO: goes on"
    assert folded(head + "".join(server) + pool + mine + error) == (
        f"{head}  [3 frames of uvicorn and pool]\n{mine}{error}"
    )
    assert folded(head + pool + mine + error) == head + pool + mine + error  # a single one is no longer than its line
    assert folded(head + mine + "".join(server) + pool + error) == (
        f"{head}{mine}  [2 frames of uvicorn]\n{pool}{error}"  # the error comes from the last one
    )


def test_frames_of_a_group_of_exceptions_are_folded_behind_their_bars() -> None:
    frames = "".join(_frame(f"/opt/dist-packages/anyio/{name}.py", "    run()\n") for name in "ab")
    text = "".join(f"  | {line}\n" for line in f"{frames}{_frame('/me/app.py')}ValueError: no".splitlines())
    first, second, *_ = folded(text).splitlines()
    assert first == "  |   [2 frames of anyio]"
    assert "/me/app.py" in second


@each_row("text", ["", "ready\n", '  File "/x/site-packages/a.py", line 1', "  File\n", "|\n  | \n"])
def test_output_without_such_frames_stays(text: str) -> None:
    assert folded(text) == text
