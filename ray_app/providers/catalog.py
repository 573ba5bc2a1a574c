"""Which provider serves which space: the composition root of everything that embeds.

Cheap to make and to ask: torch and httpx are imported when something is embedded.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from typing import Final

from ray_app.encoders.model_files import BUNDLED_NAME, describe_space
from ray_app.encoders.stub import STUB_NAME, STUB_SPACE
from ray_app.errors import ConfigError
from ray_app.providers.local import local_chunker, local_name, local_provider
from ray_app.providers.port import EmbeddingProvider
from ray_app.providers.pricing import price_per_million
from ray_app.settings import BUNDLED_MODEL, GatewaySettings, Settings
from ray_app.spaces import EmbeddingSpace, Preference
from ray_app.text import Chunker

NO_GATEWAY: Final = (
    "No gateway is configured: everything is embedded locally. Set ROWBEAM_GATEWAY_URL to use one."
)
STUB_IN_USE: Final = "The stub model is in use: its vectors are for tests and benchmarks, not for search."


class ProviderCatalog:
    """The local provider, and the gateway's when one is configured. Close it when done.

    Methods that take a space raise ConfigError when nothing configured serves it. All may raise
    ProviderUnavailable: an unknown gateway model must be asked for its dimensions, and a hub
    model must be fetched.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._providers: dict[str, EmbeddingProvider] = {}
        self._chunkers: dict[str, Chunker] = {}

    def spaces_for(self, preference: Preference) -> EmbeddingSpace:
        """The space of a new index: the gateway's for ``quality`` when there is one, else the local one."""
        if preference is Preference.QUALITY and self._settings.gateway is not None:
            return self._gateway_space
        return self._local_space

    def spaces(self) -> list[EmbeddingSpace]:
        """Every space that is served, that of new indexes first."""
        local = [describe_space(settings) for settings in self._settings.local_models]
        return [*local, *([self._gateway_space] if self._settings.gateway else [])]

    def named(self, name: str) -> EmbeddingSpace:
        """The space served under ``name``: a space's id, a model's name, a ``local_model`` setting, or
        ``local`` or ``gateway``.

        Raises:
            ConfigError: none is, or several are.
        """
        names: list[tuple[set[str], EmbeddingSpace]] = []
        for place, settings in enumerate(self._settings.local_models):
            space = describe_space(settings)
            also = {"local"} if place == 0 else set()
            names.append(({space.space_id, space.model, settings.local_model, *also}, space))
        if self._settings.gateway is not None:
            space = self._gateway_space
            names.append(({space.space_id, space.model, "gateway"}, space))
        found = {space.space_id: space for known, space in names if name in known}
        exact = [space for space in found.values() if name == space.space_id] or [
            describe_space(settings)
            for settings in self._settings.local_models
            if settings.local_model == name
        ]
        if len(found) != 1 and len(exact) != 1:
            raise ConfigError(
                f"{'Several spaces are' if found else 'No space is'} served under the name {name!r}.",
                hint=f"Served: {'; '.join(f'{space.space_id} is {_describe(space)}' for _, space in names)}."
                " ROWBEAM_OTHER_MODEL adds a local model, ROWBEAM_GATEWAY_URL a gateway.",
            )
        return exact[0] if len(exact) == 1 else next(iter(found.values()))

    def provider_for(self, space: EmbeddingSpace | str) -> EmbeddingProvider:
        """The provider that embeds in this space, given whole or by its id; the same one every time."""
        space_id = space if isinstance(space, str) else space.space_id
        if space_id not in self._providers:
            gateway = self._gateway_of(space)
            if gateway is None:
                self._providers[space_id] = local_provider(self._local[space_id])
            else:
                from ray_app.providers.gateway import GatewayProvider

                self._providers[space_id] = GatewayProvider(gateway)
        return self._providers[space_id]

    def chunker_for(self, space: EmbeddingSpace | str) -> Chunker:
        """The chunker that goes with this space; nothing is loaded but a tokenizer."""
        gateway = self._gateway_of(space)
        if gateway is None:
            space_id = space if isinstance(space, str) else space.space_id
            if space_id not in self._chunkers:
                self._chunkers[space_id] = local_chunker(self._local[space_id])
            return self._chunkers[space_id]
        from ray_app.providers.gateway import gateway_chunker

        return gateway_chunker(gateway)

    def local_settings(self, space: EmbeddingSpace) -> Settings:
        """The settings with the local model of ``space`` as their ``local_model``. Raises ConfigError."""
        if self._gateway_of(space) is not None:
            raise ConfigError(f"No local model serves {_describe(space)}.")
        return self._local[space.space_id]

    def provider_name(self, space: EmbeddingSpace | str) -> str:
        """The name its provider will have, told without loading it."""
        if self._gateway_of(space) is not None:
            return "gateway"
        return local_name(self._local[space if isinstance(space, str) else space.space_id])

    def price_per_million(self, space: EmbeddingSpace | str) -> Decimal | None:
        """US dollars per million tokens: zero for local spaces, None when the price is unknown."""
        gateway = self._gateway_of(space)
        return Decimal(0) if gateway is None else price_per_million(gateway.model, gateway.price_per_million)

    def notes(self) -> tuple[str, ...]:
        """What a user should know about this configuration."""
        notes = [] if self._settings.gateway else [NO_GATEWAY]
        if self._local_is_stub:
            notes.append(STUB_IN_USE)
        return tuple(notes)

    def close(self) -> None:
        """Close every provider that was asked for. Idempotent."""
        while self._providers:
            self._providers.popitem()[1].close()

    @property
    def _local_is_stub(self) -> bool:
        return local_name(self._settings) == STUB_NAME

    @cached_property
    def _local_space(self) -> EmbeddingSpace:
        return describe_space(self._settings)

    @cached_property
    def _local(self) -> dict[str, Settings]:
        """The settings of each local model, by the id of its space."""
        return {describe_space(settings).space_id: settings for settings in self._settings.local_models}

    @cached_property
    def _gateway_space(self) -> EmbeddingSpace:
        from ray_app.providers.gateway import gateway_space

        if self._settings.gateway is None:
            raise ConfigError("No gateway is configured.", hint="Set ROWBEAM_GATEWAY_URL.")
        return gateway_space(self._settings.gateway)

    def _gateway_of(self, space: EmbeddingSpace | str) -> GatewaySettings | None:
        """The gateway that serves ``space``, or None when the local provider does. Raises ConfigError."""
        space_id = space if isinstance(space, str) else space.space_id
        if space_id == self._local_space.space_id or space_id in self._local:
            return None
        if self._settings.gateway is not None and space_id == self._gateway_space.space_id:
            return self._settings.gateway
        raise ConfigError(
            f"The index is pinned to {_describe(space)}, which nothing configured serves.",
            hint=f"{_way_back(space)} Configured now: {self._configured()}.",
        )

    def _configured(self) -> str:
        return " and ".join(map(_describe, self.spaces()))


def _describe(space: EmbeddingSpace | str) -> str:
    if isinstance(space, str):
        return f"space {space}"
    return f"model {space.model}, revision {space.revision}, {space.dimensions} dimensions"


def _way_back(space: EmbeddingSpace | str) -> str:
    """What to set so that a pinned space is served again."""
    if isinstance(space, str):
        return "Restore the model settings it was made with."
    if space.revision.startswith("gateway"):
        return (
            f"Set ROWBEAM_GATEWAY_URL to an endpoint that serves it, ROWBEAM_GATEWAY_MODEL={space.model}"
            f" and ROWBEAM_GATEWAY_DIMENSIONS={space.dimensions}."
        )
    if space.space_id == STUB_SPACE.space_id:
        return f"Set ROWBEAM_LOCAL_MODEL={STUB_NAME}."
    if space.model == BUNDLED_NAME:
        return f"Set ROWBEAM_LOCAL_MODEL={BUNDLED_MODEL}, or unset it."
    return "Set ROWBEAM_LOCAL_MODEL to the folder or hub id of that model, with the same weights."
