"""The command line of a Ray head that stays out of the way of any other cluster on the machine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from ray_app.stack.ports import free_ports

#: The address the head gives its node, and with ``ray_variables`` keeps: its servers then listen on
#: loopback alone.
HOST: Final = "127.0.0.1"
#: Bytes of the object store; a job's blocks are small and few.
_OBJECT_STORE_BYTES: Final = 512 * 1024**2


@dataclass(frozen=True)
class Ports:
    """The ports that Ray would otherwise take from a fixed list."""

    gcs: int
    dashboard: int
    agent: int
    agent_grpc: int
    client: int
    metrics: int
    runtime_env: int
    dashboard_metrics: int
    autoscaler_metrics: int

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody listens on, kept for the head for a minute. Raises OSError."""
        return cls(*free_ports(len(fields(cls))))

    def variables(self) -> dict[str, str]:
        """Ports that have no option."""
        return {
            "DASHBOARD_METRIC_PORT": str(self.dashboard_metrics),
            "AUTOSCALER_METRIC_PORT": str(self.autoscaler_metrics),
        }


def start_command(ports: Ports, *, session: str, num_cpus: int) -> list[str]:
    """The module and arguments of ``ray start``, in the foreground, with all its files under ``session``."""
    return [
        *("ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats", "--log-color=false"),
        f"--node-ip-address={HOST}",
        f"--port={ports.gcs}",
        "--include-dashboard=true",  # the Jobs API is part of it
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={ports.dashboard}",
        f"--dashboard-agent-listen-port={ports.agent}",
        f"--dashboard-agent-grpc-port={ports.agent_grpc}",
        f"--ray-client-server-port={ports.client}",
        f"--metrics-export-port={ports.metrics}",
        f"--runtime-env-agent-port={ports.runtime_env}",
        *("--min-worker-port=0", "--max-worker-port=0"),  # any free port
        f"--num-cpus={num_cpus}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        # A folder of its own: the default one tells every Ray on the machine of the latest cluster.
        f"--temp-dir={session}",
    ]
