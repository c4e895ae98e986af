"""The plugin as pytest loads it: options, the marker, parametrization, and the fixtures.

Loaded with every pytest, so it imports nothing heavy. The hooks that only perf tests need are in
:mod:`pytest_mlpatterns.plugin.session`, which is loaded when a perf test is collected.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mlpatterns.plugin import hookspecs, options
from pytest_mlpatterns.plugin.collection import (
    COMPLETE,
    MEASURED_COMMIT,
    REFERENCE_TREES,
    Collection,
    may_ask_later,
    uses_our_fixtures,
)

if TYPE_CHECKING:
    from pytest_mlpatterns.judging.perf import Perf
    from pytest_mlpatterns.patterns import Pattern
    from pytest_mlpatterns.plugin.session import PerfSession
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.wire import Wire

_SESSION = "mlpatterns-session"
_COLLECTION: pytest.StashKey[Collection] = pytest.StashKey()
_EMPTY_RESULTS: pytest.StashKey[Path] = pytest.StashKey()  # Set if the results of an earlier run were replaced
_WIDER_SCOPE = "ScopeMismatch: You tried to access the function scoped fixture perf "  # Begins pytest's refusal
_ONLY_SHOWS = ("help", "version", "collectonly", "showfixtures", "show_fixtures_per_test", "cacheshow")
"""Options of pytest with which no test runs."""
_MARKER = (
    "perf(pattern=Single(), concurrency=1 | rate_rps=..., duration='auto' | requests=..., warmup='auto', "
    "timeout='10s', payload=..., model=..., wire='rest+json', check=..., tolerance=0.10, launches=8, budget='60s', "
    "...): measure the model of this test under load and judge it; see pytest-mlpatterns"
)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hook specifications."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini keys; :func:`pytest_load_initial_conftests` adds the options."""
    options.add_ini_keys(parser)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, None, None]:
    """Add the options after every installed plugin's, so that a clash is an error of one line.

    What conftest files add is known afterwards: then a misspelled option is an error that names the nearest one.
    """
    options.add_options(parser, early_config.pluginmanager)
    options.refuse_moved_project(parser, early_config)
    known = parser.parse_known_args(args, namespace=copy.copy(early_config.option))
    known.confcutdir = early_config.known_args_namespace.confcutdir
    early_config.known_args_namespace = known
    try:
        yield
        options.refuse_misspelled(parser, early_config, args)
    except BaseException:  # of a conftest file, or by a misspelled option
        with contextlib.suppress(pytest.UsageError):
            _replace_results(early_config, known)
        raise


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """``--perf-help`` prints what a test can write, and ends the run."""
    if not config.getoption("perf_help", default=False):
        return None
    from pytest_mlpatterns.plugin.help_text import print_help

    print_help(config)
    return 0


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and start to note what is collected."""
    config.addinivalue_line("markers", _MARKER)
    if not hasattr(config.option, "perf_baseline"):
        raise pytest.UsageError(
            "pytest-mlpatterns was loaded from a conftest file, too late for its options; install it, "
            "or load it with -p pytest_mlpatterns.plugin.entry"
        )
    config.stash[_COLLECTION] = Collection()
    config.pluginmanager.register(config.stash[_COLLECTION], "mlpatterns-collection")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Replace the results of an earlier run by the file of a run that was not completed.

    In the controller of a distributed run (pytest-xdist), make the session: it collects results and writes files.
    """
    config = session.config
    is_other = hasattr(config, "workerinput") or REFERENCE_TREES in config.stash or MEASURED_COMMIT in config.stash
    if not is_other:
        _replace_results(config, config.option)
    if config.pluginmanager.hasplugin("dsession") and sys.platform != "win32":
        _session(config)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write into the result file how a run ended that has no perf tests; a session writes its own results."""
    config = session.config
    if (file := config.stash.get(_EMPTY_RESULTS, None)) is not None and not config.pluginmanager.hasplugin(_SESSION):
        from pytest_mlpatterns.system.empty_results import write_empty_results

        with contextlib.suppress(OSError):  # it still shows a run that was not completed
            write_empty_results(file, complete=exitstatus in COMPLETE, failed=config.stash[_COLLECTION].failed)


def pytest_report_header(config: pytest.Config) -> str:
    """The header line: the baseline file and its mode, or the revision to compare with; and a gate that only warns."""
    if ref := _given(config, "against"):
        text = f"mlpatterns: compared with {ref}"
    else:
        text = f"mlpatterns: baseline {_given(config, 'baseline-file') or 'perf-baseline.json'} ({_mode(config)})"
        if _mode(config) == "update":
            from pytest_mlpatterns.baseline.updates import announcement
            from pytest_mlpatterns.config.settings import DEFAULT_BUDGET

            text = f"{text}: {announcement(_given(config, 'budget') or DEFAULT_BUDGET)}"
    if _given(config, "gate") == "warn":
        text = f"{text}; a failing verdict fails no test (gate warn)"
    if text.isprintable():
        return text
    from pytest_mlpatterns.wording import visible

    return visible(text)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A list of patterns makes one test each, and so does a list of wires."""
    if "_perf_pattern" not in metafunc.fixturenames:
        return
    marker = metafunc.config.stash[_COLLECTION].read_markers(metafunc.definition)
    if marker.error is not None:
        return  # it fails the test
    from pytest_mlpatterns.config.arguments import has_lists

    config = metafunc.config
    given = {"patterns": config.getoption("perf_patterns")}, {"patterns": options.ini_text(config, "patterns")}
    if len(getattr(metafunc, "_arg2fixturedefs", {}).get("perf_target", ())) > 1:  # the user's own beside ours
        given = {}, {}  # --perf-patterns is for tests with a model
    if not has_lists(marker.arguments, *given):
        return
    from pytest_mlpatterns.config.lists import patterns_of, wires_of
    from pytest_mlpatterns.errors import SettingError

    try:
        patterns, wires = patterns_of(marker.arguments, *given), wires_of(marker.arguments)
    except SettingError as error:
        marker.error = error
        return
    if patterns is not None:
        metafunc.parametrize("_perf_pattern", patterns, ids=[str(pattern) for pattern in patterns], indirect=True)
    if wires is not None:
        metafunc.parametrize("_perf_wire", wires, ids=[str(wire) for wire in wires], indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """An error of ours ends at the user's line; one of a fixture that does not exist names the nearest of ours."""
    if call.excinfo is not None and call.excinfo.type.__module__ == "pytest_mlpatterns":
        from pytest_mlpatterns.plugin.failures import end_at_the_users_line

        end_at_the_users_line(call.excinfo)
    report = yield
    if call.when == "setup" and call.excinfo is not None and isinstance(call.excinfo.value, pytest.FixtureLookupError):
        from pytest_mlpatterns.plugin.name_hints import fixture_hint

        if hint := fixture_hint(call.excinfo.value.argname or ""):
            report.sections.append(("pytest-mlpatterns", hint))
    if call.excinfo is not None and str(call.excinfo.value).startswith(_WIDER_SCOPE):
        hint = "perf measures one test: leave scope= out, or share a deployment with perf_deploy_session"
        report.sections.append(("pytest-mlpatterns", hint))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """An error of ours in a test module, such as a wrong argument of a pattern, ends at the user's line."""
    report = yield
    call: pytest.CallInfo[Any] | None = getattr(report, "call", None)
    if call is not None and call.excinfo is not None and call.excinfo.type.__module__ == "pytest_mlpatterns":
        from pytest_mlpatterns.plugin.failures import end_at_the_users_line

        end_at_the_users_line(call.excinfo)
        report.longrepr = collector.repr_failure(call.excinfo)
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Read the settings of every perf test; without one, and with nothing to prune, nothing is loaded.

    A run that only shows something, such as which tests exist, reads no values.
    """
    perf_tests, needed = [], _mode(config) == "prune"
    for item in items:
        if uses_our_fixtures(item):
            perf_tests.append(item)
        elif "perf" in item.keywords and item.get_closest_marker("perf") and not _is_foreign_marker(config):
            needed = needed or may_ask_later(item)
            _warn_unused(item, config.stash[_COLLECTION])
    is_worker_on_windows = hasattr(config, "workerinput") and sys.platform == "win32"  # its perf tests fail one by one
    if (perf_tests or needed) and not is_worker_on_windows and _runs_tests(config.option):
        _session(config).prepare(perf_tests)


@pytest.fixture
def perf_model() -> object:
    """The model under test; override it: a callable, a class, or ``"package.module:attribute"``.

    It may have a version in an attribute ``perf_version``, such as ``"2"``; of an import string the source is read.
    Another version is another model: it is not compared with the baseline of the old version, nor with a revision that
    has the old one, so that an intended slowdown is no regression. Record its baseline with ``--perf-baseline update``.
    """
    return None


@pytest.fixture
def perf_payload() -> object:
    """The inputs that requests send, in turn; override it: a list of inputs, or of ``httpx.Request``."""
    return None


@pytest.fixture
def perf_target() -> object:
    """A service that exists already, instead of a model; override it.

    ``App("package.module:app")`` is an ASGI application, ``Command("serve --port {port}")`` a server that a command
    starts, ``Url("http://127.0.0.1:8000/predict")`` one that runs.
    """
    return None


@pytest.fixture
def perf_setup() -> object:
    """What sets the service up; override it: a function ``setup(client)``, called after each start, before the load."""
    return None


@pytest.fixture
def perf_figures() -> object:
    """Figures of your own, read from each answer; override it: a dictionary from a name to where it is.

    ``{"queue_time": Header("x-queue-time", unit="ms"), "eval": Json("eval_duration", unit="ns"),
    "words": lambda answer: len(answer.body.split())}``. Each becomes a metric: ``queue_time``, ``queue_time:p95``.
    """
    return None


@pytest.fixture
def perf_client() -> object:
    """What sends each input in place of the built-in HTTP client; override it: a function, or a class with ``send``.

    ``send(input)`` returns the answer, or yields its chunks, and may be ``async``. A parameter ``url`` or ``address``
    gets where the service is. A class may have ``open`` and ``close``; each caller has an object of its own. Without a
    model and a target the client itself is measured.
    """
    return None


@pytest.fixture
def _perf_pattern(request: pytest.FixtureRequest) -> Pattern | None:
    """The pattern of this test, out of the marker's list."""
    return getattr(request, "param", None)


@pytest.fixture
def _perf_wire(request: pytest.FixtureRequest) -> Wire | None:
    """Likewise its wire."""
    return getattr(request, "param", None)


@pytest.fixture
def _perf_ahead(request: pytest.FixtureRequest) -> Iterator[None]:
    """What another process does while this one makes the model and its inputs."""
    with _session(request.config).ahead(request.node):
        yield


@pytest.fixture
def perf(  # noqa: PLR0913 - what it asks for, most of it by name
    request: pytest.FixtureRequest,
    _perf_ahead: None,
    perf_model: object,
    *,
    perf_payload: object,
    perf_target: object,
    perf_setup: object,
    perf_figures: object,
    perf_client: object,
    _perf_pattern: object,
    _perf_wire: object,
) -> Iterator[Perf]:
    """The measurement: deployment, load, metrics, assertions. The load starts when the first figure is needed."""
    session = _session(request.config)
    from pytest_mlpatterns.plugin.experiment_builder import FixtureValues

    fixtures = FixtureValues(perf_model, perf_payload, perf_target, perf_setup, perf_figures, perf_client)
    with session.measurement(request.node, fixtures) as measurement:
        yield measurement


@pytest.fixture
def perf_deploy(
    request: pytest.FixtureRequest,
    perf_model: object,
    perf_payload: object,
    *,
    perf_target: object,
    perf_setup: object,
) -> Callable[..., contextlib.AbstractContextManager[Deployment]]:
    """Start a deployment without load: ``with perf_deploy(Replicated(2)) as deployment: deployment.predict(x)``.

    ``perf_deploy(target=App("package.module:app"))`` starts a service that exists already; ``perf_deploy()`` starts the
    one that the fixture ``perf_target`` names.
    """
    return _deployer(request, perf_model, perf_payload, perf_target=perf_target, perf_setup=perf_setup)


@pytest.fixture(scope="session")
def perf_deploy_session(request: pytest.FixtureRequest) -> Callable[..., contextlib.AbstractContextManager[Deployment]]:
    """Like ``perf_deploy``, for fixtures of module, package and session scope: a deployment that many tests share.

    It knows no fixture of a single test, so give it ``model=``, and ``payload=`` for a first request, or ``target=``.
    """
    return _deployer(request, None, None, perf_target=None)


def _deployer(
    request: pytest.FixtureRequest,
    perf_model: object,
    perf_payload: object,
    *,
    perf_target: object,
    perf_setup: object = None,
) -> Callable[..., contextlib.AbstractContextManager[Deployment]]:
    node, session = request.node, _session(request.config)

    def deploy(  # noqa: PLR0913 - the interface of the fixture, all but the first by name
        pattern: Pattern | str | None = None,
        *,
        wire: Wire | str = "rest+json",
        model: Any = None,
        payload: object = None,
        target: object = None,
        request: Callable[[Any], object] | None = None,
        cpus: float | str | None = None,
    ) -> contextlib.AbstractContextManager[Deployment]:
        from pytest_mlpatterns.plugin.experiment_builder import FixtureValues

        setup = perf_setup if target is None and model is None else None
        if target is None and pattern is None and model is None:
            target = perf_target
        fixtures = FixtureValues(perf_model, perf_payload, target, setup)
        arguments = {"pattern": pattern, "wire": wire, "model": model, "payload": payload, "request": request}
        arguments["cpus"] = cpus
        return session.deployed(node, fixtures, arguments)

    return deploy


def _mode(config: pytest.Config) -> str:
    return str(_given(config, "baseline") or "check")


def _given(config: pytest.Config, name: str) -> object:
    return config.getoption(f"perf_{name.replace('-', '_')}") or options.ini_text(config, name)


def _runs_tests(known: argparse.Namespace) -> bool:
    """Whether the options of pytest let tests run, and do not only show something."""
    return not any(getattr(known, one, False) for one in _ONLY_SHOWS)


def _replace_results(config: pytest.Config, known: argparse.Namespace) -> None:
    """Replace the results of an earlier run, if this one runs tests. ``known``: the options of the command line.

    Raises pytest.UsageError: they cannot be replaced.
    """
    given, base = known.perf_json, config.invocation_params.dir
    if not given:
        given, base = options.ini_text(config, "json"), config.rootpath
    if not given or sys.platform == "win32" or not _runs_tests(known):
        return
    from pytest_mlpatterns.system.empty_results import head_of, is_results, write_empty_results

    file = base / str(given)
    try:
        if not (file.is_file() and is_results(head_of(file))):
            return
    except (OSError, ValueError):  # a session names what is wrong with it
        return
    try:
        write_empty_results(file)
    except OSError as error:
        from pytest_mlpatterns.wording import named

        raise pytest.UsageError(
            f"{named(file)} has the results of an earlier run and cannot be replaced: {error.strerror or error}; make "
            "it writable, remove it, or name another file with --perf-json=PATH"
        ) from None
    config.stash[_EMPTY_RESULTS] = file


def _session(config: pytest.Config) -> PerfSession:
    """The session's plugin object, made when first needed."""
    found = config.pluginmanager.get_plugin(_SESSION)
    if found is None:
        _refuse_unsupported(config)
        from pytest_mlpatterns.plugin.session import PerfSession

        found = PerfSession(config, config.stash[_COLLECTION])
        for name, plugin in {_SESSION: found, **found.hooks()}.items():
            config.pluginmanager.register(plugin, name)
    return found


def _refuse_unsupported(config: pytest.Config) -> None:
    """End a run with perf tests on a system that cannot run them, before anything is imported that it lacks."""
    from pytest_mlpatterns.errors import SettingError, check_system

    try:
        check_system()
    except SettingError as error:
        if hasattr(config, "workerinput"):
            pytest.fail(str(error), pytrace=False)
        raise pytest.UsageError(str(error)) from None


def _is_foreign_marker(config: pytest.Config) -> bool:
    """Whether the project, or another plugin, has registered a marker of the same name."""
    lines = [line for line in config.getini("markers") if line != _MARKER]
    return any(line.partition(":")[0].partition("(")[0].strip() == "perf" for line in lines)


def _warn_unused(item: pytest.Item, collection: Collection) -> None:
    """Warn of a marker of ours on a test that asks for no fixture of ours.

    One that several tests share, such as a module's, may be there for ``-m perf`` if it is bare.
    """
    if may_ask_later(item):
        return
    ours = collection.read_markers(item).arguments  # empty if it is another plugin's marker of the same name
    is_bare = any(mark.name == "perf" and not mark.args and not mark.kwargs for mark in item.own_markers)
    if ours or is_bare:
        from pytest_mlpatterns.errors import UnusedMarkerWarning

        given = f"perf({', '.join(f'{name}=...' for name in ours)})" if ours else "the marker perf"
        missing = "does not use the fixture perf, so nothing is measured"
        advice = "add perf to its arguments"
        unittest = sys.modules.get("unittest")
        if unittest is not None and issubclass(getattr(item, "cls", None) or object, unittest.TestCase):
            advice = (
                "pytest gives unittest.TestCase no arguments: move the test out of that class, and add perf to its own"
            )
        item.warn(UnusedMarkerWarning(f"{item.nodeid} has {given} but {missing}; {advice}"))
