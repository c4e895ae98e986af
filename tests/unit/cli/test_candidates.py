"""What ``new`` finds in a project without importing anything."""

import os
from pathlib import Path

import pytest

from pytest_mlpatterns.cli.subject import Candidate, SubjectKind, find_candidates

APPLICATION = "import fastapi\n\nraise SystemExit('imported')\napp = fastapi.FastAPI()\n"


def write(directory: Path, name: str, text: str = "") -> None:
    file = directory / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.joblib", SubjectKind.JOBLIB),
        ("models/new/a.pkl", SubjectKind.PICKLE),
        ("a.onnx", SubjectKind.ONNX),
        ("a.pt", SubjectKind.TORCHSCRIPT),
        ("a.pt2", SubjectKind.EXPORTED),
    ],
)
def test_model_file_is_found(tmp_path: Path, name: str, kind: SubjectKind) -> None:
    write(tmp_path, name)
    assert find_candidates(tmp_path) == (Candidate(kind, name),)


@pytest.mark.parametrize(
    "name", [".cache/a.onnx", "node_modules/a.onnx", "venv/lib/a.onnx", "a/b/c/d/e/f.onnx", "dist/a.onnx"]
)
def test_hidden_installed_and_deep_files_are_left_out(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    write(tmp_path, "venv/pyvenv.cfg")
    assert find_candidates(tmp_path) == ()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("service.py", "service:app"),
        ("src/shop/service.py", "shop.service:app"),
        ("shop/__init__.py", "shop:app"),
        ("__init__.py", "__init__:app"),
    ],
)
def test_application_is_found_by_the_name_that_imports_it(tmp_path: Path, file: str, name: str) -> None:
    write(tmp_path, file, APPLICATION)
    assert find_candidates(tmp_path) == (Candidate(SubjectKind.APP, name),)


@pytest.mark.parametrize(
    "text", ["app = 1\n", "app = dict()\n", "def broken(:\n", "a = b = FastAPI()\n", "def make():\n    a = FastAPI()\n"]
)
def test_other_modules_have_no_application(tmp_path: Path, text: str) -> None:
    write(tmp_path, "service.py", text)
    write(tmp_path, "test_service.py", APPLICATION)
    assert find_candidates(tmp_path) == ()


def test_annotated_application_is_found_once_and_after_the_models(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "api: Starlette = Starlette()\napi = Starlette()\n")
    write(tmp_path, "z.onnx")
    assert [one.name for one in find_candidates(tmp_path)] == ["z.onnx", "a:api"]


def test_long_module_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "app = FastAPI()\n" + "#" * 1_000_001)
    assert find_candidates(tmp_path) == ()


def test_what_is_no_module_is_passed_by(tmp_path: Path) -> None:
    """Pipes that nothing writes to, and text beyond what Python parses."""
    os.mkfifo(tmp_path / "pipe.py")
    os.mkfifo(tmp_path / "pipe.pkl")
    write(tmp_path, "deep.py", f"x = {'-' * 200_000}1")
    assert find_candidates(tmp_path) == ()
