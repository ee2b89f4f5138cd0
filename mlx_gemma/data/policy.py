"""What a recipe's `filter:` section may say: one key a check, each with its consequence.

filter:
  malformed: stop            # or reject: leave the row out and go on
  python2: reject            # or keep: count and report, but train on them
  broken: reject
  truncated: reject
  exact_duplicates: reject
  near_duplicates: 0.9       # a similarity, or keep
  contamination: [evals/python3.jsonl]
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Action = Literal["reject", "keep"]
Similarity = Annotated[float, Field(ge=0.5, le=1)]

HomePath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]


class FilterPolicy(BaseModel):
    """Which rows are not trained on. Every check is counted and reported, whatever is done about it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    malformed: Literal["stop", "reject"] = "stop"
    """rows that cannot be read: stop at the first, with its file and line, or leave them out"""
    python2: Action = "reject"
    """answers whose code is Python 2, by its grammar or by its names"""
    broken: Action = "reject"
    """answers whose code neither Python accepts"""
    truncated: Action = "reject"
    """answers that stop inside their code"""
    exact_duplicates: Action = "reject"
    """all but the first of rows whose prompt and answer are equal, white space aside"""
    near_duplicates: Similarity | Literal["keep"] = 0.9
    """all but the first of rows at least so similar (Jaccard, 0.5 to 1), comments, case and punctuation aside"""
    contamination: tuple[HomePath, ...] = ()
    """eval files: rows that ask what one of their prompts asks are left out"""
