"""Export to Hugging Face form: the source checkpoint again, with the adapter in its weights.

The adapter is grafted into the source's own files, so class, tensor names, shards, towers, dead K/V tensors, tokenizer,
template and configs are the source's, and transformers loads the result as it loads the source. (A folder in mlx-lm's
own naming, as mlx_lm.fuse writes it, is loaded by transformers with random weights and no error.)
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import WEIGHTS, Checkpoint, find
from mlx_gemma.gemma4.headers import tensors
from mlx_gemma.gemma4.load import load
from mlx_gemma.interop import verify
from mlx_gemma.interop.merge import Adapter, merge_file, place_of, read_adapter
from mlx_gemma.run import disk_errors

# Mean logit difference that is accepted, in standard deviations of the logits. Measured on nano and on random E2B- and
# E4B-like models (ill conditioned, so an upper bound): float32 sources 3e-6; bfloat16 sources 2e-2 computed in float32
# (rounding of the merged weights), 6e-2 in bfloat16. An adapter that moved each weight by 20 % made 0.2 to 1.0.
TOLERANCE = {"F32": 1e-4, "F16": 0.1, "BF16": 0.1}
MOST_OF_EFFECT = 0.5  # a merge that did nothing is off by the whole effect, however small that is
KEPT = ("*.json", "*.jinja", "*.model")  # a README or licence text would speak of another model


@dataclass(frozen=True)
class Exported:
    """What was written, and how it differs from base + adapter."""

    folder: Path
    merged: int  # tensors
    largest_change: float  # |merged - W| / |W| of the tensor that changed most
    bytes: int
    max_difference: float  # of the logits, exported against base + adapter
    mean_difference: float
    mean_effect: float  # of the adapter itself: base against base + adapter
    mean_quantised: float | None  # base + adapter against what was trained, the quantised base + adapter, if it was so


def export(adapter: Path, out: Path, *, base: str | None = None) -> Exported:
    """Merge a run's adapter into the safetensors of its base, write a Hugging Face folder, and verify it.

    Args:
        adapter: a run folder, or any folder with an adapter in mlx-lm's form. One trained on a base quantised in memory
            is merged into the full-precision weights; how far that moves the function is measured and returned.
        out: the folder to make.
        base: another checkpoint of the same model than the one the adapter names: its full-precision source, or the
            multimodal checkpoint of a text-only model.

    Raises:
        ModelError: the adapter cannot be merged into this base, or the result is not base + adapter.
        UserError: `out` exists or cannot be written.

    Cost: reads and writes the whole checkpoint; memory for one loaded model at a time (see `load`). Nothing is left
    behind when it fails or is interrupted.
    """
    part = out.with_name(out.name + ".part")
    for folder, what in ((out, "exists"), (part, "is left over from an export that was killed")):
        if folder.exists() or folder.is_symlink():
            raise UserError(what, where=folder, fix="remove it or choose another output")
    change = read_adapter(adapter)
    source = find(base) if base else find(*lora.base_of(adapter))
    tolerance = max(TOLERANCE[dtype] for dtype in _check(source, change, adapter))

    gemma = load(source.name, revision=source.revision)
    sequences = verify.conversations(gemma)
    before = verify.logits(gemma, sequences)
    verify.load_adapter(gemma, adapter)
    wanted = verify.logits(gemma, sequences)
    effect = verify.difference(before, wanted).mean
    del gemma
    moved = _moved(source, adapter, sequences, wanted)

    try:
        with disk_errors(out):
            part.mkdir(parents=True)
            changes = _write(source, part, change)
            gap = verify.difference(verify.logits(load(str(part)), sequences), wanted)
            if gap.mean > tolerance * gap.spread:
                what = f"the exported model is not base + adapter: {gap}, accepted mean {tolerance * gap.spread:.1e}"
                raise ModelError(what, where=out, fix="nothing was kept; report this with the adapter's config")
            if gap.mean > MOST_OF_EFFECT * effect:
                what = f"the adapter's effect ({effect:.1e} on the mean logit) is lost in the base's rounding: {gap}"
                raise ModelError(what, where=out, fix="nothing was kept; train longer, or export onto a float32 base")
            part.rename(out)
    except BaseException:  # Ctrl-C too
        shutil.rmtree(part, ignore_errors=True)
        raise
    size = sum(p.stat().st_size for p in out.iterdir())
    return Exported(out, len(changes), max(changes), size, gap.largest, gap.mean, effect, moved)


def _check(source: Checkpoint, adapter: Adapter, folder: Path) -> set[str]:
    """Before anything is loaded: the base has a full-precision weight for every adapter tensor. Returns the dtypes."""
    full = "export onto the full-precision checkpoint of the same model (base)"
    if any(key.startswith("quantization") for config in (source.config, source.text_config) for key in config):
        raise ModelError("the base is quantised, and would lose the adapter", where=source.name, fix=full)
    held = {place_of(name): tensor for file in _weights(source) for name, tensor in tensors(file).items()}
    lost = sorted(set(adapter.arrays) - set(held))
    if lost:
        what = f"{len(lost)} adapted modules have no weight in {source.name}, for example {adapter.names[lost[0]]}"
        raise ModelError(what, where=folder, fix="export onto the checkpoint that the adapter was trained on")
    dtypes = {held[place].dtype for place in adapter.arrays}
    if not dtypes <= set(TOLERANCE):
        raise ModelError(f"weights of type {', '.join(sorted(dtypes))}", where=source.name, fix=full)
    return dtypes


def _moved(source: Checkpoint, adapter: Path, sequences: list[list[int]], wanted: verify.Logits) -> float | None:
    """The mean logit difference that a base quantised in training makes (T25: another base is another function)."""
    quantization = lora.quantization_of(adapter)
    if not quantization:
        return None
    gemma = load(source.name, revision=source.revision, **quantization)
    verify.load_adapter(gemma, adapter)
    return verify.difference(verify.logits(gemma, sequences), wanted).mean


def _weights(source: Checkpoint) -> list[Path]:
    return sorted(source.folder.glob(WEIGHTS))


def _write(source: Checkpoint, out: Path, adapter: Adapter) -> list[float]:
    """Fill `out`; the relative change of each merged tensor."""
    changes = []
    for file in _weights(source):
        changes += merge_file(file, out / file.name, adapter)
    for file in {p for pattern in KEPT for p in source.folder.glob(pattern) if p.is_file()}:
        shutil.copyfile(file, out / file.name)
    return changes
