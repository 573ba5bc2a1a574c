"""Filters: compiled once to neutral clauses, then translated for either engine by one function.

The engines' filter models differ only in class names, so a ``Dialect`` of constructors is all that
an adapter adds. A user's conditions become one nested clause beside the tenant's; they are never
merged with it, where a "should" could widen what the tenant condition allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

from ray_app.errors import IsolationViolation
from ray_app.metrics.declared import ISOLATION_VIOLATIONS
from ray_app.store import payload

#: Ids of one condition: as many values as the server collections accept.
MAX_IDS: Final = 1000


@dataclass(frozen=True)
class Match:
    """The field, or an element of it, is one of ``values`` (all str, all int, or a single bool)."""

    key: str
    values: tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True)
class Bounds:
    """The field, or an element of it, lies within every bound: numbers as float64, times as ISO 8601."""

    key: str
    bounds: tuple[tuple[str, float | str], ...]


@dataclass(frozen=True)
class HasId:
    """The point is one of ``ids``."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class AllOf:
    clauses: tuple[Clause, ...]


@dataclass(frozen=True)
class AnyOf:
    clauses: tuple[Clause, ...]


Clause: TypeAlias = Match | Bounds | HasId | AllOf | AnyOf


@dataclass(frozen=True)
class Where:
    """Which points an engine call may touch. There is none without a tenant."""

    tenant: UUID
    partition: UUID | None = None
    ids: tuple[str, ...] | None = None
    max_version: int | None = None
    user: AllOf | None = None
    #: Records to leave out.
    without: tuple[str, ...] = ()

    def must(self) -> list[Clause]:
        clauses: list[Clause] = []
        if self.partition is not None:
            # First, because the server's check for a tenant filter looks at its position too.
            clauses.append(Match(payload.PARTITION, (str(self.partition),)))
        clauses.append(Match(payload.TENANT, (str(self.tenant),)))
        if self.ids is not None:
            clauses.append(HasId(self.ids))
        if self.max_version is not None:
            clauses.append(Bounds(payload.VERSION, (("lte", float(self.max_version)),)))
        if self.user is not None:
            clauses.append(self.user)
        return clauses

    def corpus(self) -> Where:
        """The points among which a word's rarity counts: the tenant's own in the space, of every index.

        So that scores of several indexes compare, and no other tenant's texts show in them.
        """
        return Where(self.tenant)


def cut_ids(ids: Sequence[str]) -> list[tuple[str, ...]]:
    """``ids`` in order, cut to what one condition may hold."""
    return [tuple(ids[at : at + MAX_IDS]) for at in range(0, len(ids), MAX_IDS)]


@dataclass(frozen=True)
class Dialect:
    """The constructors of one engine's filter models."""

    all_and_none: Callable[[list[Any], list[Any]], Any]
    any_of: Callable[[list[Any]], Any]
    matched: Callable[[str, Any], Any]
    ranged: Callable[[str, Any], Any]
    value: Callable[[Any], Any]
    values: Callable[[list[Any]], Any]
    numbers: Callable[..., Any]
    times: Callable[..., Any]
    has_id: Callable[[list[str]], Any]
    is_empty: Callable[[str], Any]


def translate(where: Where, dialect: Dialect) -> Any:
    """The engine's filter for ``where``, its tenant condition checked once more in the result.

    Raises:
        IsolationViolation: the filter does not name the tenant (a defect in here or in the dialect).
    """
    without: list[Clause] = [Match(payload.RECORD, where.without)] if where.without else []
    compiled = dialect.all_and_none(
        [_condition(clause, dialect) for clause in where.must()],
        [_condition(clause, dialect) for clause in without],
    )
    require_tenant(compiled, where.tenant)
    return compiled


def _condition(clause: Clause, dialect: Dialect) -> Any:
    match clause:
        case Match(key, (only,)):
            return dialect.matched(key, dialect.value(only))
        case Match(key, values):
            return dialect.matched(key, dialect.values(list(values)))
        case Bounds(key, bounds):
            timed = any(isinstance(bound, str) for _, bound in bounds)
            return dialect.ranged(key, (dialect.times if timed else dialect.numbers)(**dict(bounds)))
        case HasId(ids):
            return dialect.has_id(list(ids))
        case AllOf(clauses):
            return dialect.all_and_none([_condition(part, dialect) for part in clauses], [])
        case AnyOf(clauses):
            return dialect.any_of([_condition(part, dialect) for part in clauses])


def require_tenant(compiled: Any, tenant: UUID) -> None:
    """Refuse an engine filter whose top-level ``must`` does not name ``tenant``.

    To the engine a filter without conditions means every point, so a delete with one would
    empty all tenants.
    """
    for condition in getattr(compiled, "must", None) or ():
        if getattr(condition, "key", None) == payload.TENANT:
            match = getattr(condition, "match", None)
            if getattr(match, "value", None) == str(tenant):
                return
    ISOLATION_VIOLATIONS.add(1)
    raise IsolationViolation("A filter without its tenant condition was about to reach the vector store.")


def outside(tenant: str, partitions: list[str], dialect: Dialect, *, everybody: bool = True) -> Any:
    """The engine's filter for a tenant's points outside of ``partitions``; with ``everybody``, which is for
    a place of the tenant's own, also for whatever is there under another name."""

    def lacking(key: str, values: list[str]) -> Any:
        return dialect.all_and_none([], [dialect.matched(key, dialect.values(values))] if values else [])

    elsewhere = lacking(payload.PARTITION, partitions)
    if everybody:
        return dialect.any_of([lacking(payload.TENANT, [tenant]), elsewhere])
    compiled = dialect.all_and_none([_condition(Match(payload.TENANT, (tenant,)), dialect), elsewhere], [])
    require_tenant(compiled, UUID(tenant))
    return compiled


def nameless(dialect: Dialect) -> Any:
    """The engine's filter for points that carry no tenant's name."""
    return dialect.all_and_none([dialect.is_empty(payload.TENANT)], [])


def own_or_nameless(tenant: str, ids: list[str], dialect: Dialect) -> Any:
    """The engine's filter for points of ``ids`` that carry the tenant's name or none."""
    named = _condition(Match(payload.TENANT, (tenant,)), dialect)
    allowed = dialect.any_of([named, dialect.is_empty(payload.TENANT)])
    return dialect.all_and_none([dialect.has_id(ids), allowed], [])
