"""What the outbox notes comes to the indexes: all of it, once, whatever fails on the way."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from uuid import uuid4

import pytest

from ray_app.db.outbox import Lane, Outbox
from ray_app.errors import ProviderUnavailable
from ray_app.serving.port import EmbedCall
from ray_app.tenants import Placement
from tests.support.sync_site import TABLE, CountedBackend, SyncSite

#: Claims everything for a moment, and ends without a word.
CLAIM_AND_DIE = """
import os, signal, sys
from datetime import timedelta
from uuid import uuid4
from ray_app.db.engine import engine_for
from ray_app.db.outbox import Outbox
outbox = Outbox(engine_for(sys.argv[1]), uuid4(), timedelta(seconds=float(sys.argv[2])))
for lane in outbox.lanes():
    assert outbox.claim(lane, 100)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_changes_and_deletes_reach_the_index(changing: SyncSite, backend: CountedBackend) -> None:
    changing.install()
    changing.insert((1, "one"), (2, "two"), (3, "three"))
    changing.drain(backend)
    assert changing.records() == ["1", "2", "3"]
    changing.sql(f"UPDATE {TABLE} SET title = 'uno', updated_at = now() WHERE id = 1")
    changing.sql(f"DELETE FROM {TABLE} WHERE id = 2")
    changing.sql(f"UPDATE {TABLE} SET active = false WHERE id = 3")
    changing.drain(backend)
    assert changing.records() == ["1"]
    assert changing.find("uno") == ["1"]
    assert changing.queued() == []
    assert backend.texts == ["one", "two", "three", "uno"]
    changing.check_exact()


def test_a_transaction_that_commits_late_is_not_missed(changing: SyncSite, backend: CountedBackend) -> None:
    changing.install()
    late = f"INSERT INTO {TABLE} (client_id, id, title) VALUES (1, 9, 'late')"
    with changing.open_transaction(late) as commit:
        changing.insert((10, "early"))
        changing.drain(backend)
        assert changing.records() == ["10"]
        commit()
    changing.drain(backend)
    assert changing.records() == ["10", "9"]


def test_a_truncated_table_is_emptied_for_every_tenant(changing: SyncSite, backend: CountedBackend) -> None:
    other, _ = changing.workspace.registry.create("other", 2, Placement.EMBEDDED)
    changing.index(tenant=other)
    changing.install()
    changing.insert((1, "one"))
    changing.insert((1, "uno"), client=2)
    changing.drain(backend)
    assert changing.records(other) == ["1"]
    changing.sql(f"TRUNCATE {TABLE}")
    changing.insert((5, "five"))
    changing.drain(backend, turns=3)
    assert changing.records() == ["5"]
    assert changing.records(other) == []
    assert changing.queued() == []


def test_two_drainers_share_five_thousand_changes_without_doubling_any(
    changing: SyncSite, backend: CountedBackend
) -> None:
    changing.install()
    changing.sql(
        f"INSERT INTO {TABLE} (client_id, id, title) SELECT 1, n, 'row ' || n FROM generate_series(1, 2000) n"
    )
    changing.sql(f"UPDATE {TABLE} SET title = title || ' again', updated_at = now()")
    changing.sql(f"DELETE FROM {TABLE} WHERE id > 1500")
    assert len(changing.queued()) == 4_500
    changing.drain(backend, drainers=2, turns=2)
    assert changing.queued() == []
    assert len(changing.records()) == 1_500
    # One record's changes may be in two claims at once; both read the same state.
    assert len(set(backend.texts)) == 1_500
    assert len(backend.texts) <= 1_500 + 2 * 200
    changing.check_exact()


@pytest.mark.parametrize("counted", [False, True], ids=["never counted", "counted while empty"])
def test_a_claim_takes_no_more_than_it_was_asked_to(changing: SyncSite, counted: bool) -> None:
    # Postgres plans by what it last counted; the rows that came since must not change what a claim means.
    changing.install()
    if counted:
        changing.sql("ANALYZE rowbeam.outbox")
    rows = "SELECT 1, n, 'row' FROM generate_series(1, 500) n"
    changing.sql(f"INSERT INTO {TABLE} (client_id, id, title) {rows}")
    mine, yours = (Outbox(changing.database, uuid4(), timedelta(seconds=30)) for _ in range(2))
    lane = Lane(1, TABLE)
    claims = [outbox.claim(lane, 200) for outbox in (mine, yours, mine)]
    assert [len(claim) for claim in claims] == [200, 200, 100]
    assert [entry.record_id for claim in claims for entry in claim] == [str(key) for key in range(1, 501)]


def test_claims_of_a_drainer_that_was_killed_come_back(changing: SyncSite, backend: CountedBackend) -> None:
    changing.install()
    changing.insert((1, "one"), (2, "two"))
    url = changing.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    killed = subprocess.run([sys.executable, "-c", CLAIM_AND_DIE, url, "600"], check=False)
    assert killed.returncode == -9
    changing.drain(backend)
    assert changing.records() == []
    changing.sql("UPDATE rowbeam.outbox SET held_until = held_until - interval '600 s'")
    changing.drain(backend)
    assert changing.records() == ["1", "2"]
    assert changing.queued() == []


def test_a_text_the_worker_cannot_stand_becomes_a_dead_letter_alone(
    changing: SyncSite, backend: CountedBackend
) -> None:
    def fail(call: EmbedCall) -> None:
        if "poison" in call.texts:
            raise RuntimeError("a defect")

    backend.fails = fail
    changing.install()
    changing.insert((1, "one"), (2, "poison"), (3, "three"))
    for _ in range(6):
        changing.drain(backend)
        changing.sql("UPDATE rowbeam.outbox SET held_until = NULL")
    assert changing.records() == ["1", "3"]
    assert changing.queued() == []
    assert changing.scalar("SELECT record_id FROM rowbeam.dead_letters WHERE state = 'open'") == "2"
    changing.sql(f"UPDATE {TABLE} SET title = 'cured' WHERE id = 2")
    changing.drain(backend)
    assert changing.records() == ["1", "2", "3"]
    assert changing.scalar("SELECT count(*) FROM rowbeam.dead_letters WHERE state = 'open'") == 0


def test_a_tenant_whose_provider_is_down_waits_alone(changing: SyncSite, backend: CountedBackend) -> None:
    other, _ = changing.workspace.registry.create("other", 2, Placement.EMBEDDED)
    changing.index(tenant=other)

    def fail(call: EmbedCall) -> None:
        if call.incarnation == other.incarnation:
            raise ProviderUnavailable("It is down.")

    backend.fails = fail
    changing.install()
    changing.insert((1, "one"), (2, "two"))
    changing.insert((1, "uno"), client=2)
    changing.drain(backend, turns=3)
    assert changing.records() == ["1", "2"]
    assert changing.queued() == [(2, "1")]
    assert changing.scalar("SELECT attempts FROM rowbeam.outbox") == 0
    backend.fails = lambda call: None
    changing.drain(backend, lease=timedelta(seconds=5))
    assert changing.records(other) == ["1"]


def test_a_client_that_is_no_tenant_leaves_nothing_behind(
    changing: SyncSite, backend: CountedBackend
) -> None:
    changing.install()
    changing.insert((1, "one"), client=77)
    changing.drain(backend)
    assert changing.queued() == []
    assert backend.texts == []


def test_an_older_state_never_wins_over_a_push(changing: SyncSite, backend: CountedBackend) -> None:
    changing.install()
    changing.insert((1, "one"))
    changing.drain(backend)
    changing.sql(
        f"UPDATE {TABLE} SET title = 'stale', updated_at = updated_at - interval '1 hour' WHERE id = 1"
    )
    changing.drain(backend)
    assert backend.texts == ["one"]
    assert changing.queued() == []
