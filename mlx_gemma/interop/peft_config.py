"""PEFT's adapter_config.json: whether what it says can be held, and its ranks and scales.

A key that is neither known to leave the function alone nor understood is refused, so that a variant of LoRA that is
newer than this file is not taken for a plain one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.checkpoint import read_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
OWN_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # these begin with another base than the checkpoint
UNDERSTOOD = {
    *("peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "use_rslora", "use_dora", "lora_dropout"),
    *("rank_pattern", "alpha_pattern", "bias", "init_lora_weights"),
    # which modules are adapted is told by the tensors
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    # of training, or of other kinds of module
    *("task_type", "inference_mode", "auto_mapping", "peft_version", "fan_in_fan_out", "megatron_core"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config"),
}


@dataclass(frozen=True)
class Scaling:
    """What an adapter_config.json says in numbers; a module's own rank and alpha may differ by pattern."""

    r: int
    alpha: float
    dropout: float
    rslora: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    def of(self, module: str) -> tuple[int, float]:
        """Rank and alpha of a module, by its full name in transformers' class.

        The first pattern that matches the name, or its end after a full stop, decides (PEFT's get_pattern_key).
        """
        r = next((v for k, v in self.ranks.items() if re.match(rf"(.*\.)?({k})$", module)), self.r)
        alpha = next((v for k, v in self.alphas.items() if re.match(rf"(.*\.)?({k})$", module)), self.alpha)
        return r, alpha

    def scale(self, module: str) -> float:
        r, alpha = self.of(module)
        return alpha / (math.sqrt(r) if self.rslora else r)


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json, checked to be of a LoRA or DoRA that can be held.

    Raises:
        ModelError: a file is missing, or not PEFT's; or something that no LoRA on the decoder's linear
            modules can tell: another peft_type, modules_to_save, biases, added tokens, replicated layers, ...
    """
    if not (folder / CONFIG).is_file():
        raise ModelError(f"no {CONFIG}, so this is no adapter", where=folder, fix="give PEFT's folder")
    config = read_json(folder / CONFIG)
    if "peft_type" not in config and "fine_tune_type" in config:
        raise ModelError("an adapter in mlx-lm's form", where=folder, fix="import it with --from mlx-lm")
    if config.get("peft_type") != "LORA":
        what = f"peft_type {config.get('peft_type')!r} is neither LoRA nor DoRA"
        raise ModelError(what, where=folder, fix="merge it with PEFT's merge_and_unload and use the merged model")
    fix = "train without it, or merge it with PEFT's merge_and_unload and use the merged model"
    lost = sorted(key for key, value in config.items() if value and key not in UNDERSTOOD)
    if lost:
        raise ModelError(f"{lost[0]} is set, and cannot be held here", where=folder / CONFIG, fix=fix)
    if config.get("bias", "none") != "none":
        raise ModelError(f"bias {config['bias']!r} cannot be held here", where=folder / CONFIG, fix=fix)
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(OWN_BASE):
        what = f"init_lora_weights {start!r}: it belongs to a base whose weights were changed when training began"
        fix = "save it with PEFT's path_initial_model_for_weight_conversion, which makes it an adapter of the original"
        raise ModelError(what, where=folder / CONFIG, fix=fix)
    if not (folder / WEIGHTS).is_file():
        # whether the hub has the pickle is not known: it is not downloaded
        what = f"no {WEIGHTS} (an adapter_model.bin is a pickle, which may run code, and is never read)"
        fix = "copy the adapter again, or save it again with PEFT: save_pretrained(…, safe_serialization=True)"
        raise ModelError(what, where=folder, fix=fix)
    return config


def read_scaling(folder: Path, config: dict[str, Any]) -> Scaling:
    """PEFT's defaults where a key is missing.

    Raises:
        ModelError: a value of the wrong kind.
    """
    try:
        ranks = {str(k): int(v) for k, v in dict(config.get("rank_pattern") or {}).items()}
        alphas = {str(k): float(v) for k, v in dict(config.get("alpha_pattern") or {}).items()}
        for pattern in (*ranks, *alphas):
            re.compile(rf"(.*\.)?({pattern})$")
        r, alpha, dropout = (
            int(config.get("r", 8)),
            float(config.get("lora_alpha", 8)),
            config.get("lora_dropout") or 0.0,
        )
        if (
            min((r, *ranks.values())) < 1
            or not all(map(math.isfinite, (alpha, *alphas.values())))
            or not 0 <= dropout < 1
        ):
            raise ValueError("r is below 1, lora_alpha no number, or lora_dropout no probability")
    except (TypeError, ValueError, re.error, OverflowError) as e:
        raise ModelError(f"unreadable {CONFIG}: {e}", where=folder, fix="copy the adapter again") from e
    return Scaling(r, alpha, float(dropout), bool(config.get("use_rslora")), ranks, alphas)
