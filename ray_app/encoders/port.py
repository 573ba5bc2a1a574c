"""The port to what turns texts into vectors inside this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ray_app.errors import ItemError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """The answer to one ``encode`` call.

    ``vectors`` is float32 of shape (n, dimensions), row i for text i, L2-normalised; the row of a
    text named in ``faults`` is zero.
    """

    vectors: FloatArray
    #: Tokens the model read of each text: after truncation, without padding and special tokens; 0 for a
    #: text at fault.
    counts: Sequence[int]
    faults: Mapping[int, ItemError] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(self.counts)


class Encoder(Protocol):
    """A loaded model. Safe to call from several threads, which then take turns."""

    @property
    def device(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode texts, prompt prefix included, in any number.

        A text the model fails on is reported in ``faults`` and does not spoil the others; what is
        longer than the model reads is cut off. Raises ProviderUnavailable when the model itself
        no longer works.
        """
