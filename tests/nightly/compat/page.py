"""The tables of docs/reference/compatibility.md, as the last run of ``make compat`` found them."""

import re
from collections.abc import Iterable, Mapping

from environments import Environment, Kind
from outcome import Outcome
from tools import ROOT

__all__ = ["PAGE", "by_outcome", "table_of", "write_page", "write_table"]

PAGE = ROOT / "docs" / "reference" / "compatibility.md"
_HEADINGS = {Kind.VERSIONS: "with", Kind.NEIGHBOURS: "beside", Kind.CLIENTS: "with"}


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
    """One table: of versions a row for each environment, else one for each outcome."""
    chosen = {environment: outcome for environment, outcome in outcomes.items() if environment.kind == kind}
    if kind != Kind.VERSIONS:
        return by_outcome(_HEADINGS[kind], ((_named(*one), _outcome(*one)) for one in chosen.items()))
    rows = [
        f"| {environment.name} | {_version(outcome, 'pytest')} | {_version(outcome, 'python')} "
        f"| {_outcome(environment, outcome)} |"
        for environment, outcome in chosen.items()
    ]
    return "\n".join([f"| {_HEADINGS[kind]} | pytest | Python | outcome |", "|---|---|---|---|", *rows])


def by_outcome(heading: str, found: Iterable[tuple[str, str]]) -> str:
    """A table with a row for each outcome; ``found``: names with their versions, and their outcomes."""
    names: dict[str, list[str]] = {}
    for name, outcome in found:
        names.setdefault(outcome, []).append(name)
    rows = [f"| {outcome} | {', '.join(of_outcome)} |" for outcome, of_outcome in names.items()]
    return "\n".join([f"| outcome | {heading} |", "|---|---|", *rows])


def _named(environment: Environment, outcome: Outcome) -> str:
    shown = environment.shown or re.split(r"[=<>\[]", environment.requirements[0])[0]
    return f"{environment.name} {_version(outcome, shown.lower())}"


def _version(outcome: Outcome, name: str) -> str:
    return {one.replace("_", "-"): version for one, version in outcome.versions.items()}.get(name, "–")


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
