"""The heartbeat of a running job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from ray_app.db import jobs
from ray_app.db.jobs import TakenJob
from ray_app.errors import DatabaseUnavailable, LostJob
from ray_app.logs import logging_for
from ray_app.metrics.declared import JOB_HEARTBEAT_AGE
from ray_app.workspace import Workspace

log = logging.getLogger(__name__)
#: Seconds between heartbeats; many may be lost before ``job_owners.LEASE`` runs out.
HEARTBEAT: Final = 1.0


class Heart:
    """Beats in a thread while the job runs: keeps the lease, and makes progress durable."""

    def __init__(self, workspace: Workspace, job: TakenJob, revive: Callable[[], None]) -> None:
        """``revive`` is called when the database is gone; the embedded one can be started again."""
        self._workspace = workspace
        self._job = job
        self._revive = revive
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        #: Answers the progress to record; replaced when there is a progress actor.
        self.snapshot: Callable[[], dict[str, Any]] = dict
        self._beat_at = time.monotonic()

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def sample(self) -> None:
        """Set the gauge of the heartbeat's age."""
        JOB_HEARTBEAT_AGE.set(time.monotonic() - self._beat_at)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        with logging_for(job=self._job.job_id):  # a thread begins with a context of its own
            self._beat_on()

    def _beat_on(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                jobs.heartbeat(self._workspace.ledger, self._job, self.snapshot())
                self._beat_at = time.monotonic()
            except DatabaseUnavailable as error:
                log.warning("%s", error)
                with suppress(DatabaseUnavailable):  # said above; tried again at the next beat
                    self._revive()
            except LostJob as error:
                # The writer refuses this run's parts from now on, which ends the pipeline.
                log.error("%s", error)
                return
