"""The server on real Ray Serve: from ``rowbeam up`` to ``rowbeam down``, and what is broken in between."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.serve_site import ServeSite, wait_for

pytestmark = pytest.mark.ray

MODEL = "stub"


@pytest.fixture
def key(site: ServeSite) -> str:
    """The key of a new tenant."""
    with site.client() as admin:
        answer = admin.post("/v1/tenants", json={"name": f"t-{uuid4().hex[:8]}"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"]["api_key"])


def embed(client: httpx.Client, texts: list[str]) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": MODEL, "input": texts})


class Load:
    """Clients that embed one text after another, and what they were answered."""

    def __init__(self, site: ServeSite, key: str, clients: int) -> None:
        self.answers: Counter[Any] = Counter()
        self.odd: list[str] = []
        self._site, self._key = site, key
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def _run(self) -> None:
        with self._site.client(self._key) as client:
            while not self._stop.is_set():
                try:
                    answer = embed(client, [f"text {uuid4()}"] * 5)
                    outcome: Any = answer.status_code
                    if outcome not in (200, 503):
                        self.odd.append(f"{outcome} {answer.text[:200]}")
                except httpx.TransportError as error:
                    outcome = type(error).__name__
                with self._lock:
                    self.answers[outcome] += 1
                if outcome != 200:
                    time.sleep(0.2)

    def answered(self, outcome: Any) -> int:
        with self._lock:
            return self.answers[outcome]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: self.answered(200) > 5)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def slow_request(site: ServeSite, key: str) -> Iterator[httpx.Client]:
    """A request that takes seconds, sent and not answered; leaving the block hangs up."""
    texts = ["word " * 250] * 1500
    client = site.client(key)
    sent = threading.Thread(target=_swallow, args=(client, texts), daemon=True)
    sent.start()
    try:
        yield client
    finally:
        client.close()
        sent.join()


def _swallow(client: httpx.Client, texts: list[str]) -> None:
    try:
        embed(client, texts)
    except (httpx.TransportError, RuntimeError):  # the test closes the client under it
        return


def test_up_is_ready_and_up_again_changes_nothing(site: ServeSite) -> None:
    with site.client() as client:
        assert client.get("/readyz").json() == {"status": "ready", "not_ready": []}
    again = site.up()
    assert again["server"] == {"url": site.url, "not_ready": []}
    assert again["changed"] == []


def test_an_answer_names_its_request_once(site: ServeSite, key: str) -> None:
    with site.client(key) as client:
        answer = client.get("/v1/models", headers={"x-request-id": "mine-1"})
        assert answer.headers.get_list("x-request-id") == ["mine-1"]
        (made,) = client.get("/v1/models").headers.get_list("x-request-id")
        assert made


def test_the_provider_is_named(site: ServeSite, key: str) -> None:
    with site.client(key) as client:
        answer = embed(client, ["one", "two"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-rowbeam-provider"] == "stub"
    assert [item["index"] for item in answer.json()["data"]] == [0, 1]


def test_a_client_that_hangs_up_frees_its_slot(site: ServeSite) -> None:
    with site.client() as admin:
        name = f"t-{uuid4().hex[:8]}"
        key = admin.post("/v1/tenants", json={"name": name}).json()["key"]["api_key"]
        admin.patch(f"/v1/tenants/{name}/limits", json={"concurrent_requests": 1}).raise_for_status()
    with site.client(key) as other:
        with slow_request(site, key):
            wait_for(lambda: embed(other, ["x"]).status_code == 429, 10)
        wait_for(lambda: embed(other, ["x"]).status_code == 200, 3)


@pytest.mark.parametrize("deployment", ["LocalModelCpu"])
def test_a_killed_replica_is_replaced_and_every_request_is_answered(
    site: ServeSite, key: str, deployment: str
) -> None:
    victim = site.replica(deployment)
    with Load(site, key, clients=6) as load:
        victim.kill()
        wait_for(lambda: load.answered(503) > 0, 30)
        before = load.answered(200)
        wait_for(lambda: load.answered(200) > before + 20)
    assert load.odd == []
    assert set(load.answers) == {200, 503}
    assert site.replica(deployment) != victim


def test_a_killed_postgres_is_started_again(site: ServeSite, key: str) -> None:
    site.postgres().kill()
    with site.client(key) as client:
        wait_for(lambda: client.get("/readyz").status_code == 503, 30)
        wait_for(lambda: client.get("/readyz").status_code == 200, 60)
        wait_for(lambda: embed(client, ["x"]).status_code == 200, 10)
