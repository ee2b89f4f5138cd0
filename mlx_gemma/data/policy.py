"""What a recipe's `filter:` section may say: one key a check, each with its consequence.

filter:
  malformed: reject          # rows that cannot be read at all
  python2: reject            # or keep: count and report, but train on them
  broken: reject
  truncated: reject
  exact_duplicates: reject
  near_duplicates: 0.9       # a similarity; or `keep`
  contamination: [evals/python3.jsonl]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Action = Literal["reject", "keep"]
Share = Annotated[float, Field(gt=0, le=1)]


class FilterPolicy(BaseModel):
    """Which rows are not trained on. Every check is counted and reported, whatever is done about it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    malformed: Action = Field(
        "reject", description="rows of no known shape; `keep` is refused, they cannot be trained on"
    )
    python2: Action = Field("reject", description="answers whose code is Python 2, by its grammar or by its names")
    broken: Action = Field("reject", description="answers whose code neither Python accepts")
    truncated: Action = Field("reject", description="answers that stop inside their code")
    exact_duplicates: Action = Field("reject", description="all but the first of rows equal after normalisation")
    near_duplicates: Share | Literal["keep"] = Field(
        0.9, description="all but the first of rows whose prompt and answer have at least this Jaccard similarity each"
    )
    contamination: tuple[Path, ...] = Field((), description="eval files: rows like one of their prompts are left out")
