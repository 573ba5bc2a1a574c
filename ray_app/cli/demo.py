"""``rowbeam demo``: the whole product once, on invented data, in two minutes or so."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from shutil import which
from typing import Final

from ray_app.app import Rowbeam
from ray_app.cli import rendering
from ray_app.cli.demo_console import how_to_look, leave_a_job
from ray_app.cli.demo_home import demo_stack
from ray_app.cli.demo_serving import serve_and_push
from ray_app.cli.demo_story import Story
from ray_app.cli.interrupt import on_interrupt
from ray_app.cli.output import FAILED, INTERRUPTED, OK, emit_json
from ray_app.cli.progress import ProgressView
from ray_app.errors import IsolationViolation, RowbeamError
from ray_app.reports import JobProgress, JobState, NewTenant, SearchHit
from ray_app.sample.demo_tenants import CANARY, QUESTIONS, DemoTenant, demo_tenants
from ray_app.settings import Settings
from ray_app.spaces import VectorType
from ray_app.tables import PLATFORM_TABLES
from ray_app.text import render
from ray_app.wording import duration, money

#: Records asked for where the demo looks for the other tenant's.
WIDE: Final = 200


def run_demo(repo: Path | None, *, keep: bool, as_json: bool) -> int:
    """Run the demo and return its exit code; ``repo`` is a checkout whose commits the first tenant gets too.

    Raises:
        IsolationViolation: a tenant's search returned another's record.
        RowbeamError: a step failed.
    """
    story = Story(as_json=as_json)
    began = time.monotonic()
    tenants, history = demo_tenants(repo)
    if history:
        story.say(history)
    story.step("Start PostgreSQL, Ray and the embedded Qdrant")
    with demo_stack(Settings.from_env(), keep=keep) as settings, Rowbeam.open(settings) as rowbeam:
        story.say(f"Everything is kept in {settings.home}.")
        story.document |= {"home": settings.home}
        code = _Demo(rowbeam, tenants, story).run(settings, keep=keep)
    if code == OK:
        story.document["seconds"] = round(time.monotonic() - began, 1)
        story.say(f"\nDone in {story.document['seconds']} s.")
        there, elsewhere = _commands(settings.home)
        story.say(_next_commands(there, elsewhere, tenants[0].name))
        if keep:
            story.say(how_to_look(story.document["console"], f"{there} down"))
    if as_json:
        emit_json(story.document)
    return code


class _Demo:
    """The steps, on an open Rowbeam."""

    def __init__(self, rowbeam: Rowbeam, tenants: tuple[DemoTenant, DemoTenant], story: Story) -> None:
        self._rowbeam = rowbeam
        self._tenants = tenants
        self._story = story
        self._added: list[NewTenant] = []

    def run(self, settings: Settings, *, keep: bool) -> int:
        self._add_and_load(settings.home / "rows")
        self._plan()
        code = self._backfill()
        if code != OK:
            return code
        self._search()
        self._prove_isolation()
        self._cover()
        url = serve_and_push(self._story, settings, self._added[0])
        if keep:
            leave_a_job(self._story, self._rowbeam, settings, url, self._added[1])
        return OK

    def _add_and_load(self, folder: Path) -> None:
        self._story.step("Add two tenants and load their rows")
        loaded: dict[str, dict[str, int]] = {}
        for tenant in self._tenants:
            new = self._rowbeam.add_tenant(tenant.name)
            self._added.append(new)
            self._story.table(rendering.new_tenant(new))
            counts = loaded[tenant.name] = {}
            for table, rows in tenant.rows.items():
                path = folder / tenant.name / f"{table}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
                counts[table] = self._rowbeam.load(path, tenant=tenant.name, table=table).inserted
            listed = ", ".join(f"{count:,} {table}" for table, count in counts.items())
            self._story.say(f"Loaded {sum(counts.values()):,} rows: {listed}.\n")
        self._story.document["loaded"] = loaded

    def _plan(self) -> None:
        self._story.step("Plan: what a backfill would do and cost")
        plans = [self._rowbeam.plan(tenant.name) for tenant in self._tenants]
        for plan in plans:
            self._story.table(rendering.plan(plan))
        self._story.document["plans"] = plans

    def _backfill(self) -> int:
        self._story.step("Backfill: rows to vectors")
        jobs: list[JobProgress] = []
        self._story.document["jobs"] = jobs
        for tenant in self._tenants:
            with on_interrupt() as interrupt, ProgressView() as view:
                job = self._rowbeam.backfill(
                    tenant.name, on_progress=interrupt.watching(view, self._rowbeam.cancel)
                )
            jobs.append(job)
            self._story.table(rendering.job(job))
            if interrupt.pressed:
                return INTERRUPTED
            if job.state is not JobState.SUCCEEDED:
                return FAILED
        return OK

    def _search(self) -> None:
        self._story.step("Search by meaning")
        found = []
        for place, table, question in QUESTIONS:
            tenant = self._tenants[place]
            hits = self._rowbeam.search(tenant.name, table, question, limit=3)
            check_owner(hits, tenant, table)
            self._story.say(f'{tenant.name}, {table}: "{question}"')
            self._story.table(rendering.hits(hits))
            found.append({"tenant": tenant.name, "table": table, "text": question, "hits": hits})
        self._story.document["searches"] = found

    def _prove_isolation(self) -> None:
        self._story.step("Show that one tenant cannot see the other")
        ours, theirs = self._tenants
        rule = PLATFORM_TABLES["pull_requests"].text_rule(VectorType.CONTENT)
        text, canary = render(rule, CANARY) or "", str(CANARY["id"])
        known = self._rowbeam.search(theirs.name, "pull_requests", text, limit=1)
        if [hit.record_id for hit in known] != [canary]:
            raise RowbeamError(f"{theirs.name} does not find its own record, so nothing is proven.")
        hits = self._rowbeam.search(ours.name, "pull_requests", text, limit=WIDE)
        check_owner(hits, ours, "pull_requests")
        self._story.say(
            f'"{CANARY["title"]}" is a pull request of {theirs.name} alone.\n'
            f"{theirs.name} searches for its words: found first, score {known[0].score:.3f}.\n"
            f"{ours.name} searches for the same words: {len(hits)} hits, every one its own row, best score "
            f"{hits[0].score:.3f}; the record is not among them."
        )
        self._story.document["isolation"] = {
            "canary": canary,
            "found_by_owner": True,
            "hits_of_other": len(hits),
            "foreign_hits": 0,
        }

    def _cover(self) -> None:
        self._story.step("Coverage and cost")
        coverage = {tenant.name: self._rowbeam.coverage(tenant.name) for tenant in self._tenants}
        for name, rows in coverage.items():
            self._story.say(name)
            self._story.table(rendering.coverage(rows))
        jobs = self._story.document["jobs"]
        tokens, cost = sum(job.tokens for job in jobs), sum((job.cost for job in jobs), Decimal(0))
        seconds = duration(sum(job.seconds for job in jobs))
        embedded = sum(job.counts.embedded for job in jobs)
        self._story.say(
            f"{embedded:,} records embedded in {seconds}, {tokens:,} tokens, "
            f"{money(cost)}: a local model costs no money."
        )
        self._story.document |= {"coverage": coverage, "tokens": tokens, "cost": cost}


def check_owner(hits: Sequence[SearchHit], tenant: DemoTenant, table: str) -> None:
    """Raises IsolationViolation when a hit is not a row of ``tenant``, RowbeamError when there is no hit."""
    if not hits:
        raise RowbeamError(f"A search in {tenant.name} found nothing, so it proves nothing.")
    for hit in hits:
        if not tenant.owns(table, hit.record_id):
            raise IsolationViolation(f"A search in {tenant.name} returned a row of another: {hit.record_id}.")


def _commands(home: Path) -> tuple[str, str]:
    """How to call the command for the demo's home, and for any other."""
    here = Path.cwd()
    folder = home.relative_to(here) if home.is_relative_to(here) else home
    rowbeam = "rowbeam" if which("rowbeam") else shlex.quote(sys.argv[0])
    return f"ROWBEAM_HOME={shlex.quote(str(folder))} {rowbeam}", rowbeam


def _next_commands(there: str, elsewhere: str, tenant: str) -> str:
    return f"""Look around, or bring rows of your own:
  {there} search --tenant {tenant} --table issues "the app is slow on salary day"
  {there} coverage --tenant {tenant}
  {there} jobs --all
  {elsewhere} doctor
  {elsewhere} tenant add acme
  {elsewhere} load FILE.jsonl --tenant acme --table pull_requests
  {elsewhere} backfill --tenant acme"""
