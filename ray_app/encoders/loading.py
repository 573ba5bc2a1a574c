"""The best encoder of the local model on this machine."""

from __future__ import annotations

import logging
from typing import Final

from ray_app.encoders.choice import EncoderChoice
from ray_app.encoders.device import likely_device
from ray_app.encoders.model_cache import MODEL_FILE, ModelCache, read_entry
from ray_app.encoders.model_files import ModelFiles, find_model
from ray_app.encoders.openvino_encoder import OpenVinoEncoder
from ray_app.encoders.port import Encoder
from ray_app.errors import ConfigError
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace

logger: Final = logging.getLogger(__name__)


def load_encoder(settings: Settings, space: EmbeddingSpace, *, device: str | None = None) -> Encoder:
    """Load ``settings.local_model`` on ``device`` or the best there is.

    On a GPU torch encodes. On a CPU the model is converted for OpenVINO the first time, measured
    beside torch, and the fastest that agrees with torch encodes from then on
    (``ROWBEAM_PRECISION`` says how nearly). All of them embed in the same space: a space is the
    model's own, and a backend that would answer with other neighbours is never used.

    Raises:
        ConfigError: the files do not make the model that ``space`` describes.
        ProviderUnavailable: the model's hub cannot be reached.
    """
    files = find_model(settings.local_model)
    if (device or likely_device()) == "cpu":
        files.check()
        encoder = _converted(settings, files, space)
        if encoder is not None:
            return encoder
        device = "cpu"
    from ray_app.encoders.torch_encoder import TorchEncoder  # 5 s of imports

    return TorchEncoder(files, space, device=device, threads=settings.encoder_threads)


def load_converted(settings: Settings, space: EmbeddingSpace) -> Encoder:
    """Load the model as it was converted for this machine's CPU, without converting it or asking torch.

    Raises:
        ConfigError: it has not been converted here, or torch encodes; and as ``load_encoder``.
        ProviderUnavailable: as ``load_encoder``.
    """
    choice = stored_choice(settings)
    if choice is not None and choice.backend != "torch":
        encoder = _converted(settings, find_model(settings.local_model), space)
        if encoder is not None:
            return encoder
    raise ConfigError("The model is not converted for this machine's CPU, or torch is faster on it.")


def stored_choice(settings: Settings) -> EncoderChoice | None:
    """The choice for this machine's CPU, once it has been made. Raises as ``load_encoder`` does."""
    cache = ModelCache(settings.cache, find_model(settings.local_model), settings.precision)
    entry = read_entry(cache.folder, verify=False)
    return entry.choice if entry else None


def _converted(settings: Settings, files: ModelFiles, space: EmbeddingSpace) -> OpenVinoEncoder | None:
    """The encoder of the converted model; None when torch is to encode."""
    config = files.config()
    if config.dimensions != space.dimensions:
        raise ConfigError(
            f"{files.name} makes vectors of {config.dimensions} dimensions, not {space.dimensions}."
        )
    cache = ModelCache(settings.cache, files, settings.precision)
    entry = cache.get(settings.encoder_threads)
    if entry is None or entry.choice.backend == "torch":
        return None
    try:
        return OpenVinoEncoder(
            cache.folder / MODEL_FILE,
            entry.choice.backend,
            config,
            entry.padding,
            threads=settings.encoder_threads,
        )
    except ConfigError as error:
        logger.warning("%s Torch encodes.", error.message)
        return None
