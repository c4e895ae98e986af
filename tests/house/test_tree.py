"""The tree of the tests: three speeds and the rules of the house; unit tests mirror the package."""

import re
from collections import Counter

from support import ROOT, TESTS
from support.each_row import each_row
from support.scheduling import shares_a_run

PACKAGE = ROOT / "pytest_mlpatterns"
COMPARED = "tests/live/comparisons/test_services_compared.py"


def test_each_test_has_a_speed_or_is_a_rule_of_the_house() -> None:
    files = [path.relative_to(TESTS).parts for path in TESTS.rglob("test_*.py")]
    assert {parts[0] for parts in files} == {"house", "live", "nightly", "unit"}


def test_unit_tests_mirror_the_package() -> None:
    rooms = {path.parent.relative_to(TESTS / "unit") for path in TESTS.glob("unit/**/test_*.py")}
    assert {room.as_posix() for room in rooms if not (PACKAGE / room).is_dir()} == set()


def test_files_of_unit_tests_start_few_processes() -> None:
    """A file whose tests start processes, half of them or more, belongs to ``live``."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in TESTS.glob("unit/**/test_*.py")}
    shares = {
        name: (text.count("pytest.mark.processes"), len(re.findall(r"^\s*(?:async )?def test_", text, re.MULTILINE)))
        for name, text in texts.items()
    }
    assert {name for name, (starting, all_) in shares.items() if 2 * starting >= all_} == set()


def test_files_of_one_run_have_names_of_their_own() -> None:
    """Python imports a test file by its name alone, if its folder is no package."""
    together = [path for path in TESTS.rglob("test_*.py") if not path.is_relative_to(TESTS / "live" / "ray")]
    names = Counter(path.name for path in together if not path.with_name("__init__.py").exists())
    assert [name for name, times in names.items() if times > 1] == []


def test_what_make_test_leaves_out_is_a_folder_that_make_check_runs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    folders = dict(re.findall(r"^([A-Z]+) := (tests/live/[^\n]+)$", makefile, re.MULTILINE))
    assert [one for folder in folders.values() for one in folder.split() if not (ROOT / one).exists()] == []
    left_out = set(re.findall(r"\$\((\w+)\)", makefile.partition("\nCHECKED := ")[2].partition("\n")[0]))
    recipe = makefile.partition("\ncheck: ")[2].partition("\n\n")[0]
    assert {name for name in left_out if not re.search(rf"\b{name.lower()}\b", recipe)} == set()


@each_row(
    ("test", "shares"),
    ("test_a_run_ends_with_the_outcome_of_each_comparison", True),
    ("test_two_loads_and_two_payloads_of_one_service_are_compared", True),  # through another fixture
    ("test_a_smoke_run_starts_the_other_side_too", False),
)
def test_tests_that_share_a_run_are_known_by_their_fixtures(test: str, *, shares: bool) -> None:
    assert shares_a_run(f"{COMPARED}::{test}") is shares
