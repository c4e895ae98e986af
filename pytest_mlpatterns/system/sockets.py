"""Sockets that one process opens and another serves from."""

from __future__ import annotations

import socket

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


def inherited_socket(descriptor: int) -> socket.socket:
    """The socket of a descriptor that was inherited from another process; the protocol is given here too."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=descriptor)
