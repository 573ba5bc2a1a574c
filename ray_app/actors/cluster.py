"""Joining a Ray cluster, or starting a private one that lives as long as this process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import ray
from ray._private import ray_constants
from ray._private.state import available_resources_per_node
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # of its extension module

from ray_app.errors import RayUnavailable, SettingsMismatch
from ray_app.settings import Settings
from ray_app.stack.ray_command import HOST

#: Namespace of Rowbeam's named actors; a job's own namespace is anonymous.
NAMESPACE: Final = "rowbeam"
#: The actor that is there exactly when Ray Serve is; ``ray.serve`` is not imported to ask for it.
SERVE_CONTROLLER_NAME: Final = "SERVE_CONTROLLER_ACTOR"
SERVE_NAMESPACE: Final = "serve"
#: Logical CPUs of a private cluster: enough for the stages of one job on a machine of any size.
MIN_CPUS: Final = 2
#: Bytes of a private cluster's object store; a job's blocks are small and few.
OBJECT_STORE_BYTES: Final = 256 * 1024**2


@dataclass(slots=True)
class _Shared:
    """This process's one connection to Ray, and how many threads work on it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


_shared: Final = _Shared()


@contextmanager
def connected(settings: Settings) -> Iterator[str]:
    """Join the cluster at ``settings.ray_address``, or start a private one. Yields its GCS address.

    A process has one connection to Ray. Threads share it: the first one in connects, the last one out
    disconnects, and a connection that somebody else made stays.

    Raises:
        RayUnavailable: no cluster answers at that address.
    """
    with _shared.lock:
        # Two threads inside ``ray.init`` at once break each other's connection.
        ours = _shared.users > 0 or not ray.is_initialized()
        if not ray.is_initialized():
            try:
                _init(settings)
            except (ConnectionError, RuntimeError, OSError) as error:
                raise RayUnavailable(
                    f"Ray cannot be reached or started: {str(error).splitlines()[0]}",
                    hint="Check RAY_ADDRESS and the cluster's token, or run rowbeam up.",
                ) from error
        _shared.users += ours
    try:
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        with _shared.lock:
            _shared.users -= ours
            if ours and not _shared.users:
                ray.shutdown()


def _init(settings: Settings) -> None:
    # Ray reads its token once in the life of a process. This one may have been in a cluster with another.
    AuthenticationTokenLoader.instance().reset_cache()
    common = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.WARNING}
    if settings.ray_address:
        if settings.ray_address.startswith(f"{HOST}:"):
            # Ray reads the variable of ``ray_variables`` when it is imported, maybe before it was set; it
            # would then look for our head at the machine's outer address, where nothing listens.
            ray_constants.ENABLE_RAY_CLUSTER = False
        ray.init(address=settings.ray_address, **common)
        return
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, MIN_CPUS),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        _node_ip_address=HOST,
        **common,
    )


def worker_settings(fingerprint: str) -> Settings:
    """The settings of the worker this runs in, which must be the driver's.

    Secrets are read where they are used and never travel through Ray.

    Raises:
        SettingsMismatch: the node was started with other variables.
    """
    settings = Settings.from_env()
    if settings.fingerprint() != fingerprint:
        raise SettingsMismatch(
            "A Ray worker sees other settings than the job's driver.",
            hint="Set the same ROWBEAM_* variables (an absolute ROWBEAM_HOME too) before ray start or "
            "rowbeam up on every node.",
        )
    return settings


def has_server() -> bool:
    """Whether Ray Serve runs on the joined cluster. Asks only; Serve's own calls may start it."""
    if not ray.is_initialized():
        return False
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def free_cpus_by_node() -> list[float]:
    """Logical CPUs of each node that nothing holds now. Ray Data counts those of all nodes, taken or not."""
    return [float(free.get("CPU", 0.0)) for free in available_resources_per_node().values()]


def free_gpus() -> float:
    """GPUs, and shares of them, that nothing holds now."""
    return float(ray.available_resources().get("GPU", 0.0))
