"""What a job that stopped at its budget says."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from ray_app.budgets import JobBudget
from ray_app.reports import JobState
from ray_app.spending import options_to_go_on, stop_reason
from tests.unit.test_cli_rendering import JOB

STOPPED = replace(JOB, state=JobState.STOPPED_AT_BUDGET, cost=Decimal(3), tokens=1500)
BUDGET = JobBudget(Decimal(4), None, Decimal(3), 1500, rows_left=500, tokens_left=500, cost_left=Decimal(1))


def test_it_says_where_the_job_is_and_what_the_rest_would_cost() -> None:
    said = stop_reason(replace(STOPPED, budget=BUDGET))
    for fact in ("budget of $4.00", "$3.00 and 1,500 tokens", "1,500 rows are done", "500 are left", "$1.00"):
        assert fact in said
    nothing_done = replace(STOPPED, processed_records=0, budget=BUDGET)
    assert "would cost" not in stop_reason(nothing_done), "nobody knows yet"


@given(
    st.decimals("0.000001", "1000", places=6),
    st.decimals("0", "1000", places=6),
    st.decimals("0", "1000", places=6),
)
def test_the_command_to_go_on_has_a_budget_that_covers_the_rest(
    limit: Decimal, spent: Decimal, left: Decimal
) -> None:
    budget = replace(BUDGET, cost_limit=limit, cost_spent=min(spent, limit), cost_left=left)
    option, amount = options_to_go_on(replace(STOPPED, budget=budget)).split()
    assert option == "--budget"
    assert Decimal(amount) > limit
    assert Decimal(amount) >= budget.cost_spent + left


def test_tokens_are_suggested_where_tokens_were_limited() -> None:
    budget = replace(BUDGET, cost_limit=None, token_limit=1600)
    assert options_to_go_on(replace(STOPPED, budget=budget)) == " --max-tokens 3200"
