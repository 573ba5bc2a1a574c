"""``manifest.json``: what a folder of an export or of a backup holds, and by what to check it."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ray_app.errors import InputError
from ray_app.portability.folders import create, digest, inside, read_from, written
from ray_app.spaces import EmbeddingSpace, Preference, VectorType

NAME: Final = "manifest.json"
#: A manifest lists some fifty files for each shard; one of a thousand tenants has a few megabytes.
_MAX_BYTES: Final = 256 * 1024 * 1024


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Part):
    """A file, by its path in the folder."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class SpaceEntry(_Part):
    """``EmbeddingSpace.to_json``."""

    model: str
    revision: str
    dimensions: int = Field(gt=0)
    normalized: bool
    document_prefix: str
    query_prefix: str
    max_tokens: int

    @property
    def space(self) -> EmbeddingSpace:
        return EmbeddingSpace.from_json(self.model_dump())

    @classmethod
    def of(cls, space: EmbeddingSpace) -> SpaceEntry:
        return cls.model_validate(space.to_json())


class IndexEntry(_Part):
    """One index of an export."""

    table: str = Field(min_length=1)
    vector_type: VectorType
    space: SpaceEntry
    space_id: str
    preference: Preference
    records: int = Field(ge=0)
    points: int = Field(ge=0)
    #: Records of the ledger that were out of step with their points, and are not in the file.
    left_out: int = Field(ge=0)
    file: FileEntry


class ExportManifest(_Part):
    """One tenant's indexes as Parquet files."""

    format: Literal["rowbeam-export"] = "rowbeam-export"
    format_version: Literal[1] = 1
    created_at: datetime
    software: str
    tenant: str
    #: The source's incarnation of the tenant.
    incarnation: UUID
    indexes: tuple[IndexEntry, ...]


class ShardEntry(_Part):
    """One tenant's shard of one space, a folder of a backup."""

    tenant: str
    incarnation: UUID
    space: SpaceEntry
    space_id: str
    folder: str
    points: int = Field(ge=0)
    #: Paths in ``folder``; some that the engine needs are empty.
    folders: tuple[str, ...]
    files: tuple[FileEntry, ...]


class BackupManifest(_Part):
    """Shards of the embedded store."""

    format: Literal["rowbeam-backup"] = "rowbeam-backup"
    format_version: Literal[1] = 1
    created_at: datetime
    software: str
    #: The engine's version.
    edge: str
    shards: tuple[ShardEntry, ...]


Manifest = TypeVar("Manifest", ExportManifest, BackupManifest)


def software() -> str:
    return f"rowbeam {version('rowbeam')}"


def write(folder: Path, manifest: ExportManifest | BackupManifest) -> None:
    """Raises InputError."""
    with written(folder), create(folder / NAME) as file:
        file.write(manifest.model_dump_json(indent=2).encode() + b"\n")
    with written(folder):
        digest(folder / NAME, sync=True)


def read(folder: Path, kind: type[Manifest]) -> Manifest:
    """The manifest of an export or a backup.

    Raises:
        InputError: there is none, or it is of something else, or of a version that this one cannot read.
    """
    path = folder / NAME
    what = "an export" if kind is ExportManifest else "a backup"
    with read_from(path):
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large to be the manifest of {what}.")
        text = path.read_bytes()
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first: dict[str, Any] = dict(error.errors(include_input=False, include_url=False)[0])
        where = ".".join(map(str, first["loc"])) or "its text"
        raise InputError(
            f"{path} is not the manifest of {what} that {software()} can read: {where}: {first['msg']}.",
            hint="Name a folder that rowbeam export or rowbeam backup made, or use the version that did.",
        ) from error


def check_file(folder: Path, entry: FileEntry) -> Path:
    """The file that ``entry`` describes, found to be as it was written.

    Raises:
        InputError: it is missing, or is another one.
    """
    path = inside(folder, entry.path)
    with read_from(path):
        if path.is_symlink() or not path.is_file():
            raise InputError(f"{path} is missing, or is not a plain file.")
        same = path.stat().st_size == entry.bytes and digest(path) == entry.sha256
    if not same:
        raise InputError(
            f"{path} is not as it was written: its size or SHA-256 differs from the manifest's.",
            hint="Copy it again from where it came from. Nothing was changed.",
        )
    return path


def check_space(entry: SpaceEntry, space_id: str) -> EmbeddingSpace:
    """Raises InputError where the id is not the space's."""
    space = entry.space
    if space.space_id != space_id:
        raise InputError(f"The manifest calls the space of {space.model} {space_id}; it is {space.space_id}.")
    return space
