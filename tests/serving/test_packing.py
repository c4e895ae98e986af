"""Models are packed side by side, as two variants of an interleaved run start."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from pytest_mlpatterns.serving.model import pack

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
