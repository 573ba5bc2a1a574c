"""Edge among processes: one owner at a time, and crashes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_app.errors import StoreUnavailable
from ray_app.store import edge_shards
from ray_app.store.edge import EdgeStore
from tests.support.edge_store import INDEX, SPACE, fill, tenant
from tests.support.vector_store_world import unit

CHILD = """
import sys
from pathlib import Path
from uuid import UUID
from ray_app.store.edge import EdgeStore
from tests.support.edge_store import INDEX, tenant
from tests.support.vector_store_world import batch, meta, unit
store = EdgeStore(Path(sys.argv[1]))
store.ensure_index(tenant(), INDEX, [])
"""
WRITE_FOR_EVER = """
for number in range(10**6):
    metas = [meta(f"{number}-{n}") for n in range(20)]
    store.upsert(tenant(), INDEX, batch(metas, [unit(1, n) for n in range(20)]))
    print(number, flush=True)
"""
CHANGE_FOR_EVER = """
from ray_app.store.port import DataChange
for number in range(1, 10**6):
    store.set_data(tenant(), INDEX, [DataChange(str(n), 1, {"number": number}) for n in range(20)], number)
    print(number, flush=True)
"""
HOLD = """
store.count(tenant(), INDEX)
print("held", flush=True)
sys.stdin.read()
"""


class TestProcesses:
    @pytest.fixture
    def child(self, tmp_path: Path) -> Iterator[Any]:
        started: list[subprocess.Popen[str]] = []

        def start(code: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", CHILD + code, str(tmp_path)],
                cwd=Path(__file__).parents[3],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            started.append(process)
            return process

        yield start
        for process in started:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def test_what_was_acknowledged_survives_kill_9(
        self, child: Any, store: EdgeStore, tmp_path: Path
    ) -> None:
        acknowledged = -1
        for _ in range(3):
            writer = child(WRITE_FOR_EVER)
            for line in writer.stdout:
                acknowledged = max(acknowledged, int(line))
                if int(line) >= 5:
                    break
            os.kill(writer.pid, signal.SIGKILL)
            rest, _ = writer.communicate()
            acknowledged = max([acknowledged, *map(int, rest.split())])

            written = {point.record_id for point in store.scroll(tenant(), INDEX)}
            assert written >= {f"{number}-{n}" for number in range(acknowledged + 1) for n in range(20)}
            assert len(store.search(tenant(), INDEX, unit(1), limit=50)) == 50
            store.close()

    def test_new_columns_that_were_acknowledged_survive_kill_9(
        self, child: Any, store: EdgeStore, tmp_path: Path
    ) -> None:
        fill(store, tenant(), *map(str, range(20)))
        store.close()
        writer = child(CHANGE_FOR_EVER)
        for line in writer.stdout:
            if int(line) >= 5:
                break
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate()
        acknowledged = max([int(line), *map(int, rest.split())])

        hits = store.search(tenant(), INDEX, unit(1), limit=50)
        assert len(hits) == 20
        assert all(hit.data["number"] >= acknowledged for hit in hits)
        assert all(point.version >= acknowledged for point in store.scroll(tenant(), INDEX))

    def test_a_second_process_is_told_who_holds_the_shard(
        self, child: Any, store: EdgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        holder = child(HOLD)
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setattr(edge_shards, "LOCK_WAIT", 0.2)
        for action in (
            lambda: store.count(tenant(), INDEX),
            lambda: store.erase(tenant(), [SPACE]),
            lambda: fill(store, tenant(), "1"),
        ):
            with pytest.raises(StoreUnavailable, match=rf"{tenant().incarnation}.*process {holder.pid}"):
                action()
        fill(store, tenant(2), "1")
        assert store.count(tenant(2), INDEX) == 1

        holder.communicate(timeout=30)
        fill(store, tenant(), "1")
        assert store.count(tenant(), INDEX) == 1

    def test_a_second_process_waits_for_a_shard_that_is_let_go(self, child: Any, store: EdgeStore) -> None:
        holder = child(
            "import time\nstore.count(tenant(), INDEX)\nprint('held', flush=True)\ntime.sleep(0.5)\n"
        )
        assert holder.stdout.readline() == "held\n"
        assert store.count(tenant(), INDEX) == 0

    def test_processes_that_set_up_at_once_agree(self, child: Any, store: EdgeStore) -> None:
        children = [child("") for _ in range(3)]
        assert [process.wait(timeout=60) for process in children] == [0, 0, 0]
        fill(store, tenant(), "1")
        assert store.count(tenant(), INDEX) == 1
