"""The GPU encoder against ``SentenceTransformer.encode`` in half precision at its best batch size.

The second line says how busy the device is: the time in which at least one kernel ran, as
``torch.profiler`` has it of one call, as a share of the median time of a call without the profiler,
whose own work would make the call look slower than it is. Without CUDA nothing is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

from jobs.benchmark.contestants import Contestant, Encode, is_stub, rowbeam_encoder, sentence_transformer
from jobs.benchmark.encoder import best_batch_size
from jobs.benchmark.lines import Line, Samples, Target, in_turns, ratio
from jobs.benchmark.report import say
from jobs.benchmark.texts import load_texts
from ray_app.encoders.agreement import agreement, mean_cosine
from ray_app.encoders.port import FloatArray
from ray_app.settings import Settings

BATCH_SIZES: Final = (32, 64, 128, 256, 512, 1024)
#: Texts whose neighbours are compared; all of 20,000 take seconds for nothing more to know.
_COMPARED: Final = 2000
_SPEED, _KERNELS = Target(1.5), Target(0.8)
_NAME, _PEER = "GPU encoder", "SentenceTransformer fp16"
_KERNEL_SHARE: Final = f"{_NAME}: share of time in kernels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=20_000, help="texts")


def lines(args: argparse.Namespace) -> Iterator[Line]:
    """Speed, and the share of the time in kernels; unmeasured without CUDA."""
    settings = Settings.from_env().model_copy(update={"local_model": args.model})
    device, why = None, "not measured: the stub is no model"
    if not is_stub(args.model):
        # Elsewhere: what imports torch has its threads, and CUDA some of the device's memory.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            device, why = pool.submit(_device_name).result(), "not measured: no CUDA device"
    if device is None:
        yield Line(_NAME, _PEER, _SPEED, None, note=why)
        yield Line(_KERNEL_SHARE, "its own time", _KERNELS, None, unit="", note=why)
        return
    yield from _measured(args, settings, device)


def _measured(args: argparse.Namespace, settings: Settings, device: str) -> Iterator[Line]:
    texts = load_texts(args.texts, args.count)
    say(f"{device}, {len(texts):,} texts")
    with (
        Contestant(rowbeam_encoder, settings, "cuda") as ours,
        Contestant(sentence_transformer, settings, "cuda", True) as peer,
    ):
        # Whole calls: kernels are chosen and memory is taken for each shape that comes up.
        ours.vectors(texts)
        peer.vectors(texts)
        rates = best_batch_size(peer, texts, BATCH_SIZES)
        best = max(rates, key=rates.__getitem__)
        runs: dict[str, Callable[[], float]] = {
            "ours": lambda: ours.rate(texts),
            "peer": lambda: peer.rate(texts, batch_size=best),
        }
        samples = in_turns(runs, args.rounds)
        found = ours.vectors(texts[:_COMPARED])
        reference = peer.vectors(texts[:_COMPARED], batch_size=best)
        busy, wall = ours.call(kernel_seconds, texts)
    yield _speed_line(samples, best, rates, device, found, reference)
    yield _kernel_line(len(texts), samples["ours"], busy, wall, device)


def _speed_line(
    samples: dict[str, Samples],
    best: int,
    rates: dict[int, float],
    device: str,
    found: FloatArray,
    reference: FloatArray,
) -> Line:
    near = min(10, len(found) - 1)
    return Line(
        _NAME,
        f"{_PEER}, batches of {best}",
        _SPEED,
        ratio(samples["ours"], samples["peer"]),
        measure="texts/s",
        ours=samples["ours"],
        peer=samples["peer"],
        note=f"on {device}",
        details={
            "device": device,
            "peer_rates": rates,
            "top_10_agreement_with_peer": agreement(found, reference, near),
            "mean_cosine_to_peer": mean_cosine(found, reference),
        },
    )


def _kernel_line(texts: int, rate: Samples, busy: float, wall: float, device: str) -> Line:
    seconds = texts / rate.median
    return Line(
        _KERNEL_SHARE,
        "its own time",
        _KERNELS,
        min(busy / seconds, 1.0),
        unit="",
        measure="s",
        ours=Samples((busy,)),
        peer=Samples((seconds,)),
        note=f"on {device}",
        details={"kernel_seconds": busy, "seconds": seconds, "seconds_with_profiler": wall},
    )


def kernel_seconds(encode: Encode, texts: Sequence[str]) -> tuple[float, float]:
    """Seconds in which a kernel ran during one call, and the call's own seconds under the profiler."""
    import time

    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        began = time.perf_counter()
        encode(texts)
        torch.cuda.synchronize()
        wall = time.perf_counter() - began
    on_device = (event for event in trace.events() or () if event.device_type.name == "CUDA")
    return covered((event.time_range.start, event.time_range.end) for event in on_device) / 1e6, wall


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of half-open spans (start, end)."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _device_name() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
