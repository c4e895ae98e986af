"""What the layers above ask of an engine, and how one is found by its name.

An engine starts the processes of a service plan. It is an object that fulfils :class:`Engine`, registered in the
entry-point group ``pytest_mlpatterns.engines`` under the name that ``perf(engine=...)`` takes, and imported when it is
first named. This module must not know any of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.launch import Noise
from pytest_mlpatterns.serving.model import ServicePlan, StartOptions, ended_on_error, start_with_cpus, start_with_share
from pytest_mlpatterns.serving.readiness import set_up
from pytest_mlpatterns.system.cpu_share import give_replica_cores
from pytest_mlpatterns.wording import did_you_mean, shown

if TYPE_CHECKING:
    from pytest_mlpatterns.loadgen.generator_process import GeneratorPool
    from pytest_mlpatterns.serving.deployment import Deployment, Traits
    from pytest_mlpatterns.workload.endpoint import Endpoint

_GROUP = "pytest_mlpatterns.engines"  # Group of entry points in which distributions register engines


class SessionOptions(Struct, frozen=True):
    """What an engine reads its own settings from."""

    options: Mapping[str, object]  # command-line values by option name, None if not given
    ini: Mapping[str, object]  # ini values by option name, None or empty if not given
    root: Path  # directory to which paths are relative
    directory: Path  # takes logs and other files, which the session removes


@runtime_checkable
class Engine(Protocol):
    """Serves models under patterns. A class that derives from this one inherits what most engines answer.

    Attributes:
        gives_cores: whether it gives a deployment the cores that the options name; for others, :func:`launch` does.
        adds_replicas: whether its deployments have a scaler, which adds replicas while they run.
        sends_load: whether load can be sent from where it serves, ``perf(generators_on=...)``.
        is_readable: whether its processes run on this machine and heed ``options.profiled``,
            ``options.traced`` and ``options.under``.
    """

    gives_cores: bool = False
    adds_replicas: bool = False
    sends_load: bool = False
    is_readable: bool = False

    def require_installed(self, what: str) -> None:
        """Check that the packages that it needs are installed, without importing them.

        Args:
            what: what needs them, in the user's words, such as ``engine="own"``.

        Raises:
            MissingExtraError: one is not.
        """
        return

    def session(self, given: SessionOptions) -> EngineSession | None:
        """What the tests of one session share, not begun yet; None if they share nothing.

        Raises:
            SettingError: its settings cannot be read.
        """
        return None

    def check(self, plan: ServicePlan, options: StartOptions) -> None:
        """Check that it can serve a composition, before anything starts.

        Args:
            plan: the process tree, with the models packed.
            options: how it is to be started.

        Raises:
            SettingError: it cannot; with the reason and what to write instead.
        """
        return

    def launch(self, plan: ServicePlan, options: StartOptions) -> Deployment:
        """Start a service that :meth:`check` has passed, and wait until it is ready.

        Args:
            plan: the process tree, with the models packed.
            options: how it is started; ``options.session`` is what :meth:`session` gave.

        Raises:
            ModelLoadError: the model could not be built or failed on its first inference; with its traceback.
            DeploymentError: a process ended, or was not ready in time.
        """
        ...


class EngineSession(Protocol):
    """What the tests of one session share that name an engine: its connection to a cluster."""

    @property
    def has_begun(self) -> bool:
        """Whether it has begun to connect."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What the summary of the run reports of it."""
        ...

    def begin(self) -> None:
        """Begin to connect, without waiting for it. Safe to call twice."""
        ...

    def await_ready(self) -> None:
        """Wait until it is connected.

        Raises:
            SettingError: the cluster cannot be reached, or does not fit.
            DeploymentError: the cluster did not start.
        """
        ...

    def cluster(self) -> Cluster:
        """The machines that take part in a test, from now on.

        Raises:
            MlpatternsError: they cannot be reached.
        """
        ...

    def generators(self) -> GeneratorPool:
        """Where load generators on these machines come from; asked of an engine that ``sends_load``."""
        ...

    def access_options(self, interpreter: Path | None) -> tuple[str, ...]:
        """Options of a pytest that serves another revision for this run, so that it connects to the same machines.

        Args:
            interpreter: from the revision's own environment; None if it runs in this one.

        Raises:
            SettingError: both revisions cannot be served there.
        """
        ...

    def access_variables(self) -> Mapping[str, str]:
        """Environment variables of that pytest."""
        ...

    def join(self) -> None:
        """In that pytest: connect to the machines of the run that it serves for; elsewhere do nothing.

        Raises:
            MlpatternsError: it cannot connect.
        """
        ...

    def watch(self) -> None:
        """Begin to watch the machines, before that pytest starts a deployment there.

        Raises:
            DeploymentError: they do not answer.
        """
        ...

    def seen(self, endpoint: Endpoint, shared: object, *, traits: Traits, on_stop: Callable[[], None]) -> Deployment:
        """A deployment that the other pytest has started there, as this process sees it.

        Args:
            endpoint: where it is asked.
            shared: what it shared of itself, as :attr:`~pytest_mlpatterns.serving.deployment.Traits.shared`.
            traits: what else is known of it.
            on_stop: ends it; called once, when it closes.
        """
        ...

    def close(self) -> None:
        """End the connection, and all that this run started there. Safe to call twice."""
        ...


class Cluster(Protocol):
    """The machines that take part in a test.

    Attributes:
        description: their kinds and how many there are of each, by which baselines know them.
    """

    description: str

    def change(self) -> Noise | None:
        """What has changed since the test began, with advice; None if nothing has, or if that is not known."""
        ...


def engine_names() -> tuple[str, ...]:
    """The names of all engines that are installed; none of them is imported."""
    return tuple(sorted(_registered(tuple(sys.path))))


def engine_named(name: object, argument: str = "engine", source: str = "") -> Engine:
    """The engine of this name.

    Args:
        name: as the user gave it.
        argument: of the marker that it stands for.
        source: what gave it, for messages; empty if the marker did.

    Raises:
        SettingError: there is no such engine, or it is none.
    """
    registered = _registered(tuple(sys.path))
    if not isinstance(name, str) or name not in registered:
        known = engine_names()
        expected = f"expected one of {', '.join(map(repr, known))}"
        if not known:
            expected = "and no engine is registered; install pytest-mlpatterns anew"
        elif isinstance(name, str) and (hint := did_you_mean(name, known, "{}")):
            expected += f"; {hint.rstrip('; ')}"
        raise SettingError(f"{source or f'perf({argument}=...)'} is {shown(name)}, {expected}")
    found = registered[name]
    try:
        engine = found.load()
    except (ImportError, AttributeError) as error:
        raise SettingError(f'{argument}="{name}": {found.value} cannot be imported: {error}') from error
    if not isinstance(engine, Engine):
        raise SettingError(
            f'{argument}="{name}": {found.value} is {shown(engine)}, expected an engine; derive its class from '
            "pytest_mlpatterns.engines.engine.Engine"
        )
    return engine


@lru_cache(maxsize=4)
def _registered(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The entry points of engines by name, as long as ``sys.path`` is this one."""
    return {found.name: found for found in entry_points(group=_GROUP)}


def launch(plan: ServicePlan, options: StartOptions) -> Deployment:
    """Start a service with the engine that the options name, and wait until it is ready.

    Raises:
        ModelLoadError: the model could not be built or failed on its first inference; with its traceback.
        DeploymentError: a process ended, or was not ready in time.
        MissingExtraError: packages of the engine are not installed.
        SettingError: there is no such engine, it cannot serve the service, or this machine cannot give the cores that
            the options name.
    """
    engine = engine_named(options.engine)
    engine.require_installed(f'engine="{options.engine}"')
    engine.check(plan, options)

    def start() -> Deployment:
        deployment = engine.launch(plan, options)
        if options.setup is not None:
            with ended_on_error(deployment.close):
                for number in range(len(deployment.addresses)):
                    set_up(deployment, number, plan.name, options=options)
        return deployment

    if engine.gives_cores:
        return start()
    if options.replica_cores is not None:
        return start_with_share(give_replica_cores(options.replica_cores, plan.root.replicas), start)
    return start_with_cpus(options.cpus, start)
