"""No decision is read out of a sentence that the package made for people: reasons, notes and messages are values."""

import ast
from collections.abc import Iterator
from functools import cache

import pytest
from support import ROOT
from support.each_row import each_row

pytestmark = pytest.mark.simulation

PACKAGE = ROOT / "pytest_mlpatterns"
SENTENCES = frozenset(
    """
    advice detail details error explanation message note notes noise reason reasons said sentence stopped text texts
    why words
    """.split()  # noqa: SIM905 - a list of words is easier to read so
)
"""Words in the names of what holds a sentence."""
SEARCHES = frozenset(
    """
    endswith find index partition removeprefix removesuffix rfind rpartition rsplit split startswith
    """.split()  # noqa: SIM905
)
PATTERNS = frozenset(("findall", "finditer", "fullmatch", "match", "search", "split", "sub"))
OTHER_PROGRAMS = (
    "loadgen/pyreqwest_loop.py",
    "plain_caller.py",
    "profiling/callgrind.py",
    "profiling/py_spy.py",
    "ray",
    "records/json_text.py",
    "records/outcomes.py",
    "revision/client.py",
    "revision/dependencies.py",
    "revision/worktree.py",
    "serving/bounded_client.py",
    "serving/external/scraper.py",
    "serving/external/start.py",
    "serving/grpc/functional_client.py",
    "serving/http/inference_call.py",
    "serving/tracebacks.py",
    "system/cgroups.py",
    "system/environment_facts.py",
    "system/git.py",
    "system/loaded_packages.py",
)
"""They read what other programs print: git, the kernel, pip, py-spy, Ray, libraries, and tracebacks of users' code."""
USERS = (
    "cli/accept_command.py",
    "cli/new_command.py",
    "config/acceptances.py",
    "config/lists.py",
    "credentials.py",
    "patterns/arguments.py",
    "plugin/failures.py",
    "plugin/help_text.py",
    "records/objective.py",
    "records/price.py",
    "serving/external/supervisor.py",
    "serving/import_string.py",
    "serving/model.py",
    "serving/targets.py",
    "units.py",
    "workload/conversations.py",
)
"""They read what users write: settings, patterns, commands, names of models, inputs; and Python source."""
REQUESTS = ("patterns/cache_layer.py", "wire/invocations.py", "wire/stream_events.py", "wire/stream_request.py")
"""They read requests and answers."""
FILES = ("records/launch.py", "records/outcomes.py", "records/setup.py", "records/verdict.py")
"""They read values back from result files, each beside the method that prints it."""
LAYOUT = ("reports/text/comparison.py", "reports/text/terminal_text.py", "wording.py")
"""They wrap and shorten lines, and explain the abbreviations that lines have."""
ALLOWED = (*OTHER_PROGRAMS, *USERS, *REQUESTS, *FILES, *LAYOUT)


def is_sentence(node: ast.AST) -> bool:
    """Whether an expression is a sentence by its name, or the text of an exception."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return not SENTENCES.isdisjoint(name.strip("_").lower().split("_"))
        case ast.Call(func=ast.Name(id=name), args=[argument]) if name in frozenset(("repr", "str")):
            return is_sentence(argument)
        case ast.Call(func=ast.Attribute(value=value, attr="lower" | "strip" | "lstrip" | "rstrip")):
            return is_sentence(value)
    return False


def has_words(node: ast.AST) -> bool:
    """Whether an expression is a literal with a space and something else, or has one."""
    match node:
        case ast.Constant(value=str(text)):
            return " " in text and not text.isspace()
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return any(map(has_words, parts))
        case ast.JoinedStr(values=parts):
            return any(isinstance(part, ast.Constant) and has_words(part) for part in parts)
    return False


def is_literal(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(node.value)


def decides(node: ast.AST) -> bool:
    """Whether an expression looks for something in a sentence, or compares one."""
    match node:
        case ast.Compare(left=left, ops=[ast.In() | ast.NotIn()], comparators=[right]):
            return is_sentence(right) or has_words(left)
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=[right]):
            sides = (left, right)
            return any(map(has_words, sides)) or (any(map(is_sentence, sides)) and any(map(is_literal, sides)))
        case ast.Call(func=ast.Attribute(value=value, attr=name), args=arguments):
            if not arguments or isinstance(getattr(arguments[0], "value", None), bytes):
                return False  # split() leaves white space out, and bytes are no sentence
            in_text = name in SEARCHES and (is_sentence(value) or any(map(has_words, arguments)))
            return in_text or (name in PATTERNS and any(map(is_sentence, arguments)))
    return False


def decisions(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if decides(node):
            assert isinstance(node, ast.expr)
            yield node.lineno, ast.unparse(node)


def is_in(module: str, place: str) -> bool:
    """Whether a module has this path, or one that begins or ends so after a slash."""
    return f"/{place}" in f"/{module}"


@cache
def deciding() -> dict[str, list[tuple[int, str]]]:
    """The decisions of each module that has some; the modules are read once for all tests."""
    found = {module: list(decisions(module.read_text(encoding="utf-8"))) for module in PACKAGE.rglob("*.py")}
    return {module.relative_to(PACKAGE).as_posix(): there for module, there in found.items() if there}


def test_nothing_is_decided_by_a_sentence() -> None:
    assert not {name: found for name, found in deciding().items() if not any(is_in(name, place) for place in ALLOWED)}


def test_every_module_that_may_read_text_does() -> None:
    assert not {place for place in ALLOWED if not any(is_in(name, place) for name in deciding())}


@each_row(
    ("code", "found"),
    ("'known' in why", True),
    ("verdict.reason.startswith('RTM')", True),
    ("name in str(error)", True),
    ("result.baseline_note.partition(': ')", True),
    ("re.search('at least', self._why_not)", True),
    ("COMMIT.search(text)", True),
    ("line.startswith('pytest ')", True),
    ("line.partition(', during ')", True),
    ("outcome == 'in time'", True),
    ("shown.endswith(f'{number} of 1')", True),
    ("why == 'limit'", True),
    ("' '.join(reason.split())", False),
    ("name.startswith('goodput(')", False),
    ("kind == 'baseline'", False),
    ("not reason or why is None", False),
    ("message.partition(b'\\r\\n')", False),
    ("name in known", False),
    ("line.split(' ')", False),
)
def test_a_decision_by_a_sentence_is_found(code: str, *, found: bool) -> None:
    assert bool(list(decisions(code))) is found
