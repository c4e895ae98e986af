"""Our options on pytest's command line and in its ini file, and the error if another plugin has taken one of them.

:mod:`pytest_mlpatterns.config.settings` defines what an option means. This module does not import it: it is loaded with
every pytest, and pytest without perf tests should pay nothing.
"""

from __future__ import annotations

import argparse
import ast
import copy
import inspect
import itertools
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, cast

import pytest

_GROUP = "performance tests (pytest-mlpatterns)"
_OWN: Mapping[str, Mapping[str, Any]] = {
    "against": {
        "metavar": "GITREF",
        "help": "compare with the same tests at this branch, tag or commit, measured interleaved, instead of with the "
        "baseline; merge-base:main names the commit at which this branch left main",
    },
    "against-env": {
        "action": "store_true",
        "help": "build an environment with the packages that the other revision asks for (of --perf-against, or the "
        "commit that a baseline was recorded at), and run its side there, so that a slower dependency is seen; kept in "
        "pytest's cache",
    },
    "against-files": {
        "metavar": "PATTERNS",
        "help": "files that the tests need and git does not track, for --perf-against: glob patterns relative to the "
        "root directory",
    },
    "baseline": {
        "choices": ("check", "update", "require", "prune", "off"),
        "help": "compare with the stored baseline (check, the default), record it (update), fail if there is no "
        "comparable entry (require), check and remove entries whose tests are gone (prune), or leave it alone (off)",
    },
    "baseline-from": {
        "choices": ("run", "history"),
        "help": "what an update of the baseline records: the launches of this run (run, the default), or those of all "
        "runs of the history since the last change (history)",
    },
    "baseline-file": {
        "metavar": "PATH",
        "help": "the baseline file (default: perf-baseline.json in the root directory)",
    },
    "budget": {"metavar": "TIME", "help": "time of one test from its first start to its verdict (default: 60s)"},
    "compare": {
        "metavar": "METRICS",
        "help": "compare these metrics with the baseline or revision, separated by commas (default: those that "
        "--perf-help calls compared by default)",
    },
    "count": {
        "choices": ("auto", "instructions", "off"),
        "help": "count the instructions of a request, which no machine changes: when a busy machine leaves a "
        "comparison open (auto, the default), for every test (instructions), or never (off); needs valgrind",
    },
    "cpus": {
        "metavar": "NUMBER",
        "help": "cores that each deployment gets: a whole number by CPU affinity, a fraction such as 0.5 by the quota "
        "of a control group (default: all)",
    },
    "duration": {
        "metavar": "TIME",
        "help": "measured window of one launch (default: 0.7s in a closed loop, 2s in an open one; longer if few "
        "requests fit)",
    },
    "engine": {
        "metavar": "NAME",
        "help": "what runs the deployments of tests whose marker names no engine: local, or ray for a Ray cluster "
        "(default: local)",
    },
    "gate": {
        "choices": ("fail", "warn"),
        "help": "whether a failing verdict fails the test (fail, the default), or is shown in red and the test passes "
        "(warn); errors, crashes and plain asserts fail in any case",
    },
    "generators-on": {
        "metavar": "NAME",
        "help": "where the load generators run: on this machine, or spread over the nodes of the Ray cluster "
        "(default: ray for tests with engine=ray, else local)",
    },
    "history": {
        "metavar": "PATH",
        "help": "append what each test measured to the history in this file, and report what changed in it",
    },
    "history-fail": {
        "choices": ("new", "never"),
        "help": "whether the run fails if it finds a new change for the worse in the history (new), or reports it only "
        "(never, the default)",
    },
    "html": {"metavar": "PATH", "help": "write a report to this file, as one page for a browser that needs no network"},
    "inconclusive": {
        "choices": ("warn", "fail", "pass"),
        "help": "outcome of a test that is undecided when its budget is spent (default: warn)",
    },
    "json": {"metavar": "PATH", "help": "write every result to this file"},
    "noise": {
        "choices": ("doubt", "trust"),
        "help": "whether a failure against a stored baseline, or a missed factor of assert_faster_than, counts while "
        "other processes use cores that the test needs: doubt leaves it undecided, trust fails the test "
        "(default: doubt)",
    },
    "patterns": {
        "metavar": "PATTERNS",
        "help": "serve tests whose marker names no pattern under each of these, separated by commas: "
        "single,cached,cached|batched",
    },
    "price": {
        "metavar": "PRICE",
        "help": "what cores and memory cost, for the cost of a million requests: 0.0425 USD per core-hour, "
        "0.0057 USD per GiB-hour",
    },
    "profile": {
        "choices": ("auto", "on", "off"),
        "help": "find the functions that got slower, with a profiler at both sides: after a comparison with a revision "
        "has failed (auto, the default), for every test (on), or never (off); needs pytest-mlpatterns[profile]",
    },
    "rank": {
        "metavar": "WEIGHTS",
        "help": "rank the patterns of each test by these weights of metrics, among those that keep the requirements: "
        "rtm=0.5,nmrt=0.3,asl=0.2,p95<50ms",
    },
    "requests": {
        "metavar": "NUMBER",
        "help": "requests of the window of one launch, instead of --perf-duration: a number, or all for each input "
        "once",
    },
    "settle": {
        "choices": ("auto", "off", "fetch"),
        "help": "measure a test that the baseline file does not decide interleaved with the commit that the baseline "
        "was recorded at (auto, the default), fetch that commit into a shallow clone too (fetch), or let the file "
        "decide alone (off)",
    },
    "smoke": {"action": "store_true", "help": "send one request per perf test, without verdicts"},
    "startup-timeout": {"metavar": "TIME", "help": "time that a deployment may take to get ready (default: 60s)"},
    "time": {
        "metavar": "TIME",
        "help": "time that all perf tests may take together: each gets an equal part of what is left, up to its "
        "budget, and at least what is measured in any case (default: no limit)",
    },
    "tolerance": {
        "metavar": "RATIO",
        "help": "worsening that is accepted: a share of the median latency, throughput, capacity and CPU, or of each "
        "metric by its name, rtm=0.05,p99=0.3 (default: 0.10; each other metric has its own)",
    },
}
"""Options of the package without its engines."""


def _of_engines() -> dict[str, Mapping[str, Any]]:
    """The options of the engines in this distribution; empty if it is not installed."""
    try:
        groups = distribution("pytest-mlpatterns").entry_points
    except PackageNotFoundError:
        return {}
    return {name: each for found in groups.select(group=_GROUP_OF_ENGINES) for name, each in found.load().items()}


_GROUP_OF_ENGINES = "pytest_mlpatterns.engine_options"  # Group of entry points that name the options of an engine
ENGINE_OPTIONS = _of_engines()  # Options of engines, which are not imported for them
OPTIONS: Mapping[str, Mapping[str, Any]] = dict(sorted({**_OWN, **ENGINE_OPTIONS}.items()))
"""Arguments of argparse for option ``--perf-NAME`` and ini key ``perf_NAME`` (with underscores). Every default is None,
so that the ini file counts if the command line gives no value. No option takes an optional value: it would swallow a
path."""
_JSON = "JSON"  # Metavariable of options whose value is a JSON object
_TABLES = {"rank", "tolerance", *(name for name in OPTIONS if OPTIONS[name].get("metavar") == _JSON)}
"""Options that may be tables in TOML."""
_QUOTED = ("against-files",)  # Options that are lists of names, which may contain white space
_HELP = {
    "action": "store_true",
    "help": "show the fixtures, marker arguments, patterns, assertions and metrics with one line each, and exit",
}
"""Arguments of argparse for ``--perf-help``, which has no ini key."""


def add_options(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the command-line options, after every installed plugin has added its own.

    Raises pytest.UsageError: another plugin has taken one; the message names both plugins and the fix.
    """
    group = parser.getgroup("mlpatterns", _GROUP)
    for name, attributes in {**OPTIONS, "help": _HELP}.items():
        flag = f"--perf-{name}"
        try:
            group.addoption(flag, default=None, dest=_key(name), **attributes)
        except (ValueError, argparse.ArgumentError):  # of one group, or of two
            owner, switch = _owner_of(flag, pluginmanager)
            raise pytest.UsageError(
                f"pytest-mlpatterns and {owner} both own the option {flag}; "
                f"switch one off: pytest -p no:{switch} or pytest -p no:mlpatterns"
            ) from None


def refuse_misspelled(parser: pytest.Parser, early_config: pytest.Config, args: Sequence[str]) -> None:
    """Refuse an option or an ini key that looks like one of ours, after conftest files have added theirs.

    Raises pytest.UsageError: the message has the nearest of ours.
    """
    _, unknown = parser.parse_known_and_unknown_args(list(args), namespace=copy.copy(early_config.option))
    keys = [key for key in _ini_of(early_config) if key.startswith("perf_") and not _is_ini_key(early_config, key)]
    if keys or any(argument.startswith("--perf-") for argument in unknown):
        from pytest_mlpatterns.plugin.name_hints import require_known_keys, require_known_options

        require_known_options(unknown, [*OPTIONS, "help"])
        require_known_keys(sorted(keys), [name.replace("-", "_") for name in OPTIONS])


def refuse_moved_project(parser: pytest.Parser, early_config: pytest.Config) -> None:
    """Refuse a value behind a space that pytest has taken for the path of tests, so that the project is another one.

    pytest looks for its root directory and its ini file before it knows our options. Then each word that exists as a
    file counts as a path of tests; in workers of pytest-xdist they are the same words.

    Raises pytest.UsageError: the root directory, or the ini file, would be another one without that word.
    """
    words = [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *early_config.invocation_params.args]
    flags = {f"--perf-{name}" for name, attributes in OPTIONS.items() if "action" not in attributes}
    if not (given := [pair for pair in itertools.pairwise(words) if pair[0] in flags]):
        return
    known = parser.parse_known_args(words, namespace=copy.copy(early_config.option))
    home = _project(early_config, known, known.file_or_dir)
    for flag, value in given:
        moved = _project(early_config, known, [*known.file_or_dir, value])
        for what, there, here in zip(("root directory", "ini file"), moved, home, strict=True):
            if there != here:
                from pytest_mlpatterns.wording import named

                raise pytest.UsageError(
                    f"{flag} {named(value)}: behind a space pytest takes a path that exists for one of tests, and "
                    f"{named(there or 'none')} for the {what} instead of {named(here or 'none')}; write "
                    f"{flag}={named(shlex.quote(value))}"
                )


def _project(early_config: pytest.Config, known: argparse.Namespace, paths: Sequence[str]) -> Sequence[Path | None]:
    """The root directory and the ini file that pytest finds by these paths of tests."""
    from _pytest.config.findpaths import determine_setup

    available = {
        "args": paths,
        "inifile": known.inifilename,
        "invocation_dir": early_config.invocation_params.dir,
        "override_ini": (),
        "rootdir_cmd_arg": known.rootdir or None,
    }
    taken = inspect.signature(determine_setup).parameters  # they differ between versions of pytest
    return determine_setup(**{name: available[name] for name in taken})[:2]


def add_ini_keys(parser: pytest.Parser) -> None:
    """Add the ini keys, the same names in snake case."""
    for name, attributes in OPTIONS.items():
        parser.addini(_key(name), attributes["help"], default=None)


def given_options(config: pytest.Config) -> dict[str, object]:
    """The values of the command line by option name; None if not given."""
    return {name: config.getoption(_key(name)) for name in OPTIONS}


def given_ini(config: pytest.Config) -> dict[str, object]:
    """The values of the ini file by option name, as text; None or empty if not given."""
    return {name: ini_text(config, name) for name in OPTIONS}


def ini_text(config: pytest.Config, name: str) -> str | None:
    """The value of an ini key as the command line takes it, however the file writes it; None if not given.

    TOML has numbers, truth values, lists and tables: ``perf_tolerance = {rtm = 0.05}`` is ``rtm=0.05``.
    """
    given = _ini_of(config).get(_key(name))
    native = getattr(given, "value", None)  # pytest 9 keeps what TOML has, and gives out no other type than text
    value = config.getini(_key(name)) if native is None or isinstance(native, str) else native
    if isinstance(value, str) and name in _TABLES and value.startswith("{"):
        value = _table_of(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(shlex.quote(str(one)) if name in _QUOTED else str(one) for one in value)
    if isinstance(value, dict):
        if OPTIONS[name].get("metavar") == _JSON:
            return json.dumps(value, default=str)
        return ", ".join(f"{key}={one}" for key, one in value.items())
    return None if value is None else str(value)


def _table_of(text: str) -> object:
    """The table that pytest has turned into text, as it does in ``[tool.pytest.ini_options]``; else the text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _ini_of(config: pytest.Config) -> Mapping[str, object]:
    """Everything that the ini file has, by key; what the values are depends on the version of pytest."""
    held = getattr(config, "_inicfg", None)
    return cast("Mapping[str, object]", config.inicfg if held is None else held)


def _is_ini_key(config: pytest.Config, key: str) -> bool:
    """Whether pytest or a plugin has such a key."""
    try:
        config.getini(key)
    except ValueError:  # what pytest raises for an unknown one
        return False
    except (TypeError, pytest.UsageError):  # a value of another type
        return True
    return True


def _key(name: str) -> str:
    return f"perf_{name.replace('-', '_')}"


def values_of_conftests(config: pytest.Config) -> dict[str, object]:
    """The values of options that conftest files add, by destination; plain values only."""
    found: dict[str, object] = {}
    for name, plugin in config.pluginmanager.list_name_plugin():
        if Path(name).name == "conftest.py" and (hook := getattr(plugin, "pytest_addoption", None)) is not None:
            for destination in _options_added_by(hook, config.pluginmanager).destinations:
                value = getattr(config.option, destination, None)
                if isinstance(value, str | int | float | list | tuple | None):
                    found[destination] = value
    return found


class _Recorder:
    """Stands in for a parser and notes which options a plugin adds."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.destinations: list[str] = []

    def getgroup(self, *_args: object, **_kwargs: object) -> _Recorder:
        return self

    def addoption(self, *names: str, **attributes: object) -> None:
        self.seen.update(names)
        long = next((name for name in names if name.startswith("--")), names[0])
        self.destinations.append(str(attributes.get("dest") or long.lstrip("-").replace("-", "_")))

    _addoption = addoption

    def addini(self, *_args: object, **_kwargs: object) -> None:
        """Ini keys cannot clash with options."""


def _options_added_by(hook: Callable[..., object], pluginmanager: pytest.PytestPluginManager) -> _Recorder:
    recorder = _Recorder()
    available = {"parser": recorder, "pluginmanager": pluginmanager}
    hook(**{key: available[key] for key in inspect.signature(hook).parameters if key in available})
    return recorder


def _owner_of(flag: str, pluginmanager: pytest.PytestPluginManager) -> tuple[str, str]:
    """The distribution that added this option, and the name by which ``-p no:`` knows its plugin."""
    installed = {id(plugin): str(found.project_name) for plugin, found in pluginmanager.list_plugin_distinfo()}
    for name, plugin in pluginmanager.list_name_plugin():
        hook = getattr(plugin, "pytest_addoption", None)
        if hook is None or hook.__module__.startswith(("pytest_mlpatterns", "_pytest.")):
            continue
        if flag in _options_added_by(hook, pluginmanager).seen:
            return installed.get(id(plugin), name), name
    return "another plugin", "THAT_PLUGIN"
