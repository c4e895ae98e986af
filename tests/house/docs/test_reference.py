"""The pages are complete and true: options, arguments, metrics, names, messages and layers are those of the code."""

import ast
import math
import re
import tomllib
from functools import cache

import pytest
from support.each_row import each_row
from support.pages import ROOT, first_cells, page, pages, section

import pytest_mlpatterns
from pytest_mlpatterns import App, Command, Url, patterns
from pytest_mlpatterns.analysis.metrics.definitions import METRICS, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.cli import main
from pytest_mlpatterns.config.arguments import merge_markers
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.plugin.options import OPTIONS


def test_readme_is_short() -> None:
    assert len(page("README.md").split()) <= 1200


def test_every_option_is_in_the_reference() -> None:
    cells = first_cells(page("docs/reference/options.md"))
    documented = [name for cell in cells for name in re.findall(r"`--perf-([\w-]*\w)", cell)]
    assert sorted(documented) == sorted([*OPTIONS, "help"])


def test_every_option_on_a_page_exists() -> None:
    for name in pages():
        assert set(re.findall(r"--perf-([\w-]*\w)", page(name))) <= {*OPTIONS, "help"}, name


def test_a_path_stands_behind_an_equals_sign() -> None:
    paths = "|".join(name for name, attributes in OPTIONS.items() if attributes.get("metavar") == "PATH")
    places = [ROOT / "action.yml", *(ROOT / name for name in pages()), *(ROOT / "pytest_mlpatterns").rglob("*.py")]
    places += [one for ending in ("md", "py", "yml", "yaml") for one in (ROOT / "examples").rglob(f"*.{ending}")]
    for place in places:
        text = place.read_text(encoding="utf-8")
        assert not re.findall(rf"--perf-(?:{paths})[ \"',]+(?:PATH|[\w$/{{~.-]*[/.]\w+)", text), place


def test_every_ini_key_on_a_page_exists() -> None:
    for name in pages():
        keys = set(re.findall(r"\bperf_(\w+) =", page(name))) - {"version"}  # an attribute of a model
        assert {key.replace("_", "-") for key in keys} <= set(OPTIONS), name


def test_every_argument_of_the_marker_is_in_the_reference() -> None:
    with pytest.raises(SettingError, match="allowed are: ") as caught:
        merge_markers([((), {"no_such_argument": 1})])
    allowed = str(caught.value).partition("allowed are: ")[2].split(", ")
    documented = [cell.strip("`=") for cell in first_cells(section("docs/reference/marker.md", "Arguments"))]
    assert sorted(documented) == sorted(allowed)


def test_every_assertion_is_in_the_reference_and_every_one_on_a_page_exists() -> None:
    exist = {name for name in dir(Perf) if name.startswith("assert_")}
    left_out = re.search(
        r"autoclass:: Perf\(\)\n   :members:\n   :exclude-members: (.+)", page("docs/reference/assertions.md")
    )
    named = {name for text in map(page, pages()) for name in re.findall(r"\bassert_\w*[a-z]\b", text)}
    assert left_out is not None
    assert exist.isdisjoint(left_out[1].split(", "))
    assert set(re.findall(r"\bassert_\w+", "".join(first_cells(page("docs/reference/assertions.md"))))) == exist
    assert named <= exist


def test_every_command_is_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["no-such-command"])
    _, _, exist = capsys.readouterr().err.strip().rpartition("expected one of ")
    documented = [cell.strip("`").split()[0] for cell in first_cells(section("docs/reference/options.md", "Commands"))]
    assert sorted(documented) == sorted(exist.split(", "))


def test_every_metric_is_in_the_reference() -> None:
    names = re.findall(r"`([\w:]+)`", section("docs/reference/metrics.md", "Names").partition("these names:")[2])
    assert [name for name in names if name not in ("nmrt",)] == [name for name in METRICS if name != "nmrt"]


def test_every_metric_that_each_comparison_judges_is_in_its_table() -> None:
    table = first_cells(section("docs/reference/assertions.md", "The comparison that needs no assertion"))
    assert set(re.findall(r"`([\w:]+)`", "".join(table))) == {*with_role(Role.PRIMARY), *with_role(Role.GUARD)}


DOCUMENTED = re.compile(r"^\.\. (?:autoclass|autoexception|autofunction|py:class):: (\w+)", re.MULTILINE)
"""The directive that documents a public name."""


def test_every_public_name_is_listed_once_and_documented_once() -> None:
    names = page("docs/reference/api.md")
    listed = [*re.findall(r"^   (\w+)$", names, re.MULTILINE), *DOCUMENTED.findall(names)]
    documented = [name for text in map(page, pages()) for name in DOCUMENTED.findall(text)]
    public = sorted(set(pytest_mlpatterns.__all__) - {"__version__"})
    assert sorted(listed) == public
    assert sorted(documented) == public


def signatures(name: str) -> list[str]:
    return re.findall(r"^\| \[`([A-Z]\w+\(.*?\))`\]", page(name), re.MULTILINE)


PLAIN = [
    one
    for one in signatures("docs/reference/patterns.md")
    if not getattr(patterns, one.partition("(")[0]).needs_code  # has no defaults
]


@each_row("written", PLAIN)
def test_arguments_of_a_pattern_are_shown_with_their_defaults(written: str) -> None:
    shown = eval(written, vars(patterns).copy())
    assert shown == type(shown)()


@pytest.mark.parametrize("written", signatures("docs/how-to/existing-service.md"))
def test_shown_target_can_be_made(written: str) -> None:
    assert eval(written, {"App": App, "Command": Command, "Url": Url})


def test_every_layer_and_package_is_on_the_page_of_the_layers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract, rooms = [one for one in project["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    text = page("docs/architecture/layers.md")
    picture = (ROOT / "docs" / "images" / "layers.svg").read_text(encoding="utf-8")
    layers = [set(re.findall(r"pytest_mlpatterns\.(\w+)", layer)) for layer in contract["layers"]]
    described = [set(found.split(", ")) for found in re.findall(r"layer \d: (.+?) \(", picture)]
    assert described == layers
    for name in re.findall(r"analysis\.(\w+)", " ".join(rooms["layers"])):
        assert f"`{name}`" in text, name
    for name in set.union(*layers):
        assert f"`{name}`" in text, name
        assert f">{name}</text>" in picture, name


@cache
def texts_in_the_code() -> frozenset[tuple[str | None, ...]]:
    """Every text in the package, in pieces; None stands for an inserted value."""
    found: set[tuple[str | None, ...]] = set()
    for file in (ROOT / "pytest_mlpatterns").glob("**/*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add(tuple(str(part.value) if isinstance(part, ast.Constant) else None for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add((node.value,))
    return frozenset(found)


def comes_from(message: str, pieces: tuple[str | None, ...]) -> bool:
    """Whether a text in the code yields a message, which ``…`` may cut short; a quarter of it has to be literal."""
    begun, is_cut = message.removesuffix("…").rstrip(), message.endswith("…")
    if not any(len(piece) > 8 and piece[:16] in begun for piece in pieces if piece is not None):
        return False

    def literal(at: int, rest: str) -> float:
        """Most letters of the rest that are literal in the code; minus infinity if the text cannot yield it."""
        if not rest or at == len(pieces):
            return 0 if not rest and (is_cut or at == len(pieces)) else -math.inf
        piece = pieces[at]
        if piece is None:
            return max(literal(at + 1, rest[taken:]) for taken in range(1, len(rest) + 1))
        if rest.startswith(piece):
            return len(piece) + literal(at + 1, rest[len(piece) :])
        return len(rest) if is_cut and piece.startswith(rest) else -math.inf

    return literal(0, begun) > len(begun) / 4


def quoted_messages() -> list[str]:
    """The messages that the pages quote: in bold code, or as the first cell of a table."""
    texts = [page(name) for name in ("docs/how-to/troubleshooting.md", "docs/how-to/noisy-machine.md")]
    bold = [one for text in texts for one in re.findall(r"\*\*`(.+?)`\*\*", text, re.DOTALL)]
    cells = [cell.strip("`") for text in texts for cell in first_cells(text) if cell.startswith("`")]
    return list(dict.fromkeys(" ".join(one.split()) for one in bold + cells))


@pytest.mark.simulation
def test_quoted_messages_are_those_of_the_code() -> None:
    texts = texts_in_the_code()
    assert [one for one in quoted_messages() if not any(comes_from(one, pieces) for pieces in texts)] == []


def test_version_is_the_same_everywhere_and_has_its_dated_section() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}))?$", page("CHANGELOG.md"), re.MULTILINE)
    assert pytest_mlpatterns.__version__ == version
    assert f"\nversion: {version}\n" in citation
    assert sections[0] == ("Unreleased", "")
    assert sections[1][0] == version
    assert f'date-released: "{sections[1][1]}"' in citation
