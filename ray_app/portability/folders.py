"""Folders that hold tenants' vectors outside of the store: whole or not there, and their owner's alone."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ray_app.errors import ConflictError, InputError
from ray_app.store.file_copies import sync_folder


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder of mode 0700 to fill, which gets the name ``out`` when the block ends.

    Nothing has that name before, and nothing stays of a block that fails; a process that is killed
    leaves ``.<name>.<hex digits>.partial`` beside it.

    Raises:
        ConflictError: there is something of that name.
        InputError: it cannot be written.
    """
    if os.path.lexists(out):
        raise ConflictError(f"{out} exists.", hint="Name a folder that does not; nothing is overwritten.")
    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    with written(out):
        draft.mkdir(mode=0o700)
    try:
        yield draft
        with written(out):
            for folder, _, _ in os.walk(draft):
                sync_folder(Path(folder))
            draft.rename(out)
            sync_folder(out.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Raise InputError in place of an ``OSError`` of writing ``path``."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}.",
            hint="Name a folder on a disk with room, in one that exists and that you may write to.",
        ) from error


@contextmanager
def read_from(path: Path) -> Iterator[None]:
    """Raise InputError in place of an ``OSError`` of reading ``path``."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def create(path: Path) -> BinaryIO:
    """A new file of mode 0600, open for writing. Raises OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def digest(path: Path, *, sync: bool = False) -> str:
    """The file's SHA-256 in hexadecimal, with ``sync`` after it was forced to disk. Raises OSError."""
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(folder: Path, name: str) -> Path:
    """The path in ``folder`` of ``name``, a relative one. Raises InputError for one that leads out."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\x00" in name or "\\" in name:
        raise InputError(f"The manifest in {folder} names {name!r}, which is not in it.")
    return folder.joinpath(*parts)
