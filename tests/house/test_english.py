"""The sentences of the package follow the rules of English in CONTRIBUTING.md, as far as regular expressions see it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT
from support.each_row import each_row

pytestmark = pytest.mark.simulation

MODULES = sorted((ROOT / "pytest_mlpatterns").rglob("*.py"))
MOST_LEFT = 30
"""Sentences that break a rule; it may only fall."""
COMMENT = re.compile(r"(?:^ *|  )# .+")
"""A comment; the formatter leaves two spaces before one behind code."""
RULES = {
    "that of … that of": r"\b(?:that|those) of\b[^.;:]*\b(?:that|those) of\b",
    "of that of": r"\bof (?:that|those|what) of\b",
    "where, as a condition": r"[.;] Where (?:a|an|it|they|there|no|none)\b[^.]*,"
    r"|\bwhere (?:it|they|this|one) (?:is|are|has|have|does|do) (?:not|no|none|known|any|more)\b"
    r"|\bwhere (?:there|that|none) (?:is|are)\b|\bwhere (?:it|one|none) exists\b|\bwhere the system\b",
    "so many": r"\bso (?:many|much|few|often)\b|\bso long\b(?! as)",
    "says, of a program": r"\b(?:says?|said|tells|told|speaks)\b",
    "who, of a thing": r"\bwhom?\b",
    "the one … the other": r"\bthe one\b[^.]*\bthe other\b",
    "likewise": r"\blikewise\b",
    "of which": r"\bof which (?:some|one|the|it|no|any|its|a)\b",
    "a stack of nouns": r"(?:\bof (?:(?:the|a|an|its|each|one|all) )?\w+ ?){3}",
    "as ever": r"\bas ever\b|\bwill do\b|\ball the same(?=[.;,:]|$)",
}
"""What a reader must read twice, by the name of the rule."""


def sentences(module: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, message and comment; ``{}`` stands for the values in a message."""
    source = module.read_text(encoding="utf-8")
    pieces: set[ast.AST] = set()
    for node in ast.walk(ast.parse(source)):  # a message comes before its pieces
        if isinstance(node, ast.JoinedStr):
            pieces.update(node.values)
            texts = (one.value if isinstance(one, ast.Constant) else "{}" for one in node.values)
            yield node.lineno, "".join(map(str, texts))
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value and node not in pieces
        ):
            yield node.lineno, node.value
    for number, line in enumerate(source.splitlines(), 1):
        if (comment := COMMENT.search(line)) is not None:
            yield number, comment[0]


def unclear(module: Path) -> Iterator[str]:
    """The phrases of a module that break a rule."""
    for line, text in sentences(module):
        words = " ".join(text.split())
        for name, rule in RULES.items():
            for found in re.finditer(rule, words):
                yield f"{module.relative_to(ROOT)}:{line} {name}: {found[0]}"


def test_sentences_follow_the_rules_of_english() -> None:
    found = [phrase for module in MODULES for phrase in unclear(module)]
    assert len(found) <= MOST_LEFT, "\n".join(found)


@each_row(
    "text",
    "the weight of that of a part",
    "None where it is not known",
    "It is scaled. Where a service computes, its time counts",
    "capacity of so many replicas",
    "the file says which",
    "the process who waits",
    "the one is a value, the other a name",
    "requests of which one failed",
)
def test_a_phrase_that_breaks_a_rule_is_found(text: str) -> None:
    assert any(re.search(rule, text) for rule in RULES.values())
