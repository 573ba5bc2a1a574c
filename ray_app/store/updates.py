"""New payload columns for points that stay where they are: stamped and guarded like the points themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ray_app.store import payload
from ray_app.store.filters import Where, cut_ids
from ray_app.store.port import DataChange, IndexKey
from ray_app.store.sizing import json_bytes
from ray_app.tenants import TenantScope

#: Bytes of a filter's own conditions and of each id in it, as JSON, at most.
_FILTER_BYTES: Final = 512
_ID_BYTES: Final = 40


@dataclass(frozen=True)
class PayloadUpdate:
    """Top-level payload keys that the points ``where`` matches get; their other keys stay."""

    where: Where
    payload: dict[str, Any]

    @property
    def wire_bytes(self) -> int:
        """Rough upper bound of the update's size as JSON."""
        ids = self.where.ids or ()
        return _FILTER_BYTES + _ID_BYTES * len(ids) + json_bytes(self.payload)


def stamp_data(
    scope: TenantScope, index: IndexKey, changes: Sequence[DataChange], version: int
) -> list[PayloadUpdate]:
    """Updates that touch the named records' points of this tenant and index, if not newer, and no others.

    The whole user object is one key and so replaced: a column that became null no longer matches.
    By filter and never by id alone, which an engine would apply to whoever's point it is.

    Raises:
        InputError: a version, record id or payload value that cannot be stored.
    """
    partition = payload.partition_of(scope, index)
    guard = payload.check_version(version)
    updates = []
    for change in changes:
        ids = [payload.point_key(scope, index, change.record_id, chunk) for chunk in range(change.chunks)]
        fresh = {payload.VERSION: guard, payload.DATA: payload.clean_data(change.data)}
        updates += [
            PayloadUpdate(Where(scope.incarnation, partition, cut, max_version=guard), fresh)
            for cut in cut_ids(ids)
        ]
    return updates
