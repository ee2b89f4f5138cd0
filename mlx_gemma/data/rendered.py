"""Rows as the model will see them: rendered through its chat template, many at once, and single ones to look at.

for sample in rendered_samples(gemma.template, rows, length=1024):
    print(sample.where, sample.marked())    # <bos><|turn>user\\n...<|turn>model\\n⟦def add...<turn|>⟧
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from mlx_gemma.data.formats import Row
from mlx_gemma.data.visible import visible
from mlx_gemma.errors import DataError
from mlx_gemma.gemma4.template import ChatTemplate, Example

SHOWN = 4096  # tokens of a sample, at most


@dataclass(frozen=True)
class Run:
    """Tokens beside one another that are all trained, or all not; `cut`: beyond the recipe's length, so lost."""

    tokens: tuple[int, ...]
    text: str
    trained: bool
    cut: bool


@dataclass(frozen=True)
class RenderedSample:
    """A row's exact tokens, in runs. Lengths are of the whole row, also where only its first SHOWN tokens are here."""

    where: str
    tokens: int
    trained: int
    lost: int
    runs: tuple[Run, ...]

    def marked(self) -> str:
        """The text, safe for a terminal: what is trained between ⟦ and ⟧, what is cut off behind ✂."""
        parts, cut = [], False
        for run in self.runs:
            parts.append("✂" if run.cut and not cut else "")
            cut = run.cut
            parts.append(f"⟦{visible(run.text)}⟧" if run.trained else visible(run.text))
        return "".join(parts)


def examples(template: ChatTemplate, rows: Sequence[Row], *, turns: str = "all") -> list[Example | DataError]:
    """What `template.example` gives for each row, in three quarters of its time; the error of a row it refuses."""
    results: list[str | DataError] = []
    for row in rows:
        try:
            results.append(template.render(row.messages, generate=False))
        except DataError as e:
            results.append(DataError(e.what, where=row.where, fix=e.fix))
    texts = [text for text in results if isinstance(text, str)]
    encodings = iter(template.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    return [
        r if isinstance(r, DataError) else template.supervise(list(next(encodings).ids), turns=turns) for r in results
    ]


def rendered_samples(
    template: ChatTemplate, rows: Sequence[Row], length: int, *, turns: str = "all"
) -> list[RenderedSample]:
    """Each row as it is trained, cut at `length` tokens; a row that the template refuses is left out."""
    rendered = zip(rows, examples(template, rows, turns=turns), strict=True)
    return [_sample(template, row.where, e, length) for row, e in rendered if isinstance(e, Example)]


def _sample(template: ChatTemplate, where: str, example: Example, length: int) -> RenderedSample:
    shown = zip(range(SHOWN), example.tokens, example.supervised, strict=False)
    runs = []
    for (trained, cut), members in groupby(shown, key=lambda one: (one[2], one[0] >= length)):
        tokens = tuple(token for _, token, _ in members)
        runs.append(Run(tokens, template.decode(tokens), trained, cut))
    lost = sum(example.supervised[length:])
    return RenderedSample(where, len(example.tokens), example.targets, lost, tuple(runs))
