"""``up`` and ``down``, for real: a Ray head in the background, and Postgres for as long as it lives."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from ray_app.errors import RayUnavailable
from ray_app.settings import Settings, child_environment
from ray_app.stack.embedded import Stack, StackStatus
from ray_app.stack.processes import is_alive, processes_where
from ray_app.stack.ray_head import RayHead
from tests.support.waiting import wait_for

pytestmark = pytest.mark.ray

#: Submits a job that joins the cluster, waits for its end and prints its status and log.
SUBMIT = """
import sys, time
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient()
job = client.submit_job(entrypoint=sys.argv[1])
while not client.get_job_status(job).is_terminal():
    time.sleep(0.1)
print(client.get_job_status(job), client.get_job_logs(job))
"""
JOB = """
import os, ray
ray.init(logging_level="ERROR")
@ray.remote
def place():
    return os.environ["ROWBEAM_HOME"]
print("worker home", ray.get(place.remote()))
print("cpus", ray.cluster_resources()["CPU"])
"""
#: A job driver that says how it ended, as jobs.backfill does in the ledger.
DRIVER = """
import pathlib, signal, sys, time
ready, ended = map(pathlib.Path, sys.argv[1:])
def end(*_):
    ended.write_text("ended in order")
    sys.exit()
signal.signal(signal.SIGTERM, end)
ready.touch()
time.sleep(600)
"""


@contextmanager
def new_home() -> Iterator[Path]:
    """A home with a short path; nothing that works in it or for it may be left."""
    with tempfile.TemporaryDirectory(prefix="rb-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        yield home
        Stack(Settings(home=home)).down()
        left = list(processes_where(lambda it: folder in str(it.environ()) or it.cwd().startswith(folder)))
        for process in left:
            process.kill()
    assert left == []


@pytest.fixture
def home() -> Iterator[Path]:
    with new_home() as path:
        yield path


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Settings, StackStatus]]:
    """A stack that is up, and what its ``up`` answered."""
    with new_home() as home:
        settings = Settings(home=home)
        yield settings, Stack(settings).up()


def cluster_of(status: StackStatus) -> list[psutil.Process]:
    """Every process of the head's session."""
    assert status.head is not None
    leader = status.head.pid
    return list(processes_where(lambda it: os.getsid(it.pid) == leader))


def run_python(settings: Settings, code: str, *args: str, **environment: str) -> str:
    """The standard output of a process that has the variables the stack tells it to have."""
    stack = Stack(settings)
    variables = child_environment(stack.client_settings()) | stack.connection_env() | environment
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_up_starts_both_and_says_where(running: tuple[Settings, StackStatus]) -> None:
    settings, status = running
    assert status.changed == ("postgres", "ray")
    assert status.postgres_running
    assert status.head is not None
    assert Stack(settings).client_settings().ray_address == status.head.address
    secret = Path(status.head.token_path)
    assert (stat.S_IMODE(secret.stat().st_mode), stat.S_IMODE(secret.parent.stat().st_mode)) == (0o600, 0o700)
    assert stat.S_IMODE((settings.run_dir / "ray.log").stat().st_mode) == 0o600


def test_prometheus_finds_the_cluster_at_a_path_that_stays(running: tuple[Settings, StackStatus]) -> None:
    settings, status = running
    assert status.head is not None
    targets = RayHead(settings).targets
    assert targets.parent == settings.run_dir
    wait_for(targets.exists)  # Ray writes it a few seconds after its start
    assert targets.resolve() == Path(status.head.metrics_targets).resolve()


def test_up_again_changes_nothing(running: tuple[Settings, StackStatus]) -> None:
    settings, status = running
    again = Stack(settings).up()
    assert (again.head, again.changed) == (status.head, ())


def test_up_again_revives_a_killed_postgres(running: tuple[Settings, StackStatus]) -> None:
    settings, status = running
    pid = int((settings.postgres_dir / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Stack(settings).status().postgres_running)
    again = Stack(settings).up()
    assert (again.head, again.changed) == (status.head, ("postgres",))


def test_a_submitted_job_runs_with_this_homes_settings(running: tuple[Settings, StackStatus]) -> None:
    settings, _ = running
    printed = run_python(settings, SUBMIT, f"{sys.executable} -c '{JOB}'")
    assert "SUCCEEDED" in printed
    assert f"worker home {settings.home}" in printed
    # A job and two replicas need more than the two cores that a machine may have.
    assert float(printed.rpartition("cpus ")[2]) >= 4


def test_a_callers_own_token_does_not_get_in_the_way(
    running: tuple[Settings, StackStatus], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = running
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    assert f"worker home {settings.home}" in run_python(settings, JOB)


@pytest.mark.parametrize("path", ["/api/version", "/api/jobs/", "/api/serve/applications/"])
def test_nothing_is_told_without_the_token(running: tuple[Settings, StackStatus], path: str) -> None:
    _, status = running
    assert status.head is not None
    token = Path(status.head.token_path).read_text()
    with httpx.Client(base_url=status.head.dashboard_url, trust_env=False, timeout=30) as client:
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"authorization": f"Bearer {token[::-1]}"}).status_code == 403
        assert client.get(path, headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert client.post("/api/jobs/", json={"entrypoint": "true"}).status_code == 401


def test_the_dashboard_listens_on_this_machine_alone(running: tuple[Settings, StackStatus]) -> None:
    _, status = running
    assert status.head is not None
    port = httpx.URL(status.head.dashboard_url).port
    listening = {
        it.laddr.ip
        for process in cluster_of(status)
        for it in process.net_connections(kind="inet")
        if it.status == psutil.CONN_LISTEN and it.laddr.port == port
    }
    assert listening == {"127.0.0.1"}


def test_postgres_stays_up_when_a_command_ends(running: tuple[Settings, StackStatus]) -> None:
    settings, _ = running
    with Stack(settings).needed():
        pass
    assert Stack(settings).status().postgres_running


def test_down_stops_all_and_lets_a_job_end_in_order(running: tuple[Settings, StackStatus]) -> None:
    # The module's last test on the shared head: it goes down here.
    settings, status = running
    assert status.head is not None
    ready, ended = settings.home / "ready", settings.home / "ended"
    script = settings.home / "driver.py"
    script.write_text(DRIVER)
    submit = SUBMIT.partition("while")[0]
    run_python(settings, submit, f"{sys.executable} {script} {ready} {ended}")
    wait_for(ready.exists)
    members = cluster_of(status)
    assert len(members) > 5

    down = Stack(settings).down()
    assert down == StackStatus(postgres_running=False, head=None, changed=("postgres", "ray"))
    assert ended.read_text() == "ended in order"
    assert [process for process in members if is_alive(process)] == []
    assert not Path(status.head.session).exists()
    assert not RayHead(settings).targets.is_symlink()

    assert Stack(settings).down().changed == ()


def test_a_killed_head_leaves_nothing_that_down_does_not_find(home: Path) -> None:
    # With a database of one's own, so that no Postgres is started either; nobody asks it anything.
    settings = Settings.model_validate({"home": home, "database_url": "postgresql://127.0.0.1:1/x"})
    status = Stack(settings).up()
    assert (status.postgres_running, status.changed) == (None, ("ray",))
    assert not (home / "postgres").exists()
    assert status.head is not None
    assert status.head.pid is not None
    members = cluster_of(status)
    os.kill(status.head.pid, signal.SIGKILL)
    wait_for(lambda: Stack(settings).status().head is None)
    assert Stack(settings).down().changed == ("ray",)
    wait_for(lambda: not any(map(is_alive, members)))
    assert not Path(status.head.session).exists()


@pytest.mark.parametrize("moment", ["before its process is written down", "after"])
def test_down_cleans_up_after_an_up_that_was_killed(home: Path, moment: str) -> None:
    code = "import sys; from pathlib import Path; from ray_app.settings import Settings;"
    code += "from ray_app.stack.embedded import Stack; Stack(Settings(home=Path(sys.argv[1]))).up()"
    up = subprocess.Popen([sys.executable, "-c", code, str(home)])
    record = home / "run" / "ray.json"
    wait_for(lambda: record.exists() and json.loads(record.read_text())["pid"] is not None)
    up.kill()
    up.wait()
    written = json.loads(record.read_text())
    if moment != "after":
        record.write_text(json.dumps({**written, "pid": None}))
    head = psutil.Process(written["pid"])
    assert is_alive(head)
    assert set(Stack(Settings(home=home)).down().changed) == {"postgres", "ray"}
    assert not is_alive(head)
    assert not Path(written["session"]).exists()


def test_a_head_that_does_not_start_says_why_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ray itself loads this hook, and fails to.
    monkeypatch.setenv("RAY_START_HOOK", "no_such_module.hook")
    stack = Stack(Settings(home=home))
    with pytest.raises(RayUnavailable, match="no_such_module"):
        stack.up()
    assert stack.status() == StackStatus(postgres_running=False, head=None)
    assert not (home / "run" / "ray.json").exists()


#: What Ray calls in a starting head: three give up, as one does whose node is not in the cluster after 30
#: seconds; the first when it answers already.
GIVES_UP = """
import pathlib, time
from ray._private import services

def hook(parameters, head):
    starts = pathlib.Path(__file__).with_name("starts")
    with starts.open("a") as file:
        file.write("one more\\n")
    before = len(starts.read_text().splitlines()) - 1

    def give_up(address, node):
        time.sleep(0 if before else 15)
        raise Exception("The current node timed out during startup.")

    if before < 3:
        services.get_node = give_up
"""


def test_a_head_that_ray_gives_up_is_started_again_and_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gives_up.py").write_text(GIVES_UP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("RAY_START_HOOK", "gives_up.hook")
    stack = Stack(Settings(home=home))
    started = stack.up().head
    assert len((tmp_path / "starts").read_text().splitlines()) == 4
    assert "Ray runtime started" in (home / "run" / "ray.log").read_text(), "the last one's"
    assert started is not None
    assert stack.status().head == started
    stack.down()


def test_somebody_elses_cluster_is_left_alone(home: Path) -> None:
    settings = Settings(home=home, ray_address="192.0.2.1:6379")
    status = Stack(settings).up()
    assert (status.other_ray, status.changed) == ("192.0.2.1:6379", ())
    assert Stack(settings).connection_env() == {"RAY_ADDRESS": "192.0.2.1:6379"}
    assert Stack(settings).client_settings() == settings


def test_a_process_id_that_went_to_a_stranger_is_not_stopped(home: Path) -> None:
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        (home / "run").mkdir(parents=True)
        unused = dict.fromkeys(("address", "dashboard_url", "agent_url", "token_path"), "")
        record = {**unused, "session": str(home / "session"), "pid": stranger.pid}
        (home / "run" / "ray.json").write_text(json.dumps(record))
        stack = Stack(Settings(home=home))
        assert stack.status().head is None
        assert stack.down().changed == ()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_private_cluster_uses_this_homes_token_and_no_other(home: Path, tmp_path: Path) -> None:
    code = """
import ray
from ray._raylet import AuthenticationMode, get_authentication_mode
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20)
print(get_authentication_mode() == AuthenticationMode.TOKEN, ray.get(ray.remote(lambda: 42).remote()))
"""
    assert "True 42" in run_python(Settings(home=home), code, HOME=str(tmp_path))
    assert not (tmp_path / ".ray").exists()
