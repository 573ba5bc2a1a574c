"""Rows to points without Ray: read, encode, write, compare again, on a real Postgres and a real Edge."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from sqlalchemy import select

from ray_app import planning, reading
from ray_app.db import ranges
from ray_app.db.indexes import list_indexes
from ray_app.db.jobs import finish_job, take_job
from ray_app.db.progress import job_progress
from ray_app.db.schema import dead_letters, qdrant_vectors
from ray_app.encoders.stub import POISON
from ray_app.encoding import encode_part
from ray_app.errors import UnknownTenant
from ray_app.onboarding import count_points
from ray_app.parts import Part
from ray_app.planning import make_plan
from ray_app.prescan import settle_unchanged
from ray_app.reports import Counts, JobState
from ray_app.spaces import VectorType
from ray_app.store.port import IndexKey
from ray_app.writing import PartWriter, store_points
from tests.support.parts_site import TABLE, Site
from tests.support.retired import retire


def test_rows_become_points_and_the_ledger_says_the_same(site: Site) -> None:
    site.insert((1, "login fails"), (2, "slow search"), (3, None), (4, "  "))
    assert site.backfill() == Counts(read=4, embedded=2, no_text=2, chunks=2)
    assert site.find("login fails")[0] == "1"
    with site.workspace.ledger.connect() as connection:
        row = connection.execute(select(qdrant_vectors).where(qdrant_vectors.c.record_id == "1")).one()
    pinned = list_indexes(site.workspace.ledger, site.tenant.incarnation)[TABLE, VectorType.CONTENT]
    points = list(
        site.store.scroll(
            site.workspace.registry.scope(site.tenant), IndexKey(TABLE, "content", pinned.space)
        )
    )
    point = next(point for point in points if point.record_id == "1")
    assert (row.point_id, row.content_hash, row.version) == (
        point.point_id,
        point.content_hash,
        point.version,
    )
    assert (row.snippet, row.provider) == ("login fails", "stub")


def test_only_what_changed_is_embedded_again(site: Site) -> None:
    site.insert(*((key, f"issue number {key}") for key in range(30)))
    assert site.backfill().embedded == 30
    assert site.backfill() == Counts(read=30, unchanged=30)

    site.sql("UPDATE pull_requests SET title = 'new words' WHERE id < 10")
    site.sql("UPDATE pull_requests SET updated_at = now(), status = 'closed' WHERE id BETWEEN 10 AND 20")
    site.sql("UPDATE pull_requests SET active = false WHERE id BETWEEN 25 AND 27")
    site.sql("DELETE FROM pull_requests WHERE id = 28")
    site.sql("UPDATE pull_requests SET title = NULL WHERE id = 29")
    assert site.backfill() == Counts(read=30, embedded=10, unchanged=15, deleted=5, chunks=10, reused=9)
    assert site.backfill() == Counts(read=25, unchanged=25) + Counts(read=1, no_text=1)


def test_other_columns_reach_the_filters_without_the_model(site: Site) -> None:
    site.insert(*((key, f"issue number {key}") for key in range(250)))
    site.backfill()
    billed = site.texts_billed()
    site.sql("UPDATE pull_requests SET status = 'closed' WHERE id IN (3, 4)")
    site.sql("UPDATE pull_requests SET status = NULL WHERE id = 5")

    job, left = site.prescan()
    assert [(item.kind, item.seq) for item in left] == [("rows", 0)]
    for part in site.parts(job):
        assert part.texts == []
        site.write(Part.from_row(part.to_row()))
    finish_job(site.workspace.ledger, job, JobState.SUCCEEDED)

    assert job_progress(site.workspace.ledger, job.job_id).counts == Counts(read=250, unchanged=250)
    assert site.texts_billed() == billed
    assert sorted(site.find("issue", status="closed")) == ["3", "4"]
    assert {"3", "4", "5"}.isdisjoint(site.find("issue number", limit=250, status="open"))
    assert len(site.find("issue number", limit=250)) == 250
    assert count_points(site.workspace, site.store, site.tenant) == (250, 250)
    _, left = site.prescan()
    assert left == []


def test_a_text_and_its_columns_change_together(site: Site) -> None:
    site.insert((1, "old words"), (2, "others"))
    site.backfill()
    site.sql("UPDATE pull_requests SET title = 'new words', status = 'closed' WHERE id = 1")
    assert site.backfill() == Counts(read=2, embedded=1, unchanged=1, chunks=1)
    assert site.find("new words", status="closed") == ["1"]
    assert site.prescan()[1] == []


def test_every_chunk_of_a_long_text_gets_the_new_columns(site: Site) -> None:
    site.insert((1, "word " * 2000))
    chunks = site.backfill().chunks
    assert chunks > 2
    site.sql("UPDATE pull_requests SET status = 'closed'")
    assert site.backfill() == Counts(read=1, unchanged=1)
    assert site.find("word word", status="open") == []
    assert site.find("word word", status="closed") == ["1"]
    assert count_points(site.workspace, site.store, site.tenant) == (chunks, chunks)
    assert site.prescan()[1] == []


def test_new_columns_that_the_ledger_did_not_hear_of_are_set_again(site: Site) -> None:
    site.insert((1, "words"))
    site.backfill()
    site.sql("UPDATE pull_requests SET status = 'closed'")
    job = site.start()
    (part,) = (part for part in site.parts(job) if part.refreshes)
    pinned = list_indexes(site.workspace.ledger, site.tenant.incarnation)[TABLE, VectorType.CONTENT]
    scope = site.workspace.registry.scope(site.tenant)
    store_points(site.store, scope, IndexKey(TABLE, "content", pinned.space), part)
    finish_job(site.workspace.ledger, job, JobState.FAILED, "crash")
    assert site.backfill() == Counts(read=1, unchanged=1)
    assert site.find("words", status="closed") == ["1"]
    assert site.prescan()[1] == []


def test_an_older_read_never_brings_columns_back(site: Site) -> None:
    site.insert((1, "words"))
    site.backfill()
    job = site.start()
    late, fresh = [], []
    for status, parts in (("closed", late), ("merged", fresh)):
        site.sql("UPDATE pull_requests SET status = :status", status=status)
        parts += [part for part in site.parts(job) if part.refreshes]
    site.write(fresh[0])
    finish_job(site.workspace.ledger, job, JobState.FAILED, "")
    second = take_job(site.workspace.ledger, site.start().job_id)
    site.write(replace(late[0], key=replace(late[0].key, job_id=second.job_id, run=second.run)))
    assert site.find("words", status="merged") == ["1"]
    finish_job(site.workspace.ledger, second, JobState.FAILED, "")
    assert site.prescan()[1] == []


def test_a_dead_record_is_filtered_by_what_it_is_now(site: Site) -> None:
    site.insert((1, "fine"))
    site.backfill()
    site.sql("UPDATE pull_requests SET title = :title", title=f"bad {POISON}")
    assert site.backfill().dead == 1
    site.sql("UPDATE pull_requests SET status = 'closed'")
    assert site.backfill() == Counts(read=1, dead=1)
    assert site.find("fine", status="closed") == ["1"]
    with site.workspace.ledger.connect() as connection:
        assert len(connection.execute(select(dead_letters)).all()) == 1


def test_a_text_that_became_shorter_leaves_no_tail(site: Site) -> None:
    site.insert((1, "word " * 2000), (2, "short"))
    first = site.backfill()
    assert first.embedded == 2
    assert first.chunks > 3
    site.sql("UPDATE pull_requests SET title = 'brief now' WHERE id = 1")
    assert site.backfill() == Counts(read=2, embedded=1, unchanged=1, chunks=1)
    assert count_points(site.workspace, site.store, site.tenant) == (2, 2)
    assert site.find("word word word") != []


def test_a_poison_row_is_a_dead_letter_and_its_batch_goes_on(site: Site) -> None:
    site.insert((1, "fine"), (2, f"bad {POISON}"), (3, "fine too"))
    assert site.backfill() == Counts(read=3, embedded=2, dead=1, chunks=2)
    with site.workspace.ledger.connect() as connection:
        letter = connection.execute(select(dead_letters)).one()
    assert (letter.record_id, letter.stage, letter.error_class, letter.attempts) == (
        "2",
        "embed",
        "ItemError",
        1,
    )
    # Not tried again as it is, but as soon as it has changed.
    assert site.backfill() == Counts(read=3, unchanged=2, dead=1)
    site.sql("UPDATE pull_requests SET title = 'healed' WHERE id = 2")
    assert site.backfill() == Counts(read=3, embedded=1, unchanged=2, chunks=1)
    with site.workspace.ledger.connect() as connection:
        assert connection.execute(select(dead_letters)).all() == []


def test_a_crash_between_store_and_ledger_converges(site: Site) -> None:
    site.insert(*((key, f"issue {key}") for key in range(250)))
    job = site.start()
    parts = list(site.parts(job))
    pinned = list_indexes(site.workspace.ledger, site.tenant.incarnation)[TABLE, VectorType.CONTENT]
    scope = site.workspace.registry.scope(site.tenant)
    provider = site.workspace.providers.provider_for(pinned.space)
    site.write(parts[0])
    # The points of the second part arrive, its transaction does not.
    store_points(site.store, scope, IndexKey(TABLE, "content", pinned.space), encode_part(parts[1], provider))
    stored, rows = count_points(site.workspace, site.store, site.tenant)
    assert stored > rows

    finish_job(site.workspace.ledger, job, JobState.FAILED, "crash")
    again = take_job(site.workspace.ledger, job.job_id)
    for part in site.parts(again):
        site.write(part)
    assert count_points(site.workspace, site.store, site.tenant) == (250, 250)
    assert job_progress(site.workspace.ledger, job.job_id).counts.embedded == 250


def test_an_older_read_never_overwrites_a_newer_one(site: Site) -> None:
    site.insert((1, "old words"))
    job = site.start()
    (late,) = list(site.parts(job))
    site.sql("UPDATE pull_requests SET title = 'new words' WHERE id = 1")
    (fresh,) = list(site.parts(job))
    assert fresh.version > late.version
    site.write(fresh)
    finish_job(site.workspace.ledger, job, JobState.FAILED, "")
    second = take_job(site.workspace.ledger, site.start().job_id)
    site.write(replace(late, key=replace(late.key, job_id=second.job_id, run=second.run)))
    with site.workspace.ledger.connect() as connection:
        row = connection.execute(select(qdrant_vectors)).one()
    assert (row.snippet, row.version) == ("new words", fresh.version)


def test_pages_of_huge_rows_are_ended_early_and_chain(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PART_CHARS", 2_000)
    site.insert(*((key, f"{key} " + "long " * 300) for key in range(10)))
    job = site.start()
    parts = list(site.parts(job))
    assert len(parts) > 3
    for part in reversed(parts):
        site.write(part)
    assert ranges.pending(site.workspace.ledger, job.job_id) == []
    assert job_progress(site.workspace.ledger, job.job_id).counts.embedded == 10


def test_the_prescan_settles_clean_ranges_and_leaves_the_others(site: Site) -> None:
    site.insert(*((key, f"issue {key}") for key in range(450)))
    site.backfill()
    site.sql("UPDATE pull_requests SET title = 'changed' WHERE id = 250")
    site.sql("DELETE FROM pull_requests WHERE id = 10")
    job = site.start()
    work = ranges.pending(site.workspace.ledger, job.job_id)
    settled = settle_unchanged(site.reader(), site.workspace.ledger, job.job_id, work, time.monotonic() + 60)
    left = ranges.pending(site.workspace.ledger, job.job_id)
    assert {item.seq for item in left} == {item.seq for item in work} - set(settled)
    assert sorted(item.kind for item in left) == ["rows", "sweep"]
    for part in site.parts(job):
        site.write(part)
    counts = job_progress(site.workspace.ledger, job.job_id).counts
    assert counts == Counts(read=450, embedded=1, unchanged=448, deleted=1, chunks=1)


def test_the_prescan_settles_sweeps_of_more_than_one_page(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SWEEP_RECORDS", 20)
    monkeypatch.setattr(planning, "SWEEP_RECORDS", 20)
    site.insert(*((key, f"issue {key}") for key in range(60)))
    site.backfill()
    job = site.start()
    work = ranges.pending(site.workspace.ledger, job.job_id)
    assert len([item for item in work if item.kind == "sweep"]) > 2
    settle_unchanged(site.reader(), site.workspace.ledger, job.job_id, work, time.monotonic() + 60)
    assert ranges.pending(site.workspace.ledger, job.job_id) == []


def test_a_plan_says_what_the_backfill_then_does_and_changes_nothing(site: Site) -> None:
    site.insert(*((key, f"issue {key}" if key else None) for key in range(50)))

    def plan():  # type: ignore[no-untyped-def]
        (table,) = make_plan(
            site.workspace, site.tenant, tables=[TABLE], vector_types=None, prefer=None
        ).tables
        return table

    first = plan()
    assert (first.rows, first.to_embed, first.unchanged, first.pinned) == (50, 49, 0, False)
    assert first.estimated_tokens > 49
    assert list_indexes(site.workspace.ledger, site.tenant.incarnation) == {}
    site.backfill()
    site.sql("DELETE FROM pull_requests WHERE id = 49")
    site.sql("UPDATE pull_requests SET title = 'other' WHERE id = 48")
    second = plan()
    assert (second.to_embed, second.unchanged, second.to_delete, second.pinned) == (1, 47, 1, True)


def test_writers_of_a_removed_tenant_are_fenced_off_before_they_write(site: Site) -> None:
    site.insert((1, "secret"))
    job = site.start()
    parts = list(site.parts(job))
    pinned = list_indexes(site.workspace.ledger, site.tenant.incarnation)[TABLE, VectorType.CONTENT]
    scope = site.workspace.registry.scope(site.tenant)
    writer = PartWriter(scope, site.store, site.workspace.ledger, outage_budget=0)
    encoded = encode_part(parts[0], site.workspace.providers.provider_for(pinned.space))
    retire(site.workspace.ledger, site.tenant)
    with pytest.raises(UnknownTenant):
        writer.write(encoded, pinned.space)
    site.store.ensure_index(scope, IndexKey(TABLE, "content", pinned.space), ())
    assert site.store.count(scope, IndexKey(TABLE, "content", pinned.space)) == 0


def test_new_columns_of_a_removed_tenant_are_fenced_off_too(site: Site) -> None:
    site.insert((1, "words"))
    site.backfill()
    site.sql("UPDATE pull_requests SET status = 'closed'")
    job = site.start()
    (part,) = (part for part in site.parts(job) if part.refreshes)
    index = list_indexes(site.workspace.ledger, site.tenant.incarnation)[TABLE, VectorType.CONTENT]
    scope = site.workspace.registry.scope(site.tenant)
    retire(site.workspace.ledger, site.tenant)
    with pytest.raises(UnknownTenant):
        PartWriter(scope, site.store, site.workspace.ledger, outage_budget=0).write(part, index.space)
    (point,) = site.store.scroll(scope, IndexKey(TABLE, "content", index.space))
    assert point.version < part.version
