"""Queries without pause through a change of model and back: none fails, and none mixes two spaces."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import text

from ray_app.encoders.stub import StubEncoder
from ray_app.migrating.reports import Migrated
from ray_app.migrating.states import Stage
from ray_app.onboarding import count_points
from ray_app.settings import Settings
from tests.support.api_site import ApiSite
from tests.support.migration_jobs import InlineJobs, inline_migrations

TABLE = "pull_requests"
URL = f"/v1/tables/{TABLE}/records"
#: Dimensions of the space of each model.
SPACES = {"stub": 384, "stub@64": 64}
ROWS = 250
#: Answers waited for in each of the five stretches of the way.
STRETCH = 450
TOPICS = ("cache", "parser", "login", "index", "scroll", "deadlock", "socket")


def title_of(number: int, change: int = 0) -> str:
    """Words enough for scores of the two spaces to differ."""
    topic = TOPICS[(number + change) % len(TOPICS)]
    return f"{topic} number{number} part{number % 11} of area{number % 5} in state{change} again"


@lru_cache(maxsize=100_000)
def vector(words: str, dimensions: int) -> npt.NDArray[np.float32]:
    return StubEncoder(dimensions=dimensions).encode([words]).vectors[0]


def spaces_of(query: str, hits: list[dict[str, object]]) -> set[str]:
    """The spaces in which every hit's score is that of its text."""
    return {
        name
        for name, dimensions in SPACES.items()
        if all(
            abs(float(vector(query, dimensions) @ vector(str(hit["snippet"]), dimensions)) - hit["score"])
            < 1e-3  # type: ignore[operator]
            for hit in hits
        )
    }


@dataclass
class Traffic:
    """Callers that search without pause, and one that changes rows, sends them and takes some out."""

    site: ApiSite
    key: str
    stop: threading.Event = field(default_factory=threading.Event)
    answered: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    #: What the rows that were changed and sent say now, and rows that were taken out.
    titles: dict[int, str] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    #: Held while a row is written; who holds it looks at a still picture.
    pen: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._search, args=(place,)) for place in range(3)]
        threads.append(threading.Thread(target=self._write))
        for thread in threads:
            thread.start()
        return threads

    @property
    def total(self) -> int:
        return sum(self.answered.values())

    def wait(self, answers: int) -> None:
        """Until so many more searches were answered."""
        goal, deadline = self.total + answers, time.monotonic() + 180
        while self.total < goal and not self.faults:
            assert time.monotonic() < deadline, f"{self.total} of {goal} answers"
            time.sleep(0.01)

    def _search(self, place: int) -> None:
        with self.site.http(self.key) as http:
            for number in itertools.count(place):
                if self.stop.is_set():
                    return
                topic = TOPICS[number % len(TOPICS)]
                query = f"{topic} number{number % ROWS} part{number % 11} broken in area{number % 3}"
                answer = http.post("/v1/search", json={"text": query, "tables": [TABLE], "limit": 10})
                if answer.status_code != 200:
                    self.faults.append(answer.text)
                    return
                hits = answer.json()["hits"]
                found = spaces_of(query, hits)
                if len(hits) != 10 or not found:
                    self.faults.append(f"{query}: {hits}")
                    return
                self.answered["either" if len(found) > 1 else found.pop()] += 1

    def _write(self) -> None:
        with self.site.http(self.key) as http:
            for number in itertools.count(1):
                if self.stop.wait(0.02):
                    return
                key = 1 + (number * 7) % ROWS
                if key in self.gone:
                    continue
                with self.pen:
                    answer = self._remove(http, key) if number % 9 == 0 else self._change(http, key, number)
                if answer.status_code != 200:
                    self.faults.append(answer.text)
                    return

    def _change(self, http: httpx.Client, key: int, number: int) -> httpx.Response:
        title = title_of(key, number)
        self._sql("UPDATE pull_requests SET title = :title WHERE id = :key", key=key, title=title)
        answer = http.put(URL, json={"records": [{"id": key, "title": title}]})
        self.titles[key] = title
        return answer

    def _remove(self, http: httpx.Client, key: int) -> httpx.Response:
        self._sql("DELETE FROM pull_requests WHERE id = :key", key=key)
        answer = http.delete(f"{URL}/{key}")
        self.gone.add(key)
        self.titles.pop(key, None)
        return answer

    def _sql(self, statement: str, **values: object) -> None:
        with self.site.workspace.ledger.begin() as connection:
            connection.execute(text(statement), values)


@pytest.fixture
def site(make_settings: Callable[..., Settings]) -> Iterator[ApiSite]:
    with ApiSite(make_settings(other_model="stub@64")) as site:
        yield site


def test_no_search_fails_or_mixes_spaces(site: ApiSite) -> None:
    key = site.add_tenant("acme", client_id=1, requests_per_minute=10**6, tokens_per_minute=10**9)
    with site.workspace.ledger.begin() as connection:
        connection.execute(
            text("INSERT INTO pull_requests (id, client_id, title) VALUES (:id, 1, :title)"),
            [{"id": n, "title": title_of(n)} for n in range(1, ROWS + 1)],
        )
    with site.http(key) as http:
        rows = [{"id": n, "title": title_of(n)} for n in range(1, ROWS + 1)]
        for start in range(0, ROWS, 50):
            sent = http.put(URL, json={"records": rows[start : start + 50]})
            assert sent.status_code == 200, sent.text
        traffic = Traffic(site, key)
        threads = traffic.start()
        try:
            done, back = there_and_back(site, traffic)
        finally:
            traffic.stop.set()
            for thread in threads:
                thread.join(30)
        assert traffic.faults == []
        assert traffic.total >= 2000
        assert traffic.answered["either"] < 20, "the check must tell the spaces apart"
        assert min(traffic.answered[name] for name in SPACES) >= STRETCH
        assert len(traffic.titles) > 20
        assert len(traffic.gone) > 3
        assert back.writes_waited is not None
        assert [migrated.switched for migrated in (done, back)] == [True, True]
        check_rows(http, traffic, done.indexes[0].other_space_id)
    points, rows_known = count_points(site.workspace, site.store, site.tenant("acme"))
    assert points == rows_known == ROWS - len(traffic.gone)


def there_and_back(site: ApiSite, traffic: Traffic) -> tuple[Migrated, Migrated]:
    """To the other space and back, with searches and writes in every stretch of it."""
    jobs = InlineJobs(site.store)
    migrations = inline_migrations(site.workspace, site.store, jobs)
    traffic.wait(STRETCH)
    jobs.between = once(lambda: traffic.wait(STRETCH))
    done = migrations.run("acme", TABLE, to="stub@64")
    assert done.indexes[0].stage is Stage.KEPT
    traffic.wait(STRETCH)
    with traffic.pen, site.http(traffic.key) as http:
        check_rows(http, traffic, migrations.status("acme")[0].space_id)
    jobs.between = once(lambda: traffic.wait(STRETCH))
    back = migrations.rollback("acme", TABLE)
    traffic.wait(STRETCH)
    return done, back


def once(call: Callable[[], None]) -> Callable[[], None]:
    """``call``, the first time it is called."""
    calls = [call]

    def first() -> None:
        if calls:
            calls.pop()()

    return first


def check_rows(http: httpx.Client, traffic: Traffic, space_id: str) -> None:
    """Every row that was changed is found by its new text, in this space, and none that was taken out."""
    for key, title in traffic.titles.items():
        answer = http.post("/v1/search", json={"text": title, "tables": [TABLE], "limit": 1})
        (hit,) = answer.json()["hits"]
        assert (hit["id"], hit["snippet"]) == (str(key), title)
        (state,) = http.get(f"{URL}/{key}").json()["vectors"]
        assert state["space"] == space_id
    for key in traffic.gone:
        assert http.get(f"{URL}/{key}").status_code == 404
