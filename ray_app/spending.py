"""A job's budget at work: a provider that makes no call the budget does not cover, and how the job stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from decimal import ROUND_UP, Decimal
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine

from ray_app.db import job_budgets
from ray_app.errors import BudgetExhausted, JobBudgetReached, ProviderUnavailable
from ray_app.outage import ride_out
from ray_app.providers.port import Embedded, EmbeddingProvider
from ray_app.providers.pricing import cost_of
from ray_app.reports import JobProgress
from ray_app.serving.cost_budget import most_tokens
from ray_app.spaces import EmbeddingSpace
from ray_app.text import Chunker
from ray_app.wording import money

T = TypeVar("T")

#: Seconds to wait for calls under way to return what they do not need; then their process counts as dead.
PATIENCE: Final = 120.0
#: Seconds between looks meanwhile.
_POLL: Final = 0.1
#: What is suggested for the rest of a job, over what it will probably cost.
_MARGIN: Final = Decimal("1.1")


class BudgetedProvider:
    """``provider`` within a job's budget: each call reserves the most it can cost, and settles what it did.

    A call that fails and is tried again inside of ``provider`` may be charged twice for some texts; what
    that comes to beyond the reservation is counted, and stops the next call.
    """

    def __init__(
        self,
        provider: EmbeddingProvider,
        ledger: Engine,
        job_id: str,
        price: Decimal | None,
        outage_budget: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``price`` is in US dollars per million tokens, ``outage_budget`` in seconds."""
        self._provider = provider
        self._ledger = ledger
        self._job_id = job_id
        self._price = price
        self._outage_budget = outage_budget
        self._sleep = sleep

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def space(self) -> EmbeddingSpace:
        return self._provider.space

    @property
    def chunker(self) -> Chunker:
        return self._provider.chunker

    def embed_documents(self, texts: Sequence[str]) -> Embedded:
        """Raises JobBudgetReached, nothing spent, when the budget does not cover ``texts``."""
        prefix = self.space.document_prefix
        tokens = most_tokens([prefix + text for text in texts])
        held = (cost_of(tokens, self._price), tokens)
        self._reserve(*held)
        charged = (Decimal(0), 0)
        try:
            answer = self._provider.embed_documents(texts)
            charged = (answer.cost, answer.tokens)
        except (ProviderUnavailable, BudgetExhausted) as error:
            charged = (error.cost, error.tokens)
            raise
        finally:
            self._ride_out(lambda: job_budgets.settle(self._ledger, self._job_id, held, charged))
        return answer

    def embed_query(self, text: str) -> npt.NDArray[np.float32]:
        return self._provider.embed_query(text)

    def close(self) -> None:
        self._provider.close()

    def _reserve(self, cost: Decimal, tokens: int) -> None:
        for _ in range(math.ceil(PATIENCE / _POLL)):
            done = self._ride_out(lambda: job_budgets.reserve(self._ledger, self._job_id, cost, tokens))
            if done:
                return
            if done is False:
                break
            self._sleep(_POLL)
        raise JobBudgetReached(
            f"The job's budget does not cover its next batch, which may cost up to {money(cost)}"
            f" ({tokens:,} tokens)."
        )

    def _ride_out(self, what: Callable[[], T]) -> T:
        return ride_out(what, budget=self._outage_budget, what="The ledger")


def stop_reason(job: JobProgress) -> str:
    """Where a job stands that has stopped at its budget."""
    budget = job.budget
    if budget is None:
        return "Stopped at its budget."
    limits = " and ".join(
        [
            *([money(budget.cost_limit)] if budget.cost_limit is not None else []),
            *([f"{budget.token_limit:,} tokens"] if budget.token_limit is not None else []),
        ]
    )
    rest = "."
    if job.processed_records:
        rest = f", which would cost about {money(budget.cost_left)} ({budget.tokens_left:,} tokens)."
    return (
        f"Its next batch may exceed its budget of {limits}: {money(job.cost)} and {job.tokens:,} tokens are"
        f" spent, {job.processed_records:,} rows are done and {budget.rows_left:,} are left{rest}"
    )


def options_to_go_on(job: JobProgress) -> str:
    """The options of a budget that covers the rest of the job, by what it has cost so far."""
    budget, options = job.budget, []
    if budget is None:
        return ""
    if budget.cost_limit is not None:
        wanted = max(budget.cost_spent + budget.cost_left * _MARGIN, budget.cost_limit * 2)
        options.append(f" --budget {_round_up(wanted):f}")
    if budget.token_limit is not None:
        tokens = max(math.ceil((budget.tokens_spent + budget.tokens_left) * _MARGIN), budget.token_limit * 2)
        options.append(f" --max-tokens {tokens}")
    return "".join(options)


def _round_up(amount: Decimal) -> Decimal:
    """To two digits that matter: the hundredth, or finer where it is less."""
    digits = min(-2, amount.adjusted() - 1) if amount else -2
    return amount.quantize(Decimal(1).scaleb(digits), rounding=ROUND_UP)
