"""Which functions hold more memory, from declared readings."""

import msgspec

from pytest_mlpatterns.analysis.causes.growth import growth_between, held_record
from pytest_mlpatterns.records.profile import Frame
from pytest_mlpatterns.records.samples import HeldMemory, HeldRecord, MemorySite

KIB, MIB = 1024, 1024**2


def name(file: str, line: int) -> Frame:
    return Frame("Digits.__init__" if line < 20 else "Digits.predict", file.rpartition("/")[2], line // 20)


def record(before: HeldMemory, now: HeldMemory) -> HeldRecord:
    return held_record(before, now, names=(name, name), source_now=lambda _frame, line: f"line {line}")


def test_a_function_that_holds_more_is_named_with_the_line_that_holds_most() -> None:
    before = HeldMemory({("/then/model.py", 12): 30 * MIB, ("/then/model.py", 40): MIB}, 32 * MIB)
    now = HeldMemory(
        {("/now/model.py", 12): 20 * MIB, ("/now/model.py", 14): 141 * MIB, ("/now/model.py", 44): MIB}, 163 * MIB
    )
    assert record(before, now) == HeldRecord(
        "", False, 32 * MIB, 163 * MIB, (MemorySite("Digits.__init__", "model.py", 14, "line 14", 30 * MIB, 161 * MIB),)
    )


def test_little_is_not_named() -> None:
    before = HeldMemory({("model.py", 1): MIB}, MIB)
    assert record(before, HeldMemory({("model.py", 1): MIB + 200 * KIB}, MIB + 200 * KIB)).sites == ()
    several = {("model.py", 1): 2 * MIB, **{(f"other{number}.py", 1): 20 * MIB for number in range(2)}}
    assert [site.file for site in record(before, HeldMemory(several, 42 * MIB)).sites] == ["other0.py", "other1.py"]


def test_what_no_line_of_the_project_holds_or_what_shrinks_is_not_named() -> None:
    def owned(file: str, line: int) -> Frame:
        return Frame("<module>", file, line, "python" if file.startswith("<") else "project")

    before = HeldMemory({("<string>", 2): -600.0 * KIB, ("model.py", 3): -600.0 * KIB}, -1200.0 * KIB, 1)
    now = HeldMemory({("<string>", 2): 900.0 * KIB, ("model.py", 3): -100.0 * KIB}, 800.0 * KIB, 1)
    assert held_record(before, now, names=(owned, owned), source_now=lambda *_: "").sites == ()


def test_at_most_five_functions_are_named() -> None:
    now = {(f"model{number}.py", 1): (10 + number) * MIB for number in range(6)}
    found = record(HeldMemory({}, 0), HeldMemory(now, 75 * MIB)).sites
    assert [site.file for site in found] == [f"model{number}.py" for number in (5, 4, 3, 2, 1)]


def test_a_growth_is_counted_per_request() -> None:
    first = HeldMemory({("model.py", 30): MIB}, 2 * MIB)
    last = HeldMemory({("model.py", 30): 3 * MIB, ("model.py", 1): KIB}, 4 * MIB)
    growth = growth_between(first, last, 1024)
    assert growth == HeldMemory({("model.py", 30): 2 * MIB, ("model.py", 1): KIB}, 2 * MIB, 1024)
    found = record(HeldMemory({}, 0, 1000), growth)
    assert (found.per_request, found.before, found.now) == (True, 0, 2 * KIB)
    assert found.sites == (MemorySite("Digits.predict", "model.py", 30, "line 30", 0, 2 * KIB),)


def test_a_record_survives_json() -> None:
    found = record(HeldMemory({}, 0), HeldMemory({("model.py", 30): MIB}, MIB))
    assert HeldRecord.from_json(msgspec.to_builtins(found)) == found
