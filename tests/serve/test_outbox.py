"""With the outbox and a running server: what is committed is found within seconds, and gone as quickly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from sqlalchemy import Engine, text

from ray_app.db.engine import engine_for
from ray_app.stack.postgres import embedded_url
from tests.support.serve_site import ServeSite
from tests.support.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.ray

TABLE = "pull_requests"
#: Seconds from the commit to the search that the outbox promises.
PROMISED = 5.0


class Platform:
    """A tenant's rows in the platform's own database, and what its searches find."""

    def __init__(self, database: Engine, client: httpx.Client, number: int) -> None:
        self.database = database
        self.client = client
        self.number = number

    def sql(self, statement: str, **values: object) -> None:
        with self.database.begin() as connection:
            connection.execute(text(statement), {"client": self.number, **values})

    def insert(self, key: int, title: str) -> None:
        self.sql(
            f"INSERT INTO {TABLE} (client_id, id, title) VALUES (:client, :key, :title)", key=key, title=title
        )

    def found(self, words: str) -> list[str]:
        answer = self.client.post("/v1/search", json={"text": words, "tables": [TABLE], "limit": 3})
        assert answer.status_code == 200, answer.text
        return [hit["id"] for hit in answer.json()["hits"]]

    def seconds_until(self, condition: Callable[[], bool]) -> float:
        """How long after a commit just made it holds; longer than promised is for the caller to judge."""
        began = time.monotonic()
        wait_for(condition)
        return time.monotonic() - began


@pytest.fixture(scope="module")
def platform(site: ServeSite) -> Iterator[Platform]:
    """A tenant with one row in its index, and the outbox installed."""
    name, key = site.add_tenant()
    database = engine_for(embedded_url(site.settings))
    with database.connect() as connection:
        number = connection.scalar(
            text("SELECT client_id FROM rowbeam.tenants WHERE name = :name"), {"name": name}
        )
    with site.client(key) as client:
        found = Platform(database, client, number)
        row = {"id": 1, "title": "the first row"}
        assert client.put(f"/v1/tables/{TABLE}/records", json={"records": [row]}).status_code == 200
        found.insert(1, "the first row")
        assert site.rowbeam("sync", "--install", "--table", TABLE)["installed"] is True
        # The server looks for an outbox twice a second; the model has answered before.
        found.insert(2, "the second row")
        wait_for(lambda: "2" in found.found("the second row"), PATIENCE)
        yield found
    site.rowbeam("sync", "--uninstall")
    database.dispose()


def test_a_committed_row_is_found_within_seconds(platform: Platform) -> None:
    platform.insert(10, "zebra crossing")
    assert platform.seconds_until(lambda: platform.found("zebra crossing")[0] == "10") < PROMISED


def test_a_row_that_was_committed_late_is_found_within_seconds(platform: Platform) -> None:
    with platform.database.connect() as late, late.begin() as transaction:
        late.execute(
            text(f"INSERT INTO {TABLE} (client_id, id, title) VALUES (:client, 20, 'late arrival')"),
            {"client": platform.number},
        )
        platform.insert(21, "early arrival")
        wait_for(lambda: platform.found("early arrival")[0] == "21")
        transaction.commit()
    assert platform.seconds_until(lambda: "20" in platform.found("late arrival")) < PROMISED


def test_a_row_deleted_under_load_is_gone_within_seconds(platform: Platform) -> None:
    platform.insert(30, "yellow submarine")
    wait_for(lambda: "30" in platform.found("yellow submarine"))
    ended = threading.Event()

    def write() -> None:
        key = 100
        while not ended.wait(0.02):
            platform.insert(key, f"busy row {key}")
            platform.sql(
                f"UPDATE {TABLE} SET title = title || '!', updated_at = now()"
                " WHERE client_id = :client AND id BETWEEN :key - 5 AND :key",
                key=key,
            )
            key += 1

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        time.sleep(2)
        platform.sql(f"DELETE FROM {TABLE} WHERE client_id = :client AND id = 30")
        assert platform.seconds_until(lambda: "30" not in platform.found("yellow submarine")) < PROMISED
    finally:
        ended.set()
        writer.join(30)


def test_a_tenant_on_a_schedule_is_synced_without_an_outbox(site: ServeSite, platform: Platform) -> None:
    with platform.database.connect() as connection:
        name = connection.scalar(
            text("SELECT name FROM rowbeam.tenants WHERE client_id = :number"), {"number": platform.number}
        )
    with platform.database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # passes the triggers by
        connection.execute(
            text(f"INSERT INTO {TABLE} (client_id, id, title) VALUES (:client, 40, 'quiet entry')"),
            {"client": platform.number},
        )
    assert site.rowbeam("sync", "--tenant", name, "--every", "5")["every_seconds"] == 5
    wait_for(lambda: "40" in platform.found("quiet entry"))
    assert site.rowbeam("sync", "--status")["schedules"][name] == 5
    site.rowbeam("sync", "--tenant", name, "--every", "0")
    assert name not in site.rowbeam("sync", "--status")["schedules"]


def test_sync_from_the_command_line_says_what_it_did(site: ServeSite, platform: Platform) -> None:
    with platform.database.connect() as connection:
        name = connection.scalar(
            text("SELECT name FROM rowbeam.tenants WHERE client_id = :number"), {"number": platform.number}
        )
    done = site.rowbeam("sync", "--tenant", name, "--table", TABLE, "--full")
    (index,) = done["indexes"]
    assert (index["reading"], index["error"], index["job_id"]) == ("whole", None, None)
    assert done["ok"] is True
