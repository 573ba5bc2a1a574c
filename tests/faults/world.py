"""What faults fall on: a running server with its database and store, a gateway, and tenants."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psutil
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from ray_app import Rowbeam
from ray_app.db.engine import engine_for
from ray_app.errors import DatabaseUnavailable
from ray_app.settings import Settings
from ray_app.stack.postgres import embedded_url
from ray_app.stack.processes import processes_where
from ray_app.stack.ray_head import HeadRecord
from ray_app.tenants import Tenant
from tests.support.fake_gateway import FakeGateway
from tests.support.joined_node import JoinedNode, joined_node
from tests.support.ray_nodes import alive_nodes
from tests.support.serve_site import ServeSite, new_site
from tests.support.site import TABLE, JobSite
from tests.support.stepped_clock import SteppedClock
from tests.support.waiting import PATIENCE, wait_for

#: Width of the gateway's vectors, and the key it wants.
DIMENSIONS: Final = 64
_KEY: Final = "sk-faults"
#: MiB of the small file system that the embedded store has to itself, so that it can be filled.
_DISK_MIB: Final = 1024
#: Logical CPUs of a second node: enough that part of a job is placed there.
_NODE_CPUS: Final = 4
#: A call of either model takes this long, in ms: a job of a thousand rows lasts some seconds.
LATENCY_MS: Final = 250


@dataclass
class World:
    """Everything that runs, shared by all runs."""

    site: ServeSite
    gateway: FakeGateway
    rowbeam: Rowbeam
    database: Engine
    #: Where the embedded store's files are, if that is a file system that may be filled.
    disk: Path | None
    #: A tenant that nothing is done with, whose rows have the same keys as everybody's.
    bystander: Tenant
    #: Of the database.
    clock: SteppedClock
    #: Beside the head's, in runs that lose one.
    node: JoinedNode | None = None

    @property
    def jobs(self) -> JobSite:
        return JobSite(self.rowbeam, self.database)

    def client(self, key: str) -> httpx.Client:
        return self.site.client(key)

    def workers(self, title: str) -> list[psutil.Process]:
        """Processes of the cluster with ``title`` in their titles, idle ones not among them."""
        return self.site.processes(title)

    @contextmanager
    def second_node(self) -> Iterator[None]:
        """A new node beside the head's, as long as the block lasts; the cluster counts it no more then."""
        head = self.site.stack.status().head
        assert head is not None
        try:
            with joined_node(self.site.settings, head.address, _NODE_CPUS) as self.node:
                yield
        finally:
            self.node = None
            wait_for(lambda: self._nodes(head) == 1, PATIENCE)

    def _nodes(self, head: HeadRecord) -> int:
        token = Path(head.token_path).read_text(encoding="ascii")
        with httpx.Client(
            base_url=head.dashboard_url,
            headers={"authorization": f"Bearer {token}"},
            timeout=PATIENCE,
            trust_env=False,
        ) as client:
            return alive_nodes(client)

    def in_ledger(self, tenant: Tenant) -> int:
        """Rows of the tenant that the ledger has points of; 0 while it cannot be asked."""
        query = text("SELECT count(DISTINCT record_id) FROM rowbeam.qdrant_vectors WHERE incarnation = :of")
        with suppress(DatabaseUnavailable, SQLAlchemyError), self.database.connect() as connection:
            return int(connection.scalar(query, {"of": tenant.incarnation}) or 0)
        return 0

    def is_well(self) -> bool:
        """Whether database and server answer."""
        try:
            with self.database.connect() as connection:
                connection.execute(text("SELECT 1"))
        except (DatabaseUnavailable, SQLAlchemyError):
            return False
        return self.site.is_ready()

    def settle(self) -> None:
        """Wait until what a fault has ended is there again."""
        wait_for(self.is_well, PATIENCE)


@contextmanager
def new_world() -> Iterator[World]:
    """A server of its own on 127.0.0.1; nothing of it is left afterwards."""
    with FakeGateway(api_key=_KEY, dimensions=DIMENSIONS) as gateway:
        gateway.behaviour.latency = LATENCY_MS / 1000
        settings = {
            "url": gateway.url,
            "api_key": _KEY,
            "model": "text-embedding-3-small",
            "dimensions": DIMENSIONS,
            "timeout": 5,
        }
        with (
            new_site(gateway=settings, local_model=f"stub:{LATENCY_MS}") as site,
            _small_disk(site.settings) as disk,
            _database(site) as database,
        ):
            # Before anything is made there, whose defaults are to tell the same time.
            clock = SteppedClock(database)
            with _up(site), Rowbeam.open(site.settings) as rowbeam:
                yield _populated(site, gateway, rowbeam, database, disk, clock)


@contextmanager
def _database(site: ServeSite) -> Iterator[Engine]:
    """The embedded database, empty at first."""
    with site.stack.needed():
        database = engine_for(embedded_url(site.settings))
        try:
            yield database
        finally:
            database.dispose()


@contextmanager
def _up(site: ServeSite) -> Iterator[None]:
    try:
        site.up()
        yield
    finally:
        site.stack.down()


def _populated(
    site: ServeSite,
    gateway: FakeGateway,
    rowbeam: Rowbeam,
    database: Engine,
    disk: Path | None,
    clock: SteppedClock,
) -> World:
    bystander = rowbeam.add_tenant("bystander").tenant
    jobs = JobSite(rowbeam, database)
    jobs.insert(200, client=bystander.client_id)
    # The same keys as all others, and texts that only this tenant has.
    jobs.sql(f"UPDATE {TABLE} SET title = 'bystander ' || title WHERE client_id = {bystander.client_id}")
    rowbeam.backfill("bystander", tables=[TABLE])
    return World(site, gateway, rowbeam, database, disk, bystander, clock)


@contextmanager
def _small_disk(settings: Settings) -> Iterator[Path | None]:
    """A tmpfs where the embedded store's files will be; None without the privilege to mount one."""
    folder = settings.edge_dir
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        # What still has a file open there would keep the mount.
        for process in list(processes_where(lambda it: _uses(it, folder))):
            process.kill()
            with suppress(psutil.Error):
                process.wait(10)
        subprocess.run(["umount", str(folder)], check=True)


def _uses(process: psutil.Process, folder: Path) -> bool:
    mapped = (item.path for item in process.memory_maps()) if process.pid != os.getpid() else ()
    return any(path.startswith(f"{folder}/") for path in mapped)
