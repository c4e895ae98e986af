"""Who holds the memory, in the text of a failure."""

from typing import Any

import pytest
from msgspec.structs import replace
from support.synthetic import result

from pytest_mlpatterns.records.samples import HeldRecord, MemorySite
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.where import where_texts

MIB = 1024**2
SITE = MemorySite("Digits.__init__", "model.py", 12, "self.table = np.ones((n, n))", 31 * MIB, 162 * MIB)
RECORD = HeldRecord("", False, 40 * MIB, 171 * MIB, (SITE,))


def failing(metric: str = "peak_memory", **changes: Any) -> Verdict:
    return replace(Verdict(metric, "revision", Outcome.FAIL, f"{metric} is worse"), **changes)


def lines(record: HeldRecord | None, verdict: Verdict | None = None) -> list[str]:
    return where_texts(result(held=record), [failing() if verdict is None else verdict])


def test_a_function_has_what_it_held_and_holds_and_its_line() -> None:
    assert lines(RECORD, failing(reference_value=200.0 * MIB, present_value=335.0 * MIB)) == [
        "+131 MiB held of +135 MiB of resident memory: Digits.__init__ (model.py:12) 31.0 MiB → 162 MiB",
        "line 12: self.table = np.ones((n, n))",
    ]


def test_a_growth_is_per_request() -> None:
    site = replace(SITE, function="<module>", before=0.0, now=1945.6, source="", line=0)
    record = HeldRecord("", True, 0.0, 2000.0, (site,))
    assert lines(record, failing("memory_growth")) == [
        "+1.95 KiB held per request: the code of model.py 0 B → 1.90 KiB"
    ]


def test_what_tracemalloc_does_not_see_is_said() -> None:
    (text,) = lines(HeldRecord("", False, 40.0 * MIB, 40.5 * MIB))
    assert text.startswith("+512 KiB held: no line of the project stands out; tracemalloc does not see")


def test_a_note_stands_alone() -> None:
    assert lines(HeldRecord("memory by line is known of models only")) == ["memory by line is known of models only"]


@pytest.mark.parametrize("verdict", [failing("rtm"), failing(against="baseline"), failing(outcome=Outcome.PASS)])
def test_other_verdicts_have_no_line(verdict: Verdict) -> None:
    assert lines(RECORD, verdict) == []
    assert lines(None) == []
