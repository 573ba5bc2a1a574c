"""One short text after another on one connection, against the same encoder called without a server."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

from jobs.benchmark.contestants import Contestant, Encode, rowbeam_encoder
from jobs.benchmark.http_load import Endpoint, ask_one_by_one, percentile
from jobs.benchmark.lines import Line, Samples, Target, in_turns
from jobs.benchmark.site import Site
from ray_app.serving.options import ServingOptions
from ray_app.settings import Settings

#: Milliseconds that HTTP may add.
LATENCY: Final = Target(5, at_least=False)
#: Seconds between an answer and the next request.
_PAUSE: Final = 0.02
#: Requests before the clock runs.
_WARM_REQUESTS: Final = 20


def latency_line(site: Site, endpoint: Endpoint, args: argparse.Namespace) -> Line:
    """``args.rounds`` runs of ``args.requests`` of each, in turns; ``endpoint`` is the site's."""
    threads = ServingOptions().threads_per_replica
    settings = site.settings.model_copy(update={"encoder_threads": threads})
    samples, tails = _one_by_one(endpoint, settings, args)
    pairs = zip(samples["http"].values, samples["bare"].values, strict=True)
    return Line(
        "HTTP, one short text, no load",
        "the bare encoder call",
        LATENCY,
        statistics.median(http - bare for http, bare in pairs),
        unit="ms more",
        measure="ms",
        ours=samples["http"],
        peer=samples["bare"],
        details={"requests": args.requests * args.rounds, "threads": threads, "p95_ms": tails},
    )


def _one_by_one(
    endpoint: Endpoint, settings: Settings, args: argparse.Namespace
) -> tuple[dict[str, Samples], dict[str, float]]:
    """Each run's median and the 95th percentile of all runs, in milliseconds, over HTTP and bare."""
    texts = [f"login fails on page {number}" for number in range(args.requests)]
    times: dict[str, list[float]] = {"http": [], "bare": []}

    def median_of(name: str, ask: Callable[[], list[float]]) -> Callable[[], float]:
        def run() -> float:
            taken = ask()
            times[name] += taken
            return statistics.median(taken) * 1000

        return run

    with Contestant(rowbeam_encoder, settings, "cpu") as bare:
        bare.warm(texts)
        asyncio.run(ask_one_by_one(endpoint, texts[:_WARM_REQUESTS], pause=_PAUSE))
        runs = {
            "http": median_of("http", lambda: asyncio.run(ask_one_by_one(endpoint, texts, pause=_PAUSE))),
            "bare": median_of("bare", lambda: bare.call(call_one_by_one, texts, _PAUSE)),
        }
        samples = in_turns(runs, args.rounds)
    return samples, {name: round(percentile(sorted(taken), 0.95) * 1000, 2) for name, taken in times.items()}


def call_one_by_one(encode: Encode, texts: Sequence[str], pause: float) -> list[float]:
    """Seconds of each call with one text, ``pause`` seconds after the one before."""
    times = []
    for text in texts:
        time.sleep(pause)
        began = time.perf_counter()
        encode([text])
        times.append(time.perf_counter() - began)
    return times
