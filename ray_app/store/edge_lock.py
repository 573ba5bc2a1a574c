"""One process owns an Edge shard: a lock file beside its directory, which also says who the owner is.

The engine locks its log too, but says neither who holds it nor, in a way a program can rely on,
that being held was the trouble.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from ray_app.errors import StoreUnavailable

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5


class OwnerLock:
    """An exclusive lock on ``path`` that ends with the process, however it ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path, *, wait: float) -> OwnerLock:
        """Take the lock, waiting up to ``wait`` seconds for another holder to let go.

        Raises:
            StoreUnavailable: it is still held; the message names the process.
            OSError: the file cannot be made.
        """
        deadline = time.monotonic() + wait
        pause = _FIRST_PAUSE
        while True:
            lock = cls._try(path)
            if lock is not None:
                return lock
            if time.monotonic() >= deadline:
                raise StoreUnavailable(
                    f"The vectors in {path.with_suffix('')} are in use by process {_holder(path)}.",
                    hint="Wait until it ends, or stop it; one process at a time can open them.",
                )
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    @classmethod
    def _try(cls, path: Path) -> OwnerLock | None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # An owner that erased its tenant removed the file: then the lock just taken guards nothing.
            if os.fstat(descriptor).st_ino != path.stat().st_ino:
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return cls(path, descriptor)

    def release(self, *, remove: bool = False) -> None:
        """Let go; ``remove`` takes the file away as well, while it is still locked."""
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii") or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"
