"""What a gate was made of, compared with what is there now.

A gate calibrated for one adapter says nothing of another one. So the digests of data, base, template and adapter are
kept in the index, and are compared with the run folder's where that is there; a gate that was copied away without its
run still routes.
"""

from __future__ import annotations

from pathlib import Path

from mlx_gemma import run
from mlx_gemma.digest import digest_files
from mlx_gemma.errors import UserError
from mlx_gemma.gate.index import Index

ADAPTER = ("adapters.safetensors", "adapter_config.json")  # as in gemma4/lora.py, which imports mlx
FIX = "build and calibrate it again, or put the run back as it was"


def digests_of(run_folder: Path) -> dict[str, str]:
    """What a run is, by name: data, base and template as its manifest has them, and its adapter's files.

    Raises:
        UserError: no finished run, or its manifest is damaged.

    Cost: reading the adapter.
    """
    manifest = run.read_manifest(run_folder)
    try:
        found = {
            "data": str(manifest["data"]["train"]),
            "base": str(manifest["base"]["digest"]),
            "template": str(manifest["template"]),
        }
    except (KeyError, TypeError) as e:
        raise UserError(f"unreadable manifest: {e!r}", where=run_folder / run.MANIFEST, fix="train again") from e
    return found | {"adapter": adapter_digest(run_folder)}


def adapter_digest(folder: Path) -> str:
    """Raises UserError: there is no adapter."""
    try:
        return digest_files([folder / name for name in ADAPTER])
    except OSError as e:
        fix = "give a run folder that finished"
        raise UserError(f"no adapter: {e.strerror}", where=folder, fix=fix) from e


def check_run(index: Index) -> None:
    """Raises UserError: the run that the gate was built from is there, and is not what it was; says which part."""
    if not (index.run / run.MANIFEST).is_file():
        return
    now = digests_of(index.run)
    for name in sorted(now):
        if now[name] != index.digests[name]:
            what = f"a stale gate: the run's {name} has digest {now[name][:12]}, when built it was"
            raise UserError(f"{what} {index.digests[name][:12]}", where=index.folder, fix=FIX)


def check_adapter(index: Index, folder: Path) -> None:
    """Raises UserError: the gate is that of another adapter than the one in `folder`."""
    if adapter_digest(folder) != index.digests["adapter"]:
        fix = "give the run that it was built from, or build and calibrate one for this adapter"
        raise UserError(f"the gate of another adapter than {folder}", where=index.folder, fix=fix)
