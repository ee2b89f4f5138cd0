"""Whatever holds a model or an adapter, opened by the program that it is made for, or by ours: to be compared.

    kind        what it is                                   its own program
    hf          a Hugging Face folder, a hub id, nano        transformers
    mlx         a folder in mlx-lm's names                   mlx-lm
    run         a run folder, an adapter in mlx-lm's form    ours
    peft        an adapter in PEFT's form                    transformers + PEFT
    gguf        a model in one GGUF file                     llama.cpp
    gguf-lora   an adapter in a GGUF file                    llama.cpp, on a GGUF of its base

Where the other program is not installed ours reads the same files; `Artefact.program` says which it was.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx

from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import Checkpoint, find
from mlx_gemma.gemma4.headers import tensors
from mlx_gemma.gemma4.load import load
from mlx_gemma.gemma4.names import layer_place
from mlx_gemma.gemma4.template import ChatTemplate
from mlx_gemma.interop import foreign, gguf, gguf_file, gguf_lora, peft_config, peft_read, programs
from mlx_gemma.interop.compare import Logits
from mlx_gemma.interop.stream import weight_files

KINDS = ("hf", "mlx", "run", "peft", "gguf", "gguf-lora")
QUANTISED = "quantised"


@dataclass(frozen=True)
class Artefact:
    """A file, folder or hub id, and what it needs. Nothing is loaded yet.

    Attributes:
        name: as the user gave it.
        kind: of KINDS.
        base: the checkpoint that an adapter is for; of a model itself. None of a GGUF, which has all in it.
        base_gguf: the GGUF that a GGUF adapter is put on, for llama.cpp.
    """

    name: str
    kind: str
    base: Checkpoint | None
    base_gguf: Path | None = None

    @property
    def path(self) -> Path:
        return Path(os.path.expanduser(self.name))

    @property
    def precision(self) -> str:
        """What most of the decoder's matrices are stored in: F32, F16, BF16, Q8_0 …, or `quantised`."""
        if self.kind == "gguf":
            return _most(t.type.name for t in gguf_file.read_file(self.path).tensors.values() if len(t.shape) > 1)
        if self.base is None:
            return _most(t.type.name for t in gguf_file.read_file(self.path).tensors.values())
        quantised = "quantization" in self.base.config or (self.kind == "run" and lora.quantization_of(self.path))
        held = (t for file in weight_files(self.base) for name, t in tensors(file).items() if layer_place(name))
        return QUANTISED if quantised else _most(t.dtype for t in held if len(t.shape) > 1)

    def template(self) -> ChatTemplate | None:
        return ChatTemplate(self.base.folder) if self.base else None


def identify(name: str, base: str | None = None) -> Artefact:
    """What a name stands for.

    Args:
        base: the base of an adapter, where it names none or another is meant; of a GGUF adapter a GGUF, to ask
            llama.cpp, or a checkpoint.

    Raises:
        ModelError: nothing of this name, or nothing of these kinds.
    """
    path = Path(os.path.expanduser(name))
    base_gguf = Path(base) if base and base.endswith(".gguf") else None
    given = None if base_gguf else base
    if path.is_file():
        adapter = gguf_file.read_file(path).metadata.get("general.type") == "adapter"
        if adapter and not base:
            raise ModelError("an adapter alone", where=name, fix="give its base (--base), a GGUF or a checkpoint")
        checkpoint = find(given) if adapter and given else None
        return Artefact(name, "gguf-lora" if adapter else "gguf", checkpoint, base_gguf if adapter else None)
    if (path / peft_config.WEIGHTS).is_file():
        named = peft_config.read_config(path)
        source = given or named.get("base_model_name_or_path")
        if not source:
            raise ModelError("the adapter does not name its base", where=name, fix="give it (--base)")
        return Artefact(name, "peft", find(str(source), None if given else named.get("revision")))
    if (path / lora.CONFIG).is_file():
        return Artefact(name, "run", find(given) if given else find(*lora.base_of(path)))
    checkpoint = find(name)
    names = (tensor for file in weight_files(checkpoint) for tensor in tensors(file))
    mlx = any(tensor.startswith("language_model.") for tensor in names) or "quantization" in checkpoint.config
    return Artefact(name, "mlx" if mlx else "hf", checkpoint)


@dataclass(frozen=True)
class Opened:
    """A loaded artefact.

    Attributes:
        program: what computes it.
        logits: token ids to soft-capped logits [tokens, vocabulary], float32.
        greedy: token ids and a count to the most probable continuation.
    """

    program: str
    logits: Callable[[Sequence[int]], Logits]
    greedy: Callable[[Sequence[int], int], list[int]]


def open_artefact(artefact: Artefact, longest: int, *, ours: bool = False) -> Opened:
    """Load an artefact into its own program, or into ours.

    Args:
        longest: tokens of a sequence and its continuation, for which llama.cpp makes room.
        ours: ask no other program.

    Raises:
        ModelError: the program does not load it whole.

    Cost: the model in memory; in float32 with transformers and, on a CPU, with ours.
    """
    own = {"hf": _hf, "peft": _peft, "mlx": _mlx, "gguf": _gguf, "gguf-lora": _gguf_lora}.get(artefact.kind)
    opened = own(artefact, longest) if own and not ours else None
    return opened or Opened("mlx-gemma", *programs.ours(_text(artefact)))


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
    return Opened("mlx-lm", *programs.ours(programs.mlx_lm_model(artefact.base.folder))) if artefact.base else None


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


def _most(dtypes: Any) -> str:
    counted = Counter(dtypes).most_common(1)
    return str(counted[0][0]) if counted else QUANTISED
