"""How long inputs are: guessed from their bytes to be let in, and counted by the model's own tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ray_app.api.embeddings_models import Inputs
from ray_app.encoders.model_files import find_model
from ray_app.encoders.stub import StubOptions
from ray_app.encoders.token_ids import token_id_reader
from ray_app.errors import InputError, TextTooLong
from ray_app.providers.approximate_chunker import BYTES_PER_TOKEN, estimate_tokens
from ray_app.settings import Settings
from ray_app.spaces import EmbeddingSpace
from ray_app.workspace import Workspace

#: UTF-8 bytes that one token of ordinary text has at the least.
_BYTES_PER_TOKEN: Final = 3
#: Characters of text for each token a model reads; what is longer is too long however it is counted.
#: As ``TokenChunker``, which counts nothing longer.
_CHARS_PER_TOKEN: Final = 32
_LANGCHAIN: Final = "Send text; with LangChain's OpenAIEmbeddings, set check_embedding_ctx_length=False."


@dataclass(frozen=True)
class Counted:
    """Texts a model can read whole, and the tokens of each."""

    texts: Sequence[str]
    tokens: Sequence[int]


def estimate(inputs: Inputs, space: EmbeddingSpace) -> int:
    """Tokens of all inputs as far as their size tells; the same for the same request."""
    return sum(min(_guess(item), space.max_tokens) for item in inputs.items)


def _guess(item: str | Sequence[int]) -> int:
    if isinstance(item, str):
        return math.ceil(len(item.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)
    return len(item)


def count(workspace: Workspace, inputs: Inputs, space: EmbeddingSpace, *, truncate: bool) -> Counted:
    """The inputs as texts, cut to what the model reads when ``truncate`` says so. Blocks.

    Raises:
        InputError: an input is too long, or is of token ids that are not this model's.
    """
    if workspace.providers.provider_name(space) == "gateway":
        return _count_for_gateway(_texts(inputs), space, truncate=truncate)
    texts = [
        item
        if isinstance(item, str)
        else _decode(
            workspace.providers.local_settings(space), item, inputs.name(index), space, truncate=truncate
        )
        for index, item in enumerate(inputs.items)
    ]
    longest = space.max_tokens * _CHARS_PER_TOKEN
    texts = [text if len(text) <= longest else text.strip() for text in texts]
    # What has more characters need not be cut into chunks to be seen to be too long.
    chunks = workspace.providers.chunker_for(space).chunk([text[:longest] for text in texts])
    tokens = []
    for index, (text, found) in enumerate(zip(texts, chunks, strict=True)):
        fits = len(text) <= longest and len(found) <= 1
        if not (fits or truncate):
            raise _too_long(inputs.name(index), space)
        tokens.append(sum(chunk.tokens for chunk in found) if fits else space.max_tokens)
    return Counted([text[:longest] for text in texts], tokens)


def _decode(
    settings: Settings, ids: Sequence[int], name: str, space: EmbeddingSpace, *, truncate: bool
) -> str:
    if StubOptions.parse(settings.local_model) is not None:
        raise InputError(f"'{name}': the stub model has no token ids.", hint="Send text.", param=name)
    reader = token_id_reader(find_model(settings.local_model).config().tokenizer)
    ids = reader.bare(ids)
    if len(ids) > space.max_tokens and not truncate:
        raise _too_long(name, space)
    try:
        return reader.text(ids[: space.max_tokens])
    except ValueError as error:
        raise InputError(
            f"'{name}' is not made by the tokenizer of {space.model}: {error}.", hint=_LANGCHAIN, param=name
        ) from error


def _texts(inputs: Inputs) -> list[str]:
    """The inputs of a model whose tokenizer is not here, which must be texts."""
    texts = [item for item in inputs.items if isinstance(item, str)]
    if len(texts) != len(inputs.items):
        raise InputError("Token ids of this model cannot be read here.", hint=_LANGCHAIN, param="input")
    return texts


def _count_for_gateway(texts: Sequence[str], space: EmbeddingSpace, *, truncate: bool) -> Counted:
    """Estimates: the gateway counts, and refuses by itself what is too long."""
    if truncate:
        texts = [_beginning(text, math.floor(space.max_tokens * BYTES_PER_TOKEN)) for text in texts]
    return Counted(texts, [min(estimate_tokens(text), space.max_tokens) for text in texts])


def _beginning(text: str, size: int) -> str:
    """At most ``size`` bytes of it, ending with a whole character."""
    return text.encode()[:size].decode(errors="ignore")


def _too_long(name: str, space: EmbeddingSpace) -> TextTooLong:
    return TextTooLong(
        f"'{name}' is longer than the {space.max_tokens} tokens that {space.model} reads.",
        hint='Send less text, or set "truncate": true.',
        param=name,
    )
