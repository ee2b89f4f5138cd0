"""Rows that give an evaluation away: their prompt is one of its prompts, holds it, or is nearly the same.

Four ways, in this order: equal after normalisation; the eval prompt inside a longer prompt; a run of thirteen words in
common (the usual measure for long prompts); nearly equal by the Jaccard similarity of character shingles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mlx_gemma.data.duplicates import ExactIndex, NearIndex, normalised, prompt_shingles
from mlx_gemma.data.formats import Row
from mlx_gemma.data.records import read_eval_items

NEAR = 0.75
RUN = 13  # words
WORD = re.compile(r"\w+")


class EvalPrompts:
    """The prompts of evaluations, indexed; `find` costs about 0.3 ms a row.

    Args:
        prompts: (id, prompt) pairs.
    """

    def __init__(self, prompts: Iterable[tuple[str, str]]) -> None:
        self._exact, self._near = ExactIndex(), NearIndex(NEAR)
        self._runs: dict[str, str] = {}
        for name, prompt in prompts:
            self._exact.add(name, prompt)
            self._near.add(name, prompt_shingles(prompt))
            for run in _runs(prompt, RUN):
                self._runs.setdefault(run, name)

    def find(self, row: Row) -> str | None:
        """Which item the row gives away, and how, in words; None if it gives none away."""
        asked = [m["content"] for m in row.messages if m["role"] == "user"]
        for prompt in asked:
            if name := self._exact.find(prompt):
                return f"prompt equals {name}"
            for run in _runs(prompt, RUN):
                if run in self._runs:
                    return f"prompt shares {RUN} words in a row with {self._runs[run]}"
            if match := self._near.find(prompt_shingles(prompt)):
                return f"prompt is {match.similarity:.2f} similar to {match.where}"
        return None


def _runs(text: str, length: int) -> list[str]:
    words = WORD.findall(text.casefold())
    return [" ".join(words[i : i + length]) for i in range(len(words) - length + 1)]


def read_eval_prompts(files: Iterable[Path]) -> list[tuple[str, str]]:
    """(id, prompt) of eval files: JSON Lines with `prompt` and, if there is one, `id`.

    Raises:
        DataError: see `read_eval_items`.
    """
    return [(f"{file.name}:{item.id}", normalised(item.prompt)) for file in files for item in read_eval_items(file)]
