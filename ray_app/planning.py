"""What a backfill would do: which indexes, in which spaces, how much of it, and at what cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Final

from ray_app.db import ledger, usage
from ray_app.db.indexes import PinnedIndex, list_indexes
from ray_app.db.ranges import RangeSpec
from ray_app.errors import UnknownTable
from ray_app.reading import SWEEP_RECORDS, RangeReader
from ray_app.reports import Plan, TablePlan
from ray_app.spaces import BATCH_SIZE, EmbeddingSpace, Preference, preference_for
from ray_app.tables import parse_vector_types
from ray_app.tenants import Tenant
from ray_app.workspace import IndexReader, Workspace

#: Rows of a table that a plan compares one by one; of a larger one it compares evenly spread pages.
EXACT_ROWS: Final = 20_000
SAMPLE_PAGES: Final = 20
#: Tokens a second assumed before the first job has measured the provider.
ASSUMED_SPEED: Final = {"gateway": 50_000.0}
ASSUMED_LOCAL_SPEED: Final = 5_000.0


@dataclass(frozen=True)
class Target:
    """One index that a backfill works on."""

    reader: IndexReader
    rows: int
    #: Whether the index exists already, its space pinned.
    pinned: bool
    preference: Preference

    @property
    def batch_size(self) -> int:
        return BATCH_SIZE[self.preference]


def choose_targets(
    workspace: Workspace,
    tenant: Tenant,
    tables: Iterable[str] | None,
    vector_types: Iterable[str] | None,
    prefer: Preference | None,
) -> tuple[list[Target], list[str]]:
    """The indexes to fill, highest priority first, and notes for the user.

    Tables that were asked for must exist; of the default ones, those the database lacks are noted.

    Raises:
        UnknownTable, UnknownVectorType, InvalidTableSpec, ConfigError.
    """
    kinds = parse_vector_types(vector_types) if vector_types is not None else None
    pinned = list_indexes(workspace.ledger, tenant.incarnation)
    targets, notes = [], list(workspace.providers.notes())
    asked = None if tables is None else list(tables)
    for spec in workspace.tables.select(asked):
        try:
            source = workspace.source_table(spec.name)
        except UnknownTable:
            if asked is not None:
                raise
            notes.append(f"The database has no table {spec.name}; it is passed over.")
            continue
        with workspace.source.connect() as connection:
            rows = source.count(connection, tenant.client_id)
        preference = preference_for(rows, prefer)
        for kind in kinds or spec.vector_types:
            if asked is None and not source.has_text(kind):
                notes.append(f"Table {spec.name} has no {kind} text; it is passed over.")
                continue
            index = pinned.get((spec.name, kind)) or PinnedIndex(
                spec.name, kind, workspace.providers.spaces_for(preference), preference
            )
            reader = workspace.reader(tenant, index, source)
            targets.append(Target(reader, rows, (spec.name, kind) in pinned, preference))
    return targets, notes


def cut_work(workspace: Workspace, target: Target) -> list[RangeSpec]:
    """The target's ranges: its rows, then a sweep of its ledger records for rows that are gone."""
    index, tenant = target.reader.index, target.reader.tenant
    with workspace.source.connect() as connection:
        work = [
            RangeSpec("rows", index.table, index.vector_type, part.lo, part.hi, part.expected)
            for part in target.reader.source.cut(connection, tenant.client_id, target.batch_size)
        ]
    with workspace.ledger.connect() as connection:
        edges, records = ledger.record_edges(
            connection,
            *(tenant.incarnation, index.table, index.vector_type, index.space.space_id),
            SWEEP_RECORDS,
        )
    if records:
        bounds = [None, *edges, None]
        work += [RangeSpec("sweep", index.table, index.vector_type, lo, hi, 0) for lo, hi in pairwise(bounds)]
    return work


def make_plan(
    workspace: Workspace,
    tenant: Tenant,
    *,
    tables: Iterable[str] | None,
    vector_types: Iterable[str] | None,
    prefer: Preference | None,
) -> Plan:
    """The plan of a backfill with these arguments. Changes nothing; loads no model."""
    targets, notes = choose_targets(workspace, tenant, tables, vector_types, prefer)
    return Plan(tenant.name, tuple(plan_target(workspace, target) for target in targets), tuple(notes))


@dataclass
class Survey:
    """Outcomes of the rows of a table that a plan looked at."""

    rows: int = 0
    to_embed: int = 0
    unchanged: int = 0
    #: Estimated, of the rows to embed.
    tokens: int = 0
    to_delete: int = 0
    #: Whether these are only some of the table's rows.
    sampled: bool = False


@dataclass(frozen=True)
class Rates:
    """What tokens take in a space."""

    provider: str
    tokens_per_second: float
    #: Whether jobs of the last days have measured the speed; it is assumed otherwise.
    measured: bool
    #: US dollars; zero where the price is unknown.
    per_million_tokens: Decimal


@dataclass(frozen=True)
class Estimate:
    """What a backfill of a table would come to."""

    to_embed: int
    unchanged: int
    tokens: int
    seconds: float
    cost: Decimal


def estimate(survey: Survey, rows: int, rates: Rates) -> Estimate:
    """For a table of ``rows`` rows, all as those of the survey are."""
    scale = rows / survey.rows if survey.rows else 0.0
    tokens = round(survey.tokens * scale)
    return Estimate(
        to_embed=round(survey.to_embed * scale),
        unchanged=round(survey.unchanged * scale),
        tokens=tokens,
        seconds=round(tokens / rates.tokens_per_second, 1),
        cost=rates.per_million_tokens * tokens / 1_000_000,
    )


def rates_of(workspace: Workspace, space: EmbeddingSpace) -> Rates:
    """The speed and the price of the provider that serves ``space``."""
    provider = workspace.providers.provider_name(space)
    with workspace.ledger.connect() as connection:
        measured = usage.speed_of(connection, provider, space.model)
    price = Decimal(str(workspace.providers.price_per_million(space) or 0))
    speed = measured or ASSUMED_SPEED.get(provider, ASSUMED_LOCAL_SPEED)
    return Rates(provider, speed, measured is not None, price)


def plan_target(workspace: Workspace, target: Target) -> TablePlan:
    """What filling one index would do and cost. Changes nothing; loads no model."""
    reader, space = target.reader, target.reader.index.space
    survey = survey_target(workspace, target)
    rates = rates_of(workspace, space)
    expected = estimate(survey, target.rows, rates)
    return TablePlan(
        table=reader.index.table,
        vector_type=reader.index.vector_type,
        priority=reader.source.spec.priority,
        rows=target.rows,
        to_embed=expected.to_embed,
        unchanged=expected.unchanged,
        to_delete=survey.to_delete,
        space_id=space.space_id,
        model=space.model,
        pinned=target.pinned,
        preference=target.preference,
        provider=rates.provider,
        batch_size=target.batch_size,
        estimated_tokens=expected.tokens,
        estimated_seconds=expected.seconds,
        estimated_cost=expected.cost,
        sampled=survey.sampled,
    )


def survey_target(workspace: Workspace, target: Target) -> Survey:
    """Compare the table's rows, or of a large table those of evenly spread ranges."""
    ranges = RangeReader(target.reader, workspace.source, workspace.ledger, outage_budget=0)
    work = cut_work(workspace, target)
    rows = [item for item in work if item.kind == "rows"]
    survey = Survey(sampled=target.rows > EXACT_ROWS)
    if survey.sampled:
        step = max(len(rows) // SAMPLE_PAGES, 1)
        rows = rows[::step][:SAMPLE_PAGES]
    for item in rows:
        for part in ranges.read("", 0, item):
            survey.rows += part.counts.read
            survey.unchanged += part.counts.unchanged
            survey.to_embed += len(set(part.record_ids))
            survey.tokens += part.estimated_tokens
    if not survey.sampled:
        sweeps = (item for item in work if item.kind == "sweep")
        survey.to_delete = sum(len(ranges.gone(item.lo, item.hi)[0]) for item in sweeps)
    return survey
