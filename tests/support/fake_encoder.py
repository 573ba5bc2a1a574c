"""An encoder whose vectors are a function of the text, and which can be told to fail in every way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from threading import Event, Lock

import numpy as np

from ray_app.encoders.port import Encoded, FloatArray

DIMENSIONS = 8


def vector_of(text: str) -> FloatArray:
    digest = hashlib.blake2b(text.encode(), digest_size=DIMENSIONS).digest()
    vector = np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5
    unit: FloatArray = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit


def tokens_of(text: str) -> int:
    return len(text.split())


class Panic(BaseException):
    """What a tokenizer written in Rust raises."""


class FakeEncoder:
    """``device`` and ``encode`` as the port has them. Set ``fails`` to have it raise for some batches."""

    device = "cpu"

    def __init__(self) -> None:
        #: Every batch it was given, in order.
        self.batches: list[list[str]] = []
        #: Called with each batch before it is encoded; may raise, or answer in the encoder's place.
        self.fails: Callable[[Sequence[str]], Encoded | None] = lambda texts: None
        self.entered = Event()
        self._free = Event()
        self._free.set()
        self._inside = Lock()

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]

    def hold(self) -> None:
        """The next call, and those after it, hang until ``release``."""
        self.entered.clear()
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def encode(self, texts: Sequence[str]) -> Encoded:
        if not self._inside.acquire(blocking=False):
            raise AssertionError("two encodes at once")
        try:
            self.batches.append(list(texts))
            self.entered.set()
            if not self._free.wait(30):
                raise AssertionError("nobody released the encoder")
            instead = self.fails(texts)
            return instead if instead is not None else correct(texts)
        finally:
            self._inside.release()


def correct(texts: Sequence[str]) -> Encoded:
    """The answer for ``texts``."""
    return Encoded(np.array([vector_of(text) for text in texts]), [tokens_of(text) for text in texts])
