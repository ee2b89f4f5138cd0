"""PEFT's form: adapter_model.safetensors and adapter_config.json, for transformers' class of the base.

`PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)` finds every tensor its module and warns
of nothing. (An adapter in the other class's names is loaded by PEFT with a warning and no effect: reference/gemma4.md,
section 3.) Nothing is merged or rounded: the factors are transposed, float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx

from mlx_gemma.errors import UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.gemma4.load import load
from mlx_gemma.gemma4.names import layer_place
from mlx_gemma.interop import foreign, peft_config, peft_read
from mlx_gemma.interop.export import Form, Job
from mlx_gemma.interop.merge import Arrays
from mlx_gemma.run import write_json

NAMES = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}


def stem(source: Checkpoint) -> str:
    """What stands before a place in the names of transformers' class for a checkpoint."""
    return "model.language_model." if source.config["model_type"] == "gemma4" else "model."


def regex(places: Iterable[str]) -> str:
    """target_modules for exactly these places, in either class, and nothing in the towers.

    The layers are listed: K/V-shared layers have no k_proj and v_proj, or dead ones before transformers 5.23. A list of
    names like q_proj instead would match the towers' Gemma4ClippableLinear, which PEFT refuses.
    """
    layers: dict[str, list[int]] = {}
    for inside in places:
        _, number, name = inside.split(".", 2)
        layers.setdefault(name, []).append(int(number))
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, numbers in sorted(layers.items()):
        alike.setdefault(tuple(sorted(numbers)), []).append(re.escape(name))
    parts = [f"(?:{'|'.join(map(str, numbers))})\\.(?:{'|'.join(names)})" for numbers, names in sorted(alike.items())]
    return rf"model\.(?:language_model\.)?layers\.(?:{'|'.join(parts)})"


def alpha(scale: float, rank: int, rslora: bool) -> float:
    """The lora_alpha of which PEFT makes exactly this scale; a whole number where there is one.

    Where float64 has none, the nearest: off by 2e-16, nothing in float32.
    """
    divisor = math.sqrt(rank) if rslora else rank
    guess = scale * divisor
    near = (round(guess), guess, math.nextafter(guess, math.inf), math.nextafter(guess, -math.inf))
    return next((a for a in near if a / divisor == scale), guess)


def config(job: Job) -> dict[str, Any]:
    """adapter_config.json. A base on the hub is named with its commit, one on this machine by its absolute path."""
    own = lora.read_config(job.run)
    given, rslora = own["lora_parameters"], bool(own.get("rslora"))
    source = job.source
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source.name if source.revision else str(source.folder.resolve()),
        "revision": source.revision,
        "r": given["rank"],
        "lora_alpha": alpha(job.adapter.scale, given["rank"], rslora),
        "lora_dropout": given.get("dropout", 0.0),
        "use_rslora": rslora,
        "use_dora": job.adapter.kind == "dora",
        "target_modules": regex(job.adapter.arrays),
        "bias": "none",
        "inference_mode": True,
    }


def tensors(arrays: dict[str, Arrays], before: str) -> dict[str, mx.array]:
    """By PEFT's names, `before` being the class's part of them; float32."""
    return {
        f"{peft_read.STEM}{before}{inside}.{NAMES[leaf]}": mx.contiguous(value.astype(mx.float32).T)
        for inside, leaves in arrays.items()
        for leaf, value in leaves.items()
    }


def restate(folder: Path, out: Path, before: str, places: Iterable[str]) -> None:
    """PEFT's files again for the class whose names begin with `before`, these places only; no number is touched."""
    given, kept = peft_config.read_config(folder), set(places)
    scaling = peft_config.read_scaling(folder, given)
    named: dict[str, mx.array] = {}
    ranks, alphas = {}, {}
    for module, leaves in peft_read.modules(folder)[0].items():
        if (inside := str(layer_place(module))) in kept:
            named |= {f"{peft_read.STEM}{before}{inside}.{NAMES[leaf]}": value for leaf, value in leaves.items()}
            ranks[re.escape(before + inside)], alphas[re.escape(before + inside)] = scaling.of(module)
    foreign.save(out / peft_config.WEIGHTS, named, "pt")
    targets = {"target_modules": regex(kept), "rank_pattern": ranks, "alpha_pattern": alphas}
    others = dict.fromkeys(("exclude_modules", "layers_to_transform", "layers_pattern"))
    write_json(out / peft_config.CONFIG, given | targets | others)


def write(job: Job, out: Path) -> list[float]:
    foreign.save(out / peft_config.WEIGHTS, tensors(job.adapter.arrays, stem(job.source)), "pt")
    write_json(out / peft_config.CONFIG, config(job))
    return []


def read(job: Job, out: Path) -> Any:
    """The base with what the importer makes of the two files."""
    gemma = load(job.source.name, revision=job.source.revision)
    with TemporaryDirectory(dir=out) as folder:
        foreign.write(Path(folder), peft_read.read(out, gemma), gemma)
        lora.load_adapter(gemma.model, Path(folder))
        mx.eval(gemma.model.parameters())
    return gemma.text


def check(job: Job) -> None:
    if job.adapter.kind == "full":
        what = "PEFT has no form for full training, which changes the weights themselves"
        raise UserError(what, where=job.run, fix="export it with --to hf")


FORM = Form("peft", write, read, check=check)
