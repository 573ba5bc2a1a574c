"""A part goes through a Ray Data block unchanged: Arrow drops columns that its schema does not have."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal

import numpy as np

from jobs.blocks import from_block, to_block
from ray_app.parts import Fault, Part, PartKey
from ray_app.reports import Counts
from ray_app.store.port import DataChange


def test_every_field_of_a_part_comes_back() -> None:
    part = Part(
        PartKey("job", 1, 2, "a", None),
        "issues",
        "content",
        "space",
        7,
        Counts(read=2, embedded=1, dead=1, chunks=1),
        record_ids=["1"],
        chunk_numbers=[0],
        texts=["text"],
        hashes=["hash"],
        data=[{"status": "open"}],
        updated_at=[123],
        drops=[("2", 1)],
        refreshes=[DataChange("3", 2, {"status": "shut"})],
        faults=[Fault("4", "hash", "encode", "ItemError", "reason")],
        estimated_tokens=1,
        provider="stub",
        tokens=1,
        cost=Decimal("0.5"),
        seconds=0.25,
        vectors=np.ones((1, 3), np.float32),
    )
    (back,) = from_block(to_block([part]))
    for field in fields(Part):
        before, after = getattr(part, field.name), getattr(back, field.name)
        assert np.array_equal(before, after) if field.name == "vectors" else before == after, field.name
