"""The JSON Schemas that ship with the package, made of the types that read the files and of the docstrings of these.

``make schemas`` writes them; a test compares.
"""

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from pytest_mlpatterns.baseline.file import BaselineFile
from pytest_mlpatterns.records.faults import MOST
from pytest_mlpatterns.reports.files.result_file import ResultFile

_PACKAGE = Path(__file__).parents[2] / "pytest_mlpatterns"
SCHEMAS: dict[Path, type] = {
    _PACKAGE / "baseline/baseline.schema.json": BaselineFile,
    _PACKAGE / "reports/files/results.schema.json": ResultFile,
}
_WIDTH = 110
_NUMBERS = ("integer", "number")  # types of which every value has the bounds of records/faults.py
_MEMBER = re.compile(r"^( +)(\w+): (.+(?:\n\1 +.+)*)", re.MULTILINE)
"""A member in the docstring of a class, with the lines that go on."""
_PRIVATE = re.compile(r'"(#/\$defs/)?_(\w+?)(?:InFile)?"')


def schema_text(kind: type) -> str:
    """The schema of a type, as its file has it."""
    found = msgspec.json.schema(kind)
    for described in found["$defs"].values():
        _describe(described)
    found = _shortened(found)
    found["$defs"] |= {name: {"type": name, "minimum": -MOST, "maximum": MOST} for name in _NUMBERS}
    written = f"written by make schemas, from {kind.__module__.replace('.', '/')}.py and the records"
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$comment": written, **found}
    return _PRIVATE.sub(r'"\1\2"', _text(schema)) + "\n"


def _text(value: Any, indent: str = "") -> str:
    """JSON with an object on one line where it fits."""
    line = json.dumps(value)
    if not isinstance(value, dict) or len(indent + line) <= _WIDTH:
        return line
    lines = ",".join(f"\n{indent} {json.dumps(name)}: {_text(of, indent + ' ')}" for name, of in value.items())
    return f"{{{lines}\n{indent}}}"


def _describe(schema: dict[str, Any]) -> None:
    """Give each member the words of its field, and the class the first sentence of its docstring."""
    text = schema.pop("description", "")
    schema.pop("title", None)  # which is its name
    members = _field_words().get(text, {}) | {name: _plain(words) for _, name, words in _MEMBER.findall(text)}
    schema["description"] = _plain(text.partition("\n\n")[0])
    if "prefixItems" in schema:
        schema["description"] += "".join(f" {name}: {words}" for name, words in members.items())
    for name, member in schema.get("properties", {}).items():
        if name in members:
            member["description"] = members[name]


@cache
def _field_words() -> dict[str, dict[str, str]]:
    """Docstring of a class → its fields → the comment beside each, or above it."""
    found: dict[str, dict[str, str]] = {}
    of_class: dict[str, dict[str, str]] = {}
    files = ("baseline/file.py", "reports/files/result_file.py")
    for path in [*sorted(_PACKAGE.glob("records/*.py")), *(_PACKAGE / name for name in files)]:
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and (described := ast.get_docstring(node)):
                fields = {
                    field.target.id: _comment(lines, field.lineno)
                    for field in node.body
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                }
                inherited = [of_class.get(base.id, {}) for base in node.bases if isinstance(base, ast.Name)]
                of_class[node.name] = {
                    name: words for one in [*inherited, fields] for name, words in one.items() if words
                }
                found.setdefault(described, {}).update(of_class[node.name])
    return found


def _comment(lines: list[str], number: int) -> str:
    """The comment beside a line, or in the lines above it; empty if there is none."""
    beside = lines[number - 1].partition("  # ")[2].partition("type: ignore")[0]
    above: list[str] = []
    while not beside and lines[number - 2 - len(above)].strip().startswith("# "):
        above.insert(0, lines[number - 2 - len(above)].strip().removeprefix("# "))
    return _plain(beside or " ".join(above))


def _plain(words: str) -> str:
    """Words of a docstring for readers of JSON."""
    return re.sub(r"\bNone\b", "null", " ".join(words.split()).replace("``", ""))


def _shortened(schema: Any) -> Any:
    """The schema with the bounds that every number has, and the type of equal items of a list, written once."""
    if isinstance(schema, list):
        return [_shortened(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _shortened(inner) for name, inner in schema.items()}
    if "prefixItems" in found and len(kinds := {json.dumps(one): one for one in found["prefixItems"]}) == 1:
        del found["prefixItems"]
        (found["items"],) = kinds.values()
    if found.get("type") in _NUMBERS and found.get("maximum", MOST) == MOST:
        found.pop("maximum", None)
        found = {"$ref": f"#/$defs/{found.pop('type')}", **found}
    return found


if __name__ == "__main__":
    for path, kind in SCHEMAS.items():
        path.write_text(schema_text(kind), encoding="utf-8")
