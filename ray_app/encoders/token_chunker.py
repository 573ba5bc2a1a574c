"""Cutting texts by the tokens of the model that will read them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from tokenizers import Encoding

from ray_app.encoders.model_config import load_tokenizer
from ray_app.text import Chunk, windows

DEFAULT_OVERLAP: Final = 32
#: Characters a chunk may have for each token it may have. Text has 1 to 8; more is a blob without
#: spaces, which a WordPiece model reads as one unknown token however long it is.
_CHARS_PER_TOKEN: Final = 32
#: Characters tokenised at once: 1 MB of "a,a,…" makes the tokenizer take 640 MB.
_SEGMENT_CHARS: Final = 65_536
_BATCH_CHARS: Final = 262_144
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")

Span = tuple[int, int]


class TokenChunker:
    """Cuts at word starts into windows of at most ``max_tokens`` tokens, special tokens not counted.

    A chunk is an exact piece of the text, stripped, and has at most ``max_tokens`` tokens when it
    is tokenised alone. Neighbours share up to ``overlap`` tokens (default: 32, or a quarter of a
    small window). A word too long for the overlap is cut where the window ends. Lone surrogates,
    which neither UTF-8 nor a tokenizer knows, become U+FFFD.

    Safe to call from several threads.

    Raises:
        ConfigError: the tokenizer cannot be read.
        ValueError: half a window or more would be overlap.
    """

    def __init__(self, tokenizer: Path, max_tokens: int, overlap: int | None = None) -> None:
        overlap = min(DEFAULT_OVERLAP, max_tokens // 4) if overlap is None else overlap
        if overlap < 0 or 2 * overlap >= max_tokens:
            raise ValueError("overlap must be at least 0 and less than half of max_tokens")
        self._tokenizer = load_tokenizer(tokenizer)
        self._size = max_tokens
        self._overlap = overlap
        self._max_chars = max_tokens * _CHARS_PER_TOKEN
        # A segment must hold more than one chunk, or cutting it would not get on.
        self._segment_chars = max(_SEGMENT_CHARS, 2 * self._max_chars)

    @property
    def chunker_id(self) -> str:
        return f"tokens:{self._size}:{self._overlap}:v1"

    def chunk(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """The chunks of each text, in order; none for a blank text, else at least one."""
        stripped = [_LONE_SURROGATE.sub("\ufffd", text).strip() for text in texts]
        lengths = self._count([text if len(text) <= self._max_chars else "" for text in stripped])
        return [
            self._cut(text) if length > self._size or len(text) > self._max_chars else _whole(text, length)
            for text, length in zip(stripped, lengths, strict=True)
        ]

    def _count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        counts: list[int] = []
        for batch in _batches(texts):
            counts += map(len, self._tokenizer.encode_batch_fast(batch, add_special_tokens=False))
        return counts

    def _cut(self, text: str) -> list[Chunk]:
        pieces = [piece for start, end in self._spans(text) if (piece := text[start:end].strip())]
        chunks = [
            chunk
            for piece, tokens in zip(pieces, self._count(pieces), strict=True)
            for chunk in self._fitted(piece, tokens)
        ]
        # A piece the tokenizer makes nothing of would be one more point of the empty text.
        return [chunk for chunk in chunks if chunk.tokens] or chunks[:1]

    def _fitted(self, piece: str, tokens: int) -> Iterator[Chunk]:
        """The piece, halved until it fits: a word cut in two can have more tokens than its share."""
        if tokens <= self._size or len(piece) == 1:
            yield Chunk(piece, tokens)
            return
        middle = len(piece) // 2
        halves = [half for half in (piece[:middle].strip(), piece[middle:].strip()) if half]
        for half, count in zip(halves, self._count(halves), strict=True):
            yield from self._fitted(half, count)

    def _spans(self, text: str) -> Iterator[Span]:
        """Spans of characters that cover the text, one segment tokenised at a time."""
        begin = 0
        while begin + self._segment_chars < len(text):
            spans = self._segment_spans(text[begin : begin + self._segment_chars])
            # The last one ends where the segment does, and not where a window would: it is cut again.
            yield from ((begin + start, begin + end) for start, end in spans[:-1])
            begin += spans[-1][0]
        yield from ((begin + start, begin + end) for start, end in self._segment_spans(text[begin:]))

    def _segment_spans(self, segment: str) -> list[Span]:
        encoding = self._tokenizer.encode(segment, add_special_tokens=False)
        if not len(encoding):
            return _slices(0, len(segment), self._max_chars)
        # Each token reaches to the next one, so that characters without a token are in a span too.
        starts = [0, *(start for start, _ in encoding.offsets[1:]), len(segment)]
        spans: list[Span] = []
        sliced_to = 0  # what had to be cut by characters is not repeated: its tokens are too long to overlap
        for first, last in _at_words(windows(len(encoding), self._size, self._overlap), encoding):
            pieces = _slices(max(starts[first], sliced_to), starts[last], self._max_chars)
            if len(pieces) > 1:
                sliced_to = starts[last]
            spans += pieces
        return spans


def _whole(text: str, tokens: int) -> list[Chunk]:
    return [Chunk(text, tokens)] if text else []


def _at_words(spans: list[Span], encoding: Encoding) -> list[Span]:
    """Token windows with borders moved to word starts, inside the overlap of two neighbours.

    An end moves back and the next start forward, but never past each other: no token is lost.
    """
    words = encoding.word_ids
    moved: list[Span] = []
    begin = spans[0][0]
    for (_, end), (start, _) in pairwise(spans):
        borders = [token for token in range(start, end + 1) if words[token] != words[token - 1]]
        moved.append((begin, borders[-1] if borders else end))
        begin = borders[0] if borders else start
    moved.append((begin, spans[-1][1]))
    return moved


def _slices(start: int, end: int, size: int) -> list[Span]:
    return [(place, min(place + size, end)) for place in range(start, end, size)]


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Consecutive texts of together at most ``_BATCH_CHARS`` characters, or one longer text."""
    batch: list[str] = []
    room = _BATCH_CHARS
    for text in texts:
        if batch and len(text) > room:
            yield batch
            batch, room = [], _BATCH_CHARS
        batch.append(text)
        room -= len(text)
    if batch:
        yield batch
