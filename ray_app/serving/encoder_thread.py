"""One thread that encodes, and what stands between it and an encoder that fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Final, TypeAlias

import numpy as np

from ray_app.encoders.port import Encoded
from ray_app.errors import ItemError, ProviderUnavailable, RowbeamError

Encode: TypeAlias = Callable[[Sequence[str]], Encoded]

#: A harmless text: what fails on it fails on everything.
PROBE: Final = "ready"
_Job: TypeAlias = tuple[Sequence[str], "Future[Encoded]"]


class EncoderThread:
    """Runs ``encode`` on one thread, one call at a time.

    A tokenizer refuses to be used by two threads at once, and torch has one pool of threads for all.
    The thread is a daemon: an encoder that hangs must not keep its process from ending.
    """

    def __init__(self, encode: Encode, dimensions: int, *, name: str) -> None:
        self._encode = encode
        self._dimensions = dimensions
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = Lock()
        self._ended = False
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def encode(self, texts: Sequence[str]) -> Future[Encoded]:
        """Encode when the thread is free. Raises ProviderUnavailable when it has ended."""
        answer: Future[Encoded] = Future()
        with self._lock:
            if self._ended:
                raise _gone()
            self._jobs.put((texts, answer))
        return answer

    def stop(self, wait: float) -> bool:
        """End the thread after the call that runs; False when that has not ended in ``wait`` seconds."""
        self._jobs.put(None)
        self._thread.join(wait)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                texts, answer = job
                if not answer.set_running_or_notify_cancel():
                    continue
                try:
                    answer.set_result(encode_surely(self._encode, texts, self._dimensions))
                except RowbeamError as error:
                    answer.set_exception(error)
                finally:
                    if not answer.done():
                        answer.set_exception(_gone())
        finally:
            with self._lock:
                self._ended = True
            self._turn_away()

    def _turn_away(self) -> None:
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None and job[1].set_running_or_notify_cancel():
                job[1].set_exception(_gone())


def encode_surely(encode: Encode, texts: Sequence[str], dimensions: int) -> Encoded:
    """Encode with an encoder that may raise anything: a text at fault does not spoil the others.

    Raises:
        ProviderUnavailable: the encoder fails on a harmless text too, or says so, or answers nonsense.
        RowbeamError: any other that the encoder raises on purpose, but ItemError.
    """
    try:
        return _checked(encode(texts), len(texts), dimensions)
    except ItemError as error:
        cause: BaseException = error
    except (RowbeamError, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a tokenizer written in Rust panics with a BaseException
        cause = error
    _prove_alive(encode, dimensions, cause)
    if len(texts) == 1:
        fault = cause if isinstance(cause, ItemError) else _fault(type(cause).__name__)
        return Encoded(np.zeros((1, dimensions), np.float32), [0], {0: fault})
    middle = len(texts) // 2
    return _joined(
        encode_surely(encode, texts[:middle], dimensions),
        encode_surely(encode, texts[middle:], dimensions),
    )


def _prove_alive(encode: Encode, dimensions: int, cause: BaseException) -> None:
    """Tell a text at fault from an encoder that fails on everything. Raises ProviderUnavailable."""
    try:
        _checked(encode([PROBE]), 1, dimensions)
    except SystemExit:
        raise
    except BaseException as error:
        raise ProviderUnavailable(
            f"The local model fails on every text ({type(cause).__name__}, {type(error).__name__})."
        ) from error


def _checked(encoded: Encoded, texts: int, dimensions: int) -> Encoded:
    """A vector that is not finite is its text's fault; a wrong shape is the encoder's."""
    vectors = encoded.vectors
    if vectors.shape != (texts, dimensions) or len(encoded.counts) != texts:
        raise ProviderUnavailable(
            f"The local model answered {texts} texts with an array of shape {vectors.shape}"
            f" and {len(encoded.counts)} counts; {(texts, dimensions)} was expected."
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
    if not bad:
        return encoded
    clean = np.array(vectors)
    clean[bad] = 0
    faults = {place: _fault("its vector is not finite") for place in bad} | dict(encoded.faults)
    counts = [0 if place in faults else count for place, count in enumerate(encoded.counts)]
    return Encoded(clean, counts, faults)


def _joined(left: Encoded, right: Encoded) -> Encoded:
    shift = len(left.counts)
    return Encoded(
        np.concatenate([left.vectors, right.vectors]),
        [*left.counts, *right.counts],
        {**left.faults, **{place + shift: fault for place, fault in right.faults.items()}},
    )


def _fault(reason: str) -> ItemError:
    return ItemError(f"The model cannot embed this text: {reason}.")


def _gone() -> ProviderUnavailable:
    return ProviderUnavailable("The local model's thread has ended.", hint="Start the server again.")
