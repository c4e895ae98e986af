"""One process, the whole service several times, or a gateway before a service of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.layer import Handler, ProcessHandler, Resources
from pytest_mlpatterns.patterns.pattern import MAX_PROCESSES, Composed, LayerNode, Node, Pattern, ProcessGroup, build
from pytest_mlpatterns.patterns.replica_choice import BalancedLayer, Rule
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.wire import Wire
from pytest_mlpatterns.wording import shown

_BALANCES = tuple(map(str, (*Balance, *Rule)))
"""The balances of ``Replicated``: first what the load generator knows, then what only a gateway does."""
_MOST_CHARS = 1_000_000  # Longest beginning of a prompt; taste


@dataclass(frozen=True, slots=True)
class Single(Pattern):
    """One process with server and model: the reference for comparisons with other patterns.

    With ``env`` it may begin a composition, ``Single(env={...}) | Cached() | Batched()``: one process for all of it.

    Raises:
        SettingError: not a mapping of names to text.
    """

    env: Mapping[str, str] = NO_VARIABLES  #: environment variables of the process, such as ``{"OMP_NUM_THREADS": "1"}``

    def __post_init__(self) -> None:
        set_variables(self)

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the process with the rest of the composition."""
        if position and self.env:
            raise SettingError(f"{self} behind another pattern, expected first; give its env= to the next pattern")
        if position or (rest and not self.env):
            raise SettingError("Single() in a composition, expected alone; leave it out: Cached() | Batched()")
        return ProcessGroup(build(position + 1, rest), "service", position=-1, takes_load=True, env=self.env)


@dataclass(frozen=True, slots=True)
class Replicated(Pattern):
    """Several identical processes: horizontal scaling.

    As the first pattern of a composition, each replica contains everything that follows, and the load generator
    balances over the replicas. Further inside, the process before them balances.

    Args:
        replicas: number of processes, 2..64.
        balance: ``"round-robin"`` or ``"least-outstanding"``: every replica has its own port, and the process before
            them balances; ``"shared-socket"``: all accept from one socket and the kernel chooses, as with
            ``uvicorn --workers``, which can leave a replica idle. The process before them, or a gateway, applies these:
            ``"two-choices"``: of two replicas drawn at random the one with fewer requests in flight;
            ``"least-latency"``: the least product of latency and requests in flight; ``"prefix"``: the replica that has
            seen the beginning of the prompt, unless it has over 1.25 times its share of those in flight.
        env: environment variables of each replica, such as ``{"OMP_NUM_THREADS": "1"}``.
        prefix_chars: length of the beginning that ``balance="prefix"`` compares, in characters of a text or elements of
            a list, 1..1,000,000.

    Raises:
        SettingError: a number out of range, an unknown balance, or impossible variables.
    """

    replicas: int = 2
    balance: str = Balance.ROUND_ROBIN.value
    env: Mapping[str, str] = NO_VARIABLES
    prefix_chars: int = 100

    def __post_init__(self) -> None:
        set_variables(self)
        set_whole(self, "replicas", least=1, most=MAX_PROCESSES, expected=f"a whole number from 2 to {MAX_PROCESSES}")
        if self.replicas == 1:
            raise SettingError("Replicated(replicas=1), expected from 2; for one process write Single()")
        set_whole(self, "prefix_chars", least=1, most=_MOST_CHARS)
        if not isinstance(self.balance, str) or self.balance not in _BALANCES:
            known = ", ".join(map(repr, _BALANCES))
            raise SettingError(f"Replicated(balance={shown(self.balance)}), expected one of {known}")
        if self.has_gateway:
            set_whole(self, "replicas", least=2, most=MAX_PROCESSES - 1)

    @property
    def has_gateway(self) -> bool:
        """Whether a process before the replicas chooses among them, by a rule that the load generator does not know."""
        return self.balance not in list(Balance)

    @property
    def taken_at_once(self) -> int:
        """A queue before a gateway should offer it a request for each replica."""
        return self.replicas

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the processes, each with the rest of the composition, and the layer that chooses if it takes one."""
        inside = build(position + 1, rest)
        if self.has_gateway:
            group = ProcessGroup(inside, "replica", position, self.replicas, env=self.env)
            return LayerNode(self, position, (group,))
        return ProcessGroup(
            inside, "replica", position, self.replicas, Balance(self.balance), takes_load=True, env=self.env
        )

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that chooses a replica for each request."""
        return BalancedLayer(self, cast("ProcessHandler", inside[0]), tally)


@dataclass(frozen=True, slots=True)
class Microservice(Pattern):
    """A gateway process, and the model in a service behind it, called over a socket.

    Args:
        replicas: number of processes of the service behind the gateway, 1..63, called in turn.
        wire: how the gateway calls the service, a :class:`Wire` over REST or its short form; None: as clients call the
            gateway, or ``rest+binary`` if they use gRPC.
        env: environment variables of the processes behind the gateway, such as ``{"OMP_NUM_THREADS": "1"}``.

    Raises:
        SettingError: a number out of range, a wire that is not REST, or impossible variables.
    """

    replicas: int = 1
    wire: Wire | str | None = None
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        set_whole(self, "replicas", least=1, most=MAX_PROCESSES - 1)
        if self.wire is None:
            return
        if isinstance(self.wire, str):
            object.__setattr__(self, "wire", Wire.parse(self.wire, "Microservice(wire=...)"))
        if not isinstance(self.wire, Wire) or self.wire.protocol != "rest":
            raise SettingError(
                f"Microservice(wire={shown(str(self.wire) if isinstance(self.wire, Wire) else self.wire)}), "
                "expected a wire over REST; write 'rest+json' or 'rest+binary'"
            )
        self.wire.check_installed("Microservice(wire=...)")

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the processes of the service, each with the rest of the composition."""
        assert not isinstance(self.wire, str)  # converted in __post_init__
        inside = build(position + 1, rest)
        return ProcessGroup(inside, "service", position, self.replicas, wire=self.wire, env=self.env)


def with_replicas(pattern: Pattern, replicas: int) -> Pattern:
    """The pattern scaled out: the whole service this many times; one replica is the service without ``Replicated``.

    ``pattern``: any; if its first part is ``Replicated``, that part's number is replaced, and its other arguments are
    kept. ``replicas``: at least 1.
    """
    first, *rest = pattern.parts
    inside: list[Pattern] = rest if isinstance(first, Replicated | Single) else list(pattern.parts)
    env = first.env if isinstance(first, Replicated | Single) else NO_VARIABLES
    if replicas > 1:
        scaled = replace(first, replicas=replicas) if isinstance(first, Replicated) else Replicated(replicas, env=env)
        inside.insert(0, scaled)
    elif env or not inside:
        inside.insert(0, Single(env))
    return inside[0] if len(inside) == 1 else Composed(tuple(inside))


def balance_of(pattern: Pattern) -> Balance | None:
    """How the load generator spreads requests over the replicas of :func:`with_replicas`; None: a gateway does."""
    first = pattern.parts[0]
    if not isinstance(first, Replicated):
        return Balance(Replicated().balance)
    return None if first.has_gateway else Balance(first.balance)
