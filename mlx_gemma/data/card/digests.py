"""The digests of a dataset card: which files they are of, and whether these still are what the card says."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from mlx_gemma.errors import DataError

MARK = "<!-- Written by mlx-gemma data card, which keeps what stands above the rows"
WHOLE = f"{MARK}: a folder -->"  # whose new files are a difference too; of a single file its neighbours are none
DIGESTS = re.compile(r"^## Digests \(sha256\)\n.*?^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def changed(data: Path) -> list[str]:
    """How the files differ from what the card says, one line each: changed, missing, or not on the card.

    Args:
        data: a card, or what `write_card` was given.

    Raises:
        DataError: there is no card, or no digests in it.
    """
    card = data if data.suffix == ".md" else card_path(data)
    try:
        text = card.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as e:
        raise DataError("no readable card", where=card, fix=f"write one: mlx-gemma data card {data}") from e
    block = DIGESTS.search(text)
    listed = [m.groups() for line in block[1].splitlines() if (m := LINE.fullmatch(line))] if block else []
    if not listed:
        raise DataError("no digests on the card", where=card, fix="write it again: mlx-gemma data card")
    # The project's own cards, written by its build scripts, list paths from the repository's root.
    bases = (card.parent, *card.resolve().parents)
    base = next((b for b in bases if (b / listed[0][1]).exists()), card.parent)
    problems = []
    for digest, path in listed:
        if not (base / path).is_file():
            problems.append(f"missing: {path}")
        elif sha256(base / path) != digest:
            problems.append(f"changed: {path}")
    names = {path for _, path in listed}
    if WHOLE in text and card.name == "README.md":
        new = (relative(f, card) for f in files(card.parent, card))
        problems += [f"not on the card: {path}" for path in new if path not in names]
    return problems


def card_path(data: Path) -> Path:
    return data / "README.md" if data.is_dir() else data.with_suffix(".card.md")


def files(data: Path, card: Path) -> list[Path]:
    """Every file of a folder but the card and what is hidden; or the one file."""
    if not data.is_dir():
        return [data]
    found = (f for f in data.rglob("*") if f.is_file() and f.resolve() != card.resolve())
    return sorted(f for f in found if not any(part.startswith(".") for part in f.relative_to(data).parts))


def relative(file: Path, card: Path) -> str:
    return Path(os.path.relpath(file.resolve(), card.resolve().parent)).as_posix()


def sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as e:
        raise DataError(f"cannot be read: {e.strerror or e}", where=file, fix="check its permissions") from e
