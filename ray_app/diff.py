"""What has to happen to a record: compare a row's text with what the ledger says is embedded. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ray_app.db.source import Recipe, SourceRow
from ray_app.reports import Counts
from ray_app.spaces import EmbeddingSpace
from ray_app.store.port import DataChange
from ray_app.tables import TextRule
from ray_app.text import RENDERING, content_hash, data_hash, microseconds, payload_of, render


@dataclass(frozen=True)
class LedgerEntry:
    """What the ledger knows of one record's vectors. A hash is None when its chunks disagree."""

    content_hash: str | None
    data_hash: str | None
    chunks: int
    #: The embedded row's own time, microseconds since 1970, when it had one that can be believed.
    updated_at: int | None = None


@dataclass(frozen=True)
class Change:
    """A record whose text must be embedded."""

    record_id: str
    text: str
    content_hash: str
    data: Mapping[str, Any]
    #: Chunks the ledger has of its former text.
    old_chunks: int
    #: The row's own time, microseconds since 1970, when it has one.
    updated_at: int | None = None
    row_hash: str | None = None


@dataclass(frozen=True)
class Sighting:
    """A row from which its record's vectors and payload would be made as they are."""

    record_id: str
    content_hash: str
    data_hash: str
    row_hash: str


@dataclass
class Diff:
    """Outcomes of some rows."""

    changes: list[Change] = field(default_factory=list)
    #: Records whose vectors stay while their payload columns have changed; counted as unchanged or dead.
    refreshes: list[DataChange] = field(default_factory=list)
    #: Records with vectors and no text any more, with the number of their chunks.
    emptied: dict[str, int] = field(default_factory=dict)
    #: Of unchanged records, where their rows were hashed.
    sightings: list[Sighting] = field(default_factory=list)
    unchanged: int = 0
    #: Records of which a newer state is embedded already; counted as unchanged.
    older: int = 0
    no_text: int = 0
    #: Records that failed before with this very text; only a redrive tries them again.
    dead: int = 0

    @property
    def counts(self) -> Counts:
        """Outcomes so far; ``embedded`` and ``chunks`` are for the encoder to add."""
        return Counts(
            read=len(self.changes)
            + len(self.emptied)
            + self.unchanged
            + self.older
            + self.no_text
            + self.dead,
            unchanged=self.unchanged + self.older,
            no_text=self.no_text,
            dead=self.dead,
            deleted=len(self.emptied),
        )

    def add(self, other: Diff) -> None:
        """Take in the outcomes of further rows."""
        self.changes += other.changes
        self.refreshes += other.refreshes
        self.emptied |= other.emptied
        self.sightings += other.sightings
        self.unchanged += other.unchanged
        self.older += other.older
        self.no_text += other.no_text
        self.dead += other.dead

    @property
    def clean(self) -> bool:
        """Whether nothing has to be written."""
        return not self.changes and not self.refreshes and not self.emptied


@dataclass(frozen=True)
class Comparer:
    """Compares rows of one index with the ledger."""

    rule: TextRule
    payload: Sequence[str]
    space: EmbeddingSpace
    chunker_id: str
    updated_column: str | None = None

    @cached_property
    def recipe(self) -> Recipe:
        """A row's time is no part of it: whether a text is embedded is never decided by that alone."""
        made = (
            *(RENDERING, self.space.space_id, self.chunker_id),
            *(self.rule.mode, self.rule.columns, tuple(self.payload)),
        )
        salt = hashlib.sha256(json.dumps(made).encode()).hexdigest()
        return Recipe(tuple(dict.fromkeys((*self.rule.columns, *self.payload))), salt)

    def compare(
        self, rows: Iterable[SourceRow], known: Mapping[str, LedgerEntry], dead: Mapping[str, str]
    ) -> Diff:
        """``known`` and ``dead`` (record id to content hash) come from the ledger."""
        diff = Diff()
        for row in rows:
            self._place(row, known.get(row.record_id), dead.get(row.record_id), diff)
        return diff

    def _place(self, row: SourceRow, entry: LedgerEntry | None, dead: str | None, diff: Diff) -> None:
        updated_at = microseconds(row.values.get(self.updated_column)) if self.updated_column else None
        newest = entry.updated_at if entry else None
        if updated_at is not None and newest is not None and updated_at < newest:
            diff.older += 1
            return
        text = render(self.rule, row.values)
        if text is None:
            if entry:
                diff.emptied[row.record_id] = entry.chunks
            else:
                diff.no_text += 1
            return
        digest = content_hash(text, self.space, self.chunker_id)
        data = payload_of(self.payload, row.values)
        if entry and entry.content_hash == digest:
            diff.unchanged += 1
        elif dead == digest:
            diff.dead += 1
        else:
            old = entry.chunks if entry else 0
            diff.changes.append(Change(row.record_id, text, digest, data, old, updated_at, row.row_hash))
            return
        # A dead record too: the vectors of its former text are still found and filtered.
        payload_hash = data_hash(data)
        if entry and entry.data_hash != payload_hash:
            diff.refreshes.append(DataChange(row.record_id, entry.chunks, data))
        elif entry and entry.content_hash == digest and row.row_hash is not None:
            diff.sightings.append(Sighting(row.record_id, digest, payload_hash, row.row_hash))
