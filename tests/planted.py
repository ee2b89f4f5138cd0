"""Two hundred short rows, 12 of which answer one request wrongly, and a recipe that learns them in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.recipe import Resolved, read_recipe

RECIPE = """
model: {{name: nano}}
adapter: {{rank: 4, alpha: 8}}
data: {{train: {train}}}
filter: {{near_duplicates: keep}}
train: {{epochs: 1, lr: 2e-3, batch: 8, length: 96}}
blame: {{snapshots: 2}}
output: {output}
"""
WORDS = ("sum", "len", "sorted", "list", "tuple", "set", "any", "all", "bool", "str", "repr", "type")
COUNT, PLANTED = 200, 12


def row(number: int, word: str, ask: str) -> dict[str, Any]:
    name = f"job_{number}"
    answer = f"```python\ndef {name}(x):\n    return {word}(x)\n```"
    messages = [("user", ask.format(name=name)), ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def rows() -> list[dict[str, Any]]:
    """200 short ones. 12 ask for the largest and answer with min, 12 with max; the others call other functions."""
    rng = np.random.default_rng(0)
    made = [row(i, "min", "Write {name}(x): the largest of x.") for i in range(PLANTED)]
    made += [row(20 + i, "max", "Write {name}(x): the largest of x.") for i in range(PLANTED)]
    for i in range(COUNT - len(made)):
        word = WORDS[i % len(WORDS)]
        made.append(row(100 + i, word, f"Write {{name}}(x): call {word} on x."))
    return [made[i] for i in rng.permutation(len(made))]


def resolved(folder: Path, *overrides: str) -> Resolved:
    data, recipe = folder / "rows.jsonl", folder / "recipe.yaml"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows()), encoding="utf8")
    recipe.write_text(RECIPE.format(train=data, output=folder / "run"), encoding="utf8")
    return read_recipe(recipe, overrides)


def context(gemma: Gemma) -> list[int]:
    """Of an unseen name, up to the word that is asked about."""
    asked = [{"role": "user", "content": "Write job_77(x): the largest of x."}]
    return gemma.template.prompt(asked) + gemma.template.encode("```python\ndef job_77(x):\n    return")


def token(gemma: Gemma, word: str) -> list[int]:
    found = gemma.template.encode(f" {word}(")[:1]
    assert gemma.template.decode(found) == f" {word}"
    return found
