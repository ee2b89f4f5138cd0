"""`mlx-gemma verify A B`: two artefacts, each in its own program, over the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_gemma import platform
from mlx_gemma.errors import ModelError, UserError
from mlx_gemma.gemma4.template import ChatTemplate
from mlx_gemma.interop import compare
from mlx_gemma.interop.artefact import Artefact
from mlx_gemma.interop.compare import Difference
from mlx_gemma.interop.opening import Opened, open_artefact
from mlx_gemma.interop.precision import Bound, bound, coarsest

CONTINUED = 32  # tokens of each greedy continuation
# Rounding on the way, whatever the weights are stored in, as the precision that it is like (docs/interop.md has a
# table):
LLAMA_CPP = "F16"  # its GELU is a table in float16: 6.5e-4
ADAPTER = "F16"  # an adapter's matrices, rounded alone to either 16 bits: 2.5e-3
GPU = "F16"  # may take float32 products in as many bits (TF32)
NARROW = "8 bits"  # a decoder computed in bfloat16, where float32 has no room: 0.02 to 0.06 beside the weights'


@dataclass(frozen=True)
class Verified:
    """What was found. `programs`: of both sides; `same`: prompts with the same greedy continuation, of `prompts`."""

    programs: tuple[str, str]
    gap: Difference
    accepted: Bound  # mean logit difference, now absolute, and KL
    same: int
    prompts: int

    @property
    def equal(self) -> bool:
        return self.gap.mean <= self.accepted.mean and self.gap.kl <= self.accepted.kl


def verify(
    first: Artefact,
    second: Artefact,
    prompts: Sequence[str],
    *,
    template: ChatTemplate | None = None,
    ours: bool = False,
) -> Verified:
    """Compare two artefacts over prompts, each followed by the first one's greedy continuation.

    Args:
        template: to write the prompts with; None: that of the first artefact that has one which can be read.
        ours: ask no other program.

    Raises:
        UserError: neither brings a chat template.
        ModelError: neither's tokenizer and template can be read, one of them does not load, or they are of different
            vocabularies.

    Cost: one model in memory at a time, and its logits: 1 MB a token at a vocabulary of 262,144.
    """
    template = template or _template(first, second)
    asked = [template.prompt([{"role": "user", "content": prompt}]) for prompt in prompts]
    longest = max(map(len, asked)) + CONTINUED
    opened = open_artefact(first, longest, ours=ours)
    said = [opened.greedy(tokens, CONTINUED) for tokens in asked]
    sequences = [a + s for a, s in zip(asked, said, strict=True)]
    reference = np.concatenate([opened.logits(tokens) for tokens in sequences])
    names, between = [opened.program], _computed(opened)
    del opened
    opened = open_artefact(second, longest, ours=ours)
    names.append(opened.program)
    between = [*rounded(first, second), *between, *_computed(opened)]
    gap = compare.difference(np.concatenate([opened.logits(tokens) for tokens in sequences]), reference)
    stops = {template.end, template.tokenizer.eos_token_id}
    same = sum(
        until(opened.greedy(tokens, CONTINUED), stops) == until(s, stops) for tokens, s in zip(asked, said, strict=True)
    )
    share = bound(coarsest(between))
    return Verified((names[0], names[1]), gap, Bound(share.mean * gap.spread, share.kl), same, len(asked))


def rounded(first: Artefact, second: Artefact) -> list[str]:
    """The precisions to which weights may have been rounded on one side and not on the other.

    Two sides that compute with one checkpoint's weights as they stand share whatever rounding these have gone through:
    only the adapters' own count then.
    """
    if first.unrounded and first.unrounded == second.unrounded:
        own = [side.adapter_precision or "F32" for side in (first, second)]
        return [ADAPTER if name == "BF16" else name for name in own]
    return [side.precision for side in (first, second)]


def _computed(opened: Opened) -> list[str]:
    """The precisions that the program's own arithmetic is like."""
    if opened.program == "llama.cpp":
        return [LLAMA_CPP]
    gpu = platform.backend() != "cpu" and opened.program.startswith("mlx")
    return [GPU] * gpu + [NARROW] * (not opened.wide)


def _template(*sides: Artefact) -> ChatTemplate:
    failed: list[ModelError] = []
    for side in sides:
        try:
            if found := side.template():
                return found
        except ModelError as e:
            failed.append(e)
    if failed:
        raise failed[0]
    raise UserError("neither brings a chat template", where=sides[-1].name, fix="give the model (--base)")


def until(tokens: Sequence[int], stops: set[int]) -> list[int]:
    """Up to the first stop token, and with it."""
    for i, token in enumerate(tokens):
        if token in stops:
            return list(tokens[: i + 1])
    return list(tokens)
