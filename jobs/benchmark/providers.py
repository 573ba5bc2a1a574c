"""Every configured provider: how fast, how quick to answer, at what cost, and how true to the model.

The local model on the CPU and on the GPU where there is one, and the gateway where one is configured, which
charges for it. What is measured becomes the baseline that a router starts from:
``benchmarks/providers.json`` under ROWBEAM_HOME. Whatever became worse than in the last baseline by more
than a fifth is warned of.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

from jobs.benchmark.contestants import Contestant, is_stub, sentence_transformer
from jobs.benchmark.machine import machine_name
from jobs.benchmark.parts import add_measuring_arguments
from jobs.benchmark.report import say
from jobs.benchmark.texts import load_texts
from jobs.benchmark.trial import measurement, try_out
from ray_app.baseline import (
    Baseline,
    ProviderMeasurement,
    Regression,
    load_baseline,
    regressions,
    save_baseline,
)
from ray_app.cli.layout import add_row, table_of
from ray_app.cli.output import emit_json, note, show
from ray_app.encoders.device import likely_device
from ray_app.encoders.model_files import describe_space
from ray_app.encoders.port import FloatArray
from ray_app.errors import ProviderUnavailable, RowbeamError
from ray_app.providers.catalog import ProviderCatalog
from ray_app.providers.local import (
    LocalProvider,
    encoder_loader,
    local_chunker,
    local_name,
    local_provider,
    name_on,
)
from ray_app.providers.port import EmbeddingProvider
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace, Preference


@dataclass(frozen=True)
class Survey:
    """What came of measuring every provider."""

    baseline: Baseline
    regressions: Sequence[Regression]
    #: Why a provider could not be measured, by its name.
    unavailable: dict[str, str]
    #: US dollars.
    spent: Decimal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_measuring_arguments(parser)
    parser.add_argument("--count", type=int, default=400, help="texts")
    parser.add_argument("--queries", type=int, default=40, help="single texts, for the latency")


def run(args: argparse.Namespace) -> int:
    """Measure, save and print; 1 when a provider could not be measured."""
    settings = Settings.from_env()
    survey = measure_providers(settings, load_texts(args.texts, args.count), args.rounds, args.queries)
    saved = save_baseline(settings.home, survey.baseline)
    if args.json:
        warnings = [str(regression) for regression in survey.regressions]
        emit_json(
            {
                **vars(survey.baseline),
                "warnings": warnings,
                "unavailable": survey.unavailable,
                "spent": survey.spent,
                "saved": saved,
            }
        )
        return int(bool(survey.unavailable))
    show(_table(survey.baseline.providers))
    for regression in survey.regressions:
        note(f"Warning: {regression}")
    for name, why in survey.unavailable.items():
        note(f"{name} could not be measured: {why}")
    note(f"Spent: ${survey.spent:.4f}")
    note(f"Baseline: {saved}")
    return int(bool(survey.unavailable))


def measure_providers(settings: Settings, texts: Sequence[str], rounds: int, queries: int) -> Survey:
    """Every configured provider on the same texts, against the last baseline.

    A provider that is down keeps its last figures in the baseline. Raises ConfigError when the last
    baseline cannot be read.
    """
    last = load_baseline(settings.home)
    measured: list[ProviderMeasurement] = []
    unavailable: dict[str, str] = {}
    spent = Decimal(0)
    with closing(ProviderCatalog(settings)) as catalog:
        for name, make in _configured(settings, catalog).items():
            say(f"measuring {name}")
            try:
                with closing(make()) as provider:
                    trial = try_out(provider, texts, rounds, queries)
                price = catalog.price_per_million(provider.space)
            except RowbeamError as error:
                spent += error.cost if isinstance(error, ProviderUnavailable) else 0
                unavailable[name] = str(error)
                continue
            spent += trial.cost
            true = _reference(settings, provider.space, texts)
            measured.append(measurement(name, provider.space, trial, price, true))
    now = Baseline(time.strftime("%Y-%m-%dT%H:%M:%S%z"), machine_name(), tuple(measured))
    worse = tuple(regressions(last, now)) if last else ()
    kept = [item for item in last.providers if item.name in unavailable] if last else []
    return Survey(replace(now, providers=(*measured, *kept)), worse, unavailable, spent)


def _configured(settings: Settings, catalog: ProviderCatalog) -> dict[str, Callable[[], EmbeddingProvider]]:
    """What makes each provider of these settings, by its name."""
    made: dict[str, Callable[[], EmbeddingProvider]] = {}
    if not is_stub(settings.local_model) and likely_device() == "cuda":
        made |= {name_on(device): partial(_local_on, settings, device) for device in ("cpu", "cuda")}
    else:
        made[local_name(settings)] = partial(local_provider, settings)
    if settings.gateway is not None:
        made["gateway"] = lambda: catalog.provider_for(catalog.spaces_for(Preference.QUALITY))
    return made


def _local_on(settings: Settings, device: str) -> LocalProvider:
    space = describe_space(settings)
    load = encoder_loader(settings, space, device=device)
    return LocalProvider(space, local_chunker(settings), load, name=name_on(device))


def _reference(settings: Settings, space: EmbeddingSpace, texts: Sequence[str]) -> FloatArray | None:
    """The vectors of the local model in 32 bits, as the library makes them.

    None for another space, and for the stub, which is no model.
    """
    if is_stub(settings.local_model) or space != describe_space(settings):
        return None
    say("the same texts in 32 bits, to compare with")
    with Contestant(sentence_transformer, settings, "cpu") as model:
        return model.vectors([space.document_prefix + text for text in texts])


def _table(providers: Sequence[ProviderMeasurement]) -> Any:
    titles = (
        "texts/s>",
        "tokens/s>",
        "p50 ms>",
        "p95 ms>",
        "$/1M tokens>",
        "$/1M rows>",
        "top 10>",
        "cosine>",
    )
    shown = table_of("provider", "model", *titles)
    for item in providers:
        add_row(
            shown,
            item.name,
            item.model,
            f"{item.texts_per_second:,.1f}",
            f"{item.tokens_per_second:,.0f}",
            f"{item.p50_ms:,.1f}",
            f"{item.p95_ms:,.1f}",
            _figure(item.dollars_per_million_tokens, 2),
            _figure(item.dollars_per_million_rows, 2),
            _figure(item.top_10_agreement, 3),
            _figure(item.mean_cosine, 4),
        )
    return shown


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
