"""The embedded Postgres, for real: started, shared, killed and left as it was found."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import create_engine, text

from ray_app.errors import DatabaseUnavailable
from ray_app.settings import Settings
from ray_app.stack.embedded import Stack
from ray_app.stack.postgres import EmbeddedPostgres, embedded_url
from ray_app.stack.processes import is_alive, processes_where, wait_gone

#: A process that uses the database until its standard input closes.
USER = """
import sys
from pathlib import Path
from ray_app.settings import Settings
from ray_app.stack.postgres import EmbeddedPostgres
with EmbeddedPostgres(Settings(home=Path(sys.argv[1]))).running() as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A new home with a short path. No server may be left when the test is over."""
    with new_home() as path:
        yield path


@pytest.fixture(scope="module")
def settled_home() -> Iterator[Path]:
    with new_home() as path:
        with EmbeddedPostgres(Settings(home=path)).running():
            pass
        yield path


@pytest.fixture
def used_home(settled_home: Path) -> Iterator[Path]:
    """A home whose database is set up and stands still, before the test and after."""
    assert not is_running(settled_home)
    yield settled_home
    assert not is_running(settled_home)


@contextmanager
def new_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rb-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "home"
        left = list(processes_where(lambda it: it.name() == "postgres" and it.cwd().startswith(folder)))
        for process in left:
            process.kill()
    assert left == []


@contextmanager
def another_process(home: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the database of ``home``."""
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert user.stdout is not None
        assert user.stdout.readline().startswith("postgresql+psycopg://")
        yield user
    finally:
        user.communicate()
    assert user.returncode in (0, -signal.SIGKILL)


def run_sql(url: str, *statements: str) -> Any:
    """The last statement's first value."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            for statement in statements:
                result = connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def server_of(home: Path) -> psutil.Process:
    pid = int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    return psutil.Process(pid)


def is_running(home: Path) -> bool:
    return EmbeddedPostgres(Settings(home=home)).is_running()


def test_it_runs_while_needed_and_keeps_what_was_written(home: Path) -> None:
    settings = Settings(home=home)
    with pytest.raises(DatabaseUnavailable, match="never been started"):
        embedded_url(settings)
    with EmbeddedPostgres(settings).running() as url:
        run_sql(url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (42)")
        assert url == embedded_url(settings)
        assert run_sql(url, "SELECT current_database()") == "rowbeam"
        assert run_sql(url, "SELECT current_setting('fsync')") == "on"
        assert run_sql(url, "SELECT current_setting('synchronous_commit')") == "on"
        # Local logins are trusted, so the socket must be closed to other accounts, and no port open.
        assert stat.S_IMODE((home / "postgres" / ".s.PGSQL.5432").stat().st_mode) == 0o700
        assert server_of(home).net_connections(kind="inet") == []
    assert not is_running(home)
    with EmbeddedPostgres(settings).running() as url:
        assert run_sql(url, "SELECT n FROM kept") == 42


def test_it_is_left_as_found(used_home: Path) -> None:
    settings = Settings(home=used_home)
    with another_process(used_home):
        found = server_of(used_home)
        with Stack(settings).needed():
            assert server_of(used_home) == found
            with Stack(settings).needed():
                assert server_of(used_home) == found
        assert is_alive(found)
    assert not is_alive(found)


def test_the_first_to_come_may_be_the_first_to_leave(used_home: Path) -> None:
    first = another_process(used_home)
    first.__enter__()
    with another_process(used_home):
        first.__exit__(None, None, None)
        assert run_sql(embedded_url(Settings(home=used_home)), "SELECT 1") == 1
    assert not is_running(used_home)


def test_processes_that_come_at_once_share_one_server(used_home: Path) -> None:
    def use(_: int) -> int:
        with another_process(used_home):
            return server_of(used_home).pid

    with another_process(used_home), ThreadPoolExecutor(4) as pool:
        pids = set(pool.map(use, range(4)))
        assert pids == {server_of(used_home).pid}
    assert not is_running(used_home)


def test_a_new_home_is_set_up_once_by_processes_that_come_at_once(home: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        users = list(pool.map(lambda _: _entered(home), range(3)))
        assert is_running(home)
        list(pool.map(lambda user: user.__exit__(None, None, None), users))
    assert not is_running(home)


def _entered(home: Path) -> Any:
    user = another_process(home)
    user.__enter__()
    return user


def test_a_killed_user_is_not_counted(used_home: Path) -> None:
    with another_process(used_home) as user:
        orphan = server_of(used_home)
        user.kill()
        user.wait()
    assert is_alive(orphan)
    with EmbeddedPostgres(Settings(home=used_home)).running() as url:
        assert server_of(used_home) == orphan
        assert run_sql(url, "SELECT 1") == 1
    assert not is_alive(orphan)


def test_down_stops_a_server_that_a_killed_user_left(used_home: Path) -> None:
    with another_process(used_home) as user:
        user.kill()
        user.wait()
    assert Stack(Settings(home=used_home)).down().changed == ("postgres",)
    assert not is_running(used_home)


def test_down_leaves_a_server_that_is_in_use(used_home: Path) -> None:
    with another_process(used_home):
        status = Stack(Settings(home=used_home)).down()
        assert (status.postgres_running, status.changed) == (True, ())
        assert run_sql(embedded_url(Settings(home=used_home)), "SELECT 1") == 1


def test_a_killed_server_is_revived_with_its_data(used_home: Path) -> None:
    stack = Stack(Settings(home=used_home))
    with stack.needed():
        url = embedded_url(Settings(home=used_home))
        run_sql(url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (42)")
        for _ in range(2):
            killed = server_of(used_home)
            killed.kill()
            stack.revive()
            assert server_of(used_home) != killed
            assert run_sql(url, "SELECT n FROM kept") == 42
        stack.revive()
        assert is_running(used_home)
    assert not is_running(used_home)


def test_a_dead_servers_id_may_belong_to_a_stranger(used_home: Path) -> None:
    settings = Settings(home=used_home)
    with EmbeddedPostgres(settings).running():
        server = server_of(used_home)
        lines = (used_home / "postgres" / "postmaster.pid").read_text().splitlines()
        owner = server.uids().real
        server.kill()
        wait_gone([server], 10)
        # Of the same account: that is what PostgreSQL itself takes for the server.
        stranger = subprocess.Popen(["sleep", "600"], user=owner if os.geteuid() == 0 else None)
        try:
            lines[0] = str(stranger.pid)
            (used_home / "postgres" / "postmaster.pid").write_text("\n".join([*lines, ""]))
            assert not is_running(used_home)
            EmbeddedPostgres(settings).ensure_running()
            assert server_of(used_home).pid != stranger.pid
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()


def test_a_set_up_that_was_interrupted_is_begun_anew(home: Path) -> None:
    (home / "postgres.new" / "base").mkdir(parents=True)
    (home / "postgres.new" / "PG_VERSION").write_text("18\n")
    (home / "postgres").mkdir()
    with EmbeddedPostgres(Settings(home=home)).running() as url:
        assert run_sql(url, "SELECT 1") == 1
    assert not (home / "postgres.new").exists()


def test_a_home_that_was_deleted_under_its_server_is_made_anew(home: Path) -> None:
    with another_process(home) as user:
        lost = server_of(home)
        subprocess.run(["rm", "-rf", str(home)], check=True)
        with EmbeddedPostgres(Settings(home=home)).running() as url:
            assert not is_alive(lost)
            assert run_sql(url, "SELECT 1") == 1
        user.kill()


def test_a_long_path_with_odd_characters(home: Path) -> None:
    settings = Settings(home=home / ("é" * 60) / 'it\'s $HOME, "quoted"')
    with EmbeddedPostgres(settings).running() as url:
        assert run_sql(url, "SELECT current_database()") == "rowbeam"
        server_of(settings.home).kill()
        EmbeddedPostgres(settings).ensure_running()
        assert run_sql(url, "SELECT 1") == 1
    folder = Path(os.readlink(settings.run_dir / "postgres.socket"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with EmbeddedPostgres(settings).running() as again:
        assert again == url
    folder.rmdir()
    with EmbeddedPostgres(settings).running() as moved:
        assert run_sql(moved, "SELECT 1") == 1
    Path(os.readlink(settings.run_dir / "postgres.socket")).rmdir()


def test_the_callers_postgres_variables_change_nothing(used_home: Path) -> None:
    odd = {"PGPORT": "1", "PGDATABASE": "nope", "PGUSER": "nobody", "PGDATA": "/nope", "LC_ALL": "nope"}
    with another_process(used_home, **odd):
        assert run_sql(embedded_url(Settings(home=used_home)), "SELECT current_user") == "rowbeam"


@pytest.mark.parametrize("place", ["file", "under a file", "nowhere to write"])
def test_a_home_that_cannot_be_made_is_a_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    # /sys takes no folders, not even root's, whom permission bits do not stop.
    homes = {
        "file": tmp_path / "file",
        "under a file": tmp_path / "file" / "home",
        "nowhere to write": Path("/sys/rb"),
    }
    with pytest.raises(DatabaseUnavailable) as caught, Stack(Settings(home=homes[place])).needed():
        pytest.fail("it started")
    assert str(homes[place]) in caught.value.message
    assert "ROWBEAM_HOME" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("PG_VERSION", "16\n", "made by PostgreSQL 16"), ("notes.txt", "mine", "something other than")],
)
def test_a_folder_of_something_else_is_not_touched(home: Path, name: str, content: str, message: str) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / name).write_text(content)
    with pytest.raises(DatabaseUnavailable, match=message), Stack(Settings(home=home)).needed():
        pytest.fail("it started")
    assert [(path.name, path.read_text()) for path in (home / "postgres").iterdir()] == [(name, content)]


def test_a_server_that_does_not_start_says_why(home: Path) -> None:
    settings = Settings(home=home)
    with Stack(settings).needed():
        pass
    (home / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(DatabaseUnavailable, match="pg_control"), Stack(settings).needed():
        pytest.fail("it started")
    assert not is_running(home)


def test_a_server_of_ones_own_is_left_alone(home: Path) -> None:
    settings = Settings.model_validate({"home": home, "database_url": "postgresql://127.0.0.1:1/x"})
    stack = Stack(settings)
    with stack.needed():
        stack.revive()
        assert stack.status().postgres_running is None
    assert not home.exists()
