"""The checks of one row alone, in the order in which they report.

To add one: a module with `check(row) -> Iterator[Reason]` (see data/reason.py), its line in `row_checks`, its key in
policy.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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

# The embedded model's, whose control tokens are Gemma 4's. Read as JSON: data is audited without MLX or transformers.
TOKENIZER = Path(__file__).parents[2] / "nano" / "tokenizer.json"


def row_checks(evals: EvalTexts) -> tuple[RowCheck, ...]:
    """Every check of one row; all are run, whatever the policy does about what they find."""
    checks: list[RowCheck] = [form, template(control_tokens()), python, secrets, personal, unsafe]
    if evals.prompts:
        checks.append(EvalPrompts(*evals))
    return tuple(checks)


def control_tokens() -> tuple[str, ...]:
    """Texts that Gemma 4's tokenizers turn into control tokens."""
    tokens = json.loads(TOKENIZER.read_text(encoding="utf8"))["added_tokens"]
    return tuple(token["content"] for token in tokens if token["special"])


def python(row: Row) -> Iterator[Reason]:
    """What kind of Python the answer holds, where it is not Python 3: python2, broken or truncated."""
    verdict = classify(row.answer)
    if verdict.kind in ("python2", "broken", "truncated"):
        yield Reason(verdict.kind, str(verdict), verdict.findings[0].name if verdict.findings else "")
