"""How ``--dist loadgroup`` hands tests to workers: those that share a run together, all others one by one."""

import ast
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

from support import ROOT


class OneByOne(LoadScopeScheduling):
    """The group is read from the file, as xdist 3.8 can write none into the ids of pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0] if shares_a_run(nodeid) else nodeid


def shares_a_run(nodeid: str) -> bool:
    """Whether a test uses a fixture of its own file that is made once for several tests."""
    file, _, name = nodeid.partition("::")
    return name.partition("[")[0].rpartition("::")[2] in _sharing(ROOT / file)


@cache
def _sharing(path: Path) -> frozenset[str]:
    """The functions of a file that are such a fixture, or use one, directly or through others."""
    functions = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.FunctionDef)]
    used = {node.name: {one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)} for node in functions}
    found = {node.name for node in functions if any("scope=" in ast.unparse(one) for one in node.decorator_list)}
    while more := {name for name, names in used.items() if names & found} - found:
        found |= more
    return frozenset(found)
