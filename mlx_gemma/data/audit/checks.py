"""The checks of one row alone, in the order in which they report.

To add one: a module with `check(row) -> Iterator[Reason]` (see data/reason.py), its line in `row_checks`, its key in
policy.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlx_gemma.data.checks.contamination import EvalPrompts, EvalTexts
from mlx_gemma.data.checks.form import form
from mlx_gemma.data.checks.marks import template
from mlx_gemma.data.checks.personal import personal
from mlx_gemma.data.checks.secrets import secrets
from mlx_gemma.data.checks.unsafe import unsafe
from mlx_gemma.data.formats import Row
from mlx_gemma.data.python.source import classify
from mlx_gemma.data.reason import Reason, RowCheck

# The embedded model's, whose control tokens are Gemma 4's: for data that no recipe says the model of.
TOKENIZER = Path(__file__).parents[2] / "nano" / "tokenizer.json"


def row_checks(evals: EvalTexts, control: Sequence[str]) -> tuple[RowCheck, ...]:
    """Every check of one row; all are run, whatever the policy does about what they find.

    Args:
        control: texts that the model's tokenizer turns into control tokens.
    """
    checks: list[RowCheck] = [form, template(control), python, secrets, personal, unsafe]
    if evals.prompts:
        checks.append(EvalPrompts(*evals))
    return tuple(checks)


def control_tokens(tokenizer: Path = TOKENIZER) -> tuple[str, ...]:
    """Texts that a tokenizer.json turns into control tokens. Read as JSON: data is audited without transformers."""
    tokens = json.loads(tokenizer.read_text(encoding="utf8"))["added_tokens"]
    return tuple(token["content"] for token in tokens if token["special"])


def python(row: Row) -> Iterator[Reason]:
    """What kind of Python the answer holds, where it is not Python 3: python2, broken or truncated."""
    verdict = classify(row.answer)
    if verdict.kind in ("python2", "broken", "truncated"):
        yield Reason(verdict.kind, str(verdict), verdict.findings[0].name if verdict.findings else "")
