"""The model card (README.md) of an exported folder: what it was made of, and what was measured.

Everything in it stands in the run folder: recipe.yaml, manifest.json. An adapter without them gets a shorter card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_gemma import __version__, run
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.checkpoint import Checkpoint
from mlx_gemma.interop.compare import Difference

LIBRARIES = {"hf": "transformers", "peft": "peft", "mlx": "mlx"}
KINDS = {"hf": "merged into the base's weights", "peft": "as a PEFT adapter", "mlx": "merged, for mlx-lm"}


def card(source: Checkpoint, folder: Path, to: str, gap: Difference, effect: float) -> str:
    """The text of README.md.

    Args:
        source: the base.
        folder: the run folder.
        to: hf, peft or mlx.
        gap, effect: what the export's verification found; see `export.Exported`.
    """
    from huggingface_hub import ModelCardData

    base = source.name if source.revision or source.name == "nano" else source.folder.name
    data = ModelCardData(
        base_model=base if source.revision else None,
        base_model_relation="adapter" if to == "peft" else "finetune",
        library_name=LIBRARIES[to],
        pipeline_tag="text-generation",
        tags=["mlx-gemma", "lora", "gemma4"],
        **_licence(source),
    )
    parts = [f"---\n{data.to_yaml()}\n---", f"# {folder.resolve().name}"]
    parts.append(f"{base}, fine-tuned with mlx-gemma {__version__}; {KINDS[to]}.")
    parts += _of_run(folder)
    parts.append(
        "## Verification\n\nThis folder was loaded again and compared with base and adapter, over the same tokens: "
        f"{gap}. The adapter itself moves the mean logit by {effect:.1e}."
    )
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


def _licence(source: Checkpoint) -> dict[str, Any]:
    """The base's own, where its card says; a fine-tuned model is under the terms of its base."""
    from huggingface_hub import ModelCard

    try:
        found = ModelCard.load(source.folder / "README.md", ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError):
        found = {}
    known = {k: str(found[k]) for k in ("license", "license_name", "license_link") if found.get(k)}
    if known:
        return known
    link = f"https://huggingface.co/{source.name}" if source.revision else None
    return {"license": "other", "license_name": "that-of-the-base-model"} | ({"license_link": link} if link else {})
