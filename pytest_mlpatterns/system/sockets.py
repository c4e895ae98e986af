"""Sockets that one process opens and another serves from."""

import errno
import itertools
import os
import socket
import sys
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_RANGE = (32_768, 65_535)  # Ephemeral ports of macOS and Windows, and of Linux as it is installed
_LOWEST, _ENOUGH = 20_000, 1_000  # Below are the ports of known services; fewer could all be taken
_reserved: set[int] = set()  # Ports that free_port gave

BACKLOG = 2048  # Connections that wait to be accepted: more than a load generator opens at once with its default limits


def listening_socket() -> socket.socket:
    """A socket that listens on a free port of 127.0.0.1.

    The protocol is given because asyncio sets TCP_NODELAY only then; without TCP_NODELAY a response can wait 40 ms for
    the acknowledgement of the previous one.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener


def held_port(host: str = "127.0.0.1", wanted: int = 0) -> socket.socket:
    """A socket that reserves a free port for a server that binds its port itself.

    It does not listen, so the system gives it no connection. Its port was free when it was bound: SO_REUSEPORT, which
    lets a server of the same user bind the port too, is set only afterwards. So no other socket of this function gets
    the port until this one is closed.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        try:
            holder.bind((host, wanted))
        except OSError:
            holder.bind((host, 0))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        holder.close()
        raise
    return holder


def free_port() -> int:
    """A free port of 127.0.0.1 for a server that binds it later, and may not share it.

    It lies outside the ephemeral ports, which the system gives to connections, unless no other port is free. This
    function gives a port once in a process. On Linux no other process gets it from this function either, until the
    process ends.
    """
    ports = _lasting_ports()
    first = int.from_bytes(os.urandom(4), "big") % max(len(ports), 1)
    for wanted in itertools.chain(ports[first:], ports[:first], itertools.repeat(0)):
        with socket.socket() as unused:
            try:
                unused.bind(("127.0.0.1", wanted))
            except OSError:
                if not wanted:
                    raise
                continue
            port: int = unused.getsockname()[1]
            if _reserve(port):
                return port
    raise AssertionError("the system has no end of ports")


def _lasting_ports() -> range:
    """The ports above the ephemeral ones, else the ports below; empty if there are none."""
    try:
        low, high = map(int, _EPHEMERAL.read_text().split())
    except (OSError, ValueError):
        low, high = _USUAL_RANGE
    above = range(high + 1, 65_536)
    return above if len(above) >= _ENOUGH else range(_LOWEST, max(low, _LOWEST))


def _reserve(port: int) -> bool:
    """Reserve a port among the callers of :func:`free_port`; False if it is reserved already.

    On Linux a socket with an abstract name reserves it in all processes. Such a name belongs to the network namespace,
    as the port does, makes no file, and ends with its process.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        try:
            if sys.platform == "linux":
                holder.bind(f"\0pytest-mlpatterns-port-{port}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
        if port in _reserved:
            return False
        _reserved.add(port)
        holder.detach()  # open until this process ends
        return True


def inherited_socket(descriptor: int) -> socket.socket:
    """The socket of a descriptor that was inherited from another process; the protocol is given here too."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=descriptor)
