"""Converting a model once for a machine: what is refused, what is waited for, what is made again."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ray_app.encoders.choice import EncoderChoice
from ray_app.encoders.loading import load_encoder, stored_choice
from ray_app.encoders.model_cache import MODEL_FILE, Entry, ModelCache, digests_of, read_entry
from ray_app.encoders.model_files import describe_space, find_model
from ray_app.encoders.openvino_encoder import OpenVinoEncoder, Padding
from ray_app.encoders.torch_encoder import TorchEncoder
from ray_app.settings import Settings
from tests.support.sentences import sentences
from tests.support.tiny_model import tiny_model

#: Prints which encoder a process gets, its modules that were not asked for, and a vector's first number.
LOAD = """
import logging, sys
logging.basicConfig(level=logging.INFO)
from pathlib import Path
from ray_app.encoders.loading import load_encoder
from ray_app.encoders.model_files import describe_space
from ray_app.settings import Settings
settings = Settings(home=Path(sys.argv[1]), local_model=sys.argv[2], precision=sys.argv[3])
encoder = load_encoder(settings, describe_space(settings), device="cpu")
vectors = encoder.encode(["fix the login"]).vectors
heavy = [name for name in ("torch", "transformers", "sentence_transformers", "nncf") if name in sys.modules]
print(type(encoder).__name__, heavy, float(vectors[0, 0]))
"""


def loading(home: Path, model: Path | str, precision: str, user: Path) -> subprocess.Popen[str]:
    """A process that loads the encoder, of a user whose home is ``user``."""
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(home), str(model), precision],
        env={**os.environ, "HOME": str(user)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def choice_of(settings: Settings) -> EncoderChoice:
    choice = stored_choice(settings)
    assert choice is not None
    return choice


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def test_a_candidate_that_disagrees_is_refused_and_the_next_one_encodes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model(tmp_path, outliers=True)
    settings = Settings(home=tmp_path / "home", local_model=str(model))
    space = describe_space(settings)
    with caplog.at_level(logging.WARNING, "ray_app"):
        encoder = load_encoder(settings, space, device="cpu")
    (warning,) = caplog.messages
    assert "openvino-int8 (mean cosine to torch" in warning
    assert isinstance(encoder, OpenVinoEncoder)
    assert encoder.backend == choice_of(settings).backend == "openvino-f32"
    trials = {trial.backend: trial for trial in choice_of(settings).trials}
    assert set(trials) == {"openvino-int8", "openvino-f32", "torch"}
    assert (trials["openvino-int8"].mean_cosine or 1) < 0.9
    assert (trials["openvino-f32"].agreement or 0) >= 0.999
    texts = sentences(20)
    expected = TorchEncoder(find_model(str(model)), space, device="cpu").encode(texts)
    found = encoder.encode(texts)
    assert (found.vectors * expected.vectors).sum(axis=1).min() >= 0.9999
    assert found.counts == expected.counts


def test_processes_that_start_at_once_convert_once_in_place_of_a_damaged_entry(
    tmp_path: Path, folder: Path
) -> None:
    settings = Settings(home=tmp_path / "home", local_model=str(folder), precision="exact")
    cache = ModelCache(settings.cache, find_model(str(folder)), "exact")
    cache.folder.mkdir(parents=True)
    whole, cut = b"0123456789", b"01234"
    (cache.folder / MODEL_FILE).write_bytes(whole)
    choice = EncoderChoice(backend="openvino-f32", why="of old")
    Entry(choice=choice, padding=Padding(0), digests=digests_of(cache.folder)).write(cache.folder)
    (cache.folder / MODEL_FILE).write_bytes(cut)
    (cache.folder.parent / f".{cache.folder.name}-killed").mkdir()
    user = tmp_path / "user"
    user.mkdir()
    starting = [loading(settings.home, folder, "exact", user) for _ in range(2)]
    said = [process.communicate(timeout=280) for process in starting]
    outputs = [output.strip() for output, _ in said]
    assert outputs[0].startswith("OpenVinoEncoder [] "), said
    assert outputs[1] == outputs[0]
    assert "".join(errors for _, errors in said).count("Converting") == 1
    assert {trial.backend for trial in choice_of(settings).trials} == {"openvino-f32", "torch"}
    assert read_entry(cache.folder) is not None
    # Nothing else is left behind, and no telemetry in the user's home.
    assert sorted(path.suffix for path in cache.folder.parent.iterdir()) == ["", ".lock", ".log"]
    assert list(user.iterdir()) == []


def test_a_cache_that_cannot_be_written_leaves_torch(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken = tmp_path / "file"
    taken.touch()
    settings = Settings(home=tmp_path / "home", cache_dir=taken, local_model=str(folder))
    space = describe_space(settings)
    with caplog.at_level(logging.WARNING, "ray_app"):
        encoder = load_encoder(settings, space, device="cpu")
    assert isinstance(encoder, TorchEncoder)
    assert "torch encodes" in caplog.text
    assert np.isfinite(encoder.encode(["a"]).vectors).all()


def test_a_conversion_ends_with_the_process_that_waits_for_it(tmp_path: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "ray_app.encoders.convert", "--name", "tiny", "--folder", str(folder)]
    command += ["--precision", "exact", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(120) == 1
    assert list(tmp_path.iterdir()) == []
