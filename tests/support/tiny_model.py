"""A small model in a folder, as sentence-transformers saves it: quick to convert, its weights made up."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel

from ray_app.encoders.model_files import find_model

_HIDDEN = 64


def tiny_model(folder: Path, *, outliers: bool = False) -> Path:
    """A BERT of two layers with the bundled tokenizer, in ``folder``.

    With ``outliers`` one feature in each half of an attention layer's output is 3,000 times as large
    as the others, and the weights that read it as much smaller. In 32 bits that changes next to
    nothing; rounded to 8 bits, a group that holds such a feature keeps nothing of the others.
    """
    torch.manual_seed(7)
    config = BertConfig(
        hidden_size=_HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        initializer_range=0.2,
    )
    bert = BertModel(config)
    if outliers:
        for layer in bert.encoder.layer:
            value, reader = layer.attention.self.value, layer.attention.output.dense
            for feature in (0, _HIDDEN // 2):
                value.weight.data[feature] *= 3_000
                value.bias.data[feature] *= 3_000
                reader.weight.data[:, feature] /= 3_000
    parts = folder / "parts"
    bert.save_pretrained(parts)
    bundled = find_model("bundled").folder
    for file in bundled.glob("*token*"):
        shutil.copy(file, parts)
    transformer = Transformer(str(parts), max_seq_length=128)
    model = SentenceTransformer(modules=[transformer, Pooling(_HIDDEN, "mean")], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"
