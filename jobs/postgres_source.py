"""A Ray Data source of parts, read from Postgres by key ranges.

``ray.data.read_sql`` cannot shard a Postgres table; here each read task walks its share of the
job's ranges in order, in short transactions, and yields a block as soon as a part is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from jobs.blocks import SCHEMA, to_block
from jobs.stages import JobContext, open_workspace
from ray_app.db import ranges
from ray_app.db.ranges import RangeSpec
from ray_app.outage import ride_out
from ray_app.parts import Part
from ray_app.reading import RangeReader
from ray_app.tracing.spans import flush
from ray_app.workspace import Workspace

#: Bytes assumed for a part when Ray plans; only its order of magnitude matters.
PART_BYTES: Final = 128 * 1024
#: Ranges of one read task at most: what Ray reads again when a reader dies.
TASK_RANGES: Final = 64


class PostgresRanges(Datasource):  # type: ignore[misc]
    """The pending ranges of one job."""

    def __init__(self, context: JobContext, work: Sequence[RangeSpec]) -> None:
        super().__init__()
        self._context = context
        self._work = list(work)

    def estimate_inmemory_data_size(self) -> int:
        return len(self._work) * PART_BYTES

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,  # noqa: ARG002 - the base class's signature
        data_context: object | None = None,  # noqa: ARG002
    ) -> list[ReadTask]:
        """Tasks of neighbouring ranges, in order, so that ranges are done about by priority."""
        size = max(1, min(TASK_RANGES, -(-len(self._work) // max(parallelism, 1))))
        return [self._task(self._work[start : start + size]) for start in range(0, len(self._work), size)]

    def _task(self, work: Sequence[RangeSpec]) -> ReadTask:
        size = len(work) * PART_BYTES
        metadata = BlockMetadata(num_rows=len(work), size_bytes=size, input_files=None, exec_stats=None)
        return ReadTask(_read_task(self._context, work), metadata, schema=SCHEMA)


def _read_task(context: JobContext, work: Sequence[RangeSpec]) -> Callable[[], Iterable[pa.Table]]:
    def read() -> Iterator[pa.Table]:
        workspace = open_workspace(context)
        try:
            for part in read_parts(workspace, context, work):
                yield to_block([part])
        finally:
            workspace.close()
            flush()

    return read


def read_parts(workspace: Workspace, context: JobContext, work: Sequence[RangeSpec]) -> Iterator[Part]:
    """The parts of ``work``, range by range; stops where the job is cancelled or lost."""
    readers: dict[tuple[str, str], RangeReader] = {}
    budget = workspace.settings.outage_budget

    def is_running() -> bool:
        with workspace.ledger.connect() as connection:
            return ranges.is_running(connection, context.job_id, context.run)

    for item in work:
        if not ride_out(is_running, budget=budget, what="The ledger"):
            return
        where = (item.table, item.vector_type)
        if where not in readers:
            index = workspace.reader(context.tenant, context.index(*where))
            readers[where] = RangeReader(index, workspace.source, workspace.ledger, budget)
        yield from _traced(context, item, readers[where].read(context.job_id, context.run, item))


def _traced(context: JobContext, item: RangeSpec, parts: Iterator[Part]) -> Iterator[Part]:
    """The parts, each read inside of a stage of its own."""
    while True:
        with context.stage("read part", item.table, item.vector_type, item.seq):
            part = next(parts, None)
        if part is None:
            return
        yield part
