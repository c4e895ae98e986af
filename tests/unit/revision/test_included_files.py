"""Which files the dependency files of a project include, and that following them ends."""

from pathlib import Path

import pytest
from support.each_row import each_row

from pytest_mlpatterns.revision.dependencies import with_included

DYNAMIC = '[tool.setuptools.dynamic]\ndependencies = {file = ["deps.in", "more.in"]}\n'


def included(directory: Path, first: str, **files: str) -> set[str]:
    """What ``first`` includes; the names of the other files have an underscore for the dot."""
    for name, text in files.items():
        (directory / name.replace("_", ".")).write_text(text, encoding="utf-8")
    found = with_included([directory / first], directory)
    return {file.relative_to(directory).as_posix() for file in found} - {first}


@pytest.mark.parametrize(
    "line",
    [
        "-r base.txt",
        "-rbase.txt",
        "  -c base.txt  # why",
        "--requirement base.txt",
        "--requirement=base.txt",
        "--constraint './base.txt'",
        "-r \\\n  base.txt",
    ],
)
def test_a_line_of_requirements_includes_a_file(tmp_path: Path, line: str) -> None:
    assert included(tmp_path, "requirements.txt", requirements_txt=f"numpy\n{line}\n", base_txt="") == {"base.txt"}


@pytest.mark.parametrize(
    "line", ["# -r base.txt", "--require-hashes base.txt", "base.txt", "-r https://x/base.txt", "-r"]
)
def test_another_line_includes_none(tmp_path: Path, line: str) -> None:
    assert included(tmp_path, "requirements.txt", requirements_txt=f"{line}\n", base_txt="") == set()


@each_row(
    ("first", "text", "expected"),
    ("pyproject.toml", DYNAMIC, {"deps.in", "more.in"}),
    ("pyproject.toml", '[tool.setuptools.dynamic.optional-dependencies]\nfast = {file = "fast.in"}\n', {"fast.in"}),
    ("pyproject.toml", "[tool.setuptools]\ndynamic = 3\n", set()),
    ("pyproject.toml", "[tool.setuptools.dynamic]\ndependencies = {attr = 'deps.in'}\n", set()),
    ("pyproject.toml", "no toml", set()),
    ("setup.cfg", "[options]\ninstall_requires = file: deps.in, more.in\n", {"deps.in", "more.in"}),
    ("setup.cfg", "[options.extras_require]\nfast = file: fast.in\nslow =\n  slow\n", {"fast.in"}),
    ("setup.cfg", "no ini file", set()),
    ("setup.py", "-r deps.in", set()),
)
def test_setuptools_includes_files_for_a_project(tmp_path: Path, first: str, text: str, expected: set[str]) -> None:
    (tmp_path / first).write_text(text, encoding="utf-8")
    assert included(tmp_path, first, deps_in="", more_in="", fast_in="") == expected


def test_files_are_followed_through_others_from_their_own_directory(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "test.in").write_text("-r base.in\n-c ../limits.txt\n")
    (tmp_path / "requirements" / "base.in").write_text("numpy\n")
    found = included(tmp_path, "requirements.txt", requirements_txt="-r requirements/test.in\n", limits_txt="")
    assert found == {"requirements/test.in", "requirements/base.in", "limits.txt"}


def test_files_that_include_each_other_are_read_once(tmp_path: Path) -> None:
    ring = {"requirements_txt": "-r a.txt\n-r requirements.txt\n", "a_txt": "-r requirements.txt\n-r a.txt\n"}
    assert included(tmp_path, "requirements.txt", **ring) == {"a.txt"}


def test_a_file_outside_of_the_project_is_not_read(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "secret.txt").write_text("-r inside.txt\n")
    (project / "link.txt").symlink_to(tmp_path / "secret.txt")
    (project / "ring.txt").symlink_to(project / "ring.txt")
    lines = f"-r ../secret.txt\n-r {tmp_path / 'secret.txt'}\n-r link.txt\n-r ring.txt\n-r missing.txt\n-r a\0b\n-r .\n"
    assert included(project, "requirements.txt", requirements_txt=lines, inside_txt="") == set()


def test_a_large_file_and_more_than_a_hundred_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_bytes(b"#" * (2**20 + 1))
    assert included(tmp_path, "requirements.txt", requirements_txt="-r large.txt\n" + "-r" + " " * 900_000) == set()
    chain = {f"a{number}_txt": f"-r a{number + 1}.txt\n" for number in range(200)}
    assert len(included(tmp_path, "requirements.txt", requirements_txt="-r a0.txt\n", **chain)) == 99
