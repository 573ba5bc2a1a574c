"""Writes cut into engine calls, each small enough for a server and for the searches that wait behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

#: Points of one engine call: a query waiting behind a write waits milliseconds.
WRITE_POINTS: Final = 256
#: Bytes of one engine call as JSON, estimated; a server takes 32 MB a request by default.
WRITE_BYTES: Final = 8 * 2**20


class Weighed(Protocol):
    """What can be cut into engine calls by its size."""

    @property
    def wire_bytes(self) -> int: ...


WeighedT = TypeVar("WeighedT", bound=Weighed)


def sub_batches(writes: Sequence[WeighedT]) -> Iterator[list[WeighedT]]:
    """``writes`` in order, cut so that one engine call stays small."""
    part: list[WeighedT] = []
    size = 0
    for write in writes:
        weight = write.wire_bytes
        if part and (len(part) == WRITE_POINTS or size + weight > WRITE_BYTES):
            yield part
            part, size = [], 0
        part.append(write)
        size += weight
    if part:
        yield part


def json_bytes(value: Any) -> int:
    """Rough upper bound of the size of ``value`` as JSON."""
    return 4 * _characters(value)


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict | Mapping):  # the class itself is looked at first: it is what is sent
        return sum(len(key) + _characters(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(_characters, value))
    return 8
