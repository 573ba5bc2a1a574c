"""The whole server as an operator runs it: ``rowbeam up`` on a home and a port of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil

from ray_app.settings import Settings, child_environment
from ray_app.stack.admin_key import admin_key_path
from ray_app.stack.embedded import Stack
from ray_app.stack.processes import processes_where
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE

ROWBEAM = Path(sys.executable).with_name("rowbeam")


class ServeSite:
    """A home, and the server that belongs to it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stack = Stack(settings)
        self.url = f"http://{settings.http_host}:{settings.http_port}"

    def command(self, *arguments: str) -> list[str]:
        return [str(ROWBEAM), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """An operator's shell, left over from a cluster that is gone."""
        return child_environment(self.settings) | {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}

    def rowbeam(self, *arguments: str) -> dict[str, Any]:
        """What a command of ours printed as JSON."""
        done = subprocess.run(
            self.command(*arguments, "--json"),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def up(self) -> dict[str, Any]:
        return self.rowbeam("up")

    def down(self) -> dict[str, Any]:
        return self.rowbeam("down")

    def client(self, key: str | None = None) -> httpx.Client:
        """A client with a tenant's key, the operator's unless another is given."""
        key = key or admin_key_path(self.settings).read_text("ascii").strip()
        return httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"},
            timeout=PATIENCE,
            trust_env=False,
        )

    def is_ready(self) -> bool:
        try:
            answer = httpx.get(f"{self.url}/readyz", trust_env=False, timeout=PATIENCE)
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def add_tenant(self) -> tuple[str, str]:
        """The name and key of a new tenant."""
        name = f"t-{uuid4().hex[:8]}"
        with self.client() as admin:
            answer = admin.post("/v1/tenants", json={"name": name})
        assert answer.status_code == 201, answer.text
        return name, str(answer.json()["key"]["api_key"])

    def processes(self, title: str) -> list[psutil.Process]:
        """The cluster's processes whose title or command contains ``title``."""
        head = self.stack.status().head
        assert head is not None
        return list(
            processes_where(lambda it: os.getsid(it.pid) == head.pid and title in " ".join(it.cmdline()))
        )

    def postgres(self) -> psutil.Process:
        """The embedded database server."""
        pid = (self.settings.postgres_dir / "postmaster.pid").read_text("ascii").split()[0]
        return psutil.Process(int(pid))

    def replicas(self, deployment: str) -> list[psutil.Process]:
        return self.processes(f"ServeReplica:rowbeam:{deployment}")

    def replica(self, deployment: str) -> psutil.Process:
        """The process of a deployment that has one replica."""
        (process,) = self.replicas(deployment)
        return process


@contextmanager
def new_site(**settings: Any) -> Iterator[ServeSite]:
    """A site that is not up yet. When it is over nothing that works in it or for it may be left."""
    with tempfile.TemporaryDirectory(prefix="rb-", ignore_cleanup_errors=True) as folder:
        values = {"home": Path(folder) / "home", "local_model": "stub:20", "http_port": free_port()}
        site = ServeSite(Settings.model_validate({**values, **settings}))
        try:
            yield site
        finally:
            site.stack.down()
            left = list(
                processes_where(lambda it: folder in str(it.environ()) or it.cwd().startswith(folder))
            )
            found = [" ".join(process.cmdline()) for process in left]
            for process in left:
                process.kill()
    assert found == [], found
