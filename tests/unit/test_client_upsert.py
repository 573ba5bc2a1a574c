"""Upserts account for every row: cut into requests, refused in part, failing half way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.client import (
    BadAnswer,
    BadRequest,
    BatchSize,
    ClientError,
    Forbidden,
    NoAnswer,
    RowbeamClient,
    Unavailable,
    UpsertResult,
)

Row = dict[str, Any]


class Table:
    """A server that takes rows as Rowbeam does, and fails when it is told to."""

    def __init__(
        self, fail: Callable[[list[Row]], httpx.Response | Exception | None] = lambda _: None
    ) -> None:
        self.fail = fail
        #: The bodies that came in, and the rows that were taken, in order.
        self.bodies: list[bytes] = []
        self.taken: list[Row] = []
        self.kinds: list[Any] = []

    @property
    def sizes(self) -> list[int]:
        return [len(json.loads(body)["records"]) for body in self.bodies]

    def answer(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("PUT", "/v1/tables/issues/records")
        self.bodies.append(request.content)
        body = json.loads(request.content)
        rows = body["records"]
        self.kinds.append(body.get("vector_types"))
        failure = self.fail(rows)
        if isinstance(failure, Exception):
            raise failure
        if failure is not None:
            return failure
        self.taken += rows
        records = [
            {"id": str(row["id"]), "outcome": row.get("outcome", "embedded"), "vector_types": {}}
            for row in rows
        ]
        return httpx.Response(200, json={"table": "issues", "records": records, "tokens": len(rows)})

    def upsert(self, rows: Any, **options: Any) -> UpsertResult:
        with RowbeamClient(
            "http://rowbeam.test",
            "rb_key",
            transport=httpx.MockTransport(self.answer),
            sleep=lambda _: None,
            max_wait=30,
            clock=lambda: float(len(self.bodies)),
        ) as client:
            return client.upsert("issues", rows, **options)


def rows(count: int, **columns: Any) -> list[Row]:
    return [{"id": number, "title": f"Issue {number}", **columns} for number in range(count)]


def refused(status: int, param: str | None = None) -> httpx.Response:
    return httpx.Response(
        status, json={"error": {"message": "No.", "type": "t", "param": param, "code": None}}
    )


def accounted(result: UpsertResult, given: int) -> None:
    """Every row has one fate, and the sums agree."""
    positions = [row.position for row in result.taken] + [row.position for row in result.failed]
    assert sorted(positions) == list(range(given))
    assert result.rows == given == sum(result.counts.values())


def test_rows_are_sent_in_order_in_requests_of_a_size() -> None:
    table = Table()
    result = table.upsert(rows(10), batch=BatchSize(rows=4))
    assert table.sizes == [4, 4, 2]
    assert [row["id"] for row in table.taken] == list(range(10))
    assert [row.id for row in result.taken] == [str(number) for number in range(10)]
    assert (result.counts["embedded"], result.tokens, result.complete) == (10, 10, True)
    accounted(result, 10)


def test_no_rows_are_no_requests() -> None:
    table = Table()
    result = table.upsert([])
    assert (table.bodies, result.rows, result.complete) == ([], 0, True)


def test_requests_keep_within_their_bytes_and_a_large_row_goes_alone() -> None:
    table = Table()
    texts = ["x" * 300, "x" * 300, "x" * 2000, "x" * 10]
    table.upsert([{"id": n, "text": text} for n, text in enumerate(texts)], batch=BatchSize(bytes=1000))
    assert table.sizes == [2, 1, 1]


def test_a_key_that_comes_twice_goes_into_another_request() -> None:
    table = Table()
    table.upsert([{"id": 1}, {"id": 2}, {"id": 1, "title": "newer"}, {"id": 3}])
    assert table.sizes == [2, 2]
    table = Table()
    table.upsert([{"id": 1, "number": 7}, {"id": 2, "number": 7}], key="number")
    assert table.sizes == [1, 1]


def test_rows_are_read_only_as_they_are_sent() -> None:
    table, read = Table(), []

    def reader() -> Iterator[Row]:
        for row in rows(10):
            read.append(row["id"])
            assert len(read) - len(table.taken) <= 4
            yield row

    table.upsert(reader(), batch=BatchSize(rows=3))
    assert len(read) == 10


def test_values_that_json_does_not_know_are_written_as_the_server_reads_them() -> None:
    table = Table()
    moment = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
    table.upsert(
        [
            {
                "id": UUID(int=5),
                "at": moment,
                "day": date(2026, 1, 2),
                "points": Decimal("1.50"),
                "title": "half \ud800 pair, whole é",
                "tags": ("a", "b"),
            }
        ],
        vector_types=["content"],
    )
    assert table.taken == [
        {
            "id": str(UUID(int=5)),
            "at": "2026-11-23T10:00:00+00:00",
            "day": "2026-01-02",
            "points": "1.50",
            "title": "half \ud800 pair, whole é",
            "tags": ["a", "b"],
        }
    ]
    assert table.kinds == [["content"]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object(), {(1, 2): 3}])
def test_a_row_that_no_request_can_hold_fails_alone(value: Any) -> None:
    table = Table()
    result = table.upsert([{"id": 1}, {"id": 2, "value": value, "text": "private"}, {"id": 3}])
    assert [row["id"] for row in table.taken] == [1, 3]
    assert [(row.position, row.id) for row in result.failed] == [(1, "2")]
    assert "private" not in str(result.failed[0].error)
    assert not result.complete
    accounted(result, 3)


def test_outcomes_are_told_apart() -> None:
    outcomes = ["embedded", "unchanged", "older", "no_text", "deleted", "dead"]
    result = Table().upsert([{"id": n, "outcome": outcome} for n, outcome in enumerate(outcomes)])
    assert result.counts == dict.fromkeys(outcomes, 1)
    assert [row.id for row in result.dead] == ["5"]
    assert not result.complete


def test_a_row_the_server_refuses_fails_alone_and_the_order_stays() -> None:
    def fail(rows: list[Row]) -> httpx.Response | None:
        bad = [place for place, row in enumerate(rows) if row["id"] in (2, 3, 9)]
        return refused(400, f"records[{bad[0]}].id") if bad else None

    table = Table(fail)
    result = table.upsert(rows(10))
    assert [row["id"] for row in table.taken] == [0, 1, 4, 5, 6, 7, 8]
    assert [row.position for row in result.failed] == [2, 3, 9]
    assert all(isinstance(row.error, BadRequest) for row in result.failed)
    accounted(result, 10)


def test_a_request_that_is_too_large_is_halved_until_it_fits() -> None:
    def fail(rows: list[Row]) -> httpx.Response | None:
        return refused(413) if len(rows) > 3 or any("huge" in row for row in rows) else None

    table = Table(fail)
    result = table.upsert([*rows(9), {"id": 9, "huge": True}])
    assert len(table.taken) == 9
    assert [row.position for row in result.failed] == [9]
    accounted(result, 10)


def test_what_concerns_no_row_ends_the_upsert_and_says_what_was_taken() -> None:
    table = Table(lambda rows: refused(403) if rows[0]["id"] >= 4 else None)
    with pytest.raises(Forbidden) as failure:
        table.upsert(rows(10), batch=BatchSize(rows=2))
    result = failure.value.result
    assert result is not None
    assert [row.id for row in result.taken] == ["0", "1", "2", "3"]
    assert {row.error for row in result.failed} == {failure.value}
    accounted(result, 10)


def test_of_rows_that_come_one_by_one_those_that_were_read_are_accounted_for() -> None:
    table = Table(lambda rows: httpx.ConnectError("refused") if rows[0]["id"] >= 4 else None)
    source = iter(rows(10))
    with pytest.raises(NoAnswer) as failure:
        table.upsert(source, batch=BatchSize(rows=2))
    result = failure.value.result
    assert result is not None
    assert [row.position for row in result.failed] == [4, 5, 6], "and one that was read ahead"
    assert next(source)["id"] == 7
    accounted(result, 7)


def test_an_answer_about_other_rows_is_no_answer() -> None:
    table = Table(lambda rows: httpx.Response(200, json={"table": "issues", "records": [], "tokens": 0}))
    with pytest.raises(BadAnswer, match="2 rows") as failure:
        table.upsert(rows(2))
    assert failure.value.result is not None
    accounted(failure.value.result, 2)


faults = st.sampled_from(
    ["ok", "ok", "ok", "503", "reset", "lost answer", "row", "413", "401", "500", "empty"]
)
plans = st.tuples(
    st.lists(st.integers(0, 12), max_size=40),
    st.lists(faults, max_size=40),
    st.integers(1, 6),
    st.booleans(),
)


@given(plans)
def test_no_row_is_lost_or_counted_twice_whatever_happens(
    plan: tuple[list[int], list[str], int, bool],
) -> None:
    keys, script, size, lazy = plan
    given_rows = [{"id": key, "place": place} for place, key in enumerate(keys)]
    table = Table()

    def fail(rows: list[Row]) -> httpx.Response | Exception | None:
        assert len({row["id"] for row in rows}) == len(rows), "one key twice in a request"
        step = script.pop(0) if script else "ok"
        if step == "lost answer":
            table.taken += rows
            return httpx.ReadError("reset")
        return {
            "503": refused(503),
            "reset": httpx.ConnectError("refused"),
            "row": refused(400, f"records[{len(rows) // 2}].title"),
            "413": refused(413),
            "401": refused(401),
            "500": refused(500),
            "empty": httpx.Response(200, json={}),
        }.get(step)

    table.fail = fail
    result: UpsertResult | None
    try:
        result = table.upsert(iter(given_rows) if lazy else given_rows, batch=BatchSize(rows=size))
        ended = True
    except ClientError as error:
        result, ended = error.result, False
    assert result is not None
    assert result.rows == len(given_rows) or (lazy and not ended)
    accounted(result, result.rows)
    stored = {row["place"] for row in table.taken}
    assert {row.position for row in result.taken} <= stored
    assert [row.position for row in result.taken] == sorted(row.position for row in result.taken)
    assert all(str(given_rows[row.position]["id"]) == row.id for row in result.taken)


def test_an_error_keeps_the_rows_out_of_its_text() -> None:
    table = Table(lambda _: refused(500))
    with pytest.raises(Unavailable) as failure:
        table.upsert([{"id": 1, "title": "private words"}])
    assert not re.search("private", str(failure.value) + repr(failure.value) + repr(failure.value.result))
