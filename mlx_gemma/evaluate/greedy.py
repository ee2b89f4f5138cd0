"""A model's greedy answers to a suite, judged and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_gemma.decode.generate import generate
from mlx_gemma.evaluate.judge import VERDICTS, Item, Verdict, judge
from mlx_gemma.evaluate.stats import Rate
from mlx_gemma.gemma4.load import Gemma


@dataclass(frozen=True)
class Answer:
    item: Item
    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Outcome:
    """All answers of one model."""

    answers: list[Answer]

    def rates(self) -> dict[str, Rate]:
        """Rate of each verdict, in VERDICTS order."""
        counts = Counter(a.verdict.verdict for a in self.answers)
        return {v: Rate(counts[v], len(self.answers)) for v in VERDICTS}

    @property
    def bad(self) -> Rate:
        return Rate(sum(a.verdict.bad for a in self.answers), len(self.answers))


def run_suite(
    gemma: Gemma,
    items: Sequence[Item],
    *,
    system: str | None = None,
    max_tokens: int = 192,
    done: Callable[[Answer], None] = lambda a: None,
) -> Outcome:
    """Answer every item greedily and judge it, one after another."""
    answers = []
    for item in items:
        text = generate(gemma, item.prompt, system=system, max_tokens=max_tokens).text
        answers.append(Answer(item, text, judge(text, item)))
        done(answers[-1])
    return Outcome(answers)
