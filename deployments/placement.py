"""What each deployment takes of a cluster, and how Serve keeps it alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from deployments.autoscaling import by_queued_tokens
from ray_app.serving.options import ServingOptions
from ray_app.settings import Settings

#: Logical CPUs. The router and the proxy wait most of the time; a GPU replica tokenises.
ROUTER_CPUS: Final = 0.25
GATEWAY_CPUS: Final = 0.1
GPU_REPLICA_CPUS: Final = 0.5
OTHER_MODEL_CPUS: Final = 0.05
#: The driver of a job waits for its stages. With a share of a CPU it goes where there are any: to a worker,
#: where a head that dies and comes back does not end it.
DRIVER_CPUS: Final = 0.1
#: Calls that Serve lets a replica have under way. Admission and the model's own queue decide, in tokens;
#: Serve's limits only stop what would get past them.
MAX_CALLS: Final = 2000
#: A resource that every Ray cluster has once, on its head; taking a crumb of it places an actor there.
HEAD: Final = "node:__internal_head__"
_CRUMB: Final = 0.001
#: A replica that cannot start says so after this many attempts, instead of Serve's 20.
_START_ATTEMPTS: Final = 3
#: Seconds for the calls under way of a replica that is stopped, and between looks whether they have ended.
_SHUTDOWN: Final = {"graceful_shutdown_timeout_s": 60.0, "graceful_shutdown_wait_loop_s": 0.5}


@dataclass(frozen=True)
class ModelPlacement:
    """Where the replicas of a local model go."""

    threads: int
    options: dict[str, Any]


def cpu_placement(options: ServingOptions) -> ModelPlacement:
    """Replicas on CPUs, each with as many logical CPUs as threads."""
    threads = options.threads_per_replica
    return ModelPlacement(threads, _model({"num_cpus": threads}, options.max_cpu_replicas))


def gpu_placement(options: ServingOptions) -> ModelPlacement:
    """Replicas on a share of a GPU. Ray schedules the share; the device's memory is not divided."""
    taken = {"num_cpus": GPU_REPLICA_CPUS, "num_gpus": options.gpu_share}
    return ModelPlacement(1, _model(taken, options.max_gpu_replicas))


def other_placement(options: ServingOptions) -> ModelPlacement:
    """Replicas of the second local model, on CPUs.

    They claim next to nothing of them: the model is there while indexes change to it or from it, and the
    job that does so has to fit beside both.
    """
    return ModelPlacement(
        options.threads_per_replica, _model({"num_cpus": OTHER_MODEL_CPUS}, options.max_cpu_replicas)
    )


def router_placement(options: ServingOptions, settings: Settings) -> dict[str, Any]:
    return {
        "num_replicas": options.router_replicas,
        "ray_actor_options": {"num_cpus": ROUTER_CPUS, **_beside_data(settings)},
        "max_ongoing_requests": MAX_CALLS,
        "max_queued_requests": MAX_CALLS,
        "max_constructor_retry_count": _START_ATTEMPTS,
        "user_config": {"drain": "off"},
        **_SHUTDOWN,
    }


def gateway_placement(settings: Settings) -> dict[str, Any]:
    return {
        "num_replicas": 1,
        "ray_actor_options": {"num_cpus": GATEWAY_CPUS, **_beside_data(settings)},
        "max_ongoing_requests": MAX_CALLS,
        "max_constructor_retry_count": _START_ATTEMPTS,
        **_SHUTDOWN,
    }


def replica_logs(settings: Settings) -> dict[str, Any]:
    """How a replica writes its log. It goes before what a Serve config says of the whole server.

    The API writes a line for each request; Serve would write one for each call of each replica as well.
    """
    encoding = "TEXT" if settings.log_format == "text" else "JSON"
    return {"logging_config": {"enable_access_log": False, "encoding": encoding}}


def driver_cpus(settings: Settings) -> float:
    """What a job's driver asks for; 0 leaves it on the head, beside data that is reached from there only."""
    return 0.0 if needs_head(settings) else DRIVER_CPUS


def _model(resources: dict[str, float], max_replicas: int) -> dict[str, Any]:
    return {
        "ray_actor_options": resources,
        "max_ongoing_requests": MAX_CALLS,
        "max_constructor_retry_count": _START_ATTEMPTS,
        "autoscaling_config": {
            "min_replicas": 1,
            "max_replicas": max_replicas,
            "upscale_delay_s": 10.0,
            "downscale_delay_s": 300.0,
            "policy": {"policy_function": by_queued_tokens},
        },
        **_SHUTDOWN,
    }


def needs_head(settings: Settings) -> bool:
    """Embedded data can be reached from one machine only, the one where ``rowbeam up`` was called."""
    return settings.embedded_store or settings.embedded_database


def _beside_data(settings: Settings) -> dict[str, Any]:
    return {"resources": {HEAD: _CRUMB}} if needs_head(settings) else {}
