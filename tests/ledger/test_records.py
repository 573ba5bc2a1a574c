"""Pushed rows, without HTTP: what becomes of each, on a real Postgres and a real Edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from ray_app.backfilling import create_backfill, ensure_indexes
from ray_app.db import ledger, ranges
from ray_app.db.dead_letters import list_open
from ray_app.db.indexes import list_indexes
from ray_app.db.jobs import take_job
from ray_app.encoders.stub import POISON
from ray_app.encoding import encode_part
from ray_app.errors import (
    InvalidRecord,
    PermissionDenied,
    StoreUnavailable,
    TooLarge,
    UnknownTable,
    UnknownTenant,
    UnknownVectorType,
)
from ray_app.planning import make_plan
from ray_app.reading import RangeReader
from ray_app.records.planning import Outcome
from ray_app.records.pushing import Push
from ray_app.settings import Settings
from ray_app.spaces import VectorType
from ray_app.store.edge import EdgeStore
from ray_app.tenants import Placement
from ray_app.workspace import Workspace
from ray_app.writing import PartWriter
from tests.support.pushes import TABLE, PushSite
from tests.support.retired import retire

NUMBERS = count(1)
LONG = " ".join(f"word{number}" for number in range(600))  # three chunks


@pytest.fixture
def site(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[PushSite]:
    workspace = Workspace(make_settings())
    tenant, _ = workspace.registry.create("acme", 1, Placement.EMBEDDED)
    store = EdgeStore(tmp_path / "edge")
    yield PushSite.of(workspace, store, tenant)
    store.close()
    workspace.close()


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}Z"


def test_a_pushed_row_is_found_before_it_is_in_its_table(site: PushSite) -> None:
    assert site.outcomes(
        {"id": 1, "summary": "login fails"}, {"id": "2", "summary": "slow search"}, {"id": 3}
    ) == {"1": "embedded", "2": "embedded", "3": "no_text"}
    assert site.find("login fails")[0] == "1"
    site.check_exact()


def test_the_same_row_again_costs_nothing(site: PushSite) -> None:
    row = {"id": 1, "summary": "login fails", "updated_at": at(1), "status": "open"}
    site.push(row)
    assert site.outcomes(row) == {"1": "unchanged"}
    assert site.outcomes({**row, "id": "1", "no_such_column": 5, "client_id": 1}) == {"1": "unchanged"}
    assert site.embedded == 1


def test_a_row_that_a_job_reads_later_is_unchanged(site: PushSite) -> None:
    row = {
        "id": 7,
        "project_id": "P",
        "summary": "login fails",
        "description": "after update\x00",
        "labels": ["ui", "auth"],
        "created_at": "2026-01-01T10:00:00+02:00",
        "updated_at": "2026-01-02T00:00:00",
    }
    site.push(row, kinds=["content", "metadata"])
    with site.workspace.source.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO issues (client_id, id, project_id, summary, description, labels, created_at,"
                " updated_at) VALUES (1, 7, 'P', 'login fails', 'after update', '{ui,auth}',"
                " '2026-01-01T08:00:00Z', '2026-01-02T00:00:00Z')"
            )
        )
    plan = make_plan(
        site.workspace, site.tenant, tables=[TABLE], vector_types=["content", "metadata"], prefer=None
    )
    assert [(table.to_embed, table.unchanged) for table in plan.tables] == [(0, 1), (0, 1)]
    with site.workspace.source.connect() as connection:
        source = site.workspace.source_table(TABLE)
        (read,) = source.read(connection, 1, None, None)
    reader = site.workspace.reader(
        site.tenant, list_indexes(site.workspace.ledger, site.tenant.incarnation)[TABLE, VectorType.CONTENT]
    )
    with site.workspace.ledger.connect() as connection:
        space = reader.index.space.space_id
        known = ledger.entries(connection, site.tenant.incarnation, TABLE, "content", space, ["7"])
    assert reader.comparer.compare([read], known, {}).clean  # payload columns too


def test_changed_text_replaces_vectors_and_cuts_the_tail(site: PushSite) -> None:
    site.push({"id": 1, "description": LONG})
    assert len(site.snippets()["1"]) == 3
    assert site.outcomes({"id": 1, "description": "short"}) == {"1": "embedded"}
    assert site.snippets() == {"1": ["short"]}
    site.check_exact()


def test_an_older_state_never_wins(site: PushSite) -> None:
    site.push({"id": 1, "summary": "new", "updated_at": at(5)})
    assert site.outcomes({"id": 1, "summary": "old", "updated_at": at(4)}) == {"1": "older"}
    assert site.outcomes({"id": 1, "active": False, "updated_at": at(4)}) == {"1": "older"}
    assert site.outcomes({"id": 1, "summary": "same time", "updated_at": at(5)}) == {"1": "embedded"}
    assert site.snippets() == {"1": ["same time"]}


def test_a_newer_time_counts_even_when_nothing_else_changed(site: PushSite) -> None:
    site.push({"id": 1, "summary": "x", "updated_at": at(1)})
    assert site.outcomes({"id": 1, "summary": "x", "updated_at": at(9)}) == {"1": "unchanged"}
    assert site.outcomes({"id": 1, "summary": "y", "updated_at": at(5)}) == {"1": "older"}
    assert site.snippets() == {"1": ["x"]}


def test_without_a_time_the_later_call_wins(site: PushSite) -> None:
    site.push({"id": 1, "summary": "first", "updated_at": at(9)})
    assert site.outcomes({"id": 1, "summary": "second"}) == {"1": "embedded"}
    assert site.snippets() == {"1": ["second"]}


def test_changed_payload_columns_are_replaced_at_no_cost(site: PushSite) -> None:
    site.push({"id": 1, "summary": "x", "status": "open"})
    assert site.outcomes({"id": 1, "summary": "x", "status": "closed"}) == {"1": "unchanged"}
    scope = site.workspace.registry.scope(site.tenant)
    index = site.directory.open(site.tenant, scope, TABLE)[0]
    vector = site.workspace.providers.provider_for(index.index.space).embed_query("x")
    (hit,) = site.store.search(scope, index.key, vector, limit=5)
    assert hit.data["status"] == "closed"
    assert site.embedded == 1


def test_a_row_that_is_not_active_or_has_no_text_any_more_loses_its_vectors(site: PushSite) -> None:
    site.push({"id": 1, "summary": "one"}, {"id": 2, "summary": "two"}, {"id": 3, "summary": "three"})
    gone = ({"id": 1, "summary": "one", "active": False}, {"id": 2, "summary": " "})
    assert site.outcomes(*gone) == {"1": "deleted", "2": "no_text"}
    assert site.outcomes(*gone) == {"1": "deleted", "2": "no_text"}
    assert list(site.snippets()) == ["3"]
    site.check_exact()


def test_a_text_at_fault_is_dead_with_its_reason_and_the_others_are_embedded(site: PushSite) -> None:
    poison = {"id": 2, "summary": f"a {POISON} text"}
    done = site.push({"id": 1, "summary": "fine"}, poison)["content"]
    assert (done["1"].outcome, done["2"].outcome) == (Outcome.EMBEDDED, Outcome.DEAD)
    assert POISON in (done["2"].reason or "")
    asked = site.embedded
    again = site.push(poison)["content"]["2"]
    assert (again.outcome, again.reason, site.embedded) == (Outcome.DEAD, done["2"].reason, asked)
    assert site.outcomes({"id": 2, "summary": "healed"}) == {"2": "embedded"}
    assert list_open(site.workspace.ledger, site.tenant.incarnation) == []


def test_a_dead_record_keeps_its_former_vectors_and_revives_with_their_text(site: PushSite) -> None:
    site.push({"id": 1, "summary": "good", "updated_at": at(1)})
    assert site.outcomes({"id": 1, "summary": POISON, "updated_at": at(3)}) == {"1": "dead"}
    assert site.outcomes({"id": 1, "summary": "late", "updated_at": at(2)}) == {"1": "older"}
    assert site.snippets() == {"1": ["good"]}
    assert site.outcomes({"id": 1, "summary": "good", "updated_at": at(4)}) == {"1": "unchanged"}
    assert list_open(site.workspace.ledger, site.tenant.incarnation) == []


def test_a_dead_record_that_becomes_inactive_is_no_dead_letter(site: PushSite) -> None:
    site.push({"id": 1, "summary": POISON})
    assert site.outcomes({"id": 1, "active": False}) == {"1": "deleted"}
    assert list_open(site.workspace.ledger, site.tenant.incarnation) == []


@pytest.mark.parametrize(
    ("rows", "param"),
    [
        ([{"summary": "no id"}], "records[0].id"),
        ([{"id": 1}, {"id": None}], "records[1].id"),
        ([{"id": 1}, {"id": 2}, {"id": "1"}], "records[2].id"),
        ([{"id": 1}, {"id": True}], "records[1].id"),
        ([{"id": 1.0}], "records[0].id"),
        ([{"id": "1\x00"}], "records[0].id"),
        ([{"id": 1}, {"id": "abc"}], "records[1].id"),
        ([{"id": 2**70}], "records[0].id"),
        ([{"id": 1, "labels": "not a list"}], "records[0].labels"),
        ([*({"id": number} for number in range(9)), {"id": 9, "updated_at": "now"}], "records[9].updated_at"),
        ([{"id": 1, "updated_at": 1_700_000_000}], "records[0].updated_at"),
        ([{"id": 1, "summary": float("nan")}], "records[0].summary"),
        ([{"id": 1, "active": "perhaps"}], "records[0].active"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(
    site: PushSite, rows: list[dict[str, Any]], param: str
) -> None:
    with pytest.raises(InvalidRecord) as caught:
        site.push(*rows)
    assert caught.value.param == param
    assert site.snippets() == {}


def test_another_clients_row_refuses_the_whole_request(site: PushSite) -> None:
    for client in (2, "2", None, 1.0, True, [1]):
        with pytest.raises(PermissionDenied):
            site.push({"id": 1, "summary": "mine"}, {"id": 2, "summary": "x", "client_id": client})
    assert site.snippets() == {}
    assert site.outcomes({"id": 1, "summary": "mine", "client_id": "1"}) == {"1": "embedded"}


def test_keys_of_every_type_are_spelled_as_their_table_does(site: PushSite) -> None:
    reviews = "pull_request_reviews"
    upper = "0F8FAD5B-D9CB-469F-A165-70867728950E"
    assert list(site.outcomes({"id": upper, "content": "fine"}, table=reviews)) == [upper.lower()]
    assert list(site.outcomes({"id": 5, "name": "five"}, table="projects")) == ["5"]
    odd = "a/b c?d#é\U0001f600'--"
    assert list(site.outcomes({"id": odd, "name": "odd"}, table="projects")) == [odd]
    with pytest.raises(InvalidRecord):
        site.push({"id": "x" * 513, "name": "n"}, table="projects")


def test_half_surrogates_are_replaced(site: PushSite) -> None:
    assert site.outcomes({"id": 1, "summary": "bad \ud800 half", "labels": ["\udc00"]}) == {"1": "embedded"}
    assert site.snippets() == {"1": ["bad \ufffd half"]}


def test_too_much_text_is_refused_before_any_work(site: PushSite) -> None:
    with pytest.raises(TooLarge) as caught:
        site.push({"id": 1, "summary": "ok"}, {"id": 2, "summary": "w " * 12_000})
    assert caught.value.param == "records[1]"
    assert site.embedded == 0


def test_unknown_tables_and_types_are_refused(site: PushSite) -> None:
    with pytest.raises(UnknownTable):
        site.push({"id": 1}, table="secrets")
    with pytest.raises(UnknownVectorType):
        site.push({"id": 1}, kinds=["colour"])
    with pytest.raises(UnknownVectorType):
        site.push({"id": 1}, table="issue_changelogs", kinds=["metadata"])


def test_a_push_feeds_every_index_that_its_table_has(site: PushSite) -> None:
    row = {"id": 1, "summary": "s", "description": "d", "status": "open"}
    site.push(row, kinds=["metadata"])
    done = site.push(row)
    assert {kind: done[kind]["1"].outcome for kind in done} == {
        "content": Outcome.EMBEDDED,
        "metadata": Outcome.UNCHANGED,
    }


def test_a_new_index_is_pinned_as_a_backfill_would(site: PushSite) -> None:
    site.push({"id": 1, "summary": "x"})
    (pushed,) = list_indexes(site.workspace.ledger, site.tenant.incarnation).values()
    other, _ = site.workspace.registry.create("twin", 2, Placement.EMBEDDED)
    create_backfill(site.workspace, other, tables=[TABLE])
    (planned,) = list_indexes(site.workspace.ledger, other.incarnation).values()
    assert pushed == planned


def test_the_first_pushes_of_a_tenant_may_come_at_once(site: PushSite) -> None:
    sites = [PushSite.of(site.workspace, site.store, site.tenant) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        rows = [{"id": number, "summary": f"row {number}"} for number in range(8)]
        outcomes = list(threads.map(lambda mine, row: mine.outcomes(row), sites, rows))
    assert outcomes == [{str(number): "embedded"} for number in range(8)]
    site.check_exact()


def test_an_index_pinned_by_a_job_that_never_ran_is_set_up(site: PushSite) -> None:
    create_backfill(site.workspace, site.tenant, tables=[TABLE])
    assert site.outcomes({"id": 1, "summary": "x"}) == {"1": "embedded"}


def test_what_a_newer_call_overtook_is_not_written(site: PushSite) -> None:
    newer = {"id": 1, "summary": "newer", "updated_at": at(2)}
    site.meanwhile = lambda: _once(site, newer)
    assert site.outcomes({"id": 1, "summary": "older", "updated_at": at(1)}) == {"1": "older"}
    assert site.snippets() == {"1": ["newer"]}


def test_what_an_older_call_slipped_in_is_replaced(site: PushSite) -> None:
    site.push({"id": 1, "summary": "x", "updated_at": at(1)})
    site.meanwhile = lambda: _once(site, {"id": 1, "summary": "slipped in", "updated_at": at(2)})
    assert site.outcomes({"id": 1, "summary": "x", "updated_at": at(3)}) == {"1": "embedded"}
    assert site.snippets() == {"1": ["x"]}
    assert site.outcomes({"id": 1, "summary": "slipped in", "updated_at": at(2)}) == {"1": "older"}


def _once(site: PushSite, row: dict[str, Any]) -> None:
    site.meanwhile = lambda: None
    site.push(row)


def test_nothing_is_written_for_a_tenant_that_is_removed_meanwhile(site: PushSite) -> None:
    site.push({"id": 1, "summary": "x"})
    site.meanwhile = lambda: retire(site.workspace.ledger, site.tenant)
    with pytest.raises(UnknownTenant):
        site.push({"id": 2, "summary": "y"})
    assert list(site.snippets()) == ["1"]


class _LosesAnswers:
    """A store whose next upsert is written, and its acknowledgement lost."""

    def __init__(self, store: EdgeStore) -> None:
        self._store = store
        self.armed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def upsert(self, *args: Any) -> None:
        self._store.upsert(*args)
        if self.armed:
            self.armed = False
            raise StoreUnavailable("The acknowledgement was lost.")


def test_a_call_cut_off_between_store_and_ledger_is_repaired_by_the_next(site: PushSite) -> None:
    site.push({"id": 1, "description": LONG})
    store: Any = _LosesAnswers(site.store)  # type: ignore[arg-type]
    broken = PushSite.of(site.workspace, store, site.tenant)
    row = {"id": 1, "description": "short"}
    with pytest.raises(StoreUnavailable):
        broken.push(row)
    assert broken.outcomes(row) == {"1": "embedded"}
    assert site.snippets() == {"1": ["short"]}
    site.check_exact()


class _Job:
    """A backfill of ``issues``, stopped between reading its rows and writing them."""

    def __init__(self, site: PushSite) -> None:
        self._site = site
        job = take_job(site.workspace.ledger, create_backfill(site.workspace, site.tenant, tables=[TABLE]))
        pinned = list_indexes(site.workspace.ledger, site.tenant.incarnation)
        ensure_indexes(site.workspace, site.store, site.tenant, pinned.values())
        self._space = pinned[TABLE, VectorType.CONTENT].space
        reader = RangeReader(
            site.workspace.reader(site.tenant, pinned[TABLE, VectorType.CONTENT]),
            site.workspace.source,
            site.workspace.ledger,
            outage_budget=0,
        )
        provider = site.workspace.providers.provider_for(self._space)
        self._parts = [
            encode_part(part, provider)
            for work in ranges.pending(site.workspace.ledger, job.job_id)
            for part in reader.read(job.job_id, job.run, work)
        ]

    def write(self) -> None:
        site = self._site
        writer = PartWriter(
            site.workspace.registry.scope(site.tenant), site.store, site.workspace.ledger, outage_budget=0
        )
        for part in self._parts:
            assert writer.write(part, self._space).counted


def insert(site: PushSite, record: int, description: str) -> None:
    with site.workspace.source.begin() as connection:
        connection.execute(
            text("INSERT INTO issues (client_id, id, description) VALUES (1, :id, :description)"),
            {"id": record, "description": description},
        )


def test_a_job_that_read_a_longer_text_before_a_push_leaves_no_chunks_of_it(site: PushSite) -> None:
    insert(site, 1, LONG)
    job = _Job(site)
    site.push({"id": 1, "description": "short"})
    job.write()
    assert site.snippets() == {"1": ["short"]}
    site.check_exact()


def test_a_job_that_read_a_shorter_text_before_a_push_takes_no_chunks_from_it(site: PushSite) -> None:
    site.push({"id": 1, "description": f"once {LONG}"})
    insert(site, 1, "short")
    job = _Job(site)
    site.push({"id": 1, "description": LONG})
    job.write()
    assert len(site.snippets()["1"]) == 3
    assert site.outcomes({"id": 1, "description": LONG}) == {"1": "unchanged"}
    site.check_exact()


def test_a_job_that_missed_a_row_before_it_was_pushed_leaves_it(site: PushSite) -> None:
    site.push({"id": 1, "summary": "before"}, {"id": 2, "summary": "gone from its table"})
    job = _Job(site)  # neither row is in the table
    site.push({"id": 1, "summary": "just now"})
    job.write()
    assert site.snippets() == {"1": ["just now"]}
    site.check_exact()


def test_a_thousand_rows_in_one_call(site: PushSite) -> None:
    rows = [{"id": number, "summary": f"issue number {number}"} for number in range(1000)]
    assert set(site.outcomes(*rows).values()) == {"embedded"}
    assert set(site.outcomes(*rows).values()) == {"unchanged"}
    site.check_exact()


states = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(["alpha", "beta", "gamma", LONG])), min_size=2, max_size=6
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pushes=states)
def test_whatever_the_order_and_overlap_the_newest_state_stays(
    site: PushSite, pushes: list[tuple[int, str]]
) -> None:
    """Each (time, text) is pushed by a thread of its own; a time stands for one text."""
    texts: dict[int, str] = {}
    for time, words in pushes:
        texts.setdefault(time, f"{time} {words}")
    number = next(NUMBERS)

    def push(time: int) -> None:
        # A directory of its own, as another process has.
        mine = PushSite.of(site.workspace, site.store, site.tenant)
        mine.push({"id": number, "description": texts[time], "updated_at": at(time)})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(push, [time for time, _ in pushes]))
    (index,) = site.directory.open(site.tenant, site.workspace.registry.scope(site.tenant), TABLE)
    (chunks,) = index.chunker.chunk([texts[max(texts)]])
    newest = site.workspace.providers.provider_for(index.index.space).embed_documents(
        [chunk.text for chunk in chunks]
    )
    stored = site.store.vectors_of(site.workspace.registry.scope(site.tenant), index.key, str(number))
    np.testing.assert_allclose(stored, newest.vectors, atol=1e-6)
    assert site.snippets()[str(number)] == [chunk.snippet for chunk in chunks]
    site.check_exact()


def test_two_tables_and_twin_tenants_keep_apart(site: PushSite) -> None:
    twin, _ = site.workspace.registry.create("twin", 2, Placement.EMBEDDED)
    theirs = PushSite.of(site.workspace, site.store, twin)
    site.push({"id": 1, "summary": "ours alone"})
    theirs.push({"id": 1, "summary": "theirs alone"})
    assert (site.snippets(), theirs.snippets()) == ({"1": ["ours alone"]}, {"1": ["theirs alone"]})
    theirs.push({"id": 1, "active": False})
    assert site.find("theirs alone") == ["1"]
    site.check_exact()


def test_a_push_of_a_stale_tenant_value_is_refused(site: PushSite) -> None:
    """A scope of an incarnation that is gone writes nothing, whatever the tenant's name is now."""
    scope = site.workspace.registry.scope(site.tenant)
    retire(site.workspace.ledger, site.tenant)
    push = Push(site.directory, replace(site.tenant), scope, TABLE, max_record_tokens=100)
    with pytest.raises(UnknownTenant):
        push.begin([{"id": 1, "summary": "x"}])
