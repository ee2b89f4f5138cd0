"""What a recipe's `filter:` section may say: one key a check, each with its consequence, and hard limits.

filter:
  malformed: stop            # or reject: leave the row out and go on
  python2: reject            # or keep: count and report, but train on them
  near_duplicates: 0.9       # a similarity, or keep
  contamination: [evals/tasks.jsonl]
  limits: {python2: 0.1, secrets: 0}
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mlx_gemma.data.reason import Reason

Action = Literal["reject", "keep"]
Similarity = Annotated[float, Field(ge=0.5, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]

CheckName = Literal[
    "malformed",
    "form",
    "template",
    "python2",
    "broken",
    "truncated",
    "runs",
    "secrets",
    "personal",
    "unsafe",
    "contamination",
    "exact_duplicates",
    "near_duplicates",
    "contradictions",
    "semantic",
]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)

HomePath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]


class FilterPolicy(BaseModel):
    """Which rows are not trained on. Every check is counted and reported, whatever is done about it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    malformed: Literal["stop", "reject"] = "stop"
    """rows that cannot be read: stop at the first, with its file and line, or leave them out"""
    form: Action = "keep"
    """rows with control or replacement characters, text decoded wrongly, mixed line ends and the like"""
    template: Action = "reject"
    """rows whose text holds tokens or turn markers of a chat template, which would end or forge a turn"""
    python2: Action = "reject"
    """answers whose code is Python 2, by its grammar or by its names"""
    broken: Action = "reject"
    """answers whose code neither Python accepts"""
    truncated: Action = "reject"
    """answers that stop inside their code"""
    runs: Action = "reject"
    """answers that fail the tests of their row, where `audit --run` runs them; training runs nothing"""
    secrets: Action = "reject"
    """rows with keys, tokens or passwords"""
    personal: Action = "keep"
    """rows with e-mail addresses, telephone, card or account numbers"""
    unsafe: Action = "keep"
    """answers whose code has an insecure pattern"""
    exact_duplicates: Action = "reject"
    """all but the first of rows whose prompt and answer are equal, white space aside"""
    near_duplicates: Similarity | Literal["keep"] = 0.9
    """all but the first of rows at least so similar (Jaccard, 0.5 to 1), comments, case and punctuation aside"""
    contradictions: Action = "keep"
    """all but the first of rows that give one prompt different answers, white space and comments aside"""
    semantic: Similarity | Literal["keep"] = "keep"
    """all but the first of rows that ask the same in other words (cosine; 0.75 is strict); keep: not computed"""
    contamination: tuple[HomePath, ...] = ()
    """eval files: rows that ask what one of their prompts asks, or give its answer, are left out"""
    limits: dict[CheckName, Share] = {}
    """the largest share of the rows read, 0 to 1, in which a check may find something; a run with more is refused"""

    def action(self, check: str) -> Literal["stop", "reject", "keep", "off"]:
        """What is done about a row in which the check finds something; off: it is not looked for."""
        setting = getattr(self, check)
        if setting == "keep" and check in ("near_duplicates", "semantic"):
            return "off"
        return setting if setting in ("keep", "stop") else "reject"

    def rejects(self, reasons: Iterable[Reason]) -> bool:
        """Whether a row is left out for these reasons."""
        return any(self.action(reason.check) != "keep" for reason in reasons)
