"""Adapters as other programs make them: PEFT on transformers' class, mlx-lm on its own."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from logits import reference_model
from mlx.utils import tree_flatten
from safetensors.torch import load_file, save_file

DECODER = r".*(?:model|language_model)\.layers\.\d+\.(?:self_attn|mlp)\.(?:q|k|v|o|gate|up|down)_proj"


def peft_adapter(base: Path, folder: Path, *, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    """Save a random adapter by PEFT itself on transformers' class of `base`; PEFT's model comes back.

    Args:
        dtype: that it is saved in.
        config: for LoraConfig; without targets, every projection of the decoder.
    """
    from peft import LoraConfig, get_peft_model

    given = {"r": 4, "lora_alpha": 6, "target_modules": DECODER, "task_type": "CAUSAL_LM"} | config
    model = get_peft_model(reference_model(base), LoraConfig(**given)).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_A" in name:
                value.normal_(std=value.shape[1] ** -0.5)
            elif "lora_B" in name:
                value.normal_(std=0.05)
            elif "lora_magnitude" in name:
                value.mul_(1 + 0.05 * torch.randn(value.shape))
            if "lora_" in name:
                value.copy_(value.to(dtype))
    model.save_pretrained(folder)
    if dtype != torch.float32:
        edit_tensors(folder, lambda tensors: {k: v.to(dtype) for k, v in tensors.items()})
    return model


def peft_logits(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def load_peft(base: Path, folder: Path) -> Any:
    """PEFT's model of a base and an adapter; a warning is an error."""
    from peft import PeftModel

    model = reference_model(base)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT's own; it reads what transformers deprecates
        return PeftModel.from_pretrained(model, str(folder)).eval()


def adapted_modules(model: Any) -> set[str]:
    """Names of the modules that PEFT put a layer of its own on."""
    return {name.removeprefix("base_model.model.").removesuffix(".lora_A") for name, _ in model.named_modules()
            if name.endswith(".lora_A")}  # fmt: skip


def edit_tensors(folder: Path, change: Any) -> None:
    """Rewrite adapter_model.safetensors with what `change` makes of its tensors."""
    file = folder / "adapter_model.safetensors"
    save_file({k: v.contiguous() for k, v in change(load_file(file)).items()}, file, metadata={"format": "pt"})


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def mlx_lm_adapter(base: Path, folder: Path, *, kind: str = "lora", layers: int = -1, **parameters: Any) -> None:
    """Save a random adapter as mlx_lm.lora does: its own layers, save_config and trainable parameters."""
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model, save_config

    from mlx_gemma.gemma4.load import complete_config

    model, _ = load_model(base, model_config=complete_config(json.loads((base / "config.json").read_text())))
    model.freeze()
    given = {"rank": 4, "scale": 3.0, "dropout": 0.0} | parameters
    if kind == "full":
        for layer in model.layers[-max(layers, 0) :]:
            layer.unfreeze()
    else:
        linear_to_lora_layers(model, layers, given, use_dora=kind == "dora")
    rng = np.random.default_rng(0)
    weights = {}
    for name, value in tree_flatten(model.trainable_parameters()):
        noise = mx.array(rng.normal(size=value.shape).astype(np.float32))
        if name.endswith("lora_b"):
            weights[name] = 0.05 * noise
        elif name.endswith("layer_scalar"):
            weights[name] = value
        else:
            weights[name] = value * (1 + 0.05 * noise)
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {"model": str(base), "fine_tune_type": kind, "num_layers": layers, "lora_parameters": given}
    save_config(config | {"data": "data", "seed": 0, "mask_prompt": True}, folder / "adapter_config.json")
