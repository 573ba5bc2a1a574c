"""JSON-lines files, read strictly: every fault is named by its line. Pure file reading, no database."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from ray_app.errors import InvalidRecord

#: Bytes of one line. A line is held in memory whole, so a file without line ends must not fill it.
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
#: Digits of one integer; Python itself refuses to read more than 4300.
MAX_DIGITS: Final = 1000


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a ``.jsonl`` or ``.jsonl.gz`` file with their line numbers, from 1.

    Blank lines are skipped. Numbers with a fraction come as ``Decimal``, so that a numeric column
    gets the digits of the file.

    Raises:
        InvalidRecord: the file cannot be read, or a line is not one JSON object in UTF-8 with
            each field once, or holds text that Postgres cannot store.
    """
    for number, line in _lines(path):
        if not line.isspace():
            yield number, _parse(path, number, line)


def fault(path: Path, number: int, message: str, hint: str | None = None) -> InvalidRecord:
    """The error for one line; nothing of its text is repeated."""
    return InvalidRecord(f"{path.name}, line {number}: {message} Nothing was loaded.", hint=hint)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if not path.exists():
        raise InvalidRecord(f"There is no file {path}.")
    if not path.is_file():
        raise InvalidRecord(f"{path} is not a file.", hint="Name one .jsonl or .jsonl.gz file.")
    number = 0
    try:
        with _open(path) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise fault(path, number, f"it is longer than {MAX_LINE_BYTES >> 20} MiB.")
                yield number, line
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InvalidRecord(
            f"{path} is not a whole gzip file: it breaks off or is damaged after line {number}.",
            hint="Copy it again, or drop .gz from its name when it is not compressed.",
        ) from error
    except OSError as error:
        raise InvalidRecord(f"{path} cannot be read: {error.strerror or error}.") from error


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, gzip.open(path, "rb")), 1 << 16))
    return path.open("rb")


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise fault(path, number, f"it is not UTF-8 (byte {error.start + 1}).") from error
    try:
        value = json.loads(
            text,
            parse_float=Decimal,
            parse_int=_integer,
            parse_constant=_no_constant,
            object_pairs_hook=_each_once,
        )
    except json.JSONDecodeError as error:
        hint = "Each line must hold one JSON object."
        raise fault(path, number, f"it is not JSON ({error.msg}, column {error.colno}).", hint) from None
    except RecursionError:
        raise fault(path, number, "it is nested too deeply.") from None
    except ValueError as error:
        raise fault(path, number, f"{error}.") from None
    if not isinstance(value, dict):
        raise fault(path, number, f"it holds a {_kind(value)}, not an object.")
    for name, item in value.items():
        _check_text(path, number, name, name)
        _check_text(path, number, name, item)
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it holds a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the field {twice[:60]!r} is there twice")
    return value


def _kind(value: Any) -> str:
    names = {str: "string", int: "number", Decimal: "number", list: "list", bool: "boolean"}
    return names.get(type(value), "null")


def _check_text(path: Path, number: int, name: str, value: Any) -> None:
    """Refuse what Postgres cannot store rather than change it silently."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(path, number, name, key)
            _check_text(path, number, name, item)
    elif isinstance(value, list):
        for item in value:
            _check_text(path, number, name, item)
    elif isinstance(value, str):
        if "\x00" in value:
            message = f"{name[:60]!r} holds a NUL character (\\u0000), which Postgres cannot store."
            raise fault(path, number, message, "Remove it from the file.")
        try:
            value.encode()
        except UnicodeEncodeError:
            message = f"{name[:60]!r} holds half of a surrogate pair, which is not a character."
            raise fault(path, number, message, "Write the character itself, or both halves.") from None
