"""The package keeps its shape: few files in the root, short modules and functions, the field's names, plain words."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from support import ROOT

pytestmark = pytest.mark.simulation

PACKAGE = ROOT / "pytest_mlpatterns"
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
RETIRED = dict(
    pair.split("=")
    for pair in """
    account=result assembly=builder bench=launch_runner contender=alternative counterpart=reference courses=load_run
    dialogue=protocol evidence=launches exposition=prometheus face=server figures_of=derived_metrics
    handed_on=inherited_options importmap=import_redirect insight=telemetry judgement=verdict judgements=verdicts
    keeper=supervisor launching=launcher ledger=records pairing=interleaved_run preferences=criteria recipe=plan
    reception=long_body rhythm=block_plan spoken=protocol spreads=scatter sustain=capacity told=reported
    turn=variant_run turns=variant_runs uncountable=invalid
    """.split()  # noqa: SIM905 - a table of words is easier to read so
)
"""Words that the field's terms replaced, and what to write instead; as a whole name, or as one word of a name."""
DECODED = re.compile(r"\b(told|tells|nobody|somebody|whoever|whatever|oftener)\b", re.IGNORECASE)
"""Words that make a reader ask who does what."""


@dataclass
class Found:
    """What the modules have, by place: the lines of each function, and attributes that are set from outside."""

    lines: dict[str, int] = field(default_factory=dict)
    set_from_outside: dict[Path, list[str]] = field(default_factory=dict)


@cache
def found_in_all() -> Found:
    """Read the modules once for all tests."""
    everything = Found()
    for module in MODULES:
        outside = everything.set_from_outside.setdefault(module, [])
        for node in ast.walk(ast.parse(module.read_bytes())):
            match node:
                case ast.FunctionDef(end_lineno=int() as last) | ast.AsyncFunctionDef(end_lineno=int() as last):
                    everything.lines[f"{where(module, node.lineno)} {node.name}"] = last - node.lineno + 1
                case ast.Attribute(value=ast.Name(id="self" | "cls")):
                    continue
                case ast.Attribute(ctx=ast.Store()):
                    outside.append(ast.unparse(node))
    return everything


def where(module: Path, line: int) -> str:
    return f"{module.relative_to(ROOT)}:{line}"


def words(identifier: str) -> set[str]:
    """The words of a name in snake or camel case, and the name itself: ``_read_ledger`` has ``ledger``."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier).lower().strip("_")
    return {split, *split.split("_")}


def identifiers(module: Path) -> Iterator[tuple[int, str]]:
    if not any(words(name) & RETIRED.keys() for name in set(re.findall(r"\w+", module.read_text(encoding="utf-8")))):
        return  # to tell comments and texts from code takes longer
    for token in tokenize.generate_tokens(io.StringIO(module.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def test_the_root_has_at_most_eight_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_no_module_is_longer_than_600_lines() -> None:
    long = {where(module, count) for module in MODULES if (count := len(module.read_text("utf-8").splitlines())) > 600}
    assert not long


def test_no_function_is_longer_than_45_lines() -> None:
    assert not {place for place, lines in found_in_all().lines.items() if lines > 45}


def test_no_identifier_has_a_name_that_the_glossary_replaced() -> None:
    found = {
        f"{where(module, line)} {name}: write {RETIRED[word]} instead of {word}"
        for module in MODULES
        for line, name in identifiers(module)
        for word in words(name) & RETIRED.keys()
    }
    assert not found


def test_sentences_name_their_actors() -> None:
    found = [
        f"{where(page, number)} {line.strip()}"
        for page in (*MODULES, *PAGES)
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if DECODED.search(line)
    ]
    assert len(found) <= 15, "\n".join(found)


NAMED_FILE = re.compile(r"``([\w/]+/)?\{?([\w,]+)\}?\.py``")


def named_files(module: Path) -> Iterator[str]:
    """The files that a module's docstring names, ``a/{b,c}.py`` being two."""
    words = ast.get_docstring(ast.parse(module.read_bytes())) or ""
    for folder, names in NAMED_FILE.findall(words):
        yield from (f"{folder}{name}.py" for name in names.split(","))


def test_the_other_places_of_a_rule_exist() -> None:
    named = {(where(module, 1), name) for module in MODULES for name in named_files(module)}
    assert len(named) > 20, "of the lines that begin with Also"
    assert {one for one in named if not (PACKAGE / one[1]).exists() and not (ROOT / one[1]).exists()} == set()


UNEXPLAINED_CONSTANTS = 306
"""Constants without words, most of them texts, tables and paths with a name that suffices; it may only fall."""


def unexplained(module: Path) -> Iterator[tuple[str, ast.expr]]:
    """The constants of a module without a comment beside them or a docstring below, but for regular expressions."""
    text = module.read_text(encoding="utf-8")
    lines = text.splitlines()
    body = ast.parse(text).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                has_docstring = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                is_explained = has_docstring or "  # " in lines[node.lineno - 1]
                if name.isupper() and not is_explained and not ast.unparse(value).startswith("re.compile("):
                    yield f"{where(module, node.lineno)} {name}", value


def is_number(value: ast.expr) -> bool:
    """Whether an expression consists of numbers."""
    return all(
        isinstance(part, ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop)
        or (isinstance(part, ast.Constant) and type(part.value) in (int, float))
        for part in ast.walk(value)
    )


def test_constants_have_words() -> None:
    found = [one for module in MODULES for one in unexplained(module)]
    numbers = [name for name, value in found if is_number(value)]
    assert not numbers
    assert len(found) <= UNEXPLAINED_CONSTANTS, "\n".join(name for name, _ in found)


def test_no_wait_for_a_simple_queue_has_a_time_out() -> None:
    """Python 3.11 and 3.12 wait for ever if the time is over before the wait begins; a Mailbox or a Queue does not."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in MODULES}
    assert [name for name, text in texts.items() if "SimpleQueue" in text and re.search(r"\.get\(timeout=", text)] == []


FINISHED_ROOMS = (
    *("analysis", "baseline", "cli", "config", "judging", "measurement", "profiling", "records", "reports"),
    *("revision", "workload"),
)
"""Packages in which an object sets its own attributes only, so that it is complete when it is made."""
FINISHED_NAMES = re.compile(r"(deployment|measurement|streams)$")
"""Names of objects that no module of another package finishes either."""
SET_FROM_OUTSIDE = {
    ("analysis/causes/explanation.py", "changes.part_confidence"),
    ("config/run_settings.py", "words.commenters"),
    ("config/run_settings.py", "words.whitespace"),
    ("config/run_settings.py", "words.whitespace_split"),
    ("measurement/answer_check.py", "error.__traceback__"),
}
"""What is set all the same: objects of the standard library, and a confidence that depends on a first look."""


def test_no_module_finishes_the_objects_of_another() -> None:
    found = {
        (module.relative_to(PACKAGE).as_posix(), attribute)
        for module, attributes in found_in_all().set_from_outside.items()
        for attribute in attributes
        if module.relative_to(PACKAGE).parts[0] in FINISHED_ROOMS or FINISHED_NAMES.search(attribute.rpartition(".")[0])
    }
    assert found == SET_FROM_OUTSIDE


@pytest.mark.processes
@pytest.mark.parametrize(
    "module",
    [
        *("records.launch", "records.result", "records.samples", "records.setup", "records.telemetry"),
        *("loadgen.event_loop", "loadgen.load_run", "loadgen.process", "plugin"),
    ],
)
def test_a_light_module_loads_without_numpy(module: str) -> None:
    code = f"import sys, pytest_mlpatterns.{module}; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
