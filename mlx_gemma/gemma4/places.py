"""Which of a model's parameters are trained: adapters put on linear layers by name, or whole decoder layers."""

from __future__ import annotations

from collections.abc import Collection

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlx_gemma.errors import RecipeError
from mlx_gemma.gemma4.adapters import DoRALinear, LoRALinear, make_master
from mlx_gemma.gemma4.names import layer_place
from mlx_gemma.gemma4.nf4 import NF4Linear

QUANTISED = (nn.QuantizedLinear, NF4Linear)
BUFFER = "layer_scalar"  # a parameter in mlx-lm, a buffer in transformers, which does not train it


def _chosen(model: nn.Module, layers: int | None) -> list[nn.Module]:
    return list(model.layers[-layers:] if layers else model.layers)


def wrap(
    model: nn.Module,
    kind: str,
    layers: int | None,
    keys: Collection[str] | None,
    rank: int,
    scale: float,
    dropout: float,
) -> None:
    """Put adapters on the modules of these names (`self_attn.q_proj`) in the last so many layers; all if None.

    Without names every linear module of a layer gets one; a full name (`model.layers.3.mlp.up_proj`, of either class)
    means that layer's alone: both as mlx-lm has it.
    """
    cls = {"lora": LoRALinear, "dora": DoRALinear}[kind]
    wanted = None if keys is None else {layer_place(key) or key for key in keys}
    chosen = _chosen(model, layers)
    for number, layer in enumerate(chosen, len(model.layers) - len(chosen)):
        linear = [(k, m) for k, m in layer.named_modules() if isinstance(m, (nn.Linear, *QUANTISED))]
        here = [(k, m) for k, m in sorted(linear) if wanted is None or wanted & {k, f"layers.{number}.{k}"}]
        wrapped = [(k, cls(m, rank, scale, dropout)) for k, m in here]
        layer.update_modules(tree_unflatten(wrapped))


def leaves(model: nn.Module) -> dict[str, mx.array]:
    """The arrays of a model's adapters, by name."""
    return {k: v for k, v in tree_flatten(model.parameters()) if k.rsplit(".", 1)[-1] in ("lora_a", "lora_b", "m")}


def unfreeze(model: nn.Module, layers: int | None) -> None:
    """Make the last so many decoder layers trainable, all if None, with weights in float32.

    Raises:
        RecipeError: their weights are quantised.
    """
    for layer in _chosen(model, layers):
        if any(isinstance(module, QUANTISED) for module in layer.modules()):
            fix = "give a full-precision model, or adapter.kind lora"
            raise RecipeError("the base is quantised, and full trains its own weights", where="adapter.kind", fix=fix)
        make_master(layer)
        layer.unfreeze()
        layer.freeze(recurse=False, keys=BUFFER)


def layer_parameters(model: nn.Module, layers: int | None) -> dict[str, mx.array]:
    """What `unfreeze` makes trainable, by name, trainable or not."""
    first = len(model.layers) - (layers or len(model.layers))
    found = {}
    for name, value in tree_flatten(model.parameters()):
        number, _, rest = name.partition("layers.")[2].partition(".")
        if number.isdigit() and int(number) >= first and rest != BUFFER:
            found[name] = value
    return found
