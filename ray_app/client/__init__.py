"""A typed client of the HTTP API, synchronous and asynchronous. Imports no Ray, model, store or database.

    with RowbeamClient("http://127.0.0.1:8000", key) as client:
        result = client.upsert("issues", rows)
        hits = client.search("slow login", tables=["issues"])

``docs/etl.md`` shows it inside an extraction loop.
"""

from __future__ import annotations

from ray_app.client.accounting import Model, Usage
from ray_app.client.admin import AdminClient
from ray_app.client.async_admin import AsyncAdminClient
from ray_app.client.async_client import AsyncRowbeamClient
from ray_app.client.batching import BatchSize
from ray_app.client.client import RowbeamClient
from ray_app.client.embedding import Embeddings
from ray_app.client.errors import (
    BadAnswer,
    BadRequest,
    ClientError,
    Conflict,
    Forbidden,
    NoAnswer,
    NotFound,
    QuotaExhausted,
    Refused,
    StillRunning,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from ray_app.client.jobs import DeadLetter, Job, Plan, TablePlan
from ray_app.client.records import DeletedRecord, RecordState, VectorState
from ray_app.client.results import FailedRow, IndexOutcome, RowOutcome, UpsertResult
from ray_app.client.searching import Filter, Hit, Hits, Like
from ray_app.client.tenants import TenantAccount
from ray_app.tenants import Limits

__all__ = [
    "AdminClient",
    "AsyncAdminClient",
    "AsyncRowbeamClient",
    "BadAnswer",
    "BadRequest",
    "BatchSize",
    "ClientError",
    "Conflict",
    "DeadLetter",
    "DeletedRecord",
    "Embeddings",
    "FailedRow",
    "Filter",
    "Forbidden",
    "Hit",
    "Hits",
    "IndexOutcome",
    "Job",
    "Like",
    "Limits",
    "Model",
    "NoAnswer",
    "NotFound",
    "Plan",
    "QuotaExhausted",
    "RecordState",
    "Refused",
    "RowOutcome",
    "RowbeamClient",
    "StillRunning",
    "TablePlan",
    "TenantAccount",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "UpsertResult",
    "Usage",
    "VectorState",
]
