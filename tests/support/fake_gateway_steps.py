"""What a fake gateway can be told to do, and the vectors it gives; see ``fake_gateway``."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Body = dict[str, Any]


def vector_of(text: str, dimensions: int) -> npt.NDArray[np.float32]:
    """The gateway's vector of a text: float32 of shape (dimensions,), components in [-1, 1)."""
    noise = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    return (np.frombuffer(noise, dtype="<i2") / 32768).astype(np.float32)


def tokens_of(text: str) -> int:
    """What the gateway counts: words, at least one."""
    return max(1, len(text.split()))


@dataclass(frozen=True)
class Reply:
    """A scripted answer, sent as it is."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Altered:
    """The true answer, changed by ``change``."""

    change: Callable[[Body], Body]


@dataclass(frozen=True)
class Hang:
    """No answer for ``seconds``, or until the gateway closes; then the connection is closed."""

    seconds: float = 3600.0


@dataclass(frozen=True)
class Drop:
    """The connection is closed: without an answer, or in the middle of one."""

    midway: bool = False


@dataclass(frozen=True)
class Trickle:
    """The true answer, a byte every ``seconds``."""

    seconds: float


Step = Reply | Altered | Hang | Drop | Trickle


def error(status: int, code: str | None = None, message: str = "scripted", **headers: str) -> Reply:
    """An error answer; header names are given with underscores."""
    body = {"error": {"message": message, "type": code, "param": None, "code": code}}
    return Reply(
        status, json.dumps(body).encode(), {name.replace("_", "-"): value for name, value in headers.items()}
    )


def rate_limited(**headers: str) -> Reply:
    """429 with such headers as ``retry_after="2"`` or ``retry_after_ms="20"``."""
    return error(429, "rate_limit_exceeded", "Rate limit reached.", **headers)


def insufficient_quota() -> Reply:
    return error(429, "insufficient_quota", "You exceeded your current quota.", retry_after="1")


def altered(key: str, value: Any) -> Altered:
    """The true answer with one of its top-level fields set; None leaves the field out."""
    return Altered(
        lambda body: {name: item for name, item in (body | {key: value}).items() if item is not None}
    )


def items(change: Callable[[list[Body]], list[Body]]) -> Altered:
    """The true answer with its list of embeddings changed."""
    return Altered(lambda body: body | {"data": change(body["data"])})


@dataclass
class Behaviour:
    """Lasting traits of the endpoint."""

    max_inputs: int = 2048
    #: Status and message of a request with more; ``{limit}`` and ``{count}`` are filled in.
    too_many: tuple[int, str] = (400, "Too many inputs. The max number of inputs is {limit}.")
    max_request_tokens: int = 300_000
    #: Request bodies with more bytes are answered with 413.
    max_body: int = 100_000_000
    #: A request with a text that contains one of these fails as a whole, with ``poison_status``.
    poison: set[str] = field(default_factory=set)
    poison_status: int = 400
    #: A text that contains one of these gets a vector of NaN.
    nan: set[str] = field(default_factory=set)
    #: Request fields that are answered with 400.
    refuses: set[str] = field(default_factory=set)
    #: Decimal numbers, whatever format is asked for.
    floats_only: bool = False
    counts_usage: bool = True
    #: Whether items say their index.
    indexed: bool = True
    #: The model named in answers; None repeats the request's.
    model: str | None = None
    #: Every request gets this answer, scripted steps aside: an outage.
    outage: Step | None = None
    #: Seconds every answer takes.
    latency: float = 0.0


@dataclass
class Received:
    """A request as it came, and the status it was answered with (0: none)."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Body
    #: ``time.monotonic()`` of its arrival.
    at: float = field(default_factory=time.monotonic)
    status: int = 0
    #: Tokens on the bill for it.
    tokens: int = 0

    @property
    def texts(self) -> list[str]:
        value = self.body.get("input", [])
        return [value] if isinstance(value, str) else value
