"""`mlx-gemma verify A B`: two artefacts, each in its own program, over the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.template import ChatTemplate
from mlx_gemma.interop import compare
from mlx_gemma.interop.artefact import QUANTISED, Artefact, open_artefact
from mlx_gemma.interop.compare import Difference

CONTINUED = 32  # tokens of each greedy continuation
# Mean logit difference that is accepted, in standard deviations of the logits, for the coarser precision of the two.
# Measured on random models, which are ill conditioned: float32 1e-6, bfloat16 and float16 4e-2, Q8_0 9e-2, four bits
# 0.6 (README.md has the table).
ACCEPTED = {"F32": 1e-4, "F16": 0.1, "BF16": 0.1, "Q8_0": 0.2, QUANTISED: 1.0}
LLAMA_CPP = 5e-3  # of float32 too: its GELU is a table in float16


@dataclass(frozen=True)
class Verified:
    """What was found. `programs`: of both sides; `same`: prompts with the same greedy continuation, of `prompts`."""

    programs: tuple[str, str]
    gap: Difference
    accepted: float  # mean logit difference
    same: int
    prompts: int

    @property
    def equal(self) -> bool:
        return self.gap.mean <= self.accepted


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
        template: to write the prompts with; None: the first that either artefact has.
        ours: ask no other program.

    Raises:
        UserError: neither brings a chat template.
        ModelError: one of them does not load, or they are of different vocabularies.

    Cost: one model in memory at a time, and its logits: 1 MB a token at a vocabulary of 262,144.
    """
    template = template or first.template() or second.template()
    if template is None:
        raise UserError("neither brings a chat template", where=second.name, fix="give the model (--base)")
    asked = [template.prompt([{"role": "user", "content": prompt}]) for prompt in prompts]
    longest = max(map(len, asked)) + CONTINUED
    opened = open_artefact(first, longest, ours=ours)
    said = [opened.greedy(tokens, CONTINUED) for tokens in asked]
    sequences = [a + s for a, s in zip(asked, said, strict=True)]
    reference = np.concatenate([opened.logits(tokens) for tokens in sequences])
    names = [opened.program]
    del opened
    opened = open_artefact(second, longest, ours=ours)
    names.append(opened.program)
    gap = compare.difference(np.concatenate([opened.logits(tokens) for tokens in sequences]), reference)
    stops = {template.end, template.tokenizer.eos_token_id}
    same = sum(
        until(opened.greedy(tokens, CONTINUED), stops) == until(s, stops) for tokens, s in zip(asked, said, strict=True)
    )
    share = max(ACCEPTED.get(side.precision, ACCEPTED[QUANTISED]) for side in (first, second))
    share = max(share, LLAMA_CPP) if "llama.cpp" in names else share
    return Verified((names[0], names[1]), gap, share * gap.spread, same, len(asked))


def until(tokens: Sequence[int], stops: set[int]) -> list[int]:
    """Up to the first stop token, and with it."""
    for i, token in enumerate(tokens):
        if token in stops:
            return list(tokens[: i + 1])
    return list(tokens)
