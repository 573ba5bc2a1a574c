"""The files of an export looked through before anything of them is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ray_app.db.indexes import PinnedIndex
from ray_app.errors import InputError
from ray_app.portability import manifests
from ray_app.portability.exporting import describe
from ray_app.portability.folders import read_from
from ray_app.portability.manifests import ExportManifest, IndexEntry
from ray_app.portability.rows import schema_of


@dataclass(frozen=True)
class IndexFile:
    """One index in a file that was checked."""

    index: PinnedIndex
    path: Path
    #: How many records each row group has.
    groups: tuple[int, ...]


@dataclass(frozen=True)
class CheckedExport:
    manifest: ExportManifest
    #: SHA-256 of the manifest, and so, by the digests in it, of all that was exported.
    identity: str
    files: tuple[IndexFile, ...]


def check_export(folder: Path) -> CheckedExport:
    """Read the manifest and compare every file with it.

    Raises:
        InputError: the folder is no export, or a file is damaged or not one of an export.
    """
    manifest = manifests.read(folder, ExportManifest)
    with read_from(folder):
        identity = hashlib.sha256((folder / manifests.NAME).read_bytes()).hexdigest()
    files = tuple(_check(folder, entry) for entry in manifest.indexes)
    if len({(file.index.table, file.index.vector_type) for file in files}) < len(files):
        raise InputError(f"The manifest in {folder} names an index twice.")
    return CheckedExport(manifest, identity, files)


def _check(folder: Path, entry: IndexEntry) -> IndexFile:
    space = manifests.check_space(entry.space, entry.space_id)
    index = PinnedIndex(entry.table, entry.vector_type, space, entry.preference)
    path = manifests.check_file(folder, entry.file)
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(path, file.schema_arrow, index)
            groups = _groups(path, file)
            points = file.metadata.num_rows
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"{path} is not a Parquet file that can be read: {error}.") from error
    if (sum(groups), points) != (entry.records, entry.points):
        raise InputError(
            f"{path} has {sum(groups):,} records of {points:,} points; its manifest says"
            f" {entry.records:,} of {entry.points:,}."
        )
    return IndexFile(index, path, groups)


def _check_schema(path: Path, schema: pa.Schema, index: PinnedIndex) -> None:
    about = json.loads((schema.metadata or {}).get(b"rowbeam", b"{}"))
    if not schema.equals(schema_of(index.space)) or not describe(index).items() <= about.items():
        raise InputError(f"{path} does not hold the {index.vector_type} index of {index.table}.")


def _groups(path: Path, file: pq.ParquetFile) -> tuple[int, ...]:
    """The records of each row group; they ascend, each with all its chunks, and none is in two groups."""
    groups = []
    last: tuple[bytes, int] | None = None
    for number in range(file.num_row_groups):
        columns = file.read_row_group(number, ["record_id", "chunk"]).to_pydict()
        records = 0
        for record, chunk in zip(columns["record_id"], columns["chunk"], strict=True):
            here = (record.encode(), chunk)
            follows = last is not None and records > 0 and here == (last[0], last[1] + 1)
            if not follows and (chunk != 0 or (last is not None and last[0] >= here[0])):
                raise InputError(f"{path} has records that are not whole or not in order.")
            records += not follows
            last = here
        groups.append(records)
    return tuple(groups)
