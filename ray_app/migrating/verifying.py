"""Whether a generation is fit to take over: every row compared, counts, and a sample searched for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from ray_app.db import dead_letters, ledger
from ray_app.db.generations import Generation
from ray_app.db.indexes import PinnedIndex
from ray_app.errors import ConfigError, ItemError
from ray_app.migrating.following import Follower
from ray_app.migrating.reports import Verification
from ray_app.planning import Target
from ray_app.prescan import BLOCK_ROWS
from ray_app.reading import RangeReader
from ray_app.store.port import Hit, IndexKey, VectorStore
from ray_app.text import render
from ray_app.workspace import Workspace

#: Times that what differs is brought up to date and compared again. Rows may change all the while; one that
#: differs every time is at fault.
ROUNDS: Final = 4
#: Records looked for among this many, and compared between the generations.
TOP: Final = 10
#: Times that ledger and store are counted until they agree: a record taken out meanwhile is in one of them.
COUNTS: Final = 5
#: How much a score may differ for being computed twice in 32 bits.
_TIE: Final = 1e-4


@dataclass
class Comparison:
    """All rows of a table compared with one generation."""

    rows: int = 0
    no_text: int = 0
    #: Records to write anew, and records to take out.
    differing: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


def compare(reader: RangeReader) -> Comparison:
    """Compare every row: by its hash as the server computes it, and by its text where that differs."""
    found, lo = Comparison(), None
    while True:
        page, lo = reader.hashes(lo, None)
        found.rows += len(page)
        unknown = [record for record, recognised in page if not recognised]
        for start in range(0, len(unknown), BLOCK_ROWS):
            for rows in reader.rows_of(unknown[start : start + BLOCK_ROWS]):
                diff = reader.compare(rows, *reader.lookup(rows))
                found.no_text += diff.no_text
                found.differing += [change.record_id for change in diff.changes]
                found.differing += [change.record_id for change in diff.refreshes]
                found.gone += diff.emptied
        if lo is None:
            break
    while True:
        gone, _, lo = reader.gone(lo, None)
        found.gone += gone
        if lo is None:
            return found


def verify(
    workspace: Workspace, store: VectorStore, follower: Follower, pinned: PinnedIndex, sample: int
) -> Verification:
    """Bring what differs up to date, then count, then search for ``sample`` records by their own text.

    Raises:
        ProviderUnavailable, StoreUnavailable, DatabaseUnavailable.
    """
    always: set[str] | None = None
    for _ in range(ROUNDS):
        found = compare(follower.reader)
        differing = {*found.differing, *found.gone}
        always = differing if always is None else always & differing
        if not differing:
            break
        follower.take(sorted(differing))
    target = follower.target
    records, points, stored, dead = _count(workspace, store, target)
    texts = _sample(workspace, target, sample)
    retrieved, overlap = _search(workspace, store, target, pinned, texts)
    return Verification(
        *(found.rows, found.no_text, dead, records, points, stored, len(always or ())),
        *(len(texts), retrieved, overlap),
    )


def _count(workspace: Workspace, store: VectorStore, target: Target) -> tuple[int, int, int, int]:
    """Records and points by the ledger, points by the store, open dead letters."""
    key = _key(target)
    where = (key.incarnation, key.table, key.vector_type, key.space_id)
    scope = workspace.registry.scope(target.reader.tenant)
    for attempt in range(COUNTS):
        with workspace.ledger.connect() as connection:
            points = ledger.point_count(connection, *where)
        stored = store.count(scope, target.reader.key)
        with workspace.ledger.connect() as connection:
            after = ledger.point_count(connection, *where)
            records = ledger.record_count(connection, *where)
            dead = dead_letters.count_open(connection, *where)
        if points == stored == after:
            break
        time.sleep(0.1 * attempt)
    return records, points, stored, dead


def _key(target: Target) -> Generation:
    return Generation.of(target.reader.tenant.incarnation, target.reader.index)


def _sample(workspace: Workspace, target: Target, size: int) -> dict[str, str]:
    """The first chunk of the texts of ``size`` records of the generation, the same ones every time."""
    reader, key = target.reader, _key(target)
    where = (key.incarnation, key.table, key.vector_type, key.space_id)
    with workspace.ledger.connect() as connection:
        ids = ledger.sample_records(connection, *where, size)
    with workspace.source.connect() as connection:
        rows = list(reader.source.read_ids(connection, reader.tenant.client_id, ids)) if ids else []
    texts = {row.record_id: render(reader.comparer.rule, row.values) for row in rows}
    pieces = reader.chunker.chunk([text or "" for text in texts.values()])
    return {record: chunks[0].text for record, chunks in zip(texts, pieces, strict=True) if chunks}


def _search(
    workspace: Workspace, store: VectorStore, target: Target, pinned: PinnedIndex, texts: dict[str, str]
) -> tuple[int, float | None]:
    """How many of ``texts`` find their own record; the share of the nearest that both generations name."""
    scope, new = workspace.registry.scope(target.reader.tenant), target.reader.key
    old = IndexKey(pinned.table, pinned.vector_type, pinned.space)
    retrieved, shares, compared = 0, 0.0, True
    for record, text in texts.items():
        try:
            vector = workspace.providers.provider_for(new.space).embed_query(text)
        except ItemError:
            continue  # a model may take a text as a document and refuse it as a query
        hits = store.search(scope, new, vector, limit=TOP)
        chunks = store.vectors_of(scope, new, record)
        own = float((chunks @ vector).max()) if len(chunks) else None
        retrieved += _found(record, own, hits)
        if compared:
            try:
                former = workspace.providers.provider_for(old.space).embed_query(text)
            except (ConfigError, ItemError):
                compared = False
                continue
            before = {hit.record_id for hit in store.search(scope, old, former, limit=TOP)}
            after = {hit.record_id for hit in hits}
            shares += len(before & after) / max(len(before), 1)
    return retrieved, round(shares / len(texts), 3) if compared and texts else None


def _found(record: str, own: float | None, hits: list[Hit]) -> bool:
    """Whether the record is among the hits, or as near as the last of them where many are alike."""
    if any(hit.record_id == record for hit in hits):
        return True
    return own is not None and len(hits) == TOP and own >= hits[-1].score - _TIE
