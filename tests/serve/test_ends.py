"""How a server ends: what is under way is answered, and what was acknowledged is there afterwards."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from ray_app.providers.local import local_provider
from tests.support.serve_load import embed, rows
from tests.support.serve_site import ServeSite, new_site
from tests.support.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.ray

TABLE = "/v1/tables/pull_requests/records"
BUNDLED = "sentence-transformers/all-MiniLM-L6-v2"


class Pushing:
    """Clients that push one batch of rows after another until nothing listens any more."""

    def __init__(self, site: ServeSite, key: str, clients: int = 3, batch: int = 20) -> None:
        self.acknowledged: list[int] = []
        #: When each request was sent, and what became of it: a status, or 0 for a broken connection.
        self.outcomes: list[tuple[float, int]] = []
        self._batch = batch
        self._threads = [
            threading.Thread(target=self._run, args=(site, key, 1 + number * 100_000), daemon=True)
            for number in range(clients)
        ]

    def _run(self, site: ServeSite, key: str, first: int) -> None:
        with site.client(key) as client:
            while True:
                batch = rows(first, first + self._batch - 1)
                sent = time.monotonic()
                try:
                    answer = client.put(TABLE, json={"records": batch})
                except httpx.TransportError:
                    self.outcomes.append((sent, 0))
                    return
                self.outcomes.append((sent, answer.status_code))
                if answer.status_code == 200:
                    self.acknowledged += [int(row["id"]) for row in batch]
                    first += self._batch
                else:
                    time.sleep(0.1)

    def __enter__(self) -> Pushing:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: len(self.acknowledged) > 100)
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()


def check_orderly(pushing: Pushing) -> None:
    """Every request that was under way when the server began to refuse was answered."""
    assert {status for _, status in pushing.outcomes} == {200, 503, 0}
    refusing = min(sent for sent, status in pushing.outcomes if status == 503)
    assert all(sent > refusing for sent, status in pushing.outcomes if status == 0)


def check_rows(site: ServeSite, key: str, expected: list[int]) -> None:
    """Every row has its vectors."""
    with site.client(key) as client:
        missing = [n for n in expected if client.get(f"{TABLE}/{n}").status_code != 200]
    assert missing == []


@contextmanager
def foreground(site: ServeSite) -> Iterator[subprocess.Popen[str]]:
    """``rowbeam serve``, ready."""
    process = subprocess.Popen(
        site.command("serve"),
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: process.poll() is not None or site.is_ready())
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_down_answers_what_is_under_way_and_up_finds_what_was_acknowledged(site: ServeSite) -> None:
    _, key = site.add_tenant()
    with Pushing(site, key) as pushing:
        stopped = site.down()
    assert stopped["changed"] == ["postgres", "ray"]
    check_orderly(pushing)
    site.up()
    check_rows(site, key, pushing.acknowledged)


def check_a_lone_text_needs_no_replica(site: ServeSite, key: str, expected: list[float]) -> None:
    """While the model's only replica stands still the router embeds "Payday is slow." by itself."""
    router, model = site.replica("Router"), site.replica("LocalModelCpu")
    wait_for(lambda: any("openvino" in part.path for part in router.memory_maps()))
    with site.client(key) as client:
        client.timeout = httpx.Timeout(5)
        model.suspend()
        try:
            deadline = time.monotonic() + PATIENCE
            while True:  # the router's copy is mapped some time before it is used
                try:
                    answer = embed(client, ["Payday is slow."], BUNDLED)
                    break
                except httpx.ReadTimeout:
                    assert time.monotonic() < deadline
        finally:
            model.resume()
    assert answer.status_code == 200, answer.text
    assert np.dot(answer.json()["data"][0]["embedding"], expected) > 0.999


def test_sigterm_ends_a_server_in_the_foreground_in_order(model_cache: Path) -> None:
    """With the model that ships, whose vectors are those of the encoder asked directly."""
    texts = ["The login page fails after the update.", "Payday is slow.", "x" * 3000]
    with new_site(local_model="bundled", cache_dir=model_cache) as site:
        with foreground(site) as process:
            _, key = site.add_tenant()
            with site.client(key) as client:
                answer = embed(client, texts, BUNDLED)
            assert answer.status_code == 200, answer.text
            check_a_lone_text_needs_no_replica(site, key, answer.json()["data"][1]["embedding"])
            with Pushing(site, key) as pushing:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE)
        served = np.array([item["embedding"] for item in answer.json()["data"]], dtype=np.float32)
        direct = local_provider(site.settings).embed_documents(texts).vectors
        # What a text is batched with moves its 8-bit vector a little.
        assert (served * direct).sum(axis=1).min() > 0.999
        check_orderly(pushing)
        site.up()
        check_rows(site, key, pushing.acknowledged)


def test_a_taken_port_is_a_clear_error(site: ServeSite) -> None:
    with new_site(http_port=site.settings.http_port) as other:
        done = subprocess.run(
            other.command("up"),
            env=other.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 1
        assert f"port {site.settings.http_port}" in done.stderr
        assert "ROWBEAM_HTTP_PORT" in done.stderr
        assert other.stack.status().head is None
