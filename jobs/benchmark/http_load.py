"""Callers that ask a server for embeddings again as soon as they are answered, and check what they get."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jobs.benchmark.wire import Wire, WireAnswer

#: Seconds after the end of a measurement in which the last answers come.
_PATIENCE: Final = 120.0
#: A vector's length may differ from 1 by this, float16's precision.
_LENGTH_TOLERANCE: Final = 1e-3


class WrongAnswer(Exception):
    """A server's answer is not what was asked for, so its speed means nothing."""


@dataclass(frozen=True)
class Endpoint:
    """A server that speaks OpenAI's embeddings API, and a model of it."""

    name: str
    url: str
    path: str
    model: str
    #: Of its vectors.
    dimensions: int
    key: str | None = None
    #: What else goes into each request's body.
    extra: Mapping[str, Any] = field(default_factory=dict)

    def wire(self) -> Wire:
        return Wire(self.url, self.key)

    def body(self, texts: Sequence[str], encoding: str = "float") -> dict[str, Any]:
        return {"model": self.model, "input": list(texts), "encoding_format": encoding, **self.extra}


@dataclass(frozen=True)
class Load:
    """What came of one run."""

    #: Texts of one request.
    texts: int
    #: Of each request, ascending.
    seconds: tuple[float, ...]
    #: From the first request to the last answer.
    duration: float

    @property
    def requests_per_second(self) -> float:
        return len(self.seconds) / self.duration

    @property
    def texts_per_second(self) -> float:
        return self.texts * self.requests_per_second

    def percentile(self, share: float) -> float:
        """Milliseconds within which ``share`` of the requests were answered."""
        return percentile(self.seconds, share) * 1000

    def record(self) -> dict[str, Any]:
        """For JSON; times in milliseconds."""
        times = {f"p{share * 100:.0f}_ms": round(self.percentile(share), 2) for share in (0.5, 0.95, 0.99)}
        return {
            "requests": len(self.seconds),
            "requests_per_second": round(self.requests_per_second, 2),
            "texts_per_second": round(self.texts_per_second, 1),
            **times,
        }


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed (nearest rank).

    Raises:
        ValueError: there are none, or ``share`` is not above 0 and at most 1.
    """
    if not ascending or not 0 < share <= 1:
        raise ValueError(f"No percentile {share} of {len(ascending)} values.")
    return ascending[math.ceil(share * len(ascending)) - 1]


async def keep_asking(
    endpoint: Endpoint,
    bodies: Sequence[Sequence[str]],
    *,
    callers: int,
    seconds: float,
    encoding: str = "float",
) -> Load:
    """``callers`` at once, for ``seconds`` and until the last of them is answered.

    Each takes the next of ``bodies``, all of the same number of texts, and begins again after the last.
    Every answer's status and number of vectors are checked, the vectors of each caller's last in full.

    Raises:
        WrongAnswer: an answer is not what was asked for.
        OSError, EOFError: a connection broke.
        TimeoutError: the last answers do not come.
    """
    wires = [endpoint.wire() for _ in range(callers)]
    texts = len(bodies[0])
    requests = itertools.cycle(
        [wires[0].request(endpoint.path, endpoint.body(body, encoding)) for body in bodies]
    )
    times: list[float] = []
    try:
        async with asyncio.timeout(seconds + _PATIENCE):
            began = time.perf_counter()
            asking = (_caller(endpoint, wire, requests, texts, began + seconds, times) for wire in wires)
            last = await asyncio.gather(*asking)
            duration = time.perf_counter() - began
    finally:
        for wire in wires:
            wire.close()
    for answer in last:
        vectors_of(endpoint, answer, texts)
    return Load(texts, tuple(sorted(times)), duration)


async def ask_one_by_one(
    endpoint: Endpoint, texts: Sequence[str], *, pause: float, encoding: str = "float"
) -> list[float]:
    """Seconds of each request, one text each, on one connection, ``pause`` seconds after the answer before.

    Raises as ``keep_asking`` does.
    """
    wire, times = endpoint.wire(), []
    try:
        for text in texts:
            request = wire.request(endpoint.path, endpoint.body([text], encoding))
            if pause:
                await asyncio.sleep(pause)
            began = time.perf_counter()
            answer = await wire.send(request)
            times.append(time.perf_counter() - began)
            vectors_of(endpoint, answer, 1)
    finally:
        wire.close()
    return times


def check_answer(endpoint: Endpoint, answer: WireAnswer, texts: int) -> None:
    """The status and the number of vectors, without parsing them.

    Raises:
        WrongAnswer: they are not 200 and ``texts``.
    """
    if answer.status != 200:
        said = answer.content[:300].decode("utf-8", errors="replace")
        raise WrongAnswer(f"{endpoint.name} answered {answer.status}: {said}")
    found = answer.content.count(b'"index"')
    if found != texts:
        raise WrongAnswer(f"{endpoint.name} answered {texts} texts with {found} vectors.")


def vectors_of(endpoint: Endpoint, answer: WireAnswer, texts: int) -> npt.NDArray[np.float32]:
    """The answer's vectors, in the order of the texts: float32 of shape (texts, dimensions).

    Raises:
        WrongAnswer: it does not hold that many of that size, or they are not of length 1.
    """
    check_answer(endpoint, answer, texts)
    items = sorted(json.loads(answer.content)["data"], key=lambda item: int(item["index"]))
    vectors = [_numbers(item["embedding"]) for item in items]
    sizes = {vector.size for vector in vectors}
    if len(vectors) != texts or sizes != {endpoint.dimensions}:
        raise WrongAnswer(f"{endpoint.name} answered {texts} texts with {len(vectors)} vectors of {sizes}.")
    matrix = np.stack(vectors)
    if not np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=_LENGTH_TOLERANCE):
        raise WrongAnswer(f"{endpoint.name} answered with vectors whose length is not 1.")
    return matrix


async def vectors_for(endpoint: Endpoint, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """One request for all; see ``vectors_of``."""
    wire = endpoint.wire()
    try:
        return vectors_of(endpoint, await wire.post(endpoint.path, endpoint.body(texts)), len(texts))
    finally:
        wire.close()


async def _caller(
    endpoint: Endpoint, wire: Wire, requests: Iterator[bytes], texts: int, end: float, times: list[float]
) -> WireAnswer:
    """Answers with the last answer."""
    while True:
        began = time.perf_counter()
        answer = await wire.send(next(requests))
        ended = time.perf_counter()
        times.append(ended - began)
        check_answer(endpoint, answer, texts)
        if ended >= end:
            return answer


def _numbers(embedding: Any) -> npt.NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4").astype(np.float32)
    return np.asarray(embedding, dtype=np.float32)
