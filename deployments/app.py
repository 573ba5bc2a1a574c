"""The Serve application: ``serve run deployments.app:build``, ``serve deploy deployments/serve.yaml``.

Annotations are evaluated in this module: Serve hands a builder its raw arguments when the
parameter's annotation is a string.
"""

from typing import Any

import ray
from ray import serve
from ray.serve import Application

from deployments.local_model import LocalModelReplica
from deployments.names import GATEWAY_PROXY, LOCAL_CPU, LOCAL_GPU, LOCAL_OTHER, ROUTER
from deployments.placement import (
    HEAD,
    ROUTER_CPUS,
    ModelPlacement,
    cpu_placement,
    gateway_placement,
    gpu_placement,
    needs_head,
    other_placement,
    replica_logs,
    router_placement,
)
from deployments.router import Router
from ray_app.actors.cluster import NAMESPACE
from ray_app.encoders.stub import StubOptions
from ray_app.errors import ConfigError
from ray_app.serving.options import ServingOptions
from ray_app.settings import Settings


def build(options: ServingOptions) -> Application:
    """The router in front of the local model's replicas and, when one is configured, the gateway.

    Which parts there are is decided here, by the settings of the process that builds and by the
    GPUs of the cluster, which is joined when it is not yet (``serve run``: set ``RAY_ADDRESS``).

    Raises:
        ConfigError: a setting cannot be used, or the head takes no work and has to.
    """
    settings = Settings.from_env()
    handles = {LOCAL_CPU: _model(LOCAL_CPU, cpu_placement(options), "cpu", settings)}
    if options.max_gpu_replicas and StubOptions.parse(settings.local_model) is None and _cluster_has_gpu():
        handles[LOCAL_GPU] = _model(LOCAL_GPU, gpu_placement(options), "cuda", settings)
    if settings.other_model is not None:
        handles[LOCAL_OTHER] = _model(LOCAL_OTHER, other_placement(options), "cpu", settings.local_models[1])
    if settings.gateway is not None:
        from deployments.gateway_proxy import GatewayProxyReplica

        placed = {**gateway_placement(settings), **replica_logs(settings)}
        handles[GATEWAY_PROXY] = serve.deployment(name=GATEWAY_PROXY, **placed)(GatewayProxyReplica).bind()
    _check_head(settings)
    placed = {**router_placement(options, settings), **replica_logs(settings)}
    return serve.deployment(name=ROUTER, **placed)(serve.ingress()(Router)).bind(options, handles)


def _model(name: str, placement: ModelPlacement, device: str, settings: Settings) -> Any:
    deployment = serve.deployment(name=name, **placement.options, **replica_logs(settings))(LocalModelReplica)
    return deployment.bind(placement.threads, device, settings.local_model)


def _cluster_has_gpu() -> bool:
    if not ray.is_initialized():
        ray.init(namespace=NAMESPACE)
    return float(ray.cluster_resources().get("GPU", 0)) > 0


def _check_head(settings: Settings) -> None:
    """Raises ConfigError where a router beside embedded data would wait for a CPU of the head for ever."""
    if not needs_head(settings) or not ray.is_initialized():
        return
    heads = [node["Resources"] for node in ray.nodes() if HEAD in node["Resources"]]
    if heads and max(head.get("CPU", 0.0) for head in heads) < ROUTER_CPUS:
        raise ConfigError(
            "Embedded data can be reached from the head only, which has no CPUs for the server.",
            hint="Set ROWBEAM_DATABASE_URL and ROWBEAM_QDRANT_URL on every node, or give the head CPUs.",
        )
