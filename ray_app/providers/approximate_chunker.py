"""Cutting texts for a model whose tokenizer is not here: sizes are estimated from UTF-8 bytes.

The gateway's models use byte-level BPE, which never makes more tokens than bytes, so a limit in
bytes bounds the tokens of any text. What a token is worth was counted with cl100k_base over
10,000 commit messages: 3.7 to 4.2 bytes on average, under 2.7 for the densest 5 in 100; Chinese
and Hindi come to 2.8 and 2.9, only runs of hex, base64 or emoji go below 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from ray_app.text import Chunk

#: Low enough that nearly all real text has fewer tokens than estimated.
BYTES_PER_TOKEN: Final = 2.5
#: Where to cut, best first: paragraph, line, sentence, word. Each match ends where the next piece starts.
_BREAKS: Final = (
    re.compile(rb"\n[ \t\r]*\n\s*"),
    re.compile(rb"\n\s*"),
    re.compile(rb"[.!?;]\s+|(?:\xe3\x80\x82|\xef\xbc\x81|\xef\xbc\x9f)\s*"),  # the last are 。！？
    re.compile(rb"\s+"),
)
_LONGEST_CHARACTER: Final = 4


def estimate_tokens(text: str, bytes_per_token: float = BYTES_PER_TOKEN) -> int:
    """Tokens of ``text``, estimated high: its UTF-8 bytes over ``bytes_per_token``, rounded up."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / bytes_per_token)


class ApproximateChunker:
    """Cuts at paragraphs, lines, sentences or words into pieces of at most ``max_tokens`` estimated tokens.

    Each piece repeats about ``overlap`` tokens of the one before. Pieces are stripped; every
    character that is not white space is in at least one of them.

    Raises:
        ValueError: the overlap leaves less room than one character.
    """

    def __init__(self, max_tokens: int, overlap: int, bytes_per_token: float = BYTES_PER_TOKEN) -> None:
        self._bytes_per_token = bytes_per_token
        self._limit = math.floor(max_tokens * bytes_per_token)
        if math.ceil(self._limit / bytes_per_token) > max_tokens:  # rounding of the product
            self._limit -= 1
        self._overlap = math.floor(overlap * bytes_per_token)
        if overlap < 0 or self._limit - self._overlap < _LONGEST_CHARACTER:
            raise ValueError("overlap must be at least 0 and leave room for one character")
        self._id = f"approximate-1:{max_tokens}:{overlap}:{bytes_per_token:g}"

    @property
    def chunker_id(self) -> str:
        return self._id

    def chunk(self, texts: Sequence[str]) -> list[list[Chunk]]:
        """The chunks of each text, in order; none for a blank text."""
        return [self._chunks(text) for text in texts]

    def _chunks(self, text: str) -> list[Chunk]:
        data = text.encode("utf-8", "surrogatepass")
        chunks = []
        covered = 0
        for start, end in self._spans(data):
            # A piece may hold nothing new but white space.
            if _text(data[covered:end]):
                piece = _text(data[start:end])
                chunks.append(Chunk(piece, estimate_tokens(piece, self._bytes_per_token)))
            covered = end
        return chunks

    def _spans(self, data: bytes) -> list[tuple[int, int]]:
        """Half-open byte spans that cover ``data``, each on character boundaries and within the limit."""
        spans = []
        start = 0
        while len(data) - start > self._limit:
            end = self._end(data, start)
            spans.append((start, end))
            start = self._next_start(data, end)
        spans.append((start, len(data)))
        return spans

    def _end(self, data: bytes, start: int) -> int:
        """Where the piece from ``start`` ends: at the best break in its second half, else at the limit."""
        limit = start + self._limit
        # A piece no longer than the overlap would make the next one start no further on.
        earliest = start + max(self._limit // 2, self._overlap)
        for pattern in _BREAKS:
            ends = [match.end() for match in pattern.finditer(data, earliest, limit)]
            if ends and ends[-1] > earliest:
                return ends[-1]
        while _inside_character(data, limit):
            limit -= 1
        return limit

    def _next_start(self, data: bytes, end: int) -> int:
        """The first word start of the overlap, else its first character."""
        begin = end - self._overlap
        word = _BREAKS[-1].search(data, begin, end)
        if word is not None:
            return word.end()
        while _inside_character(data, begin):
            begin += 1
        return begin


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass").strip()


def _inside_character(data: bytes, position: int) -> bool:
    return position < len(data) and data[position] & 0xC0 == 0x80
