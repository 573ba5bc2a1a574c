"""Accounts of jobs in a real ledger: never overspent, exact afterwards, also after a death."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import numpy as np
import pytest
from sqlalchemy import Engine

from ray_app.budgets import JobLimits
from ray_app.db import job_budgets
from ray_app.db.jobs import JobRequest, create_job, take_job
from ray_app.errors import InputError, JobBudgetReached, ProviderUnavailable
from ray_app.providers.port import Embedded
from ray_app.providers.pricing import cost_of
from ray_app.serving.cost_budget import most_tokens
from ray_app.spending import BudgetedProvider
from tests.support.parts_site import Site

DOLLAR = Decimal(1_000_000)
TEXT = "x" * 98


class Meter:
    """A provider that is charged a quarter of the most that its texts can come to."""

    name = "gateway"

    def __init__(self, space: object) -> None:
        self.space = space
        self.down = False

    def embed_documents(self, texts: list[str]) -> Embedded:
        tokens = most_tokens(texts) // 4
        if self.down:
            error = ProviderUnavailable("down")
            error.tokens, error.cost = tokens, cost_of(tokens, DOLLAR)
            raise error
        return Embedded(np.zeros((len(texts), 4), np.float32), tokens, cost_of(tokens, DOLLAR))


class Space:
    document_prefix = ""


def job_of(site: Site, limits: JobLimits | None) -> str:
    request = JobRequest(("pull_requests",), ("content",), None)
    return create_job(site.workspace.ledger, site.tenant.incarnation, "backfill", request, [], limits=limits)


def budgeted(database: Engine, job: str, meter: Meter) -> BudgetedProvider:
    return BudgetedProvider(meter, database, job, DOLLAR, 0, sleep=lambda _: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [JobLimits(cost=Decimal(1000)), JobLimits(tokens=1000)])
def test_many_callers_at_once_never_exceed_it_and_stop_within_one_batch(
    site: Site, limits: JobLimits
) -> None:
    database = site.workspace.ledger
    job = job_of(site, limits)
    provider = budgeted(database, job, Meter(Space()))

    def call(_: int) -> int:
        try:
            return provider.embed_documents([TEXT]).tokens
        except JobBudgetReached:
            return 0

    with ThreadPoolExecutor(4) as pool:
        charged = sum(pool.map(call, range(80)))
    account = job_budgets.account_of(database, job)
    assert account is not None
    assert (account.tokens, account.cost) == (charged, charged)
    assert charged <= 1000 < charged + most_tokens([TEXT])


def test_a_failed_call_is_settled_at_what_it_was_charged(site: Site) -> None:
    database = site.workspace.ledger
    job = job_of(site, JobLimits(cost=Decimal(1000)))
    meter = Meter(Space())
    meter.down = True
    provider = budgeted(database, job, meter)
    with pytest.raises(ProviderUnavailable):
        provider.embed_documents([TEXT])
    account = job_budgets.account_of(database, job)
    assert account is not None
    assert account.tokens == 25


def test_what_a_dead_run_held_counts_as_spent_and_a_higher_budget_goes_on(site: Site) -> None:
    database = site.workspace.ledger
    job = job_of(site, JobLimits(cost=Decimal(100)))
    assert job_budgets.reserve(database, job, Decimal(80), 80) is True
    assert job_budgets.reserve(database, job, Decimal(40), 40) is None
    take_job(database, job)
    assert job_budgets.reserve(database, job, Decimal(40), 40) is False
    job_budgets.stop(database, job)
    with pytest.raises(InputError, match="has spent"):
        job_budgets.change(database, job, JobLimits())
    with pytest.raises(InputError, match="has spent"):
        job_budgets.change(database, job, JobLimits(cost=Decimal(80)))
    job_budgets.change(database, job, JobLimits(cost=Decimal(120)))
    assert job_budgets.reserve(database, job, Decimal(40), 40) is True


def test_a_job_may_be_given_its_first_budget_when_it_goes_on(site: Site) -> None:
    database = site.workspace.ledger
    job = job_of(site, None)
    assert job_budgets.account_of(database, job) is None
    job_budgets.change(database, job, JobLimits())
    assert job_budgets.account_of(database, job) is None
    job_budgets.change(database, job, JobLimits(tokens=5))
    account = job_budgets.account_of(database, job)
    assert account is not None
    assert account.limits == JobLimits(tokens=5)


@pytest.mark.parametrize("cost", ["0", "-1", "NaN", "Infinity"])
def test_a_budget_that_makes_no_sense_is_refused(cost: str) -> None:
    with pytest.raises(InputError, match="above zero"):
        JobLimits(cost=Decimal(cost))
