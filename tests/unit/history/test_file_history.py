"""A history in a file: what is appended is read, whatever other processes and users do to the file."""

import fcntl
import gc
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest
from support import TESTS
from support.each_row import each_row
from support.history_lines import history_line
from support.owners import declare_owner
from support.repository import Repository

from pytest_mlpatterns.errors import HistoryError
from pytest_mlpatterns.history.file import MOST_BYTES, History, union_attribute
from pytest_mlpatterns.records.history import HistoryLine
from pytest_mlpatterns.system import owned_files
from pytest_mlpatterns.system import shared_file as shared

NAME = "perf-history.jsonl"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / NAME


@pytest.fixture
def history(path: Path) -> History:
    return History(path.parent / NAME, NAME)


def texts(history: History) -> list[str]:
    return [line.to_text() for line in history.read().lines]


def lines_from(first: int, number: int) -> list[HistoryLine]:
    return [history_line(first + index) for index in range(number)]


def test_lines_are_read_in_the_order_in_which_they_were_appended(history: History) -> None:
    lines = lines_from(0, 5)
    assert history.append([]) == ()
    assert history.read().lines == ()
    assert history.append(lines[3:]) == ()
    assert history.append(lines[:3]) == ()
    assert texts(history) == [line.to_text() for line in (*lines[3:], *lines[:3])]
    assert (history.read().warnings, history.read().skipped) == ((), 0)


def test_exact_duplicates_count_once(history: History, path: Path) -> None:
    lines = lines_from(0, 3)
    history.append(lines)
    path.write_bytes(path.read_bytes() * 2)
    assert texts(history) == [line.to_text() for line in lines]


def test_reading_leaves_the_collector_of_cycles_as_it_was(history: History) -> None:
    history.append([history_line()])
    history.read()
    assert gc.isenabled()
    gc.disable()
    try:
        history.read()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_line_that_was_cut_off_is_named_and_the_next_append_begins_on_a_new_one(history: History, path: Path) -> None:
    first, cut, last = lines_from(0, 3)
    history.append([first, cut])
    path.write_bytes(path.read_bytes()[:-20])
    read = history.read()
    assert [line.to_text() for line in read.lines] == [first.to_text()]
    assert (read.warnings, read.skipped) == ((f"{NAME}: 1 line is left out: line 2 is cut off",), 1)
    history.append([last])
    read = history.read()
    assert [line.to_text() for line in read.lines] == [first.to_text(), last.to_text()]
    (warning,) = read.warnings
    assert warning.startswith(f"{NAME}: 1 line is left out: line 2 is no JSON: ")


@each_row("kept", range(1, 9))
def test_a_first_line_of_a_few_letters_is_a_line_that_was_cut_off(history: History, path: Path, kept: int) -> None:
    path.write_bytes(history_line().to_text().encode()[:kept])
    assert history.read().skipped == 1
    history.append([history_line(1)])
    assert texts(history) == [history_line(1).to_text()]


def test_a_last_line_without_its_line_break_is_read(history: History, path: Path) -> None:
    path.write_bytes(history_line().to_text().encode())
    history.append([history_line(1)])
    assert texts(history) == [history_line().to_text(), history_line(1).to_text()]


def test_damaged_lines_are_named_by_number_and_counted(history: History, path: Path) -> None:
    good = history_line().to_text().encode()
    damaged = [
        b"<<<<<<< HEAD",
        b'{"at":["a1b2c3d4",1],"v":2}',
        b'{"at":["a1b2c3d4",1],"v":1}',
        b"\xff\xfe" + good,
        b"\0" * 300,
        b"[" * 50_000,
        b'{"at":' + b"x" * (70 << 10) + b"}",
        good.replace(b"rtm", b"\x1b[2J"),
    ]
    path.write_bytes(b"\n".join([damaged[0], good + b"\r", b"", *damaged[1:], b"  ", good]) + b"\n")
    read = history.read()
    assert [line.to_text() for line in read.lines] == [good.decode()]
    assert read.skipped == len(damaged)
    (warning,) = read.warnings
    assert warning == (
        f"{NAME}: 8 lines are left out: line 1 is no JSON: Expecting value: line 1 column 1 (char 0); "
        "line 4 has version 2, this pytest-mlpatterns reads up to 1; upgrade it; "
        "line 5 lacks date; line 6 is not in UTF-8; "
        "line 7 is no JSON: Expecting value: line 1 column 1 (char 0); and 3 others"
    )


@pytest.mark.parametrize(
    "content",
    [
        b'{\n "format": "pytest-mlpatterns-baseline",\n "tests": {}\n}\n',
        b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 10,
        b"# Notes\n\nSome text.\n",
        b"name,value\nrtm,5\n",
        b'{"results": []}\n',
    ],
    ids=["baseline", "binary", "text", "table", "other JSON"],
)
def test_a_file_that_is_something_else_is_refused_and_stays_as_it_is(
    history: History, path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    expected = f"^{NAME} is no history of pytest-mlpatterns, its first line is .*, or move this one away$"
    for use in (history.read, lambda: history.append([history_line()])):
        with pytest.raises(HistoryError, match=expected) as caught:
            use()
        assert str(caught.value).isprintable()
    assert path.read_bytes() == content


def test_sizes_have_bounds(history: History, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HistoryError, match=r"the line of .* has \d+ KiB, expected at most 64; measure fewer"):
        history.append([history_line(launches=5000)])
    assert not path.exists()
    history.append([history_line()])
    monkeypatch.setattr("pytest_mlpatterns.history.file.MOST_BYTES", 1 << 20)
    with path.open("ab") as file:
        file.write(b"\n" * (1 << 20))
    with pytest.raises(HistoryError, match="cannot be read: It is larger than 1 MiB; name another file"):
        history.read()
    with pytest.raises(HistoryError, match="has 1 MiB, expected at most 1; begin another file"):
        history.append([history_line()])
    assert MOST_BYTES == 256 << 20


def test_a_link_of_this_user_is_followed(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    link = tmp_path / "link.jsonl"
    link.symlink_to("shared/other.jsonl")
    (tmp_path / "shared" / "other.jsonl").symlink_to("target.jsonl")
    history = History(link, "link.jsonl")
    history.append([history_line()])
    history.append([history_line(1)])
    assert link.is_symlink()
    assert len((tmp_path / "shared" / "target.jsonl").read_text("utf-8").splitlines()) == 2
    assert len(history.read().lines) == 2


def test_a_link_of_another_user_is_not_followed(
    tmp_path: Path, history: History, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.write_text("mine", encoding="utf-8")
    path.symlink_to(target)
    (tmp_path / "d").symlink_to(tmp_path)
    declare_owner(monkeypatch, 4711)
    behind = History(tmp_path / "d" / "new.jsonl", "d/new.jsonl")
    for refused, link in ((history, NAME), (behind, "d")):
        for use in (refused.read, partial(refused.append, [history_line()])):
            with pytest.raises(
                HistoryError, match=rf"^{refused.name} .*: {link} is a link of another user, of id 4711; "
            ):
                use()
    assert target.read_text(encoding="utf-8") == "mine"
    assert set(os.listdir(tmp_path)) == {NAME, "target", "d"}


def test_a_link_that_appears_meanwhile_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, path = tmp_path / "target", tmp_path / NAME
    target.write_bytes(b"mine")
    path.symlink_to(target)
    monkeypatch.setattr(owned_files, "_target", lambda *_: None)
    history = History(path, NAME)
    for use, reason in (
        (history.read, "symbolic links"),
        (partial(history.append, [history_line()]), "no regular file"),
    ):
        with pytest.raises(HistoryError, match=reason):
            use()
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.name)])
def test_only_a_regular_file_is_a_history(history: History, path: Path, make: object) -> None:
    make(path)  # type: ignore[operator]
    for use in (history.read, lambda: history.append([history_line()])):
        with pytest.raises(HistoryError, match=r"regular file|directory|links lead to each other"):
            use()


@each_row(
    ("path", "why"),
    (Path("missing", NAME), "No such file or directory; it is"),
    (Path(os.devnull), "It is no regular file; it is unchanged"),
    (Path("/proc", NAME), ".*; it is unchanged, make its directory"),
)
def test_a_place_that_cannot_be_written_to_is_an_error_that_says_so(tmp_path: Path, path: Path, why: str) -> None:
    with pytest.raises(HistoryError, match=rf"^{NAME} cannot be written: {why}"):
        History(tmp_path / path, NAME).append([history_line()])
    assert History(tmp_path / "missing" / NAME, NAME).read().lines == ()


def test_a_file_that_may_not_be_opened_is_an_error_that_says_so(
    history: History, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.append([history_line()])
    before = path.read_bytes()

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HistoryError, match="cannot be read: Permission denied; name another file"):
        history.read()
    with pytest.raises(HistoryError, match="cannot be written: Permission denied; it is unchanged, make its directory"):
        history.append([history_line()])
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_file_as_it_was(history: History, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history.append([history_line()])
    path.write_bytes(path.read_bytes() + b'{"at":["a1b2')
    before, written, write = path.read_bytes(), [], os.write

    def write_half(descriptor: int, content: bytes) -> int:
        if written:
            raise OSError(28, "No space left on device")
        written.append(write(descriptor, bytes(content)[: len(content) // 2]))
        return written[0]

    monkeypatch.setattr(os, "write", write_half)
    with pytest.raises(HistoryError, match="cannot be written: No space left on device; it is unchanged"):
        history.append(lines_from(1, 3))
    assert written
    assert path.read_bytes() == before


def test_a_file_that_another_process_locks_is_an_error(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    path = history.path
    history.append([history_line()])
    monkeypatch.setattr(shared, "_READ_TIMEOUT_S", 0.0)
    message = (
        rf"another process has held its lock \.{path.name}\.lock for 0 s; that file belongs to .*user {os.geteuid()}"
    )
    with shared.shared_file(path):
        with pytest.raises(TimeoutError, match=message), shared.shared_file(path, timeout_s=0.01):
            pass
        assert len(history.read().lines) == 1  # a reader goes on without the lock
        monkeypatch.setattr("pytest_mlpatterns.history.file.shared_file", partial(shared.shared_file, timeout_s=0.01))
        with pytest.raises(
            HistoryError, match=rf"^{NAME} is unchanged: {message}\)?; wait until no other run adds to it"
        ):
            history.append([history_line()])


def test_a_directory_that_may_not_be_written_to_leaves_the_lock_on_the_file(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.append([history_line()])
    opened = os.open

    def refuse_new(name: str | Path, flags: int, *arguments: int, **places: int) -> int:
        if str(name).endswith(".lock"):
            raise PermissionError(13, "Permission denied")
        return opened(name, flags, *arguments, **places)

    monkeypatch.setattr(os, "open", refuse_new)
    history.append([history_line(1)])
    reader = opened(history.path, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    message = "another process has held its lock for 0 s, perhaps one that only reads it"
    with pytest.raises(TimeoutError, match=message), shared.shared_file(history.path, timeout_s=0.01):
        pass
    os.close(reader)
    assert len(history.read().lines) == 2


def test_a_file_system_without_locks_is_written_to(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    history.append([history_line()])
    assert len(history.read().lines) == 1


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "removed"])
def test_a_file_that_is_replaced_or_removed_while_an_append_waits_gets_the_line(
    history: History, path: Path, monkeypatch: pytest.MonkeyPatch, *, is_replaced: bool
) -> None:
    history.append([history_line()])
    opened, real = [], shared._opened

    def replaced_meanwhile(target: Path, flags: int) -> int:
        descriptor = real(target, flags)
        if not opened:
            content = path.read_bytes()
            path.unlink()
            if is_replaced:
                path.write_bytes(content)
        opened.append(descriptor)
        return descriptor

    monkeypatch.setattr(shared, "_opened", replaced_meanwhile)
    history.append([history_line(1)])
    assert len(opened) == 2
    monkeypatch.undo()
    kept = [history_line()] if is_replaced else []
    assert texts(history) == [line.to_text() for line in (*kept, history_line(1))]


def in_a_process(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, which has the name of the history in ``history``."""
    begin = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from support.history_lines import codes, herd, killed_at_random, numbered_line
from pytest_mlpatterns.history.file import History
history = History(Path({str(path)!r}), {NAME!r})
"""
    command = [sys.executable, "-c", begin + dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def numbers(history: History) -> list[int]:
    return sorted(int(line.setup) for line in history.read().lines)


@pytest.mark.processes
def test_parallel_processes_lose_no_line(history: History, path: Path) -> None:
    script = """
    def work(index):
        for number in range(10):
            history.append([numbered_line(10 * index + number)])

    assert codes(herd(work, 20)) == [0] * 20
    """
    process = in_a_process(script, path)
    assert (process.returncode, process.stderr) == (0, "")
    assert numbers(history) == list(range(200))
    assert history.read().warnings == ()
    assert path.read_bytes().count(b"\n") == 200


@pytest.mark.processes
def test_a_killed_process_loses_at_most_the_line_that_it_was_writing(history: History, path: Path) -> None:
    """A process notes each line that it has appended: those are in the file, whenever it was killed."""
    script = """
    done = os.open(history.path.with_name("done"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def work(index, begin):
        for number in range(index * 100_000, (index + 1) * 100_000):
            history.append([numbered_line(number)])
            os.write(done, b"%d\\n" % number)
            os.write(begin, b"x") if number % 100_000 == 0 else None

    killed_at_random(work, 100, most_s=0.02, seed=31)
    history.append([numbered_line(100 * 100_000)])
    """
    process = in_a_process(script, path)
    assert (process.returncode, process.stderr) == (0, "")
    done = {int(number) for number in path.with_name("done").read_text("utf-8").split()}
    found = set(numbers(history))
    assert done <= found
    unnoted = Counter(number // 100_000 for number in found - done)
    assert set(unnoted.values()) <= {1}
    assert history.read().skipped <= 100
    assert {number // 100_000 for number in done} == {*range(100)}


@pytest.mark.processes
def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_the_file_as_it_was(history: History, path: Path) -> None:
    """With a limit on its size, a file gets the part of a line up to it, and then an error, as on a full disk."""
    history.append([history_line()])
    before = path.read_bytes()
    script = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    history.append([numbered_line(number) for number in range(3)])
    """
    process = in_a_process(script, path)
    assert process.returncode == 1
    assert "cannot be written: File too large; it is unchanged" in process.stderr
    assert path.read_bytes() == before


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.made(tmp_path / "repository")
    made.commit({"perf/.gitkeep": "", ".gitignore": "ignored.jsonl\n"})
    return made


@pytest.mark.processes
def test_a_new_file_in_a_repository_comes_with_the_line_for_its_attributes(repository: Repository) -> None:
    history = History(repository.top / "perf/history.jsonl", "perf/history.jsonl")
    (offer,) = history.append([history_line()])
    assert offer == (
        "perf/history.jsonl is new. If you commit it, add this line to .gitattributes, so that git keeps the lines of "
        "both sides of a merge: /perf/history.jsonl merge=union"
    )
    assert history.append([history_line(1)]) == ()
    repository.write({".gitattributes": offer.rpartition(": ")[2] + "\n"})
    assert union_attribute(repository.top / "perf" / "history.jsonl") == ""
    assert union_attribute(repository.top / "ignored.jsonl") == ""
    assert union_attribute(repository.top.parent / "outside.jsonl") == ""


@pytest.mark.processes
@pytest.mark.parametrize("name", ["a b.jsonl", "a*[b]?.jsonl", 'a"b.jsonl', "a\\b.jsonl", "#a.jsonl", "!a.jsonl"])
def test_a_line_for_attributes_names_any_file(repository: Repository, name: str) -> None:
    path = repository.top / "perf" / name
    line = union_attribute(path)
    repository.write({".gitattributes": f"{line}\n"})
    assert repository.git("check-attr", "-z", "merge", "--", f"perf/{name}").split("\0")[2] == "union"
    assert repository.git("check-attr", "-z", "merge", "--", "perf/axb.jsonl").split("\0")[2] == "unspecified"
    assert union_attribute(path) == ""


@pytest.mark.processes
def test_a_damaged_repository_gets_no_line_for_its_attributes(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    history = History(tmp_path / NAME, NAME)
    assert history.append([history_line()]) == ()


@pytest.mark.processes
def test_git_merges_files_of_two_branches_and_no_line_counts_twice(repository: Repository) -> None:
    history = History(repository.top / NAME, NAME)
    attributes = {".gitattributes": f"/{NAME} merge=union\n"}
    history.append(lines_from(0, 3))
    repository.commit({**attributes, NAME: (repository.top / NAME).read_text("utf-8")})
    repository.git("switch", "--quiet", "--create", "other")
    history.append([history_line(3), history_line(5)])
    repository.git("commit", "--quiet", "--all", "--message", "Others")
    repository.git("switch", "--quiet", "main")
    history.append([history_line(4), history_line(5)])
    repository.git("commit", "--quiet", "--all", "--message", "Ours")
    repository.git("merge", "--quiet", "--no-edit", "other")
    read = history.read()
    assert {line.to_text() for line in read.lines} == {line.to_text() for line in lines_from(0, 6)}
    assert (len(read.lines), read.warnings) == (6, ())
