"""Usage is in the ledger before callers go on, in few transactions, and not forgotten while it is down."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from ray_app.errors import DatabaseUnavailable
from ray_app.serving.usage_log import UsageLog
from ray_app.serving.usage_writer import UsageWriter


class SlowLog(UsageLog):
    """A log whose ledger takes a while, or is down."""

    def __init__(self) -> None:
        self.pending = 0
        self.written = 0
        self.flushes = 0
        self.down = threading.Event()

    def flush(self) -> None:
        self.flushes += 1
        taken = self.pending
        time.sleep(0.02)
        if self.down.is_set():
            raise DatabaseUnavailable("The ledger is down.")
        self.pending -= taken
        self.written += taken


def test_everybody_who_waited_is_written_and_writes_are_shared() -> None:
    log = SlowLog()

    async def caller(writer: UsageWriter, delay: float) -> None:
        await asyncio.sleep(delay)
        log.pending += 1
        mine = log.written + log.pending
        await writer.flush()
        assert log.written >= mine

    async def main() -> None:
        writer = UsageWriter(log)
        await asyncio.gather(*(caller(writer, number / 1000) for number in range(100)))
        await writer.close()

    asyncio.run(main())
    assert log.written == 100
    assert log.flushes < 50


def test_callers_go_on_while_the_ledger_is_down_and_it_is_written_when_it_is_back() -> None:
    log = SlowLog()

    async def main() -> None:
        writer = UsageWriter(log, retry=0.01)
        log.down.set()
        for _ in range(3):
            log.pending += 1
            await writer.flush()
        assert log.written == 0
        log.down.clear()
        async with asyncio.timeout(10):
            while log.written < 3:
                await asyncio.sleep(0.01)
        log.pending += 1
        await writer.flush()
        assert log.written == 4
        await writer.close()

    asyncio.run(main())


def test_what_is_lost_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = SlowLog()
    log.down.set()
    asyncio.run(UsageWriter(log).close())
    assert "lost" in caplog.text
