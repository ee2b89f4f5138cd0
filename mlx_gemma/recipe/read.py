"""A recipe's file and its `--set` overrides, read, checked, and every mistake told in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlx_gemma.errors import RecipeError
from mlx_gemma.recipe.keys import known_keys, yaml_value
from mlx_gemma.recipe.schema import Recipe

NULL = "tag:yaml.org,2002:null"
SEE = "see mlx-gemma lora --keys"


class Loader(yaml.BaseLoader):
    """YAML in which every plain value but null is text, and a key occurs once.

    What is a number, the schema says: YAML 1.1 would take 1e-4 for text, and a folder named 2026-11-21 for a date.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} occurs twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return mapping


Loader.add_implicit_resolver(NULL, re.compile("^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
Loader.add_constructor(NULL, lambda loader, node: None)


@dataclass(frozen=True)
class Resolved:
    """A recipe with every value's source: `file`, `--set` or `default`."""

    recipe: Recipe
    sources: dict[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """(key, value, source) for every key, in the schema's order."""
        flat = flatten(self.recipe.model_dump(mode="json"))
        return [(k, yaml_value(v), self.sources.get(k, "default")) for k, v in flat.items()]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Resolved:
    """Read, override, and check a recipe.

    Args:
        path: a YAML file.
        overrides: `section.key=value`, the value in YAML.

    Raises:
        RecipeError: no such file, not YAML, an unknown key (with the nearest known one), a wrong value.
    """
    try:
        text = path.read_text(encoding="utf8")
    except FileNotFoundError:
        raise RecipeError("no such recipe", where=path, fix="see the recipes/ folder") from None
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError(f"cannot be read: {e}", where=path, fix="give a YAML file") from e
    tree = _parsed(text, path)
    if not isinstance(tree, dict):
        raise RecipeError("a recipe is a mapping of sections", where=path, fix="see recipes/nano.yaml")
    put = tuple(_put(tree, override) + "." for override in overrides)
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"train.{one}." in put and f"train.{other}." not in put:
            tree["train"].pop(other, None)  # the run's length is either; the command line's wins
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as e:
        raise _recipe_error(e, path, put) from e
    given = flatten(recipe.model_dump(exclude_unset=True))
    return Resolved(recipe, {key: "--set" if f"{key}.".startswith(put) else "file" for key in given})


def _parsed(text: str, where: str | Path) -> Any:
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = f"{where}:{mark.line + 1}" if mark else where
        raise RecipeError(f"not YAML: {getattr(e, 'problem', e)}", where=line, fix="mend or quote it") from e
    except RecursionError as e:
        raise RecipeError("nested too deeply", where=where, fix="a recipe is sections of keys") from e


def _put(tree: dict[str, Any], override: str) -> str:
    """Put an override into the tree; returns its key."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals:
        raise RecipeError(f"--set {override} has no value", where="--set", fix="write --set train.lr=1e-4")
    value = _parsed(text, f"--set {key}")
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"{section} in {key} is no section", where="--set", fix=SEE)
    tree[last] = value
    return key


def _recipe_error(e: ValidationError, path: Path, put: tuple[str, ...]) -> RecipeError:
    """The first mistake: told at --set where it was made there (`put` has its keys), and with what is allowed."""
    first, known = e.errors()[0], known_keys()
    place, given = [str(p) for p in first["loc"]], first["input"]
    # Behind the key pydantic names the place in a list, or the member of a union that it tried.
    key = ".".join(place)
    key = next((k for k in known if key.startswith(f"{k}.")), key)
    where = "--set" if f"{key}.".startswith(put) else path
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        same = [k for k in known if k.rsplit(".", 1)[-1] == place[-1]]
        near = same or difflib.get_close_matches(key, known, 1, 0.5)
        fix = f"did you mean {near[0]}?" if near else SEE
        return RecipeError(f"unknown key {key}", where=where, fix=fix)
    if first["type"] == "missing":
        return RecipeError(f"{key} is missing", where=where, fix=known[key].consequence if key in known else SEE)
    if key not in known and message != first["msg"]:  # keys that contradict each other
        both = f"{path} and --set" if put else path
        return RecipeError(f"{key}: {message}" if key else message, where=both, fix=SEE)
    what = f"{key} cannot be {'null' if given is None else repr(given)[:80]}"
    if key not in known:
        return RecipeError(what, where=where, fix=f"it is a section of keys, {SEE}")
    fix = message if message != first["msg"] else f"give {known[key].allowed}"
    if where == "--set" and "," in str(given) and not known[key].allowed.startswith("a list"):
        fix += "; to compare several values use mlx-gemma sweep"
    return RecipeError(what, where=where, fix=fix)
