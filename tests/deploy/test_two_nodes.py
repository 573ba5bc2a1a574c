"""A cluster of two nodes, started as the systemd units start it: a head that takes no work, and a worker."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from ray_app import Rowbeam
from ray_app.reports import Counts, JobState
from ray_app.settings import Settings
from tests.conftest import fresh_database
from tests.support.documents import commands
from tests.support.ray_nodes import Cluster
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.ray

ROWS = 1000
TABLE = "pull_requests"


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, template_database: str
) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("two-nodes")
    with fresh_database(postgres_url, template_database) as url:
        yield Settings.model_validate({"home": home, "database_url": url, "local_model": "stub"})


@pytest.fixture(scope="module")
def cluster(settings: Settings) -> Iterator[Cluster]:
    with Cluster(settings) as cluster:
        cluster.start_head()
        cluster.start_worker(cpus=4)
        cluster.wait_for_nodes(2)
        yield cluster


@pytest.fixture(scope="module")
def rowbeam(settings: Settings) -> Iterator[Rowbeam]:
    with Rowbeam.open(settings) as rowbeam:
        rowbeam.add_tenant("acme", client_id=1)
        insert(rowbeam.workspace.ledger, ROWS)
        yield rowbeam


def insert(engine: Engine, rows: int, client: int = 1) -> None:
    """Rows with titles of their own; ids of a client's own."""
    with engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO {TABLE} (id, client_id, title)"
                " SELECT :client * 1000000 + n, :client, 'change ' || n"
                " FROM generate_series(1, CAST(:rows AS int)) AS n"
            ),
            {"rows": rows, "client": client},
        )


def test_the_head_has_no_work_to_give(cluster: Cluster) -> None:
    with cluster.http() as client:
        nodes = client.get("/api/v0/nodes").json()["data"]["result"]["result"]
    assert {node["is_head_node"]: node["resources_total"].get("CPU") for node in nodes} == {
        True: None,
        False: 4.0,
    }


def test_a_stranger_is_turned_away(cluster: Cluster) -> None:
    with cluster.http() as client:
        assert client.get("/api/jobs/", headers={"authorization": ""}).status_code == 401
        assert client.get("/api/jobs/", headers={"authorization": "Bearer guessed"}).status_code == 403


def test_a_submitted_backfill_is_watched_to_its_end(cluster: Cluster, rowbeam: Rowbeam) -> None:
    """By the commands of the document."""
    submit, ask, read, nodes = [command for command in commands("running.md") if command.startswith("ray ")]
    cluster.shell(submit)
    seen: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while status(cluster, "backfill") in ("PENDING", "RUNNING"):
        assert time.monotonic() < deadline, cluster.shell(read)
        seen += [job.processed_records for job in rowbeam.jobs(include_ended=True)]
        time.sleep(0.3)
    assert "succeeded" in cluster.shell(ask)
    assert "4.0 CPU" in cluster.shell(nodes)

    (job,) = rowbeam.jobs(include_ended=True)
    assert job.state is JobState.SUCCEEDED
    assert job.counts == Counts(read=ROWS, embedded=ROWS, chunks=ROWS)
    assert f"{job.job_id} succeeded: {ROWS} read = {ROWS} embedded" in cluster.shell(read)
    assert seen == sorted(seen), "progress only grows"


def test_work_was_done_on_the_worker_alone(cluster: Cluster) -> None:
    with cluster.http() as client:
        (head,) = [
            node["node_id"]
            for node in client.get("/api/v0/nodes").json()["data"]["result"]["result"]
            if node["is_head_node"]
        ]
        actors = client.get("/api/v0/actors", params={"detail": True}).json()["data"]["result"]["result"]
    worked = {actor["class_name"]: actor["node_id"] for actor in actors if "MapWorker" in actor["class_name"]}
    assert len(worked) == 2, "an encoder and a writer"
    assert head not in worked.values()


def test_the_same_numbers_are_in_postgres_and_in_the_store(cluster: Cluster, rowbeam: Rowbeam) -> None:
    """The last one: the store's files are counted when nothing has them open any more."""
    cluster.kill()
    with rowbeam.workspace.ledger.connect() as connection:
        vectors = connection.scalar(text("SELECT count(*) FROM rowbeam.qdrant_vectors"))
        left = connection.scalar(text("SELECT count(*) FROM rowbeam.ranges WHERE state <> 'done'"))
    assert (vectors, left) == (ROWS, 0)
    assert rowbeam.count_points("acme") == (ROWS, ROWS)
    assert rowbeam.search("acme", TABLE, "change 77", limit=1)[0].record_id == "1000077"


def status(cluster: Cluster, submission: str) -> str:
    with cluster.http() as client:
        answer = client.get(f"/api/jobs/{submission}")
    return str(answer.json()["status"])
