"""Cutting rows into requests: by count, by bytes, and never one key twice in a request. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from ray_app.errors import InputError, InvalidRecord


@dataclass(frozen=True)
class BatchSize:
    """The most that one request carries; a single row always goes, it cannot be cut."""

    #: Rows; the server takes 1,000.
    rows: int = 256
    #: Bytes of JSON. A mebibyte of English is about 250,000 tokens.
    bytes: int = 1024 * 1024


@dataclass(frozen=True)
class Row:
    """One row on its way."""

    #: Its place in what was given to ``upsert``, from 0.
    position: int
    #: Its key's value, as text; None when the row has none under that name.
    key: str | None
    #: JSON.
    body: bytes


@dataclass(frozen=True)
class Unsendable:
    """A row that no request can hold."""

    position: int
    key: str | None
    error: InvalidRecord


class Batch:
    """Rows that go into the next request, in order."""

    def __init__(self, size: BatchSize) -> None:
        self._size = size
        self._rows: list[Row] = []
        self._keys: set[str] = set()
        self._bytes = 0

    def takes(self, row: Row) -> bool:
        """Whether ``row`` still fits. A key goes into a request once: the server compares the later row
        with the earlier, and refuses to do so within one request."""
        if not self._rows:
            return True
        fits = len(self._rows) < self._size.rows and self._bytes + len(row.body) <= self._size.bytes
        return fits and row.key not in self._keys

    def add(self, row: Row) -> None:
        self._rows.append(row)
        self._bytes += len(row.body) + 1
        if row.key is not None:
            self._keys.add(row.key)

    def empty(self) -> list[Row]:
        """The rows, which are no longer here."""
        rows, self._rows, self._keys, self._bytes = self._rows, [], set(), 0
        return rows


def encode_row(position: int, row: Mapping[str, Any], key: str) -> Row | Unsendable:
    """The row as JSON: times in ISO 8601, ``Decimal`` and ``UUID`` as text, as the server reads them."""
    value = row.get(key)
    name = str(value) if isinstance(value, str | int | UUID) else None
    try:
        return Row(position, name, to_json(row))
    except (TypeError, ValueError, RecursionError) as error:
        # What these say of a value is its type or that it is out of range, never its content.
        problem = InvalidRecord(f"Row {position} cannot be written as JSON: {error}.")
        return Unsendable(position, name, problem)


def to_json(value: object) -> bytes:
    """``value`` as compact JSON in UTF-8.

    Raises:
        TypeError, ValueError: it holds what JSON has no form for, such as bytes or NaN.
    """
    try:
        return json.dumps(value, ensure_ascii=False, **_STYLE).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair: JSON can spell it, UTF-8 cannot.
        return json.dumps(value, **_STYLE).encode()


def json_body(value: object) -> bytes:
    """``value`` as the body of a request. Raises InputError when it cannot be one."""
    try:
        return to_json(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"The request cannot be written as JSON: {error}.") from error


def join(rows: Sequence[Row], vector_types: Sequence[str] | None) -> bytes:
    """The body of one request."""
    kinds = b"" if vector_types is None else b',"vector_types":' + to_json(list(vector_types))
    return b'{"records":[' + b",".join(row.body for row in rows) + b"]" + kinds + b"}"


def _as_text(value: object) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


_STYLE: dict[str, Any] = {"separators": (",", ":"), "allow_nan": False, "default": _as_text}
