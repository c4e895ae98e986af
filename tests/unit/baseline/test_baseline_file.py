"""The baseline file: read back as written, made for diffs, never lost, and refused in one line where it is not ours."""

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.each_row import each_row
from support.splits import split
from support.synthetic import PROPERTY, SETUP, make_setup

from pytest_mlpatterns.baseline.file import FORMAT, VERSION, read_baselines, write_baselines
from pytest_mlpatterns.baseline.updates import anchor_of
from pytest_mlpatterns.errors import BaselineFileError
from pytest_mlpatterns.records.baseline_entry import Anchor, Baselines, Entry
from pytest_mlpatterns.records.count import Count
from pytest_mlpatterns.records.latency import RequestCounts
from pytest_mlpatterns.records.launch import LaunchValue

ENTRY = Entry(
    setup=SETUP,
    metrics={
        "throughput": (LaunchValue(1234.5, 0.01), LaunchValue(1240.0, 0.011)),
        "rtm": (LaunchValue(4_120_000.0, 0.012),),
    },
    versions={"pytest-mlpatterns": "0.1.0", "numpy": "2.0.0"},
    commit="1a2b3c4",
    date="2026-11-24",
)
FULL = replace(
    ENTRY,
    setup=make_setup(model="2"),
    anchor=Anchor({"rtm": (LaunchValue(4_000_000.0, 0.01),)}, "0a1b2c3", "2026-01-31", updates=4),
    latency=((1.0, 3_100_000.0), (50.0, 4_120_000.0), (99.9, 9_870_000.0)),
    counts=(
        RequestCounts(300, 8, {4_096_000: 150, 4_128_768: 142}, {"ttft": {1_024: 270, 4_096: 22}, "tpot": {}}),
        RequestCounts(280, 0, {4_063_232: 280}),
    ),
    disturbed=("8 of 7,406 requests failed (500: 8)",),
    split={
        "rtm": split(
            {"wire": 21_000.0, "features/model_cpu": 4_000_000.0, "socket": -1_000.0}, calls={"features": 0.25}
        )
    },
    sorting_ns=(701_500.0, 698_200.0),
    work=Count(
        (4_000_100.0, 4_000_200.0),
        low=4_000_100.0,
        high=4_000_200.0,
        requests=8,
        seconds=9.5,
        architecture="x86_64",
        environment={"PYTHONHASHSEED": "0"},
        libraries={"libpython3.11.so.1.0": 3_800_000.0},
    ),
)
"""With everything that an entry may have."""
PLAIN: dict[str, Any] = {
    "format": FORMAT,
    "version": VERSION,
    "tests": {
        "test_a.py::test_one": {
            "box": {
                "setup": {"pattern": "single", "load": "closed(1)", "wire": "rest+json", "payload": "sha256:0"},
                "metrics": {"rtm": [[1000, 0.01]]},
                "versions": {"numpy": "2.0.0"},
                "commit": None,
                "date": "2026-11-24",
            }
        }
    },
}
NAMES = st.text(min_size=1, max_size=10)
VALUES = st.builds(LaunchValue, st.just(0.0) | st.floats(1e-9, 1e12), st.floats(0, 1))
METRICS = st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=4).map(tuple), max_size=3)
ENTRIES = st.builds(
    Entry,
    setup=st.builds(make_setup, NAMES, NAMES, NAMES, NAMES, st.just("") | NAMES),
    metrics=METRICS,
    versions=st.dictionaries(NAMES, NAMES, max_size=2),
    commit=st.none() | NAMES,
    date=NAMES,
    anchor=st.none() | st.builds(Anchor, METRICS, st.none() | NAMES, NAMES),
    latency=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 99_999)), max_size=4).map(
        lambda points: tuple(zip(*(map(float, sorted(column)) for column in zip(*points, strict=True)), strict=True))
    ),
)
WITH_FILES = settings(
    PROPERTY, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "perf-baseline.json"


def changed(**values: object) -> str:
    """The text of a good file with these members of its one entry changed."""
    data = json.loads(json.dumps(PLAIN))
    data["tests"]["test_a.py::test_one"]["box"].update(values)
    return json.dumps(data)


def without(name: str) -> str:
    data = json.loads(json.dumps(PLAIN))
    del data["tests"]["test_a.py::test_one"]["box"][name]
    return json.dumps(data)


def test_a_good_file_is_read(path: Path) -> None:
    path.write_text(json.dumps(PLAIN), encoding="utf-8")
    entry = read_baselines(path)["test_a.py::test_one"]["box"]
    assert entry.setup == make_setup("single", "closed(1)", "rest+json", "sha256:0")
    assert entry.metrics == {"rtm": (LaunchValue(1000.0, 0.01),)}
    assert (entry.versions, entry.commit, entry.date) == ({"numpy": "2.0.0"}, None, "2026-11-24")
    assert (entry.setup.model, entry.anchor, entry.latency) == ("", None, ())


@pytest.mark.parametrize("calibration", [{"cores": 2, "ns": 31_250_000, "workload": 1}, 5])
def test_the_calibration_of_0_2_is_not_read_and_goes_with_an_update(path: Path, calibration: object) -> None:
    path.write_text(changed(calibration=calibration), encoding="utf-8")
    before = read_baselines(path)
    path.write_text(json.dumps(PLAIN), encoding="utf-8")
    assert read_baselines(path) == before
    path.write_text(changed(calibration=calibration), encoding="utf-8")
    write_baselines(path, {"test_b.py::test_two": {"box": ENTRY}})
    assert read_baselines(path) == {**before, "test_b.py::test_two": {"box": ENTRY}}
    assert "calibration" not in path.read_text(encoding="utf-8")


def test_an_entry_of_a_load_that_left_is_read_and_is_another_load(path: Path) -> None:
    setup = PLAIN["tests"]["test_a.py::test_one"]["box"]["setup"]
    loads = [
        "mix(gold: poisson(20/s), bulk: closed(4))",
        "bulk(chunk=100, concurrency=4)",
        "bursts(100/s, 1000/s for 500ms every 5s)",
        "closed(8), cancel 5.0 % after 200 ms",
        "poisson(20/s), retries(2, backoff=100ms, budget=0.1), during reload",
    ]
    for load in loads:
        path.write_text(changed(setup={**setup, "load": load}, classes={"gold": {"00": [1, 0, [[5, 1]]]}}))
        entry = read_baselines(path)["test_a.py::test_one"]["box"]
        assert entry.differences(make_setup("single", "closed(1)", "rest+json", "sha256:0"), {}) == (
            f"load: {load} → closed(1)",
        )


def test_a_written_file_is_read_back(path: Path) -> None:
    written = {
        "test_a.py::test_one": {"box": ENTRY, "new box": FULL},
        "test_ä.py::test[π]": {"box": replace(ENTRY, commit=None)},
    }
    write_baselines(path, written)
    assert read_baselines(path) == written


@WITH_FILES
@given(written=st.dictionaries(NAMES, st.dictionaries(NAMES, ENTRIES, min_size=1, max_size=2), max_size=3))
def test_any_baseline_reads_back_within_its_digits_and_writes_the_same_bytes_again(
    written: Baselines, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("baseline") / "perf-baseline.json"
    write_baselines(path, written)
    first = path.read_bytes()
    read = read_baselines(path)
    write_baselines(path, read)
    assert path.read_bytes() == first
    assert read.keys() == written.keys()
    for test, machines in written.items():
        assert read[test].keys() == machines.keys()
        for machine, entry in machines.items():
            found = read[test][machine]
            assert replace(found, metrics={}, anchor=None) == replace(entry, metrics={}, anchor=None)
            assert_close(found.metrics, entry.metrics)
            assert (found.anchor is None) is (entry.anchor is None)
            if found.anchor and entry.anchor:
                assert replace(found.anchor, metrics={}) == replace(entry.anchor, metrics={})
                assert_close(found.anchor.metrics, entry.anchor.metrics)


def assert_close(found: Mapping[str, tuple[LaunchValue, ...]], written: Mapping[str, tuple[LaunchValue, ...]]) -> None:
    assert found.keys() == written.keys()
    for name, launches in written.items():
        values = [launch.value for launch in found[name]]
        assert values == pytest.approx([launch.value for launch in launches], rel=5e-5)
        errors = [launch.relative_error for launch in found[name]]
        assert errors == pytest.approx([launch.relative_error for launch in launches], rel=5e-2)


def test_the_file_is_sorted_has_one_line_per_fact_and_ends_with_a_newline(path: Path) -> None:
    write_baselines(path, {"test_b.py::test": {"box": ENTRY}, "test_a.py::test": {"box": ENTRY}})
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert not text.endswith("\n\n")
    assert '\n     "rtm": [[4120000, 0.012]],\n     "throughput": [[1234.5, 0.01], [1240, 0.011]]\n' in text

    def keys_in_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert [key for key, _ in pairs] == sorted(key for key, _ in pairs)
        return dict(pairs)

    data = json.loads(text, object_pairs_hook=keys_in_order)
    assert (data["format"], data["version"]) == (FORMAT, VERSION)


def test_numbers_have_five_digits_and_whole_ones_no_point(path: Path) -> None:
    metrics = {"rtm": (LaunchValue(4_123_456.789, 0.0123456), LaunchValue(0.000123456, 0.0))}
    write_baselines(path, {"t": {"box": replace(ENTRY, metrics=metrics)}})
    assert '"rtm": [[4123500, 0.012], [0.00012346, 0]]' in path.read_text(encoding="utf-8")


def test_an_update_keeps_every_other_test_and_machine(path: Path) -> None:
    old, new = replace(ENTRY, date="2026-01-01"), replace(ENTRY, date="2026-11-24")
    write_baselines(path, {"a": {"x": old, "y": old}, "b": {"x": old}})
    write_baselines(path, {"a": {"x": new}, "c": {"x": new}})
    assert read_baselines(path) == {"a": {"x": new, "y": old}, "b": {"x": old}, "c": {"x": new}}


def test_absent_parts_of_an_entry_are_not_written(path: Path) -> None:
    write_baselines(path, {"a": {"x": ENTRY}})
    text = path.read_text(encoding="utf-8")
    assert not any(f'"{key}"' in text for key in ("anchor", "sorting_ns", "model"))
    write_baselines(path, {"a": {"x": FULL}})
    (entry,) = json.loads(path.read_text(encoding="utf-8"))["tests"]["a"].values()
    assert entry["setup"]["model"] == "2"
    assert entry["sorting_ns"] == [701_500, 698_200]
    anchor = {"commit": "0a1b2c3", "date": "2026-01-31", "metrics": {"rtm": [[4_000_000, 0.01]]}, "updates": 4}
    assert entry["anchor"] == anchor


def test_a_test_that_is_removed_is_removed_for_every_machine_and_all_others_stay(path: Path) -> None:
    write_baselines(path, {"a": {"x": ENTRY, "y": ENTRY}, "b": {"x": ENTRY}})
    write_baselines(path, {"c": {"x": ENTRY}}, remove={"a", "absent"})
    assert read_baselines(path) == {"b": {"x": ENTRY}, "c": {"x": ENTRY}}
    write_baselines(path, {}, remove=["b", "c"])
    assert read_baselines(path) == {}
    assert json.loads(path.read_text(encoding="utf-8"))["tests"] == {}


SERVING = {
    "numpy": "2.0.0",
    "pytest-mlpatterns": "0.1.0",
    "uvicorn": "0.38.0",
    "uvloop": "0.22.1",
    "httptools": "0.7.1",
}


@each_row(
    ("setup", "versions", "differences"),
    ({}, {}, ()),
    ({}, {"numpy": "3.0.0", "pytest-mlpatterns": "0.1.1"}, ()),
    ({}, {"pytest-mlpatterns": "0.2.0"}, ("pytest-mlpatterns: 0.1 → 0.2",)),
    ({}, {"pytest-mlpatterns": "1.1.0rc1"}, ("pytest-mlpatterns: 0.1 → 1.1",)),
    ({"load": "closed(16)"}, {}, ("load: closed(8) → closed(16)",)),
    ({"model": "2"}, {}, ("model: none → 2",)),
    ({}, {"uvicorn": "0.40.0"}, ("uvicorn: 0.38.0 → 0.40.0",)),
    ({}, {"httptools": None}, ("httptools: 0.7.1 → none",)),
    ({}, {"uvloop": "0.23.0"}, ("event loop: uvloop 0.22.1 → uvloop 0.23.0",)),
    (
        {"pattern": "single"},
        {"uvloop": None},
        ("pattern: replicated(replicas=3) → single", "event loop: uvloop 0.22.1 → asyncio"),
    ),
)
def test_an_entry_says_what_differs_from_what_is_measured_now(
    setup: dict[str, str], versions: dict[str, str | None], differences: tuple[str, ...]
) -> None:
    present = {name: version for name, version in {**SERVING, **versions}.items() if version is not None}
    assert replace(ENTRY, versions=SERVING).differences(make_setup(**setup), present) == differences


@each_row(
    ("service", "versions", "differences"),
    ("http://127.0.0.1:8000/predict", {"uvicorn": "1.0", "pytest-mlpatterns": "9.0"}, ()),
    ("Command('serve --port {port}', path='/predict')", {"uvicorn": "1.0", "pytest-mlpatterns": "9.0"}, ()),
    ("App('shop:app')", {**SERVING, "pytest-mlpatterns": "9.0"}, ()),
    ("App('shop:app')", {**SERVING, "uvicorn": "0.40.0"}, ("uvicorn: 0.38.0 → 0.40.0",)),
)
def test_a_service_of_the_users_own_has_at_most_the_server_of_this_environment(
    service: str, versions: dict[str, str], differences: tuple[str, ...]
) -> None:
    setup = make_setup(pattern=service)
    assert replace(ENTRY, setup=setup, versions=SERVING).differences(setup, versions) == differences


def test_an_entry_is_its_own_anchor_until_it_has_another() -> None:
    both = {name: ENTRY.metrics[name] for name in ("rtm", "throughput")}
    more = replace(ENTRY, metrics={**ENTRY.metrics, "asl": (LaunchValue(0.5, 0.0),)})
    assert anchor_of(more) == Anchor(both, "1a2b3c4", "2026-11-24")
    assert anchor_of(FULL) is FULL.anchor


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    write_baselines(path, {"a": {"x": ENTRY}})
    before = path.read_bytes()

    def fail(*_args: object) -> None:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(BaselineFileError if isinstance(fault, OSError) else KeyboardInterrupt) as caught:
            write_baselines(path, {"b": {"x": ENTRY}})
    assert isinstance(fault, KeyboardInterrupt) or "cannot be written: No space left on device; it is" in str(
        caught.value
    )
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_lock_that_another_run_holds_is_waited_for_until_its_time_limit(path: Path) -> None:
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(
            BaselineFileError,
            match=r"is unchanged: another process has held its lock \.perf-baseline\.json\.lock for 0 s; ",
        ):
            write_baselines(path, {"a": {"x": ENTRY}}, timeout_s=0.01)
        assert not path.exists()
    finally:
        os.close(lock)
    write_baselines(path, {"a": {"x": ENTRY}}, timeout_s=0)
    assert os.listdir(path.parent) == [path.name]


def test_a_lock_that_may_not_be_opened_is_named_with_its_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lock := path.with_name(f".{path.name}.lock")).touch()
    opened = os.open

    def refuse(name: str, *arguments: int, **places: int) -> int:
        if name == lock.name:
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return opened(name, *arguments, **places)

    monkeypatch.setattr(os, "open", refuse)
    expected = rf"is unchanged: its lock {lock.name} belongs to .*user {os.geteuid()}\)? .*; if .*, remove the file .*"
    with pytest.raises(BaselineFileError, match=expected + "then update again"):
        write_baselines(path, {"a": {"x": ENTRY}}, timeout_s=0.01)


GOOD = json.dumps(PLAIN)
DAMAGED = {
    "empty": b"",
    "truncated": GOOD[: len(GOOD) // 2].encode(),
    "no text": b"\xff\xfe\x00\x01",
    "no tests": json.dumps({"format": FORMAT, "version": VERSION}).encode(),
    "tests is a list": json.dumps({**PLAIN, "tests": []}).encode(),
    "machines is a list": json.dumps({**PLAIN, "tests": {"a": []}}).encode(),
    "entry is text": json.dumps({**PLAIN, "tests": {"a": {"box": "x"}}}).encode(),
    "entry is null": json.dumps({**PLAIN, "tests": {"a": {"box": None}}}).encode(),
    "no set-up": without("setup").encode(),
    "no metrics": without("metrics").encode(),
    "no versions": without("versions").encode(),
    "no commit": without("commit").encode(),
    "no date": without("date").encode(),
    "set-up is text": changed(setup="single").encode(),
    "set-up lacks a name": changed(setup={"pattern": "single"}).encode(),
    "set-up has another name": changed(setup={**SETUP.to_json(), "speed": 1}).encode(),
    "metrics is a list": changed(metrics=[1]).encode(),
    "launches is a number": changed(metrics={"rtm": 5}).encode(),
    "launch is a number": changed(metrics={"rtm": [5]}).encode(),
    "launch has three members": changed(metrics={"rtm": [[1, 2, 3]]}).encode(),
    "value is text": changed(metrics={"rtm": [["fast", 0.1]]}).encode(),
    "value is null": changed(metrics={"rtm": [[None, 0.1]]}).encode(),
    "value is not a number": changed(metrics={"rtm": [[float("nan"), 0.1]]}).encode(),
    "value is below zero": changed(metrics={"rtm": [[-5, 0.1]]}).encode(),
    "value is hardly above zero": changed(metrics={"rtm": [[1e-300, 0.1]]}).encode(),
    "value is a thousand years": changed(metrics={"rtm": [[1e20, 0.1]]}).encode(),
    "value overflows": changed(metrics={"rtm": [[10**400, 0.1]]}).encode(),
    "value has thousands of digits": GOOD.replace("1000", "1" * 5000).encode(),
    "error is below zero": changed(metrics={"rtm": [[1, -0.1]]}).encode(),
    "error is above ten": changed(metrics={"rtm": [[1, 11]]}).encode(),
    "time of the fixed work overflows": GOOD.replace('"commit"', '"sorting_ns": [1e400], "commit"').encode(),
    "anchor overflows": changed(anchor={"commit": None, "date": "2026", "metrics": {"rtm": [[1e308, 0]]}}).encode(),
    "nested deeply": GOOD.replace("1000", "[" * 1000 + "]" * 1000).encode(),
    "nested deeply where nothing is read": GOOD.replace('"commit"', f'"x": {"[" * 100_000}, "commit"').encode(),
    "half a surrogate pair in a test id": json.dumps({**PLAIN, "tests": {"\ud800": {}}}).encode(),
    "merged with both sides": GOOD.replace('"tests"', '"tests": {}, "tests"', 1).encode(),
    "half a surrogate pair in a commit": changed(commit="\ud800").encode(),
    "date is a number": changed(date=5).encode(),
    "value is infinite": changed(metrics={"rtm": [[float("inf"), 0.1]]}).encode(),
    "no launches": changed(metrics={"rtm": []}).encode(),
    "anchor is text": changed(anchor="x").encode(),
    "anchor has no metrics": changed(anchor={"commit": None, "date": "2026"}).encode(),
    "anchor has a value that is text": changed(
        anchor={"commit": None, "date": "2026", "metrics": {"rtm": [["fast", 0]]}}
    ).encode(),
    "time of the fixed work is a number": changed(sorting_ns=5).encode(),
    "time of the fixed work is text": changed(sorting_ns=["fast"]).encode(),
    "time of the fixed work is below zero": changed(sorting_ns=[-5]).encode(),
    "time of the fixed work is zero": changed(sorting_ns=[0]).encode(),
    "time of the fixed work is not a number": changed(sorting_ns=[float("nan")]).encode(),
    "latency is a number": changed(latency=5).encode(),
    "latency has three members": changed(latency=[[50, 1, 2]]).encode(),
    "latency does not ascend": changed(latency=[[50, 2], [99, 1]]).encode(),
    "percent does not ascend": changed(latency=[[99, 1], [50, 2]]).encode(),
    "latency is not a number": changed(latency=[[50, float("nan")]]).encode(),
    "a count is below zero": changed(counts={"1": [3, -1, []]}).encode(),
    "a time of a count is below zero": changed(counts={"1": [3, 0, [[-5, 3]]]}).encode(),
    "a count has two members": changed(counts={"1": [3, 0]}).encode(),
    "a count of a time is text": changed(counts={"1": [3, 0, [[5, "x"]]]}).encode(),
    "counts is a list": changed(counts=[3]).encode(),
    "split is a list": changed(split=[]).encode(),
    "a split has no parts": changed(split={"rtm": {"mean": 5}}).encode(),
    "a part has one member": changed(
        split={"rtm": {"mean": 5, "median": 4, "requests": 9, "parts": {"a": [1]}}}
    ).encode(),
    "versions is a list": changed(versions=["numpy"]).encode(),
    "version is text": json.dumps({**PLAIN, "version": "1"}).encode(),
    "version is null": json.dumps({**PLAIN, "version": None}).encode(),
    "version is zero": json.dumps({**PLAIN, "version": 0}).encode(),
}


WORDS = {
    "value has thousands of digits": "Exceeds the limit (4300 digits)",
    "value is a thousand years": ".metrics.rtm[0][0] is 1e+20, expected at most 1e+18",
    "value is hardly above zero": 'has 1e-300 as metrics["rtm"][0][0], expected 0 or at least 1e-09',
    "value is not a number": "NaN is no number of JSON",
    "error is below zero": ".metrics.rtm[0][1] is -0.1, expected at least 0",
    "error is above ten": ".metrics.rtm[0][1] is 11, expected at most 10",
    "time of the fixed work overflows": "Infinity",
    "half a surrogate pair in a commit": "half a surrogate pair, expected Unicode",
    "date is a number": ".date is 5, expected text",
}
"""What the line says of some of them."""


@each_row("name", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line_and_stays_as_it_is(path: Path, name: str) -> None:
    path.write_bytes(content := DAMAGED[name])
    for attempt in (lambda: read_baselines(path), lambda: write_baselines(path, {"a": {"x": ENTRY}})):
        with pytest.raises(BaselineFileError) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith(f"{path} ")
        assert "\n" not in message
        assert "restore it from version control, or delete it" in message
        assert "pytest --perf-baseline update" in message
        assert WORDS.get(name, "") in message
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


def test_a_pointer_of_git_lfs_is_named_with_the_command_that_fetches(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(BaselineFileError, match=r"is a pointer of Git LFS.*git lfs pull"):
        read_baselines(path)


def test_the_marks_of_a_conflict_are_named_with_the_command_that_merges(path: Path) -> None:
    """JSON on both sides, as git leaves it."""
    text = json.dumps(PLAIN, indent=1)
    path.write_text(f"<<<<<<< HEAD\n{text}\n=======\n{text}\n>>>>>>> branch\n", encoding="utf-8")
    with pytest.raises(BaselineFileError) as caught:
        read_baselines(path)
    message = str(caught.value)
    assert message.startswith(f"{path} has the marks of a git conflict from line 1 on, expected JSON; ")
    shows = " ".join(f"<(git show :{side}:./{path.name})" for side in (2, 3))
    assert f"python -m pytest_mlpatterns baseline merge {shows} -o {path.name}" in message
    assert "the merge driver of docs/how-to/ci.md" in message


FOREIGN = ("[]", "null", "5", "{}", '{"format": "pytest-benchmark", "version": 1}', '{"machine_info": {}}')
NEWER = json.dumps({**PLAIN, "version": VERSION + 1, "tests": {"of another": "shape"}})


@pytest.mark.parametrize(
    ("content", "start", "mend"),
    [
        *((text, "is not a baseline file of pytest-mlpatterns; ", "--perf-baseline-file") for text in FOREIGN),
        (NEWER, f"has format version {VERSION + 1}", f"up to {VERSION}; upgrade the package"),
    ],
)
def test_a_foreign_or_newer_file_is_refused_with_its_mend_and_stays_as_it_is(
    path: Path, content: str, start: str, mend: str
) -> None:
    path.write_text(content, encoding="utf-8")
    for attempt in (lambda: read_baselines(path), lambda: write_baselines(path, {"a": {"x": ENTRY}})):
        with pytest.raises(BaselineFileError) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith(f"{path} {start}")
        assert mend in message
        assert "\n" not in message
        assert path.read_text(encoding="utf-8") == content


def test_a_directory_or_a_device_in_the_file_s_place_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(BaselineFileError, match=r"cannot be read: .*; name a file with --perf-baseline-file$"):
            read_baselines(path)


def test_a_file_that_cannot_be_made_is_an_error_with_a_mend(tmp_path: Path) -> None:
    with pytest.raises(BaselineFileError, match=r"perf-baseline.json cannot be written: .*--perf-baseline-file"):
        write_baselines(tmp_path / "absent" / "perf-baseline.json", {"a": {"x": ENTRY}})


def test_the_counts_of_a_launch_have_one_line_and_those_of_an_older_entry_are_unknown(path: Path) -> None:
    write_baselines(path, {"test_a.py::test_one": {"box": FULL}})
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    assert '"001": [300, 8, [[4096000, 150], [4128768, 142]]],' in lines
    assert '"002": [280, 0, [[4063232, 280]]]' in lines
    assert '"ttft": [[1024, 270], [4096, 22]]' in lines
    path.write_text(json.dumps(PLAIN), encoding="utf-8")
    assert read_baselines(path)["test_a.py::test_one"]["box"].counts == ()


def test_parts_and_latencies_that_are_unknown_are_left_out(path: Path) -> None:
    known = {
        "mean": 5,
        "median": 4,
        "requests": 9,
        "parts": {"a/wire": [1, 2, 3], "later": [4, 2, 1], "hop": [0, 1, 0]},
    }
    path.write_text(changed(split={"rtm": known, "later": known}), encoding="utf-8")
    found = read_baselines(path)["test_a.py::test_one"]["box"].split
    assert list(found) == ["rtm"]
    assert found["rtm"].calls == {}
    assert [(part.name, part.of, part.mean_ns) for part in found["rtm"].parts] == [("wire", "a", 1.0), ("hop", "", 0.0)]
