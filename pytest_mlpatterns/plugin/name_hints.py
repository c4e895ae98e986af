"""The nearest known name for one that a user misspelled: an option of ours, or a fixture."""

from collections.abc import Iterable, Sequence
from types import ModuleType

import pytest

from pytest_mlpatterns.config.arguments import ARGUMENT_HELP
from pytest_mlpatterns.wording import did_you_mean

FIXTURES = (
    *("perf_model", "perf_payload", "perf_target", "perf_client", "perf_setup", "perf_figures"),
    *("perf", "perf_deploy", "perf_deploy_session"),
)
"""The fixtures of this plugin, in the order of its help."""
_LIKE_A_FIXTURE = 0.72  # Likeness from which a fixture may be meant: ``client`` of ``perf_client`` has 0.71
_PREFIX = "--perf-"
_REMOVED = {"calibrate": "since each launch shows how fast the machine is"}
"""Options of earlier versions, by name, and why they were removed."""
_PLURAL = 0.9  # Likeness from which an argument of the marker is rather an option: ``pattern`` of ``patterns`` has 0.93


def require_known_options(unknown: Iterable[str], known: Sequence[str]) -> None:
    """Refuse an option that looks like one of ours, or was one.

    Raises pytest.UsageError: the message names whether the key was removed, is almost one of ours, is an argument of
    the marker, or resembles none.
    """
    for argument in unknown:
        option = argument.partition("=")[0]
        name = option.removeprefix(_PREFIX)
        if name != option and name in _REMOVED:
            raise pytest.UsageError(f"{option} was removed, {_REMOVED[name]}; leave it out")
        if name != option and (hint := _hint(name, known, f"{_PREFIX}{{}}")):
            raise pytest.UsageError(f"{option} is not an option; {hint}pytest --help lists all")


def require_known_keys(unknown: Iterable[str], known: Sequence[str]) -> None:
    """Refuse keys of the ini file that begin like ours and that no loaded plugin has.

    ``known``: our keys, without ``perf_``. Raises pytest.UsageError: one of them was removed, is almost one of ours, or
    is an argument of the marker; the message names it.
    """
    for key in unknown:
        name = key.removeprefix("perf_")
        if name in _REMOVED:
            raise pytest.UsageError(f"{key} was removed, {_REMOVED[name]}; delete the line")
        hint = _hint(name, known, "perf_{}") or "no loaded plugin has it; delete the line, or load that plugin; "
        raise pytest.UsageError(f"{key} is not an ini key; {hint}pytest --help lists all")


def _hint(name: str, known: Sequence[str], form: str) -> str:
    """What was meant by a name that is no option; empty if it is none of ours, so that another plugin may have it."""
    argument = name.replace("-", "_")
    marker = f"{argument} is set in the marker: pytest.mark.perf({argument}=...); " if argument in ARGUMENT_HELP else ""
    return did_you_mean(name, known, form, likeness=_PLURAL) or marker or did_you_mean(name, known, form)


def fixture_hint(name: str) -> str:
    """The question whether a fixture of ours was meant; empty if none is similar."""
    return did_you_mean(name, FIXTURES, likeness=_LIKE_A_FIXTURE).rstrip()


def misspelled_fixture(wanted: str, modules: Iterable[ModuleType]) -> str:
    """A name in the test file or a conftest file that is probably a misspelled fixture; empty if none."""
    import difflib

    names = [name for module in modules for name in vars(module) if name not in FIXTURES and "perf" in name]
    return next(iter(difflib.get_close_matches(wanted, names, n=1, cutoff=0.8)), "")
