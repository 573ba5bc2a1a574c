"""What pushed rows need: compared with the ledger, and the changed texts cut into chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, Engine

from ray_app.db import dead_letters, ledger
from ray_app.db.source import SourceRow
from ray_app.diff import Change, LedgerEntry
from ray_app.errors import TooLarge
from ray_app.records.rows import PushedRow
from ray_app.store.port import DataChange
from ray_app.text import Chunk, microseconds
from ray_app.workspace import IndexReader


class Outcome(StrEnum):
    """What became of a record in one index."""

    EMBEDDED = "embedded"
    #: Its text is embedded already; payload columns that differed were replaced.
    UNCHANGED = "unchanged"
    #: A newer state of the row is embedded already.
    OLDER = "older"
    #: The row has no text for this vector type; vectors of a former one are gone.
    NO_TEXT = "no_text"
    #: The model refuses its text; vectors of a former one stay.
    DEAD = "dead"
    #: The row is not active; its vectors are gone.
    DELETED = "deleted"


@dataclass(frozen=True)
class Verdict:
    """What one row needs, given what the ledger knows of it; EMBEDDED asks for vectors."""

    outcome: Outcome
    #: The row's own time, microseconds since 1970.
    updated_at: int | None
    change: Change | None = None
    refresh: DataChange | None = None
    #: Chunks to delete, numbered from 0.
    drops: int = 0


def judge(reader: IndexReader, pushed: PushedRow, entry: LedgerEntry | None, dead: str | None) -> Verdict:
    """``dead`` is the content hash of the record's open dead letter."""
    record, updated = pushed.record_id, reader.comparer.updated_column
    time = pushed.row.values.get(updated) if updated else None
    # A row that is not active is one without text, and may be older than what is known like any other.
    row = pushed.row if pushed.active else SourceRow(record, {updated: time} if updated else {})
    diff = reader.comparer.compare(
        [row], {record: entry} if entry else {}, {record: dead} if dead is not None else {}
    )
    if diff.changes:
        outcome = Outcome.EMBEDDED
    elif diff.older:
        outcome = Outcome.OLDER
    elif diff.emptied or diff.no_text:
        outcome = Outcome.NO_TEXT if pushed.active else Outcome.DELETED
    else:
        outcome = Outcome.DEAD if diff.dead else Outcome.UNCHANGED
    return Verdict(
        outcome,
        microseconds(time),
        change=diff.changes[0] if diff.changes else None,
        refresh=diff.refreshes[0] if diff.refreshes else None,
        drops=diff.emptied.get(record, 0),
    )


@dataclass(frozen=True)
class Wanted:
    """A record to embed: its chunks are ``texts[first : first + len(chunks)]`` of its index."""

    change: Change
    chunks: Sequence[Chunk]
    first: int


@dataclass
class IndexUpsert:
    """The rows of one request in one index, with the texts to embed for it."""

    reader: IndexReader
    rows: Sequence[PushedRow]
    wanted: dict[str, Wanted] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    #: Of each text, as the chunker counts.
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """What the ledger knows of some records of one index."""

    entries: Mapping[str, LedgerEntry]
    #: Content hashes of open dead letters.
    dead: Mapping[str, str]


def look_up(
    connection: Connection, incarnation: UUID, reader: IndexReader, rows: Sequence[PushedRow]
) -> Known:
    index = reader.index
    where = (incarnation, index.table, index.vector_type, index.space.space_id)
    ids = [row.record_id for row in rows]
    return Known(ledger.entries(connection, *where, ids), dead_letters.open_hashes(connection, *where, ids))


def plan_index(
    ledger_: Engine, reader: IndexReader, rows: Sequence[PushedRow], max_record_tokens: int
) -> IndexUpsert:
    """Compare ``rows`` with the ledger and cut the texts that have changed. Writes nothing.

    Raises:
        TooLarge: a row's text has more than ``max_record_tokens`` tokens; ``param`` names the row.
        DatabaseUnavailable: Postgres cannot be reached.
    """
    with ledger_.connect() as connection:
        known = look_up(connection, reader.tenant.incarnation, reader, rows)
    places: dict[str, int] = {}
    changes: list[Change] = []
    for row in rows:
        verdict = judge(reader, row, known.entries.get(row.record_id), known.dead.get(row.record_id))
        if verdict.change is not None:
            changes.append(verdict.change)
            places[row.record_id] = row.place
    plan = IndexUpsert(reader, rows)
    pieces = reader.chunker.chunk([change.text for change in changes])
    for change, chunks in zip(changes, pieces, strict=True):
        tokens = [chunk.tokens for chunk in chunks]
        if sum(tokens) > max_record_tokens:
            place = places[change.record_id]
            raise TooLarge(
                f"The text of row {place} has {sum(tokens)} tokens; {max_record_tokens} is the most.",
                hint="Shorten it, or leave it to a backfill. Nothing was written.",
                param=f"records[{place}]",
            )
        plan.wanted[change.record_id] = Wanted(change, chunks, len(plan.texts))
        plan.texts += [chunk.text for chunk in chunks]
        plan.tokens += tokens
    return plan
