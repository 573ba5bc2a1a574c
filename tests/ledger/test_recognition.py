"""A row is recognised only while everything that is made of it is the same; nothing else decides that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ray_app.db import ranges
from ray_app.db.indexes import list_indexes
from ray_app.db.jobs import TakenJob, finish_job
from ray_app.db.progress import job_progress
from ray_app.reading import RangeReader
from ray_app.reports import Counts, JobState
from ray_app.spaces import VectorType
from ray_app.tables import TextMode, TextRule
from tests.support.parts_site import TABLE, Site
from tests.support.pushes import PushSite

ROWS = 8
WORDS = st.sampled_from(["one", "two", "one, two", "{one}", "", "\n", '"', None])
CHANGES = st.one_of(
    *(
        st.tuples(st.just(f"UPDATE pull_requests SET {column} = :value WHERE id = :key"), values)
        for column, values in {
            **dict.fromkeys(("title", "description", "status", "author", "repository", "sha"), WORDS),
            "labels": st.lists(st.sampled_from(["one", "two", "one,two", ""]), max_size=2),
            "additions": st.integers(0, 2),
            "active": st.booleans(),
            "client_id": st.sampled_from([1, 2]),
            **dict.fromkeys(
                ("created_at", "updated_at"),
                st.sampled_from(["2020-01-01T00:00:00Z", "2026-11-23T10:00:00.000001Z"]),
            ),
        }.items()
    ),
    st.tuples(st.just("DELETE FROM pull_requests WHERE id = :key"), st.none()),
    st.tuples(
        st.just("INSERT INTO pull_requests (id, client_id, title) VALUES (:key + 100, 1, 'one')"), st.none()
    ),
)


def fill(site: Site) -> None:
    site.sql("DELETE FROM pull_requests")
    site.insert(*((key, f"number {key}") for key in range(ROWS)))
    site.sql("UPDATE pull_requests SET updated_at = now(), labels = '{one}'")
    site.backfill()


def end(site: Site, job: TakenJob) -> Counts:
    counts = job_progress(site.workspace.ledger, job.job_id).counts
    finish_job(site.workspace.ledger, job, JobState.FAILED, "Only its prescan was wanted.")
    return counts


def needs_work(site: Site) -> bool:
    """Whether reading every row and comparing what is made of it finds anything to write."""
    reader = site.reader()
    page = reader.page(None, None)
    assert page.last
    diff = reader.compare(page.rows, *reader.lookup(page.rows))
    return not diff.clean or bool(reader.gone(None, None)[0])


@hypothesis_settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(CHANGES, st.integers(0, ROWS - 1)), max_size=3))
def test_what_has_changed_is_never_settled_and_what_has_not_always_is(
    site: Site, changes: list[tuple[tuple[str, Any], int]]
) -> None:
    fill(site)
    for (statement, value), key in changes:
        site.sql(f"{statement} ON CONFLICT DO NOTHING" if "INSERT" in statement else statement, key=key,
                 **({"value": value} if ":value" in statement else {}))  # fmt: skip
    expected = needs_work(site)
    job, left = site.prescan()
    counts = end(site, job)
    assert bool(left) == expected
    assert counts.balanced
    if not changes:
        assert counts == Counts(read=ROWS, unchanged=ROWS)


@pytest.mark.parametrize(
    "change", ["space", "chunker", "text rule", "order of columns", "text mode", "payload columns"]
)
def test_another_way_of_making_texts_recognises_nothing(site: Site, change: str) -> None:
    fill(site)
    pinned = list_indexes(site.workspace.ledger, site.tenant.incarnation)
    index = site.workspace.reader(site.tenant, pinned[TABLE, VectorType.CONTENT])
    comparer = index.comparer
    rule = comparer.rule
    other = {
        "space": replace(comparer, space=replace(comparer.space, revision="2")),
        "chunker": replace(comparer, chunker_id="another"),
        "text rule": replace(comparer, rule=TextRule(rule.mode, (*rule.columns, "sha"))),
        "order of columns": replace(comparer, rule=TextRule(rule.mode, rule.columns[::-1])),
        "text mode": replace(comparer, rule=TextRule(TextMode.FIELDS, rule.columns)),
        "payload columns": replace(comparer, payload=(*comparer.payload, "sha")),
    }[change]

    def recognised(comparer: Any) -> list[bool]:
        reader = RangeReader(
            replace(index, comparer=comparer), site.workspace.source, site.workspace.ledger, outage_budget=0
        )
        return [known for _, known in reader.hashes(None, None)[0]]

    assert recognised(comparer) == [True] * ROWS
    assert recognised(other) == [False] * ROWS


@pytest.mark.parametrize("push", [{"title": "pushed"}, {"status": "pushed"}, {"active": False}])
def test_a_push_between_two_jobs_is_noticed(site: Site, push: dict[str, object]) -> None:
    fill(site)
    row = {"id": 3, "title": "number 3", "status": "open", "labels": ["one"], **push}
    pushes = PushSite.of(site.workspace, site.store, site.tenant)
    pushes.push({**row, "updated_at": "2020-01-01T00:00:00Z"}, table=TABLE)
    assert site.prescan_counts() == (Counts(read=ROWS, unchanged=ROWS), 0), "an older state is not taken"
    pushes.push(row, table=TABLE)
    assert needs_work(site)
    job, left = site.prescan()
    end(site, job)
    assert left


def test_rows_of_an_older_ledger_are_read_once_and_recognised_from_then_on(site: Site) -> None:
    fill(site)
    site.insert((50, None))
    site.sql("UPDATE rowbeam.qdrant_vectors SET row_hash = NULL")
    for _ in range(2):
        counts, left = site.prescan_counts()
        assert (counts, left) == (Counts(read=ROWS + 1, unchanged=ROWS, no_text=1), 0)
    assert sum(known for _, known in site.reader().hashes(None, None)[0]) == ROWS


def test_ranges_that_do_not_adjoin_count_their_own_rows(site: Site) -> None:
    site.insert(*((key, f"issue {key}") for key in range(500)))
    site.backfill()
    job = site.start()
    work = ranges.pending(site.workspace.ledger, job.job_id)
    with site.workspace.ledger.begin() as connection:
        ranges.finish(connection, job.job_id, [(work[1].seq, Counts(read=100, unchanged=100))])
    left = site.settle(job)
    assert left == []
    assert end(site, job) == Counts(read=500, unchanged=500)
