"""Each promise of SECURITY.md names tests that show it, and they exist; what no run can show is read from the code."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from support.each_row import each_row
from support.pages import ROOT, page

PACKAGE = ROOT / "pytest_mlpatterns"
PROMISES = [
    (cells[0].strip(), cells[1])
    for line in page("SECURITY.md").splitlines()
    if line.startswith("| ") and not line.startswith(("| promise", "|---"))
    for cells in [line.strip("|").split(" | ", 1)]
]
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")
UNPICKLING = {
    "cli/subject_probe.py": "the model file that the user names",
    "plugin/xdist.py": "the descriptions of own patterns, from a worker of the run",
    "serving/handler_stack.py": "a pattern, from the parent process",
    "engines/local/worker.py": "the inputs of a plain call, from the parent process",
    "serving/model.py": "a model, from the parent process",
    "workload/own_client.py": "a client, its inputs and its answers, from the parent or child, or from this process",
    "system/pipe_messages.py": "messages of the parent or of a child, through an inherited pipe",
}
"""What each module unpickles."""
CLIENTS = frozenset(
    """
    aiohttp ftplib grpc http.client httpx pyreqwest redis requests smtplib socket urllib.request urllib3 websockets
    """.split()  # noqa: SIM905 - a list of words is easier to read so
)
"""Modules with which a connection can be opened."""
CONNECTING = {
    "loadgen/connection.py": "the deployment",
    "loadgen/null_server.py": "listens, for the ceiling of the generator",
    "loadgen/pyreqwest_loop.py": "the deployment",
    "measurement/answer_check.py": "the deployment, or both of a comparison",
    "measurement/counted_pass.py": "the deployment",
    "measurement/last_answer.py": "the deployment",
    "serving/bounded_client.py": "the transport of the clients below",
    "serving/client_transport.py": "the deployment",
    "serving/deployment.py": "the deployment",
    "serving/external/scraper.py": "the endpoint with figures of the deployment",
    "serving/external/start.py": "the deployment: an App or a Command",
    "serving/external/attach.py": "the deployment: a Url",
    "serving/failed_request.py": "the deployment",
    "serving/grpc/functional_client.py": "the deployment",
    "serving/grpc/server.py": "listens, as the deployment",
    "engines/local/upstream.py": "the services of the deployment, from its gateway",
    "engines/ray/link.py": "the replicas of the deployment",
    "serving/readiness.py": "the deployment",
    "serving/redis/cache.py": "the store that the user names",
    "serving/redis/queue.py": "the broker that the user names",
    "serving/redis/queue_worker.py": "the broker that the user names",
    "engines/ray/settings.py": "the name of a host",
    "system/sockets.py": "listens, for the deployment",
    "workload/request_builder.py": "none: requests as values",
}
"""What each module connects to."""


@cache
def names_of_tests(file: str) -> frozenset[str]:
    """The tests in a file, with the names of their classes."""
    found = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {f"{prefix}{one.name}" for one in members if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
    return frozenset(found)


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below ``if TYPE_CHECKING``."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        pending += [
            child
            for child in ast.iter_child_nodes(node)
            if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING")
        ]


def imported(node: ast.AST) -> set[str]:
    """Names of modules that a statement imports, each with the packages that it lies in."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and node.module:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return {".".join(name.split(".")[: end + 1]) for name in names for end in range(name.count(".") + 1)}


def connects(node: ast.AST) -> bool:
    """Whether a node is a call that opens a connection, of an event loop too."""
    function = node.func if isinstance(node, ast.Call) else None
    return isinstance(function, ast.Attribute) and function.attr in ("create_connection", "open_connection")


def unpickles(node: ast.AST) -> bool:
    """Whether a node is a call that unpickles."""
    function = node.func if isinstance(node, ast.Call) else None
    return (
        isinstance(function, ast.Attribute)
        and function.attr in ("load", "loads", "Unpickler", "open")
        and isinstance(function.value, ast.Name)
        and function.value.id in UNPICKLERS
    )


def unpickles_arrays(node: ast.AST) -> bool:
    """Whether a node is an argument that lets numpy unpickle."""
    return isinstance(node, ast.keyword) and node.arg == "allow_pickle"


def can_connect(node: ast.AST) -> bool:
    """Whether a node opens a connection, or imports what can."""
    return bool(imported(node) & CLIENTS) or connects(node)


UNPICKLERS = frozenset(("pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve"))
CAN_BE_FOUND = re.compile(
    rf"allow_pickle|_connection|\b({'|'.join(sorted(UNPICKLERS))})\b"
    rf"|^ *(from|import) ({'|'.join(sorted({name.partition('.')[0] for name in CLIENTS}))})\b",
    re.MULTILINE,
)
"""What a text has if its code unpickles or connects; most modules have nothing of it, and are not parsed."""


@cache
def modules_that() -> dict[object, set[str]]:
    """Modules of the package with a node for which each function holds; they are read once for all."""
    found: dict[object, set[str]] = {holds: set() for holds in (unpickles, unpickles_arrays, can_connect)}
    for module in PACKAGE.rglob("*.py"):
        if not CAN_BE_FOUND.search(text := module.read_text(encoding="utf-8")):
            continue
        nodes = list(executed(ast.parse(text)))
        for holds, modules in found.items():
            assert callable(holds)
            if any(holds(node) for node in nodes):
                modules.add(module.relative_to(PACKAGE).as_posix())
    return found


@each_row(("promise", "shown"), PROMISES)
def test_each_promise_names_tests_that_exist(promise: str, shown: str) -> None:
    references = REFERENCE.findall(shown)
    assert references, f"{promise} is shown by no test"
    assert shown.count("::") >= len(references)
    for file, name in references:
        assert name in names_of_tests(file), f"{file}::{name}"
    assert REFERENCE.sub("", shown).strip(" ,|") == ""


def test_there_are_promises_of_each_topic() -> None:
    topics = re.findall(r"^### (.+)$", page("SECURITY.md"), re.MULTILINE)
    assert len(topics) >= 10
    for part in page("SECURITY.md").split("\n### ")[1:]:
        assert "| promise | shown by |" in part, part.partition("\n")[0]


@pytest.mark.simulation
def test_only_these_modules_unpickle() -> None:
    assert modules_that()[unpickles] == set(UNPICKLING)
    assert not modules_that()[unpickles_arrays]


def test_only_these_modules_can_open_connections() -> None:
    assert modules_that()[can_connect] == set(CONNECTING)
