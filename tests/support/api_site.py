"""The API as its users meet it: real HTTP, Postgres, store and model in this process, without Ray."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from ray_app import onboarding
from ray_app.api.app import create_api
from ray_app.api.authentication import Authenticator
from ray_app.api.services import JobSubmitter, Services
from ray_app.serving.admission import Admission
from ray_app.serving.gateway_proxy import GatewayProxy
from ray_app.serving.local_model import local_model
from ray_app.serving.options import ServingOptions
from ray_app.serving.pool import PricedTarget, ProviderPool
from ray_app.serving.port import EmbeddingBackend
from ray_app.serving.usage_log import UsageLog
from ray_app.settings import Settings, child_environment
from ray_app.spaces import Preference
from ray_app.store.port import VectorStore
from ray_app.store.routing import open_store
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace
from tests.support.gateway_helpers import QUICK
from tests.support.waiting import PATIENCE

ADMIN_KEY = "rbadmin_for-tests-only-0123456789"


class ChildJobs:
    """A ``JobSubmitter`` that drives each job in a child process, which starts a Ray of its own.

    The embedded store is let go of first: one process at a time can have a tenant's vectors open.
    Requests that need them while a job runs wait for it.
    """

    def __init__(self, settings: Settings, store: VectorStore) -> None:
        self._settings = settings
        self._store = store
        self.children: list[subprocess.Popen[bytes]] = []

    async def submit(self, job_id: str, tenant: Tenant) -> None:
        self._store.close()
        command = ["-m", "jobs.backfill", "--tenant", tenant.name, "--resume", job_id, "--new"]
        log = self._settings.run_dir / "jobs" / f"{job_id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            child = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=child_environment(self._settings),
            )
        self.children.append(child)

    def close(self) -> None:
        """Ask what still runs to end, which takes its Ray along, and wait for it."""
        for child in self.children:
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


class ApiSite:
    """A server on a free port of 127.0.0.1; use as a context manager.

    ``backend``, ``jobs`` and ``admission`` stand in for the real ones where a test needs a fault
    they cannot be told to make.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        options: ServingOptions | None = None,
        backend: Callable[[Workspace], EmbeddingBackend] | None = None,
        jobs: JobSubmitter | None = None,
        wrap_store: Callable[[VectorStore], VectorStore] | None = None,
    ) -> None:
        self.settings = settings.model_copy(update={"admin_key": SecretStr(ADMIN_KEY)})
        self.options = options or ServingOptions()
        self._make_backend = backend
        self._jobs = jobs
        self._wrap_store = wrap_store
        self._proxy: GatewayProxy | None = None
        self._exit = ExitStack()
        self.admin_key = ADMIN_KEY
        self.url = ""
        self.workspace: Workspace
        self.store: VectorStore
        self.services: Services
        self.app: FastAPI

    def __enter__(self) -> ApiSite:
        with ExitStack() as opening:
            self.workspace = Workspace(self.settings)
            opening.callback(self.workspace.close)
            store: VectorStore = open_store(self.settings)
            opening.callback(store.close)
            self.store = self._wrap_store(store) if self._wrap_store else store
            jobs = self._jobs
            if jobs is None:
                jobs = ChildJobs(self.settings, store)
                opening.callback(jobs.close)
            backend = self._backend(opening)
            default = backend.spaces()[0]
            self.services = Services(
                workspace=self.workspace,
                store=self.store,
                backend=backend,
                admission=Admission(self.options, lambda: backend.load(default)),
                authenticator=Authenticator(self.workspace.registry, SecretStr(ADMIN_KEY)),
                usage=UsageLog(self.workspace.ledger),
                jobs=jobs,
                options=self.options,
            )
            opening.callback(self.services.threads.shutdown)
            self.app = create_api(self.services)
            self.url = opening.enter_context(UvicornThread(self.app, self._close_proxy)).url
            self._exit = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def _backend(self, opening: ExitStack) -> EmbeddingBackend:
        """The one given, or the local model's; the gateway's beside it when one is configured."""
        if self._make_backend is not None:
            return self._make_backend(self.workspace)
        model = local_model(self.settings)
        opening.callback(model.close)
        targets = [PricedTarget(model)]
        if self.settings.other_model is not None:
            other = local_model(self.settings.local_models[1])
            opening.callback(other.close)
            targets.append(PricedTarget(other))
        if self.settings.gateway is not None:
            space = self.workspace.providers.spaces_for(Preference.QUALITY)
            self._proxy = GatewayProxy(self.workspace, space=space, backoff=QUICK)
            price = self.workspace.providers.price_per_million(space)
            targets.append(PricedTarget(self._proxy, price))
        return ProviderPool(targets)

    async def _close_proxy(self) -> None:
        if self._proxy is not None:
            await self._proxy.close()

    def add_tenant(self, name: str, *, client_id: int | None = None, **limits: Any) -> str:
        """A new tenant with these ``Limits``; returns its key."""
        new = onboarding.add_tenant(self.workspace, self.store, name, client_id, None)
        if limits:
            self.workspace.registry.set_limits(name, limits)
            self.services.authenticator.forget()
        return new.api_key.text

    def tenant(self, name: str) -> Tenant:
        return self.workspace.registry.get(name)

    def http(self, key: str | None = None, **options: Any) -> httpx.Client:
        """A client of this server that sends ``key``; close it when done."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **options)


class UvicornThread:
    """An ASGI application on a free port of 127.0.0.1, served by a loop on a thread of its own.

    ``at_end`` is awaited on that loop when no request is left.
    """

    def __init__(self, app: FastAPI, at_end: Callable[[], Awaitable[None]] | None = None) -> None:
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        self._server = uvicorn.Server(config)
        self._at_end = at_end
        # asyncio turns Nagle's algorithm off where it sees the protocol named; else each answer takes 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="api-site", daemon=True
        )

    def __enter__(self) -> UvicornThread:
        self._thread.start()
        deadline = time.monotonic() + PATIENCE
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise AssertionError("the server did not start")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        self._socket.close()
        assert not self._thread.is_alive(), "the server did not end"

    async def _serve(self) -> None:
        await self._server.serve(sockets=[self._socket])
        if self._at_end is not None:
            await self._at_end()
