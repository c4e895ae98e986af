"""What changed in the environment since the reference, as texts: for a failure, and for the summary. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.records.result import State

if TYPE_CHECKING:
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["changed_facts", "changed_note"]

_MOST = 6
"""Number of changes that are named."""


def changed_facts(result: TestResult, most: int = _MOST) -> list[str]:
    """The changes of the environment, what most probably explains a change of speed first, and how many more there are.

    Against a baseline it also says that nothing changed, since that rules out one half of the causes; the two sides of
    a revision share their environment anyway.

    Args:
        result: of one test.
        most: number of changes that are named.
    """
    changes = result.facts_changed
    if changes is None or (not changes and (result.reference is None or result.reference.kind == "revision")):
        return []
    if not changes:
        return ["nothing in the environment, as far as it is known"]
    more = len(changes) - most
    return [*map(str, changes[:most]), *([f"and {more} more, which --perf-json writes"] if more > 0 else [])]


def changed_note(result: TestResult) -> str:
    """The changes of the environment as a sentence, for a result that is open or was not comparable with its reference.

    A failed comparison has them in its own text; empty without any.
    """
    if not result.facts_changed or (result.reference is not None and result.outcome is not State.UNDECIDED):
        return ""
    too = "" if result.reference is not None else " too"
    return f"the environment changed{too}: {', '.join(changed_facts(result))}"
