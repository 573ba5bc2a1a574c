"""Many clients at once: every request is answered or told when to come back, and memory stays flat.

``--clients`` callers of several tenants ask for one text each, as fast as they are answered, for
``--seconds``; one that is refused with 429 or 503 waits as long as ``Retry-After`` says. Memory is
that of the server's processes, as the kernel accounts it. At the end a single caller asks again.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from statistics import median
from typing import Any, Final

import httpx

from jobs.benchmark.latency import Answers
from jobs.benchmark.memory import MemorySampler
from jobs.benchmark.site import served
from jobs.benchmark.wire import Wire
from ray_app.providers.retry import asked_wait

TENANTS: Final = 10
#: Seconds after which a client gives up.
PATIENCE: Final = 120.0
#: Answers that keep the promise: done, or a refusal that says when to come back.
GOOD: Final = ("200", "429", "503")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="bundled", help="ROWBEAM_LOCAL_MODEL of the server")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print what came of the requests; answers the record."""
    with served(local_model=args.model) as site:
        keys = [site.add_tenant(f"crowd-{number}") for number in range(TENANTS)]
        sampler = MemorySampler(site.processes)
        sampler.begin()
        answers = asyncio.run(_crowd(site.url, keys, args.clients, args.seconds))
        own = [sample[0] for sample in sampler.end()]
        after = asyncio.run(_crowd(site.url, keys[:1], 1, 5))
    half = len(own) // 2
    broken = {name: count for name, count in answers.outcomes.items() if name not in GOOD}
    record = {
        "clients": args.clients,
        "seconds": args.seconds,
        **answers.summary(),
        "broken": broken,
        "memory_first_half_mib": round(median(own[:half] or own), 1),
        "memory_second_half_mib": round(median(own[half:]), 1),
        "right_after": after.summary(),
    }
    for name, value in record.items():
        print(f"{name:>24} {value}")  # noqa: T201
    return record


async def _crowd(url: str, keys: list[str], clients: int, seconds: float) -> Answers:
    answers = Answers()
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {keys[0]}"}) as client:
        model = (await client.get("/v1/models")).raise_for_status().json()["data"][0]["id"]
    end = time.monotonic() + seconds
    wires = [Wire(url, keys[number % len(keys)]) for number in range(clients)]
    await asyncio.gather(*(_caller(wire, model, end, answers) for wire in wires))
    return answers


async def _caller(wire: Wire, model: str, end: float, answers: Answers) -> None:
    number = 0
    while (began := time.monotonic()) < end:
        number += 1
        body = {"model": model, "input": f"payment fails again {number}"}
        try:
            answer = await asyncio.wait_for(wire.post("/v1/embeddings", body), PATIENCE)
        except (OSError, EOFError, TimeoutError) as error:
            answers.add(type(error).__name__, time.monotonic() - began)
            continue
        answers.add(str(answer.status), time.monotonic() - began)
        if answer.status in (429, 503):
            wait = asked_wait(answer.headers)
            if wait is None:
                raise RuntimeError(f"A refusal ({answer.status}) does not say when to come back.")
            await asyncio.sleep(min(wait, max(end - time.monotonic(), 0)))
    wire.close()
