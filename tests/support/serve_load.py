"""Clients that keep a server busy, and what they were answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any
from uuid import uuid4

import httpx

from tests.support.serve_site import ServeSite
from tests.support.waiting import wait_for


def embed(client: httpx.Client, texts: list[str], model: str = "stub") -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": model, "input": texts})


def rows(first: int, last: int) -> list[dict[str, Any]]:
    """Rows of pull_requests."""
    return [{"id": n, "title": f"change number {n}", "status": "open"} for n in range(first, last + 1)]


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
