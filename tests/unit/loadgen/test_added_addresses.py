"""Addresses that a running load gets from another thread, and that the end of the load does not wait for."""

import selectors
import threading

from pytest_mlpatterns.loadgen.event_loop import PassedAddresses


def test_an_address_wakes_the_loop_and_is_taken_in_its_thread() -> None:
    taken: list[tuple[tuple[str, int], int]] = []
    with selectors.DefaultSelector() as selector:
        added = PassedAddresses(selector, lambda address: taken.append((address, threading.get_ident())))
        adding = threading.Thread(target=lambda: [added.add(("a", 1)), added.add(("b", 2))])
        adding.start()
        adding.join()
        while len(taken) < 2:
            for key, mask in selector.select(30):
                key.data(mask)
        added.close()
    assert taken == [(("a", 1), threading.get_ident()), (("b", 2), threading.get_ident())]


def test_an_address_that_comes_after_the_end_is_ignored() -> None:
    taken: list[object] = []
    with selectors.DefaultSelector() as selector:
        added = PassedAddresses(selector, taken.append)
        added.close()
        added.close()
        added.add(("a", 1))
    assert not taken
