"""The CPU encoder against ``SentenceTransformer.encode`` in 32 bits at its best batch size.

Both embed the same texts with all cores this process may use. The peer's batch size is the fastest of
4 to 128 in the same run. How far the vectors agree is told by lines of their own: the share of each
text's 10 nearest others that the peer names too, and the mean cosine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final, Literal

from jobs.benchmark.contestants import Contestant, is_stub, rowbeam_encoder, sentence_transformer
from jobs.benchmark.lines import Line, Samples, Target, in_turns, ratio
from jobs.benchmark.report import say
from jobs.benchmark.texts import load_texts
from ray_app.encoders.agreement import agreement, mean_cosine
from ray_app.encoders.loading import stored_choice
from ray_app.encoders.port import FloatArray
from ray_app.settings import Settings

BATCH_SIZES: Final = (4, 8, 16, 32, 64, 128)
#: Texts the peer's batch size is chosen on.
_CHOOSING: Final = 500
Precision = Literal["fast", "exact"]
#: (texts/s to the peer's, agreement of 10 neighbours, mean cosine) that are asked for.
TARGETS: Final[dict[Precision, tuple[Target, Target, Target]]] = {
    "fast": (Target(3.3), Target(0.95), Target(0.995)),
    "exact": (Target(1.25), Target(0.999), Target(0.9999)),
}
_NAMES: Final[dict[Precision, str]] = {
    "fast": "CPU encoder, default",
    "exact": "CPU encoder, precision exact",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=2000, help="texts")


def lines(args: argparse.Namespace) -> Iterator[Line]:
    """Speed of both precisions, then how far they agree."""
    if is_stub(args.model):
        yield from unmeasured("The stub is no model that SentenceTransformer could load.")
        return
    texts = load_texts(args.texts, args.count)
    with ExitStack() as running:
        ours = {
            precision: running.enter_context(Contestant(rowbeam_encoder, _settings(args, precision), "cpu"))
            for precision in TARGETS
        }
        peer = running.enter_context(Contestant(sentence_transformer, _settings(args), "cpu"))
        say("loading; a model that was never converted on this machine is converted now")
        for contestant in (*ours.values(), peer):
            contestant.warm(texts)
        rates = best_batch_size(peer, texts[:_CHOOSING], BATCH_SIZES)
        batch_size = max(rates, key=rates.__getitem__)
        say(f"{len(texts)} texts, the peer in batches of {batch_size}")
        samples = in_turns(
            {
                **{name: _runner(contestant, texts) for name, contestant in ours.items()},
                "peer": lambda: peer.rate(texts, batch_size=batch_size),
            },
            args.rounds,
        )
        reference = peer.vectors(texts, batch_size=batch_size)
        vectors = {precision: contestant.vectors(texts) for precision, contestant in ours.items()}
    details = {"texts": len(texts), "peer_batch_size": batch_size, "peer_rates": rates}
    for precision in TARGETS:
        choice = stored_choice(_settings(args, precision))
        chosen = {"backend": choice.backend if choice else "torch", "why": choice.why if choice else ""}
        yield from _lines(precision, samples, vectors[precision], reference, {**details, **chosen})


def best_batch_size(peer: Contestant, texts: Sequence[str], sizes: Sequence[int]) -> dict[int, float]:
    """Texts a second of the peer with each batch size, the better of two runs."""
    rates = dict.fromkeys(sizes, 0.0)
    for _ in range(2):
        for size in sizes:
            rates[size] = max(rates[size], round(peer.rate(texts, batch_size=size), 1))
    return rates


def unmeasured(why: str) -> Iterator[Line]:
    for precision, targets in TARGETS.items():
        yield Line(_NAMES[precision], "SentenceTransformer fp32", targets[0], None, note=why)


def _lines(
    precision: Precision,
    samples: dict[str, Samples],
    vectors: FloatArray,
    reference: FloatArray,
    details: dict[str, Any],
) -> Iterator[Line]:
    speed, near, cosine = TARGETS[precision]
    name, against = _NAMES[precision], "SentenceTransformer fp32"
    yield Line(
        name,
        f"{against}, batches of {details['peer_batch_size']}",
        speed,
        ratio(samples[precision], samples["peer"]),
        measure="texts/s",
        ours=samples[precision],
        peer=samples["peer"],
        note=f"run by {details['backend']}",
        details=details,
    )
    yield Line(f"{name}: top-10 agreement", against, near, agreement(vectors, reference), unit="")
    yield Line(f"{name}: mean cosine", against, cosine, mean_cosine(vectors, reference), unit="")


def _runner(contestant: Contestant, texts: Sequence[str]) -> Any:
    return lambda: contestant.rate(texts)


def _settings(args: argparse.Namespace, precision: Precision = "fast") -> Settings:
    return Settings.from_env().model_copy(update={"local_model": args.model, "precision": precision})
