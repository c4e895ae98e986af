"""Files that are read with a bound and replaced as a whole."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_mlpatterns.system import files
from pytest_mlpatterns.system.files import append_text, read_text, replace_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.json"


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_file_gets_the_umask_and_an_old_one_keeps_its_permissions(path: Path) -> None:
    for mask, expected in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        path.unlink(missing_ok=True)
        with umask(mask):
            replace_file(path, lambda: "new")
        assert mode_of(path) == expected
    path.chmod(0o640)
    with umask(0):
        replace_file(path, lambda: "newer")
    assert (mode_of(path), path.read_text(encoding="utf-8")) == (0o640, "newer")


def test_a_symbolic_link_stays_and_its_target_is_replaced_there(tmp_path: Path) -> None:
    target, link = tmp_path / "shared" / "target.json", tmp_path / "link.json"
    target.parent.mkdir()
    link.symlink_to("shared/target.json")
    for text in ("made", "replaced"):
        replace_file(link, lambda text=text: text)  # type: ignore[misc]
        assert (link.is_symlink(), target.read_text(encoding="utf-8")) == (True, text)
    link.unlink()
    link.symlink_to(link.name)
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(link, lambda: "text")


def test_what_a_killed_process_left_behind_is_removed_and_no_other_file(path: Path) -> None:
    others = [".file.json.swp", ".file.jsonc.0a1b2c3d.tmp", "file.json.0a1b2c3d.tmp", ".other.json.0a1b2c3d.tmp"]
    for name in (*others, f".{path.name}.0a1b2c3d.tmp"):
        path.with_name(name).touch()
    replace_file(path, lambda: "text")
    assert sorted(os.listdir(path.parent)) == sorted([*others, path.name])


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize("present", [True, False], ids=["over an old file", "anew"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, fault: BaseException, present: bool
) -> None:
    if present:
        path.write_text("old", encoding="utf-8")

    def fail(*_args: object, **_keywords: object) -> None:
        raise fault

    for step in ("replace", "fsync", *(["fchmod"] if present else [])):
        with monkeypatch.context() as patched:
            patched.setattr(os, step, fail)
            with pytest.raises(type(fault)):
                replace_file(path, lambda: "new")
        assert os.listdir(path.parent) == ([path.name] if present else [])
        assert not present or path.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize("length", [255, 200, 180])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("n" * length)
    replace_file(path, lambda: "one")
    replace_file(path, lambda: "two")
    assert path.read_text(encoding="utf-8") == "two"
    with pytest.raises(OSError, match="name too long"):
        replace_file(tmp_path / ("n" * 256), lambda: "text")


def test_a_pipe_or_device_is_written_to_and_never_waited_for(tmp_path: Path) -> None:
    replace_file(Path(os.devnull), lambda: "text")
    append_text(Path(os.devnull), "text")
    assert not Path(os.devnull).is_file()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (lambda: replace_file(pipe, lambda: "text"), lambda: append_text(pipe, "text")):
        with pytest.raises(OSError, match="No such device or address"):
            write()
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        replace_file(pipe, lambda: "text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_a_regular_file_is_read(path: Path, make: object) -> None:
    make(path)  # type: ignore[operator]
    with pytest.raises(OSError, match=r"regular file|directory"):
        read_text(path)


def test_a_file_over_the_bound_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 1 << 20)
    path.write_bytes(b"x" * (1 << 20))
    assert len(read_text(path)) == 1 << 20
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(OSError, match="larger than 1 MiB"):
        read_text(path)


def test_writers_at_once_lose_nothing(path: Path) -> None:
    """Each thread opens the directory itself, so that the lock excludes it as it does another process."""
    path.write_text("", encoding="utf-8")

    def write(name: str) -> None:
        for number in range(25):
            replace_file(path, lambda number=number: f"{read_text(path)}{name}{number}\n")  # type: ignore[misc]

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(read_text(path).split()) == sorted(f"{name}{number}" for name in "abcd" for number in range(25))


def test_text_that_is_no_unicode_is_written_all_the_same(path: Path) -> None:
    replace_file(path, lambda: "test_\udce4.py")
    assert path.read_text(encoding="utf-8") == "test_?.py"


def test_a_lock_that_lost_its_name_excludes_no_other(path: Path, tmp_path: Path) -> None:
    """The lock is opened anew for each try: a process that waits does not wait for a file that was removed."""
    lock = tmp_path / f".{path.name}.lock"

    def make() -> str:
        with pytest.raises(TimeoutError):
            replace_file(path, lambda: "lost", timeout_s=0)
        lock.unlink()
        replace_file(path, lambda: "second", timeout_s=0)
        return "first"

    replace_file(path, make)
    assert path.read_text(encoding="utf-8") == "first"
    assert os.listdir(tmp_path) == [path.name]


def test_a_lock_that_may_not_be_opened_yet_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's run makes it, then opens it up, then removes it."""
    lock, opened, answers = path.with_name(f".{path.name}.lock"), os.open, [True, True, False]
    lock.touch()

    def open_later(name: str, flags: int, *arguments: int, **places: int) -> int:
        if name == lock.name and answers.pop(0):
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return opened(name, flags, *arguments, **places)

    monkeypatch.setattr(os, "open", open_later)
    replace_file(path, lambda: "text")
    assert path.read_text(encoding="utf-8") == "text"


def test_a_lock_goes_also_if_the_new_content_cannot_be_made(path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        replace_file(path, lambda: str(1 / 0))
    assert os.listdir(path.parent) == []
