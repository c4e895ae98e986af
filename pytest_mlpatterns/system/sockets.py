"""Listening sockets of 127.0.0.1 that one process makes and another serves from. It must not know who they are."""

from __future__ import annotations

import socket

__all__ = ["BACKLOG", "held_port", "inherited_socket", "listening_socket"]

BACKLOG = 2048


def listening_socket() -> socket.socket:
    """A socket that listens on 127.0.0.1, on a port that the system chose.

    The protocol is named because asyncio sets TCP_NODELAY only then; without it an answer can wait 40 ms for the
    acknowledgement of the one before.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener


def held_port() -> socket.socket:
    """A socket that holds a port of 127.0.0.1 that the system chose, until a server that binds it itself listens there.

    It does not listen. The option lets that server, and nobody else's, bind the same port.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def inherited_socket(descriptor: int) -> socket.socket:
    """A socket of :func:`listening_socket` that another process handed down; its protocol is named here too."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=descriptor)
