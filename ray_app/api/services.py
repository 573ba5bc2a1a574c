"""What the routes work with, made once for a server; and how a route gets at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, Final, ParamSpec, Protocol, TypeVar

from fastapi import Depends, Request

from ray_app.api.authentication import Authenticator
from ray_app.api.surveys import Surveys
from ray_app.records.directory import IndexDirectory
from ray_app.serving.admission import Admission
from ray_app.serving.options import ServingOptions
from ray_app.serving.port import EmbeddingBackend
from ray_app.serving.usage_log import UsageLog
from ray_app.store.port import VectorStore
from ray_app.tenants import Tenant
from ray_app.workspace import Workspace

P = ParamSpec("P")
T = TypeVar("T")

#: Threads for calls of Postgres and the store; as many as the engine's pool has connections, so that
#: a burst waits here, in order, and not for a connection until that times out.
THREADS: Final = 8


class JobSubmitter(Protocol):
    """Starts the driver of a job that was created."""

    async def submit(self, job_id: str, tenant: Tenant) -> None:
        """Returns when the job was handed over. Raises RayUnavailable."""


@dataclass
class Services:
    """Everything a route may use. Closed by whoever made the parts."""

    workspace: Workspace
    store: VectorStore
    backend: EmbeddingBackend
    admission: Admission
    authenticator: Authenticator
    usage: UsageLog
    jobs: JobSubmitter
    options: ServingOptions
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "services"))
    surveys: Surveys = field(default_factory=Surveys)

    @cached_property
    def directory(self) -> IndexDirectory:
        """The tenants' indexes, looked up and made."""
        return IndexDirectory(self.workspace, self.store)

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that blocks. A caller that hangs up is gone at once; a call that has begun runs
        to its end and keeps its thread until then, one that has not is never made."""
        call = partial(copy_context().run, function, *args, **kwargs)  # log lines have the request's id
        return await asyncio.get_running_loop().run_in_executor(self.threads, call)


async def services_of(request: Request) -> Services:
    """For FastAPI, which calls what is not async in a thread."""
    services: Services = request.app.state.services
    return services


FromServices = Annotated[Services, Depends(services_of)]
