"""Data sets made by a script: their digests, and whether the files are still what the script gives.

A build is `build(root, seed)`: it writes below `root`, as the files lie below the repository's root, and returns the
sha256 of each by its path there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from mlx_gemma.errors import DataError
from mlx_gemma.run import write_json

ROOT = Path(__file__).parents[3]
Build = Callable[[Path, int], dict[str, str]]


def record_digests(root: Path, folder: str, seed: int, paths: Iterable[str]) -> dict[str, str]:
    """The sha256 of files below `root`, which are also written to `folder`/digests.json."""
    digests = {path: _sha256(root / path) for path in paths}
    write_json(root / folder / "digests.json", {"seed": seed, "sha256": digests})
    return digests


def digest_lines(digests: dict[str, str]) -> str:
    """As a card shows them."""
    return "\n".join(f"{digest}  {path}" for path, digest in digests.items())


def changed_files(root: Path, folder: str, build: Build) -> list[str]:
    """The files, card and digests.json included, that differ from what a build with their seed gives; costs a build.

    Raises:
        DataError: there is no digests.json in `folder`.
    """
    recorded = root / folder / "digests.json"
    try:
        seed = json.loads(recorded.read_text(encoding="utf8"))["seed"]
    except (OSError, ValueError, KeyError) as e:
        fix = f"run python -m {build.__module__}"
        raise DataError("no readable digests.json", where=root / folder, fix=fix) from e
    with tempfile.TemporaryDirectory() as fresh:
        paths = [*build(Path(fresh), seed), f"{folder}/README.md", f"{folder}/digests.json"]
        made = {path: _sha256(Path(fresh) / path) for path in paths}
    return [path for path, digest in made.items() if not (root / path).exists() or _sha256(root / path) != digest]


def main(folder: str, build: Build, description: str) -> int:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder to write below; the repository by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare the files with a fresh build; write nothing")
    args = parser.parse_args()
    if args.check:
        changed = changed_files(args.root, folder, build)
        print("\n".join(f"changed: {path}" for path in changed) or "all files are as built")
        return 1 if changed else 0
    for path, digest in build(args.root, args.seed).items():
        print(f"{digest[:16]}  {path}")
    return 0


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
