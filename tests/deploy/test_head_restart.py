"""A head that is killed in mid-job and started again, with its tables in Redis (GCS fault tolerance)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from ray_app import Rowbeam
from ray_app.reports import Counts, JobProgress, JobState
from ray_app.settings import Settings
from tests.conftest import fresh_database
from tests.deploy.test_two_nodes import TABLE, insert, status
from tests.support.deploy_files import environment_example
from tests.support.ray_nodes import Cluster
from tests.support.redis_server import redis_server
from tests.support.waiting import wait_for

pytestmark = pytest.mark.ray

ROWS = 1500
#: The encoder's texts a second: the job lasts several times as long as a head is away.
SPEED = 150
#: A driver with a share of a CPU is placed where there are CPUs: on a worker. Without, on the head.
ON_A_WORKER = ("--entrypoint-num-cpus", "0.1")


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, template_database: str
) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("head-restart")
    with fresh_database(postgres_url, template_database) as url:
        yield Settings.model_validate({"home": home, "database_url": url, "local_model": f"stub:{SPEED}"})


@pytest.fixture(scope="module")
def cluster(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        variables = {
            "RAY_REDIS_ADDRESS": redis.address,
            "RAY_REDIS_PASSWORD": redis.password,
            "RAY_external_storage_namespace": "rowbeam",
        }
        assert set(variables) <= set(environment_example(with_commented=True)), "as the example names them"
        # The head of a loaded machine may need more than one start, and more than the 60 seconds.
        variables["RAY_gcs_rpc_server_reconnect_timeout_s"] = "300"
        with Cluster(settings, variables) as cluster:
            cluster.start_head()
            cluster.start_worker(cpus=4)
            cluster.wait_for_nodes(2)
            yield cluster


@pytest.fixture(scope="module")
def rowbeam(settings: Settings) -> Iterator[Rowbeam]:
    with Rowbeam.open(settings) as rowbeam:
        yield rowbeam


def submit(cluster: Cluster, name: str, *arguments: str, where: tuple[str, ...] = ()) -> None:
    done = cluster.ray(
        *("job", "submit", "--no-wait", "--submission-id", name, *where, "--"),
        *(sys.executable, "-m", "jobs.backfill", *arguments),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def job_when(rowbeam: Rowbeam, tenant: str, test: Callable[[JobProgress], bool]) -> JobProgress:
    """The tenant's latest job, once it is as ``test`` says."""
    found: list[JobProgress] = []

    def is_so() -> bool:
        found[:] = [job for job in rowbeam.jobs(include_ended=True) if job.tenant == tenant][:1]
        return any(map(test, found))

    wait_for(is_so)
    return found[0]


def break_head(cluster: Cluster, rowbeam: Rowbeam, tenant: str) -> JobProgress:
    """In mid-job, and start it again. Answers what was done when it went."""
    before = job_when(rowbeam, tenant, lambda job: job.processed_records >= 200)
    assert cluster.head is not None
    cluster.head.kill()
    cluster.start_head()
    return before


def test_a_job_whose_driver_is_on_a_worker_goes_on(cluster: Cluster, rowbeam: Rowbeam) -> None:
    rowbeam.add_tenant("acme", client_id=1)
    insert(rowbeam.workspace.ledger, ROWS)
    submit(cluster, "first", "--tenant", "acme", "--tables", TABLE, where=ON_A_WORKER)
    before = break_head(cluster, rowbeam, "acme")
    assert before.processed_records < ROWS

    # It may be called interrupted meanwhile: on a busy machine its heart can be silent for too long.
    job = job_when(rowbeam, "acme", lambda job: job.state is JobState.SUCCEEDED)
    assert job.counts == Counts(read=ROWS, embedded=ROWS, chunks=ROWS), "once each"
    wait_for(lambda: status(cluster, "first") != "RUNNING")
    assert status(cluster, "first") == "SUCCEEDED", "the head that was started knows the job of the other"


def test_the_cluster_is_the_same_one(cluster: Cluster) -> None:
    cluster.wait_for_nodes(2)


def test_a_job_whose_driver_was_on_the_head_is_resumed(cluster: Cluster, rowbeam: Rowbeam) -> None:
    rowbeam.add_tenant("brightquay", client_id=2)
    insert(rowbeam.workspace.ledger, ROWS, client=2)
    submit(cluster, "second", "--tenant", "brightquay", "--tables", TABLE)
    before = break_head(cluster, rowbeam, "brightquay")

    job = job_when(rowbeam, "brightquay", lambda job: job.state is JobState.INTERRUPTED)
    assert before.processed_records <= job.processed_records < ROWS
    cluster.wait_for_nodes(2)
    # From the head, which can see that the driver is gone; any other machine waits for its lease to run out.
    submit(cluster, "third", "--tenant", "brightquay", "--resume", job.job_id)
    job = job_when(rowbeam, "brightquay", lambda job: job.state is JobState.SUCCEEDED)
    assert job.counts == Counts(read=ROWS, embedded=ROWS, chunks=ROWS), "nothing lost, nothing done twice"


def test_nothing_was_lost_in_the_store(cluster: Cluster, rowbeam: Rowbeam) -> None:
    """The last one: the files are counted when nothing has them open any more."""
    cluster.kill()
    for tenant in ("acme", "brightquay"):
        assert rowbeam.count_points(tenant) == (ROWS, ROWS)
