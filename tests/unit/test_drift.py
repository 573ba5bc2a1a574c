"""What is wrong with a record, and which slice a point is in: pure rules."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.db.audits import LedgerPoint
from ray_app.diff import Change, Diff
from ray_app.reconciling.drift import (
    SLICE_POINTS,
    Cause,
    Kind,
    differs,
    judge,
    slice_bits,
    slice_bounds,
    slice_of,
)
from ray_app.store.port import DataChange, StoredPoint


def known(chunk: int = 0, content: str = "h", version: int = 5, data: str = "d") -> LedgerPoint:
    return LedgerPoint("1", chunk, uuid4(), content, version, data)


def there(chunk: int = 0, content: str = "h", version: int = 5, data: str = "d") -> StoredPoint:
    return StoredPoint(uuid4(), "1", chunk, content, version, data)


UNCHANGED = Diff(unchanged=1)
CHANGED = Diff(changes=[Change("1", "text", "new", {}, 1)])
REFRESHED = Diff(refreshes=[DataChange("1", 1, {})], unchanged=1)
EMPTIED = Diff(emptied={"1": 1})
DEAD = Diff(dead=1)
NO_TEXT = Diff(no_text=1)


@pytest.mark.parametrize(
    ("diff", "ledger", "stored", "kind", "cause"),
    [
        (CHANGED, [], [], Kind.MISSING, Cause.ROW),
        (CHANGED, [], [there()], Kind.MISSING, Cause.ROW),
        (CHANGED, [known()], [there()], Kind.STALE, Cause.ROW),
        (REFRESHED, [known()], [there()], Kind.STALE, Cause.ROW),
        (EMPTIED, [known()], [there()], Kind.ORPHAN, Cause.ROW),
        (None, [known()], [there()], Kind.ORPHAN, Cause.GONE),
        (None, [known()], [], Kind.ORPHAN, Cause.GONE),
        (None, [], [there()], Kind.ORPHAN, Cause.STORE),
        (NO_TEXT, [], [there()], Kind.ORPHAN, Cause.STORE),
        (DEAD, [], [there()], Kind.ORPHAN, Cause.STORE),
        (UNCHANGED, [known(), known(1)], [there()], Kind.MISSING, Cause.STORE),
        (UNCHANGED, [known()], [there(content="old")], Kind.STALE, Cause.STORE),
        (UNCHANGED, [known()], [there(version=6)], Kind.STALE, Cause.STORE),
        (UNCHANGED, [known()], [there(version=4, data="old")], Kind.STALE, Cause.STORE),
        (UNCHANGED, [known()], [there(), there(1)], Kind.DUPLICATE, Cause.STORE),
    ],
)
def test_each_kind(
    diff: Diff | None, ledger: list[LedgerPoint], stored: list[StoredPoint], kind: Kind, cause: Cause
) -> None:
    verdict = judge(diff, ledger, stored)
    assert verdict is not None
    assert (verdict.kind, verdict.cause) == (kind, cause)


@pytest.mark.parametrize(
    ("diff", "ledger", "stored"),
    [
        (UNCHANGED, [known()], [there()]),
        (UNCHANGED, [known()], [there(version=4)]),  # touched since, and still the same
        (UNCHANGED, [known(), known(1)], [there(1), there()]),
        (DEAD, [known()], [there()]),
        (DEAD, [], []),
        (NO_TEXT, [], []),
        (None, [], []),
    ],
)
def test_what_is_in_step(diff: Diff | None, ledger: list[LedgerPoint], stored: list[StoredPoint]) -> None:
    assert judge(diff, ledger, stored) is None


@given(st.integers(0, 16), st.uuids())
def test_a_point_is_in_one_slice_and_inside_its_bounds(bits: int, point: UUID) -> None:
    number = slice_of(point, bits)
    lo, hi = slice_bounds(number, bits)
    assert 0 <= number < 1 << bits
    assert lo <= point <= hi


@given(st.integers(0, 16))
def test_slices_adjoin_and_cover_every_id(bits: int) -> None:
    assert slice_bounds(0, bits)[0].int == 0
    assert slice_bounds((1 << bits) - 1, bits)[1].int == 2**128 - 1
    if bits:
        assert slice_bounds(0, bits)[1].int + 1 == slice_bounds(1, bits)[0].int


@given(st.integers(0, 10**9))
def test_a_slice_holds_about_as_many_points_as_it_should(points: int) -> None:
    bits = slice_bits(points)
    assert bits == 16 or points / 2**bits <= SLICE_POINTS


def test_chunks_in_which_they_differ_are_named() -> None:
    verdict = judge(UNCHANGED, [known(), known(1), known(2)], [there(), there(2, "old")])
    assert verdict is not None
    assert verdict.chunks == (1, 2)
    assert not differs(None, None)
