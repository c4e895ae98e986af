"""What the tests of a session share of each engine: made, begun and ended only if a test names the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.engines.engine import Cluster, EngineSession, SessionOptions, engine_named
from pytest_mlpatterns.errors import MlpatternsError
from pytest_mlpatterns.loadgen.ceiling import measure_ceiling
from pytest_mlpatterns.loadgen.generator import Generator

if TYPE_CHECKING:
    from pytest_mlpatterns.config.settings import Settings


class EngineSessions:
    """The engines of one session, by name. ``directory``: takes the logs of the engines."""

    def __init__(
        self, options: Mapping[str, object], ini: Mapping[str, object], *, root: Path, directory: Path
    ) -> None:
        self._options = SessionOptions(options, ini, root, directory)
        self._made: dict[str, EngineSession | None] = {}

    @property
    def lines(self) -> list[str]:
        """Their notes, as lines of the run's summary."""
        return [f"note: {note}" for session in self._shared for note in session.notes]

    def of(self, name: str) -> EngineSession | None:
        """What the tests share of this engine; None if that is nothing."""
        if name not in self._made:
            self._made[name] = engine_named(name).session(self._options)
        return self._made[name]

    def begin_for(self, settings: Iterable[Settings]) -> None:
        """Begin to connect what one of these tests needs, while other tests are prepared."""
        for session in self._needed(settings):
            session.begin()

    def await_ready(self, settings: Settings) -> None:
        """Wait until a connection that has begun is there, so that it does not begin beside a measurement."""
        needed = self._needed([settings])
        for session in self._shared:
            is_needed = session in needed
            if not is_needed and not session.has_begun:
                continue
            try:
                session.await_ready()
            except MlpatternsError:  # another test that needs it will fail with the reason
                if is_needed:
                    raise

    def serving(self, settings: Settings, target: object) -> EngineSession | None:
        """What is shared of the engine that serves a test; None if that is nothing, or ``target`` is the user's own."""
        return self.of(settings.engine) if target is None else None

    def cluster_of(self, settings: Settings, target: object) -> Cluster | None:
        """The machines that take part in a test beside this one; None if none do. ``target`` as in :meth:`serving`."""
        session = self.of(settings.generators_on) or self.serving(settings, target)
        return None if session is None else session.cluster()

    def close(self) -> None:
        """End all connections. Safe to call twice."""
        for session in self._shared:
            session.close()

    @property
    def _shared(self) -> list[EngineSession]:
        return [session for session in self._made.values() if session is not None]

    def _needed(self, settings: Iterable[Settings]) -> list[EngineSession]:
        names = dict.fromkeys(name for one in settings for name in (one.engine, one.generators_on))
        return [session for name in names if (session := self.of(name)) is not None]


class Generators(dict[str, Generator]):
    """The load generators of a session, with logs in a directory, by their place; each is made when first asked for."""

    def __init__(self, engines: EngineSessions, directory: Path) -> None:
        super().__init__()
        self._engines = engines
        self._log = directory / "generator.log"

    def __missing__(self, place: str) -> Generator:
        """The generator at a place that no test has asked for yet."""
        session = self._engines.of(place)
        pool = None if session is None else session.generators()
        made = self[place] = Generator(self._log, measure_ceiling if pool is None else None, pool)
        return made
