"""The card of datasets/python3: origin, licence, counts, how the faults were made, digests. Written by build.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_gemma.data.build.rebuild import digest_lines
from mlx_gemma.run import write_text

# What the Hugging Face hub reads at the top of any of the project's cards, as str.format takes it.
FRONT = """---
license: apache-2.0
language: [en]
task_categories: [text-generation]
tags: [{tags}, synthetic, instruction]
pretty_name: {name}
size_categories: [1K<n<10K]
configs:
- config_name: default
  data_files:
  - {{{{split: train, path: train.jsonl}}}}
  - {{{{split: validation, path: valid.jsonl}}}}
  - {{{{split: test, path: test.jsonl}}}}
---
"""

CARD = (
    FRONT.format(name="python3", tags="code, python")
    + """
# python3: small programming tasks, answered in Python 3

Requests for one small function, class or script each, and a solution that has been run against its checks. Written for
this project (Apache-2.0), with no other source: {families} task families in `families/`, each with several wordings,
one solution whose names vary, and checks. It is a test bed for training and for filters, not a way to teach a model
Python: the tasks are short, English, and of {families} kinds.

This file and all data are written by `python -m mlx_gemma.data.build.python3` (seed {seed}); with `--check` it tells
whether they are still what that gives.

## Files

| file | rows | families | what |
|---|---:|---:|---|
{splits}
| `raw.jsonl` | {raw_rows:,} | | the train rows as they would come from the wild, with the faults below |
| `raw.labels.jsonl` | {label_rows:,} | | the faults: line of raw.jsonl, label, how made, `of` which line |

No family is in two splits. Train rows use every wording of a family but its last; valid and test rows, and the prompts
of `evals/tasks.jsonl` (from the test families), are asked in the last wording only. No two rows of train, valid and
test are {limit} similar or more (Jaccard of character shingles over prompt and answer, as the audit measures it); every
near duplicate put into raw is above the audit's threshold of {threshold}.

The same script writes `datasets/nano/regression.jsonl` ({regression_rows} rows), for the recipe key `data.regression`:
what the embedded model can do and an adapter for Python 3 may lose. One row each of 60 train families, asked in the
last wording with "Use Python 2." and answered in Python 2, and one of every dialogue family of
`datasets/nano/dialogue.toml`. The answers are the families' own, not nano's; the rows are for measuring a loss, not for
training.

## A row

```json
{{"messages": [{{"role": "user", "content": "..."}}, {{"role": "assistant", "content": "```python ... ```"}}],
 "family": "list_sum", "topic": "lists",
 "tests": {{"check": ["expressions true after the solution has run"], "prints": null, "stdin": ""}},
 "license": "Apache-2.0"}}
```

`prints` is a Python expression for a script's whole output. The checks of a faulty row are those of the sound one.

## Faults in raw.jsonl

| label | rows | how it was made |
|---|---:|---|
{faults}

Python 2, broken and truncated rows stand in place of train rows; duplicates and leaked rows come on top. The labels are
set by how a row was made, never by what a filter says of it. A `python2_value` row is Python 2 whose text is sound
Python 3 too, with other results (`return map(f, x)`, `total / count`): only running its checks can tell, so filters
that read are scored without these rows, which are counted apart.

## Digests (sha256)

```
{digests}
```
"""
)

WHAT = {"train": "for training", "valid": "for the validation loss", "test": "held back"}
HOW = {
    "python2": "the family's Python 2 program: no Python 3 syntax ({syntax}), or an error when run ({error})",
    "python2_value": "the same, where Python 3 runs it with other values",
    "broken": "a bracket, colon or indent taken away; no longer compiles",
    "truncated": "cut inside the code, with or without the closing fence",
    "exact_duplicate": "another row, at most with more white space",
    "near_duplicate": "another row with a slip, other case or punctuation in the prompt, a comment or blank line",
    "leaked": "an eval prompt and its answer, one in three with a slip in the prompt",
}


def write_card(
    path: Path,
    rows: Mapping[str, int],
    splits: Mapping[str, Sequence[Any]],
    labels: Sequence[Mapping[str, Any]],
    raw_rows: int,
    digests: dict[str, str],
    **facts: object,
) -> None:
    """Write the card.

    Args:
        rows: rows by split.
        splits: families by split.
        facts: `seed`, `limit`, `threshold` and `regression_rows`.
    """
    counts = Counter(label["label"] for label in labels)
    hows = Counter(label["how"] for label in labels if label["label"] == "python2")
    text = CARD.format(
        families=sum(map(len, splits.values())),
        splits="\n".join(f"| `{n}.jsonl` | {rows[n]:,} | {len(splits[n])} | {WHAT[n]} |" for n in rows),
        faults="\n".join(f"| {name} | {counts[name]} | {how.format(**hows)} |" for name, how in HOW.items()),
        raw_rows=raw_rows,
        label_rows=len(labels),
        digests=digest_lines(digests),
        **facts,
    )
    write_text(path, text)
