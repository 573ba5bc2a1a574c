"""Whole databases lost, emptied or put back to an earlier state: found to the record, and mended."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from ray_app.db.indexes import list_indexes
from ray_app.errors import ConflictError, JobConflict
from ray_app.migrating.states import Stage
from ray_app.onboarding import count_points
from ray_app.reconciling import index_survey, operation
from ray_app.reconciling.drift import Kind
from ray_app.reconciling.operation import Repair, reconcile
from ray_app.reconciling.reports import ReconcileReport
from ray_app.settings import Settings
from ray_app.store.edge import EdgeStore
from ray_app.store.port import IndexKey
from ray_app.tenants import Placement
from ray_app.workspace import Workspace
from tests.support.migration_jobs import InlineJobs, inline_migrations
from tests.support.parts_site import TABLE, Site

ROWS = 60
FORCED = Repair(share=None)


class Place(Site):
    """A site whose repairs run in this process."""

    folder: Path
    jobs: InlineJobs

    def look(self, repair: Repair | None = None, grace: float = 0) -> ReconcileReport:
        return reconcile(
            self.workspace,
            lambda: nullcontext(self.store),
            self.tenant,
            repair=repair,
            grace=grace,
            run_job=self.jobs,
        )

    def key(self) -> IndexKey:
        (index,) = list_indexes(self.workspace.ledger, self.tenant.incarnation).values()
        return IndexKey(index.table, str(index.vector_type), index.space)

    def check_mended(self, report: ReconcileReport, records: int) -> None:
        assert report.in_step
        assert report.repaired == report.drift > 0
        again = self.look()
        assert again.clean, again
        assert again.ledger_points == again.stored_points == records
        assert count_points(self.workspace, self.store, self.tenant) == (records, records)


@pytest.fixture
def place(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Place]:
    workspace = Workspace(make_settings(other_model="stub@64", migration_sample=5))
    tenant, _ = workspace.registry.create("acme", 1, Placement.EMBEDDED)
    store = EdgeStore(tmp_path / "edge")
    made = Place(workspace, store, tenant)
    made.folder, made.jobs = tmp_path / "edge", InlineJobs(store)
    made.sql(
        "INSERT INTO pull_requests (id, client_id, title, status)"
        " SELECT n, 1, 'change number ' || n, 'open' FROM generate_series(0, :last) AS n",
        last=ROWS - 1,
    )
    made.backfill()
    yield made
    store.close()
    workspace.close()


class Backup:
    """Both databases as they were at one time."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place, self._folder = place, folder
        place.store.close()
        shutil.copytree(place.folder, folder)
        for table in (TABLE, "rowbeam.qdrant_vectors"):
            place.sql(f"CREATE TABLE {self._copy(table)} AS TABLE {table}")

    def _copy(self, table: str) -> str:
        return f"{self._folder.name}_{table.rpartition('.')[2]}"

    def restore_vectors(self) -> None:
        self._place.store.close()
        shutil.rmtree(self._place.folder)
        shutil.copytree(self._folder, self._place.folder)

    def restore_postgres(self) -> None:
        for table in (TABLE, "rowbeam.qdrant_vectors"):
            self._place.sql(f"DELETE FROM {table}")
            self._place.sql(f"INSERT INTO {table} SELECT * FROM {self._copy(table)}")


def by_kind(report: ReconcileReport) -> dict[Kind, set[str]]:
    """The records named, which must be all that was counted."""
    found: dict[Kind, set[str]] = defaultdict(set)
    for item in report.examples:
        found[item.kind].add(item.record_id)
    assert {kind: len(records) for kind, records in found.items()} == {
        kind: report.count(kind) for kind in found
    }
    assert sum(map(len, found.values())) == report.drift
    return dict(found)


def ids(numbers: Iterable[int]) -> set[str]:
    return {str(number) for number in numbers}


def change_rows(place: Place) -> None:
    place.sql("UPDATE pull_requests SET title = 'a later title ' || id WHERE id < 3")
    place.sql("DELETE FROM pull_requests WHERE id IN (30, 31)")
    place.insert((ROWS, "a new one"))
    place.backfill()


def test_the_store_put_back_to_an_earlier_state(place: Place, tmp_path: Path) -> None:
    old = Backup(place, tmp_path / "old")
    change_rows(place)
    assert place.look().clean
    old.restore_vectors()
    report = place.look()
    assert by_kind(report) == {
        Kind.STALE: ids(range(3)),
        Kind.MISSING: ids([ROWS]),
        Kind.ORPHAN: ids([30, 31]),
    }
    place.check_mended(place.look(Repair()), ROWS - 1)
    assert place.find("a later title 1", limit=1)[0] in ids(range(3))


def test_postgres_put_back_to_an_earlier_state(place: Place, tmp_path: Path) -> None:
    old = Backup(place, tmp_path / "old")
    change_rows(place)
    old.restore_postgres()
    report = place.look()
    assert by_kind(report) == {
        Kind.STALE: ids(range(3)),
        Kind.MISSING: ids([30, 31]),
        Kind.ORPHAN: ids([ROWS]),
    }
    assert place.look(grace=600).recent == 1  # the row may still come
    place.check_mended(place.look(Repair()), ROWS)


def test_a_collection_that_was_emptied(place: Place) -> None:
    place.store.drop_index(place.workspace.registry.scope(place.tenant), place.key())
    report = place.look()
    assert (report.count(Kind.MISSING), report.drift, report.stored_points) == (ROWS, ROWS, 0)
    with pytest.raises(ConflictError, match=f"{ROWS} of {ROWS}, more than 10%"):
        place.look(Repair())
    assert place.look().drift == ROWS, "a refused repair changes nothing"
    place.check_mended(place.look(FORCED), ROWS)


def test_a_ledger_that_was_emptied(place: Place) -> None:
    place.sql("DELETE FROM rowbeam.qdrant_vectors")
    report = place.look()
    assert (report.count(Kind.MISSING), report.drift, report.stored_points) == (ROWS, ROWS, ROWS)
    place.check_mended(place.look(FORCED), ROWS)


def test_an_index_in_a_space_that_is_not_its_own(place: Place) -> None:
    place.sql(
        "INSERT INTO rowbeam.spaces (space_id, spec)"
        " SELECT 'other', jsonb_set(spec, '{revision}', '\"other\"') FROM rowbeam.spaces LIMIT 1"
    )
    place.sql("UPDATE rowbeam.qdrant_vectors SET space_id = 'other' WHERE record_id IN ('0', '1')")
    report = place.look()
    assert (report.count(Kind.WRONG_SPACE), report.count(Kind.MISSING), report.drift) == (2, 2, 4)
    assert {found.record_id for found in report.examples} == ids([0, 1])
    place.check_mended(place.look(Repair()), ROWS)


def test_a_generation_beside_an_index_is_no_drift_and_follows_what_goes(place: Place) -> None:
    migrations = inline_migrations(place.workspace, place.store, place.jobs)
    former = place.key().space
    migrations.run("acme", TABLE, to="stub@64")
    (status,) = migrations.status("acme")
    assert status.stage is Stage.KEPT
    assert place.look().clean
    place.sql("DELETE FROM pull_requests WHERE id = 5")
    assert by_kind(place.look()) == {Kind.ORPHAN: {"5"}}
    place.check_mended(place.look(Repair()), ROWS - 1)
    scope = place.workspace.registry.scope(place.tenant)
    kept = {point.record_id for point in place.store.scroll(scope, IndexKey(TABLE, "content", former))}
    assert kept == ids(range(ROWS)) - {"5"}


def test_a_running_job_stops_a_repair_before_it_changes_anything(place: Place) -> None:
    place.sql("DELETE FROM pull_requests WHERE id = 5")
    place.sql("UPDATE pull_requests SET title = 'other' WHERE id = 6")
    job = place.start()
    with pytest.raises(JobConflict) as refused:
        place.look(Repair())
    assert refused.value.job_id == job.job_id
    assert by_kind(place.look()) == {Kind.ORPHAN: {"5"}, Kind.STALE: {"6"}}


def test_a_repair_that_breaks_off_leaves_no_lock(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.sql("UPDATE pull_requests SET title = 'other' WHERE id = 6")

    def broken(*_: object) -> None:
        raise RuntimeError("broke off")

    with monkeypatch.context() as patched:
        patched.setattr(operation, "_mend_in_place", broken)
        with pytest.raises(RuntimeError, match="broke off"):
            place.look(Repair())
    place.check_mended(place.look(Repair()), ROWS)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_drift_is_found_to_the_record_and_mended(place: Place, data: st.DataObject) -> None:
    """Rows, ledger rows and points taken out or changed in any combination, as a naive comparison has it."""
    with pytest.MonkeyPatch.context() as patched:
        # Several slices, although there are few points.
        patched.setattr(index_survey, "slice_bits", lambda points: data.draw(st.integers(0, 4)))
        some = st.sets(st.integers(0, ROWS - 1), max_size=4)
        present = _present(place)
        gone, changed, lost, forgotten = (data.draw(some) & present for _ in range(4))
        place.sql("DELETE FROM pull_requests WHERE id = ANY(:ids)", ids=list(gone))
        place.sql("UPDATE pull_requests SET title = title || '!' WHERE id = ANY(:ids)", ids=list(changed))
        place.sql(
            "DELETE FROM rowbeam.qdrant_vectors WHERE record_id = ANY(:ids)", ids=sorted(ids(forgotten))
        )
        scope = place.workspace.registry.scope(place.tenant)
        place.store.delete(scope, place.key(), [(str(number), 0) for number in lost])
        expected = {
            Kind.ORPHAN: gone - (lost & forgotten),
            Kind.MISSING: (forgotten | (lost - changed)) - gone,
            Kind.STALE: changed - gone - forgotten,
        }
        report = place.look()
        assert by_kind(report) == {kind: ids(found) for kind, found in expected.items() if found}
        if report.drift:
            place.check_mended(place.look(FORCED), len(_present(place)))


def _present(place: Place) -> set[int]:
    with place.workspace.ledger.connect() as connection:
        return set(connection.scalars(text("SELECT id FROM pull_requests WHERE client_id = 1")))
