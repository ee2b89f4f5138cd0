"""The model card (README.md) of an export: what it was made of, and what was measured.

What it says of the training stands in the run folder: recipe.yaml, manifest.json, and eval/, which `mlx-gemma eval`
wrote. An adapter without them gets a shorter card.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mlx_gemma import __version__, run
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.interop.compare import Difference

LIBRARIES = {"hf": "transformers", "peft": "peft", "gguf": "gguf", "gguf-lora": "gguf", "mlx": "mlx"}
KINDS = {
    "hf": "merged into the base's weights",
    "peft": "as a PEFT adapter",
    "gguf": "merged into the base's weights, for llama.cpp, Ollama and LM Studio",
    "gguf-lora": "as an adapter for llama.cpp's --lora",
    "mlx": "merged, for mlx-lm",
}
ADAPTERS = ("peft", "gguf-lora")


def card(
    source: Checkpoint,
    folder: Path,
    to: str,
    gap: Difference,
    effect: float,
    *,
    quantize: str | None = None,
    survived: float | None = None,
    moved: float | None = None,
) -> str:
    """The text of README.md.

    Args:
        source: the base.
        folder: the run folder.
        to: a key of `export.forms`.
        gap, effect, survived, moved: what the export's verification found; see `export.Exported`.
        quantize: how the weights were quantised in the export.
    """
    from huggingface_hub import ModelCardData

    base = source.name if source.revision or source.name == "nano" else source.folder.name
    data = ModelCardData(
        base_model=base if source.revision else None,
        base_model_relation="adapter" if to in ADAPTERS else "quantized" if quantize else "finetune",
        library_name=LIBRARIES[to],
        pipeline_tag="text-generation",
        tags=["mlx-gemma", "lora", "gemma4"],
        **_licence(source),
    )
    parts = [f"---\n{data.to_yaml()}\n---", f"# {folder.resolve().name}"]
    how = f"{KINDS[to]}; quantised ({quantize})" if quantize else KINDS[to]
    parts.append(f"{base}, fine-tuned with mlx-gemma {__version__}; {how}.")
    parts += _of_run(folder)
    parts += _evaluation(folder)
    told = [
        f"What was written was loaded again and compared with base and adapter, over the same tokens: {gap}.",
        f"The adapter itself moves the mean logit by {effect:.1e}.",
    ]
    if survived is not None:
        told.append(f"{survived:.1%} of that effect is left{' in the quantised weights' if quantize else ''}.")
    if moved is not None:
        told.append(
            "It was trained on a quantised base and exported onto the full-precision one, which moves the mean logit "
            f"by {moved:.1e}."
        )
    parts.append("## Verification\n\n" + " ".join(told))
    return "\n\n".join(parts) + "\n"


def _of_run(folder: Path) -> list[str]:
    try:
        manifest = run.read_manifest(folder)
        recipe = (folder / run.RECIPE).read_text(encoding="utf8")
    except (UserError, OSError):  # an adapter that was imported, or that mlx-lm trained
        return []
    result: dict[str, Any] = manifest["result"]
    lines = [f"| updates | {result['steps']}, the adapter of update {result['kept']} |"]
    lines.append(f"| loss, mean of the last ten updates | {result['loss']:.4f} |")
    if result.get("valid_loss") is not None:
        lines.append(f"| validation loss | {result['valid_loss_before']:.4f} -> {result['valid_loss']:.4f} |")
    if result.get("regression"):
        lines.append("| loss of the regression rows | {before:.4f} -> {after:.4f} |".format(**result["regression"]))
    data = [f"| {name} | `{digest}` |" for name, digest in manifest["data"].items() if digest]
    machine = manifest["machine"]
    return [
        "## Training\n\n| | |\n|---|---|\n" + "\n".join(lines),
        "Losses are nats a supervised token. Diagnosis: " + f"{result['diagnosis']['sentence']}.",
        "## Data\n\n| rows | sha256 of the messages, in order |\n|---|---|\n" + "\n".join(data),
        f"## Recipe\n\n```yaml\n{recipe}```",
        f"Trained on {machine['chip']}, {machine['os']}, MLX {machine['mlx']} ({machine['backend']}).",
    ]


def _evaluation(folder: Path) -> list[str]:
    """Counts of bad answers and of verdicts, of every suite that `mlx-gemma eval` has kept in the run folder."""
    tables = []
    for suite in sorted((folder / "eval").glob("*/")):
        counts: dict[str, Counter[str]] = {}
        for file in sorted(suite.glob("*/results.jsonl")):
            try:
                rows = [json.loads(line) for line in file.read_text(encoding="utf8").splitlines()]
                held = Counter(str(verdict) for row in rows for verdict in row["verdicts"])
                held["bad"] = sum(bool(row["bad"]) for row in rows)
            except (OSError, ValueError, LookupError, TypeError, RecursionError):  # something else of that name
                continue
            if rows:
                counts[f"{file.parent.name}, n = {len(rows)}"] = held
        if not counts:
            continue
        verdicts = sorted({v for of in counts.values() for v in of}, key=lambda v: (v != "bad", v))
        lines = ["| answers that are | " + " | ".join(counts) + " |", "|---|" + "---:|" * len(counts)]
        lines += [f"| {v} | " + " | ".join(str(of[v]) for of in counts.values()) + " |" for v in verdicts]
        tables.append(f"`{suite.name}`\n\n" + "\n".join(lines))
    if not tables:
        return []
    return ["## Evaluation\n\nSeveral verdicts may hold for one answer.\n\n" + "\n\n".join(tables)]


def _licence(source: Checkpoint) -> dict[str, Any]:
    """The base's own, where its card says; a fine-tuned model is under the terms of its base."""
    import yaml
    from huggingface_hub import ModelCard

    try:
        found = ModelCard.load(source.folder / "README.md", ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError):
        found = {}
    known = {k: str(found[k]) for k in ("license", "license_name", "license_link") if found.get(k)}
    if known:
        return known
    link = f"https://huggingface.co/{source.name}" if source.revision else None
    return {"license": "other", "license_name": "that-of-the-base-model"} | ({"license_link": link} if link else {})
