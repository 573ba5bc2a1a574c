"""Results as text for people: rich tables and lines. Pure: from values to renderables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from ray_app.budgets import JobBudget
from ray_app.cli.layout import add_row, facts_of, table_of, when
from ray_app.cli.output import plain
from ray_app.cli.rendering_access import describe_limits
from ray_app.reports import (
    IMPORT,
    Check,
    Counts,
    CoverageRow,
    DeadLetter,
    JobProgress,
    JobState,
    LoadReport,
    NewTenant,
    Plan,
    SearchHit,
    TenantDetails,
)
from ray_app.spending import options_to_go_on
from ray_app.tenants import Tenant
from ray_app.wording import duration, money

_STATE_STYLES: Final = {
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.INTERRUPTED: "red",
    JobState.CANCELLED: "yellow",
    JobState.STOPPED_AT_BUDGET: "yellow",
    JobState.CANCEL_REQUESTED: "yellow",
}
#: Characters of a snippet shown in a result line.
_SNIPPET: Final = 160


def checks(found: Sequence[Check]) -> RenderableType:
    lines: list[RenderableType] = []
    width = max((len(check.name) for check in found), default=0)
    for check in found:
        mark = ("ok   ", "green") if check.ok else ("FAIL ", "bold red")
        lines.append(Text.assemble(mark, (f"{check.name:<{width}}  ", "bold"), plain(check.detail)))
        if check.hint and not check.ok:
            lines.append(Text(f"     {'':<{width}}  {plain(check.hint)}", style="yellow"))
    return Group(*lines)


def tenants(found: Sequence[Tenant]) -> RenderableType:
    if not found:
        return Text("No tenants yet. Add one: rowbeam tenant add NAME")
    table = table_of("tenant", "client id>", "placement", "state", "since")
    for tenant in found:
        add_row(
            table, tenant.name, str(tenant.client_id), tenant.placement, tenant.state, when(tenant.created_at)
        )
    return table


def new_tenant(new: NewTenant) -> RenderableType:
    tenant, probe = new.tenant, new.probe
    return Group(
        Text(f"Tenant {tenant.name} (client id {tenant.client_id}, {tenant.placement}) is ready."),
        Text(
            f"Probe vector in space {probe.space_id}: written in {probe.write_ms:.1f} ms, "
            f"found in {probe.search_ms:.1f} ms, deleted in {probe.delete_ms:.1f} ms."
        ),
        Text.assemble("API key, shown this once: ", (new.api_key.text, "bold")),
    )


def tenant_details(details: TenantDetails) -> RenderableType:
    tenant = details.tenant
    facts = facts_of(
        ("tenant", tenant.name),
        ("client id", str(tenant.client_id)),
        ("placement", tenant.placement),
        ("state", tenant.state),
        ("incarnation", str(tenant.incarnation)),
        ("API keys", ", ".join(details.key_ids) or "none"),
        ("limits", describe_limits(tenant.limits)),
        ("tokens, cost", f"{details.tokens:,}, {money(details.cost)}"),
        ("dead letters", str(details.open_dead_letters)),
    )
    if not details.indexes:
        return facts
    return Group(facts, Text(), coverage(details.indexes))


def loaded(report: LoadReport) -> RenderableType:
    line = f"Loaded {report.inserted:,} rows into {report.table}."
    if report.ignored_fields:
        names = ", ".join(plain(name) for name in report.ignored_fields)
        line += f" It has no column for: {names}."
    return Text(line)


def plan(made: Plan) -> RenderableType:
    with_type = len({row.vector_type for row in made.tables}) > 1
    with_deletes = any(row.to_delete for row in made.tables)
    table = table_of(
        *("table", *(["type"] if with_type else []), "rows>", "to embed>", "unchanged>"),
        *((["to delete>"] if with_deletes else []) + ["space", "provider"]),
        *("batch>", "tokens>", "time>", "cost>"),
    )
    for row in made.tables:
        deletes = [row.to_delete] if with_deletes else []
        add_row(
            table,
            *(row.table, *([row.vector_type] if with_type else [])),
            *(f"{count:,}" for count in (row.rows, row.to_embed, row.unchanged, *deletes)),
            *(f"{row.space_id}{'' if row.pinned else ' new'}", row.provider),
            *(str(row.batch_size), f"{row.estimated_tokens:,}"),
            *(duration(row.estimated_seconds), money(row.estimated_cost)),
        )
    total = Text(
        f"{made.tenant}: {made.total_to_embed:,} of {made.total_rows:,} rows to embed, about "
        f"{made.estimated_tokens:,} tokens, {duration(made.estimated_seconds)}, {money(made.estimated_cost)}."
    )
    notes = list(made.notes)
    if any(row.sampled for row in made.tables):
        notes.append("Counts of large tables are estimated from a sample.")
    return Group(table, total, *(Text(f"Note: {plain(text)}", style="dim") for text in notes))


def jobs(found: Sequence[JobProgress]) -> RenderableType:
    if not found:
        return Text("No active jobs. See ended ones with: rowbeam jobs --all")
    table = table_of(
        "job", "tenant", "kind", "state", "done>", "total>", "failed>", "rows/s>", "started", "cost>"
    )
    for job in found:
        add_row(
            table,
            *(job.job_id, job.tenant, job.kind, _state(job.state)),
            *(f"{count:,}" for count in (job.processed_records, job.total_records, job.failed_records)),
            *(f"{job.records_per_second:,.0f}", when(job.started_at), money(job.cost)),
        )
    return table


def job(progress: JobProgress) -> RenderableType:
    what = f"{progress.tenant}: {', '.join(progress.tables)} ({', '.join(progress.vector_types)})"
    speed = f"{duration(progress.seconds)}, {progress.records_per_second:,.0f} rows/s"
    end = ("expected end", when(progress.estimated_completion))
    if not progress.state.active:
        end = ("ended", when(progress.finished_at))
    facts: list[tuple[str, str | Text]] = [
        ("job", progress.job_id),
        ("tenant", what),
        ("state", _state(progress.state)),
        ("records", f"{progress.processed_records:,} of {progress.total_records:,}"),
        ("outcome", outcome(progress.counts)),
        ("points", f"{progress.counts.chunks:,} written"),
        ("batches", f"{progress.current_batch:,} of {progress.total_batches:,}"),
        ("time", speed),
        ("spent", f"{progress.tokens:,} tokens, {money(progress.cost)}"),
        *([("budget", _budget(progress.budget))] if progress.budget else []),
        ("provider", progress.provider or "none"),
        ("started", when(progress.started_at)),
        end,
        *(("fault", plain(text)) for text in progress.errors),
    ]
    lines: list[RenderableType] = [facts_of(*facts)]
    if progress.error:
        lines.append(Text(f"It stopped because: {plain(progress.error)}", style="red"))
    if progress.state.resumable:
        lines.append(Text(f"Go on with: {resume_command(progress)}"))
    return Group(*lines)


def _budget(budget: JobBudget) -> str:
    limits = [money(budget.cost_limit)] if budget.cost_limit is not None else []
    limits += [f"{budget.token_limit:,} tokens"] if budget.token_limit is not None else []
    used = f"{' and '.join(limits)}; {money(budget.cost_spent)} and {budget.tokens_spent:,} tokens of it used"
    if budget.cost_limit is not None and budget.tokens_spent and not budget.cost_spent:
        used += " (the model runs here and costs no dollars: only --max-tokens would stop the job)"
    return used


def outcome(counts: Counts) -> str:
    """Every record read has one outcome; this shows that they add up."""
    return (
        f"{counts.read:,} read = {counts.embedded:,} embedded + {counts.unchanged:,} unchanged + "
        f"{counts.no_text:,} without text + {counts.dead:,} dead + {counts.deleted:,} deleted"
    )


def resume_command(progress: JobProgress) -> str:
    if progress.kind == IMPORT:
        return f"rowbeam import FOLDER --tenant {progress.tenant}, with the same folder"
    budget = options_to_go_on(progress) if progress.state is JobState.STOPPED_AT_BUDGET else ""
    return f"rowbeam backfill --tenant {progress.tenant} --resume {progress.job_id}{budget}"


def dead_letters(found: Sequence[DeadLetter]) -> RenderableType:
    if not found:
        return Text("No open dead letters.")
    table = table_of("table", "type", "record", "stage", "error", "message", "tries>", "last")
    for letter in found:
        add_row(
            table,
            *(letter.table, letter.vector_type, plain(letter.record_id), letter.stage, letter.error_class),
            *(plain(letter.message), str(letter.attempts), when(letter.last_at)),
        )
    return table


def hits(found: Sequence[SearchHit]) -> RenderableType:
    if not found:
        return Text("Nothing found. Is the table backfilled? See: rowbeam coverage --tenant NAME")
    table = table_of("score>", "table", "record", "snippet")
    for hit in found:
        add_row(table, f"{hit.score:.3f}", hit.table, plain(hit.record_id), plain(hit.snippet[:_SNIPPET]))
    return table


def coverage(found: Sequence[CoverageRow]) -> RenderableType:
    table = table_of(
        "table", "type", "rows>", "embedded>", "stale>", "no text>", "dead>", "points>", "space", "model"
    )
    for row in found:
        counts = (row.rows, row.embedded, row.stale, row.no_text, row.dead, row.points)
        add_row(
            table,
            *(row.table, row.vector_type),
            *(f"{count:,}" for count in counts),
            row.space_id or "none yet",
            (row.model or "").rpartition("/")[2] + (f", {row.migration} beside it" if row.migration else ""),
        )
    return table


def _state(state: JobState) -> Text:
    return Text(state.value, style=_STATE_STYLES.get(state, "cyan"))
