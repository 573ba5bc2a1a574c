"""Ports for servers that a test starts."""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack, suppress

#: Below those that Linux hands out by itself (from 32768), one of which a process may get before the server
#: listens on it.
_FIRST = 10_000
#: Ports of one test process, so that two which run side by side do not choose the same.
_SHARE = 5_500


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now, on any address."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    first = _FIRST + worker * _SHARE
    found: list[int] = []
    with ExitStack() as probes:
        for port in random.sample(range(first, first + _SHARE), _SHARE):
            if len(found) == count:
                break
            probe = probes.enter_context(socket.socket())
            with suppress(OSError):  # somebody's
                probe.bind(("0.0.0.0", port))  # noqa: S104 - listens to nobody
                found.append(port)
    assert len(found) == count, "no ports are free"
    return found


def free_port() -> int:
    """One of them."""
    (port,) = free_ports(1)
    return port
