"""Does an imported adapter compute what it computes in its own program? That program is asked, where it is installed.

Both sides compute in float32 where the base fits in memory so, whatever it is stored in: the gap is then rounding only
(PEFT against ours on small random models: 1e-6 of the logits' spread on average).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx
import numpy as np

from mlx_gemma import platform
from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.gemma4.headers import tensors
from mlx_gemma.interop import compare, peft, programs
from mlx_gemma.interop.compare import Difference, Logits
from mlx_gemma.interop.export import EXACT, MOST_OF_EFFECT
from mlx_gemma.interop.foreign import Foreign
from mlx_gemma.interop.stream import weight_files

WIDE = mx.float32
NOISE = 10  # times the gap of the bases alone, which is rounding, may be made by base + adapter
LARGEST = 0.1  # standard deviations of the logits
PROGRAMS = {"peft": ("transformers", "peft"), "mlx-lm": ("mlx-lm",)}


@dataclass(frozen=True)
class Ours:
    """Our logits over the same tokens: of the base, and of base + adapter."""

    tokens: Sequence[Sequence[int]]
    base: Logits
    adapted: Logits

    @property
    def effect(self) -> float:
        """Mean logit difference that the adapter makes.

        Raises:
            ModelError: a logit is not finite.
        """
        return compare.difference(self.adapted, self.base).mean


def check(
    form: str, folder: Path, run: Path, found: Foreign, source: Checkpoint, ours: Ours
) -> tuple[Difference | None, str | None]:
    """The gap between our logits and the other program's, or why that program was not asked.

    Accepted is a mean gap of 1e-4 of the logits' spread, or `NOISE` times that of the bases where it is more (a GPU may
    take float32 products in fewer bits), but at most 0.1 of the spread and half of the adapter's effect.

    Args:
        form, folder: the adapter's, and its folder as it came.
        run: what was made of it.

    Raises:
        ModelError: the gap is larger, or the other program's logits are not finite.
    """
    if reason := _unavailable(form, source):
        return None, reason
    base, adapted = (_peft if form == "peft" else _mlx_lm)(folder, run, found, source, ours.tokens)
    asked = " and ".join(PROGRAMS[form])
    if not (np.isfinite(base).all() and np.isfinite(adapted).all()):
        fix = "nothing was kept; check the adapter, whose training may have diverged, and the base (--base)"
        raise ModelError(f"its logits are not finite in {asked}", where=folder, fix=fix)
    gap, noise = compare.difference(ours.adapted, adapted), compare.difference(ours.base, base).mean
    accepted = max(EXACT * gap.spread, min(NOISE * noise, LARGEST * gap.spread, MOST_OF_EFFECT * ours.effect))
    if gap.mean > accepted:
        what = f"the adapter computes something else here than in {asked}: {gap}"
        what += f"; accepted is a mean of {accepted:.1e}, the bases alone differ by {noise:.1e}"
        raise ModelError(what, where=folder, fix="nothing was kept; check the base (--base), or report this")
    return gap, None


def fits_wide(source: Checkpoint) -> bool:
    """Whether the whole checkpoint, towers included, fits in memory in float32."""
    return wide_bytes(source) <= platform.memory_bytes()


def wide_bytes(source: Checkpoint) -> int:
    return 4 * sum(math.prod(t.shape) for file in weight_files(source) for t in tensors(file).values())


def _unavailable(form: str, source: Checkpoint) -> str | None:
    missing = [program for program in PROGRAMS[form] if not programs.installed(program)]
    if missing:
        return f"{' and '.join(missing)} not installed"
    if form == "mlx-lm":
        return None
    if any(key.startswith("quantization") for config in (source.config, source.text_config) for key in config):
        return "the base is quantised, and transformers would compute with other weights"
    if any(name.startswith("language_model.") for file in weight_files(source) for name in tensors(file)):
        return "the base is in mlx-lm's own names, which transformers does not load"
    if not fits_wide(source):
        needed, there = wide_bytes(source) / 1e9, platform.memory_bytes() / 1e9
        return f"the base takes {needed:.1f} GB in float32 in transformers, and this machine has {there:.1f} GB"
    return None


def _peft(
    folder: Path, run: Path, found: Foreign, source: Checkpoint, tokens: Sequence[Sequence[int]]
) -> tuple[Logits, Logits]:
    """Logits of the base and with the adapter, by transformers and PEFT.

    With the files as they stand; in the base's names where they were saved on the other class, or PEFT itself does not
    load them.
    """
    model = programs.transformers_model(source.folder)
    base = _logits(programs.torch_functions(model), tokens)
    adapted = None
    if found.own_class:
        with suppress(ModelError):
            adapted = programs.with_peft(model, folder)
        if adapted is None:
            del model  # PEFT has put its layers into it; two have no room where one fits
            gc.collect()
            model = programs.transformers_model(source.folder)
    if adapted is None:
        with TemporaryDirectory() as other:
            peft.restate(folder, Path(other), peft.stem(source), found.arrays)
            adapted = programs.with_peft(model, Path(other))
    return base, _logits(programs.torch_functions(adapted), tokens)


def _mlx_lm(
    folder: Path, run: Path, found: Foreign, source: Checkpoint, tokens: Sequence[Sequence[int]]
) -> tuple[Logits, Logits]:
    """Likewise by mlx-lm; with what was made of the files where their names are of the other class."""
    both = []
    for adapter in (None, folder if found.own_class else run):
        text = programs.mlx_lm_model(source.folder, adapter)
        if fits_wide(source):
            text.set_dtype(WIDE)
        both.append(compare.all_logits(text, tokens))
        del text
    return both[0], both[1]


def _logits(program: programs.Functions, tokens: Sequence[Sequence[int]]) -> Logits:
    return np.concatenate([program.logits(sequence) for sequence in tokens])
