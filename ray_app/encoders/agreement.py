"""How far two encoders of one model agree: in the neighbours they name, and in direction."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ray_app.encoders.batching import unit_rows
from ray_app.encoders.port import FloatArray

#: Rows compared with all others at once: similarities of 1,024 by 20,000 rows take 82 MB.
_BLOCK: Final = 1024


def agreement(ours: FloatArray, reference: FloatArray, k: int = 10) -> float:
    """The share, 0 to 1, of each row's ``k`` nearest rows by cosine that both arrays name.

    ``ours`` and ``reference`` are float32 of shape (n, d) and (n, e), row i of both for the same
    text, not necessarily normalised. A row is no neighbour of its own. This is recall at ``k`` of a
    search in ``ours`` for every text, with ``reference`` as the truth, averaged over the texts.

    Raises:
        ValueError: the arrays have different numbers of rows, or no more than ``k``.
    """
    _check_rows(ours, reference)
    if not 1 <= k < len(ours):
        raise ValueError(f"{len(ours)} rows have no {k} nearest others")
    shared = 0
    ours_unit, reference_unit = unit_rows(ours)[0], unit_rows(reference)[0]
    for start in range(0, len(ours), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(ours)))
        found = _nearest(ours_unit, rows, k)
        truth = _nearest(reference_unit, rows, k)
        shared += int((found[:, :, None] == truth[:, None, :]).sum())
    return shared / (len(ours) * k)


def mean_cosine(ours: FloatArray, reference: FloatArray) -> float:
    """The mean over rows of the cosine between ``ours`` and ``reference``, float32 of shape (n, d) both.

    Raises:
        ValueError: the shapes differ, or there are no rows.
    """
    _check_rows(ours, reference)
    if ours.shape != reference.shape or not len(ours):
        raise ValueError(f"rows of shapes {ours.shape} and {reference.shape} have no mean cosine")
    return float((unit_rows(ours)[0] * unit_rows(reference)[0]).sum(axis=1).mean())


def _nearest(unit: FloatArray, rows: npt.NDArray[np.intp], k: int) -> npt.NDArray[np.intp]:
    """The ``k`` rows of ``unit`` most similar to each of ``rows``, in no order; shape (len(rows), k)."""
    similarity = unit[rows] @ unit.T
    similarity[np.arange(len(rows)), rows] = -np.inf
    return np.argpartition(-similarity, k - 1, axis=1)[:, :k]


def _check_rows(ours: FloatArray, reference: FloatArray) -> None:
    if len(ours) != len(reference):
        raise ValueError(f"{len(ours)} rows cannot be compared with {len(reference)}")
