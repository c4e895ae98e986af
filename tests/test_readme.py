"""The README keeps what it says: its tests run, its options, names and messages exist, its links lead somewhere."""

from __future__ import annotations

import ast
import math
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from support.project import Project

import pytest_mlpatterns
from pytest_mlpatterns.config.settings import merge_markers
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.plugin.options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def block(first_lines: str) -> str:
    """The block of Python that begins so."""
    (found,) = [text for text in blocks("python") if text.startswith(first_lines)]
    return found


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    return found


def heading_anchors(text: str) -> set[str]:
    titles: Sequence[str] = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_first_test_passes_as_it_stands(tmp_path: Path) -> None:
    first = block("# test_perf.py\n")

    run = Project().with_file("test_perf.py", first).run(tmp_path, "test_perf.py", "--perf-duration", "300ms")

    assert run.exit_code == 0, run.out
    assert "test_sum" in run.section("performance")


def test_the_test_of_patterns_runs_beside_the_first_one(tmp_path: Path) -> None:
    both = block("# test_perf.py\n") + block("import pytest\nfrom pytest_mlpatterns import Batched")

    run = Project().with_file("test_perf.py", both).run(tmp_path, "--perf-smoke")

    assert run.exit_code == 0, run.out
    assert "3 perf tests sent one request each" in run.section("performance")


def test_the_test_of_a_service_runs_as_it_stands_beside_such_a_service(tmp_path: Path) -> None:
    service = (ROOT / "examples" / "servers" / "fastapi" / "service.py").read_text(encoding="utf-8")
    project = Project().with_file("service.py", service).with_file("test_service.py", block("# test_service.py\n"))

    run = project.run(tmp_path, "--perf-smoke")

    assert run.exit_code == 0, run.out
    assert "1 perf test sent one request" in run.section("performance")


def test_every_option_is_told_and_every_one_that_is_told_exists() -> None:
    assert set(re.findall(r"--perf-([\w-]*\w)", README)) == set(OPTIONS)


def test_the_marker_is_told_with_all_arguments_that_it_takes_and_no_others() -> None:
    (told,) = re.findall(r"^`perf\((.*?)\)`\. ", README, re.DOTALL | re.MULTILINE)
    names = re.findall(r"(\w+)=", re.sub(r"\([^()]*\)", "", told))
    with pytest.raises(SettingError, match="allowed are: ") as caught:
        merge_markers([((), {"no_such_argument": 1})])
    explained = re.findall(r"`(\w+)=`", "".join(re.findall(r"^\| (`.+?) \|", section("The marker"), re.MULTILINE)))

    assert set(names) == set(str(caught.value).partition("allowed are: ")[2].split(", "))
    assert explained
    assert set(explained) <= set(names)


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


def test_every_section_is_found_from_the_top_but_the_last() -> None:
    titles = re.findall(r"^## (.+)$", README, re.MULTILINE)
    linked = set(re.findall(r"\]\(#([\w-]+)\)", README.partition("\n## ")[0]))

    assert linked == {title.lower().replace(" ", "-") for title in titles[:-1]}


@cache
def texts_in_the_code() -> frozenset[tuple[str | None, ...]]:
    """Every text that stands in the package, in pieces; None is what is put in."""
    found: set[tuple[str | None, ...]] = set()
    for file in (ROOT / "pytest_mlpatterns").glob("**/*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add(tuple(str(part.value) if isinstance(part, ast.Constant) else None for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add((node.value,))
    return frozenset(found)


def is_told_by(message: str, pieces: tuple[str | None, ...]) -> bool:
    """Whether a message, which ``…`` at its end cuts short, comes of a text in the code, and a quarter stands there."""
    begun, is_cut = message.removesuffix("…").rstrip(), message.endswith("…")
    if not any(len(piece) > 8 and piece[:16] in begun for piece in pieces if piece is not None):
        return False

    def standing(at: int, rest: str) -> float:
        """How many letters of the rest stand in the code, at most; minus infinity where it cannot come of it."""
        if not rest or at == len(pieces):
            return 0 if not rest and (is_cut or at == len(pieces)) else -math.inf
        piece = pieces[at]
        if piece is None:
            return max(standing(at + 1, rest[taken:]) for taken in range(1, len(rest) + 1))
        if rest.startswith(piece):
            return len(piece) + standing(at + 1, rest[len(piece) :])
        return len(rest) if is_cut and piece.startswith(rest) else -math.inf

    return standing(0, begun) > len(begun) / 4


@pytest.mark.parametrize(
    "message",
    [
        " ".join(quoted.split())
        for quoted in re.findall(r"\*\*`(.+?)`\*\*", section("When something is not as expected"), re.DOTALL)
    ],
)
def test_every_message_that_is_quoted_stands_in_the_code(message: str) -> None:
    assert any(is_told_by(message, pieces) for pieces in texts_in_the_code())


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
