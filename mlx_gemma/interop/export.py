"""The frame of every export: what is written is read again and compared with base + adapter, or nothing is left.

A form (`FORMS`) knows how to write its files and how to read them back; this file knows when that is good enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_gemma import platform
from mlx_gemma import run as run_folder
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import Checkpoint, find
from mlx_gemma.gemma4.headers import tensors
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.interop import compare
from mlx_gemma.interop.card import card
from mlx_gemma.interop.compare import Logits
from mlx_gemma.interop.merge import Adapter, Rounding, merge_in_place, place_of, read_adapter
from mlx_gemma.interop.stream import FLOATS, weight_files

# Mean logit difference that is accepted between what was written and the same merged and rounded in memory, in standard
# deviations of the logits. Measured on nano and random E2B-like models: 2e-6 at most in float32, 0.09 computed
# in bfloat16 or through quantised layers (mostly 0: the weights are the same to the bit).
EXACT, ROUNDED = 1e-4, 0.2
MOST_OF_EFFECT = 0.5  # less is lost, or is drowned in the rounding
SCALE = 0.1  # by which the effect found may miss the one in memory; measured: 0 in float32, 0.04 in bfloat16


@dataclass(frozen=True)
class Job:
    """What is exported, and how. `dtype` is a safetensors or GGUF name; None: the source's own."""

    run: Path
    source: Checkpoint
    adapter: Adapter
    dtype: str | None = None
    quantize: str | None = None
    text_only: bool = False

    @property
    def dtypes(self) -> set[str]:
        """Of the source's weights that the adapter changes."""
        held = {place_of(n): t.dtype for file in weight_files(self.source) for n, t in tensors(file).items()}
        return {held[place] for place in self.adapter.arrays}


@dataclass(frozen=True)
class Form:
    """One kind of export.

    Attributes:
        name: of what it writes below the run folder, a file's with its suffix, a folder's without.
        write: fills an empty folder with the export (a single file: of that name); returns the relative change of
            every merged tensor, none where nothing is merged.
        read: the text decoder (mlx-lm's gemma4_text.Model) that what was written means, read from it alone, and from
            the source where it is an adapter's.
        rounding: what storing makes of a weight, where the adapter is merged; None: nothing is merged.
        check: refuses a job before anything is loaded.
        dtypes, quantize: what --dtype and --quantize may name; text_only: whether --text-only means something.
        file: whether it is a single file.
        quantised_base: the base alone, quantised as the export is; for the share of the adapter's effect that is left.
    """

    name: str
    write: Callable[[Job, Path], list[float]]
    read: Callable[[Job, Path], Any]
    check: Callable[[Job], None] = lambda job: None
    dtypes: tuple[str, ...] = ()
    quantize: tuple[str, ...] = ()
    text_only: bool = False
    file: bool = False
    rounding: Callable[[Job], Rounding] | None = None
    quantised_base: Callable[[Job], Any] | None = None


def forms() -> dict[str, Form]:
    """By the name that --to takes."""
    from mlx_gemma.interop import gguf, gguf_lora, hf, mlx_folder, peft

    return {"hf": hf.FORM, "peft": peft.FORM, "gguf": gguf.FORM, "gguf-lora": gguf_lora.FORM, "mlx": mlx_folder.FORM}


@dataclass(frozen=True)
class Exported:
    """What was written, and how it differs from base + adapter."""

    path: Path
    changes: list[float] = field(repr=False)  # |merged - W| / |W| of each merged tensor
    bytes: int
    gap: compare.Difference  # exported against base + adapter
    effect: float  # mean logit difference of the adapter itself: base against base + adapter
    moved: float | None  # base + adapter against what was trained, the quantised base + adapter, if it was so
    survived: float  # share of the adapter's effect that was found in what was written; see `compare.survived`
    rows: int  # of the run's own validation set, over which this was measured; 0: over compare.CONVERSATIONS
    card: str = field(repr=False)  # the model card's text; in a folder's README.md


def export(
    run: Path,
    to: str,
    out: Path | None = None,
    *,
    base: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    text_only: bool = False,
    force: bool = False,
) -> Exported:
    """Write a run in another program's form, and verify it.

    Args:
        run: a run folder, or any folder with an adapter in mlx-lm's form. One trained on a base quantised in memory is
            merged into the full-precision weights; how far that moves the function is measured and returned.
        to: a key of FORMS.
        out: the file or folder to make; None: in the run folder.
        base: another checkpoint of the same model than the one the adapter names: its full-precision source, or the
            multimodal checkpoint of a text-only model.
        dtype: of the weights, where the form has a choice.
        quantize, text_only: see `Job`.
        force: keep an export in which rounding left under half of the adapter's effect.

    Raises:
        ModelError: the adapter cannot be merged into this base or told in this form, or the result is not base +
            adapter.
        UserError: `out` exists or cannot be written.

    Cost: reads and writes the whole checkpoint; memory for one loaded model at a time (see `load`). Nothing is left
    behind when it fails or is interrupted.
    """
    form = forms()[to]
    out = out or run / form.name
    run_folder.check_new(out)
    job = Job(run, find(base) if base else find(*lora.base_of(run)), read_adapter(run), dtype, quantize, text_only)
    _check(job, form)
    if not base:
        _same_base(job)

    source = job.source
    gemma = load(source.name, revision=source.revision)
    rows = compare.validation_rows(run, gemma.template)
    tokens = rows or compare.conversations(gemma.template)
    before = compare.all_logits(gemma.text, tokens)
    lora.load_adapter(gemma.model, run)
    wanted = compare.all_logits(gemma.text, tokens)
    effect = compare.difference(wanted, before).mean
    stored = wanted
    if form.rounding:
        merge_in_place(gemma.text.model, form.rounding(job))
        stored = compare.all_logits(gemma.text, tokens)
    del gemma
    moved = _moved(job, tokens, wanted)

    with run_folder.whole_folder(out, file=form.file) as part:
        changes = form.write(job, part)
        found = compare.all_logits(form.read(job, part), tokens)
        judge(job, form, out, found, stored, before)
        gap = compare.difference(found, wanted)
        quantised = (
            compare.all_logits(form.quantised_base(job), tokens) if job.quantize and form.quantised_base else None
        )
        survived = compare.survived(found, before if quantised is None else quantised, wanted, before)
        if not force:
            judge_effect(out, survived, 0.0 if job.quantize else gap.mean / max(effect, 1e-30))
        text = card(source, run, to, gap, effect, quantize=job.quantize, survived=survived, moved=moved)
        if not form.file:
            run_folder.write_text(part / "README.md", text)
        size = sum(p.stat().st_size for p in part.iterdir())
    return Exported(out, changes, size, gap, effect, moved, survived, len(rows), text)


def judge(job: Job, form: Form, out: Path, found: Logits, stored: Logits, before: Logits) -> None:
    """Whether what was written is what the loaded base and adapter come to, merged and rounded in memory.

    Rounding alone explains any scale under 1: a base's weights lie on the grid of their dtype, and a merge loses what
    changes them by under half a step. So the reference is rounded alike, and the scale is judged on its own: a mean
    over all logits hardly moves with the scale of a small adapter.

    Raises:
        ModelError: it is not.
    """
    gap, share = compare.difference(found, stored), compare.survived(found, before, stored, before)
    alike = form.rounding is not None or job.dtype is None  # or the adapter was rounded in its file
    exact = alike and job.quantize is None and platform.compute_dtype() is not None  # float32, on a CPU
    tolerance = (EXACT if exact else ROUNDED) * gap.spread
    if not (gap.mean <= tolerance and abs(share - 1) <= SCALE):
        what = f"the export is not base + adapter: {gap}, accepted mean {tolerance:.1e}; {share:.2f} of the effect"
        raise ModelError(what, where=out, fix="nothing was kept; report this with the adapter's config")


def judge_effect(out: Path, survived: float, noise: float) -> None:
    """Whether an adapter is still worth having after the rounding.

    Args:
        survived: share of its effect that is left.
        noise: what rounding did beside, in its effect.

    Raises:
        ModelError: under half is left, or the noise is over half of it.
    """
    if survived < MOST_OF_EFFECT or noise > MOST_OF_EFFECT:
        what = f"{survived:.0%} of the adapter's effect survives the rounding, with {noise:.0%} of noise beside it"
        raise ModelError(what, where=out, fix="nothing was kept; take more bits, train longer, or add --force")


def _check(job: Job, form: Form) -> None:
    """Before anything is loaded: the base has a full-precision weight for every adapter tensor, and the form is one."""
    source, adapter = job.source, job.adapter
    full = "export onto the full-precision checkpoint of the same model (--base)"
    if any(key.startswith("quantization") for config in (source.config, source.text_config) for key in config):
        why = "which would lose the adapter" if form.rounding else "which other programs do not load"
        raise ModelError(f"the base is quantised, {why}", where=source.name, fix=full)
    held = {place_of(name) for file in weight_files(source) for name in tensors(file)}
    lost = sorted(set(adapter.arrays) - held)
    if lost:
        what = f"{len(lost)} adapted modules have no weight in {source.name}, for example {adapter.names[lost[0]]}"
        raise ModelError(what, where=job.run, fix="export onto the checkpoint that the adapter was trained on")
    if not job.dtypes <= set(FLOATS):
        raise ModelError(f"weights of type {', '.join(sorted(job.dtypes))}", where=source.name, fix=full)
    for given, option, possible in (
        (job.dtype, "--dtype", form.dtypes),
        (job.quantize, "--quantize", form.quantize),
        (job.text_only or None, "--text-only", (True,) if form.text_only else ()),
    ):
        if given is not None and given not in possible:
            fix = f"choose from {', '.join(map(str, possible))}" if len(possible) > 1 else "leave it out"
            raise UserError(f"{given} is not for this form", where=option, fix=fix)
    form.check(job)


def _same_base(job: Job) -> None:
    """Whether the base is still the one that the run was trained on, to the bit; reads it once.

    Raises:
        ModelError: it is another.
    """
    lora.check_base(job.run, job.source)
    try:
        trained = run_folder.read_manifest(job.run)["base"].get("digest")
    except (UserError, KeyError, AttributeError):  # an adapter that mlx-lm trained, or an imported one
        return
    if trained and trained != job.source.digest:
        fix = "give the one it was trained on (--base), or this one, to merge into it all the same"
        raise ModelError("the base has changed since the run was trained on it", where=job.source.name, fix=fix)


def _moved(job: Job, tokens: list[list[int]], wanted: compare.Logits) -> float | None:
    """The mean logit difference to what was trained, where that was on other weights: a base quantised in memory or on
    the disk (T25: another base is another function). None if it was on these, or on a base that is gone."""
    quantization, source = lora.quantization_of(job.run), job.source
    try:
        trained = find(*lora.base_of(job.run))
    except ModelError:
        trained = source
    if not quantization and trained.folder.resolve() == source.folder.resolve():
        return None
    gemma: Gemma = load(trained.name, revision=trained.revision, **quantization)
    lora.load_adapter(gemma.model, job.run)
    return compare.difference(compare.all_logits(gemma.text, tokens), wanted).mean
