"""Whatever holds a model or an adapter, to be compared. `opening.open_artefact` loads it.

    kind        what it is                                   its own program
    hf          a Hugging Face folder, a hub id, nano        transformers
    mlx         a folder in mlx-lm's names, or quantised     mlx-lm
    run         a run folder, an adapter in mlx-lm's form    ours
    peft        an adapter in PEFT's form                    transformers + PEFT
    gguf        a model in one GGUF file                     llama.cpp
    gguf-lora   an adapter in a GGUF file                    llama.cpp, on a GGUF of its base

An unquantised folder of the text-only class is `hf`, whoever wrote it: its names are transformers' and mlx-lm's alike.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import Checkpoint, find
from mlx_gemma.gemma4.headers import tensors
from mlx_gemma.gemma4.template import ChatTemplate
from mlx_gemma.interop import gguf_file, peft_config, precision
from mlx_gemma.interop.stream import weight_files

KINDS = ("hf", "mlx", "run", "peft", "gguf", "gguf-lora")


@dataclass(frozen=True)
class Artefact:
    """A file, folder or hub id, and what it needs. Nothing is loaded.

    Attributes:
        name: as the user gave it.
        kind: of KINDS.
        path: the file, or the folder on this machine.
        base: the checkpoint that an adapter is for; of a model itself. None of a GGUF, which has all in it.
        base_gguf: the GGUF that a GGUF adapter is put on, for llama.cpp.
    """

    name: str
    kind: str
    path: Path
    base: Checkpoint | None
    base_gguf: Path | None = None

    @property
    def base_precision(self) -> str:
        """What most of the model's matrices are computed from; of a run what the base is quantised to in memory."""
        modes = lora.quantization_of(self.path) if self.kind == "run" else {}
        if quantised := [mode for mode in modes.values() if mode != "none"]:
            return precision.coarsest(quantised)
        if self.base is not None:
            return precision.of_checkpoint(self.base)
        return precision.of_gguf(self.base_gguf or self.path)

    @property
    def adapter_precision(self) -> str | None:
        """What an adapter's own matrices are stored in; None of a model."""
        if self.kind == "gguf-lora":
            return precision.of_gguf(self.path)
        file = {"run": lora.WEIGHTS, "peft": peft_config.WEIGHTS}.get(self.kind)
        return precision.of_safetensors(self.path / file) if file else None

    @property
    def precision(self) -> str:
        """The coarser of both: F32, F16, BF16, Q8_0, affine4 …"""
        return precision.coarsest([self.base_precision, self.adapter_precision or "F32"])

    @property
    def unrounded(self) -> Path | None:
        """The checkpoint whose weights it computes with as they stand; None of a GGUF, and where they are quantised."""
        if self.base is None or precision.is_quantised(self.base_precision):
            return None
        return self.base.folder.resolve()

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
    file = Path(os.path.expanduser(name))
    base_gguf = Path(os.path.expanduser(base)) if base and base.endswith(".gguf") else None
    given = None if base_gguf else base
    if os.path.isfile(file):  # os.path, as Path.is_file raises where a name is too long for a file
        adapter = gguf_file.read_file(file).metadata.get("general.type") == "adapter"
        if adapter and not base:
            raise ModelError("an adapter alone", where=name, fix="give its base (--base), a GGUF or a checkpoint")
        checkpoint = find(given) if adapter and given else None
        return Artefact(name, "gguf-lora" if adapter else "gguf", file, checkpoint, base_gguf if adapter else None)
    checkpoint = find(name)
    path = checkpoint.folder
    if (path / peft_config.WEIGHTS).is_file():
        named = peft_config.read_config(path)
        source = given or named.get("base_model_name_or_path")
        if not source:
            raise ModelError("the adapter does not name its base", where=name, fix="give it (--base)")
        return Artefact(name, "peft", path, find(str(source), None if given else named.get("revision")))
    if (path / lora.CONFIG).is_file():
        return Artefact(name, "run", path, find(given) if given else find(*lora.base_of(path)))
    names = (tensor for file in weight_files(checkpoint) for tensor in tensors(file))
    mlx = any(tensor.startswith("language_model.") for tensor in names) or "quantization" in checkpoint.config
    return Artefact(name, "mlx" if mlx else "hf", path, checkpoint)
