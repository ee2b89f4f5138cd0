"""The trials of a sweep: each value of each key with each of the others, every one a recipe of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mlx_gemma import digest, run
from mlx_gemma.errors import RecipeError, UserError
from mlx_gemma.recipe.read import Resolved, read_recipe

LONGEST = 120  # characters of a folder's name; file systems allow 255 bytes


@dataclass(frozen=True)
class Trial:
    """One point of the grid: what is set there, by key, and where its run goes."""

    values: dict[str, str]
    folder: Path
    recipe: Path
    overrides: tuple[str, ...]
    resolved: Resolved


def split_values(text: str) -> list[str]:
    """`8,16,32` to its values. Brackets, braces and quotes hold together: `[q_proj, k_proj],[v_proj]` is two."""
    values, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and not values[-1].strip():  # elsewhere it is an apostrophe
            quote = char
        depth += 0 if quote else (char in "[{") - (char in "]}")
        if char == "," and depth == 0 and not quote:
            values.append("")
        else:
            values[-1] += char
    return [value.strip() for value in values]


def grid(recipe: Path, sets: Sequence[str]) -> tuple[Path, list[Trial]]:
    """The sweep's folder and its trials, every recipe among them checked.

    Args:
        recipe: a YAML file. The runs' folders lie in its output with -sweep behind it, so that a run of the recipe
            itself has its own, or in `output=FOLDER` of `sets`.
        sets: `section.key=value,value,…`. The last key varies fastest.

    Raises:
        RecipeError: a key given twice, an empty or repeated value, or a recipe that is not right.
        UserError: the sweep's folder is a run's.
    """
    choices: dict[str, list[str]] = {}
    for text in sets:
        key, equals, values = (part.strip() for part in text.partition("="))
        choice = split_values(values)
        if not equals or "" in choice or len(set(choice)) < len(choice):
            fix = "write --set adapter.rank=8,16,32, and null for none"
            raise RecipeError(f"--set {text} has no values, an empty one, or one twice", where="--set", fix=fix)
        if key in choices:
            raise RecipeError(f"{key} is given twice", where="--set", fix="put all of its values behind one --set")
        choices[key] = choice
    output = choices.pop("output", None) or [f"{Path(read_recipe(recipe).recipe.output)}-sweep"]
    if len(output) > 1:
        raise RecipeError("a sweep has one output", where="--set", fix="give one folder; the runs' lie in it")
    root = Path(output[0]).expanduser()
    if (root / run.MANIFEST).exists() or (root / run.RECIPE).exists():
        fix = "choose another folder for the sweep (--set output=…)"
        raise UserError("holds a run, and a sweep's folder holds folders of runs", where=root, fix=fix)
    trials = []
    for point in product(*choices.values()):
        named = dict(zip(choices, point, strict=True))
        folder = root / folder_name(named)
        overrides = (*(f"{k}={v}" for k, v in named.items()), f"output={json.dumps(str(folder))}")
        trials.append(Trial(named, folder, recipe, overrides, read_recipe(recipe, overrides)))
    return root, trials


def folder_name(values: dict[str, str]) -> str:
    """`adapter.rank=8,train.lr=1e-4`; where that is no plain or short name, cut, with a digest behind it."""
    name = ",".join(f"{k}={v}" for k, v in values.items()) or "recipe"
    plain = re.sub(r"[^\w.,=+-]+", "_", name)
    if plain == name and len(name) <= LONGEST:
        return name
    return f"{plain[: LONGEST - 9]}-{digest.digest_json(name)[:8]}"
