"""Ports for servers that are about to start."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Final

_LOOPBACK: Final = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on, on any address, and that the system gives to nobody else yet.

    A connection was accepted and closed on each, so the system keeps it in TIME_WAIT (60 s on Linux). Until
    then it is neither handed out to a socket that asks for any port nor to an outgoing connection; a server
    that asks for it by number and sets SO_REUSEADDR, as servers do, gets it. Without that, what starts a
    server's own helpers, on any port, can take one before the server does.

    Raises:
        OSError: no port is free.
    """
    with ExitStack() as stack:
        chosen = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("", 0))
            # Only now, or the system may choose a port that is kept for somebody else; it has to be set on
            # what stays in TIME_WAIT too.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port = int(listener.getsockname()[1])
            listener.listen(1)
            with socket.create_connection((_LOOPBACK, port)), listener.accept()[0]:
                pass  # the accepted end is closed first: TIME_WAIT is on the side that closes first
            chosen.append(port)
        return chosen


def free_port() -> int:
    """One of them."""
    (port,) = free_ports(1)
    return port
