"""What is trained, where it attaches, and the files mlx-lm reads.

An adapter folder holds `adapters.safetensors` (`….lora_a` [in, rank], `….lora_b` [rank, out] and DoRA's `….m` [out],
float32; of full training the layers' own tensors) and `adapter_config.json`, as `mlx_lm.generate --adapter-path` loads
them. Beside mlx-lm's keys the config names the base and what it was quantised to in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_gemma import run
from mlx_gemma.errors import ModelError, RecipeError
from mlx_gemma.gemma4 import places
from mlx_gemma.gemma4.adapters import LoRALinear
from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.gemma4.names import layer_place

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
PLACES = {
    **{f"{p}_proj": f"self_attn.{p}_proj" for p in "qkvo"},
    **{f"{p}_proj": f"mlp.{p}_proj" for p in ("gate", "up", "down")},
    "per_layer_input_gate": "per_layer_input_gate",
    "per_layer_projection": "per_layer_projection",
}


@dataclass(frozen=True)
class AdapterSpec:
    """What is trained, and where. `layers` counts from the last one; None means all.

    Kind "full" trains the decoder layers' own weights: rank, alpha, dropout, targets and rslora then mean nothing.
    """

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    layers: int | None = None
    kind: Literal["lora", "dora", "full"] = "lora"
    rslora: bool = False

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by: alpha / rank, or alpha / sqrt(rank) (arXiv 2312.03732)."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    def mlx_lm_config(self) -> dict[str, Any]:
        """adapter_config.json's part that mlx-lm reads, and `rslora`, which PEFT's form tells apart."""
        keys = sorted(PLACES[t] for t in self.targets)
        parameters = {"rank": self.rank, "scale": self.scale, "dropout": self.dropout, "keys": keys}
        config = {"fine_tune_type": self.kind, "num_layers": self.layers or -1}
        if self.kind == "full":
            return config
        return config | {"lora_parameters": parameters} | ({"rslora": True} if self.rslora else {})


@dataclass(frozen=True)
class Attached:
    """What is trained: modules by target (for full training by name), and parameters."""

    modules: dict[str, int]
    parameters: int


def attach(model: nn.Module, spec: AdapterSpec) -> Attached:
    """Freeze the model but for what the spec trains: float32 adapter layers on its targets, or whole decoder layers.

    Full training takes every parameter of the chosen layers, projections and norms, which become float32 and still
    compute in the model's dtype; but not `layer_scalar`, which is a buffer in transformers. Embeddings, head, final
    norm and per_layer_model_projection stay frozen: the loss takes the tied head's gradient in the forward pass, for a
    frozen head.

    Raises:
        RecipeError: a target that matches no module, more layers than the model has, or full training of a quantised
            base.
    """
    count = len(model.layers)
    if spec.layers is not None and spec.layers > count:
        raise RecipeError(
            f"adapter.layers is {spec.layers}, the model has {count}",
            where="adapter.layers",
            fix="give a smaller number or all",
        )
    model.freeze()
    if spec.kind == "full":
        places.unfreeze(model, spec.layers)
    else:
        keys = [PLACES[t] for t in spec.targets]
        places.wrap(model, spec.kind, spec.layers, keys, spec.rank, spec.scale, spec.dropout)
    parameters = adapter_parameters(model, spec)
    if {name for name, _ in tree_flatten(model.trainable_parameters())} != set(parameters):
        raise AssertionError("what is trainable is not what is saved")
    modules = Counter(name.split(".")[-2] for name in parameters if name.endswith((".lora_a", ".weight")))
    for target in spec.targets if spec.kind != "full" else ():
        if not modules[target]:
            own = count - int(model_args(model).num_kv_shared_layers)
            hint = (
                f"layers {own} and up share their K/V and have none" if target in ("k_proj", "v_proj") else "remove it"
            )
            raise RecipeError(
                f"target {target} matches no module in the chosen layers", where="adapter.targets", fix=hint
            )
    return Attached(dict(modules), sum(v.size for v in parameters.values()))


def set_dropout_key(layer: nn.Module, key: mx.array | None) -> None:
    """Give every adapter with dropout inside a decoder layer its own part of a key; the same key, the same masks.

    The key may be traced, by mx.compile or in a checkpointed function. None takes the keys away again.
    """
    adapters = [m for _, m in sorted(layer.named_modules()) if isinstance(m, LoRALinear) and m.dropout > 0]
    keys = mx.random.split(key, len(adapters)) if key is not None and adapters else [None] * len(adapters)
    for adapter, own in zip(adapters, keys, strict=True):
        adapter.set_key(own)


def model_args(model: nn.Module) -> Any:
    """mlx-lm's ModelArgs of the text decoder."""
    return getattr(model, "language_model", model).args


def adapter_parameters(model: nn.Module, spec: AdapterSpec | None = None) -> dict[str, mx.array]:
    """What a training with this spec changes and saves, by name; without one, the arrays of any adapter."""
    return places.layer_parameters(model, spec.layers) if spec and spec.kind == "full" else places.leaves(model)


def save_adapter(model: nn.Module, folder: Path, spec: AdapterSpec, base: dict[str, Any]) -> None:
    """Write both files, each whole or not at all.

    Args:
        base: `Gemma.base`: name, revision, and where known fingerprint and quantization; kept beside what mlx-lm needs.

    Raises:
        ModelError: the adapter is not finite, or cannot be written.
    """
    parameters = adapter_parameters(model, spec)
    if not all(mx.isfinite(v).all().item() for v in parameters.values()):
        raise ModelError("the adapter holds NaN or infinity: training diverged", where=folder, fix="lower train.lr")
    try:
        with run.whole(folder / WEIGHTS) as part:
            mx.save_safetensors(str(part), parameters, metadata={"format": "mlx"})
    except RuntimeError as e:  # mlx tells a full disk so
        raise ModelError(
            f"the adapter cannot be written: {e}", where=folder, fix="free space; a run goes on with --resume"
        ) from e
    recorded = {"model": base["name"]} | {k: v for k, v in base.items() if k != "name"}
    run.write_json(folder / CONFIG, spec.mlx_lm_config() | recorded)


def is_run(folder: Path) -> bool:
    """Whether a folder holds an adapter, a run folder being one."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json, checked to be mlx-lm's; fine_tune_type is always in it.

    Raises:
        ModelError: a file is missing, unreadable, or PEFT's.
    """
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise ModelError(f"no {name}, so this is no adapter", where=folder, fix="give a run folder that finished")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf8"))
        config["num_layers"] + 0
        if config.setdefault("fine_tune_type", "lora") not in ("lora", "dora", "full"):
            raise ValueError(f"fine_tune_type {config['fine_tune_type']!r}")
        if config["fine_tune_type"] != "full":
            config["lora_parameters"]["scale"] + 0.0, config["lora_parameters"]["rank"] + 0
        dict(config.get("quantization") or {})
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ModelError(f"unreadable {CONFIG}: {e!r}", where=folder, fix="give an adapter in mlx-lm's form") from e
    return dict(config)


def base_of(folder: Path) -> tuple[str, str | None]:
    """Name and revision of the base an adapter was trained on."""
    config = read_config(folder)
    if not config.get("model"):
        raise ModelError(f"{CONFIG} does not name its base", where=folder, fix="give the base and use --adapter")
    return str(config["model"]), config.get("revision")


def quantization_of(folder: Path) -> dict[str, str]:
    """What the base was quantised to in memory when this was trained: `load`'s keywords, empty if it was not."""
    recorded = read_config(folder).get("quantization") or {}
    return {k: str(recorded[k]) for k in ("quantize", "quantize_embeddings") if k in recorded}


def check_base(folder: Path, checkpoint: Checkpoint) -> None:
    """Whether an adapter was trained on this checkpoint, as far as configuration and tensor shapes tell.

    Raises:
        ModelError: it was trained on another one.
    """
    config = read_config(folder)
    if config.get("fingerprint", checkpoint.fingerprint) != checkpoint.fingerprint:
        fix = f"load it on its own base, {config.get('model', 'unknown')}"
        raise ModelError(f"trained on another base than {checkpoint.name}", where=folder, fix=fix)


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Attach an adapter, frozen, of the multimodal class or the text-only one, whichever the model is.

    Every tensor must find its place, and every place its tensor.

    Raises:
        ModelError: the adapter belongs to another model, or is damaged.
    """
    config = read_config(folder)
    if adapter_parameters(model):
        raise ModelError("the model has an adapter already", where=folder, fix="give the base and one --adapter")
    try:
        weights: dict[str, mx.array] = mx.load(str(folder / WEIGHTS))  # type: ignore[assignment]
    except RuntimeError as e:
        raise ModelError(f"unreadable {WEIGHTS}: {e}", where=folder, fix="train or copy the adapter again") from e
    layers = max(config["num_layers"], 0) or None
    prefix = "language_model.model." if "language_model" in model else "model."
    weights = {prefix + found if (found := layer_place(k)) else k: v for k, v in weights.items()}
    if config["fine_tune_type"] == "full":
        held, wanted = dict(tree_flatten(model.parameters())), set(places.layer_parameters(model, layers))
    else:
        p = {"keys": None, "dropout": 0.0} | config["lora_parameters"]
        try:
            places.wrap(model, config["fine_tune_type"], layers, p["keys"], p["rank"], p["scale"], p["dropout"])
        except (ValueError, TypeError) as e:
            fix = "train or copy it again"
            raise ModelError(f"{CONFIG} does not fit this model: {e!r}", where=folder, fix=fix) from e
        held = places.leaves(model)
        wanted = set(held)
    wrong = wanted - set(weights) | {k for k, v in weights.items() if k not in held or v.shape != held[k].shape}
    if wrong:
        example = sorted(wrong)[0]
        raise ModelError(
            f"{len(wrong)} adapter tensors do not match this model, for example {example}",
            where=folder,
            fix=f"load it on its own base, {config.get('model', 'unknown')}",
        )
    model.load_weights([(k, v.astype(held[k].dtype)) for k, v in weights.items()], strict=False)
    model.freeze()
