"""The backend without Ray: the local model in this process."""

from __future__ import annotations

from ray_app.serving.local_model import LocalModel, local_model
from ray_app.serving.pool import PricedTarget, ProviderPool
from ray_app.settings import Settings


class InProcessBackend(ProviderPool):
    """A ``ProviderPool`` over one model of this process. Close it when done."""

    def __init__(self, model: LocalModel) -> None:
        super().__init__([PricedTarget(model)])
        self.model = model

    def close(self) -> None:
        """Answer whoever waits and end the model's thread; from any thread. Idempotent."""
        self.model.close()


def local_backend(settings: Settings) -> InProcessBackend:
    """The backend of ``settings.local_model``, loaded at its first text.

    Raises:
        ConfigError: the model is not there or its files cannot be used.
        ProviderUnavailable: its hub cannot be reached.
    """
    return InProcessBackend(local_model(settings))
