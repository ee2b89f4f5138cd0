"""What nano can do and a Python 3 adapter may lose: requests that name Python 2, and dialogue.

The rows of datasets/nano/regression.jsonl, whose loss a run measures before and after training. All are asked in their
family's last wording, which nano's pretraining never used. The Python 2 rows come from the families of the training
split, so that an adapter that forgets the version named in the request is seen to.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from mlx_gemma.data.build.families import Family
from mlx_gemma.data.build.samples import LICENSE, fenced

REQUEST = "Use Python 2."
PYTHON2_ROWS = 60
PER_DIALOGUE = 1
UNKNOWN_TO_NANO = {"horner_reduce", "matrix_column_sums"}  # families younger than its corpus


def regression_rows(families: Sequence[Family], dialogues: Sequence[Family], seed: int) -> Iterator[dict[str, Any]]:
    """Rows in `messages` form: Python 2 named and answered, one a family; then dialogue, one a family."""
    known = sorted(
        (f for f in families if "python2" in f.fields and f.name not in UNKNOWN_TO_NANO), key=lambda f: f.name
    )
    rng = random.Random(f"{seed}:regression")
    for family in sorted(rng.sample(known, min(PYTHON2_ROWS, len(known))), key=lambda f: f.name):
        task = next(family.tasks(1, seed))
        assert task.python2 is not None
        yield _row(family, f"{task.ask[-1]} {REQUEST}", fenced(task.python2))
    for family in dialogues:
        for task in family.tasks(PER_DIALOGUE, seed):
            assert task.answer is not None
            yield _row(family, task.ask[-1], task.answer)


def _row(family: Family, request: str, answer: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "family": family.name, "topic": family.topic, "license": LICENSE}
