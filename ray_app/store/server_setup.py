"""What a collection on a Qdrant server needs before its first point, made when it is missing."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from qdrant_client import QdrantClient, models

from ray_app.errors import StoreRefused
from ray_app.spaces import EmbeddingSpace
from ray_app.store import payload, server_models
from ray_app.store.server_calls import Call, CollectionExists, applied
from ray_app.store.server_models import collection_name, collection_settings, traffic_name
from ray_app.tenants import TenantScope

_VERSION: Final = re.compile(r"(\d+)\.(\d+)")


def check_version(client: QdrantClient, call: Call) -> str:
    """The server's version. Raises StoreRefused for one that would silently ignore a wall of ours."""
    version = call(client.info).version
    numbers = _VERSION.match(version)
    if not numbers or tuple(map(int, numbers.groups())) < server_models.OLDEST_SERVER:
        needed = ".".join(map(str, server_models.OLDEST_SERVER))
        raise StoreRefused(f"The Qdrant server is version {version}.", hint=f"Use {needed} or later.")
    return version


def prepare(
    client: QdrantClient, call: Call, scope: TenantScope, space: EmbeddingSpace, fields: Sequence[str]
) -> None:
    """Make the scope's collection in ``space``, its indexes, and last the alias that lets points in."""
    name = collection_name(scope, space)
    if not call(partial(client.collection_exists, name)):
        # Another process may be a moment quicker; what it made is checked like any other.
        with suppress(CollectionExists):
            call(partial(client.create_collection, name, **collection_settings(scope, space)))
    info = call(partial(client.get_collection, name))
    server_models.check_space(name, info, space)
    if payload.WORDS not in (info.config.params.sparse_vectors or {}):
        _add_words(client, call, name)
    _index_fields(client, call, name, info.payload_schema, fields)
    alias = traffic_name(scope, space)
    if alias != name and not call(partial(client.collection_exists, alias)):
        pointing = models.CreateAlias(collection_name=name, alias_name=alias)
        create = [models.CreateAliasOperation(create_alias=pointing)]
        call(partial(client.update_collection_aliases, create))


def _add_words(client: QdrantClient, call: Call, name: str) -> None:
    """Make room for words in a collection that was made before there were any.

    Its points get theirs when they are written next.
    """
    added = server_models.ADDED_WORDS
    call(applied(partial(client.create_vector_name, name, payload.WORDS, added, wait=True)))


def _index_fields(
    client: QdrantClient, call: Call, name: str, existing: Collection[str], fields: Sequence[str]
) -> None:
    """Index our own keys and, as far as there is room, ``fields``.

    Before the first point: graph links of a partition need its index when they are built.
    """
    wanted: dict[str, Any] = server_models.OWN_INDEXES | dict.fromkeys(fields, server_models.FIELD_INDEX)
    missing = [key for key in wanted if key not in existing]
    room = max(0, server_models.MAX_INDEXES - len(existing))
    for key in missing[:room]:
        call(partial(client.create_payload_index, name, key, wanted[key], wait=True))
