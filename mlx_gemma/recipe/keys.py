"""The keys of a recipe as `lora --keys`, docs/recipe.md and the messages about wrong values tell them: one source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from mlx_gemma.recipe.schema import Recipe

LONG = 10**6  # bounds from here on are written as powers


@dataclass(frozen=True)
class Key:
    """What there is to know about a key. `allowed` goes on from "give …"; no default: it must be given."""

    default: str | None
    allowed: str
    consequence: str


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, Key]:
    """Every key, `section.key`, in the schema's order."""
    keys: dict[str, Key] = {}
    schema = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys |= known_keys(inner, f"{prefix}{name}.")
        else:
            default = None if field.is_required() else yaml_value(schema[name]["default"])
            keys[f"{prefix}{name}"] = Key(default, _allowed(schema[name]), " ".join((field.description or "").split()))
    return keys


def yaml_value(value: Any) -> str:
    """A value as YAML writes it on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("...").strip()


def _allowed(schema: dict[str, Any]) -> str:
    return ", or ".join(_one(member) for member in schema.get("anyOf", [schema]))


def _one(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return f"{', '.join(schema['enum'][:-1])} or {schema['enum'][-1]}"
    match schema["type"]:
        case "array":
            items = schema["items"]
            return f"a list of {', '.join(items['enum']) if 'enum' in items else 'paths'}"
        case "object":
            return f"a share from 0 to 1 for each of {', '.join(schema['propertyNames']['enum'])}"
        case "integer":
            return f"a whole number{_range(schema)}"
        case "number":
            return f"a number{_range(schema)}"
        case other:
            return {"boolean": "true or false", "string": "text", "null": "null"}[other]


def _range(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        return f" over {schema['exclusiveMinimum']}" + (f", at most {_bound(high)}" if high else "")
    return f" from {low:g} to " + (_bound(high) if high else f"under {_bound(schema['exclusiveMaximum'])}")


def _bound(number: float) -> str:
    """65536, 1e9, 2^64."""
    if number < LONG:
        return f"{number:g}"
    bits = int(number).bit_length() - 1
    return f"2^{bits}" if int(number) == 2**bits else f"{number:.0e}".replace("e+0", "e").replace("e+", "e")
