"""How many encoders a job starts: what fits beside a server, never what could not be placed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.placement import GATEWAY_CPUS, ROUTER_CPUS, cpu_placement
from jobs.pipeline import READ_CPUS, READERS, WRITE_CPUS, size_pool
from ray_app.errors import RayUnavailable
from ray_app.serving.options import ServingOptions

IO = READERS * READ_CPUS + WRITE_CPUS
#: Logical CPUs of a head on two cores; see ``ray_app.stack.ray_head``.
SMALLEST_HEAD = 5


@given(
    st.sampled_from(["stub", "local-cpu", "local-gpu", "gateway"]),
    st.lists(st.integers(0, 256).map(lambda quarters: quarters / 4), min_size=1, max_size=8),
    st.integers(0, 16).map(lambda halves: halves / 2),
)
def test_what_is_started_fits(provider: str, nodes: list[float], gpus: float) -> None:
    try:
        pool = size_pool(provider, nodes, gpus)
    except RayUnavailable:
        return
    assert pool.size >= 1
    assert IO + pool.size * pool.cpus <= sum(nodes)
    assert pool.size <= sum(math.floor(free / pool.cpus) for free in nodes), "each is on one node"
    assert pool.size * pool.gpus <= gpus


@pytest.mark.parametrize(
    ("nodes", "size", "cpus"),
    [
        ([1.25], 1, 0.5),
        ([4], 1, 3),
        ([5], 1, 4),
        ([64], 15, 4),
        ([5, 5, 5, 5], 4, 4),
        ([3, 3, 3, 3], 3, 3),
        ([7, 7], 2, 4),
        ([0.5, 0.5, 0.5], 1, 0.5),
    ],
)
def test_encoders_by_the_nodes_of_a_cluster(nodes: list[float], size: int, cpus: float) -> None:
    pool = size_pool("local-cpu", nodes, 0)
    assert (pool.size, pool.cpus) == (size, cpus)


def test_nodes_too_small_for_an_encoder_are_a_clear_error() -> None:
    with pytest.raises(RayUnavailable, match="logical CPUs"):
        size_pool("local-cpu", [0.25] * 16, 0)


def test_a_job_fits_beside_a_server_on_two_cores() -> None:
    server = ROUTER_CPUS + GATEWAY_CPUS + cpu_placement(ServingOptions(cpu_threads=2)).threads
    assert size_pool("local-cpu", [SMALLEST_HEAD - server], 0).size == 1


def test_a_job_fits_beside_a_server_on_one_gpu() -> None:
    assert size_pool("local-gpu", [4], 1 - ServingOptions().gpu_share).size == 1


def test_a_gpu_that_is_taken_is_a_clear_error() -> None:
    with pytest.raises(RayUnavailable, match="of a GPU"):
        size_pool("local-gpu", [64], 0)
