"""What left the package: names and arguments that files, tests and command lines of earlier versions may still have.

Each is refused by its name, with what to use instead, and not as a typing error. Pure.
"""

from collections.abc import Mapping

_LAST = "5b1580bb"  # The last commit that has what left in 0.3
_OWN_PATTERN = "a pattern of your own takes a file, see docs/how-to/own-pattern.md"
_RETRIES = "each request is sent once, and error_rate counts those that failed; leave it out"
_REMOVED: Mapping[str, str] = {
    "Autoscaled": "compare Replicated(replicas=...) at several sizes, or perf.measure_scaling()",
    "Bulk": 'write perf(requests="all", concurrency=2), and assert_total_time_below(...)',
    "Bursts": 'write Stages([("1s", 1000), ("9s", 100)])',
    "Fallback": _OWN_PATTERN,
    "Faulty": _OWN_PATTERN,
    "Mix": "write a test for each class of callers",
    "MultiModel": "write a test for each model",
    "Retries": _RETRIES,
    "Shadowed": _OWN_PATTERN,
    "git notes": "name a file, such as perf-history.jsonl, and commit it with merge=union in .gitattributes",
    "cancel=": "every request is awaited, up to timeout=; leave it out",
    "history backfill": "check a commit out, and run pytest --perf-against v1.0 --perf-history=FILE there",
    "history compact": "begin another file when the history is too large",
    "history export": "history --json prints every point",
    "history import": "begin a history with pytest --perf-history=perf-history.jsonl",
    "history --issue": "history TEST -o FILE writes the text, to paste into an issue; leave it out",
    "history pull": "commit the file of the history with merge=union in .gitattributes, and use git pull",
    "history push": "commit the file of the history with merge=union in .gitattributes, and use git push",
    "of=": "write a test for each class of callers",
    "plan": "pytest --perf-baseline update names the change that each entry sees",
    "pytest-benchmark": "write --format openmetrics, or read the file of --perf-json",
    "retries=": _RETRIES,
}
"""Public name, command, or argument with its equals sign, that left in 0.3 → what to do instead."""


def why_removed(name: str) -> str:
    """Why a name is refused that an earlier version had; empty for any other.

    ``name``: as users write it, of an argument with its equals sign, ``of=``; upper and lower case are the same.
    """
    known = {known.lower(): known for known in _REMOVED}.get(name.lower())
    return f"{known} left in 0.3 (commit {_LAST} is the last that has it); {_REMOVED[known]}" if known else ""
