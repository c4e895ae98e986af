"""A held port goes to the server for which it is held, a free one to the program for which it was found."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.each_row import each_row

from pytest_mlpatterns.serving.external.programs import Program
from pytest_mlpatterns.serving.external.supervisor import _ports_of
from pytest_mlpatterns.system import sockets
from pytest_mlpatterns.system.sockets import free_port, held_port

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems reserve no port among processes")


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


@LINUX
def test_the_port_of_a_program_is_none_that_the_system_gives_away() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    program = Program(("serve", "{port}", "{grpc_port}"), {"METRICS": "{metrics_port}"}, Path(), Path())
    ports = _ports_of(program, None)
    assert len({*ports.values()}) == 3
    assert not [port for port in ports.values() if low <= port <= high]


@LINUX
@pytest.mark.processes
def test_two_starters_at_once_get_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has two ports, which no program has bound yet; this one is made to look there first."""
    code = "from pytest_mlpatterns.system.sockets import free_port; print(free_port(), free_port()); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        taken = sorted(map(int, other.stdout.readline().split()))
        monkeypatch.setattr(sockets, "_lasting_ports", lambda: [*taken, taken[1] + 1])
        monkeypatch.setattr("os.urandom", bytes)
        assert free_port() not in taken
        other.communicate(b"\n")
    assert free_port() in taken


@each_row(
    ("given", "expected"),
    ("32768\t60999\n", range(61_000, 65_536)),
    ("32768 65000", range(20_000, 32_768)),
    ("1024 65535", range(0)),
    ("none", range(20_000, 32_768)),
)
def test_it_lies_beside_the_range_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: range
) -> None:
    (tmp_path / "range").write_text(given)
    monkeypatch.setattr(sockets, "_EPHEMERAL", tmp_path / "range")
    assert sockets._lasting_ports() == expected
    assert expected == range(0) or free_port() in expected


def test_where_all_ports_are_given_away_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_lasting_ports", lambda: range(0))
    assert len({free_port() for _ in range(3)}) == 3
