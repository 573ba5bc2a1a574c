"""The HTTP server: its latency against the bare encoder call, its throughput against Infinity's.

Latency: one connection, one short text after another. The bare call is the same encoder with as many
threads, in a process of its own. Throughput: 32 callers with a text each and 4 callers with 100 texts
each, all asking again as soon as they are answered; the callers share the cores with the server. Both
servers get the same texts, cut off where the model ends, and answer JSON numbers. The server that is not
measured is suspended meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import psutil

from jobs.benchmark.contestants import is_stub
from jobs.benchmark.http_latency import latency_line
from jobs.benchmark.http_load import Endpoint, Load, keep_asking, vectors_for
from jobs.benchmark.lines import Line, Samples, Target, in_turns, ratio
from jobs.benchmark.peers import infinity
from jobs.benchmark.report import say
from jobs.benchmark.site import Site, served, suspended
from jobs.benchmark.texts import load_texts
from ray_app.encoders.model_files import describe_space, find_model
from ray_app.settings import Settings

Kind = Literal["single", "hundred"]
#: Times Infinity's requests/s and texts/s; Infinity's 99th percentile is to be the longer one.
SINGLE, HUNDRED, TAIL = Target(4), Target(3.5), Target(1)
CALLERS: Final[dict[Kind, int]] = {"single": 32, "hundred": 4}
_NAMES: Final[dict[Kind, str]] = {
    "single": "HTTP, 32 callers with single texts",
    "hundred": "HTTP, 4 callers with 100 texts",
}
#: Texts of a request. Few requests of a hundred are answered in a run, so they are much alike: 8 lists.
_SIZES: Final[dict[Kind, int]] = {"single": 1, "hundred": 100}
_TEXTS: Final[dict[Kind, int]] = {"single": 256, "hundred": 800}
#: Share of a run's seconds for which the same load runs before the clock does.
_WARM_SHARE: Final = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=9, help="of each run under load")
    parser.add_argument("--requests", type=int, default=120, help="of each run without load")
    parser.add_argument("--peer", type=Path, help=f"Infinity's venv, as {infinity.INSTALL} --into made it")
    parser.add_argument(
        "--peer-options",
        default=shlex.join(infinity.BEST_OPTIONS),
        help="Infinity's own options; default: the fastest that were found",
    )


@dataclass
class Competitor:
    """A server, and what its runs under load came to."""

    endpoint: Endpoint
    processes: Callable[[], Iterable[psutil.Process]]
    loads: dict[Kind, list[Load]] = field(default_factory=lambda: {"single": [], "hundred": []})

    def run(self, kind: Kind, bodies: Sequence[Sequence[str]], seconds: float) -> float:
        """Texts a second, after a warm-up."""
        asyncio.run(_ask(self.endpoint, kind, bodies, seconds * _WARM_SHARE))
        load = asyncio.run(_ask(self.endpoint, kind, bodies, seconds))
        self.loads[kind].append(load)
        say(f"{self.endpoint.name}, {kind}: {load.record()}")
        return load.texts_per_second

    def tails(self) -> Samples:
        """Milliseconds of the 99th percentile of each run with single texts."""
        return Samples(tuple(load.percentile(0.99) for load in self.loads["single"]))


def lines(args: argparse.Namespace) -> Iterator[Line]:
    """Latency, then throughput and tail."""
    peer_folder = (args.peer or infinity.default_folder(Settings.from_env().home)).absolute()
    with served(local_model=args.model) as site, ExitStack() as running:
        ours = Competitor(_our_endpoint(site), site.processes)
        yield latency_line(site, ours.endpoint, args)
        peer = None
        if not is_stub(args.model) and infinity.is_installed(peer_folder):
            peer = running.enter_context(_peer(peer_folder, args))
        yield from _throughput(ours, peer, args)


def _throughput(ours: Competitor, peer: Competitor | None, args: argparse.Namespace) -> Iterator[Line]:
    texts = load_texts(args.texts, max(_TEXTS.values()))
    for kind in CALLERS:
        size = _SIZES[kind]
        bodies = [texts[start : start + size] for start in range(0, _TEXTS[kind], size)]
        if peer is None:
            runs = {"ours": _runner(ours, kind, bodies, args.seconds)}
        else:
            runs = {
                "ours": _runner(ours, kind, bodies, args.seconds, others=peer.processes),
                "peer": _runner(peer, kind, bodies, args.seconds, others=ours.processes),
            }
        samples = in_turns(runs, args.rounds)
        compact = asyncio.run(_ask(ours.endpoint, kind, bodies, args.seconds / 2, "base64"))
        details = _details(ours, peer, kind, args) | {"ours_in_base64": compact.record()}
        yield _rate_line(kind, samples, details, args.model)
        if kind == "single":
            yield _tail_line(ours, peer, args.model)


def _rate_line(kind: Kind, samples: dict[str, Samples], details: dict[str, Any], model: str) -> Line:
    peer = samples.get("peer")
    return Line(
        _NAMES[kind],
        infinity.NAME,
        SINGLE if kind == "single" else HUNDRED,
        None if peer is None else ratio(samples["ours"], peer),
        measure="requests/s" if kind == "single" else "texts/s",
        ours=samples["ours"],
        peer=peer,
        note=_note(peer, model),
        details=details,
    )


def _tail_line(ours: Competitor, peer: Competitor | None, model: str) -> Line:
    mine, theirs = ours.tails(), None if peer is None else peer.tails()
    return Line(
        f"{_NAMES['single']}: 99th percentile",
        infinity.NAME,
        TAIL,
        None if theirs is None else ratio(theirs, mine),
        measure="ms",
        ours=mine,
        peer=theirs,
        note=_note(theirs, model),
    )


def _note(peer: Samples | None, model: str) -> str:
    if peer is not None:
        return ""
    if is_stub(model):
        return "The stub is no model that Infinity could load."
    return f"Infinity is not installed; {infinity.INSTALL} does it."


def _details(
    ours: Competitor, peer: Competitor | None, kind: Kind, args: argparse.Namespace
) -> dict[str, Any]:
    details: dict[str, Any] = {"ours": [load.record() for load in ours.loads[kind]]}
    if peer is not None:
        details |= {
            "peer": [load.record() for load in peer.loads[kind]],
            "peer_options": args.peer_options,
            "mean_cosine": asyncio.run(_mean_cosine(ours, peer)),
        }
    return details


async def _mean_cosine(ours: Competitor, peer: Competitor) -> float:
    """Of both servers' vectors for the same short texts: they run the same model."""
    texts = [f"the build of release {number} fails" for number in range(20)]
    mine, theirs = await vectors_for(ours.endpoint, texts), await vectors_for(peer.endpoint, texts)
    return round(float((mine * theirs).sum(axis=1).mean()), 4)


def _runner(
    competitor: Competitor,
    kind: Kind,
    bodies: Sequence[Sequence[str]],
    seconds: float,
    others: Callable[[], Iterable[psutil.Process]] = tuple,
) -> Callable[[], float]:
    def run() -> float:
        with suspended(others):
            return competitor.run(kind, bodies, seconds)

    return run


async def _ask(
    endpoint: Endpoint, kind: Kind, bodies: Sequence[Sequence[str]], seconds: float, encoding: str = "float"
) -> Load:
    return await keep_asking(endpoint, bodies, callers=CALLERS[kind], seconds=seconds, encoding=encoding)


def _our_endpoint(site: Site) -> Endpoint:
    space = describe_space(site.settings)
    key = site.add_tenant("bench")
    # Infinity cuts long texts off without being asked.
    return Endpoint(
        "Rowbeam", site.url, "/v1/embeddings", space.model, space.dimensions, key, {"truncate": True}
    )


@contextmanager
def _peer(folder: Path, args: argparse.Namespace) -> Iterator[Competitor]:
    files = find_model(args.model)
    say(f"starting {infinity.NAME}")
    with infinity.running(
        folder, files.folder, folder / "server.log", shlex.split(args.peer_options)
    ) as server:
        dimensions = files.config().dimensions
        endpoint = Endpoint("Infinity", server.url, "/embeddings", server.model, dimensions)
        yield Competitor(endpoint, server.processes)
