"""Rowbeam: tenant rows in, searchable vectors out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray_app.app import Rowbeam

__all__ = ["Rowbeam"]


def __getattr__(name: str) -> object:
    # Lazily: a worker that imports one module of the package should not pay for all of it.
    if name == "Rowbeam":
        from ray_app.app import Rowbeam

        return Rowbeam
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
