"""Bodies of ``/v1/embeddings``, as in OpenAI's API reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from ray_app.errors import InputError

#: Half of a UTF-16 pair, which JSON can spell and neither UTF-8 nor a tokenizer knows.
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_KINDS: Final = "a string, a list of strings, a list of token ids or a list of such lists"
_TOKEN_IDS: Final = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_INPUT_SCHEMA: Final[dict[str, Any]] = {
    "description": f"What to embed: {_KINDS}; 1 to 2048 of them, none empty.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "maxItems": 2048, "items": {"type": "string", "minLength": 1}},
        _TOKEN_IDS,
        {"type": "array", "minItems": 1, "maxItems": 2048, "items": _TOKEN_IDS},
    ],
}


class EmbeddingsRequest(BaseModel):
    """OpenAI's parameters, and ``truncate``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(min_length=1, description="A model's name or a space's id; /v1/models lists them.")
    # Checked by parse_inputs, which names the item at fault; a union's errors would name its branches.
    input: Any = Field(json_schema_extra=_INPUT_SCHEMA)
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="float (the default), or base64 of little-endian float32."
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="The model's own, or fewer where the model is made for it."
    )
    user: str | None = Field(default=None, description="Taken for compatibility, and not kept.")
    truncate: bool = Field(
        default=False, description="Embed the beginning of an input that is too long, instead of refusing it."
    )


class Embedding(BaseModel):
    """One vector; a string holds base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


@dataclass(frozen=True)
class Inputs:
    """What a request asks to embed: all texts, or all token ids."""

    items: Sequence[str | Sequence[int]]
    #: Whether it was sent without a list around it, and so has no index.
    single: bool

    def name(self, index: int) -> str:
        """How an item is named in messages and ``param``."""
        return "input" if self.single else f"input[{index}]"


def parse_inputs(value: object, limit: int) -> Inputs:
    """The inputs of a body's ``input``, lone surrogates replaced by U+FFFD.

    Raises:
        InputError: it is of no kind that OpenAI takes, empty, has an empty item, or more than ``limit``.
    """
    if isinstance(value, str):
        return _checked(Inputs([_clean(value)], single=True), limit)
    if not isinstance(value, list):
        raise InputError(f"Invalid type for 'input': send {_KINDS}.", param="input")
    if not value:
        raise InputError("'input' is an empty list; send 1 to 2048 items.", param="input")
    if isinstance(value[0], str):
        _check_all(value, str, "a string")
        return _checked(Inputs([_clean(text) for text in value], single=False), limit)
    if _is_id(value[0]):
        return _checked(Inputs([_ids(value, "input")], single=True), limit)
    _check_all(value, list, "a list of token ids")
    return _checked(
        Inputs([_ids(ids, f"input[{index}]") for index, ids in enumerate(value)], single=False), limit
    )


def _clean(text: str) -> str:
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def _is_id(value: object) -> bool:
    return type(value) is int  # True is an int too


def _ids(value: list[object], name: str) -> list[int]:
    ids = [item for item in value if type(item) is int and item >= 0]
    if len(ids) != len(value):
        raise InputError(f"'{name}' has an item that is not a token id.", param=name)
    return ids


def _check_all(items: list[object], kind: type, words: str) -> None:
    for index, item in enumerate(items):
        if not isinstance(item, kind):
            name = f"input[{index}]"
            raise InputError(f"'{name}' is not {words}, as the first item is.", param=name)


def _checked(inputs: Inputs, limit: int) -> Inputs:
    if len(inputs.items) > limit:
        raise InputError(
            f"'input' has {len(inputs.items)} items; one request takes {limit}.",
            hint="Send them in several requests.",
            param="input",
        )
    for index, item in enumerate(inputs.items):
        if not item:
            name = inputs.name(index)
            raise InputError(f"'{name}' is empty; every input needs text.", param=name)
    return inputs
