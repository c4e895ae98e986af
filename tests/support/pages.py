"""The pages of the documentation as values: README, AGENTS, CONTRIBUTING, SECURITY, the files under docs; their blocks.

A block of Python whose first line is ``# NAME.py`` is that file. Any other block is a test module of its own.
"""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAMED = re.compile(r"# ([\w/.-]+\.(?:py|ini|yml))\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A code block: its page, relative to the repository, the line of its fence, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def name(self) -> str | None:
        """The file that the block is, None if its first line names none."""
        named = _NAMED.match(self.text)
        return None if named is None else named[1]

    @property
    def needs_ray(self) -> bool:
        """Whether the block runs on Ray, which an extra installs; ``make ray`` runs these, not ``make examples``."""
        return bool(re.search(r'(engine|generators_on)="ray"', self.text))

    @property
    def module(self) -> str:
        """The test module that the block becomes if it is no file of its own."""
        return re.sub(r"\W", "_", f"test_{self.page.removesuffix('.md')}_{self.line}".lower())


@cache
def pages() -> tuple[str, ...]:
    """Every page, relative to the repository."""
    found = [
        *(ROOT / f"{name}.md" for name in ("README", "AGENTS", "CONTRIBUTING", "SECURITY")),
        *(ROOT / "docs").glob("**/*.md"),
    ]
    return tuple(sorted(str(path.relative_to(ROOT)) for path in found if "_build" not in path.parts))


@cache
def page(name: str) -> str:
    """The text of a page."""
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def blocks(language: str) -> tuple[Block, ...]:
    """The code blocks of all pages in this language."""
    return tuple(
        Block(name, page(name)[: found.start()].count("\n") + 1, found[1], found[2])
        for name in pages()
        for found in _FENCE.finditer(page(name))
        if found[1] == language
    )


@cache
def commands() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Every command of a shell block, a prompt or a workflow, each once, with the place where it is first shown."""
    lines = [(str(block), line) for block in blocks("bash") for line in block.text.splitlines()]
    lines += [
        (str(block), line[2:])
        for block in blocks("console")
        for line in block.text.splitlines()
        if line.startswith("$ ")
    ]
    lines += [
        (str(block), step.replace("$BASE", "main"))
        for block in blocks("yaml")
        for step in re.findall(r"- run: (.+)", block.text)
    ]
    first = {tuple(shlex.split(line)): where for where, line in reversed(lines)}
    return tuple((where, words) for words, where in first.items())


def section(name: str, title: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    text = page(name)
    heading = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert heading is not None, f"{name} has no heading {title!r}"
    rest = text[heading.end() :]
    end = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest if end is None else rest[: end.start()]


def first_cells(text: str) -> list[str]:
    """The first cell of every row of the tables in a text, headings and rules left out."""
    rows = re.findall(r"^\| (.*?) \|.*$\n?(?=(\|-)?)", text, re.MULTILINE)
    return [cell for cell, is_heading in rows if not is_heading]


def anchors(text: str) -> set[str]:
    """The anchors that headings get, on a code host and in the site."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    titles: list[str] = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
