"""What differs between two environments, in which order, and what says nothing."""

import msgspec
import pytest
from support.each_row import each_row

from pytest_mlpatterns.records.setup import FactChange, differing_facts, folded, merged_facts, unfolded

KNOWN = {"kernel": "Linux 6.1", "package numpy": "2.1.0"}


def texts(before: dict[str, str], now: dict[str, str]) -> list[str]:
    changes = differing_facts(KNOWN | before, KNOWN | now)
    assert changes is not None
    return [str(change) for change in changes]


@each_row(
    ("before", "now", "expected"),
    ({}, {}, []),
    ({}, {"OMP_NUM_THREADS": "8"}, ["OMP_NUM_THREADS unset → 8"]),
    ({"LD_PRELOAD": "libjemalloc.so"}, {}, ["LD_PRELOAD libjemalloc.so → unset"]),
    ({}, {"PYTHONOPTIMIZE": "1"}, ["PYTHONOPTIMIZE unset → 1"]),
    ({"package numpy": "1.26.4"}, {}, ["numpy 1.26.4 → 2.1.0"]),
    ({"package orjson": "3.10.1"}, {}, ["orjson 3.10.1 → not loaded"]),
    ({}, {"package torch": "2.4.0"}, ["torch not loaded → 2.4.0"]),
    ({"CPU quota": "none"}, {"CPU quota": "2 cores"}, ["CPU quota none → 2 cores"]),
    ({"BLAS threads": "4"}, {}, []),
    ({}, {"governor": "powersave"}, []),
)
def test_what_differs_is_said_and_what_one_side_cannot_know_is_not(
    before: dict[str, str], now: dict[str, str], expected: list[str]
) -> None:
    assert texts(before, now) == expected


def test_what_most_probably_explains_a_change_comes_first() -> None:
    names = ["kernel", "Python", "package numpy", "BLAS", "memory limit", "BLAS threads", "MKL_NUM_THREADS"]
    changes = texts(dict.fromkeys(names, "1"), dict.fromkeys(names, "2"))
    expected = ["MKL_NUM_THREADS", "BLAS threads", "memory limit", "BLAS", "Python", "numpy", "kernel"]
    assert changes == [f"{name} 1 → 2" for name in expected]


@pytest.mark.parametrize(("before", "now"), [({}, KNOWN), (KNOWN, {}), ({}, {})])
def test_an_environment_that_is_not_known_has_no_differences(before: dict[str, str], now: dict[str, str]) -> None:
    assert differing_facts(before, now) is None


def test_packages_of_one_side_alone_differ_in_nothing_if_the_other_lists_none() -> None:
    assert differing_facts({"kernel": "Linux 6.1"}, KNOWN) == ()


def test_a_change_survives_as_plain_values() -> None:
    change = FactChange("OMP_NUM_THREADS", None, "8")
    assert FactChange.from_json(msgspec.to_builtins(change)) == change


def test_values_that_differ_between_processes_stand_side_by_side() -> None:
    parts = [{"kernel": "Linux 6.1", "BLAS threads": "8"}, {"kernel": "Linux 6.1", "BLAS threads": "1"}, {}]
    assert merged_facts(parts) == {"kernel": "Linux 6.1", "BLAS threads": "8, 1"}


LOADED = {"kernel": "Linux 6.1", "packages": "loaded", "package features": "1.0", "package pip": "24.0, 25.1+cu1"}


def test_a_file_has_one_line_of_packages_and_gives_back_each() -> None:
    line = {"kernel": "Linux 6.1", "packages loaded": "features 1.0; pip 24.0, 25.1+cu1"}
    assert folded(LOADED) == line
    assert unfolded(line) == LOADED
    assert unfolded(folded({"packages": "imported"})) == {"packages": "imported"}
    assert folded(KNOWN) == unfolded(KNOWN) == KNOWN


def test_a_package_that_an_entry_could_not_know_has_not_changed() -> None:
    old = {"kernel": "Linux 6.1", "package pip": "23.0", "package typing_extensions": "4.0"}
    changes = differing_facts(old, LOADED)
    assert changes is not None
    assert [str(one) for one in changes] == ["pip 23.0 → 24.0, 25.1+cu1"]
    changes = differing_facts({**LOADED, "package orjson": "3.10"}, {**LOADED, "package features": "2.0"})
    assert changes is not None
    assert [str(one) for one in changes] == ["features 1.0 → 2.0", "orjson 3.10 → not loaded"]
    assert differing_facts(LOADED, {**LOADED, "packages": "imported", "package orjson": "3.10"}) == ()
