"""Families of code twins: one function twice, with a flaw and without, alike but for what makes the difference.

The format is described in datasets/vulnerability/families/README.md. `$part` in a family's code is filled from its
`vulnerable` and its `safe` table; `$names` in the result are drawn from `vary`, the same ones for both twins.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from mlx_gemma.data.build.families import Family, family_entries, names_of
from mlx_gemma.errors import DataError

LABELS = ("vulnerable", "safe")
KEYS = {"name", "cwe", "language", "why", "code", "vary", *LABELS}
PART = re.compile(r"(?<!\$)\$(?:(\w+)|\{(\w+)\})")


@dataclass(frozen=True)
class TwinFamily(Family):
    """A function with open names, in one variant or two. Its topic is the file's name."""

    @property
    def cwe(self) -> int:
        return int(self.fields["cwe"])

    @property
    def language(self) -> str:
        return str(self.fields.get("language", "python"))

    @property
    def labels(self) -> tuple[str, ...]:
        """Which variants there are."""
        return tuple(label for label in LABELS if label in self.fields)

    def code(self, label: str, index: int) -> str:
        """The function of combination `index`: its `vulnerable` or its `safe` variant."""
        text = _with_parts(self.fields["code"], self.fields[label])
        return Template(text).substitute(self.names(index)).strip("\n")

    def answer(self, label: str) -> str:
        return f"VULNERABLE - CWE-{self.cwe}" if label == "vulnerable" else "SAFE"


def _with_parts(code: str, parts: Mapping[str, str]) -> str:
    """A part on a line of its own takes that line's indent in all of its lines; an empty one takes the line away."""

    def fill(found: re.Match[str]) -> str:
        return parts.get(found[1] or found[2], found[0])

    lines = []
    for line in code.split("\n"):
        alone = PART.fullmatch(line.strip())
        part = parts.get(alone[1] or alone[2]) if alone else None
        if part is None:
            lines.append(PART.sub(fill, line))
        elif part.strip():
            lines.append(textwrap.indent(part.strip("\n"), line[: len(line) - len(line.lstrip())]))
    return "\n".join(lines)


def read_twins(folder: Path) -> list[TwinFamily]:
    """The families of every TOML file in a folder.

    Raises:
        DataError: not TOML, an unknown or missing key, a name used twice, parts that differ between the twins, a
            `$name` that neither the parts nor `vary` give, twins that are equal.
    """
    families: dict[str, TwinFamily] = {}
    for file, entry in family_entries(folder, KEYS):
        name, where = entry["name"], f"{file}: family {entry['name']}"
        if not {"cwe", "why", "code"} <= set(entry) or not set(LABELS) & set(entry):
            raise DataError("needs name, cwe, why, code and vulnerable or safe", where=where)
        family = TwinFamily(name, file.stem, {k: v for k, v in entry.items() if k != "vary"}, names_of(entry))
        if len({frozenset(entry[label]) for label in family.labels}) > 1:
            raise DataError("vulnerable and safe give different parts", where=where)
        try:
            codes = {family.code(label, 0) for label in family.labels}
        except (KeyError, ValueError) as e:
            raise DataError(f"a $name that is given nowhere: {e}", where=where) from e
        if len(codes) < len(family.labels):
            raise DataError("vulnerable and safe are equal", where=where)
        families[name] = family
    return list(families.values())
