"""From a name to a model that computes: `load("google/gemma-4-E2B-it", adapter="runs/python3")`.

The model is mlx-lm's own class (it matches transformers to 1e-4 in float32), text decoder only: the towers' tensors are
never read. mlx-lm's loader is strict about missing and unexpected tensors, drops the K/V tensors that Google ships for
K/V-shared layers, and reads quantised folders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_gemma import platform
from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import Checkpoint, find
from mlx_gemma.gemma4.template import ChatTemplate


@dataclass
class Gemma:
    """A loaded model and what belongs to it."""

    model: nn.Module
    template: ChatTemplate
    checkpoint: Checkpoint
    adapter: Path | None = None

    @property
    def text(self) -> Any:
        """mlx-lm's gemma4_text.Model, inside the multimodal class or alone: embeddings, layers, head, make_cache."""
        return getattr(self.model, "language_model", self.model)

    @cached_property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end an answer: <turn|>, and generation_config's list (config.json's misses <|tool_response>)."""
        import json

        ids = {self.template.end}
        for name in ("config.json", "generation_config.json"):
            path = self.checkpoint.folder / name
            if path.is_file():
                eos = json.loads(path.read_text(encoding="utf8")).get("eos_token_id", [])
                ids.update(eos if isinstance(eos, list) else [eos])
        return frozenset(int(i) for i in ids)

    @property
    def context(self) -> int:
        """The longest sequence the model was made for, in tokens."""
        return int(self.checkpoint.text_config.get("max_position_embeddings", 131072))


def load(name: str, *, adapter: str | Path | None = None, revision: str | None = None) -> Gemma:
    """Load a model: `nano`, a folder, a hub id, or a run folder (its base and its adapter).

    Args:
        name: what to load.
        adapter: a folder with adapters.safetensors and adapter_config.json, or a run folder.
        revision: hub branch, tag or commit.

    Raises:
        ModelError: no such model, not Gemma 4, tensors missing, unexpected or misshapen; or an adapter that does not
        fit.

    Cost: the text decoder's weights in memory once (9.3 GB for E2B in bf16), float32 on a CPU backend.
    """
    if adapter is None and lora.is_run(Path(name)):
        adapter = Path(name)
        name, revision = lora.base_of(adapter)
    checkpoint = find(name, revision)
    gemma = Gemma(load_model(checkpoint), ChatTemplate(checkpoint.folder), checkpoint)
    if adapter is not None:
        lora.load_adapter(gemma.model, Path(adapter))
        gemma.adapter = Path(adapter)
        mx.eval(gemma.model.parameters())
    gemma.model.eval()
    return gemma


def load_model(checkpoint: Checkpoint) -> nn.Module:
    """mlx-lm's model with the checkpoint's weights, evaluated, in the platform's compute dtype."""
    from mlx_lm import utils as mlx_lm

    try:
        model, _ = mlx_lm.load_model(checkpoint.folder, lazy=True, model_config=complete_config(checkpoint.config))
        dtype = platform.compute_dtype()
        if dtype is not None:
            model.set_dtype(dtype)
        mx.eval(model.parameters())
    except FileNotFoundError as e:
        raise ModelError(
            "no model*.safetensors here", where=checkpoint.folder, fix="download the weights in safetensors form"
        ) from e
    except (ValueError, RuntimeError, TypeError, KeyError) as e:
        what = shorten(str(e), 300)  # mlx names every missing tensor, hundreds where a shard is gone
        raise ModelError(
            f"weights and config.json do not fit: {what}", where=checkpoint.folder, fix="download the checkpoint again"
        ) from e
    return model


def complete_config(config: dict[str, Any]) -> dict[str, Any]:
    """What mlx-lm needs and a config saved by transformers leaves out.

    transformers 5.23 writes per_layer_config instead of global_head_dim (mlx-lm then assumes 512), and mlx-lm takes the
    multimodal class's vocabulary size from the top level (262,144 if absent).
    """
    text = dict(config.get("text_config", config))
    if "global_head_dim" not in text:
        sizes = {c["head_dim"] for c in text.get("per_layer_config", {}).values() if "head_dim" in c}
        if len(sizes) == 1:
            text["global_head_dim"] = sizes.pop()
    if "text_config" not in config:
        return text
    vocabulary = config.get("vocab_size", text.get("vocab_size"))
    return config | {"text_config": text} | ({"vocab_size": vocabulary} if vocabulary else {})
