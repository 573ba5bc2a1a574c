"""How the server is sized: the arguments of the Serve application."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from ray_app.cores import usable_cores

#: Cores that a replica takes whole: with one of two, a text took longer and the other core mostly idled.
_FEW_CORES: Final = 2


class ServingOptions(BaseModel):
    """Defaults suit one machine. ``serve.yaml`` gives them under ``args``; ``serve run`` as ``key=value``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Router replicas. A tenant's limits are shared out evenly among them.
    router_replicas: int = Field(default=1, ge=1)
    #: Most CPU replicas of the local model; each takes ``cpu_threads`` cores.
    max_cpu_replicas: int = Field(default=1, ge=1)
    #: Threads, and logical CPUs, of one CPU replica; 0 takes half the node's cores, but 2 where it has them.
    cpu_threads: int = Field(default=0, ge=0)
    #: Tokens of a caller's single text that a router embeds by itself, while it has nothing else for the
    #: local model, with a copy of one thread; 0 makes no copies, about 180 MB each.
    nearby_tokens: int = Field(default=64, ge=0)
    #: Most GPU replicas of the local model; none is made on a cluster without a GPU.
    max_gpu_replicas: int = Field(default=1, ge=0)
    #: Share of a GPU that one replica takes; half leaves room for a job's encoder on a machine with one GPU.
    gpu_share: float = Field(default=0.5, gt=0, le=1)

    #: Bytes of a request's body.
    max_body_bytes: int = Field(default=32 * 1024**2, gt=0)
    #: Inputs of one embeddings request; OpenAI's own limit.
    max_inputs: int = Field(default=2048, gt=0)
    #: Rows of one upsert.
    max_records: int = Field(default=1000, gt=0)
    #: Tokens of one row's text.
    max_record_tokens: int = Field(default=500_000, gt=0)
    #: Tokens taken in and not answered yet, of all tenants; above it new work is refused with 503.
    max_queued_tokens: int = Field(default=500_000, gt=0)
    #: Requests under way, of all tenants.
    max_requests: int = Field(default=512, gt=0)

    @property
    def threads_per_replica(self) -> int:
        """Threads of one CPU replica on a node like this one."""
        cores = usable_cores()
        return self.cpu_threads or max(min(cores, _FEW_CORES), cores // 2)
