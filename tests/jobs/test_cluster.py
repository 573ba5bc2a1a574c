"""One process, one connection to Ray: threads share it, and the last one out closes it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray

from ray_app.actors.cluster import connected
from ray_app.settings import Settings, export_environment
from ray_app.stack.embedded import Stack
from tests.support.site import JobSite

pytestmark = pytest.mark.ray

THREADS = 4


def test_threads_that_join_at_once_share_one_connection_until_the_last_has_left(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings()
    together = threading.Barrier(THREADS)
    joined = threading.Barrier(THREADS)
    first_left = threading.Event()

    def work(number: int) -> tuple[str, bool]:
        together.wait(60)
        with connected(settings) as address:
            joined.wait(60)
            if number:
                assert first_left.wait(60)
                assert ray.cluster_resources()["CPU"] >= 2
        still_there = ray.is_initialized()
        first_left.set()
        return address, still_there

    with ThreadPoolExecutor(THREADS) as pool:
        ends = list(pool.map(work, range(THREADS)))
    assert len({address for address, _ in ends}) == 1
    assert ends[0][1], "the first one out closed the connection of the others"
    assert not ray.is_initialized()


def test_a_process_joins_one_cluster_after_another_though_their_tokens_differ(
    make_settings: Callable[..., Settings], open_site: Callable[..., JobSite]
) -> None:
    with connected(make_settings()) as private:
        assert ray.is_initialized()
    stack = Stack(open_site().rowbeam.workspace.settings)
    head = stack.up().head
    assert head is not None
    try:
        export_environment(stack.authentication_env())
        with connected(stack.client_settings()) as address:
            assert address == head.address != private
    finally:
        stack.down()
