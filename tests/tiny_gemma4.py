"""Small random Gemma 4 checkpoints and adapters.

A checkpoint has every structural feature of the real ones (per-layer embeddings, K/V-shared upper layers, sliding and
full attention, partial rotary, soft cap, towers) at about 0.5 M parameters, and nano's tokenizer and template, so that
`load` takes it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import NANO
from mlx_gemma.gemma4.load import Gemma, load

SIDE_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PATTERNS = {  # the last layers with their own K/V are [sliding, full], as in E2B and E4B
    "e2b": {"layers": "ssfsssf", "num_kv_shared_layers": 4, "num_key_value_heads": 1, "use_double_wide_mlp": True},
    "e4b": {"layers": "sfsfsf", "num_kv_shared_layers": 2, "num_key_value_heads": 2, "use_double_wide_mlp": False},
    # Gemma's own vocabulary: 117 MB in float32
    "vocabulary": {
        **{"layers": "ssfsssf", "num_kv_shared_layers": 4, "num_key_value_heads": 1, "use_double_wide_mlp": True},
        **{"vocab_size": 262_144, "vocab_size_per_layer_input": 262_144},
    },
    # widths that are multiples of 64, as every quantisation wants them
    "wide": {
        **{"layers": "ssfsssf", "num_kv_shared_layers": 4, "num_key_value_heads": 1, "use_double_wide_mlp": True},
        **{"hidden_size": 128, "hidden_size_per_layer_input": 64, "intermediate_size": 512},
    },
}


def text_config(kind: str) -> Any:
    """A small Gemma4TextConfig of E2B's or E4B's kind; the sliding window is 16."""
    from transformers import Gemma4TextConfig

    shape = dict(PATTERNS[kind])
    types = [{"s": "sliding_attention", "f": "full_attention"}[c] for c in str(shape.pop("layers"))]
    common: dict[str, Any] = {
        "vocab_size": 3072,
        "vocab_size_per_layer_input": 3072,
        "hidden_size": 64,
        "hidden_size_per_layer_input": 8,
        "intermediate_size": 96,
        "num_hidden_layers": len(types),
        "layer_types": types,
        "num_attention_heads": 4,
        "head_dim": 16,
        "global_head_dim": 32,
        "sliding_window": 16,
        "max_position_embeddings": 1024,
        "final_logit_softcapping": 30.0,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
        },
    }
    return Gemma4TextConfig(**common | shape)


def make_checkpoint(folder: Path, kind: str, *, towers: bool, dtype: str = "float32", **save: Any) -> Path:
    """Write a random checkpoint as transformers saves it, with nano's tokenizer and template.

    Args:
        towers: Gemma4ForConditionalGeneration with small vision and audio towers; otherwise Gemma4ForCausalLM.
        save: for save_pretrained (max_shard_size).
    """
    from transformers import (
        Gemma4AudioConfig,
        Gemma4Config,
        Gemma4ForCausalLM,
        Gemma4ForConditionalGeneration,
        Gemma4VisionConfig,
    )

    torch.manual_seed(0)
    if towers:
        small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "use_clipped_linears": True}
        vision = Gemma4VisionConfig(
            **small, intermediate_size=48, num_key_value_heads=2, head_dim=16, position_embedding_size=64
        )
        audio = Gemma4AudioConfig(**small, subsampling_conv_channels=[8, 4], output_proj_dims=32)
        model = Gemma4ForConditionalGeneration(
            Gemma4Config(text_config=text_config(kind), vision_config=vision, audio_config=audio)
        )
    else:
        model = Gemma4ForCausalLM(text_config(kind))
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("layer_scalar"):
                value.uniform_(0.3, 1.0)
            elif name.endswith("q_norm.weight"):  # the attention scale is 1, so this sets the softmax's temperature
                value.copy_(value.shape[0] ** -0.5 * (1 + 0.3 * torch.randn(value.shape)))
            elif "norm" in name and value.ndim == 1:
                value.copy_(1 + 0.3 * torch.randn(value.shape))
            elif value.ndim >= 2 and "vision" not in name and "audio" not in name:
                value.normal_(std=value.shape[-1] ** -0.5)
    model.tie_weights()
    model.to(getattr(torch, dtype)).save_pretrained(folder, **save)
    for name in SIDE_FILES:
        shutil.copyfile(NANO / name, folder / name)
    return folder


def random_adapter(
    base: str | Path,
    folder: Path,
    *,
    targets: tuple[str, ...] = LINEARS,
    size: float = 0.05,
    kind: Any = "lora",
    **quantization: str,
) -> Gemma:
    """Save an adapter with random, non-zero lora_b; the model with it attached comes back.

    Args:
        size: standard deviation of lora_b, or the relative change of m and of fully trained weights. At 0.05 the
            adapter moves a random model's logits by about their own spread.
        quantization: for `load`; recorded with the adapter.
    """
    gemma = load(str(base), **quantization)
    spec = lora.AdapterSpec(rank=4, alpha=8, dropout=0.0, targets=targets, kind=kind)
    lora.attach(gemma.model, spec)
    rng = np.random.default_rng(0)
    draw = []
    for name, value in lora.adapter_parameters(gemma.model, spec).items():
        noise = rng.normal(size=value.shape).astype(np.float32)
        if name.endswith("lora_b"):
            drawn = mx.array(size * noise)
        elif name.endswith("lora_a"):
            drawn = mx.array(value.shape[0] ** -0.5 * noise)
        else:
            drawn = value * (1 + size * mx.array(noise))
        draw.append((name, drawn))
    gemma.model.load_weights(draw, strict=False)
    folder.mkdir(parents=True, exist_ok=True)
    recorded = {"quantization": gemma.quantization} if gemma.quantization else {}
    lora.save_adapter(gemma.model, folder, spec, {"name": str(base), "revision": None} | recorded)
    gemma.model.eval()
    return gemma


def random_tokens(length: int) -> list[int]:
    return [2, *np.random.default_rng(length).integers(24, 3072, length - 1).tolist()]


def add_dead_kv(folder: Path) -> None:
    def add(weights: dict[str, torch.Tensor]) -> None:
        for layer in (3, 4, 5, 6):
            width = 32 if layer == 6 else 16
            stem = f"model.language_model.layers.{layer}.self_attn"
            weights |= {f"{stem}.{p}_proj.weight": torch.randn(width, 64) for p in "kv"}
            weights[f"{stem}.k_norm.weight"] = torch.ones(width)

    edit_weights(folder, add)


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rename_tensors(adapter: Path, change: Callable[[str], str]) -> None:
    """Rewrite an adapter with other tensor names."""
    found: dict[str, mx.array] = dict(mx.load(str(adapter / lora.WEIGHTS)))
    mx.save_safetensors(str(adapter / lora.WEIGHTS), {change(k): v for k, v in found.items()})
