"""The words of a text as a sparse vector, so that an engine's sparse search is BM25.

BM25 (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009) is a sum over the query's
words of how often the word stands in the document, saturated and set against the document's
length, times how rare it is (IDF). The first factor is computed here, when a document is written;
the second by the engine at query time, over the asking tenant's points.

Nothing here knows a language: no stop words, for their IDF is next to nothing, and no stemmer,
which would be wrong for identifiers and for every language but its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final
from zlib import crc32

#: Saturation and length normalisation, at Lucene's defaults.
K1: Final = 1.2
B: Final = 0.75
#: Words of an average document. BM25 asks for the true mean, which changes with every write, while a
#: weight once written stays; only proportions matter, and a chunk is at most some 200 English words
#: (254 tokens), a row often a line or two. Another value means writing every point again.
AVERAGE_WORDS: Final = 100
#: A piece with more changes of case and digits than this is a hash or a key, not words run together.
_MOST_HUMPS: Final = 8
#: Scripts written without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han; and Hangul, whose
#: words carry their particles.
_UNSPACED: Final = (
    "\u3005-\u3007\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_DOTS: Final = re.compile(r"[.\-]")
#: Words whose parts are kept: texts repeat theirs, and cutting costs more than all else a write does.
_KEPT_WORDS: Final = 65_536
#: Letters of the longest of them, so that what is kept stays small.
_KEPT_LETTERS: Final = 40


@dataclass(frozen=True)
class WordVector:
    """A sparse vector: a weight at the number of each word. Numbers are distinct, ascending uint32."""

    indices: list[int]
    weights: list[float]


def document_vector(text: str) -> WordVector | None:
    """The words of ``text`` by their BM25 weight without IDF; None when it has no words."""
    counts = Counter(words(text))
    # k1 * (1 - b + b * length / average), the same for every word of the document.
    norm = K1 * (1 - B + B * counts.total() / AVERAGE_WORDS)
    return _vector({word: count * (K1 + 1) / (count + norm) for word, count in counts.items()})


def query_vector(text: str) -> WordVector | None:
    """The words of ``text``, 1 each however often they stand there; None when it has no words."""
    return _vector(dict.fromkeys(words(text), 1.0))


def _vector(weights: dict[str, float]) -> WordVector | None:
    """Words by number: their CRC-32, which is the same everywhere and in every version of Python.

    Two words of a query's size meet once in four billion; where they do, their weights are added.
    """
    sums: dict[int, float] = {}
    for word, weight in weights.items():
        number = crc32(word.encode())
        sums[number] = sums.get(number, 0.0) + weight
    ascending = sorted(sums)
    return WordVector(ascending, [sums[number] for number in ascending]) if sums else None


def words(text: str) -> Iterator[str]:
    """The words of ``text`` in order, case-folded.

    ``parse_config.HTTPServer`` is found as it stands and by its parts: parse_config, parse, config,
    httpserver, http, server. A script without spaces gives pairs of neighbouring characters.
    """
    unspaced, any_word = _patterns()
    for found in any_word.finditer(unicodedata.normalize("NFKC", text)):
        word = found.group()
        if unspaced.match(word):
            yield from (word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif len(word) <= _KEPT_LETTERS:
            yield from _kept_parts(word)
        else:
            yield from _with_parts(word)


@lru_cache(maxsize=_KEPT_WORDS)
def _kept_parts(word: str) -> tuple[str, ...]:
    return tuple(_with_parts(word))


def _with_parts(word: str) -> Iterator[str]:
    """``word``, and what dots and dashes, else underscores, else changes of case and digits cut it into."""
    word = word.strip("_.-")
    if not word:
        return
    yield word.casefold()
    parts = _DOTS.split(word)
    if len(parts) == 1:
        parts = word.split("_")
    if len(parts) == 1:
        yield from _humps(word)
    else:
        for part in parts:
            yield from _with_parts(part)


def _humps(piece: str) -> list[str]:
    if piece.isalpha() and (piece[1:].islower() or piece.isupper()):
        return []
    cuts = [0, *(at for at in range(1, len(piece)) if _cuts(piece, at)), len(piece)]
    if not 2 < len(cuts) <= _MOST_HUMPS + 1:
        return []
    return [piece[start:end].casefold() for start, end in pairwise(cuts)]


def _cuts(piece: str, at: int) -> bool:
    before, here, after = piece[at - 1], piece[at], piece[at + 1 : at + 2]
    if before.isdigit() != here.isdigit():
        return True
    # The last capital of a run begins the next word: HTTPServer.
    return here.isupper() and (not before.isupper() or after.islower())


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """One character of an unspaced script; a run of such, or a word with its inner dots and dashes."""
    # Vowel signs and accents are marks, which \w leaves out.
    marks = (chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M")
    sign = rf"[\w{''.join(marks)}]"
    unspaced, spaced = rf"(?:(?={sign})[{_UNSPACED}])", rf"(?:(?![{_UNSPACED}]){sign})"
    return re.compile(f"[{_UNSPACED}]"), re.compile(rf"{unspaced}+|{spaced}+(?:[.\-]{spaced}+)*")
