"""Performance tests for machine-learning models and the way they are served, beside your unit tests.

Define the fixtures ``perf_model`` and ``perf_payload``, mark a test with ``perf``, ask for the fixture ``perf``, and
assert on what it measured. The names here are the public ones; they are loaded when first used.

The packages form nine layers, and each imports only from those below it:

========  ===============================================================================================
layer     packages
========  ===============================================================================================
9         ``plugin`` (pytest), ``cli`` (the command line)
8         ``judging``: one perf test, from measurement to verdict; ``history``: what many runs measured
7         ``measurement``: deployments under load; ``revision``: the same test at another commit
6         ``engines``: what starts the processes of a pattern, on this machine or elsewhere
5         ``serving``: what processes serve; ``loadgen``: the load generator; ``baseline``: the baseline file;
          ``profiling``: where the time of serving processes goes
4         ``config``: settings; ``reports``: results as text
3         ``analysis``: mathematics; ``patterns``; ``workload``: what is sent, and when; ``system``: the machine
2         ``records``: values that travel; ``wire``: formats of requests and responses
1         ``errors``, ``units``, ``fields``, ``wording``, ``credentials``, ``removed``
========  ===============================================================================================

To read the code, begin with ``records``, then follow a test from the top: ``plugin/entry``, ``plugin/session``,
``judging/perf``, ``judging/sequential``, ``measurement/launch``, ``engines/local/launcher``, ``loadgen/generator``,
and back up through ``analysis/metrics/blocks``, ``analysis/metrics/metrics`` and ``analysis/verdicts/verdicts``.
"""

import re

__version__ = "0.3.0"


def _homes() -> dict[str, str]:
    """The module of each public name, as the stub beside this file imports it, and the package of patterns its own."""
    found: dict[str, str] = {}
    for file in ("__init__.pyi", "patterns/__init__.py"):
        with open(f"{__path__[0]}/{file}", encoding="utf-8") as text:  # without pathlib: every child imports this
            imports = re.findall(rf"^from ({__name__}\S+) import (\([^)]*\)|.*)", text.read(), re.MULTILINE)
        found |= {name: home for home, names in imports for name in re.findall(r"\w+", names) if name != "as"}
    return found


_HOME_OF = _homes()

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 - computed from the stub


def __getattr__(name: str) -> object:
    """Load a public name when it is first used, so that pytest without perf tests pays nothing."""
    if name not in _HOME_OF:
        from pytest_mlpatterns.removed import why_removed

        if gone := why_removed(name):
            raise ImportError(gone)  # of an AttributeError an import shows the name only
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if (
        name == "measure"
    ):  # the only name that Windows cannot import, since tests that use the others are collected there
        from pytest_mlpatterns.errors import check_system

        check_system()
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
