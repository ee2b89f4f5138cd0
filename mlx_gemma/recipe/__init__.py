"""The recipe: what is trained, on what, how, and where the result goes.

A YAML file with the keys of schema.py; every key can be overridden with `--set section.key=value`; keys that do not
exist are refused.
"""

from mlx_gemma.recipe.keys import Key, known_keys
from mlx_gemma.recipe.read import Resolved, read_recipe
from mlx_gemma.recipe.schema import AdapterSection, Recipe, TrainSection

__all__ = ["AdapterSection", "Key", "Recipe", "Resolved", "TrainSection", "known_keys", "read_recipe"]
