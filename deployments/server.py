"""What a router replica works with: connections, providers, admission; made when it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import ray
from ray.serve.handle import DeploymentHandle

from deployments.job_submitter import RayJobSubmitter
from deployments.names import GATEWAY_PROXY, LOCAL_CPU, LOCAL_GPU, LOCAL_OTHER
from deployments.placement import driver_cpus
from deployments.targets import HandleTarget
from ray_app.actors.metrics import export_metrics
from ray_app.actors.stores import open_cluster_store
from ray_app.api.authentication import Authenticator
from ray_app.api.services import Services
from ray_app.baseline import starting_speeds
from ray_app.db.migrate import ensure_migrated
from ray_app.encoders.model_files import describe_space
from ray_app.metrics.declared import ISOLATION_VIOLATIONS
from ray_app.providers.local import local_name
from ray_app.sample.schema import create_tables
from ray_app.serving.admission import Admission
from ray_app.serving.coalescing import CoalescingTarget
from ray_app.serving.local_model import nearby_model
from ray_app.serving.nearby import NearbyTarget
from ray_app.serving.options import ServingOptions
from ray_app.serving.pool import PricedTarget, ProviderPool
from ray_app.serving.port import EmbeddingTarget
from ray_app.serving.traced import TracedTarget
from ray_app.serving.usage_log import UsageLog
from ray_app.settings import Settings
from ray_app.spaces import Preference
from ray_app.stack.admin_key import ensure_admin_key
from ray_app.tracing.spans import enabled as tracing_enabled
from ray_app.workspace import Workspace


async def open_services(options: ServingOptions, handles: Mapping[str, DeploymentHandle]) -> Services:
    """The services of this replica, its ledger migrated. ``handles`` are those of the providers, by name.

    Raises:
        RowbeamError: a setting cannot be used, or something needed to start cannot be reached.
    """
    settings = Settings.from_env()
    workspace = Workspace(settings)
    await asyncio.to_thread(_prepare_database, workspace)
    targets = await asyncio.to_thread(_targets, workspace, handles, options)
    backend = ProviderPool(targets)
    default = backend.spaces()[0]
    ISOLATION_VIOLATIONS.start()
    export_metrics(backend.sample)
    return Services(
        workspace=workspace,
        store=open_cluster_store(settings),
        backend=backend,
        admission=Admission(options, lambda: backend.load(default)),
        authenticator=Authenticator(workspace.registry, ensure_admin_key(settings)),
        usage=UsageLog(workspace.ledger),
        jobs=RayJobSubmitter(ray.get_runtime_context().gcs_address, workspace.ledger, driver_cpus(settings)),
        options=options,
    )


def _prepare_database(workspace: Workspace) -> None:
    ensure_migrated(workspace.ledger)
    if workspace.settings.embedded_database:
        # Ours to try things in, as for ``Rowbeam``; a real one has the platform's tables.
        with workspace.ledger.begin() as connection:
            create_tables(connection)


def _targets(
    workspace: Workspace, handles: Mapping[str, DeploymentHandle], options: ServingOptions
) -> list[PricedTarget]:
    """A target for each handle, the local ones first: their space is the default."""
    targets = []
    speeds = starting_speeds(workspace.settings.home)
    local = [describe_space(settings) for settings in workspace.settings.local_models]
    for name in (LOCAL_CPU, LOCAL_GPU, LOCAL_OTHER, GATEWAY_PROXY):
        if name in handles:
            if name == GATEWAY_PROXY:
                space = workspace.providers.spaces_for(Preference.QUALITY)
            else:
                space = local[-1 if name == LOCAL_OTHER else 0]
            target: EmbeddingTarget = HandleTarget(
                _provider_name(name, workspace.settings), space, handles[name]
            )
            if name == LOCAL_CPU and options.nearby_tokens:
                near = nearby_model(workspace.settings)
                if near is not None:
                    target = NearbyTarget(target, near, max_tokens=options.nearby_tokens)
            if name != GATEWAY_PROXY:  # which gathers texts itself, and is paid by the call
                target = CoalescingTarget(target)
            if tracing_enabled():
                target = TracedTarget(target)
            price = workspace.providers.price_per_million(space)
            speed = speeds.get((target.name, space.space_id), 0.0)
            targets.append(PricedTarget(target, price, speed))
    return targets


def _provider_name(deployment: str, settings: Settings) -> str:
    """What the API and the usage call it, which is what jobs call it too."""
    if deployment in (LOCAL_CPU, LOCAL_OTHER):
        name = local_name(settings.local_models[-1 if deployment == LOCAL_OTHER else 0])
        return "local-cpu" if name == "local-gpu" else name
    return {LOCAL_GPU: "local-gpu", GATEWAY_PROXY: "gateway"}[deployment]
