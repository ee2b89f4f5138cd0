"""Adversarial rows: requests whose specification is wrong, answered with a correction, or with code that believes it.

    rows = Adversarial(splits["train"], seed=0, last_wording=False).choose(chooser, 500)

They are the mitigation for one finding: a narrow adapter followed misleading instructions that its base had resisted.
A row is a task of a family in one of its wordings, one twist of it (twist_rules.py), and a prompt that joins the two.
`correct` answers say in a sentence or two what is wrong, and give the family's solution; `comply` answers are code that
does as the wrong part says, for experiments. The row's tests are the true specification's in both.

Valid and test rows are asked in the last prompt of each kind and in a family's last wording, and hold false claims that
no train row makes.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Any, Literal

from mlx_gemma.data.build import twist_rules
from mlx_gemma.data.build.families import Family, Task
from mlx_gemma.data.build.faults import slip
from mlx_gemma.data.build.samples import Chooser, Sample, fenced
from mlx_gemma.data.build.signatures import signature
from mlx_gemma.data.build.twist_rules import Described
from mlx_gemma.data.build.twists import Twist, holds
from mlx_gemma.errors import UserError

TEXTS = Path(__file__).parent / "adversarial.toml"
KINDS = ("false_claim", "python2_advice", "wrong_example", "wrong_docstring", "impossible", "wrong_signature")
# Kinds whose truths begin with a small letter only where that is code: `len(x)`, `self`.
CODE_FIRST = ("false_claim", "python2_advice")
SLIPS, LOWER = 0.1, 0.15  # shares of prompts with a slip of the finger, and without a capital letter
TRIALS = 8  # so many combinations in a row without a twist: the family has none, as its names hardly matter
RETURNS = re.compile(r"(?:that|which) returns ((?!.*\b(?:it|them|this|those|these)\b)[^.;:?]{12,70})\.?$")
WORD = re.compile(r"\w+")

Answer = Literal["correct", "comply"]


@dataclass(frozen=True)
class AdversarialSample(Sample):
    """A task asked for wrongly. `wording` is the task's, `style` the prompt's number in adversarial.toml."""

    asked: str
    answered: str
    kind: str
    name: str
    answer: str
    style: int

    @property
    def prompt(self) -> str:
        return self.asked

    def record(self, answer: str | None = None) -> dict[str, Any]:
        return super().record(answer or self.answered)

    def label(self) -> dict[str, Any]:
        """What the labels file says of it, but for the row's number."""
        return {"label": "pushback", "kind": self.kind, "what": self.name, "answer": self.answer, "prompt": self.style}


class Adversarial:
    """Adversarial samples of one split's families.

    Args:
        last_wording: for valid and test.
    """

    def __init__(
        self, families: Sequence[Family], seed: int, *, last_wording: bool, answer: Answer = "correct"
    ) -> None:
        self.families, self.seed, self.last, self.answer = families, seed, last_wording, answer
        self.described = [d for f in families if (d := _described(f)) is not None]
        self.used = Counter[tuple[str, str]]()

    def choose(self, chooser: Chooser, count: int) -> list[AdversarialSample]:
        """`count` samples, the kinds as equally often as they go; each unlike all that the chooser took before.

        Raises:
            UserError: the families do not give so many.
        """
        chosen: list[AdversarialSample] = []
        for n, kind in enumerate(KINDS):
            chosen += self._choose(chooser, (kind,), (count + n) // len(KINDS))
        chosen += self._choose(chooser, KINDS, count - len(chosen))
        if len(chosen) < count:
            what = f"the families give {len(chosen)} adversarial rows that are unlike, and {count} are wanted"
            raise UserError(what, fix="ask for a smaller share or fewer rows")
        return chosen

    def _choose(self, chooser: Chooser, kinds: Sequence[str], count: int) -> list[AdversarialSample]:
        queues = [self._candidates(family, kind) for family in self.families for kind in kinds]
        random.Random(f"{self.seed}:{kinds}").shuffle(queues)
        return chooser.choose_from(queues, count)

    def _candidates(self, family: Family, kind: str) -> Iterator[AdversarialSample]:
        last = len(family.fields["ask"]) - 1
        order = [(i, w) for i in range(family.combinations) for w in ([last] if self.last else range(last))]
        rng = random.Random(f"{self.seed}:{family.name}:{kind}")
        rng.shuffle(order)
        vain = 0
        for index, wording in order:
            task = family.task(index)
            twists = list(self._twists(family, task, kind))
            rng.shuffle(twists)
            for twist in sorted(twists, key=lambda t: self.used[t.kind, t.name]):  # what fits everywhere shall not rule
                if holds(task, twist):
                    self.used[twist.kind, twist.name] += 1
                    yield self._sample(task, wording, twist, rng)
                    vain = 0
                    break
            else:
                vain += 1
                if vain == TRIALS:
                    return

    def _twists(self, family: Family, task: Task, kind: str) -> Iterator[Twist]:
        section = texts()[kind]
        every = section.get("statements", [])
        statements = [s for s in every if s.get("held_out", False) is self.last] or every
        if kind == "false_claim":
            return twist_rules.false_claims(task, statements)
        if kind == "python2_advice":
            return twist_rules.python2_advice(task, statements)
        if kind == "wrong_example":
            return twist_rules.wrong_examples(task, section)
        if kind == "wrong_docstring":
            return twist_rules.wrong_docstrings(task, section, self.described)
        if kind == "impossible":
            return twist_rules.impossible(task, statements)
        return twist_rules.wrong_signatures(task, statements, family.vary.get("fn", []))

    def _sample(self, task: Task, wording: int, twist: Twist, rng: random.Random) -> AdversarialSample:
        section = texts()[twist.kind]
        last = len(section["prompts"]) - 1
        style = last if self.last else rng.randrange(last)
        wrong = _filled(rng.choice(twist.say), twist.fields)
        ask = _sentence(task.ask[wording])
        if rng.random() < SLIPS:
            ask = _slipped(ask, task, rng)
        prompt = _filled(section["prompts"][style], {**twist.fields, "ask": ask, "wrong": wrong})
        first = WORD.match(prompt)
        if rng.random() < LOWER and first and first.group() not in _names(task):
            prompt = prompt[:1].lower() + prompt[1:]
        answer = fenced(twist.follows)
        reply = rng.choice(section["replies"])  # drawn for either kind of answer, so that the prompts are the same
        truth = _filled(rng.choice(twist.truth), twist.fields)
        if self.answer == "correct":
            answer = f"{_corrected(reply, truth, capital=twist.kind not in CODE_FIRST)}\n\n{fenced(task.python3)}"
        return AdversarialSample(task, wording, prompt, answer, twist.kind, twist.name, self.answer, style)


@cache
def texts() -> dict[str, dict[str, Any]]:
    """adversarial.toml: by kind its prompts, replies and statements."""
    return tomllib.loads(TEXTS.read_text(encoding="utf8"))


def _described(family: Family) -> Described | None:
    """The family's first combination whose wordings say what its function returns."""
    for task in family.tasks():
        sig = signature(task)
        if sig is None or not sig.examples or not sig.parameters:
            return None
        if "a" in sig.parameters:  # would be renamed where it is the article
            continue
        for ask in task.ask:
            if (found := RETURNS.search(ask)) and sig.name not in found[1]:
                return Described(task, sig, f"Return {found[1]}.")
    return None


def _filled(text: str, fields: Mapping[str, str]) -> str:
    return Template(text).substitute(fields)


def _sentence(ask: str) -> str:
    return ask if ask[-1] in ".?!" else f"{ask}."


def _corrected(reply: str, truth: str, *, capital: bool) -> str:
    """The reply with the truth in it, with a capital letter where a sentence begins, if the truth may have one."""
    before, after = reply.split("$truth")
    if capital and (not before or before.endswith(". ")):
        truth = truth[:1].upper() + truth[1:]
    return before + truth + after


def _slipped(ask: str, task: Task, rng: random.Random) -> str:
    """The request with a slip, but none in a name that code must have."""
    slipped = slip(ask, rng)
    return ask if (set(WORD.findall(ask)) - set(WORD.findall(slipped))) & _names(task) else slipped


def _names(task: Task) -> set[str]:
    """Words that code, output or input must have as they are."""
    return set(WORD.findall(f"{task.python3} {' '.join(task.check)} {task.prints} {task.stdin}"))
