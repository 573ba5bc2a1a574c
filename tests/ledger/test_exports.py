"""A tenant's vectors as files, and back: whole, true, of nobody else, and of no use to a model."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient
from sqlalchemy import text

from ray_app.db import jobs
from ray_app.db.indexes import list_indexes
from ray_app.db.progress import list_jobs
from ray_app.encoding import encode_part
from ray_app.errors import (
    ConfigError,
    ConflictError,
    IndexMoved,
    InputError,
    JobConflict,
    StoreUnavailable,
    UnknownTable,
)
from ray_app.portability import exporting, importing
from ray_app.portability.exporting import export_tenant
from ray_app.portability.importing import import_tenant
from ray_app.portability.reports import ExportReport
from ray_app.reading import NO_JOB
from ray_app.reconciling.drift import Kind
from ray_app.reconciling.operation import reconcile
from ray_app.reconciling.reports import DriftCount
from ray_app.reports import JobProgress, JobState
from ray_app.settings import Settings
from ray_app.store.edge import EdgeStore
from ray_app.store.port import IndexKey, PointCopy, VectorStore
from ray_app.store.server import ServerStore
from ray_app.tenants import Placement
from ray_app.workspace import Workspace
from ray_app.writing import PartWriter
from tests.support.migration_jobs import Killed
from tests.support.parts_site import TABLE, Site

ROWS = 25


class Place(Site):
    """A tenant that is exported, or one that is imported."""

    def key(self) -> IndexKey:
        (index,) = list_indexes(self.workspace.ledger, self.tenant.incarnation).values()
        return IndexKey(index.table, str(index.vector_type), index.space)

    def export(self, out: Path) -> ExportReport:
        return export_tenant(self.workspace, lambda: nullcontext(self.store), self.tenant, out)

    def import_(self, folder: Path, on_progress: Callable[[JobProgress], None] | None = None) -> JobProgress:
        return import_tenant(
            self.workspace, lambda: nullcontext(self.store), self.tenant, folder, on_progress
        )

    def drift(self) -> tuple[DriftCount, ...]:
        return reconcile(self.workspace, lambda: nullcontext(self.store), self.tenant, grace=0).found

    def jobs(self) -> list[JobProgress]:
        return list_jobs(self.workspace.ledger, include_ended=True, incarnation=self.tenant.incarnation)

    def copies(self) -> dict[tuple[str, int], PointCopy]:
        scope = self.workspace.registry.scope(self.tenant)
        found = self.store.copies_after(scope, self.key(), None, 1000)
        return {(copy.record_id, copy.chunk): copy for copy in found}

    def copy_rows(self, other: Place) -> None:
        """Give the other tenant the same rows."""
        with self.workspace.source.connect() as connection:
            rows = connection.execute(text(f"SELECT * FROM {TABLE} WHERE client_id = 1")).mappings().all()
        names = list(rows[0])
        values = ", ".join(f":{name}" for name in names)
        for row in rows:
            other.sql(
                f"INSERT INTO {TABLE} ({', '.join(names)}) VALUES ({values})",
                **{**row, "client_id": other.tenant.client_id},
            )


def make_place(
    settings: Settings, store: VectorStore, client: int, placement: Placement, name: str = "acme"
) -> Iterator[Place]:
    workspace = Workspace(settings)
    tenant, _ = workspace.registry.create(name, client, placement)
    yield Place(workspace, store, tenant)  # type: ignore[arg-type]  # any store does here
    store.close()
    workspace.close()


@pytest.fixture
def source(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Place]:
    for place in make_place(make_settings(), EdgeStore(tmp_path / "edge"), 1, Placement.EMBEDDED):
        place.insert(*((number, f"change number {number}") for number in range(ROWS)))
        # One text of several chunks, and a payload that differs.
        place.sql(f"UPDATE {TABLE} SET description = repeat('a long story ', 400) WHERE id = 3")
        place.sql(f"UPDATE {TABLE} SET status = 'merged' WHERE id = 4")
        place.backfill()
        yield place


@pytest.fixture(params=["embedded", "pooled"])
def target(
    request: pytest.FixtureRequest,
    make_settings: Callable[..., Settings],
    other_database_url: str,
    tmp_path: Path,
) -> Iterator[Place]:
    """Another deployment: its own ledger, tables, secret and store."""
    placement = Placement(request.param)
    store: VectorStore = (
        EdgeStore(tmp_path / "other-edge")
        if placement is Placement.EMBEDDED
        else ServerStore(QdrantClient(":memory:"))
    )
    settings = make_settings(database_url=other_database_url, home=tmp_path / "other")
    yield from make_place(settings, store, 7, placement, "acme-too")


@pytest.fixture
def again(source: Place) -> Place:
    """Another tenant of the same deployment."""
    tenant, _ = source.workspace.registry.create("acme-again", 2, Placement.EMBEDDED)
    return Place(source.workspace, source.store, tenant)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several row groups although there are few points."""
    monkeypatch.setattr(exporting, "GROUP_POINTS", 6)
    monkeypatch.setattr(exporting, "PAGE_RECORDS", 10)


@pytest.fixture
def export(source: Place, small_groups: None, tmp_path: Path) -> Path:
    out = tmp_path / "export"
    report = source.export(out)
    (index,) = report.indexes
    assert (index.table, index.records, index.left_out) == (TABLE, ROWS, 0)
    assert index.points > ROWS
    return out


def manifest(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "manifest.json").read_text())
    assert isinstance(found, dict)
    return found


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = manifest(folder)
    change(document)
    (folder / "manifest.json").write_text(json.dumps(document))


def parquet(folder: Path) -> Path:
    (found,) = folder.glob("*.parquet")
    return found


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
def test_an_export_imported_elsewhere_needs_no_model(source: Place, target: Place, export: Path) -> None:
    source.copy_rows(target)
    seen: list[JobProgress] = []

    job = target.import_(export, seen.append)

    assert (job.kind, job.state, job.counts.embedded, job.counts.balanced) == (
        *("import", JobState.SUCCEEDED, ROWS),
        True,
    )
    assert seen[-1] == job
    assert target.find("change number 7")[0] == "7"
    assert target.find("change number 7", status="merged") == ["4"]
    assert target.drift() == ()
    counts = target.backfill()
    assert (counts.unchanged, counts.embedded) == (ROWS, 0)
    assert target.texts_billed() == 0
    ours, theirs = source.copies(), target.copies()
    assert ours.keys() == theirs.keys()
    assert not {copy.point_id for copy in ours.values()} & {copy.point_id for copy in theirs.values()}
    for where, copy in ours.items():
        other = theirs[where]
        np.testing.assert_allclose(copy.vector, other.vector, atol=1e-6)
        same = replace(copy, point_id=other.point_id, vector=other.vector, embedded_at=other.embedded_at)
        assert same == other


def test_a_file_is_read_without_rowbeam(source: Place, export: Path) -> None:
    frame = pd.read_parquet(parquet(export))
    assert frame.record_id.tolist() == sorted(frame.record_id.tolist())
    assert frame.record_id.nunique() == ROWS
    row = frame[frame.record_id == "4"].iloc[0]
    assert (row.table, row.vector_type, row.chunk, row.provider) == (TABLE, "content", 0, "stub")
    assert json.loads(row.payload)["status"] == "merged"
    assert row.snippet == "change number 4"
    assert row.embedded_at.tzinfo is not None
    held = source.copies()["4", 0]
    np.testing.assert_array_equal(row.vector, held.vector)
    assert held.words is not None
    assert (list(row.word_indices), list(row.word_weights)) == (held.words.indices, held.words.weights)
    (entry,) = manifest(export)["indexes"]
    assert (entry["records"], entry["points"]) == (ROWS, len(frame))
    file = pq.ParquetFile(parquet(export))
    assert file.num_row_groups > 4
    assert json.loads(file.schema_arrow.metadata[b"rowbeam"])["space"] == entry["space"]


def test_files_are_their_owners_alone(export: Path) -> None:
    assert stat.S_IMODE(export.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in export.iterdir()} == {0o600}
    assert [path.name for path in export.parent.glob(".*")] == []


def test_an_export_has_no_other_tenants_points(source: Place, tmp_path: Path) -> None:
    """Twins: the same keys and texts in the same tables, of another client."""
    twin, _ = source.workspace.registry.create("twin", 2, Placement.EMBEDDED)
    other = Place(source.workspace, source.store, twin)
    other.insert(*((number, f"umbra {number}") for number in range(ROWS)), client=2)
    other.backfill()
    source.export(tmp_path / "ours")
    other.export(tmp_path / "theirs")
    ours, theirs = pd.read_parquet(parquet(tmp_path / "ours")), pd.read_parquet(parquet(tmp_path / "theirs"))
    assert set(ours.record_id) == set(theirs.record_id)
    assert not ours.snippet.str.contains("umbra").any()
    assert theirs.snippet.str.contains("umbra").all()
    assert not set(ours.point_id) & set(theirs.point_id)


def test_nothing_is_overwritten_and_nothing_half_written_stays(
    source: Place, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConflictError, match="exists"):
        source.export(export)
    with pytest.raises(InputError, match=r"cannot be written.*No such file"):
        source.export(tmp_path / "nowhere" / "out")

    def down(*_: object) -> None:
        raise StoreUnavailable("It is down.")

    monkeypatch.setattr(source.store, "copies_of", down)
    with pytest.raises(StoreUnavailable):
        source.export(tmp_path / "broken")
    assert [path for path in tmp_path.iterdir() if "broken" in path.name] == []


def test_what_is_written_meanwhile_is_as_it_was_at_one_moment(
    source: Place, again: Place, small_groups: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the ledger's rows and the points of several pages, a record changes and another goes."""
    real = source.store.copies_of
    written: set[str] = set()

    def while_it_is_read(*arguments: Any) -> Any:
        due = {record for record, _ in arguments[2]} & {"2", "12", "22"} - written
        for record in due:
            written.add(record)
            source.sql(f"UPDATE {TABLE} SET title = 'another ' || id WHERE id = :id", id=int(record))
            source.sql(f"DELETE FROM {TABLE} WHERE id = :id", id=int(record) - 1)
            source.backfill()
        return real(*arguments)

    monkeypatch.setattr(source.store, "copies_of", while_it_is_read)
    report = source.export(tmp_path / "out")
    frame = pd.read_parquet(parquet(tmp_path / "out"))
    (index,) = report.indexes
    assert (index.left_out, index.points, len(written)) == (0, len(frame), 3)
    snippets = dict(zip(frame.record_id, frame.snippet, strict=True))
    assert [snippets[record] for record in ("2", "12", "22")] == ["another 2", "another 12", "another 22"]
    assert frame.groupby("record_id").content_hash.nunique().max() == 1
    source.copy_rows(again)
    again.import_(tmp_path / "out")
    # Records that went when their page had been read are in the export.
    assert {item.kind for item in again.drift()} <= {Kind.ORPHAN}


def test_what_is_out_of_step_is_left_out_and_counted(source: Place, tmp_path: Path) -> None:
    scope = source.workspace.registry.scope(source.tenant)
    source.store.delete(scope, source.key(), [("5", 0), ("3", 1)])
    report = source.export(tmp_path / "out")
    frame = pd.read_parquet(parquet(tmp_path / "out"))
    (index,) = report.indexes
    assert (index.records, index.left_out) == (ROWS - 2, 2)
    assert not {"3", "5"} & set(frame.record_id)
    (entry,) = manifest(tmp_path / "out")["indexes"]
    assert (entry["records"], entry["points"], entry["left_out"]) == (ROWS - 2, len(frame), 2)


def test_a_row_that_was_touched_is_in_step(source: Place, tmp_path: Path) -> None:
    """Its ledger row is of a later version than its point, whose text and payload are the same."""
    source.sql("UPDATE rowbeam.qdrant_vectors SET version = version + 1 WHERE record_id = '1'")
    (index,) = source.export(tmp_path / "out").indexes
    assert (index.records, index.left_out) == (ROWS, 0)


@pytest.mark.parametrize(
    "statements",
    [
        (
            (
                "INSERT INTO rowbeam.spaces (space_id, spec)"
                " SELECT 'other', jsonb_set(spec, '{revision}', '\"other\"') FROM rowbeam.spaces LIMIT 1"
            ),
            "UPDATE rowbeam.indexes SET space_id = 'other'",
        ),
        ("UPDATE rowbeam.tenants SET placement = 'pooled'",),
    ],
    ids=["model", "place"],
)
def test_what_moves_meanwhile_is_not_exported(
    source: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statements: tuple[str, ...]
) -> None:
    real = source.store.copies_of

    def moved(*arguments: Any) -> Any:
        if not done:
            done.append(True)
            for statement in statements:
                source.sql(statement)
        return real(*arguments)

    done: list[bool] = []
    monkeypatch.setattr(source.store, "copies_of", moved)
    with pytest.raises(IndexMoved):
        source.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tenant_without_an_index_has_nothing_to_export(source: Place, tmp_path: Path) -> None:
    empty, _ = source.workspace.registry.create("empty", 9, Placement.EMBEDDED)
    with pytest.raises(ConflictError, match="no index"):
        Place(source.workspace, source.store, empty).export(tmp_path / "out")


def test_an_import_that_is_killed_goes_on_when_it_is_repeated(
    source: Place, again: Place, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once between points and ledger, once after a range; what was done is not done again."""
    source.copy_rows(again)
    real, groups = source.store.write_copies, []

    def dies(*arguments: Any) -> None:
        real(*arguments)
        groups.append(arguments)
        if len(groups) == 3:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(source.store, "write_copies", dies)
        patched.setattr(jobs, "finish_job", lambda *_: None)  # the process is gone
        with pytest.raises(Killed):
            again.import_(export)
        (half,) = again.jobs()
        assert (half.kind, half.current_batch, half.state) == ("import", 2, JobState.RUNNING)
        patched.undo()
        patched.setattr(source.store, "write_copies", lambda *a: (groups.append(a), real(*a)))
        job = again.import_(export)
    assert (job.job_id, job.state, job.counts.embedded) == (half.job_id, JobState.SUCCEEDED, ROWS)
    assert len(groups) == job.total_batches + 1
    assert again.drift() == ()
    with pytest.raises(ConflictError, match=f"imported before, by job {job.job_id}"):
        again.import_(export)


def test_an_import_can_be_cancelled_and_is_no_job_for_other_drivers(again: Place, export: Path) -> None:
    def cancel(job: JobProgress) -> None:
        if job.state is JobState.RUNNING:
            jobs.request_cancel(again.workspace.ledger, job.job_id)

    job = again.import_(export, cancel)
    assert (job.state, job.current_batch) == (JobState.CANCELLED, 2)
    for refused in (
        lambda: jobs.take_job(again.workspace.ledger, job.job_id),
        lambda: jobs.check_resumable(again.workspace.ledger, job.job_id, again.tenant),
        lambda: jobs.requeue(again.workspace.ledger, job.job_id),
    ):
        with pytest.raises(ConflictError, match="is an import"):
            refused()
    assert again.import_(export).state is JobState.SUCCEEDED


def test_what_is_written_since_an_import_began_stays(
    source: Place, again: Place, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is written in its new state before the import comes to it; another job is kept out."""
    source.copy_rows(again)
    again.sql(f"UPDATE {TABLE} SET title = 'the news' WHERE client_id = 2 AND id = 9")
    real, begun = importing.from_table, []

    def meanwhile(table: pa.Table) -> Any:
        if not begun:
            begun.append(again.jobs())
            with pytest.raises(JobConflict):
                again.start()
            reader = again.reader()
            part = reader.changed(NO_JOB, ["9"])
            scope = again.workspace.registry.scope(again.tenant)
            writer = PartWriter(scope, again.store, again.workspace.ledger, outage_budget=0)
            space = again.key().space
            writer.apply(encode_part(part, again.workspace.providers.provider_for(space)), space)
        return real(table)

    monkeypatch.setattr(importing, "from_table", meanwhile)
    job = again.import_(export)
    assert [job.kind for job in begun[0]] == ["import"]
    assert (job.counts.embedded, job.counts.unchanged) == (ROWS - 1, 1)
    assert again.copies()["9", 0].snippet == "the news"
    assert again.drift() == ()


def test_a_tenant_that_has_the_index_is_refused(source: Place, export: Path) -> None:
    with pytest.raises(ConflictError, match=f"acme has the content index of {TABLE} already"):
        source.import_(export)


def test_a_version_from_the_future_does_not_keep_writes_out(
    source: Place, again: Place, tmp_path: Path
) -> None:
    """The source's clock was ahead: what is written here later must win all the same."""
    ahead = 2**52
    source.sql("UPDATE rowbeam.qdrant_vectors SET version = :ahead WHERE record_id = '1'", ahead=ahead)
    scope = source.workspace.registry.scope(source.tenant)
    copy = replace(source.copies()["1", 0], version=ahead)
    source.store.write_copies(scope, source.key(), [copy])
    source.export(tmp_path / "out")
    source.copy_rows(again)
    again.import_(tmp_path / "out")
    assert again.copies()["1", 0].version < ahead
    again.sql(f"UPDATE {TABLE} SET title = 'the news' WHERE client_id = 2 AND id = 1")
    assert again.backfill().embedded == 1
    assert again.find("the news")[0] == "1"


def test_rows_that_are_not_there_are_orphans_of_the_import(source: Place, again: Place, export: Path) -> None:
    source.copy_rows(again)
    again.sql(f"DELETE FROM {TABLE} WHERE client_id = 2 AND id < 5")
    again.import_(export)
    assert sum(item.count for item in again.drift()) == 5
    assert again.backfill().deleted == 5
    assert again.drift() == ()


def test_a_space_that_nothing_serves_is_refused_before_anything_is_made(
    source: Place, export: Path, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(local_model="stub@64")
    for place in make_place(settings, EdgeStore(tmp_path / "e2"), 5, Placement.EMBEDDED, "elsewhere"):
        with pytest.raises(ConfigError, match="ROWBEAM_LOCAL_MODEL=stub"):
            place.import_(export)
        assert list_indexes(place.workspace.ledger, place.tenant.incarnation) == {}
        assert (
            list_jobs(place.workspace.ledger, include_ended=True, incarnation=place.tenant.incarnation) == []
        )


def test_a_table_that_is_not_there_is_refused(again: Place, export: Path) -> None:
    again.sql(f"ALTER TABLE {TABLE} RENAME TO away")
    with pytest.raises(UnknownTable):
        again.import_(export)


def _flip(export: Path) -> None:
    data = bytearray(parquet(export).read_bytes())
    data[len(data) // 2] ^= 1
    parquet(export).write_bytes(data)


def _cut(export: Path) -> None:
    parquet(export).write_bytes(parquet(export).read_bytes()[:-100])


def _remove(export: Path) -> None:
    parquet(export).unlink()


def _more_points(export: Path) -> None:
    edit(export, lambda document: document["indexes"][0].update(points=1))


def _another_table(export: Path) -> None:
    edit(export, lambda document: document["indexes"][0].update(table="issues"))


def _another_space(export: Path) -> None:
    edit(export, lambda document: document["indexes"][0]["space"].update(revision="2"))


def _outside(export: Path) -> None:
    edit(export, lambda document: document["indexes"][0]["file"].update(path="../../etc/passwd"))


def _a_backup(export: Path) -> None:
    edit(export, lambda document: document.update(format="rowbeam-backup"))


def _no_json(export: Path) -> None:
    (export / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    "damage",
    [_flip, _cut, _remove, _more_points, _another_table, _another_space, _outside, _a_backup, _no_json],
)
def test_damaged_files_are_refused_before_anything_is_written(
    again: Place, export: Path, damage: Callable[[Path], None]
) -> None:
    damage(export)
    with pytest.raises(InputError):
        again.import_(export)
    assert list_indexes(again.workspace.ledger, again.tenant.incarnation) == {}
    assert again.jobs() == []


_SCALARS = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.booleans(),
)
_PAYLOADS = st.dictionaries(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1, max_size=8),
    st.one_of(_SCALARS, st.lists(_SCALARS, max_size=3)),
    max_size=4,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=_PAYLOADS, snippet=st.text(st.characters(blacklist_categories=["Cs"]), max_size=50))
def test_any_payload_and_text_survives_the_columns(source: Place, data: dict[str, Any], snippet: str) -> None:
    from ray_app.db import copies as ledger_copies
    from ray_app.portability.rows import ExportedPoint, from_table, to_table

    key = source.key()
    with source.workspace.ledger.connect() as connection:
        place = (source.tenant.incarnation, key.table, key.vector_type, key.space.space_id)
        (row,) = ledger_copies.rows_of(connection, place, ["1"])
    point = replace(source.copies()["1", 0], data=data, snippet=snippet)
    (back,) = from_table(to_table(key, [ExportedPoint(point, row)]))
    np.testing.assert_array_equal(back.point.vector, point.vector)
    assert back.row == replace(row, snippet=snippet)
    assert (back.point.data, back.point.words, back.point.snippet) == (data, point.words, snippet)
