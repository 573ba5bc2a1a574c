"""Edge shards on disk: made whole or not at all, opened by one process, closed when least used."""

from __future__ import annotations

import json
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

from qdrant_edge import EdgeConfig, EdgeShard

from ray_app.errors import StoreUnavailable
from ray_app.store.edge_files import (
    CONFIG_FILE,
    fresh_path,
    is_shard,
    is_unsettled,
    lock_path,
    settle,
    shards,
    swap,
)
from ray_app.store.edge_lock import OwnerLock
from ray_app.store.file_copies import copy_tree, sync_folder

#: Seconds to wait for another process to let go of a shard.
LOCK_WAIT: Final = 10.0
T = TypeVar("T")


class ShardPool:
    """At most ``max_open`` open shards under ``root``, one directory per space and tenant incarnation.

    ``upgrade`` is run on each shard that is opened, with its configuration as the engine wrote it.
    Calls run one at a time: the engine holds the interpreter's lock in every call anyway.
    """

    def __init__(
        self, root: Path, max_open: int, upgrade: Callable[[EdgeShard, Mapping[str, Any]], None]
    ) -> None:
        self.root = root
        self._upgrade = upgrade
        self._max_open = max_open
        self._open: OrderedDict[Path, tuple[EdgeShard, OwnerLock]] = OrderedDict()
        self._mutex = threading.RLock()

    def path(self, space_id: str, incarnation: UUID) -> Path:
        name = str(incarnation)
        return self.root / space_id / name[:2] / name

    @contextmanager
    def use(self, path: Path) -> Iterator[EdgeShard | None]:
        """The shard at ``path`` for one call, or None when there is none.

        Raises:
            StoreUnavailable: another process holds it, or the engine or the file system failed inside
                the block. The shard is then closed, to be read from disk again by the next call.
        """
        with self._mutex, self._translated(path):
            yield self._shard(path)

    def create(self, path: Path, config: EdgeConfig, prepare: Callable[[EdgeShard], None]) -> None:
        """Make a shard, run ``prepare`` on it and give it its name; nothing when it exists.

        A crash half way leaves a directory under another name, which ``erase`` removes.
        """
        with self._mutex, self._translated(path):
            # Under the mutex: another thread may have made and opened it, and holds its lock from then on.
            if is_shard(path):
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = OwnerLock.acquire(lock_path(path), wait=LOCK_WAIT)
            try:
                settle(path)
                if not is_shard(path):
                    self._build(path, config, prepare)
            finally:
                lock.release()

    def _build(self, path: Path, config: EdgeConfig, prepare: Callable[[EdgeShard], None]) -> None:
        fresh = fresh_path(path)
        shard = EdgeShard.create(str(fresh), config)
        try:
            prepare(shard)
            shard.flush()
        finally:
            shard.close()
        fresh.rename(path)
        sync_folder(path.parent)

    def erase(self, path: Path) -> None:
        """Remove the shard's files, leftovers of crashes included."""
        with self._mutex, self._translated(path):
            if not path.parent.is_dir():
                return
            self._close(path)
            lock = OwnerLock.acquire(lock_path(path), wait=LOCK_WAIT)
            try:
                for trace in path.parent.glob(f"{path.name}*"):
                    if trace != lock.path:
                        shutil.rmtree(trace)
                sync_folder(path.parent)
            except BaseException:
                lock.release()
                raise
            lock.release(remove=True)

    def copy(self, path: Path, target: Path, inspect: Callable[[EdgeShard], T]) -> T | None:
        """Copy the shard, flushed and closed, to a new folder; answers what ``inspect`` says of it.

        None, and no copy, when there is no shard. No call is served meanwhile.
        """
        with self._mutex, self._translated(path):
            shard = self._shard(path)
            if shard is None:
                return None
            about = inspect(shard)
            shard.flush()
            with self._closed(path), _writing(target):
                copy_tree(path, target)
            return about

    def replace(
        self,
        path: Path,
        fresh: Path,
        accept: Callable[[EdgeShard], None],
        permit: Callable[[EdgeShard | None], None] | None,
    ) -> None:
        """Put ``fresh``, made at a ``fresh_path`` of it, in the shard's place: all of it or nothing.

        ``accept`` is given the new shard and ``permit`` the present one, which without it is not even
        opened: it may be damaged. What they raise leaves all as it was.
        """
        with self._mutex, self._translated(path):
            if permit is not None:
                permit(self._shard(path))
            with self._translated(fresh):
                shard = self._load(fresh)
                try:
                    accept(shard)
                    shard.flush()
                finally:
                    shard.close()
            with self._closed(path):
                swap(path, fresh)

    @contextmanager
    def _closed(self, path: Path) -> Iterator[None]:
        """Keep the shard closed, here and in other processes."""
        shard, lock = self._open.pop(path, (None, None))
        lock = lock or OwnerLock.acquire(lock_path(path), wait=LOCK_WAIT)
        try:
            if shard is not None:
                shard.close()
            yield
        finally:
            lock.release()

    def names(self) -> Iterator[Path]:
        """Every shard on disk."""
        return shards(self.root)

    def close(self) -> None:
        with self._mutex:
            for path in list(self._open):
                self._close(path)

    def _shard(self, path: Path) -> EdgeShard | None:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path][0]
        if not is_shard(path) and not is_unsettled(path):
            return None
        while len(self._open) >= self._max_open:
            self._close(next(iter(self._open)))
        lock = OwnerLock.acquire(lock_path(path), wait=LOCK_WAIT)
        try:
            settle(path)
            # Looked at again under the lock: its last owner may have erased it.
            if not is_shard(path):
                lock.release(remove=True)
                return None
            shard = self._load(path)
        except BaseException:
            lock.release()
            raise
        self._open[path] = (shard, lock)
        return shard

    def _load(self, path: Path) -> EdgeShard:
        shard = EdgeShard.load(str(path))
        try:
            self._upgrade(shard, json.loads((path / CONFIG_FILE).read_bytes()))
        except BaseException:
            shard.close()
            raise
        return shard

    def _close(self, path: Path) -> None:
        shard, lock = self._open.pop(path, (None, None))
        if shard is not None and lock is not None:
            try:
                shard.close()
            finally:
                lock.release()

    @contextmanager
    def _translated(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(
                f"The vectors in {path} cannot be read or written: {error.strerror or error}.",
                hint=_advice(self.root),
            ) from error
        except Exception as error:
            # The engine raises Exception itself and nothing narrower; any subclass is a defect of ours.
            if type(error) is not Exception:
                raise
            self._discard(path)
            raise StoreUnavailable(
                f"Qdrant Edge failed in {path}: {error}", hint=_advice(self.root)
            ) from error

    def _discard(self, path: Path) -> None:
        """Close a shard that failed; that closing it may fail too adds nothing to the first error."""
        try:
            self._close(path)
        except Exception as error:
            if type(error) is not Exception:
                raise


def _advice(root: Path) -> str:
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(there).free // 2**20
    return f"Check that {root} can be written ({free} MB free on its disk)."


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"Vectors cannot be copied to {target}: {error.strerror or error}.",
            hint="Free disk space there, or name another folder.",
        ) from error
