"""Which function a profile names, from stacks whose times are declared."""

import importlib
from collections.abc import Mapping
from types import ModuleType

import numpy as np
import pytest
from msgspec.structs import replace
from support import ROOT
from support.each_row import each_row

from pytest_mlpatterns.analysis.causes.attribution import profile_record
from pytest_mlpatterns.analysis.causes.call_tree import NOW, call_tree
from pytest_mlpatterns.analysis.causes.explanation import time_change
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.profile import (
    Frame,
    FunctionChange,
    ProfiledBlock,
    ProfiledRun,
    ProfileRecord,
    StackTime,
)

ROOTS = (Frame("worker", owner="process"), Frame("HTTP server", owner="layer"), Frame("model", owner="model"))
REQUESTS = 100
PAIRS = 8
SORT = Frame("sort", "numpy/fromnumeric.py", 900, "library")
MS = 1_000_000

Stacks = dict[tuple[str | Frame, ...], float]
"""Milliseconds per request by the functions of the model that lead to them; frames at the root stand for themselves."""


def function(name: str | Frame) -> Frame:
    """``name`` of ``model.py``, or ``file:name``."""
    if isinstance(name, Frame):
        return name
    file, _, own = name.rpartition(":")
    return Frame(own, file or "model.py", 10)


def block(times: Stacks, *, calls: float | None = None, line: int = 0, scale: float = 1.0) -> ProfiledBlock:
    stacks = []
    for names, ms in times.items():
        is_rooted = isinstance(names[0], Frame) and names[0].owner in ("process", "layer")
        frames = (*(() if is_rooted else ROOTS), *map(function, names))
        lines = (0,) * (len(frames) - 1) + (line,)
        stacks.append(StackTime(frames, lines, scale * ms * MS * REQUESTS, max(round(40 * ms), 1)))
    return ProfiledBlock(tuple(stacks), REQUESTS, {} if calls is None else {"model": calls * REQUESTS}, 200, 1)


def run(
    before: Stacks, now: Stacks, *, calls: tuple[float, float] | None = None, lines: tuple[int, int] = (0, 0)
) -> ProfiledRun:
    """Neighbouring blocks that are 3 % faster and slower by turns, both sides alike."""
    then_calls, now_calls = calls or (None, None)
    scales = [1.03 if number % 2 else 0.97 for number in range(PAIRS)]
    return ProfiledRun(
        tuple(block(now, calls=now_calls, line=lines[1], scale=scale) for scale in scales),
        tuple(block(before, calls=then_calls, line=lines[0], scale=scale) for scale in scales),
        "py-spy 0.4.2",
        500.0,
        Estimate(1.02, 1.0, 1.04),
        ("a note",),
    )


def named(record: ProfileRecord) -> list[tuple[str, ...]]:
    return [tuple(record.frames[index].function for index in change.chain) for change in record.changes]


def attributed(before: Stacks, now: Stacks, **more: tuple[float, float]) -> ProfileRecord:
    return profile_record(run(before, now, **more), lambda _frame, _line: "")


def only(record: ProfileRecord) -> FunctionChange:
    (change,) = record.changes
    return change


USUAL: Stacks = {("predict",): 0.1, ("predict", "normalize"): 0.4, ("predict", "classify"): 2.0}


def test_a_slower_function_is_named_with_its_callers_and_figures() -> None:
    record = attributed(USUAL, {**USUAL, ("predict", "normalize"): 2.7})
    change = only(record)
    assert named(record) == [("predict", "normalize")]
    assert (change.before_ns, change.now_ns) == pytest.approx((0.4 * MS, 2.7 * MS))
    assert change.change.low < 2.3 * MS < change.change.high
    assert change.of_ns == pytest.approx(2.3 * MS)
    assert (change.kind, change.inside, change.was) == ("slower", "", "")
    assert (record.profiler, record.rate_hz, record.slowdown) == ("py-spy 0.4.2", 500.0, (1.02, 1.0, 1.04))
    assert (record.blocks, record.samples, record.lost) == (PAIRS, 2 * PAIRS * 200, 2 * PAIRS)
    assert (record.notes, record.compared) == (("a note",), True)
    unchanged = attributed(USUAL, {**USUAL, ("predict", "classify"): 2.01})
    assert not unchanged.changes
    assert unchanged.frames[unchanged.largest.chain[-1]].function == "classify"
    assert unchanged.largest.change.value == pytest.approx(0.01 * MS)


@each_row(
    ("before", "now", "chain", "was", "times_ms"),
    (
        {("predict",): 0.1, ("predict", "old.py:normalize"): 0.4},
        {("predict",): 0.1, ("predict", "new.py:normalize"): 2.7},
        ("predict", "normalize"),
        "old.py",
        (0.4, 2.7),
    ),
    (
        {("predict",): 0.1, ("predict", "scale"): 2.0, ("predict", "scale", "shift"): 0.4},
        {("predict",): 0.1, ("predict", "norm"): 4.0, ("predict", "norm", "shift"): 0.4},
        ("predict", "norm"),
        "scale",
        (2.4, 4.4),
    ),
)
def test_a_function_that_moved_or_is_in_the_place_of_another_one_says_what_it_was(
    before: Stacks, now: Stacks, chain: tuple[str, ...], was: str, times_ms: tuple[float, float]
) -> None:
    change = only(record := attributed(before, now))
    assert (named(record), change.kind, change.was) == ([chain], "moved", was)
    assert (change.before_ns / MS, change.now_ns / MS) == pytest.approx(times_ms)


EQUAL = {40: "a = slow()", 44: "a = slow()"}


@each_row(
    ("lines", "texts", "before", "source", "change_ms"),
    ((40, 44), {44: "order = np.sort(values)"}, {40: "order = values"}, "order = np.sort(values)", 2.3),
    ((40, 44), EQUAL, EQUAL, "a = slow()", 2.3),  # it is the same line, wherever it moved
    ((44, 44), {44: "line 44"}, None, "line 44", 2.3),  # by number, without the texts of the reference
)
def test_the_line_with_most_of_the_change_has_its_text(
    lines: tuple[int, int], texts: dict[int, str], before: dict[int, str] | None, source: str, change_ms: float
) -> None:
    whole = run(USUAL, {**USUAL, ("predict", "normalize"): 2.7}, lines=lines)
    then = () if before is None else (lambda _frame, line: before.get(line, ""),)
    change = only(profile_record(whole, lambda _frame, line: texts.get(line, ""), *then))
    assert (change.line, change.source) == (44, source)
    assert change.change.value == pytest.approx(change_ms * MS)


LOADS = Frame("_find_and_load", "importlib/_bootstrap.py", 1, "python")
DUMPS = (*ROOTS[:2], Frame("wire: encode", owner="layer"), Frame("dumps", "json/__init__.py", 1, "python"))
FIT = Frame("LogisticRegression.predict", "sklearn/linear_model.py", 1, "library")
SERVE = (ROOTS[0], Frame("serve", "tornado/web.py", 1, "library"))
NORMALIZE = ("predict", "normalize")


@each_row(
    ("before", "changed", "chain", "kind", "inside"),
    (USUAL, {("predict", "classify"): 1.0}, ("predict", "classify"), "faster", ""),
    # a library is said beside the function of the project that calls it
    (USUAL, {(*NORMALIZE, SORT): 2.3}, NORMALIZE, "slower", "sort (numpy/fromnumeric.py)"),
    (
        USUAL,
        {(*NORMALIZE, LOADS, Frame("<module>", "heavy/__init__.py", 1, "library")): 2.3},
        NORMALIZE,
        "slower",
        "the import of heavy/__init__.py",
    ),
    (USUAL, {("predict", Frame("dgemm", owner="native")): 2.3}, ("predict",), "slower", "dgemm"),
    # without a function of the project the layer is named, else the innermost function
    ({**USUAL, DUMPS: 0.1}, {DUMPS: 1.5}, ("wire: encode",), "slower", "dumps (json/__init__.py)"),
    ({(FIT,): 1.0}, {(FIT,): 2.0}, ("LogisticRegression.predict",), "slower", ""),
    ({SERVE: 1.0}, {SERVE: 2.0}, ("serve",), "slower", ""),
    (USUAL, {("predict", "deduplicate"): 1.2}, ("predict", "deduplicate"), "new", ""),
    (
        {**USUAL, ("predict", "deduplicate"): 1.2},
        {("predict", "deduplicate"): 0.0},
        ("predict", "deduplicate"),
        "gone",
        "",
    ),
    # a function that only has another caller is not the cause
    (
        {("predict",): 0.1, ("predict", "classify"): 2.0},
        {("predict", "classify"): 0.0, ("predict", "wrap"): 0.8, ("predict", "wrap", "classify"): 2.0},
        ("predict", "wrap"),
        "new",
        "",
    ),
)
def test_one_function_is_named_with_what_became_of_it(
    before: Stacks, changed: Stacks, chain: tuple[str, ...], kind: str, inside: str
) -> None:
    record = attributed(before, {names: ms for names, ms in {**before, **changed}.items() if ms})
    assert (named(record), only(record).kind, only(record).inside) == ([chain], kind, inside)


ENCODE, DECODE = (Frame(f"wire: {verb}", owner="layer") for verb in ("encode", "decode"))


def test_the_halves_of_a_layer_are_one_unless_one_has_most() -> None:
    before: Stacks = {**USUAL, (*ROOTS[:2], ENCODE): 0.1, (*ROOTS[:2], DECODE): 0.1, ROOTS[:2]: 0.1}
    both: Stacks = {**before, (*ROOTS[:2], ENCODE): 1.1, (*ROOTS[:2], DECODE): 1.0}
    record = attributed(before, both)
    assert named(record) == [("wire",)]
    assert only(record).change.value == pytest.approx(1.9 * MS)
    assert named(attributed(before, {**before, (*ROOTS[:2], DECODE): 1.0})) == [("wire: decode",)]


def test_a_layer_that_passes_on_what_changed_is_not_named() -> None:
    """Three layers below the server share its change; none has most of it."""
    parts = [(*ROOTS[:2], Frame(name, owner="layer")) for name in ("batched", "cached", "queued")]
    before: Stacks = {**USUAL, **dict.fromkeys(parts, 0.1)}
    record = attributed(before, {**before, **dict.fromkeys(parts, 0.5)})
    assert {chain[-1] for chain in named(record)} <= {"batched", "cached", "queued"}
    assert named(attributed({ROOTS[:2]: 0.5}, {ROOTS[:2]: 1.5})) == [("HTTP server",)]


def test_the_boundary_of_a_model_is_not_named() -> None:
    assert not attributed({ROOTS: 0.2}, {ROOTS: 1.2}).changes


@pytest.mark.parametrize(("scatter_ms", "chains"), [(0.55, [("rank",)]), (1.5, [])])
def test_below_a_model_that_is_surely_slower_a_function_counts_that_is_so_taken_alone(
    scatter_ms: float, chains: list[tuple[str, ...]]
) -> None:
    """As one of five callees it would have to be surer; what scatters is between it and another one."""
    before: Stacks = {("rank",): 2.0, ("other",): 2.0, ("a",): 1.0, ("b",): 1.0, ("c",): 1.0}
    moved = scatter_ms * np.array([1, -1, -1, 1, 1, 1, -1, -1])
    now = tuple(block({**before, ("rank",): 2.5 + one, ("other",): 2.0 - one}) for one in moved.tolist())
    whole = ProfiledRun(now, (block(before),) * PAIRS)
    assert named(profile_record(whole, lambda _frame, _line: "", is_known=True)) == chains


def test_time_of_a_process_alone_names_none() -> None:
    record = attributed({ROOTS[:1]: 1.0}, {ROOTS[:1]: 2.0})
    assert not record.changes
    assert record.largest is None


def test_a_function_that_a_library_now_calls_itself_is_named_below_it() -> None:
    """An endpoint ran in a thread, and blocks the event loop now: it takes as long as before."""
    server = (ROOTS[0], Frame("run_endpoint_function", "fastapi/routing.py", 372, "library"))
    thread = (ROOTS[0], Frame("run", "starlette/concurrency.py", 1, "library"))
    rank, features = function("rank"), function("features")
    before: Stacks = {server: 0.1, (*thread, rank, features): 4.0}
    record = attributed(before, {server: 0.1, (*server, rank, features): 4.0})
    assert named(record) == [("run_endpoint_function", "rank", "features")]
    assert only(record).before_ns == 0


def test_a_function_that_others_call_as_fast_as_before_is_not_the_cause() -> None:
    """Its caller asks more of it."""
    before: Stacks = {("predict", "normalize", "spin"): 0.4, ("predict", "classify", "spin"): 1.5}
    record = attributed(before, {**before, ("predict", "normalize", "spin"): 1.4})
    assert (named(record), only(record).inside) == ([("predict", "normalize")], "spin (model.py)")
    slower: Stacks = {("predict", "normalize", "spin"): 0.8, ("predict", "classify", "spin"): 3.0}
    assert {chain[-1] for chain in named(attributed(before, slower))} == {"spin"}
    few: Stacks = {**before, ("predict", "classify", "spin"): 0.2}  # more than a tenth, from which others tell
    assert {chain[-1] for chain in named(attributed(few, {**few, ("predict", "normalize", "spin"): 1.4}))} == {
        "normalize"
    }
    fewer: Stacks = {**before, ("predict", "classify", "spin"): 0.1}
    assert {chain[-1] for chain in named(attributed(fewer, {**fewer, ("predict", "normalize", "spin"): 1.4}))} == {
        "spin"
    }
    new: Stacks = {**before, ("predict", "deduplicate", "spin"): 1.0}
    assert named(attributed(before, new)) == [("predict", "deduplicate")]


def test_recursion_counts_once() -> None:
    before: Stacks = {("predict", "copy", "walk", "copy", "walk"): 0.5, ("predict", "classify"): 2.0}
    now = {**before, ("predict", "copy", "walk", "copy", "walk"): 2.5}
    record = attributed(before, now)
    assert only(record).change.value == pytest.approx(2.0 * MS)
    table = {record.frames[one.frame].function: one for one in record.functions}
    assert table["copy"].now_ns == pytest.approx(2.5 * MS)
    assert table["walk"].self_now_ns == pytest.approx(2.5 * MS)


def test_a_function_with_several_callers_is_found_below_them() -> None:
    before: Stacks = {("predict", name, "shared"): 0.5 for name in ("a", "b", "c")}
    now: Stacks = {("predict", name, "shared"): 1.1 for name in ("a", "b", "c")}
    record = attributed(before, now)
    assert [chain[-1] for chain in named(record)] == ["shared"]
    assert only(record).change.value == pytest.approx(1.8 * MS)


def test_several_functions_that_share_the_change_are_each_named() -> None:
    now = {**USUAL, ("predict", "normalize"): 1.4, ("predict", "classify"): 3.2}
    record = attributed(USUAL, now)
    assert named(record) == [("predict", "classify"), ("predict", "normalize")]


def test_a_function_is_found_although_all_together_take_as_long_as_before() -> None:
    """One got slower by as much as another one got faster."""
    record = attributed(USUAL, {**USUAL, ("predict", "normalize"): 1.6, ("predict", "classify"): 0.8})
    assert (named(record), only(record).change.value > 0) == ([("predict", "normalize")], True)


def test_a_known_slowdown_that_all_functions_share_is_that_of_the_first_of_the_project() -> None:
    """Twenty functions got slower by a little; none of them is beyond noise."""
    names = [f"part{number}" for number in range(20)]
    before: Stacks = {("predict", name): 0.1 for name in names}
    now: Stacks = {("predict", name): 0.12 for name in names}
    record = profile_record(run(before, now), lambda _frame, _line: "", is_known=True)
    assert named(record) == [("predict",)]


def test_a_model_that_is_called_more_often_is_not_slower() -> None:
    layer = (*ROOTS[:2], Frame("cached", owner="layer"))
    for before, now, calls, text in (
        (USUAL, {names: 3 * ms for names, ms in USUAL.items()}, (0.2, 0.6), "0.2 → 0.6"),
        ({layer: 0.1}, {layer: 0.1, **USUAL}, (0.0, 1.0), "0 → 1"),  # a cache that always hit does not any more
    ):
        record = attributed(before, now, calls=calls)
        assert not record.changes
        assert record.notes == ("a note", f"model is called {text} times a request")
    for now_calls, notes in ((1.05, 0), (1.15, 1)):
        assert len(attributed(USUAL, USUAL, calls=(1.0, now_calls)).notes) == 1 + notes


def test_a_coroutine_that_blocks_for_as_long_as_it_waited_is_named() -> None:
    waits: Stacks = {(*ROOTS[::2], Frame("waiting", owner="await"), "predict", "fetch"): 2.0}
    blocks: Stacks = {("predict", "fetch"): 2.0}
    before: Stacks = {**USUAL, **waits}
    record = profile_record(run(before, {**USUAL, **blocks}), lambda _frame, _line: "", is_known=True)
    assert named(record) == [("predict", "fetch")]
    assert only(record).change.value == pytest.approx(2.0 * MS)
    server: Stacks = {**USUAL, **waits, ROOTS[:2]: 0.1}  # little beside what requests take
    assert not attributed(before, {**USUAL, **blocks}).changes
    assert not profile_record(run(server, before), lambda _frame, _line: "", is_known=True).changes


def test_samples_that_one_side_lost_make_no_function_slower() -> None:
    """A fifth of them, in another function: all others seem slower by a fifth."""
    whole = run(USUAL, {names: 1.2 * ms for names, ms in USUAL.items()})
    assert profile_record(whole, lambda _frame, _line: "").changes
    lossy = replace(whole, now=tuple(replace(one, lost=one.samples // 5) for one in whole.now))
    assert not profile_record(lossy, lambda _frame, _line: "").changes


def test_a_function_that_is_slower_per_call_is_named_beside_many_more_calls() -> None:
    """Four calls tell the time of one better, not worse."""
    now = {names: 4 * ms for names, ms in USUAL.items()}
    slower = 4 * 2.0 * USUAL["predict", "normalize"]
    assert named(attributed(USUAL, {**now, ("predict", "normalize"): slower}, calls=(1.0, 4.0)))
    assert not named(attributed(USUAL, now, calls=(1.0, 4.0)))


def test_calls_that_are_not_known_in_every_block_are_not_used() -> None:
    now = {**USUAL, ("predict", "normalize"): 2.7}
    whole = run(USUAL, now, calls=(1.0, 1.0))
    partly = ProfiledRun((block(now), *whole.now[1:]), whole.before)
    assert named(profile_record(partly, lambda _frame, _line: "")) == [("predict", "normalize")]


def test_the_present_alone_has_a_tree_and_a_table_by_time() -> None:
    one_side = ProfiledRun(tuple(block(USUAL) for _ in range(3)))
    record = profile_record(one_side, lambda _frame, _line: "")
    assert not record.compared
    assert [record.frames[one.frame].function for one in record.functions][:3] == ["HTTP server", "predict", "classify"]
    assert all(one.change is None and one.before_ns == 0 for one in record.functions)
    assert sum(node.now_ns for node in record.nodes) == pytest.approx(2.5 * MS)
    assert (record.changes, record.largest) == ((), None)


def test_blocks_without_a_stack_give_an_empty_profile() -> None:
    record = profile_record(run({}, {}), lambda _frame, _line: "")
    assert (record.nodes, record.functions, record.changes, record.largest) == ((), (), (), None)


def test_the_smallest_stacks_are_counted_to_their_callers() -> None:
    many: Stacks = {("predict", f"f{number}"): 0.0005 for number in range(100)}
    usual: Stacks = {**USUAL, **many, ("predict", "small"): 0.008}  # 0.3 % of the time
    record = attributed(usual, usual)
    functions = {record.frames[node.frame].function: node for node in record.nodes}
    assert "f1" not in functions
    assert "small" in functions
    assert functions["predict"].now_ns == pytest.approx((0.1 + 100 * 0.0005) * MS, rel=0.01)
    assert sum(node.before_ns for node in record.nodes) == pytest.approx(2.558 * MS)


def test_a_record_has_at_most_2000_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_mlpatterns.analysis.causes.attribution._MOST_NODES", 6)
    times: Mapping[tuple[str, ...], float] = {("predict", f"f{number}"): 1.0 + number for number in range(9)}
    record = attributed(dict(times), dict(times))
    assert len(record.nodes) <= 7
    assert sum(node.now_ns for node in record.nodes) == pytest.approx(45 * MS)


def test_a_tree_adds_up() -> None:
    tree = call_tree(run(USUAL, USUAL))
    assert tree.total_ns[NOW][:, list(tree.roots)].sum(1) == pytest.approx(tree.own_ns[NOW].sum(1))
    assert tree.total_ns[NOW, 1, tree.roots[0]] == pytest.approx(1.03 * 2.5 * MS)


def test_a_function_in_every_sample_is_known_better_than_one_in_half() -> None:
    """Its count cannot vary; if the number of samples is unknown it counts as if it could."""
    stack = StackTime((ROOTS[0],), (0,), 100.0 * MS, 200)
    known, unknown = (call_tree(ProfiledRun((ProfiledBlock((stack,), 100, samples=n),))) for n in (200, 0))
    assert known.own_variance.max() == pytest.approx(unknown.own_variance.max() / 200)


def test_blocks_that_scatter_widen_the_interval() -> None:
    steady, noise = np.full(8, 100.0 * MS), np.array([-30, 30] * 4) * MS
    quiet = time_change(steady, steady + 20 * MS, np.full(8, 1.0))
    noisy = time_change(steady, steady + 20 * MS + noise, np.full(8, 1.0))
    assert quiet.is_sure(0.99)
    assert not noisy.is_sure(0.99)
    assert noisy.estimate().high - noisy.estimate().low > 3 * (quiet.estimate().high - quiet.estimate().low)


@pytest.mark.simulation
def test_error_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small part of ``benchmarks/attribution_simulation.py``."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    simulation: ModuleType = importlib.import_module("attribution_simulation")
    assert not any(one.wrong for one in simulation.outcomes("unchanged", 15))
    found = simulation.outcomes("one function +50 %", 15)
    assert sum(one.right for one in found) >= 14
