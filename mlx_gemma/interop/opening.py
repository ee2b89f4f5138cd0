"""An artefact opened by the program that it is made for, or by ours.

Where the other program is not installed, or has no room for the whole checkpoint in float32, ours reads the same files;
`Opened.program` says which it was, and of the latter why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_gemma.errors import UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.gemma4.load import load
from mlx_gemma.interop import counterpart, foreign, gguf, gguf_lora, peft_read, programs
from mlx_gemma.interop.artefact import Artefact
from mlx_gemma.interop.compare import Logits


@dataclass(frozen=True)
class Opened:
    """A loaded artefact.

    Attributes:
        program: what computes it, and in brackets why it is not its own.
        logits: token ids to soft-capped logits [tokens, vocabulary], float32.
        greedy: token ids and a count to the most probable continuation.
        wide: whether it computes in float32.
    """

    program: str
    logits: Callable[[Sequence[int]], Logits]
    greedy: Callable[[Sequence[int], int], list[int]]
    wide: bool = True


def open_artefact(artefact: Artefact, longest: int, *, ours: bool = False) -> Opened:
    """Load an artefact into its own program, or into ours.

    Args:
        longest: tokens of a sequence and its continuation, for which llama.cpp makes room.
        ours: ask no other program.

    Raises:
        ModelError: the program does not load it whole.

    Cost: the model in memory, in float32 where the whole checkpoint fits so; with transformers the whole checkpoint.
    """
    own = {"hf": _hf, "peft": _peft, "mlx": _mlx, "gguf": _gguf, "gguf-lora": _gguf_lora}.get(artefact.kind)
    large = None if ours else _too_large(artefact)
    opened = own(artefact, longest) if own and not ours and not large else None
    return opened or _in_mlx(f"mlx-gemma ({large})" if large else "mlx-gemma", _text(artefact), artefact.base)


def _too_large(artefact: Artefact) -> str | None:
    """Why transformers is not asked, though it is the artefact's own program and installed."""
    theirs = artefact.kind in ("hf", "peft") and programs.installed("transformers")
    if not theirs or artefact.base is None or counterpart.fits_wide(artefact.base):
        return None
    return f"transformers would need {counterpart.wide_bytes(artefact.base) / 1e9:.1f} GB"


def _in_mlx(program: str, text: Any, source: Checkpoint | None) -> Opened:
    """mlx-lm's text decoder, cast to float32 where there is room."""
    if source is not None and counterpart.fits_wide(source):
        text.set_dtype(mx.float32)
    wide = not any(value.dtype in (mx.float16, mx.bfloat16) for _, value in tree_flatten(text.parameters()))
    return Opened(program, *programs.ours(text), wide)


def _hf(artefact: Artefact, longest: int) -> Opened | None:
    if not programs.installed("transformers") or artefact.base is None:
        return None
    return Opened("transformers", *programs.torch_functions(programs.transformers_model(artefact.base.folder)))


def _peft(artefact: Artefact, longest: int) -> Opened | None:
    if not programs.installed("transformers") or not programs.installed("peft") or artefact.base is None:
        return None
    model = programs.with_peft(programs.transformers_model(artefact.base.folder), artefact.path)
    return Opened("transformers + PEFT", *programs.torch_functions(model))


def _mlx(artefact: Artefact, longest: int) -> Opened | None:
    return _in_mlx("mlx-lm", programs.mlx_lm_model(artefact.base.folder), artefact.base) if artefact.base else None


def _gguf(artefact: Artefact, longest: int) -> Opened | None:
    if not programs.installed("llama.cpp"):
        return None
    return Opened("llama.cpp", *programs.llama(artefact.path, None, longest))


def _gguf_lora(artefact: Artefact, longest: int) -> Opened | None:
    if artefact.base_gguf is None:
        return None
    if not programs.installed("llama.cpp"):
        fix = "install llama-cpp-python, or give the base as a checkpoint"
        raise UserError("a GGUF base needs llama.cpp, which is not installed", where=artefact.name, fix=fix)
    return Opened("llama.cpp", *programs.llama(artefact.base_gguf, artefact.path, longest))


def _text(artefact: Artefact) -> Any:
    """The text decoder of any kind, as this package reads it."""
    if artefact.kind == "gguf" or artefact.base is None:
        return gguf.read_model(artefact.path)
    source = artefact.base
    if artefact.kind == "run":
        return load(source.name, revision=source.revision, adapter=artefact.path).text
    gemma = load(source.name, revision=source.revision)
    if artefact.kind == "peft":
        with TemporaryDirectory() as folder:
            foreign.write(Path(folder), peft_read.read(artefact.path, gemma), gemma)
            lora.load_adapter(gemma.model, Path(folder))
            mx.eval(gemma.model.parameters())
    if artefact.kind == "gguf-lora":
        gguf_lora.attach(gemma.text, *gguf_lora.read_adapter(artefact.path), where=artefact.path)
    return gemma.text
