"""The text decoder's tensors under the three names that they go by.

    model.language_model.layers.3.mlp.up_proj.weight    Gemma4ForConditionalGeneration, Google's own files
    model.layers.3.mlp.up_proj.weight                   Gemma4ForCausalLM, the text decoder alone
    language_model.model.layers.3.mlp.up_proj.weight    mlx-lm's multimodal class; its text-only class is as the second

What is behind the prefix is the same everywhere, and is called a tensor's place here.
"""

from __future__ import annotations

import re

_DECODER = re.compile(
    r"(?:model\.language_model|language_model\.model|model)\."
    r"((?:layers|embed_tokens|embed_tokens_per_layer|norm|per_layer_model_projection|per_layer_projection_norm)\..+)"
)


def place(name: str) -> str | None:
    """`layers.3.mlp.up_proj.weight` of any of the three; None for what is not the text decoder's."""
    found = _DECODER.fullmatch(name)
    return found[1] if found else None


def layer_place(name: str) -> str | None:
    """The same, for what lies in a decoder layer."""
    found = place(name)
    return found if found and found.startswith("layers.") else None
