"""Sending rows, and finding out which of them a refused request is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ray_app.client.batching import Batch, BatchSize, Row, Unsendable, encode_row, join
from ray_app.client.errors import BadRequest, ClientError
from ray_app.client.results import FailedRow, UpsertResult, add_answer
from ray_app.client.steps import Operation, Patience, Request, call_json, segment
from ray_app.errors import RowbeamError

_ROW_AT_FAULT: Final = re.compile(r"records\[(\d+)\]")
_TOO_LARGE: Final = 413


class Upsert:
    """One call of ``upsert``: what is to be sent, and what became of it."""

    def __init__(self, table: str, vector_types: Sequence[str] | None, key: str, size: BatchSize) -> None:
        self._path = f"/v1/tables/{segment(table)}/records"
        self._vector_types = vector_types
        self._key = key
        self._result = UpsertResult(table)
        self._batch = Batch(size)
        #: Parts of a batch that are not acknowledged yet, the next one last.
        self._parts: list[list[Row]] = []

    def run(self, patience: Patience, rows: Iterable[Mapping[str, Any]]) -> Operation[UpsertResult]:
        """Send ``rows`` in order. A row that the server refuses fails alone, and the others go on.

        Raises:
            ClientError: as ``Patience.call``; its ``result`` accounts for every row read and, when ``rows``
                is a sequence, for the rest of it.
        """
        reader = iter(rows)
        try:
            for row in reader:
                encoded = self._encode(row)
                if encoded is None:
                    continue
                full = not self._batch.takes(encoded)
                if full:
                    self._parts = [self._batch.empty()]
                self._batch.add(encoded)
                if full:
                    yield from self._send(patience)
            self._parts = [self._batch.empty()]
            yield from self._send(patience)
        except ClientError as error:
            self._give_up(error, reader if isinstance(rows, Sequence) else ())
            error.result = self._result
            raise
        return self._result

    def _encode(self, row: Mapping[str, Any]) -> Row | None:
        encoded = encode_row(self._result.rows, row, self._key)
        self._result.rows += 1
        if isinstance(encoded, Row):
            return encoded
        self._fail(encoded, encoded.error)
        return None

    def _send(self, patience: Patience) -> Operation[None]:
        while self._parts:
            part = self._parts[-1]
            if not part:
                self._parts.pop()
                continue
            request = Request("PUT", self._path, join(part, self._vector_types))
            try:
                answer = yield from call_json(patience, request)
            except BadRequest as error:
                smaller = _around_the_fault(part, error)
                if not smaller:
                    raise
                self._parts.pop()
                if len(part) == 1:
                    self._fail(part[0], error)
                else:
                    self._parts.extend(reversed(smaller))
                continue
            add_answer(self._result, part, answer)
            self._parts.pop()

    def _give_up(self, error: ClientError, rest: Iterable[Mapping[str, Any]]) -> None:
        for part in reversed(self._parts):
            for row in part:
                self._fail(row, error)
        for row in self._batch.empty():
            self._fail(row, error)
        for unread in rest:
            encoded = self._encode(unread)
            if encoded is not None:
                self._fail(encoded, error)

    def _fail(self, row: Row | Unsendable, error: RowbeamError) -> None:
        self._result.failed.append(FailedRow(row.position, row.key, error))


def _around_the_fault(part: list[Row], error: BadRequest) -> list[list[Row]]:
    """``part`` cut so that the row at fault is alone; empty when it is no row's fault."""
    found = _ROW_AT_FAULT.match(error.param or "")
    place = int(found[1]) if found else None
    if place is not None and place < len(part):
        return [part[:place], [part[place]], part[place + 1 :]]
    if error.status_code == _TOO_LARGE:
        half = (len(part) + 1) // 2
        return [part[:half], part[half:]]
    return []
