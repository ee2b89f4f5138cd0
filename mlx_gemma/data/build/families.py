"""Task families: small programming tasks as TOML, from which the project's own data sets are made.

A family holds wordings, a Python 3 solution, where natural the same program in Python 2, and the checks a solution must
pass; `$names` in all of them are drawn from `vary`. The format is described in python3_families/README.md
(datasets/python3/families is a link to that folder).

    python -m mlx_gemma.data.build.families FOLDER    # verify: run every solution against its checks
"""

from __future__ import annotations

import itertools
import random
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from mlx_gemma.data import solutions as checks
from mlx_gemma.data.solutions import CheckFailed
from mlx_gemma.errors import DataError

KEYS = {"name", "topic", "ask", "python3", "python2", "answer", "check", "prints", "stdin", "vary"}


@dataclass(frozen=True)
class Task:
    """One family with its names filled in: everything a data row is made of."""

    family: str
    topic: str
    ask: tuple[str, ...]
    python3: str
    python2: str | None
    answer: str | None  # dialogue families: the reply as it stands, in place of a solution
    check: tuple[str, ...]
    prints: str | None
    stdin: str


@dataclass(frozen=True)
class Family:
    """A task with open names. `combinations` is the number of ways to fill them in."""

    name: str
    topic: str
    fields: dict[str, Any]
    vary: dict[str, list[str]]

    @property
    def combinations(self) -> int:
        n = 1
        for values in self.vary.values():
            n *= len(values)
        return n

    def names(self, index: int) -> dict[str, str]:
        """The names of combination `index` (0 <= index < combinations); the order is fixed by the file."""
        chosen = {}
        for key, values in self.vary.items():
            index, i = divmod(index, len(values))
            chosen[key] = values[i]
        return chosen

    def task(self, index: int) -> Task:
        """The task of combination `index`."""
        chosen = self.names(index)

        def fill(text: str) -> str:
            return Template(text).substitute(chosen)

        f = self.fields
        return Task(
            family=self.name,
            topic=self.topic,
            ask=tuple(fill(a) for a in f["ask"]),
            python3=fill(f.get("python3", "")).strip("\n"),
            python2=fill(f["python2"]).strip("\n") if "python2" in f else None,
            answer=fill(f["answer"]).strip("\n") if "answer" in f else None,
            check=tuple(fill(c) for c in f.get("check", ())),
            prints=fill(f["prints"]) if "prints" in f else None,
            stdin=fill(f.get("stdin", "")),
        )

    def tasks(self, limit: int | None = None, seed: int = 0) -> Iterator[Task]:
        """All combinations, or `limit` of them drawn without replacement."""
        order = list(range(self.combinations))
        if limit is not None and limit < len(order):
            order = random.Random(f"{seed}:{self.name}").sample(order, limit)
        return (self.task(i) for i in order)


def read_families(path: Path) -> list[Family]:
    """Families of one TOML file, or of every TOML file in a folder, in file-name order.

    Raises:
        DataError: not TOML, an unknown or missing key, a name used twice, a `$name` that `vary` does not give.
    """
    families: dict[str, Family] = {}
    for file, entry in family_entries(path, KEYS):
        name, where = entry["name"], f"{file}: family {entry['name']}"
        if not {"topic", "ask"} <= set(entry) or not {"python3", "answer"} & set(entry):
            raise DataError("needs name, topic, ask and python3 (or answer)", where=where)
        family = Family(name, entry["topic"], {k: v for k, v in entry.items() if k != "vary"}, names_of(entry))
        try:
            family.task(0)
        except (KeyError, ValueError) as e:
            raise DataError(f"a $name that [family.vary] does not give: {e}", where=where) from e
        families[name] = family
    return list(families.values())


def family_entries(path: Path, keys: set[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, entry) of every [[family]] in a TOML file, or in every TOML file of a folder, in file-name order.

    Raises:
        DataError: no such files, not TOML, a family without a name, a name used twice, a key that is not in `keys`.
    """
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not files:
        raise DataError("no .toml family files here", where=path)
    names: set[str] = set()
    for file in files:
        try:
            entries = tomllib.loads(file.read_text(encoding="utf8"))["family"]
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as e:
            raise DataError(f"not a family file: {e}", where=file) from e
        for entry in entries:
            name = entry.get("name", "?")
            where = f"{file}: family {name}"
            if unknown := set(entry) - keys:
                raise DataError(f"unknown key {sorted(unknown)[0]!r}", where=where)
            if "name" not in entry:
                raise DataError("needs a name", where=where)
            if name in names:
                raise DataError("a family of this name exists already", where=where)
            names.add(name)
            yield file, entry


def names_of(entry: dict[str, Any]) -> dict[str, list[str]]:
    """An entry's `vary`, all values as text."""
    return {k: [str(v) for v in values] for k, values in entry.get("vary", {}).items()}


def run_checks(source: str, task: Task) -> None:
    """Execute `source` in this process against the task's checks. For the project's own families only: no sandbox.

    Raises:
        CheckFailed: with the reason.
    """
    checks.run_checks(source, task.check, task.prints, task.stdin)


def verify(family: Family, samples: int = 6) -> list[str]:
    """What is wrong with a family, as lines; empty if all is well. Runs `samples` combinations."""
    from mlx_gemma.data.python.source import parses_as_python2  # a grammar to build, which no reader of families needs

    problems = []
    if len(family.fields["ask"]) < 6:
        problems.append(f"only {len(family.fields['ask'])} wordings, 6 wanted")
    dialogue = "answer" in family.fields
    if family.combinations < (8 if dialogue else 12):
        problems.append(f"only {family.combinations} combinations")
    if not dialogue and "check" not in family.fields and "prints" not in family.fields:
        problems.append("nothing is checked")
    for task in itertools.islice(family.tasks(samples), 0 if dialogue else samples):
        try:
            run_checks(task.python3, task)
        except CheckFailed as e:
            problems.append(f"python3 fails its checks: {e}")
        if task.python2 is not None:
            if not parses_as_python2(task.python2):
                problems.append("python2 does not parse with the Python 2 grammar")
            try:
                run_checks(task.python2, task)
            except CheckFailed:
                pass
            else:
                problems.append("python2 runs and passes in Python 3, so it is no Python 2 variant")
    return list(dict.fromkeys(problems))


def main(paths: list[str]) -> int:
    families = [f for p in paths for f in read_families(Path(p))]
    bad = 0
    for family in families:
        for problem in verify(family):
            print(f"{family.topic}/{family.name}: {problem}")
            bad += 1
    n2 = sum("python2" in f.fields for f in families)
    print(f"{len(families)} families, {n2} with a Python 2 variant, {bad} problems")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
