"""What left the package is refused by its name, wherever users wrote it."""

import pytest

import pytest_mlpatterns
from pytest_mlpatterns.config.arguments import merge_markers
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.judging.verdict_log import at_the_call
from pytest_mlpatterns.removed import why_removed

RETRIES = "each request is sent once, and error_rate counts those that failed; leave it out"
LOADS = {
    "Bulk": 'write perf(requests="all", concurrency=2), and assert_total_time_below(...)',
    "Bursts": 'write Stages([("1s", 1000), ("9s", 100)])',
    "Mix": "write a test for each class of callers",
    "Retries": RETRIES,
}
ARGUMENTS = {"cancel": "every request is awaited, up to timeout=; leave it out", "retries": RETRIES}


def assert_rtm_below(limit: str) -> str:
    return limit


@pytest.mark.parametrize(("name", "instead"), LOADS.items())
def test_a_load_that_left_is_refused_with_what_to_do(name: str, instead: str) -> None:
    with pytest.raises(ImportError) as caught:
        getattr(pytest_mlpatterns, name)
    assert str(caught.value) == f"{name} left in 0.3 (commit 5b1580bb is the last that has it); {instead}"


@pytest.mark.parametrize(("name", "instead"), ARGUMENTS.items())
@pytest.mark.parametrize("caller", ["perf", "measure"])
def test_an_argument_of_the_marker_that_left_is_refused_with_what_to_do(caller: str, name: str, instead: str) -> None:
    with pytest.raises(SettingError) as caught:
        merge_markers([((), {"concurrency": 2}), ((), {name: None})], caller=caller)
    found = str(caught.value)
    assert found == f"{caller}({name}=...): {name}= left in 0.3 (commit 5b1580bb is the last that has it); {instead}"


def test_an_argument_of_an_assertion_that_left_is_refused_with_what_to_do() -> None:
    checked = at_the_call(assert_rtm_below)
    assert checked(limit="2ms") == "2ms"
    with pytest.raises(SettingError, match=r"^assert_rtm_below\(of=\.\.\.\): of= left in 0\.3 .*; write a test for"):
        checked("2ms", of="gold")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["of", "rtm", "concurrency=", ""])
def test_what_did_not_leave_is_no_such_name(name: str) -> None:
    assert why_removed(name) == ""
