"""Folders, files and locks that several processes share, and what their errors mean to a person."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ray_app.errors import DependencyError

_POLL_SECONDS: Final = 0.01
#: Longest root of a temporary folder: Ray adds 64 bytes below ours, and a socket's path holds 107 (unix(7)).
_LONGEST_ROOT: Final = 24
_NO_PERMISSION: Final = (
    "Allow this user to write there, or set ROWBEAM_HOME to a folder that it can write to."
)
_NOT_A_FOLDER: Final = "A file is where a folder should be: move it, or set ROWBEAM_HOME to another folder."
DISK_FULL: Final = "The disk is full: free some space, or set ROWBEAM_HOME to a folder on another disk."
_HINTS: Final = {
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: _NO_PERMISSION,
    errno.ENOTDIR: _NOT_A_FOLDER,
    errno.EEXIST: _NOT_A_FOLDER,
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
}


@contextmanager
def os_errors_as(kind: type[DependencyError], doing: str) -> Iterator[None]:
    """Raise ``kind`` in place of an ``OSError``, naming the path and what to do about it."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        reason = error.strerror or type(error).__name__
        raise kind(f"{doing} failed: {reason}{where}.", hint=_HINTS.get(error.errno or 0)) from error


def private_folder(path: Path) -> Path:
    """Make ``path``, open to nobody but its owner, and what is above it. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace ``path``'s content at once: readers see the old text or the new. Raises OSError."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # created 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def short_folder(prefix: str) -> Path:
    """A new folder of this user's alone whose path leaves room for a socket's name. Raises OSError."""
    root = tempfile.gettempdir()
    if len(os.fsencode(root)) > _LONGEST_ROOT:
        root = "/tmp"  # noqa: S108 - the configured folder is too long; mkdtemp makes a new private one
    return Path(tempfile.mkdtemp(prefix=prefix, dir=root))


@contextmanager
def exclusive(path: Path, *, wait: float) -> Iterator[None]:
    """Hold the lock file ``path`` alone; the kernel frees it however the process ends.

    Raises:
        TimeoutError: another process held it for ``wait`` seconds.
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds the lock", str(path))
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


class SharedLock:
    """One holder of a lock file that many may hold together.

    Every instance opens the file anew: locks belong to an opening, so that several holders in one
    process count as several, and a descriptor given to a child keeps the child's hold alone.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError, BlockingIOError among them when somebody holds the file exclusively."""
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BaseException:
            os.close(self.descriptor)
            raise

    def take_alone(self) -> bool:
        """Whether this is the only holder; if so it holds the file exclusively from here on.

        Turning a lock from shared to exclusive is not atomic (flock(2)), and a failed attempt may
        lose the shared one: ask only on the way out, and while newcomers are kept waiting.
        """
        return _try_lock(self.descriptor, fcntl.LOCK_EX)

    def close(self) -> None:
        os.close(self.descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
