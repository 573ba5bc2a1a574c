"""Copies of directory trees for their owner's eyes alone, holes kept: an engine's files are mostly holes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BLOCK: Final = 1 << 20
#: What a file system answers that does not tell where holes are.
_NO_HOLES: Final = (errno.EINVAL, errno.EOPNOTSUPP)


def copy_tree(source: Path, target: Path) -> None:
    """Copy the folders and plain files of ``source`` to ``target``, which must not exist yet.

    Raises OSError, also for a link or a device among them.
    """
    target.mkdir(mode=0o700)
    for entry in os.scandir(source):
        if entry.is_dir(follow_symlinks=False):
            copy_tree(source / entry.name, target / entry.name)
        else:
            copy_file(source / entry.name, target / entry.name)


def copy_file(source: Path, target: Path) -> None:
    """Copy a plain file to a new one of mode 0600. Raises OSError."""
    read = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        about = os.fstat(read)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "Not a plain file", str(source))
        write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for start, end in _extents(read, about.st_size):
                _copy_range(read, write, start, end)
            os.ftruncate(write, about.st_size)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are not holes, as [start, end)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            if error.errno not in _NO_HOLES:
                raise
            start, end = end, size
        yield start, min(end, size)


def _copy_range(read: int, write: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(read, min(_BLOCK, end - start), start)
        if not data:
            raise OSError(errno.EIO, "The file became shorter while it was copied")
        start += os.pwrite(write, data, start)


def sync_folder(path: Path) -> None:
    """Make names that were given, changed or taken away in a folder survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
