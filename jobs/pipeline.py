"""The Ray Data pipeline of a job: ranges → parts → vectors → index and ledger."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ray.data import ActorPoolStrategy, DataContext, ExecutionResources, read_datasource

from jobs.postgres_source import PostgresRanges
from jobs.stages import EncodeStage, JobContext, WriteStage
from ray_app.actors.cluster import free_cpus_by_node, free_gpus
from ray_app.actors.turns import Terms, turns_actor
from ray_app.db.ranges import RangeSpec
from ray_app.errors import RayUnavailable

#: Reading and writing wait for Postgres and the store most of the time. A row costs a reader a small part of
#: what it costs an encoder, so two readers keep dozens of encoders busy.
READ_CPUS: Final = 0.25
WRITE_CPUS: Final = 0.25
READERS: Final = 2
_IO_CPUS: Final = READERS * READ_CPUS + WRITE_CPUS
#: Logical CPUs, and torch threads, of one local encoder where there are that many.
ENCODER_CPUS: Final = 4
#: Share of a GPU of one local encoder; the server's replica has the other half by default.
ENCODER_GPUS: Final = 0.5
#: A gateway encoder only waits for HTTP.
GATEWAY_CPUS: Final = 0.1
#: Parts that one encoder works on: a local model takes them in turn, and never waits for the next.
ENCODER_CALLS: Final = 2
#: Calls of a gateway at once, by all jobs of a cluster that others share.
GATEWAY_CALLS: Final = 8
#: On a cluster that others share a job claims so small a part of the logical CPUs it is sized for: who
#: embeds is decided by turns, and a claim of all of them would shut every later job out.
SHARED_CLAIM: Final = 1 / 8
#: Bytes of the object store that blocks in flight may take: how far readers run ahead of the model.
BLOCK_BYTES: Final = 64 * 1024**2
#: Bytes at which a stage hands a block on: no part has fewer, so each goes on as soon as it is ready. Ray's
#: default joins a read task's parts into one block, which is then encoded, and written, as one.
PART_BLOCK_BYTES: Final = 1


@dataclass(frozen=True)
class EncoderPool:
    """How encoder actors are placed."""

    size: int
    cpus: float
    gpus: float
    #: Torch threads of each; None takes all cores of the node.
    threads: int | None


def size_pool(provider: str, nodes: Sequence[float], gpus: float) -> EncoderPool:
    """The encoder actors that fit beside readers and the writer into what is free.

    ``nodes`` are the free logical CPUs of each node, ``gpus`` the free GPUs of all.

    Raises:
        RayUnavailable: not even one fits; Ray Data would wait for ever.
    """
    if provider == "gateway":
        # One, so that a text which two parts have is sent once.
        pool = EncoderPool(1, GATEWAY_CPUS, 0, 1)
    elif provider == "local-gpu":
        pool = EncoderPool(max(math.floor(gpus / ENCODER_GPUS), 1), 0.5, ENCODER_GPUS, None)
    else:
        size, cpus = _fit(nodes)
        pool = EncoderPool(size, cpus, 0, math.floor(cpus) if size > 1 else None)
    if pool.gpus > gpus:
        raise RayUnavailable(
            f"The job needs {pool.gpus:g} of a GPU and the cluster has {gpus:g} free.",
            hint="Wait for other jobs, or leave it a share: gpu_share of the server's options.",
        )
    needed, free = _IO_CPUS + pool.size * pool.cpus, sum(nodes)
    if needed > free or pool.cpus > max(nodes):
        raise RayUnavailable(
            f"The job needs {needed:g} free logical CPUs and the cluster has {free:g}.",
            hint="Wait for other jobs, stop Serve replicas, or add a node (ray start --num-cpus).",
        )
    return pool


def _fit(nodes: Sequence[float]) -> tuple[int, float]:
    """How many CPU encoders, of how many logical CPUs each: as many CPUs as one can have, then all that fit.

    An actor is on one node, so what is free on several does not add up. An encoder of half a CPU is
    the smallest; one is answered also where none fits.
    """
    for cpus in (*range(ENCODER_CPUS, 0, -1), 0.5):
        size = sum(math.floor(free / cpus) for free in nodes)
        # Readers and the writer are small enough for what any node has left.
        while size and size * cpus + _IO_CPUS > sum(nodes):
            size -= 1
        if size:
            return size, float(cpus)
    return 1, 0.5


def run_pipeline(
    context: JobContext, work: Sequence[RangeSpec], provider: str, progress: Any, *, shared: bool = False
) -> None:
    """Do ``work``, all of it served by ``provider``. Returns when every part has been written.

    On a ``shared`` cluster, where other jobs may run, parts are embedded in turns.

    Raises what a stage raised, as Ray wraps it.
    """
    nodes, gpus = free_cpus_by_node(), free_gpus()
    pool = size_pool(provider, nodes, gpus)
    _configure(sum(nodes), gpus)
    claim = 1.0
    if shared:
        claim = SHARED_CLAIM
        turns_actor()
        context = replace(context, turns=_terms(context, provider, pool))
    parts = read_datasource(
        PostgresRanges(context, work),
        num_cpus=READ_CPUS * claim,
        # A second process would cost a CPU encoder on the same cores more than it brings.
        concurrency=1 if pool.size == 1 and not pool.gpus else READERS,
        override_num_blocks=max(READERS * 2, 1),
    )
    vectors = parts.map_batches(
        EncodeStage,
        fn_constructor_kwargs={
            "context": context,
            "threads": pool.threads,
            "warm": any(item.kind != "sweep" for item in work),
        },
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            size=pool.size, max_concurrent_calls_per_actor=ENCODER_CALLS, enable_true_multi_threading=True
        ),
        num_cpus=pool.cpus * claim,
        num_gpus=pool.gpus or None,
    )
    receipts = vectors.map_batches(
        WriteStage,
        fn_constructor_kwargs={"context": context, "progress": progress},
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=1),
        num_cpus=WRITE_CPUS * claim,
    )
    for _ in receipts.iter_batches(batch_size=None, prefetch_batches=0):
        pass


def _terms(context: JobContext, provider: str, pool: EncoderPool) -> Terms:
    tenant = str(context.tenant.incarnation)
    if provider == "gateway":
        return Terms(tenant, provider, GATEWAY_CALLS, one_each=False)
    return Terms(tenant, provider, pool.size, one_each=True)


def _configure(free: float, gpus: float) -> None:
    data = DataContext.get_current()
    data.enable_progress_bars = False
    data.target_max_block_size = PART_BLOCK_BYTES
    data.execution_options.verbose_progress = False
    data.execution_options.resource_limits = ExecutionResources.for_limits(
        cpu=free, gpu=gpus, object_store_memory=BLOCK_BYTES
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
