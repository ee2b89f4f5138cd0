"""One of the project's data sets in a folder of the user's, from the families in the package: the same bytes anywhere.

    build_set("python3", Path("mine"), pushback=0.1)

    train.jsonl, valid.jsonl, test.jsonl    no family is in two of them
    suite.jsonl                             60 prompts of test families, as an eval file
    SPLIT.labels.jsonl                      which rows are adversarial or, in train of `raw`, faulty, by their line

Without options `python3` has the rows of datasets/python3, and the train rows of `raw` are its raw.jsonl.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mlx_gemma.data.build.adversarial import AdversarialSample, Answer
from mlx_gemma.data.build.python3 import TRAIN, choose
from mlx_gemma.data.card.write import write_card
from mlx_gemma.data.write import write_jsonl
from mlx_gemma.run import whole_folder

NAMES = ("python3", "raw")

Name = Literal["python3", "raw"]

ABOUT = """Small programming tasks with solutions that have been run against their checks, made from the task families
of mlx-gemma:

    mlx-gemma data build {name} --rows {rows} --seed {seed}{pushback} --out FOLDER

No family is in two splits, and valid, test and the eval prompts of `suite.jsonl` are asked in a wording that train has
not. `SPLIT.labels.jsonl` names rows by their line: {labels}.
"""
FAULTS = "faults, set by how a row was made and never by what a filter says of it"
PUSHBACK = "adversarial rows, whose request is wrong in some part (kind, what, answer, number of the prompt's wording)"


def build_set(
    name: Name, out: Path, *, rows: int = TRAIN, seed: int = 0, pushback: float = 0, answer: Answer = "correct"
) -> dict[str, dict[str, int]]:
    """Write a data set and its card to `out`, whole or not at all; about 10 s for 5,000 rows.

    Args:
        out: a folder that does not exist yet.
        rows: train rows before faults are put in; fewer where the families do not give so many.
        pushback: share of adversarial rows in every split, faults not counted.
        answer: `correct` ones say what is wrong, `comply` ones do as they are told.

    Returns:
        By split, the number of rows, and of each label.

    Raises:
        UserError: `out` exists or cannot be written; more adversarial rows wanted than there are.
    """
    with whole_folder(out) as part:
        chosen = choose(seed, rows, pushback, answer)
        counts = {}
        for split, samples in chosen.samples.items():
            if name == "raw" and split == "train":
                records, labels = chosen.raw(seed)
            else:
                records = [s.record() for s in samples]
                labels = [{"row": n, **s.label()} for n, s in enumerate(samples, 1) if isinstance(s, AdversarialSample)]
            write_jsonl(part / f"{split}.jsonl", records)
            if labels:
                write_jsonl(part / f"{split}.labels.jsonl", labels)
            counts[split] = _counts(len(records), labels)
        write_jsonl(part / "suite.jsonl", chosen.eval_file())
        about = ABOUT.format(
            name=name,
            rows=rows,
            seed=seed,
            pushback=f" --pushback {pushback:g} --pushback-answer {answer}" if pushback else "",
            labels="; ".join([FAULTS] * (name == "raw") + [PUSHBACK] * bool(pushback)) or "here there are none",
        )
        write_card(part, name=f"{name}, seed {seed}", language="en", about=about)
    return counts


def _counts(rows: int, labels: list[Mapping[str, Any]] | list[dict[str, Any]]) -> dict[str, int]:
    counts = {"rows": rows}
    for label in labels:
        counts[label["label"]] = counts.get(label["label"], 0) + 1
    return counts
