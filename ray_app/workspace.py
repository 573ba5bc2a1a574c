"""One process's connections, made from settings: the composition root of everything but Ray."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Engine

from ray_app.db.api_keys import ApiKeys
from ray_app.db.engine import ledger_engine, source_engine
from ray_app.db.indexes import PinnedIndex
from ray_app.db.registry import TenantRegistry
from ray_app.db.source import SourceTable
from ray_app.diff import Comparer
from ray_app.providers.catalog import ProviderCatalog
from ray_app.settings import Settings
from ray_app.spaces import VectorType
from ray_app.store.port import IndexKey
from ray_app.tables import TableCatalog, load_catalog
from ray_app.tenants import Tenant
from ray_app.text import Chunker


@dataclass(frozen=True)
class IndexReader:
    """What it takes to read one index of one tenant and to see what changed."""

    tenant: Tenant
    index: PinnedIndex
    source: SourceTable
    chunker: Chunker
    comparer: Comparer

    @property
    def key(self) -> IndexKey:
        return IndexKey(self.index.table, self.index.vector_type, self.index.space)


class Workspace:
    """Lazily opened engines, catalogues and registry. Close it when done."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def ledger(self) -> Engine:
        return ledger_engine(self.settings)

    @cached_property
    def source(self) -> Engine:
        return source_engine(self.settings, self.ledger)

    @cached_property
    def tables(self) -> TableCatalog:
        return load_catalog(self.settings.catalog_file)

    @cached_property
    def providers(self) -> ProviderCatalog:
        return ProviderCatalog(self.settings)

    @cached_property
    def registry(self) -> TenantRegistry:
        return TenantRegistry(self.ledger)

    @cached_property
    def keys(self) -> ApiKeys:
        return ApiKeys(self.ledger)

    def source_table(self, name: str) -> SourceTable:
        """Raises UnknownTable, InvalidTableSpec."""
        return SourceTable.reflect(self.source, self.tables.get(name))

    def reader(self, tenant: Tenant, index: PinnedIndex, source: SourceTable | None = None) -> IndexReader:
        """Raises UnknownTable, InvalidTableSpec, UnknownVectorType, ConfigError."""
        source = source or self.source_table(index.table)
        kind = VectorType(index.vector_type)
        source.check_text(kind)
        chunker = self.providers.chunker_for(index.space)
        spec = source.spec
        comparer = Comparer(
            spec.text_rule(kind), spec.payload, index.space, chunker.chunker_id, spec.updated_column
        )
        return IndexReader(tenant, index, source, chunker, comparer)

    def close(self) -> None:
        for name in ("source", "ledger"):
            engine = self.__dict__.pop(name, None)
            if engine is not None:
                engine.dispose()
        providers = self.__dict__.pop("providers", None)
        if providers is not None:
            providers.close()
