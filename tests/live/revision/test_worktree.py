"""Revisions laid out from real repositories: what is in them, what is left of them, and what they leave alone."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from support.repository import Repository, settings

from pytest_mlpatterns.errors import DeploymentError, SettingError
from pytest_mlpatterns.revision.commits import Revision, resolve_revision
from pytest_mlpatterns.revision.worktree import checkout, missing_extensions, remove_stale
from pytest_mlpatterns.system import git

pytestmark = pytest.mark.processes

BUILT = f"_speed{EXTENSION_SUFFIXES[0]}"

HOLDER = """
import sys
from pathlib import Path
from pytest_mlpatterns.revision.commits import resolve_revision
from pytest_mlpatterns.revision.worktree import checkout

project = Path(sys.argv[1])
with checkout(project, resolve_revision(project, "main~1")) as worktree:
    print(worktree.root, flush=True)
    sys.stdin.readline()
print("left", flush=True)
"""


class Holder:
    """A process that has a revision laid out until it is told to go on, interrupted or killed."""

    def __init__(self, project: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(project)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        self.root = Path(self.process.stdout.readline().strip())

    def end(self, how: signal.Signals | None = None) -> None:
        """Let it end by itself or by a signal, and wait for that."""
        if how is not None:
            self.process.send_signal(how)
        self.process.communicate("\n" if how is None else None)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Two commits on main, of a package and its data."""
    made = Repository.made(tmp_path_factory.mktemp("template") / "project")
    made.commit({"src/pkg/model.py": "old", "data/tracked.csv": "old", ".gitignore": "*.bin\n"}, "Old")
    made.commit({"src/pkg/model.py": "new", "data/tracked.csv": "new", "service/app.py": "new"}, "New")
    return made


@pytest.fixture
def repository(template: Repository, tmp_path: Path) -> Repository:
    """A copy of it, for one test."""
    return template.copied(tmp_path / "project")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of temporary files, so that what is left in it is seen."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return directory


@pytest.fixture
def holders() -> Iterator[list[Holder]]:
    """Takes the processes that are to end with the test."""
    found: list[Holder] = []
    yield found
    for holder in found:
        holder.process.kill()
        holder.process.communicate()


def files(top: Path) -> dict[str, str]:
    """The files under a directory with their content, without git's."""
    found = (file for file in top.rglob("*") if file.is_file() and ".git" not in file.relative_to(top).parts)
    return {str(file.relative_to(top)): file.read_text(encoding="utf-8") for file in found}


def test_the_worktree_holds_the_revision_and_not_the_present(repository: Repository, temporary: Path) -> None:
    repository.write({"src/pkg/model.py": "uncommitted", "untracked.py": ""})
    revision = resolve_revision(repository.top, "main~1")
    with checkout(repository.top, revision) as worktree:
        assert files(worktree.root) == {"src/pkg/model.py": "old", "data/tracked.csv": "old", ".gitignore": "*.bin\n"}
        assert worktree.revision == revision
        assert worktree.directory == worktree.root
        assert worktree.present_root == repository.top
        assert worktree.root.name == "project"  # a top that is a package keeps its name
        assert worktree.root.is_relative_to(temporary)
        assert str(os.getpid()) in worktree.root.parent.name
        assert worktree.notes == ()
        assert repository.worktrees() == [repository.top, worktree.root]
        assert repository.git("-C", str(worktree.root), "status", "--porcelain") == ""
    assert repository.worktrees() == [repository.top]
    assert list(temporary.iterdir()) == []


def test_a_project_below_the_top_has_its_place_below_the_top(repository: Repository) -> None:
    below = repository.top / "src" / "pkg"
    with checkout(below, resolve_revision(below, "main~1")) as worktree:
        assert worktree.directory == worktree.root / "src" / "pkg"
        assert worktree.present_root == repository.top


def assert_refused(
    project: Path, revision: Revision, words: str, *extra: str, error: type[Exception] = DeploymentError
) -> None:
    """It is not laid out, and nothing stays in the directory of temporary files."""
    with pytest.raises(error, match=words), checkout(project, revision, extra):
        pass
    assert os.listdir(tempfile.gettempdir()) == []


def test_a_project_that_the_revision_does_not_have_is_said(repository: Repository) -> None:
    below = repository.top / "service"
    revision = resolve_revision(below, "main~1")
    assert_refused(below, revision, rf"service does not exist at main~1 \({revision.short}\)")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_worktree_goes_however_the_context_ends(
    repository: Repository, temporary: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), checkout(repository.top, resolve_revision(repository.top, "main~1")):
        raise error
    assert repository.worktrees() == [repository.top]
    assert list(temporary.iterdir()) == []


def test_the_worktree_goes_whatever_was_done_to_it(repository: Repository, temporary: Path) -> None:
    with checkout(repository.top, resolve_revision(repository.top, "main~1")) as worktree:
        (worktree.root / ".git").unlink()
        (worktree.root / "data").chmod(0o500)
        repository.git("worktree", "lock", str(worktree.root))
    assert repository.worktrees() == [repository.top]
    assert list(temporary.iterdir()) == []
    with checkout(repository.top, resolve_revision(repository.top, "main~1")):
        shutil.rmtree(repository.top)
    assert list(temporary.iterdir()) == []


def test_a_revision_that_git_cannot_lay_out_brings_what_git_says(repository: Repository) -> None:
    revision = resolve_revision(repository.top, "main~1")
    (repository.top / ".git" / "worktrees").write_text("in the way")
    assert_refused(repository.top, revision, r"^`git worktree` failed in .*: fatal: ")


def test_what_the_user_has_stays_as_it_is(repository: Repository, tmp_path: Path) -> None:
    repository.write({"src/pkg/model.py": "stashed"})
    repository.git("stash")
    repository.write({"src/pkg/model.py": "staged", "untracked.py": "mine"})
    repository.git("add", "src/pkg/model.py")
    repository.write({"src/pkg/model.py": "changed again"})
    for setting in ("worktree.useRelativePaths=true", "submodule.recurse=true", "core.fsmonitor=true"):
        repository.git("config", *setting.split("="))
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        script = repository.top / ".git" / "hooks" / hook
        script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran-{hook}\n", encoding="utf-8")
        script.chmod(0o755)
    unplugged = tmp_path / "unplugged"
    repository.git("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(unplugged))
    shutil.rmtree(unplugged)

    def all_of_git() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in (repository.top / ".git").rglob("*") if file.is_file()}

    before, present = all_of_git(), files(repository.top)
    remove_stale(repository.top)
    with checkout(repository.top, resolve_revision(repository.top, "main~1"), ["untracked.py"]) as worktree:
        (worktree.root / "src" / "pkg" / "model.py").write_text("by the reference", encoding="utf-8")
        during = all_of_git()
        registered = repository.top / ".git" / "worktrees" / "project"
        assert {file: text for file, text in during.items() if not file.is_relative_to(registered)} == before
    assert all_of_git() == before
    assert files(repository.top) == present
    assert not list(tmp_path.glob("ran-*"))


def test_in_a_git_hook_nothing_else_is_read_or_written(repository: Repository, tmp_path: Path) -> None:
    hook = repository.top / ".git" / "hooks" / "pre-commit"
    hook.write_text(f'#!/bin/sh\necho now | {sys.executable} -c "$HOLDER" "$PWD" > {tmp_path}/said\n', encoding="utf-8")
    hook.chmod(0o755)
    repository.write({"src/pkg/model.py": "half of it", "service/app.py": "not this"})
    subprocess.run(
        ["git", "commit", "--quiet", "-m", "Through the hook", "src/pkg/model.py"],
        cwd=repository.top,
        env={**settings(), "HOLDER": HOLDER},
        check=True,
    )
    assert (tmp_path / "said").read_text(encoding="utf-8").endswith("project\nleft\n")
    assert repository.git("show", "--name-only", "--format=%s") == "Through the hook\n\nsrc/pkg/model.py"
    assert repository.git("status", "--porcelain") == "M service/app.py"
    assert repository.worktrees() == [repository.top]


def test_a_worktree_of_the_users_and_a_detached_head_will_do(repository: Repository, tmp_path: Path) -> None:
    users = tmp_path / "users"
    repository.git("worktree", "add", "--quiet", "--detach", str(users))
    with checkout(users, resolve_revision(users, "HEAD~1")) as worktree:
        assert worktree.present_root == users
        assert (worktree.root / "src" / "pkg" / "model.py").read_text(encoding="utf-8") == "old"
        assert remove_stale(users) == []
    assert repository.worktrees() == [repository.top, users]


def test_what_a_killed_run_left_goes_and_what_a_living_one_uses_stays(
    repository: Repository, temporary: Path, holders: list[Holder]
) -> None:
    holders += [Holder(repository.top), Holder(repository.top)]
    killed, living = holders
    with checkout(repository.top, resolve_revision(repository.top, "main~1")) as own:
        killed.end(signal.SIGKILL)
        assert killed.root in repository.worktrees()
        assert remove_stale(repository.top) == [killed.root]
        assert remove_stale(repository.top) == []
        assert set(repository.worktrees()) == {repository.top, living.root, own.root}
        assert {entry.name for entry in temporary.iterdir()} == {living.root.parent.name, own.root.parent.name}
    living.end()
    assert repository.worktrees() == [repository.top]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "state", ["locked by git", "emptied", "without its own .git", "in part", "in the middle of its removal"]
)
def test_what_a_killed_run_left_goes_in_whatever_state(
    repository: Repository, temporary: Path, holders: list[Holder], state: str
) -> None:
    holders.append(Holder(repository.top))
    holders[0].end(signal.SIGKILL)
    root = holders[0].root
    match state:
        case "locked by git":
            repository.git("worktree", "lock", "--reason", "initializing", str(root))
        case "emptied":
            shutil.rmtree(root.parent)
        case "without its own .git":
            (root / ".git").unlink()
        case "in part":
            shutil.rmtree(root / "src")
        case "in the middle of its removal":
            shutil.rmtree(root)
            (root.parent / "owner").unlink()
    assert remove_stale(repository.top / "data") == [root]
    assert repository.worktrees() == [repository.top]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("has_owner", [True, False])
def test_a_worktree_that_only_looks_like_ours_stays(
    repository: Repository, temporary: Path, *, has_owner: bool
) -> None:
    root = temporary / "mlpatterns-against-mine" / "project"
    repository.git("worktree", "add", "--quiet", "--detach", str(root))
    if has_owner:
        (root.parent / "owner").mkdir()
    said: list[str] = []
    assert remove_stale(repository.top, said.append) == []
    assert said == [
        f"{root} has no lock of a run of --perf-against, so it is left as it is; if it is no worktree of your own, "
        f"remove it: git worktree remove --force {root}"
    ]
    assert (root / "src" / "pkg" / "model.py").exists()
    assert repository.worktrees() == [repository.top, root]


def with_filter(repository: Repository, command: str) -> Revision:
    """A revision with a file that passes a command when it is laid out."""
    repository.git("config", "filter.slow.smudge", command)
    sha = repository.commit({".gitattributes": "slow.txt filter=slow\n", "slow.txt": "content"})
    repository.commit({"src/pkg/model.py": "newer"})
    return resolve_revision(repository.top, sha)


def test_a_git_ends_with_its_run_and_keeps_the_worktree_until_then(repository: Repository, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    revision = with_filter(repository, f"cat {pipe}")
    program = HOLDER.replace("main~1", revision.sha)
    process = subprocess.Popen([sys.executable, "-c", program, str(repository.top)], stdout=subprocess.DEVNULL)
    with pipe.open("wb", buffering=0) as content:  # opens once git has come to the file
        process.kill()
        process.wait()
        while not remove_stale(repository.top):
            pass  # until that git has ended
        with pytest.raises(BrokenPipeError):
            content.write(b"content")
    assert repository.worktrees() == [repository.top]


def test_a_filter_that_hangs_ends_with_the_limit_of_git(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = with_filter(repository, "sleep 1000")
    monkeypatch.setitem(git._LIMITS_S, "worktree", 0.5)
    message = r"^`git worktree` was stopped after 0.5 s in .*, expected an end before; run it there to see what it"
    assert_refused(repository.top, revision, message)
    assert repository.worktrees() == [repository.top]


def test_extra_files_are_copied_and_what_the_revision_has_is_kept(repository: Repository) -> None:
    outside = repository.top.parent / "store"
    outside.mkdir()
    (outside / "weights.bin").write_text("weights", encoding="utf-8")
    repository.write(
        {"data/a.csv": "a", "data/b.txt": "b", "data/deep/.c.csv": "c", "models/v1/m.bin": "m", "models/.git/x": "x"}
    )
    (repository.top / "models" / "linked").symlink_to(outside)
    (repository.top / "models" / "itself").symlink_to(".")
    (repository.top / "models" / "broken").symlink_to("nowhere")
    os.mkfifo(repository.top / "models" / "pipe")
    extra = ["data/*.csv", "data/**/.*.csv", "models/", "models/v1/m.bin", "service/app.py"]
    with checkout(repository.top, resolve_revision(repository.top, "main~1"), extra) as worktree:
        assert files(worktree.root) == {
            ".gitignore": "*.bin\n",
            "src/pkg/model.py": "old",
            "service/app.py": "new",
            "data/tracked.csv": "old",
            "data/a.csv": "a",
            "data/deep/.c.csv": "c",
            "models/v1/m.bin": "m",
            "models/linked/weights.bin": "weights",
        }
        assert not any(path.is_symlink() for path in worktree.root.rglob("*"))
        for copied in ("data/a.csv", "models/linked/weights.bin"):
            (worktree.root / copied).write_text("changed by the reference", encoding="utf-8")
    assert (repository.top / "data" / "a.csv").read_text(encoding="utf-8") == "a"
    assert (outside / "weights.bin").read_text(encoding="utf-8") == "weights"


def test_an_extra_file_is_not_copied_through_a_link_of_the_revision(repository: Repository) -> None:
    outside = repository.top.parent / "outside"
    outside.mkdir()
    (repository.top / "models").symlink_to(outside)
    repository.git("add", "models")
    repository.commit({})
    (repository.top / "models").unlink()
    repository.write({"models/new/weights.bin": "weights"})
    message = (
        r"weights.bin would be copied to .*/outside/new, through a link that the revision has, expected a directory"
    )
    assert_refused(repository.top, resolve_revision(repository.top, "main"), message, "models/new")
    assert os.listdir(outside) == []


def test_extra_files_are_found_from_the_project_not_from_the_top(repository: Repository) -> None:
    repository.write({"data/local.bin": "1", "shared/weights.bin": "2"})
    project = repository.top / "data"
    with checkout(project, resolve_revision(project, "main~1"), ["*.bin", "../shared"]) as worktree:
        assert (worktree.directory / "local.bin").read_text(encoding="utf-8") == "1"
        assert (worktree.root / "shared" / "weights.bin").read_text(encoding="utf-8") == "2"


@pytest.mark.parametrize("pattern", ["data/*.parquet", "weights/", "", "data/tracked.csv/"])
def test_an_extra_file_that_does_not_exist_is_named(repository: Repository, pattern: str) -> None:
    words = f"^perf_against_files: '{pattern.replace('*', '.')}' matches nothing in"
    revision = resolve_revision(repository.top, "main~1")
    assert_refused(repository.top, revision, words, "data", pattern, error=SettingError)


@pytest.mark.parametrize("pattern", ["../*.bin", "{}/../weights.bin"])
def test_an_extra_file_outside_the_repository_is_refused(repository: Repository, pattern: str) -> None:
    (repository.top.parent / "weights.bin").touch()
    words = r"matches /.*/weights.bin, expected files in /.*/project$"
    revision = resolve_revision(repository.top, "main~1")
    assert_refused(repository.top, revision, words, pattern.format(repository.top), error=SettingError)


def test_an_extra_file_that_cannot_be_copied_is_named(repository: Repository) -> None:
    repository.git("rm", "-r", "--quiet", "data")
    repository.commit({"data": "a file there"})
    repository.git("rm", "--quiet", "data")
    repository.write({"data/a.csv": "a directory here"})
    words = r"data/a.csv cannot be copied to .*: (File exists|Not a directory); TMPDIR"
    assert_refused(repository.top, resolve_revision(repository.top, "main"), words, "data")


def test_a_temporary_directory_inside_the_project_is_not_copied_into_itself(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = repository.top / "tmp"
    inside.mkdir()
    repository.write({f"tmp/{BUILT}": ""})
    monkeypatch.setattr(tempfile, "tempdir", str(inside))
    with checkout(repository.top, resolve_revision(repository.top, "main"), ["tmp"]) as worktree:
        assert (worktree.root / "tmp" / BUILT).exists()
        assert len(list((worktree.root / "tmp").iterdir())) == 1
        assert worktree.notes == ()
    assert [entry.name for entry in inside.iterdir()] == [BUILT]


@pytest.fixture
def library(tmp_path: Path) -> Repository:
    """A repository with a submodule of its own, to be a submodule."""
    inner = Repository.made(tmp_path / "inner")
    inner.commit({"inner.py": "inner"})
    made = Repository.made(tmp_path / "library")
    made.git("submodule", "--quiet", "add", inner.top.as_uri(), "parts/inner")
    made.commit({"library.py": "old"})
    return made


def test_submodules_are_at_the_commit_of_the_revision(repository: Repository, library: Repository) -> None:
    repository.git("submodule", "--quiet", "add", "--name", "lib", library.top.as_uri(), "vendor/a library")
    repository.git("submodule", "--quiet", "update", "--init", "--recursive")
    repository.commit({"data/more.csv": ""}, "With a library")
    library.commit({"library.py": "new"})
    repository.git("-C", "vendor/a library", "pull", "--quiet", "origin", "main")
    before = {file: file.read_bytes() for file in (repository.top / ".git").rglob("*") if file.is_file()}
    shutil.rmtree(library.top)  # nothing comes from there any more
    with checkout(repository.top, resolve_revision(repository.top, "main")) as worktree:
        found = files(worktree.root)
        assert found["vendor/a library/library.py"] == "old"
        assert found["vendor/a library/parts/inner/inner.py"] == "inner"
        assert worktree.notes == ()
    assert {file: file.read_bytes() for file in (repository.top / ".git").rglob("*") if file.is_file()} == before
    assert (repository.top / "vendor/a library/library.py").read_text(encoding="utf-8") == "new"


def test_a_submodule_that_is_no_more_is_found_where_git_keeps_it(repository: Repository, library: Repository) -> None:
    repository.git("submodule", "--quiet", "add", "--name", "lib", library.top.as_uri(), "vendor")
    repository.git("submodule", "--quiet", "update", "--init", "--recursive")
    repository.commit({"data/more.csv": ""})
    repository.git("rm", "--quiet", "vendor")
    repository.commit({"data/more.csv": "x"})
    with checkout(repository.top, resolve_revision(repository.top, "main~1")) as worktree:
        assert files(worktree.root)["vendor/parts/inner/inner.py"] == "inner"


def test_a_submodule_that_is_empty_in_the_present_too_is_noted(repository: Repository, library: Repository) -> None:
    repository.git("submodule", "--quiet", "add", library.top.as_uri(), "vendor")
    repository.commit({"data/more.csv": ""})
    clone = Repository.cloned(repository, repository.top.parent / "clone")
    with checkout(clone.top, resolve_revision(clone.top, "main")) as worktree:
        assert worktree.notes == ("submodule vendor is empty, as it is in the working tree",)


def test_a_submodule_without_its_commit_is_an_error_that_names_it(repository: Repository, library: Repository) -> None:
    repository.git("submodule", "--quiet", "add", library.top.as_uri(), "vendor")
    elsewhere = library.commit({"library.py": "elsewhere"})
    repository.git("update-index", "--cacheinfo", f"160000,{elsewhere},vendor")
    repository.git("commit", "--quiet", "--message", "Further than this clone")
    message = rf"^submodule vendor is at commit {elsewhere[:12]} .*`git -C vendor fetch origin {elsewhere}`$"
    assert_refused(repository.top, resolve_revision(repository.top, "main"), message)


@pytest.mark.parametrize("name", ["../../ev", "a/../../../ev", "/ev"])
def test_a_submodule_whose_name_leads_elsewhere_is_refused(
    repository: Repository, library: Repository, temporary: Path, name: str
) -> None:
    """The repository that it leads to is one of the revision itself, whose settings name programs."""
    ran = temporary.parent / "ran"
    library.commit({".gitattributes": "* filter=x\n"})
    place = library.copied(repository.top / "ev").top
    for file in (place / ".git").iterdir():
        file.rename(place / file.name)
    repository.git("config", "--file", str(place / "config"), "filter.x.smudge", f"touch {ran}; cat")
    given = str(place) if name == "/ev" else name
    repository.write({".gitmodules": f'[submodule "{given}"]\n\tpath = sub\n\turl = x\n'})
    repository.git("add", "--all")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{library.git('rev-parse', 'HEAD')},sub")
    repository.commit({})
    (repository.top / ".git" / "modules" / "a").mkdir(parents=True)
    (repository.top / "sub").mkdir()
    message = r"^\.gitmodules of the revision names submodule sub '.*ev', which leads out of \.git/modules, expected"
    assert_refused(repository.top, resolve_revision(repository.top, "main"), message)
    assert not ran.exists()


def test_git_lfs_content_that_is_here_is_filled_in_and_what_is_not_is_noted(repository: Repository) -> None:
    def pointer(oid: str) -> str:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 7\n"

    here, away = "a1" + 62 * "0", "b2" + 62 * "0"
    repository.commit(
        {
            ".gitattributes": "*.onnx filter=lfs diff=lfs merge=lfs -text\n",
            "models/here.onnx": pointer(here),
            "models/away.onnx": pointer(away),
            "models/small.onnx": "committed as it is",
        }
    )
    (repository.top / "models" / "link.onnx").symlink_to("here.onnx")
    repository.git("add", "models/link.onnx")
    sha = repository.commit({})
    for setting in ("clean", "smudge", "process"):
        repository.git("config", f"filter.lfs.{setting}", "false")
    repository.git("config", "filter.lfs.required", "true")
    repository.write({f".git/lfs/objects/a1/00/{here}": "weights"})
    with checkout(repository.top, resolve_revision(repository.top, sha)) as worktree:
        found = files(worktree.root)
        assert found["models/here.onnx"] == "weights"
        assert found["models/away.onnx"] == pointer(away)
        assert found["models/small.onnx"] == "committed as it is"
        (note,) = worktree.notes
        assert note == f"models/away.onnx: this clone has the Git LFS pointer only; run `git lfs fetch origin {sha}`"


def test_extension_modules_built_in_place_are_said(repository: Repository) -> None:
    repository.commit({f"src/pkg/_tracked{EXTENSION_SUFFIXES[-1]}": ""})
    repository.write(
        {
            f"src/pkg/{BUILT}": "",
            "src/pkg/libc_called_by_hand.so": "",
            "src/pkg/_other_python.cpython-27-riscv.so": "",
            f"build/lib.linux-x86_64/pkg/{BUILT}": "",
            f".venv/lib/python3/{BUILT}": "",
            ".venv/pyvenv.cfg": "",
            f"vendored/site-packages/{BUILT}": "",
            BUILT: "",
        }
    )
    revision = resolve_revision(repository.top, "main")
    with checkout(repository.top, revision) as worktree:
        top, package = worktree.notes
        assert top.startswith(f"{BUILT} in . was built in the working tree and is not tracked")
        assert package.startswith(f"{BUILT}, libc_called_by_hand.so in src/pkg was built")
        assert missing_extensions(repository.top, worktree.root) == [top, package]
    with checkout(repository.top, revision, [BUILT, "src/pkg/*.so"]) as worktree:
        assert worktree.notes == ()
