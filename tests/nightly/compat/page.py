"""The tables of docs/reference/compatibility.md, as the last run of ``make compat`` found them."""

import re
from collections.abc import Mapping

from environments import Environment, Kind
from outcome import Outcome
from tools import ROOT

__all__ = ["PAGE", "table_of", "write_page", "write_table"]

PAGE = ROOT / "docs" / "reference" / "compatibility.md"
_HEADINGS = {
    Kind.VERSIONS: "| with | pytest | Python | outcome |",
    Kind.NEIGHBOURS: "| beside | version | outcome |",
    Kind.CLIENTS: "| with | version | outcome |",
}


def write_page(outcomes: Mapping[Environment, Outcome]) -> None:
    """Write every table of environments."""
    for kind in _HEADINGS:
        write_table(kind, table_of(kind, outcomes))


def write_table(kind: str, table: str) -> None:
    """Write a table between its two comments."""
    text = PAGE.read_text(encoding="utf-8")
    pattern = rf"(<!-- {kind}: written by make compat -->\n)(?:.*?\n)?(<!-- end of {kind} -->)"
    text, replaced = re.subn(pattern, lambda found: f"{found[1]}{table}\n{found[2]}", text, flags=re.S)
    assert replaced == 1, f"{PAGE} has no place for {kind}"
    PAGE.write_text(text, encoding="utf-8")


def table_of(kind: str, outcomes: Mapping[Environment, Outcome]) -> str:
    """One table."""
    heading = _HEADINGS[kind]
    rule = "|" + "---|" * (heading.count("|") - 1)
    rows = [_row(environment, outcome) for environment, outcome in outcomes.items() if environment.kind == kind]
    return "\n".join([heading, rule, *rows])


def _row(environment: Environment, outcome: Outcome) -> str:
    found = {name.replace("_", "-"): version for name, version in outcome.versions.items()}
    if environment.kind == Kind.VERSIONS:
        cells = [found.get("pytest", "–"), found.get("python", "–")]
    else:
        shown = environment.shown or re.split(r"[=<>\[]", environment.requirements[0])[0]
        cells = [found.get(shown.lower(), "–")]
    return f"| {' | '.join([environment.name, *cells, _outcome(environment, outcome)])} |"


def _outcome(environment: Environment, outcome: Outcome) -> str:
    if outcome.problem:
        return "**does not work**"
    if outcome.absent:
        return f"not run: {outcome.absent}"
    if outcome.line:
        return "one line: `… both own the option --perf-baseline; …`"
    remark = environment.remark
    if environment.prerelease and outcome.versions.get("pytest", "").replace(".", "").isdigit():
        remark = "pytest has no newer one"
    return f"works{f'; {remark}' if remark else ''}"
