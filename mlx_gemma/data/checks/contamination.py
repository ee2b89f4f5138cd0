"""Rows that give an evaluation away: by its prompts, or by its answers.

Four ways, in this order: equal after normalisation; a run of thirteen words in common (the usual measure for long
texts), which an eval prompt inside a longer prompt has too; nearly equal by the Jaccard similarity of character
shingles. A row's prompts are compared with the eval's prompts, its answers with the eval's reference answers, where it
has some: as code, without fences and comments. An answer of a few characters is no evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mlx_gemma.data.checks.duplicates import (
    ExactIndex,
    NearIndex,
    Shingles,
    answer_shingles,
    normalised,
    normalised_answer,
    prompt_shingles,
)
from mlx_gemma.data.formats import BadRow, Row, row_of
from mlx_gemma.data.reason import Reason
from mlx_gemma.data.records import read_eval_items, read_records

NEAR = 0.75
RUN = 13  # words
SHORT = 30  # characters, normalised: what is shorter is answered the same way by chance
# Where eval items have their reference answer.
ANSWERS = ("answer", "reference", "completion", "canonical_solution", "python3")
WORD = re.compile(r"\w+")
FENCED = re.compile(r"^[ \t]*+(`{3,}+|~{3,}+)[^\n]*+\n(.*?)(?:^[ \t]*+\1|\Z)", re.MULTILINE | re.DOTALL)


class EvalTexts(NamedTuple):
    """(name, text) of an evaluation's prompts, and of its reference answers."""

    prompts: list[tuple[str, str]]
    answers: list[tuple[str, str]]


class EvalPrompts:
    """The texts of evaluations, indexed on first use; a check of the audit. About 0.3 ms a row.

    Args:
        prompts: (id, prompt) pairs.
        answers: (id, reference answer) pairs.
    """

    def __init__(self, prompts: Iterable[tuple[str, str]], answers: Iterable[tuple[str, str]] = ()) -> None:
        self.texts = EvalTexts(list(prompts), list(answers))

    def __reduce__(self) -> tuple[Any, ...]:
        return EvalPrompts, tuple(self.texts)  # a worker builds its own index

    def __call__(self, row: Row) -> Iterator[Reason]:
        for role, name, index in (("user", "prompt", self._prompts), ("assistant", "answer", self._answers)):
            for message in row.messages:
                if index is not None and message["role"] == role and (found := index.find(message["content"])):
                    yield Reason("contamination", f"{name} {found[0]}", name, of=found[1])
                    break

    def find(self, row: Row) -> str | None:
        """Which item the row gives away, and how, in words; None if it gives none away."""
        return next((reason.message for reason in self(row)), None)

    @cached_property
    def _prompts(self) -> _Texts | None:
        return _Prompts(self.texts.prompts) if self.texts.prompts else None

    @cached_property
    def _answers(self) -> _Texts | None:
        answers = [(name, text) for name, text in self.texts.answers if len(normalised_answer(_code(text))) >= SHORT]
        return _Answers(answers) if answers else None


class _Texts:
    """Texts of one kind, searchable for one that another text gives away."""

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        self._exact, self._near = ExactIndex(), NearIndex(NEAR)
        self._runs: dict[str, str] = {}
        for name, text in ((name, self.prepared(text)) for name, text in texts):
            self._exact.add(name, text)
            self._near.add(name, self.shingles(text))
            for run in _runs(text):
                self._runs.setdefault(run, name)

    def prepared(self, text: str) -> str:
        raise NotImplementedError

    def shingles(self, text: str) -> Shingles:
        raise NotImplementedError

    def find(self, text: str) -> tuple[str, str] | None:
        """("equals ID", ID), or what else it does to which item."""
        text = self.prepared(text)
        if not text:
            return None
        if name := self._exact.find(text):
            return f"equals {name}", name
        for run in _runs(text):
            if name := self._runs.get(run):
                return f"shares {RUN} words in a row with {name}", name
        if match := self._near.find(self.shingles(text)):
            return f"is {match.similarity:.2f} similar to {match.where}", match.where
        return None


class _Prompts(_Texts):
    def prepared(self, text: str) -> str:
        return normalised(text)

    def shingles(self, text: str) -> Shingles:
        return prompt_shingles(text)


class _Answers(_Texts):
    def prepared(self, text: str) -> str:
        text = normalised_answer(_code(text))
        return text if len(text) >= SHORT else ""

    def shingles(self, text: str) -> Shingles:
        return answer_shingles(text)


def _code(answer: str) -> str:
    """The fenced code of an answer, of any language; the answer itself where nothing is fenced."""
    return "\n".join(block for _, block in FENCED.findall(answer)) or answer


def _runs(text: str) -> Iterator[str]:
    words = WORD.findall(text.casefold())
    return (" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1))


def read_evals(files: Iterable[Path]) -> EvalTexts:
    """The prompts and reference answers of eval files: JSON Lines with `prompt` and, if there are, `id` and one of
    ANSWERS; or rows in any shape that is trained on.

    Raises:
        DataError: see `read_eval_items`; a bad row.
    """
    texts = EvalTexts([], [])
    for file in files:
        for key, prompt, answers in _items(file):
            name = f"{file.name}:{key}"
            texts.prompts.append((name, normalised(prompt)))
            texts.answers.extend((name, answer) for answer in answers)
    return texts


def _items(file: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(id, prompt, answers) of every item or, where the first is a row with its answer, of every row."""
    if isinstance(row_of(next(read_records(file))[1], str(file)), Row):
        for place, record in read_records(file):
            row = row_of(record, f"{file}:{place}" if place else str(file))
            if isinstance(row, BadRow):
                raise row.error()
            yield str(row.extra.get("id", place)), row.messages[-2]["content"], [row.answer]
        return
    for item in read_eval_items(file):
        found = (item.record.get(key) for key in ANSWERS)
        yield item.id, item.prompt, [answer for answer in found if isinstance(answer, str)]


def read_eval_prompts(files: Iterable[Path]) -> list[tuple[str, str]]:
    """(id, prompt) of eval files.

    Raises:
        DataError: see `read_eval_items`.
    """
    return read_evals(files).prompts
