"""Models are packed side by side, as two variants of an interleaved run start, and with arguments of their class."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from support.each_row import each_row

from pytest_mlpatterns import SettingError
from pytest_mlpatterns.patterns.pattern import name_of
from pytest_mlpatterns.serving.model import UnusableModelError, pack, pack_client
from pytest_mlpatterns.wire import REST_JSON

HERE = sys.modules[__name__]
THREADS = 4


class SlowToPickle:
    """A model whose pickling lets other threads run."""

    def __init__(self) -> None:
        self.is_pickled = threading.Event()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        self.is_pickled.wait(0.02)
        return SlowToPickle, ()

    def __call__(self, batch: list[object]) -> list[object]:
        return batch


def test_threads_that_pack_at_once_do_not_take_each_others_registration() -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        packed = list(threads.map(lambda _: pack(SlowToPickle(), [HERE]), range(2 * THREADS)))
    assert {source.name for source in packed} == {"SlowToPickle"}
    assert all(source.pickled == packed[0].pickled for source in packed)


class Scaled:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, batch: list[int]) -> list[int]:
        return [self.factor * one for one in batch]


class Silent:
    def __init__(self, factor: int) -> None:
        self.factor = factor


def test_a_class_with_arguments_is_built_anew_by_every_load() -> None:
    model = partial(Scaled, factor=3)
    source = pack(model, [HERE])
    first, second = source.load(), source.load()
    assert first([2]) == second([2]) == [6]
    assert first is not second
    assert source.name == name_of(model) == "Scaled"
    with pytest.raises(UnusableModelError, match=r"Silent: class Silent has no __call__\(batch\)"):
        pack(partial(Silent, 3), [HERE]).load()


def test_a_function_with_arguments_is_called_with_batches() -> None:
    assert pack(partial(sorted, reverse=True)).load()([1, 2]) == [2, 1]


class NoSend: ...


class Sender:
    async def send(self, value: object) -> object:
        return value


@each_row(
    ("client", "message"),
    (NoSend, "perf_client is class NoSend without send, expected a function send"),
    (Sender(), "perf_client is Sender, expected .*; return Sender itself"),
    (3, "perf_client is int, expected a function"),
)
def test_a_client_that_cannot_send_is_refused(client: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        pack_client(client, (), REST_JSON)


def test_a_client_is_packed_with_its_name_and_whether_it_is_awaited() -> None:
    packed = [pack_client(one, (), REST_JSON) for one in (len, Sender, partial(Sender.send, None))]
    assert [(str(one), one.is_async) for one in packed] == [
        ("client len", False),
        ("client Sender", True),
        ("client send", True),
    ]
    assert packed[0].load() is len
