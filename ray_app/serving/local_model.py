"""A local model for many callers at once: the core of a Serve replica, and usable without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from ray_app.encoders.batching import DEFAULT_BUDGETS, BatchBudget
from ray_app.encoders.device import likely_device
from ray_app.encoders.loading import load_converted
from ray_app.encoders.model_files import describe_space
from ray_app.encoders.port import Encoded, Encoder
from ray_app.encoders.stub import STUB_NAME, StubOptions
from ray_app.errors import ConfigError, ProviderUnavailable
from ray_app.providers.local import encoder_loader, name_on
from ray_app.providers.port import Embedded
from ray_app.serving.batcher import PASSES, TokenBatcher
from ray_app.serving.batcher_stats import BatcherStats
from ray_app.serving.port import EmbedCall, Purpose
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace

#: Seconds in which a healthy encoder answers the probe: the batch that runs, and one text.
CHECK_LIMIT: Final = 30.0


class LocalModel:
    """An ``EmbeddingTarget`` over an encoder of this process.

    ``load`` is called on the encoder's own thread, at ``warm_up`` or at the first text.
    ``forward`` is what one forward pass of the encoder holds.
    """

    def __init__(
        self,
        name: str,
        space: EmbeddingSpace,
        load: Callable[[], Encoder],
        forward: BatchBudget = DEFAULT_BUDGETS["cpu"],
    ) -> None:
        self.name: Final = name
        self.space: Final = space
        self._load = load
        self._encoder: Encoder | None = None
        self._full_batch = forward.max_tokens * PASSES
        self._batcher = TokenBatcher(self._encode, space.dimensions, forward, provider=name)

    async def embed(self, call: EmbedCall) -> Embedded:
        """The space's prefix for ``call.purpose`` is added here; tokens are those the model read.

        What is longer than the model reads is cut off.

        Raises:
            ProviderUnavailable: the model cannot be loaded, has stopped working, hangs or was closed.
        """
        prefix = self.prefix(call.purpose)
        with _loaded():
            encoded = await self._batcher.embed(
                [prefix + text for text in call.texts],
                [min(tokens, self.space.max_tokens) for tokens in call.tokens],
                tenant=call.incarnation,
                lane=call.lane,
            )
        return Embedded(encoded.vectors, encoded.tokens, faults=encoded.faults, counts=encoded.counts)

    def prefix(self, purpose: Purpose) -> str:
        """What goes before each text."""
        return self.space.query_prefix if purpose is Purpose.QUERY else self.space.document_prefix

    async def warm_up(self) -> None:
        """Load the model and run a full batch, so that the first caller waits for neither.

        Raises:
            ConfigError: the model cannot be loaded.
            ProviderUnavailable: it does not work.
        """
        longest = self.space.max_tokens
        texts = [f"{place} " + "word " * (longest - 1) for place in range(self._full_batch // longest or 1)]
        await self._batcher.warm_up(texts, [longest] * len(texts))

    async def check(self, limit: float = CHECK_LIMIT) -> None:
        """Encode a text ahead of everything that waits.

        Raises:
            ProviderUnavailable: as ``embed``, or when it takes longer than ``limit`` seconds.
        """
        with _loaded():
            await self._batcher.check(limit)

    def stats(self) -> BatcherStats:
        """How busy the model is; autoscaling goes by ``load.queued_tokens``."""
        return self._batcher.stats()

    def sample(self) -> None:
        """Set the gauges of what waits for the model."""
        self._batcher.sample()

    def close(self, wait: float = 5.0) -> bool:
        """Answer whoever waits with ProviderUnavailable and let go of the model. Idempotent.

        Blocks until the batch that runs has ended, ``wait`` seconds at most; False when it has not.
        """
        ended = self._batcher.close(wait)
        if ended:
            self._encoder = None
        return ended

    def _encode(self, texts: Sequence[str]) -> Encoded:
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder.encode(texts)


def local_model(
    settings: Settings, *, device: str | None = None, kind: type[LocalModel] = LocalModel
) -> LocalModel:
    """The model of ``settings.local_model`` on ``device`` (``cpu``, ``cuda`` or ``mps``) or the best there
    is; not loaded yet.

    Raises:
        ConfigError: the model is not there or its files cannot be used.
        ProviderUnavailable: its hub cannot be reached.
    """
    space = describe_space(settings)
    load = encoder_loader(settings, space, device=device)
    if StubOptions.parse(settings.local_model) is not None:
        return kind(STUB_NAME, space, load)
    # A guess where nobody says: torch knows better, and takes a second to import.
    guess = device or likely_device()
    return kind(name_on(guess), space, load, DEFAULT_BUDGETS[guess])


def nearby_model(settings: Settings) -> LocalModel | None:
    """A copy of one thread of the model as it was converted for this machine's CPU, not loaded yet; None
    for the stub. It is unavailable where there is no converted model.

    Raises as ``local_model`` does.
    """
    if StubOptions.parse(settings.local_model) is not None:
        return None
    space = describe_space(settings)
    alone = settings.model_copy(update={"encoder_threads": 1})
    return LocalModel(name_on("cpu"), space, lambda: load_converted(alone, space))


@contextmanager
def _loaded() -> Iterator[None]:
    """A model that cannot be loaded is no caller's mistake, and where its files are no caller's business."""
    try:
        yield
    except ConfigError as error:
        raise ProviderUnavailable("The local model cannot be loaded.") from error
