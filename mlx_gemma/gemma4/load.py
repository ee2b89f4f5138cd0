"""From a name to a model that computes: `load("google/gemma-4-E2B-it", adapter="runs/python3")`.

The model is mlx-lm's own class (it matches transformers to 1e-4 in float32), text decoder only: the towers' tensors are
never read. mlx-lm's loader is strict about missing and unexpected tensors, drops the K/V tensors that Google ships for
K/V-shared layers, and reads quantised folders.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_gemma import platform
from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import Checkpoint, find, read_json
from mlx_gemma.gemma4.quantise import bytes_after, quantise
from mlx_gemma.gemma4.template import ChatTemplate


@dataclass
class Gemma:
    """A loaded model and what belongs to it.

    `stop_tokens` end an answer; `context` is the longest sequence the model was made for, in tokens; `quantization` is
    what was quantised in memory, as `load`'s keywords, empty if nothing was.
    """

    model: nn.Module
    template: ChatTemplate
    checkpoint: Checkpoint
    stop_tokens: frozenset[int]
    context: int
    adapter: Path | None = None
    quantization: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> dict[str, Any]:
        """What an adapter records of the model it is trained on, for `lora.save_adapter`."""
        known = {"name": self.checkpoint.name, "revision": self.checkpoint.revision}
        quantization = {"quantization": self.quantization} if self.quantization else {}
        return known | {"fingerprint": self.checkpoint.fingerprint} | quantization

    @property
    def text(self) -> Any:
        """mlx-lm's gemma4_text.Model, inside the multimodal class or alone: embeddings, layers, head, make_cache."""
        return getattr(self.model, "language_model", self.model)


def load(
    name: str,
    *,
    adapter: str | Path | None = None,
    revision: str | None = None,
    quantize: str | None = None,
    quantize_embeddings: str | None = None,
) -> Gemma:
    """Load a model: `nano`, a folder, a hub id, or a run folder (its base and its adapter).

    Args:
        name: what to load.
        adapter: a folder with adapters.safetensors and adapter_config.json, or a run folder.
        revision: hub branch, tag or commit.
        quantize: the layers' projections in fewer bits, a key of `quantise.MODES` or none. Not given: what the adapter
            was trained on, so that it meets the function it was trained to change.
        quantize_embeddings: the same for the embeddings.

    Raises:
        ModelError: no such model, not Gemma 4, tensors missing, unexpected or misshapen, or not to be quantised so; or
            an adapter that does not fit, or was trained on another base.

    Cost: the text decoder's weights in memory once (9.3 GB for E2B in bf16), float32 on a CPU backend; see `quantise`.
    """
    folder = os.path.expanduser(name)
    if adapter is None and os.path.isdir(folder) and lora.is_run(Path(folder)):
        adapter = Path(folder)
        name, revision = lora.base_of(adapter)
    checkpoint = find(name, revision)
    stop_tokens, context = _stop_tokens(checkpoint), _context(checkpoint)  # before the weights, which take a while
    wanted: dict[str, str] = {}
    if adapter is not None:
        lora.check_base(Path(adapter), checkpoint)
        wanted = lora.quantization_of(Path(adapter))
    given = {"quantize": quantize, "quantize_embeddings": quantize_embeddings}
    wanted = {k: v for k, v in (wanted | {k: v for k, v in given.items() if v is not None}).items() if v != "none"}
    model, template = load_model(checkpoint, **wanted), ChatTemplate(checkpoint.folder)
    gemma = Gemma(model, template, checkpoint, stop_tokens | {template.end}, context, quantization=wanted)
    if adapter is not None:
        lora.load_adapter(gemma.model, Path(adapter))
        gemma.adapter = Path(adapter)
        mx.eval(gemma.model.parameters())
    gemma.model.eval()
    return gemma


def _stop_tokens(checkpoint: Checkpoint) -> frozenset[int]:
    """The eos tokens of both files: config.json's misses <|tool_response>."""
    ids: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        path = checkpoint.folder / name
        eos = read_json(path).get("eos_token_id") if path.is_file() else None
        for token in eos if isinstance(eos, list) else [] if eos is None else [eos]:
            ids.add(_natural(token, "eos_token_id", path))
    return frozenset(ids)


def _context(checkpoint: Checkpoint) -> int:
    key = "max_position_embeddings"
    return _natural(checkpoint.text_config.get(key, 131072), key, checkpoint.folder / "config.json")


def _natural(value: Any, key: str, path: Path) -> int:
    if type(value) is not int or value < 0:
        raise ModelError(f"{key} holds {value!r}, no token count or id", where=path, fix="download the file again")
    return value


def load_model(checkpoint: Checkpoint, quantize: str = "none", quantize_embeddings: str = "none") -> nn.Module:
    """mlx-lm's model with the checkpoint's weights, evaluated, in the platform's compute dtype, quantised if asked to.

    Raises:
        ModelError: the configuration or the weights make no model, or none that can be quantised so.
    """
    from mlx_lm import utils as mlx_lm

    try:
        model, _ = mlx_lm.load_model(checkpoint.folder, lazy=True, model_config=complete_config(checkpoint.config))
        dtype = platform.compute_dtype()
        if dtype is not None:
            model.set_dtype(dtype)
        # A token put through and never evaluated costs nothing, and meets every wrong type and shape of the config.
        model(mx.zeros((1, 1), mx.int32), cache=model.make_cache())
        _check_memory(model, quantize, quantize_embeddings, checkpoint.name)
        quantise(model, quantize, quantize_embeddings, where=checkpoint.name)
        mx.eval(model.parameters())
    except FileNotFoundError as e:
        raise ModelError(
            "no model*.safetensors here", where=checkpoint.folder, fix="download the weights in safetensors form"
        ) from e
    except (ValueError, RuntimeError, TypeError, LookupError, AttributeError, ArithmeticError) as e:
        # mlx-lm meets a wrong config as it falls over it. mlx names every missing tensor, hundreds if a shard is gone.
        what = shorten(f"{type(e).__name__}: {e}", 300)
        raise ModelError(
            f"weights and config.json do not fit: {what}", where=checkpoint.folder, fix="download the checkpoint again"
        ) from e
    return model


def _check_memory(model: nn.Module, quantize: str, quantize_embeddings: str, name: str) -> None:
    """Before a weight is read: a machine that swaps is of no use, and one that runs out says nothing."""
    needed, there = bytes_after(model, quantize, quantize_embeddings), platform.memory_bytes()
    if needed > there:
        what = f"its weights take {needed / 1e9:.1f} GB, and MLX may use {there / 1e9:.1f} GB here"
        unset = [k for k, v in (("quantize_embeddings", quantize_embeddings), ("quantize", quantize)) if v == "none"]
        levers = " and ".join(f"model.{key}=affine4" for key in unset)
        fix = f"train with {levers}" if levers else "take a smaller model"
        raise ModelError(what, where=name, fix=fix)


def complete_config(config: dict[str, Any]) -> dict[str, Any]:
    """What mlx-lm needs and a config saved by transformers leaves out.

    transformers 5.23 writes per_layer_config instead of global_head_dim (mlx-lm then assumes 512), and mlx-lm takes the
    multimodal class's vocabulary size from the top level (262,144 if absent).
    """
    text = dict(config.get("text_config", config))
    if "global_head_dim" not in text:
        sizes = {c["head_dim"] for c in (text.get("per_layer_config") or {}).values() if "head_dim" in c}
        if len(sizes) == 1:
            text["global_head_dim"] = sizes.pop()
    if "text_config" not in config:
        return text
    vocabulary = config.get("vocab_size", text.get("vocab_size"))
    return config | {"text_config": text} | ({"vocab_size": vocabulary} if vocabulary else {})
