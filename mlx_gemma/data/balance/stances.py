"""Whether an answer does as it was asked, or refuses, corrects the request, or pushes back.

    refusal     does not do it: "I'm sorry, but I can't help with that"
    correction  says that something in the request is wrong: "Actually, print is a function in Python 3", "the example
                contradicts the description"; what the answer then does is all the same
    pushback    objects, or asks before it does anything: "I'd advise against eval here", "which version do you use?"

Rules (stance_rules.py) over the first sentences of English prose; code, quotations and letters that the answer writes
for somebody are left out. On the 157 labelled answers of tests/data/samples/stances.jsonl, half of which only look like
these, they are right in 156 (76 of the 78 held out, when first run on them). In words that the rules have not met, they
find less: of the project's own adversarial rows 20 % when first seen, 98 % after; so a share is a lower bound. Of the
5,328 docstrings of the standard library they take 3 for one of these.
"""

from __future__ import annotations

import re
from typing import Literal

from mlx_gemma.data.balance.languages import INLINE, prose
from mlx_gemma.data.balance.stance_rules import CORRECTION, PUSHBACK, REFUSAL

Stance = Literal["refusal", "correction", "pushback"]
STANCES: tuple[Stance, ...] = ("refusal", "correction", "pushback")

READ = 600  # characters of prose; an answer that objects says so first

QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|(?<!\w)'[^'\n]{3,}'(?!\w)")
LETTER = re.compile(r"^\s*(dear|hello|hi)\s[^.!?\n]{1,40},\s*$", re.IGNORECASE | re.MULTILINE)
SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")

PATTERNS: dict[Stance, tuple[str, ...]] = {"pushback": PUSHBACK, "refusal": REFUSAL, "correction": CORRECTION}
RULES = {name: [re.compile(pattern, re.IGNORECASE) for pattern in patterns] for name, patterns in PATTERNS.items()}


def stance(answer: str) -> Stance | None:
    """What an answer does with its request beyond fulfilling it; None: nothing of the kind. Linear, about 50 us."""
    words = LETTER.split(INLINE.sub("x", prose(answer[: 8 * READ])[:READ].replace("\u2019", "'")))[0]
    sentences = [s.strip(" \t*_>-") for s in SENTENCE.split(QUOTED.sub("Q", words)) if s.strip()][:4]
    for name, rules in RULES.items():
        if any(rule.search(s) for s in sentences for rule in rules):
            return name
    return None
