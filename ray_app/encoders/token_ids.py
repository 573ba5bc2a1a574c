"""Token ids as input: back to the text that has them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import decoders

from ray_app.encoders.model_config import load_tokenizer


class TokenIdReader:
    """Turns ids of one model's tokenizer into text. Safe to call from several threads.

    Raises:
        ConfigError: the tokenizer cannot be read.
    """

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = load_tokenizer(tokenizer)
        if isinstance(self._tokenizer.decoder, decoders.WordPiece):
            # By default it writes "don't" where the text had "do not".
            self._tokenizer.decoder = decoders.WordPiece(cleanup=False)
        self._special = frozenset(self._tokenizer.encode("").ids)
        self.vocabulary: int = self._tokenizer.get_vocab_size()

    def bare(self, ids: Sequence[int]) -> Sequence[int]:
        """The ids without the special tokens that begin and end a text."""
        start, stop = 0, len(ids)
        while start < stop and ids[start] in self._special:
            start += 1
        while stop > start and ids[stop - 1] in self._special:
            stop -= 1
        return ids[start:stop]

    def text(self, ids: Sequence[int]) -> str:
        """The text whose tokens these are, special ones not counted.

        Raises:
            ValueError: there is none. Ids of another model's tokenizer are mostly found out so.
        """
        if any(not 0 <= number < self.vocabulary for number in ids):
            raise ValueError(f"token ids of this model are 0 to {self.vocabulary - 1}")
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        if self._tokenizer.encode(text, add_special_tokens=False).ids != list(ids):
            raise ValueError("no text has these tokens")
        return text


@lru_cache(maxsize=4)
def token_id_reader(tokenizer: Path) -> TokenIdReader:
    """The reader of a ``tokenizer.json``, made once. Raises ConfigError."""
    return TokenIdReader(tokenizer)
