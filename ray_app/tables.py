"""Table specs: how a tenant table is read. Shipped for the 14 platform tables, extended by config.

A spec only names things. Whether the names exist is checked against the database's catalogue
(``ray_app.db.catalogue``) before any SQL is built from them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ray_app.errors import ConfigError, UnknownTable, UnknownVectorType
from ray_app.spaces import VectorType

#: Priority of a table that neither the shipped specs nor the config rank.
UNKNOWN_PRIORITY: Final = 5


class TextMode(StrEnum):
    """How a text rule makes one text out of its columns."""

    #: Every column that has text, one below the other.
    JOIN = "join"
    #: The first column that has text.
    FIRST = "first"
    #: ``column: value`` lines of the columns that have a value.
    FIELDS = "fields"


@dataclass(frozen=True)
class TextRule:
    """Which columns make the text of one vector type. Columns a table does not have are passed over."""

    mode: TextMode
    columns: tuple[str, ...]


DEFAULT_TEXT: Final[Mapping[VectorType, TextRule]] = {
    VectorType.CONTENT: TextRule(TextMode.JOIN, ("summary", "description", "title", "content")),
    VectorType.SUMMARY: TextRule(TextMode.FIRST, ("summary", "title")),
    VectorType.METADATA: TextRule(TextMode.FIELDS, ("status", "priority", "type", "labels")),
}
_PAYLOAD: Final = ("status", "priority", "type", "labels")


@dataclass(frozen=True)
class TableSpec:
    """How one tenant table is read."""

    name: str
    priority: int = UNKNOWN_PRIORITY
    #: Whether a backfill that names no tables takes this one.
    vector_enabled: bool = True
    primary_key: str = "id"
    tenant_column: str = "client_id"
    #: Boolean column; only rows where it is true are read. None reads all rows.
    active_column: str | None = "active"
    #: Timestamp column by which an older state of a row is told from a newer one, where the table has it.
    updated_column: str | None = "updated_at"
    db_schema: str = "public"
    text: Mapping[VectorType, TextRule] = field(default_factory=lambda: dict(DEFAULT_TEXT))
    #: Columns copied to the point's payload, to filter searches by. Absent ones are passed over.
    payload: tuple[str, ...] = _PAYLOAD
    #: Vector types a backfill makes when it is asked for none in particular.
    vector_types: tuple[VectorType, ...] = (VectorType.CONTENT,)

    def text_rule(self, vector_type: VectorType) -> TextRule:
        """Raises UnknownVectorType when the table has no rule for it."""
        try:
            return self.text[vector_type]
        except KeyError:
            have = ", ".join(self.text)
            raise UnknownVectorType(
                f"Table {self.name} has no text rule for vector type {vector_type}.", hint=f"It has: {have}."
            ) from None


def _platform(
    name: str,
    priority: int,
    *,
    enabled: bool = True,
    content: tuple[str, ...] = (),
    payload: tuple[str, ...] = (),
) -> TableSpec:
    text = dict(DEFAULT_TEXT)
    if content:
        text[VectorType.CONTENT] = TextRule(TextMode.JOIN, content)
    return TableSpec(
        name=name, priority=priority, vector_enabled=enabled, text=text, payload=(*_PAYLOAD, *payload)
    )


#: The platform's tables. People, places and projects are found by their names, so these join the content.
PLATFORM_TABLES: Final[Mapping[str, TableSpec]] = {
    spec.name: spec
    for spec in (
        _platform("issues", 10, payload=("project_id", "assignee", "created_at")),
        _platform("pull_requests", 10, payload=("repository", "author", "created_at")),
        _platform("projects", 9, content=("name", "summary", "description"), payload=("key",)),
        _platform("repositories", 9, content=("full_name", "summary", "description"), payload=("language",)),
        _platform("pull_request_comments", 7, payload=("pull_request_id", "author", "created_at")),
        _platform("pull_request_reviews", 7, payload=("pull_request_id", "author", "state", "created_at")),
        _platform("users", 6, content=("name", "title", "description"), payload=("team",)),
        _platform("issue_changelogs", 6, enabled=False),
        _platform("statuses", 4, enabled=False, content=("name", "description")),
        _platform("issuetypes", 4, enabled=False, content=("name", "description")),
        _platform("workflows", 3, enabled=False, content=("name", "description")),
        _platform("system_settings", 2, enabled=False, content=("name", "description")),
        _platform("dora_market_benchmarks", 1, enabled=False, content=("name", "description")),
        _platform("dora_metric_insights", 1, enabled=False, content=("title", "content")),
    )
}


class TableCatalog:
    """The table specs in force: the shipped ones, changed and extended by config."""

    def __init__(self, specs: Mapping[str, TableSpec] = PLATFORM_TABLES) -> None:
        self._specs = dict(specs)

    def get(self, name: str) -> TableSpec:
        """Raises UnknownTable."""
        try:
            return self._specs[name]
        except KeyError:
            known = ", ".join(sorted(self._specs))
            raise UnknownTable(
                f"No table spec is named {name!r}.",
                hint=f"Known: {known}. Add others to rowbeam.toml as [tables.<name>].",
            ) from None

    def select(self, names: Iterable[str] | None = None) -> list[TableSpec]:
        """The named specs, or all vector-enabled ones; highest priority first, then in shipped order."""
        chosen = (
            [spec for spec in self._specs.values() if spec.vector_enabled]
            if names is None
            else [self.get(name) for name in dict.fromkeys(names)]
        )
        order = {name: place for place, name in enumerate(self._specs)}
        return sorted(chosen, key=lambda spec: (-spec.priority, order[spec.name]))

    def __iter__(self) -> Iterator[TableSpec]:
        return iter(self._specs.values())


class _TextConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    columns: list[str] = Field(min_length=1)
    mode: TextMode = TextMode.JOIN


class _TableConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    priority: int | None = None
    vector_enabled: bool | None = None
    primary_key: str | None = None
    tenant_column: str | None = None
    active_column: str | None = None
    updated_column: str | None = None
    db_schema: str | None = None
    payload: list[str] | None = None
    vector_types: list[VectorType] | None = Field(default=None, min_length=1)
    text: dict[VectorType, _TextConfig] | None = None


class _ConfigFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tables: dict[str, _TableConfig] = {}
    #: See ``ray_app.syncing.rules``.
    sync: dict[str, Any] = {}


def load_catalog(path: Path | None) -> TableCatalog:
    """The shipped specs with ``path`` (TOML, ``[tables.<name>]``) laid over them.

    An ``active_column`` or ``updated_column`` of "" means that the table has none.

    Raises:
        ConfigError: the file cannot be read or holds something unknown.
    """
    if path is None:
        return TableCatalog()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The config file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {path} is not valid TOML: {error}.") from error
    try:
        config = _ConfigFile.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
        )
        raise ConfigError(f"The config file {path} holds something unknown: {problems}.") from error
    specs = dict(PLATFORM_TABLES)
    for name, table in config.tables.items():
        specs[name] = _overlay(specs.get(name, TableSpec(name=name)), table)
    return TableCatalog(specs)


def _overlay(spec: TableSpec, table: _TableConfig) -> TableSpec:
    given = table.model_dump(exclude_none=True, exclude={"text"})
    changes: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }
    for name in ("active_column", "updated_column"):
        if changes.get(name) == "":
            changes[name] = None
    if table.text:
        rules = {kind: TextRule(rule.mode, tuple(rule.columns)) for kind, rule in table.text.items()}
        changes["text"] = {**spec.text, **rules}
    return replace(spec, **changes)


def parse_vector_types(names: Iterable[str]) -> tuple[VectorType, ...]:
    """Raises UnknownVectorType for anything but content, summary and metadata."""
    kinds = []
    for name in names:
        try:
            kinds.append(VectorType(name))
        except ValueError:
            raise UnknownVectorType(
                f"{name!r} is not a vector type.", hint="Use content, summary or metadata."
            ) from None
    return tuple(dict.fromkeys(kinds))
