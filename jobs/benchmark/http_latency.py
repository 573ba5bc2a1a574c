"""One short text after another on one connection, against the same encoder called without a server.

Back to back, as load generators ask with one connection. With a pause between two requests both take
longer, for cores that idle have to wake up for each step; that is measured too, and told in the details.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from jobs.benchmark.contestants import Contestant, Encode, rowbeam_encoder
from jobs.benchmark.http_load import Endpoint, ask_one_by_one, percentile
from jobs.benchmark.lines import Line, Samples, Target, in_turns
from jobs.benchmark.site import Site
from ray_app.serving.options import ServingOptions
from ray_app.settings import Settings

#: Milliseconds that HTTP may add.
LATENCY: Final = Target(5, at_least=False)
#: Seconds between an answer and the next request, for the details.
_PAUSE: Final = 0.02
_WITH_PAUSES: Final = " with pauses"
#: Requests before the clock runs.
_WARM_REQUESTS: Final = 20


def latency_line(site: Site, endpoint: Endpoint, args: argparse.Namespace) -> Line:
    """``args.rounds`` runs of ``args.requests`` of each, in turns; ``endpoint`` is the site's."""
    threads = ServingOptions().threads_per_replica
    settings = site.settings.model_copy(update={"encoder_threads": threads})
    samples, tails = _one_by_one(endpoint, settings, args)
    return Line(
        "HTTP, one short text, no load",
        "the bare encoder call",
        LATENCY,
        _difference(samples["http"], samples["bare"]),
        unit="ms more",
        measure="ms",
        ours=samples["http"],
        peer=samples["bare"],
        details={
            "requests": args.requests * args.rounds,
            "threads": threads,
            "p95_ms": tails,
            "pause_ms": _PAUSE * 1000,
            "more_with_pauses_ms": round(
                _difference(samples["http" + _WITH_PAUSES], samples["bare" + _WITH_PAUSES]), 2
            ),
            "medians_ms": {name: round(sample.median, 2) for name, sample in samples.items()},
        },
    )


def _difference(http: Samples, bare: Samples) -> float:
    """The median of the rounds' differences."""
    return statistics.median(ours - theirs for ours, theirs in zip(http.values, bare.values, strict=True))


def _one_by_one(
    endpoint: Endpoint, settings: Settings, args: argparse.Namespace
) -> tuple[dict[str, Samples], dict[str, float]]:
    """Each run's median and the 95th percentile of all runs, in milliseconds, over HTTP and bare."""
    texts = [f"login fails on page {number}" for number in range(args.requests)]
    times: dict[str, list[float]] = {}

    def median_of(name: str, ask: Callable[[], list[float]]) -> float:
        taken = ask()
        times.setdefault(name, []).extend(taken)
        return statistics.median(taken) * 1000

    with Contestant(rowbeam_encoder, settings, "cpu") as bare:
        bare.warm(texts)
        asyncio.run(ask_one_by_one(endpoint, texts[:_WARM_REQUESTS], pause=_PAUSE))
        asks: dict[str, Callable[[], list[float]]] = {}
        for suffix, pause in (("", 0.0), (_WITH_PAUSES, _PAUSE)):
            asks["http" + suffix] = partial(_ask_http, endpoint, texts, pause)
            asks["bare" + suffix] = partial(bare.call, call_one_by_one, texts, pause)
        samples = in_turns({name: partial(median_of, name, ask) for name, ask in asks.items()}, args.rounds)
    return samples, {name: round(percentile(sorted(taken), 0.95) * 1000, 2) for name, taken in times.items()}


def _ask_http(endpoint: Endpoint, texts: Sequence[str], pause: float) -> list[float]:
    return asyncio.run(ask_one_by_one(endpoint, texts, pause=pause))


def call_one_by_one(encode: Encode, texts: Sequence[str], pause: float) -> list[float]:
    """Seconds of each call with one text, ``pause`` seconds after the one before."""
    times = []
    for text in texts:
        if pause:
            time.sleep(pause)
        began = time.perf_counter()
        encode([text])
        times.append(time.perf_counter() - began)
    return times
