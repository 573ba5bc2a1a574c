"""What is wrong with a record, told from its row, its ledger rows and its points. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from ray_app.db.audits import LedgerPoint
from ray_app.diff import Diff
from ray_app.store.port import StoredPoint

#: Points of one slice, about: what is read when a digest differs.
SLICE_POINTS: Final = 2_000
_MOST_BITS: Final = 16


class Kind(StrEnum):
    """What is wrong."""

    #: The row has text, and the ledger or the store lacks its vectors.
    MISSING = "missing"
    #: Its vectors or payload are of another state of the row than the one that is there.
    STALE = "stale"
    #: Vectors, or the ledger's record of them, without a row.
    ORPHAN = "orphan"
    #: More points than the record's text has chunks.
    DUPLICATE = "duplicate"
    #: A point of another tenant among this one's.
    WRONG_TENANT = "wrong tenant"
    #: Points or ledger rows in a space that the index is not in.
    WRONG_SPACE = "wrong space"


class Cause(StrEnum):
    """Which comparison shows it; each finding is counted by that one alone."""

    ROW = "row"
    GONE = "gone"
    STORE = "store"


@dataclass(frozen=True)
class Verdict:
    """What is wrong with one record."""

    kind: Kind
    cause: Cause
    #: Chunks of which ledger and store say different things.
    chunks: tuple[int, ...]
    #: The greatest version among what there is of the record; 0 when there is nothing.
    version: int


def judge(diff: Diff | None, ledger: Sequence[LedgerPoint], stored: Sequence[StoredPoint]) -> Verdict | None:
    """``diff`` is of the record's row alone, None when there is no row; None when all is well."""
    known = {point.chunk: point for point in ledger}
    there = {point.chunk: point for point in stored}
    chunks = tuple(
        sorted(chunk for chunk in known.keys() | there.keys() if differs(known.get(chunk), there.get(chunk)))
    )
    found = _by_row(diff, bool(known), bool(there)) or _by_store(known, there, chunks)
    if found is None:
        return None
    versions = [point.version for point in ledger] + [point.version for point in stored]
    return Verdict(*found, chunks, max(versions, default=0))


def _by_row(diff: Diff | None, known: bool, there: bool) -> tuple[Kind, Cause] | None:
    """What a look at the row tells."""
    if diff is None or diff.no_text or diff.emptied:
        if not known and not there:
            return None
        if not known:
            return Kind.ORPHAN, Cause.STORE
        return Kind.ORPHAN, Cause.GONE if diff is None else Cause.ROW
    if diff.changes:
        return Kind.STALE if known else Kind.MISSING, Cause.ROW
    return (Kind.STALE, Cause.ROW) if diff.refreshes else None


def _by_store(
    known: Mapping[int, LedgerPoint], there: Mapping[int, StoredPoint], chunks: Sequence[int]
) -> tuple[Kind, Cause] | None:
    """What a look at the points tells of a record whose row is as the ledger says."""
    if not chunks:
        return None
    if known.keys() - there.keys():
        return Kind.MISSING, Cause.STORE
    if any(chunk in known for chunk in chunks):
        return Kind.STALE, Cause.STORE
    return Kind.DUPLICATE if known else Kind.ORPHAN, Cause.STORE


def differs(known: LedgerPoint | None, there: StoredPoint | None) -> bool:
    """Whether ledger and store disagree on a chunk.

    A point older than its ledger row is right where its payload is: a row that was touched, its text and
    columns the same, advances in the ledger alone.
    """
    if known is None or there is None:
        return known is not None or there is not None
    if known.content_hash != there.content_hash or there.version > known.version:
        return True
    return there.version < known.version and there.data_hash != known.data_hash


def slice_bits(points: int) -> int:
    """How many leading bits of a point's id name its slice, so that one holds about ``SLICE_POINTS``."""
    return min(max((points // SLICE_POINTS).bit_length(), 0), _MOST_BITS)


def slice_bounds(number: int, bits: int) -> tuple[UUID, UUID]:
    """The least and the greatest id of a slice."""
    width = 128 - bits
    return UUID(int=number << width), UUID(int=((number + 1) << width) - 1)


def slice_of(point_id: UUID, bits: int) -> int:
    """The slice that a point is in."""
    return point_id.int >> (128 - bits)
