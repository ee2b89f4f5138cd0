"""One base in memory, and any number of adapters to compute with in turn.

The adapters share the base's weights; switching takes microseconds. Only what full training changed is there twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.adapters import LoRALinear
from mlx_gemma.gemma4.load import Gemma


class Variants:
    """The base (None), loaded without an adapter, and adapters by their folder."""

    def __init__(self, gemma: Gemma) -> None:
        self.gemma = gemma
        self._modules: dict[Path, dict[str, Any]] = {}  # adapter layers, by name
        self._arrays: dict[Path, dict[str, mx.array]] = {}  # of full training
        self._base: dict[str, mx.array] = {}
        self.active: Path | None = None

    def add(self, folder: Path) -> None:
        """Read an adapter, once.

        Raises:
            ModelError: see `lora.load_adapter`.
        """
        if folder in self._modules:
            return
        self.use(None)
        model = self.gemma.model
        held = dict(tree_flatten(model.parameters()))
        lora.load_adapter(model, folder)
        self._modules[folder] = {k: m for k, m in model.named_modules() if isinstance(m, LoRALinear)}
        now = dict(tree_flatten(model.parameters())) if not self._modules[folder] else {}
        self._arrays[folder] = {k: v for k, v in now.items() if v is not held[k]}
        self._base |= {k: held[k] for k in self._arrays[folder]}
        self.active = self.gemma.adapter = folder

    def use(self, folder: Path | None) -> None:
        """Compute with this adapter from now on, or with the base alone."""
        if folder == self.active:
            return
        model = self.gemma.model
        if self.active is not None:
            plain = [(k, m.linear) for k, m in self._modules[self.active].items()]
            model.update_modules(tree_unflatten(plain))
            model.load_weights(list(self._base.items()), strict=False)
        if folder is not None:
            model.update_modules(tree_unflatten(list(self._modules[folder].items())))
            model.load_weights(list(self._arrays[folder].items()), strict=False)
        self.active = folder
        self.gemma.adapter = folder
