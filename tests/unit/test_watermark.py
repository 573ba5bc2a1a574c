"""No transaction commits behind a watermark, whatever the role can see of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.syncing.watermark import Activity, Mark, next_mark

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
OVERLAP = timedelta(seconds=60)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_with_nothing_open_it_is_the_clock_less_the_overlap() -> None:
    mark = next_mark(Activity(at(100)), None, OVERLAP)
    assert mark == Mark(at(40), at(100))


def test_an_open_transaction_holds_it_at_its_beginning() -> None:
    mark = next_mark(Activity(at(100), oldest=at(-500)), Mark(at(30), at(90)), OVERLAP)
    assert mark.watermark == at(-560)


def test_one_that_cannot_be_seen_and_was_not_open_before_began_after_the_last_sync() -> None:
    last = Mark(at(30), at(90), frozenset({"3/7"}))
    mark = next_mark(Activity(at(150), unseen=frozenset({"4/1"})), last, OVERLAP)
    assert mark == Mark(at(30), at(150), frozenset({"4/1"}))


def test_one_that_cannot_be_seen_and_was_open_before_holds_the_last_watermark() -> None:
    last = Mark(at(30), at(900), frozenset({"3/7"}))
    mark = next_mark(Activity(at(1_000), unseen=frozenset({"3/7"})), last, OVERLAP)
    assert mark.watermark == at(30)


@pytest.mark.parametrize("activity", [Activity(at(0), unseen=frozenset("a")), Activity(at(0), prepared=True)])
def test_a_first_sync_that_cannot_tell_when_a_transaction_began_sets_none(activity: Activity) -> None:
    assert next_mark(activity, None, OVERLAP).watermark is None


def test_a_standby_never_has_one() -> None:
    last = Mark(at(30), at(90))
    assert next_mark(Activity(at(100), standby=True), last, OVERLAP).watermark is None


@dataclass(frozen=True)
class Written:
    """A transaction: when it begins and ends, and how much of it the role sees."""

    name: str
    began: float
    ended: float
    visible: bool
    #: When it is prepared for a commit in two phases; then nobody knows when it began.
    prepared: float | None
    #: How far behind the database's clock the application's is that sets ``updated_at``.
    behind: float

    def open_at(self, time: float) -> bool:
        return self.began <= time < self.ended

    def prepared_at(self, time: float) -> bool:
        return self.open_at(time) and self.prepared is not None and self.prepared <= time


@st.composite
def transactions(draw: st.DrawFn) -> list[Written]:
    found = []
    for number in range(draw(st.integers(0, 8))):
        began = draw(st.floats(0, 1_000))
        lasts = draw(st.floats(0.001, 1_000))
        share = draw(st.one_of(st.none(), st.floats(0, 1)))
        found.append(
            Written(
                str(number),
                began,
                began + lasts,
                draw(st.booleans()),
                None if share is None else began + lasts * share,
                draw(st.floats(0, OVERLAP.total_seconds())),
            )
        )
    return found


def activity_at(time: float, found: list[Written]) -> Activity:
    going = [it for it in found if it.open_at(time) and not it.prepared_at(time)]
    seen = [at(it.began) for it in going if it.visible]
    unseen = frozenset(it.name for it in going if not it.visible)
    return Activity(at(time), min(seen, default=None), unseen, any(it.prepared_at(time) for it in found))


@given(transactions(), st.lists(st.floats(0, 2_500), min_size=1, max_size=8, unique=True))
def test_what_a_sync_cannot_see_yet_a_later_one_reads(found: list[Written], times: list[float]) -> None:
    """Every transaction that commits after a sync has times at or after the watermark it leaves."""
    last: Mark | None = None
    for time in sorted(times):
        last = next_mark(activity_at(time, found), last, OVERLAP)
        for it in found:
            updated_at = at(it.began - it.behind)
            if it.ended > time and last.watermark is not None:
                assert updated_at >= last.watermark, (time, it)


@given(transactions(), st.floats(1_000, 2_000))
def test_when_all_have_ended_it_comes_up_to_the_clock(found: list[Written], time: float) -> None:
    first = next_mark(activity_at(time, found), None, OVERLAP)
    last = next_mark(activity_at(5_000, found), first, OVERLAP)
    assert last.watermark == at(5_000) - OVERLAP
