"""Which backend is chosen, by what was measured; entries of the cache; the texts it is measured on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.encoders.check_texts import COUNT, check_texts
from ray_app.encoders.choice import TOLERANCES, EncoderChoice, Trial, choose
from ray_app.encoders.model_cache import Entry, ModelCache, digests_of, processor, read_entry
from ray_app.encoders.model_config import load_tokenizer
from ray_app.encoders.model_files import find_model
from ray_app.encoders.openvino_encoder import Padding

TORCH = Trial(backend="torch", texts_per_second=70)


def trial(backend: str, rate: float, refused: str | None = None) -> Trial:
    return Trial.model_validate(
        {"backend": backend, "texts_per_second": rate, "agreement": 0.97, "refused": refused}
    )


def test_the_fastest_that_agrees_encodes() -> None:
    choice = choose([trial("openvino-int8", 300), trial("openvino-f32", 100), TORCH])
    assert choice.backend == "openvino-int8"
    assert choice.why.startswith("openvino-int8 300 texts/s (top-10 agreement 0.970), openvino-f32 100")


def test_one_that_disagrees_is_not_used_however_fast() -> None:
    choice = choose([trial("openvino-int8", 300, "it disagrees"), trial("openvino-f32", 100), TORCH])
    assert choice.backend == "openvino-f32"
    assert choice.refusals == ["openvino-int8 (it disagrees)"]


def test_one_that_is_slower_than_the_next_is_not_used() -> None:
    assert choose([trial("openvino-int8", 60), trial("openvino-f32", 65), TORCH]).backend == "torch"


def test_torch_is_left_when_nothing_can_be_converted() -> None:
    failed = Trial(backend="openvino-f32", refused="the model cannot be converted (KeyError)")
    assert choose([failed, TORCH]).backend == "torch"


@given(st.floats(0, 1), st.floats(0, 1))
def test_tolerance(agreement: float, cosine: float) -> None:
    for tolerance in TOLERANCES.values():
        allowed = agreement >= tolerance.agreement and cosine >= 0.995
        assert (tolerance.refusal(agreement, cosine) is None) == allowed


def test_what_is_no_number_is_refused() -> None:
    assert TOLERANCES["fast"].refusal(math.nan, 1.0) is not None
    assert TOLERANCES["fast"].refusal(1.0, math.nan) is not None


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """The folder of a complete entry."""
    (tmp_path / "model.xml").write_text("<net/>")
    (tmp_path / "model.bin").write_bytes(b"weights")
    choice = EncoderChoice(backend="openvino-int8", why="fast", trials=(TORCH,))
    Entry(choice=choice, padding=Padding(1, left=True), digests=digests_of(tmp_path)).write(tmp_path)
    return tmp_path


def test_an_entry_is_read_as_it_was_written(entry: Path) -> None:
    found = read_entry(entry)
    assert found is not None
    assert found.choice.trials == (TORCH,)
    assert found.padding == Padding(1, left=True)
    assert set(found.digests) == {"model.xml", "model.bin"}


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "choice.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "empty"])
def test_an_entry_with_a_damaged_file_is_none(entry: Path, name: str, damage: str) -> None:
    file = entry / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": content[:-1], "changed": b"\xff" + content[1:], "empty": b""}[damage])
    assert read_entry(entry) is None


def test_what_another_version_wrote_is_none(entry: Path) -> None:
    file = entry / "choice.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "new": 1}))
    assert read_entry(entry) is None


def test_the_entry_depends_on_what_decides_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_model("bundled").folder
    model = tmp_path / "model"
    shutil.copytree(source, model, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = model / "model.safetensors"
    weights.write_bytes(b"one")
    names = []

    def note() -> None:
        files = find_model(str(model))
        names.append(ModelCache(tmp_path, files, "fast").folder.name)
        names.append(ModelCache(tmp_path, files, "exact").folder.name)

    note()
    weights.write_bytes(b"another")
    note()
    pooling = model / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "pooling_mode_cls_token": True}))
    note()
    monkeypatch.setattr("ray_app.encoders.model_cache.processor", lambda: "another")
    note()
    assert len(set(names)) == 8
    monkeypatch.undo()
    kept = len(names)
    note()
    assert names[kept:] == names[kept - 4 : kept - 2]


def test_the_processor_has_a_name() -> None:
    assert len(processor()) > 5
    assert processor() == processor()


def test_check_texts_are_what_a_platform_holds() -> None:
    texts = check_texts()
    assert texts == check_texts()
    assert len(set(texts)) == COUNT
    tokenizer = load_tokenizer(find_model("bundled").config().tokenizer)
    tokens = sorted(len(encoding) for encoding in tokenizer.encode_batch(texts))
    assert tokens[0] < 8
    assert 15 < tokens[COUNT // 2] < 60
    assert 256 < tokens[-1] < 400
    assert sum(not text.isascii() for text in texts) > COUNT // 20
