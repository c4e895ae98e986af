"""Each call of the package that removes or renames a file, or changes its mode, with what guards it against links."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import pytest
from support import ROOT

pytestmark = pytest.mark.simulation

PACKAGE = ROOT / "pytest_mlpatterns"
GUARDED = {
    ("system/owned_files.py", "close_to_others", "os.fchmod"): "an open directory of this user",
    ("system/owned_files.py", "rename", "os.rename"): "the name is still that of an open directory of this user",
    ("system/owned_files.py", "remove", "os.rmdir"): "the name is still that of an open directory of this user",
    ("system/owned_files.py", "_remove_entries", "shutil.rmtree"): "below an open directory of this user",
    ("system/owned_files.py", "_remove_entries", "os.unlink"): "below an open directory of this user",
    ("system/owned_files.py", "_open_up", "os.fchmod"): "an open directory of this user",
    ("system/owned_files.py", "_make_private", "os.chmod"): "opened without following a link, of this user",
    ("system/owned_files.py", "remove_empty", "os.rmdir"): "looked at without following a link, of this user",
    ("system/owned_files.py", "remove_file", "os.unlink"): "looked at without following a link, of this user",
    ("system/files.py", "_replace", "os.fchown"): "a file that this process has just made",
    ("system/files.py", "_replace", "os.fchmod"): "a file that this process has just made",
    ("system/files.py", "_replace", "os.replace"): "both names in one open directory; the user has named the file",
    ("system/files.py", "_replace", "os.unlink"): "a file that this process has just made, below an open directory",
    ("system/files.py", "_locked", "os.unlink"): "the name is still that of the open lock",
    ("system/files.py", "_share_with_writers", "os.fchown"): "the open lock; the system refuses one of another user",
    ("system/files.py", "_share_with_writers", "os.fchmod"): "the open lock; the system refuses one of another user",
    ("system/scratch_directory.py", "__init__", ".rename"): "OwnedDirectory.rename",
    ("serving/external/start.py", "_this_package", ".symlink_to"): "a free name in the run's private directory",
    ("revision/worktree.py", "_copy", "shutil.copy2"): "its directory, without links, is below the private worktree",
}
"""What guards each call, by module, function and call."""
MODULES = ("os", "shutil", "tempfile")
OF_MODULES = frozenset(
    """
    remove unlink rmdir removedirs rename renames replace chmod lchmod fchmod chown lchown fchown link symlink
    rmtree move copy copy2 copymode copystat copytree chflags TemporaryDirectory
    """.split()  # noqa: SIM905 - a list of words is easier to read so
)
"""Functions that remove or rename a file, make a link, or change a mode, and a class that does so at its end."""
OF_PATHS = frozenset({"unlink", "rmdir", "rename", "chmod", "lchmod", "symlink_to", "hardlink_to"})
"""Methods of paths that do so; ``replace`` too, which has one argument there and two with text."""


def name_of(call: ast.Call) -> str | None:
    """Name of a call that changes what a path leads to; None for another call."""
    if not isinstance(call.func, ast.Attribute):
        return None
    name, owner = call.func.attr, call.func.value
    if isinstance(owner, ast.Name) and owner.id in MODULES:
        return f"{owner.id}.{name}" if name in OF_MODULES else None
    is_replaced = name == "replace" and len(call.args) == 1 and not call.keywords
    return f".{name}" if name in OF_PATHS or is_replaced else None


def calls(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, str, ast.Call]]:
    """Function, name and call, of each call that changes what a path leads to; no function outside of all."""
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in nodes:
        if isinstance(node, ast.Call) and (name := name_of(node)) is not None:
            around = [one for one in functions if one.lineno <= node.lineno <= (one.end_lineno or one.lineno)]
            yield max(around, key=lambda one: one.lineno).name if around else "", name, node


def is_import_by_name(node: ast.AST) -> bool:
    """``from os import remove`` would hide a call from the list."""
    is_of_modules = isinstance(node, ast.ImportFrom) and node.module in MODULES
    return is_of_modules and bool(OF_MODULES & {alias.name for alias in node.names})


def is_change_of_worktrees(node: ast.AST) -> bool:
    """Git follows the path that it has noted, and prunes worktrees of the user on a disk that is not connected."""
    if not isinstance(node, ast.Call) or not node.args:
        return False
    words = [word.value for word in node.args if isinstance(word, ast.Constant)]
    is_first = isinstance(node.args[0], ast.Constant) and node.args[0].value == "worktree"
    return is_first and not {"remove", "prune", "move"}.isdisjoint(words)


@dataclass
class Found:
    """What the package has: calls by module, function and name, and places of what it should not have."""

    calls: dict[tuple[str, str, str], list[ast.Call]] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)
    worktrees: list[str] = field(default_factory=list)


@cache
def found() -> Found:
    """Read the modules once for all tests."""
    everything = Found()
    for module in sorted(PACKAGE.rglob("*.py")):
        nodes, name_of_module = list(ast.walk(ast.parse(module.read_bytes()))), module.relative_to(PACKAGE).as_posix()
        for function, name, call in calls(nodes):
            everything.calls.setdefault((name_of_module, function, name), []).append(call)
        everything.imports += [f"{name_of_module}:{node.lineno}" for node in nodes if is_import_by_name(node)]
        everything.worktrees += [f"{name_of_module}:{node.lineno}" for node in nodes if is_change_of_worktrees(node)]
    return everything


def is_below_a_descriptor(name: str, call: ast.Call) -> bool:
    """Whether a call gets an open file or directory instead of a path from the root."""
    words = {keyword.arg for keyword in call.keywords}
    through_proc = isinstance(call.args[0], ast.JoinedStr) and "/proc/self/fd/" in ast.unparse(call.args[0])
    return name.startswith("os.f") or not words.isdisjoint(("dir_fd", "src_dir_fd")) or through_proc


def test_each_call_that_removes_renames_or_changes_a_mode_has_a_guard() -> None:
    unguarded = set(found().calls) - set(GUARDED)
    assert not unguarded, "use pytest_mlpatterns/system/owned_files.py, or name the guard here"


def test_each_guard_belongs_to_a_call() -> None:
    assert not set(GUARDED) - set(found().calls)


def test_each_call_of_the_system_gets_a_descriptor() -> None:
    by_path = {
        place
        for place, made in found().calls.items()
        if place[2].startswith(("os.", "shutil.")) and not all(is_below_a_descriptor(place[2], one) for one in made)
    }
    assert by_path == {("revision/worktree.py", "_copy", "shutil.copy2")}


def test_no_such_function_is_imported_by_its_name() -> None:
    assert not found().imports


def test_git_removes_no_worktree_itself() -> None:
    assert not found().worktrees
