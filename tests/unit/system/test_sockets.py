"""A held port: it goes to the server for which it is held, and to no other socket that asks for a free one."""

import socket

import pytest

from pytest_mlpatterns.system.sockets import held_port


def port_of(one: socket.socket) -> int:
    port: int = one.getsockname()[1]
    return port


def server(port: int) -> socket.socket:
    """Binds as Ray Serve does."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    made.listen()
    return made


def test_a_server_of_the_same_user_gets_every_connection_to_the_held_port() -> None:
    with held_port() as holder, server(port_of(holder)) as listener:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", port_of(holder)), 5), listener.accept()[0]:
                pass


def test_a_port_that_is_held_is_refused_to_the_next_holder_which_takes_another_one() -> None:
    with held_port() as first, held_port(wanted=port_of(first)) as second, server(port_of(first)):
        assert port_of(second) != port_of(first)
        with held_port(wanted=port_of(first)) as third:  # also while the server listens
            assert port_of(third) not in (port_of(first), port_of(second))


def test_the_wanted_port_is_taken_if_it_is_free() -> None:
    with held_port() as first:
        wanted = port_of(first)
    with held_port(wanted=wanted) as second:
        assert port_of(second) == wanted


def test_a_socket_that_does_not_share_cannot_bind_a_held_port() -> None:
    with held_port() as holder, socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port_of(holder)))


def test_an_address_of_another_machine_is_refused_and_nothing_stays_open() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        held_port("192.0.2.1")
