"""The verdict on code: Python 3, Python 2, broken, truncated or none, against labels and against real code.

    python benchmarks/detector.py [--files N]    # N of site-packages' files, drawn at random

A row of benchmarks/data.jsonl, and on the terminal every file that is called Python 2. Parts:

raw         datasets/python3/raw.jsonl against its labels, which come from how a row was made. `python2_value` stands
            apart: Python 3 runs these and only their values differ.
damage      answers of train.jsonl, damaged here in the same ways with other draws (the rules were written with raw's
            at hand): a bracket, colon or indent taken away, or cut, with a closed fence.
library     the standard library of the running interpreter. Whether a file is Python 3 says its own `compile`.
packages    files of site-packages, likewise: real code of many hands.
2to3        the cases of fissix's own tests, before and after its fixers for what only Python 2 has. They lie in
            site-packages; nothing is copied.
constructs  tests/data/python2_constructs.toml.
speed       CPU milliseconds a row of train.jsonl.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import statistics
import sysconfig
import textwrap
import time
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import fissix
from training import commit

from mlx_gemma import platform
from mlx_gemma.data.python.source import classify, classify_source

ROOT = Path(__file__).parents[1]
DATA = ROOT / "datasets" / "python3"
KINDS = ("python2", "broken", "truncated")
# fissix's fixers for what only Python 2 has; the others (map, input, throw, idioms, ...) change code that runs.
FIXERS = [
    "apply",
    "basestring",
    "buffer",
    "dict",
    "except",
    "exec",
    "execfile",
    "funcattrs",
    "getcwdu",
    "has_key",
    "imports",
    "intern",
    "itertools",
    "itertools_imports",
    "long",
    "metaclass",
    "methodattrs",
    "ne",
    "next",
    "nonzero",
    "numliterals",
    "operator",
    "print",
    "raise",
    "raw_input",
    "reduce",
    "reload",
    "repr",
    "standarderror",
    "sys_exc",
    "tuple_params",
    "types",
    "unicode",
    "urllib",
    "xrange",
    "xreadlines",
]


def answers(name: str) -> list[str]:
    lines = (DATA / name).read_text(encoding="utf8").splitlines()
    return [json.loads(line)["messages"][-1]["content"] for line in lines]


def rates(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Recall and precision of each kind, from (what it is, what it is called)."""
    figures = {}
    for kind in KINDS:
        right = sum(a == b == kind for a, b in pairs)
        of, called = sum(a == kind for a, _ in pairs), sum(b == kind for _, b in pairs)
        figures[kind] = {"rows": of, "called": called, "right": right}
        figures[kind] |= (
            {"recall": round(right / of, 4), "precision": round(right / called, 4)} if of and called else {}
        )
    return figures


def raw() -> dict[str, Any]:
    labels = {x["row"]: x for x in map(json.loads, (DATA / "raw.labels.jsonl").read_text(encoding="utf8").splitlines())}
    pairs, constructs, values = [], Counter[str](), Counter[str]()
    for number, answer in enumerate(answers("raw.jsonl"), 1):
        label = labels.get(number, {"label": "clean"})["label"]
        verdict = classify(answer)
        if label == "python2_value":
            values[verdict.kind] += 1
            continue
        pairs.append((label if label in KINDS else "python3", verdict.kind))
        if label == "python2":
            constructs.update({f.name for f in verdict.findings} or {"nothing"})
    return rates(pairs) | {"constructs": dict(constructs.most_common()), "python2_value called": dict(values)}


def damage(count: int = 600) -> dict[str, Any]:
    rng, pairs = random.Random(20_261_121), []
    ways = {"bracket": r"[()\[\]{}]", "colon": r":$", "indent": r"^ {4}(?=\S)"}
    for answer in rng.sample([a for a in answers("train.jsonl") if a.startswith("```python\n")], 2 * count):
        code = answer.removeprefix("```python\n").removesuffix("\n```")
        if len(pairs) % 2:
            cut = code[: rng.randrange(len(code) // 4, len(code) - 1)].rstrip()
            kind, damaged = "truncated", cut
        else:
            places = list(re.finditer(ways[rng.choice(list(ways))], code, re.MULTILINE))
            place = rng.choice(places) if places else None
            kind, damaged = "broken", code[: place.start()] + code[place.end() :] if place else code
        if not compiles(damaged):
            pairs.append((kind, classify(f"```python\n{damaged}\n```").kind))
    return rates(pairs)


def compiles(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<source>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def real(files: list[Path], root: Path) -> dict[str, Any]:
    """Files by what the interpreter and what we say of them; and the findings where these differ."""
    called: dict[str, Counter[str]] = {"compiles": Counter(), "refused": Counter()}
    offenders, size = {}, 0
    for file in files:
        try:
            source = file.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        size += len(source)
        verdict = classify_source(source)
        fine = compiles(source)
        called["compiles" if fine else "refused"][verdict.kind] += 1
        if (fine and verdict.kind in KINDS) or verdict.kind == "python2":
            offenders[f"{file.relative_to(root)} ({'compiles' if fine else 'refused'})"] = f"{verdict.kind}: {verdict}"
    return {
        "files": len(files),
        "characters": size,
        "called": {k: dict(c) for k, c in called.items()},
        "offenders": offenders,
    }


def fixtures() -> Iterator[tuple[str, str, str]]:
    """(fixer, before, after) of fissix's tests: `b = "..."`, `a = "..."`, `self.check(b, a)`."""
    tests = Path(fissix.__file__).parent / "tests" / "test_fixers.py"
    for group in ast.parse(tests.read_text(encoding="utf8")).body:
        fixer = group.name.removeprefix("Test_") if isinstance(group, ast.ClassDef) else ""
        for function in group.body if fixer in FIXERS else ():
            texts: dict[str, str] = {}
            for node in function.body if isinstance(function, ast.FunctionDef) else ():
                value = getattr(node, "value", None)
                if isinstance(node, ast.Assign) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    texts[getattr(node.targets[0], "id", "")] = textwrap.dedent(value.value)
                elif isinstance(value, ast.Call) and getattr(value.func, "attr", "") == "check":
                    before, after = (texts.get(getattr(x, "id", "")) for x in value.args[:2])
                    if before and after:
                        yield fixer, before, after


def two_to_three() -> dict[str, Any]:
    found, missed, false = Counter[str](), Counter[str](), []
    for fixer, before, after in fixtures():
        (found if classify_source(before).kind == "python2" else missed)[fixer] += 1
        if (verdict := classify_source(after)).kind == "python2" and compiles(after):
            false.append(f"{fixer}: {after.strip()[:60]!r}: {verdict}")
    counts = {f: [found[f], found[f] + missed[f]] for f in FIXERS if found[f] + missed[f]}
    return {"found": found.total(), "of": found.total() + missed.total(), "fixers": counts, "after": false}


def constructs() -> dict[str, Any]:
    table = tomllib.loads((ROOT / "tests" / "data" / "python2_constructs.toml").read_text(encoding="utf8"))
    asked = [c for c in table["construct"] if "skip" not in c]
    others = [c["python3"] for c in asked] + [c["source"] for c in table["python3"]]
    return {
        "constructs": len(asked),
        "found": sum(classify_source(c["python2"]).kind == "python2" for c in asked),
        "python3": len(others),
        "called python2": sum(classify_source(s).kind == "python2" for s in others),
    }


def speed() -> dict[str, Any]:
    took: dict[str, list[float]] = {}
    for answer in answers("train.jsonl")[:3000] + answers("raw.jsonl")[:3000]:
        began = time.process_time_ns()
        kind = classify(answer).kind
        took.setdefault(kind, []).append((time.process_time_ns() - began) / 1e6)
    return {k: {"rows": len(t), "median_ms": round(statistics.median(t), 3)} for k, t in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=4000, help="of site-packages")
    args = parser.parse_args()
    classify("print 'warm'")
    figures: dict[str, Any] = {"raw": raw(), "damage": damage(), "2to3": two_to_three(), "constructs": constructs()}
    figures["speed"] = speed()
    library, packages = (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))
    files = [f for f in sorted(library.rglob("*.py")) if "site-packages" not in f.parts]
    figures["library"] = real(files, library)
    files = sorted(packages.rglob("*.py"))
    figures["packages"] = real(sorted(random.Random(0).sample(files, min(args.files, len(files)))), packages)
    print(json.dumps(figures, indent=1))
    row = {"date": date.today().isoformat(), "bench": "detector", "figures": figures}
    row |= {"machine": platform.describe(), "commit": commit()}
    with (Path(__file__).parent / "data.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
