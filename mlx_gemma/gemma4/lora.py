"""LoRA adapters on the text decoder: where they attach, and the files mlx-lm reads.

An adapter folder holds `adapters.safetensors` (`….lora_a` [in, rank] and `….lora_b` [rank, out], float32) and
`adapter_config.json`, as `mlx_lm.generate --adapter-path` loads them. Scale is alpha / rank, as PEFT has it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_gemma import run
from mlx_gemma.errors import ModelError, RecipeError

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
PLACES = {
    **{f"{p}_proj": f"self_attn.{p}_proj" for p in "qkvo"},
    **{f"{p}_proj": f"mlp.{p}_proj" for p in ("gate", "up", "down")},
    "per_layer_input_gate": "per_layer_input_gate",
    "per_layer_projection": "per_layer_projection",
}
LEAVES = ("lora_a", "lora_b", "m")


@dataclass(frozen=True)
class AdapterSpec:
    """What is attached, and where. `layers` counts from the last one; None means all."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    layers: int | None = None

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def mlx_lm_config(self) -> dict[str, Any]:
        """adapter_config.json's part that mlx-lm reads."""
        keys = sorted(PLACES[t] for t in self.targets)
        parameters = {"rank": self.rank, "scale": self.scale, "dropout": self.dropout, "keys": keys}
        return {"fine_tune_type": "lora", "num_layers": self.layers or -1, "lora_parameters": parameters}


@dataclass(frozen=True)
class Attached:
    """What an adapter matched: modules by target, and trainable parameters."""

    modules: dict[str, int]
    parameters: int


def attach(model: nn.Module, spec: AdapterSpec) -> Attached:
    """Freeze the model and put trainable LoRA layers (float32) on its targets.

    Raises:
        RecipeError: a target that matches no module, or more layers than the model has.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    count = len(model.layers)
    if spec.layers is not None and spec.layers > count:
        raise RecipeError(
            f"adapter.layers is {spec.layers}, the model has {count}",
            where="adapter.layers",
            fix="give a smaller number or all",
        )
    model.freeze()
    config = spec.mlx_lm_config()
    linear_to_lora_layers(model, config["num_layers"], config["lora_parameters"])
    trainable = adapter_parameters(model)
    everything = tree_flatten(model.trainable_parameters())
    if len(everything) != len(trainable):
        raise AssertionError("parameters other than the adapter's are trainable")
    modules = Counter(name.split(".")[-2] for name in trainable if name.endswith("lora_a"))
    for target in spec.targets:
        if not modules[target]:
            own = count - int(model_args(model).num_kv_shared_layers)
            hint = (
                f"layers {own} and up share their K/V and have none" if target in ("k_proj", "v_proj") else "remove it"
            )
            raise RecipeError(
                f"target {target} matches no module in the chosen layers", where="adapter.targets", fix=hint
            )
    return Attached(dict(modules), sum(v.size for v in trainable.values()))


def model_args(model: nn.Module) -> Any:
    """mlx-lm's ModelArgs of the text decoder."""
    return getattr(model, "language_model", model).args


def adapter_parameters(model: nn.Module) -> dict[str, mx.array]:
    """The adapter's arrays by name, whatever else is trainable."""
    return {k: v for k, v in tree_flatten(model.parameters()) if k.rsplit(".", 1)[-1] in LEAVES}


def save_adapter(model: nn.Module, folder: Path, spec: AdapterSpec, base: dict[str, Any]) -> None:
    """Write both files, each whole or not at all. `base` (name, revision) is kept beside what mlx-lm needs.

    Raises:
        ModelError: the adapter is not finite, or cannot be written.
    """
    parameters = adapter_parameters(model)
    if not all(mx.isfinite(v).all().item() for v in parameters.values()):
        raise ModelError("the adapter holds NaN or infinity: training diverged", where=folder, fix="lower train.lr")
    try:
        with run.whole(folder / WEIGHTS) as part:
            mx.save_safetensors(str(part), parameters, metadata={"format": "mlx"})
    except RuntimeError as e:  # mlx tells a full disk so
        raise ModelError(f"the adapter cannot be written: {e}", where=folder, fix="free space and train again") from e
    run.write_json(folder / CONFIG, spec.mlx_lm_config() | {"model": base["name"], "revision": base["revision"]})


def is_run(folder: Path) -> bool:
    """Whether a folder holds an adapter, a run folder being one."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json, checked to be mlx-lm's.

    Raises:
        ModelError: a file is missing, unreadable, or PEFT's.
    """
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise ModelError(f"no {name}, so this is no adapter", where=folder, fix="give a run folder that finished")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf8"))
        config["num_layers"], config["lora_parameters"]["scale"], config["lora_parameters"]["rank"]
    except (ValueError, KeyError, TypeError) as e:
        raise ModelError(f"unreadable {CONFIG}: {e!r}", where=folder, fix="give an adapter in mlx-lm's form") from e
    return dict(config)


def base_of(folder: Path) -> tuple[str, str | None]:
    """Name and revision of the base an adapter was trained on."""
    config = read_config(folder)
    if not config.get("model"):
        raise ModelError(f"{CONFIG} does not name its base", where=folder, fix="give the base and use --adapter")
    return str(config["model"]), config.get("revision")


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Attach an adapter, frozen. Every tensor must find its place, and every place its tensor.

    Raises:
        ModelError: the adapter belongs to another model, or is damaged.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    config = read_config(folder)
    if adapter_parameters(model):
        raise ModelError("the model has an adapter already", where=folder, fix="give the base and one --adapter")
    try:
        weights: dict[str, mx.array] = mx.load(str(folder / WEIGHTS))  # type: ignore[assignment]
    except RuntimeError as e:
        raise ModelError(f"unreadable {WEIGHTS}: {e}", where=folder, fix="train or copy the adapter again") from e
    parameters = {"dropout": 0.0} | config["lora_parameters"]
    try:
        linear_to_lora_layers(model, config["num_layers"], parameters, use_dora=config.get("fine_tune_type") == "dora")
    except (ValueError, TypeError, KeyError) as e:
        raise ModelError(f"{CONFIG} does not fit this model: {e!r}", where=folder, fix="train or copy it again") from e
    places = adapter_parameters(model)
    wrong = set(weights) ^ set(places) or {k for k, v in weights.items() if v.shape != places[k].shape}
    if wrong:
        example = sorted(wrong)[0]
        raise ModelError(
            f"{len(wrong)} adapter tensors do not match this model, for example {example}",
            where=folder,
            fix=f"load it on its own base, {config.get('model', 'unknown')}",
        )
    model.load_weights(list(weights.items()), strict=False)
    model.freeze()
