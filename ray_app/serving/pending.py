"""Calls that wait for vectors, and the texts they wait for."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from ray_app.encoders.port import Encoded, FloatArray
from ray_app.errors import ItemError, RowbeamError


class PendingCall:
    """The answer to one call, filled in text by text and given once, when the last text has come."""

    def __init__(self, texts: Sequence[str], tenant: UUID, dimensions: int) -> None:
        self.texts = texts
        self.tenant = tenant
        self.future: asyncio.Future[Encoded] = asyncio.get_running_loop().create_future()
        self._vectors: FloatArray = np.zeros((len(texts), dimensions), np.float32)
        self._counts = [0] * len(texts)
        self._faults: dict[int, ItemError] = {}
        self._left = len(texts)
        #: Since when it waits for its first text's turn; None once that has come.
        self.waits_since: float | None = time.perf_counter()

    @property
    def over(self) -> bool:
        """Answered, failed, or its caller is gone."""
        return self.future.done()

    def embedded(self, place: int, vector: FloatArray, tokens: int) -> None:
        self._vectors[place] = vector
        self._counts[place] = tokens
        self._one_less()

    def refused(self, place: int, fault: ItemError) -> None:
        self._faults[place] = fault
        self._one_less()

    def fail(self, error: RowbeamError) -> None:
        """Answer the whole call with an error of its own: callers must not share one traceback."""
        if not self.over:
            self.future.set_exception(copy.copy(error))

    def _one_less(self) -> None:
        self._left -= 1
        if not self._left and not self.over:
            self.future.set_result(Encoded(self._vectors, self._counts, dict(sorted(self._faults.items()))))


@dataclass(eq=False)
class WaitingText:
    """A text to encode, and where its vector goes."""

    text: str
    #: Tokens it counts as.
    tokens: int
    #: The places in each call's answer.
    readers: dict[PendingCall, list[int]] = field(default_factory=dict)

    @property
    def wanted(self) -> bool:
        return not all(call.over for call in self.readers)

    def embedded(self, vector: FloatArray, tokens: int) -> None:
        for call, places in self.readers.items():
            for place in places:
                call.embedded(place, vector, tokens)

    def refused(self, fault: ItemError) -> None:
        for call, places in self.readers.items():
            for place in places:
                call.refused(place, fault)

    def fail(self, error: RowbeamError) -> None:
        for call in self.readers:
            call.fail(error)
