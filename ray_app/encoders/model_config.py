"""What a sentence-transformers model folder says about itself, read without importing the library.

The folder's layout is the one ``SentenceTransformer.save`` writes: ``modules.json`` lists the
modules, each in a folder with a config file of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from ray_app.errors import ConfigError

_LIBRARY: Final = "sentence_transformers."
_SUPPORTED: Final = ("Transformer", "Pooling", "Dense", "LayerNorm", "Dropout", "Normalize")
_WEIGHTED: Final = ("Transformer", "Dense", "LayerNorm")
_LEGACY_POOLING: Final = "pooling_mode_"
#: Names under which authors keep the prompt of stored texts, in the library's order.
_DOCUMENT_PROMPTS: Final = ("document", "passage", "corpus")


@dataclass(frozen=True)
class ModelConfig:
    """The part of a model's configuration that decides its space."""

    dimensions: int
    #: Tokens the model reads at once, special tokens counted.
    max_seq_length: int
    document_prefix: str
    query_prefix: str
    tokenizer: Path
    weights: tuple[Path, ...]

    def text_tokens(self) -> int:
        """Tokens left for a stored text beside the special tokens and the prefix.

        Raises:
            ConfigError: none are.
        """
        tokenizer = load_tokenizer(self.tokenizer)
        prefix = tokenizer.encode(self.document_prefix, add_special_tokens=False)
        left = self.max_seq_length - tokenizer.num_special_tokens_to_add(is_pair=False) - len(prefix)
        if left < 1:
            raise ConfigError(f"The model of {self.tokenizer} has no room for text beside its prompt.")
        return left


def load_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json``, neither truncating nor padding. Raises ConfigError."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(
            f"The tokenizer {file} cannot be read: {error}.",
            hint="Save the model's fast tokenizer there with tokenizer.save_pretrained(folder).",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_config(folder: Path) -> ModelConfig:
    """Read a model folder.

    Raises:
        ConfigError: a file is missing or broken, the weights are not safetensors, or the model
            has a module Rowbeam does not know.
    """
    modules = _modules(folder)
    transformer = folder / modules[0][1]
    saved = _read(folder / "config_sentence_transformers.json", required=False)
    prompts: dict[str, str | None] = saved.get("prompts") or {}
    document = next(filter(None, (prompts.get(name) for name in _DOCUMENT_PROMPTS)), "")
    query = prompts.get("query") or ""
    dimensions = _dimensions(folder, modules, has_prompt=bool(document or query))
    return ModelConfig(
        dimensions=min(dimensions, saved.get("truncate_dim") or dimensions),
        max_seq_length=_max_seq_length(transformer),
        document_prefix=document,
        query_prefix=query,
        tokenizer=transformer / "tokenizer.json",
        weights=tuple(
            file for kind, path in modules if kind in _WEIGHTED for file in _weights(folder / path)
        ),
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """(class name, subfolder) of each module; without ``modules.json`` the library pools by mean."""
    listed = _read(folder / "modules.json", required=False)
    if not listed:
        return [("Transformer", ""), ("Pooling", "")]
    modules = []
    for module in listed:
        kind = str(module["type"])
        name = kind.rpartition(".")[2]
        if not kind.startswith(_LIBRARY) or name not in _SUPPORTED:
            raise ConfigError(
                f"The model in {folder} has a module {kind}, which Rowbeam does not run.",
                hint=f"Use a text model made of {', '.join(_SUPPORTED)}.",
            )
        modules.append((name, str(module["path"])))
    if modules[0][0] != "Transformer":
        raise ConfigError(f"The model in {folder} does not begin with a Transformer module.")
    return modules


def _dimensions(folder: Path, modules: list[tuple[str, str]], *, has_prompt: bool) -> int:
    """The size of the last module that sets one."""
    size = 0
    for kind, path in modules:
        if kind == "Dense":
            size = int(_read(folder / path / "config.json")["out_features"])
        elif kind == "Pooling" and not path:
            size = int(_read(folder / "config.json").get("hidden_size", 0))
        elif kind == "Pooling":
            config = _read(folder / path / "config.json")
            if has_prompt and not config.get("include_prompt", True):
                raise ConfigError(
                    f"The model in {folder} pools without its prompt, which Rowbeam does not do."
                )
            width = config.get("embedding_dimension") or config.get("word_embedding_dimension") or 0
            size = int(width) * _pooling_modes(config)
    if size < 1:
        raise ConfigError(f"The model in {folder} does not say how many dimensions its vectors have.")
    return size


def _pooling_modes(config: dict[str, Any]) -> int:
    mode = config.get("pooling_mode")
    if mode is not None:
        return 1 if isinstance(mode, str) else len(mode)
    return max(1, sum(value is True for name, value in config.items() if name.startswith(_LEGACY_POOLING)))


def _max_seq_length(transformer: Path) -> int:
    """The length the library cuts at: its own setting, else what both tokenizer and positions allow."""
    for file in sorted(transformer.glob("sentence_*_config.json")):
        config = _read(file)
        length = config.get("max_seq_length")
        for name in ("processor_kwargs", "tokenizer_args"):
            length = length or (config.get(name) or {}).get("model_max_length")
        if length:
            return int(length)
    positions = _read(transformer / "config.json").get("max_position_embeddings", -1)
    longest = _read(transformer / "tokenizer_config.json", required=False).get("model_max_length")
    limits = [int(limit) for limit in (positions, longest) if limit and limit > 0]
    if not limits:
        raise ConfigError(
            f"The model in {transformer} does not say how many tokens it reads.",
            hint="Set max_seq_length in sentence_bert_config.json.",
        )
    return min(limits)


def _weights(folder: Path) -> list[Path]:
    single = folder / "model.safetensors"
    files = [single] if single.exists() else sorted(folder.glob("model-*-of-*.safetensors"))
    if not files:
        raise ConfigError(
            f"There is no model.safetensors in {folder}.",
            hint="Pickled weights are not loaded; save the model again with safe serialization.",
        )
    return files


def _read(file: Path, *, required: bool = True) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        raise ConfigError(f"The model file {file} is missing.", hint="Is this a model folder?") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The model file {file} cannot be read: {error}.") from error
