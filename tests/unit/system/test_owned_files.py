"""Only files and directories of this user are removed, renamed or opened up, and never through a link."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.owners import declare_owner

from pytest_mlpatterns.system.owned_files import (
    NotOwnedError,
    owned_directory,
    place_of,
    remove_empty,
    remove_file,
    remove_tree,
    temporary_directory,
)


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory that nothing may touch."""
    directory = tmp_path / "precious"
    (directory / "below").mkdir(parents=True)
    (directory / "below" / "thesis.txt").write_text("years", encoding="utf-8")
    (directory / "below").chmod(0o555)
    return directory


@pytest.fixture
def assert_untouched(precious: Path) -> Callable[[], None]:
    """Checks that the content of the precious directory is as it was made."""

    def check() -> None:
        assert (precious / "below" / "thesis.txt").read_text(encoding="utf-8") == "years"
        assert (precious / "below").stat().st_mode & 0o777 == 0o555

    return check


@pytest.fixture
def another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process declares another user's id, so that all files belong to another user."""
    uid = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def filled(directory: Path, precious: Path) -> Path:
    """A directory with files, links, and directories that cannot be written, read or entered."""
    (directory / "a" / "b").mkdir(parents=True)
    (directory / "a" / "b" / "file").touch()
    (directory / "closed" / "within").mkdir(parents=True)
    (directory / "a" / "link").symlink_to(precious)
    (directory / "link").symlink_to(precious)
    for folder, mode in (("a/b", 0o500), ("a", 0o500), ("closed/within", 0o000), ("closed", 0o000)):
        (directory / folder).chmod(mode)
    directory.chmod(0o500)
    return directory


def test_a_tree_goes_whatever_its_modes_are_and_its_links_are_not_followed(
    tmp_path: Path, precious: Path, assert_untouched: Callable[[], None]
) -> None:
    remove_tree(filled(tmp_path / "tree", precious))
    assert os.listdir(tmp_path) == ["precious"]
    assert_untouched()
    remove_tree(tmp_path / "tree")


def test_modes_are_changed_below_the_directory_alone(
    tmp_path: Path, precious: Path, assert_untouched: Callable[[], None]
) -> None:
    """root needs no change of modes to remove a tree, so the change is called by itself."""
    tree = filled(tmp_path / "tree", precious)
    with owned_directory(tree) as directory:
        directory._open_up()
    for folder in (tree, tree / "a", tree / "a" / "b", tree / "closed", tree / "closed" / "within"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert_untouched()


def test_entries_that_are_kept_stay_alone(tmp_path: Path, precious: Path, assert_untouched: Callable[[], None]) -> None:
    tree = filled(tmp_path / "tree", precious)
    tree.chmod(0o700)
    (tree / "owner").touch()
    with owned_directory(tree) as directory:
        directory.empty(keep=("owner",))
    assert os.listdir(tree) == ["owner"]
    assert_untouched()


def test_a_link_in_place_of_what_is_removed_stays(
    tmp_path: Path, precious: Path, assert_untouched: Callable[[], None]
) -> None:
    (link := tmp_path / "link").symlink_to(precious)
    for remove in (remove_tree, remove_empty, remove_file):
        with pytest.raises(NotOwnedError, match="It is a link"):
            remove(link)
    (to_file := tmp_path / "to_file").symlink_to(precious / "below" / "thesis.txt")
    with pytest.raises(NotOwnedError, match="It is a link"):
        remove_file(to_file)
    with owned_directory(precious.parent) as directory, pytest.raises(OSError, match="symbolic links"):
        directory.open("to_file", os.O_RDWR)
    assert link.is_symlink()
    assert to_file.is_symlink()
    assert_untouched()


@pytest.mark.usefixtures("another_user")
def test_what_belongs_to_another_user_stays(tmp_path: Path, precious: Path) -> None:
    (file := tmp_path / "file").touch()
    (empty := tmp_path / "empty").mkdir()
    for remove, path in ((remove_tree, precious), (remove_empty, empty), (remove_file, file)):
        with pytest.raises(NotOwnedError, match="It belongs to another user, of id"):
            remove(path)
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "precious"]


@pytest.mark.parametrize("is_absolute", [True, False])
def test_a_place_is_behind_links_of_this_user_and_of_root(
    tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch, *, is_absolute: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory").symlink_to("precious/../precious")
    (tmp_path / "file").symlink_to("directory/below/thesis.txt")
    (tmp_path / "nowhere").symlink_to(precious.absolute() / "new")
    begin = tmp_path if is_absolute else Path()
    for uid in (os.geteuid(), 0):
        declare_owner(monkeypatch, uid)
        for name, end in (("file", "below/thesis.txt"), ("nowhere", "new"), ("directory/x", "x"), ("precious/y", "y")):
            with place_of(begin / name) as place:
                expected = precious / end
                assert place.name == expected.name
                assert os.path.samestat(os.fstat(place.directory), expected.parent.stat())
    with pytest.raises(FileNotFoundError), place_of(begin / "absent" / "x"):
        pass
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="Its symbolic links lead to each other"), place_of(begin / "round" / "x"):
        pass


@pytest.mark.parametrize("name", ["file", "directory/x", "own/x"])
def test_a_place_behind_a_link_of_another_user_is_refused(
    tmp_path: Path, precious: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "directory").symlink_to(precious)
    (tmp_path / "file").symlink_to(precious / "below" / "thesis.txt")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "x").symlink_to("../directory/x")
    declare_owner(monkeypatch, 4711)
    with pytest.raises(NotOwnedError, match="is a link of another user, of id 4711"), place_of(tmp_path / name):
        pass
    monkeypatch.setattr(
        Path, "stat", lambda _: os.stat_result((0,) * 4 + (4711,) + (0,) * 5)
    )  # of the working directory
    with place_of(tmp_path / name):
        pass


def test_a_link_that_takes_the_name_of_an_open_directory_is_not_followed(
    tmp_path: Path, precious: Path, assert_untouched: Callable[[], None]
) -> None:
    (tree := tmp_path / "tree").mkdir()
    (tree / "file").touch()
    with owned_directory(tree) as directory:
        tree.rename(tmp_path / "moved")
        tree.symlink_to(precious)
        with pytest.raises(OSError, match="Another file has taken its name"):
            directory.remove()
        with pytest.raises(OSError, match="Another file has taken its name"):
            directory.rename("new")
    assert os.listdir(tmp_path / "moved") == []
    assert tree.is_symlink()
    assert_untouched()


def test_files_and_empty_directories_go(tmp_path: Path) -> None:
    (file := tmp_path / "file").touch()
    (empty := tmp_path / "empty").mkdir()
    remove_file(file)
    remove_empty(empty)
    assert os.listdir(tmp_path) == []
    for remove in (remove_file, remove_empty):
        with pytest.raises(FileNotFoundError):
            remove(file)


def test_a_temporary_directory_is_private_and_goes_with_its_context(
    tmp_path: Path, precious: Path, assert_untouched: Callable[[], None]
) -> None:
    with temporary_directory("valkey-", tmp_path) as directory:
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "link").symlink_to(precious / "below")
        filled(directory / "tree", precious)
    assert os.listdir(tmp_path) == ["precious"]
    assert_untouched()
