"""A real Redis of a test's own, with a password."""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port
from tests.support.tools import tool
from tests.support.waiting import wait_for


@dataclass(frozen=True)
class Redis:
    """Where it listens, and what it asks for."""

    port: int
    password: str
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def redis_server(folder: Path) -> Iterator[Redis]:
    """Runs while the block does, on loopback, its files in ``folder``."""
    program = tool("redis-server")
    port, password = free_port(), secrets.token_hex(16)
    # Not on the command line, which everybody on the machine can read.
    config = f"port {port}\nbind 127.0.0.1\nrequirepass {password}\ndir {folder}\nsave ''\nappendonly yes\n"
    process = subprocess.Popen([program, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert process.stdin is not None
        process.stdin.write(config.encode())
        process.stdin.close()
        wait_for(lambda: _answers(port, process))
        yield Redis(port, password, process)
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"redis-server ended with status {process.returncode}"
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False
