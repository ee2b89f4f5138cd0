"""The one schema of a recipe: what is trained, on what, how, and where the result goes.

A recipe is a YAML file; every key can be overridden with `--set section.key=value`; keys that do not exist are refused.
Each key's consequence is its description here, and `mlx-gemma lora --keys` prints them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.errors import RecipeError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Target = Literal[
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "per_layer_input_gate",
    "per_layer_projection",
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelSection(Section):
    name: str
    """nano, a folder, or a hub id such as google/gemma-4-E2B-it"""
    revision: str | None = None
    """hub branch, tag or commit; the commit that was used is recorded in the run"""


class AdapterSection(Section):
    rank: int = Field(32, ge=1)
    """capacity, and memory: parameters grow in proportion"""
    alpha: float = Field(64.0, gt=0)
    """strength: the update is multiplied by alpha / rank"""
    dropout: Fraction = 0.0
    """share of the adapter's input set to zero in training, against overfitting"""
    targets: tuple[Target, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """projections of the text decoder that get an adapter; k_proj and v_proj exist only below the K/V-shared layers"""
    layers: int | Literal["all"] = "all"
    """all, or how many counted from the last; E2B's last 20 share their K/V: 20 or fewer train no k_proj, v_proj"""

    @field_validator("targets")
    @classmethod
    def _some_target(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if not targets or len(set(targets)) < len(targets):
            raise ValueError("give at least one target, each once")
        return targets

    @field_validator("layers")
    @classmethod
    def _some_layer(cls, layers: int | str) -> int | str:
        if isinstance(layers, int) and layers < 1:
            raise ValueError("give all, or at least 1")
        return layers


class DataSection(Section):
    train: str
    """a JSONL or Parquet file, a folder, or hf://owner/name[/file]; relative paths start at the working directory"""
    valid: str | None = None
    """held-out rows for the validation loss; none: no validation"""
    turns: Literal["all", "last"] = "all"
    """train on all of the model's turns, or only on the last one"""
    limit: int | None = Field(None, ge=1)
    """use only the first so many rows after filtering, shuffled by the seed; for trials"""


class TrainSection(Section):
    length: int = Field(1024, ge=16)
    """longest row in tokens; longer ones are cut, and dropped where the cut leaves nothing to train"""
    batch: int = Field(8, ge=1)
    """rows in one forward pass: speed against memory"""
    accumulate: int = Field(1, ge=1)
    """forward passes in one update, weighted by supervised tokens: batch x accumulate rows make one update"""
    lr: float = Field(2e-4, gt=0)
    """peak learning rate; halve it if the loss jumps, double it if it does not move"""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """how the rate falls after warm-up, counted in updates"""
    warmup: Fraction = 0.03
    """share of the updates over which the rate rises from 0"""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decay of the adapter's weights"""
    clip: float = Field(1.0, gt=0)
    """largest global gradient norm; larger ones are scaled down to it"""
    epochs: float | None = Field(None, gt=0)
    """passes over the rows; give this or steps"""
    steps: int | None = Field(None, ge=1)
    """updates; give this or epochs"""
    checkpointing: bool = False
    """recompute each layer in the backward pass: about 1.3 times the time, under half the memory"""
    seed: int = Field(0, ge=0)
    """of the adapter's initial weights, the order of rows and dropout"""

    @model_validator(mode="after")
    def _one_length(self) -> TrainSection:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either train.epochs or train.steps")
        return self


class ValidSection(Section):
    every: int = Field(50, ge=1)
    """updates between two measurements of the validation loss, over all validation rows"""


class Recipe(Section):
    model: ModelSection
    adapter: AdapterSection = AdapterSection()
    data: DataSection
    filter: FilterPolicy = FilterPolicy()
    train: TrainSection
    validation: ValidSection = ValidSection()
    output: str
    """the run folder; it must not hold a finished run"""


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


def yaml_value(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("...").strip()


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, str]:
    """Every key with its consequence."""
    keys: dict[str, str] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys |= known_keys(inner, f"{prefix}{name}.")
        else:
            keys[f"{prefix}{name}"] = field.description or ""
    return keys


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Resolved:
    """Read, override, and check a recipe.

    Args:
        path: a YAML file.
        overrides: `section.key=value`, the value in YAML.

    Raises:
        RecipeError: no such file, not YAML, an unknown key (with the nearest known one), a wrong value.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise RecipeError("no such recipe", where=path, fix="see the recipes/ folder") from None
    except (OSError, UnicodeDecodeError) as e:
        raise RecipeError(f"cannot be read: {e}", where=path, fix="give a YAML file") from e
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise RecipeError(f"not YAML: {getattr(e, 'problem', e)}", where=where, fix="mend the line") from e
    if not isinstance(tree, dict):
        raise RecipeError("a recipe is a mapping of sections", where=path, fix="see recipes/nano.yaml")
    sources = dict.fromkeys(flatten(tree), "file")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"--set {override} has no value", where="--set", fix="write --set train.lr=1e-4")
        _put(tree, key.strip(), text)
        sources[key.strip()] = "--set"
    try:
        return Resolved(Recipe.model_validate(tree), sources)
    except ValidationError as e:
        raise _recipe_error(e, path) from e


def _put(tree: dict[str, Any], key: str, text: str) -> None:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise RecipeError(f"the value of {key} is not YAML: {text}", where="--set", fix="quote it") from e
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)  # YAML 1.1 reads 1e-4 as text
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"{section} in {key} is no section", where="--set", fix="see mlx-gemma lora --keys")
    tree[last] = value


def _recipe_error(e: ValidationError, path: Path) -> RecipeError:
    first = e.errors()[0]
    place = [str(p) for p in first["loc"]]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        same = [k for k in known_keys() if k.rsplit(".", 1)[-1] == place[-1]]
        near = same or difflib.get_close_matches(key, known_keys(), 1, 0.5)
        return RecipeError(
            f"unknown key {key}", where=path, fix=f"did you mean {near[0]}?" if near else "see mlx-gemma lora --keys"
        )
    if first["type"] == "missing":
        return RecipeError(f"{key} is missing", where=path, fix=known_keys().get(key) or "add it")
    message = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f", not {first['input']!r}"
    known = known_keys().get(key)
    return RecipeError(
        f"{key}: {message}{given}" if key else message, where=path, fix=known or "see mlx-gemma lora --keys"
    )
