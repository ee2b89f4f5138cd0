"""From another program's adapter to a run folder: `mlx-gemma import ADAPTER --from peft | mlx-lm`.

    read    the adapter's files, fitted to the base          peft_read, mlx_lm_read
    write   adapters.safetensors, adapter_config.json        foreign
    compare logits with the adapter's own program's          counterpart
    close   manifest.json: where it is from, what was dropped, how it was verified

All of it whole, or not at all: see `run.whole_folder`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_gemma import __version__, digest, platform, run
from mlx_gemma.errors import ModelError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import Checkpoint, find
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.interop import compare, counterpart, foreign, mlx_lm_read, peft_config, peft_read
from mlx_gemma.interop.foreign import Foreign

READERS: dict[str, tuple[Any, Any]] = {"peft": (peft_config, peft_read), "mlx-lm": (mlx_lm_read, mlx_lm_read)}


@dataclass(frozen=True)
class Imported:
    """What was imported. `gap` is None where the other program could not be asked, for the reason in `unverified`."""

    path: Path
    found: Foreign
    modules: dict[str, int]  # by name: q_proj, ...
    parameters: int
    effect: float  # mean logit difference that the adapter makes
    gap: compare.Difference | None  # ours against the other program's
    unverified: str | None


def import_adapter(adapter: str, form: str, base: str | None = None, out: Path | None = None) -> Imported:
    """Make a run folder of another program's adapter, and compare its logits with that program's.

    Args:
        adapter: a folder, or a hub id.
        form: a key of READERS.
        base: the model it was trained on; None: the one that the adapter names.
        out: the run folder to make; None: runs/NAME, the folder's name or the last part of the hub id.

    Raises:
        ModelError: the adapter cannot be held, belongs to another model, or computes something else here than there.
        UserError: `out` exists or cannot be written.

    Cost: the two programs' models in memory, in float32 where that fits, one after the other.
    """
    (rules, reader), origin = READERS[form], find(adapter)
    folder = origin.folder
    # a hub id's folder has the commit for a name
    out = out or Path("runs") / (adapter.rpartition("/")[2] if origin.revision else folder.resolve().name)
    run.check_new(out)
    config = rules.read_config(folder)
    source = _base(folder, config, base)
    gemma = load(source.name, revision=source.revision)
    found: Foreign = reader.read(folder, gemma)
    modules = Counter(inside.rpartition(".")[2] for inside in found.arrays)
    parameters = sum(value.size for leaves in found.arrays.values() for value in leaves.values())
    tokens, template = compare.conversations(gemma.template), gemma.template.digest
    with run.whole_folder(out) as part:
        foreign.write(part, found, gemma)
        ours = _ours(gemma, part, tokens)
        effect = ours.effect
        del gemma  # its memory is the other program's now
        gap, unverified = counterpart.check(form, folder, part, found, source, ours)
        manifest = {
            "mlx_gemma": __version__,
            "base": {"name": source.name, "revision": source.revision, "digest": source.digest},
            "template": template,
            "imported": {
                **{"from": form, "name": adapter, "revision": origin.revision, "config": config},
                "digest": digest.digest_files([folder / rules.CONFIG, folder / rules.WEIGHTS]),
                "dropped": found.notices,
            },
            "adapter": {"parameters": parameters, "modules": modules},
            "verified": asdict(gap) if gap else None,
            "unverified": unverified,
            "machine": platform.describe(),
        }
        run.write_json(part / run.MANIFEST, manifest)
    return Imported(out, found, dict(modules), parameters, effect, gap, unverified)


def _base(folder: Path, config: dict[str, Any], given: str | None) -> Checkpoint:
    """The base as given, else as mlx-lm's config (`model`) or PEFT's names it.

    Raises:
        ModelError: none is named, or it is not to be had, or quantised by bitsandbytes, as QLoRA's bases often are.
    """
    named = config.get("base_model_name_or_path") or config.get("model")
    if not given and not named:
        raise ModelError("the adapter does not name its base", where=folder, fix="give it (--base)")
    try:
        source = find(given) if given else find(str(named), config.get("revision"))
    except ModelError as e:
        if given:
            raise
        raise ModelError(f"its base {named}: {e.what}", where=folder, fix="give the base (--base)") from e
    quantization = source.config.get("quantization_config") or source.text_config.get("quantization_config") or {}
    if quantization.get("quant_method") == "bitsandbytes":
        what = f"its base {source.name} is quantised by bitsandbytes, which only transformers computes with"
        raise ModelError(what, where=folder, fix="give the full-precision checkpoint of the same model (--base)")
    return source


def _ours(gemma: Gemma, run_folder: Path, tokens: list[list[int]]) -> counterpart.Ours:
    """In float32 where that fits, as the other program's."""
    if counterpart.fits_wide(gemma.checkpoint):
        gemma.model.set_dtype(counterpart.WIDE)
    base = compare.all_logits(gemma.text, tokens)
    lora.load_adapter(gemma.model, run_folder)
    return counterpart.Ours(tokens, base, compare.all_logits(gemma.text, tokens))
