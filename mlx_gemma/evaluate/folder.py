"""Where one model's answers to one suite are kept, so that a killed run goes on and a finished one is not made again.

settings.json    what was asked of which model, with digests; answers made with others are not mixed in
results.jsonl    the answers (results.py)
report.html      the page (report/)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_gemma import run
from mlx_gemma.digest import digest_files, digest_json
from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.contenders import Contender
from mlx_gemma.evaluate.results import NAME
from mlx_gemma.evaluate.suite import Suite
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import find

SETTINGS, REPORT = "settings.json", "report.html"


def folder_for(contender: Contender) -> Path:
    """Where answers go if nobody says: into the run's own folder, whose model card then has them."""
    adapter = contender.adapter
    return adapter / "eval" if adapter is not None and (adapter / run.MANIFEST).is_file() else Path("runs/eval")


def settings(
    contender: Contender, suite: Suite, *, seed: int, sampled: bool, max_tokens: int | None, batch: int
) -> dict[str, Any]:
    """Everything that the answers and their verdicts follow from, but the code."""
    adapter, header = contender.adapter, suite.header
    checkpoint = find(contender.model, contender.revision)
    return {
        "suite": header.name,
        "version": header.version,
        "items": digest_json([item.record for item in suite.items]),
        "bad": list(header.bad),
        "model": checkpoint.name,
        "fingerprint": checkpoint.fingerprint,
        "adapter": str(adapter) if adapter else None,
        "gate": digest_files(sorted(p for p in contender.gate.glob("*") if p.is_file())) if contender.gate else None,
        "adapter_digest": digest_files([adapter / lora.WEIGHTS]) if adapter else None,
        "quantization": contender.quantization,
        "system": contender.system,
        "seed": seed,
        "sampled": sampled and header.sampled is not None,
        "max_tokens": max_tokens or header.max_tokens,
        "batch": batch,
    }


def check(folder: Path, wanted: Mapping[str, Any], *, fresh: bool = False) -> None:
    """Whether answers of these settings may be written to the folder: a new one, an empty one, or one that has such.

    Args:
        fresh: the answers that are there may go.

    Raises:
        UserError: it holds answers made with other settings (which), or something else.
    """
    kept = folder / SETTINGS
    with run.disk_errors(folder):
        if folder.exists() and not kept.is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError("exists and holds no evaluation", where=folder, fix="give another --out")
        if (folder / NAME).is_file() and not fresh and (differing := _differing(kept, wanted)):
            what = f"holds answers made with another {differing}"
            raise UserError(what, where=folder, fix="add --fresh to answer again, or give another --out")


def make(folder: Path, wanted: Mapping[str, Any], *, fresh: bool = False) -> Path:
    """Make the folder, which `check` allows, and remove old answers where `fresh`; the results file in it."""
    with run.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (NAME, REPORT) if fresh else ():
            (folder / name).unlink(missing_ok=True)
        run.write_json(folder / SETTINGS, wanted)
    return folder / NAME


def _differing(kept: Path, wanted: Mapping[str, Any]) -> str | None:
    try:
        found = json.loads(kept.read_text(encoding="utf8"))
        names = [name for name in wanted if found[name] != wanted[name]]
    except (OSError, ValueError, KeyError, TypeError):
        return "version of mlx-gemma"
    if "items" in names:
        return "version of the suite's items"
    names = [name for name in names if name != "adapter"]  # its place may change, its content not
    return names[0].replace("_", " ") if names else None
