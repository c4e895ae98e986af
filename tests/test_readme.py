"""The README keeps what it says: its first test runs, its options and names exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import pytest_mlpatterns
from pytest_mlpatterns.config import merge_markers
from pytest_mlpatterns.options import OPTIONS
from pytest_mlpatterns.perf import Perf
from tests.project import Project

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def heading_anchors(text: str) -> set[str]:
    titles: Sequence[str] = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_first_test_passes_as_it_stands(tmp_path: Path) -> None:
    (first,) = [block for block in blocks("python") if block.startswith("# test_perf.py\n")]

    run = Project().with_file("test_perf.py", first).run(tmp_path, "test_perf.py", "--perf-duration", "300ms")

    assert run.exit_code == 0, run.out
    assert "test_sum" in run.section("performance")


def test_every_option_is_told_and_every_one_that_is_told_exists() -> None:
    assert set(re.findall(r"--perf-([\w-]*\w)", README)) == set(OPTIONS)


def test_the_marker_is_told_with_arguments_that_it_takes() -> None:
    (told,) = re.findall(r"^`perf\((.*?)\)`\. ", README, re.DOTALL | re.MULTILINE)
    names = re.findall(r"(\w+)=", re.sub(r"\([^()]*\)", "", told))

    merged = merge_markers([((), dict.fromkeys(names))])

    assert set(merged) == set(names)


def test_every_assertion_is_told_and_every_one_that_is_told_exists() -> None:
    named = set(re.findall(r"\bassert_\w+", README))

    assert named == {name for name in dir(Perf) if name.startswith("assert_")}


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0])
def test_python_is_python(block: str) -> None:
    compile(block, "README.md", "exec")


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.splitlines()[0])
def test_yaml_is_yaml(block: str) -> None:
    assert yaml.safe_load(block)


def test_names_imported_from_the_package_are_public() -> None:
    named = {name for line in re.findall(r"from pytest_mlpatterns import (.+)", README) for name in line.split(", ")}

    assert named <= set(pytest_mlpatterns.__all__)


@pytest.mark.parametrize(
    "file", [ROOT / "README.md", *sorted((ROOT / "examples").glob("**/README.md"))], ids=lambda file: file.parent.name
)
def test_links_lead_somewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in heading_anchors(text), target
        elif not target.startswith("http"):
            assert (file.parent / target).exists(), target
