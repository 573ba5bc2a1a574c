"""A part: the rows of one piece of a key range on their way from table to index.

One part is one row of a Ray Data block, so Ray can never tear it. The reader fills in texts, the
encoder turns them into vectors, the writer stores it whole, in one ledger transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_app.reports import Counts
from ray_app.store.port import DataChange


@dataclass(frozen=True)
class PartKey:
    """Which piece of which range, read in which run of the job: keys in (lo, hi] as text."""

    job_id: str
    run: int
    seq: int
    lo: str | None
    hi: str | None


@dataclass(frozen=True)
class Fault:
    """A record that could not be embedded."""

    record_id: str
    content_hash: str
    stage: str
    error_class: str
    message: str


@dataclass(frozen=True)
class Part:
    """Chunk i is row i of the seven lists and of ``vectors``."""

    key: PartKey
    table: str
    vector_type: str
    space_id: str
    #: As ``db.clock.next_version`` gave it before the read.
    version: int
    counts: Counts
    record_ids: list[str] = field(default_factory=list)
    chunk_numbers: list[int] = field(default_factory=list)
    #: Whole chunk texts.
    texts: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    data: list[Mapping[str, Any]] = field(default_factory=list)
    #: The rows' own times, microseconds since 1970.
    updated_at: list[int | None] = field(default_factory=list)
    #: ``SourceRow.row_hash`` in hexadecimal; empty for rows that were not read from a table.
    row_hashes: list[str | None] = field(default_factory=list)
    #: Points to delete, as (record id, chunk): of records gone, and tails of records that became shorter.
    drops: list[tuple[str, int]] = field(default_factory=list)
    #: Records that get new payload columns and keep their vectors.
    refreshes: list[DataChange] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    #: Tokens as the chunker counted them, before a provider has.
    estimated_tokens: int = 0
    provider: str = ""
    tokens: int = 0
    cost: Decimal = Decimal(0)
    #: Time the provider took.
    seconds: float = 0.0
    #: float32 of shape (chunks, dimensions); None before encoding.
    vectors: npt.NDArray[np.float32] | None = None

    def encoded(
        self,
        vectors: npt.NDArray[np.float32],
        faults: list[Fault],
        *,
        provider: str,
        tokens: int,
        cost: Decimal,
        seconds: float,
        sent: Set[int],
    ) -> Part:
        """The part with ``vectors`` for its texts, without the records named in ``faults``.

        ``sent`` are the places of the texts that the provider was given.
        """
        bad = {fault.record_id for fault in faults}
        # A dead record keeps its former vectors, tail included, until it can be embedded.
        left = replace(self, vectors=vectors).without(bad)
        counts = replace(
            self.counts,
            embedded=len(set(left.record_ids)),
            dead=self.counts.dead + len(bad),
            chunks=len(left.record_ids),
            reused=sum(
                place not in sent and record not in bad for place, record in enumerate(self.record_ids)
            ),
        )
        return replace(
            left,
            counts=counts,
            faults=[*self.faults, *faults],
            provider=provider,
            tokens=tokens,
            cost=cost,
            seconds=seconds,
        )

    def without(self, records: Set[str]) -> Part:
        """The part with nothing to write for ``records``; its counts stay: they were read, and paid for."""
        keep = [place for place, record in enumerate(self.record_ids) if record not in records]
        return replace(
            self,
            record_ids=[self.record_ids[place] for place in keep],
            chunk_numbers=[self.chunk_numbers[place] for place in keep],
            texts=[self.texts[place] for place in keep],
            hashes=[self.hashes[place] for place in keep],
            data=[self.data[place] for place in keep],
            updated_at=[self.updated_at[place] for place in keep],
            row_hashes=[self.row_hashes[place] for place in keep] if self.row_hashes else [],
            drops=[drop for drop in self.drops if drop[0] not in records],
            refreshes=[change for change in self.refreshes if change.record_id not in records],
            faults=[fault for fault in self.faults if fault.record_id not in records],
            vectors=None if self.vectors is None else self.vectors[keep],
        )

    @property
    def written_records(self) -> set[str]:
        """The records that writing the part changes anything of."""
        return {
            *self.record_ids,
            *(record for record, _ in self.drops),
            *(change.record_id for change in self.refreshes),
            *(fault.record_id for fault in self.faults),
        }

    def to_row(self) -> dict[str, Any]:
        """Columns of a Ray Data row. Nested values travel as JSON, vectors as little-endian float32 bytes."""
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        row |= {
            "key": json.dumps(asdict(self.key)),
            "counts": json.dumps(asdict(self.counts)),
            "data": json.dumps(self.data),
            "updated_at": json.dumps(self.updated_at),
            "row_hashes": json.dumps(self.row_hashes),
            "drops": json.dumps(self.drops),
            "refreshes": json.dumps([asdict(change) for change in self.refreshes]),
            "faults": json.dumps([asdict(fault) for fault in self.faults]),
            "cost": str(self.cost),
            "texts": json.dumps(self.texts),
            "record_ids": json.dumps(self.record_ids),
            "chunk_numbers": json.dumps(self.chunk_numbers),
            "hashes": json.dumps(self.hashes),
            "dimensions": 0 if self.vectors is None else self.vectors.shape[1],
            "vectors": b"" if self.vectors is None else self.vectors.astype("<f4").tobytes(),
        }
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Part:
        """The inverse of ``to_row``."""
        dimensions = row["dimensions"]
        vectors = np.frombuffer(row["vectors"], dtype="<f4").reshape(-1, dimensions) if dimensions else None
        return cls(
            key=PartKey(**json.loads(row["key"])),
            table=row["table"],
            vector_type=row["vector_type"],
            space_id=row["space_id"],
            version=row["version"],
            counts=Counts(**json.loads(row["counts"])),
            record_ids=json.loads(row["record_ids"]),
            chunk_numbers=json.loads(row["chunk_numbers"]),
            texts=json.loads(row["texts"]),
            hashes=json.loads(row["hashes"]),
            data=json.loads(row["data"]),
            updated_at=json.loads(row["updated_at"]),
            row_hashes=json.loads(row["row_hashes"]),
            drops=[(record, chunk) for record, chunk in json.loads(row["drops"])],
            refreshes=[DataChange(**change) for change in json.loads(row["refreshes"])],
            faults=[Fault(**fault) for fault in json.loads(row["faults"])],
            estimated_tokens=row["estimated_tokens"],
            provider=row["provider"],
            tokens=row["tokens"],
            cost=Decimal(row["cost"]),
            seconds=row["seconds"],
            vectors=vectors,
        )


def covers(lo: str | None, hi: str | None, parts: list[tuple[str | None, str | None]]) -> bool:
    """Whether ``parts``, each (lo, hi], chain from ``lo`` to ``hi`` without a gap.

    Only equality of keys is used, so no ordering of keys has to be known outside the database.
    """
    ends = dict(parts)
    at = lo
    for _ in range(len(parts)):
        if at not in ends:
            return False
        at = ends[at]
        if at == hi:
            return True
    return False
