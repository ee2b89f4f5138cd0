"""HumanEval's and MBPP's published files as suite items; the user supplies the files, none of their text is here.

    HumanEval (Chen et al. 2021, arXiv 2107.03374): HumanEval.jsonl.gz, one object a line with task_id, prompt (a
        signature and docstring), entry_point, canonical_solution (the body) and test (defines `check(candidate)`)
    MBPP (Austin et al. 2021, arXiv 2108.07732): mbpp.jsonl with text, code, task_id, test_setup_code, test_list (assert
        statements), challenge_test_list; sanitized-mbpp.json, one array, with prompt and test_imports instead

The wording around a task is this project's own: figures are not comparable with published ones, which complete a text.
An `assert` that fails is a check that is not true. HumanEval's own imports and helpers (what stands before the
function) run before an answer, which often does not repeat them.
"""

from __future__ import annotations

from typing import Any

from mlx_gemma.data.decoding.json_text import Bad
from mlx_gemma.data.records import text_of

HUMANEVAL = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
COMPLETE = "Complete this Python 3 function. Answer with the whole function."
MBPP = ("task_id", "code", "test_list")


def published_item(record: dict[str, Any]) -> dict[str, Any] | None:
    """A line of HumanEval or MBPP as a line of a suite; None where it is neither.

    Raises:
        Bad: one of the two, but with a value of the wrong kind.
    """
    if all(key in record for key in HUMANEVAL):
        return _humaneval(record)
    if all(key in record for key in MBPP) and ("text" in record or "prompt" in record):
        return _mbpp(record)
    return None


def _humaneval(record: dict[str, Any]) -> dict[str, Any]:
    prompt, name, solution, test = (text_of(record, key) for key in HUMANEVAL[1:])
    if not name.isidentifier() or f"def {name}" not in prompt:
        raise Bad("'entry_point' is no function of 'prompt'", "take the file as it was published")
    preamble = prompt[: prompt.rindex(f"def {name}")]
    return {
        "id": str(record["task_id"]),
        "type": "HumanEval",
        "prompt": f"{COMPLETE}\n\n```python\n{prompt.rstrip()}\n```",
        "tests": {"check": [_holds(f"{test}\n\ncheck({name})")], "setup": preamble.strip()},
        "reference": f"```python\n{prompt}{solution.rstrip()}\n```",
    }


def _mbpp(record: dict[str, Any]) -> dict[str, Any]:
    text, code = text_of(record, "text" if "text" in record else "prompt"), text_of(record, "code")
    tests = record["test_list"]
    more = record.get("challenge_test_list") or []
    setup = record.get("test_setup_code") or "\n".join(record.get("test_imports") or [])
    if not isinstance(tests, list) or not tests or not all(isinstance(t, str) for t in (*tests, *more, setup)):
        raise Bad("'test_list' must be a list of assert statements", "take the file as it was published")
    shown = "\n".join(tests)
    return {
        "id": f"MBPP/{record['task_id']}",
        "type": "MBPP",
        "prompt": f"{text.strip()}\n\nWrite it in Python 3. These must hold:\n\n```python\n{shown}\n```",
        "tests": {"check": [_holds(f"{setup}\n{test}") for test in (*tests, *more)]},
        "reference": f"```python\n{code.strip()}\n```",
    }


def _holds(statements: str) -> str:
    """An expression that is true where the statements run without an AssertionError."""
    return f"not raises(AssertionError, exec, {statements!r}, globals())"
