"""How Edge shards lie on disk: their names, and what a crash can leave beside them."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ray_app.store.file_copies import sync_folder

#: Its presence says that a folder is a shard: it is written before the shard gets its name.
CONFIG_FILE: Final = "edge_config.json"
#: Ends the name of a shard that is being made, and of one that another is taking the place of.
_FRESH: Final = "new"
_FORMER: Final = "old"


@dataclass(frozen=True)
class SavedShard:
    """A shard that was copied."""

    points: int
    #: Seconds for which it answered nobody.
    held: float


def is_shard(path: Path) -> bool:
    return (path / CONFIG_FILE).is_file()


def shards(root: Path) -> Iterator[Path]:
    """Every shard under ``root``."""
    folders = (config.parent for config in root.glob(f"*/??/*/{CONFIG_FILE}"))
    return (folder for folder in folders if not folder.suffix)


def lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def fresh_path(path: Path) -> Path:
    """Where to make a shard that is to be at ``path``: a crash there leaves nothing that is taken for one."""
    return _beside(path, _FRESH)


def _beside(path: Path, end: str) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.{end}")


def swap(path: Path, fresh: Path) -> None:
    """Under the shard's lock, put ``fresh`` in its place. A crash leaves what ``settle`` makes whole."""
    settle(path)
    former = _beside(path, _FORMER)
    if is_shard(path):
        path.rename(former)
    fresh.rename(path)
    sync_folder(path.parent)
    if former.exists():
        shutil.rmtree(former)


def is_unsettled(path: Path) -> bool:
    """Whether a swap of this shard was cut off."""
    return next(_formers(path), None) is not None


def settle(path: Path) -> None:
    """Under the shard's lock, end a swap that was cut off: a shard that lost its name gets it back."""
    for former in list(_formers(path)):
        if is_shard(path):
            shutil.rmtree(former)
        else:
            former.rename(path)
            sync_folder(path.parent)


def _formers(path: Path) -> Iterator[Path]:
    return path.parent.glob(f"{path.name}.*.{_FORMER}")
