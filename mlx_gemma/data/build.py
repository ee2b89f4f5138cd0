"""Build datasets/python3, evals/python3.jsonl and datasets/nano/regression.jsonl: the same bytes from the same seed.

    python -m mlx_gemma.data.build [--seed 0] [--check]    # about 10 s on one core; --check compares and writes nothing

1. The families of every topic are split, about 80 / 10 / 10 %: no task is in two of train, valid and test.
2. Train rows use every wording of a family but its last; valid, test and eval prompts are asked in the last only.
3. A row is taken only if it is less than LIMIT similar to every row taken before it, so that no two clean rows are near
   duplicates for the audit, and if its solution passes its checks under the Python that runs this.
4. raw.jsonl is the train rows with labelled faults (faults.py); raw.labels.jsonl says which, and no filter sees it.
5. The regression rows are what nano should still be able to do after training (regression.py).
"""

from __future__ import annotations

import random
from pathlib import Path

from mlx_gemma.data import rebuild
from mlx_gemma.data.card import write_card
from mlx_gemma.data.families import read_families
from mlx_gemma.data.faults import add_faults
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.data.rebuild import ROOT, record_digests
from mlx_gemma.data.regression import regression_rows
from mlx_gemma.data.samples import LIMIT, Chooser, fenced, split_families
from mlx_gemma.data.write import write_jsonl

FOLDER, EVALS, REGRESSION = "datasets/python3", "evals/python3.jsonl", "datasets/nano/regression.jsonl"
FAMILIES, DIALOGUES = ROOT / FOLDER / "families", ROOT / "datasets" / "nano" / "dialogue.toml"
TRAIN, VALID, TEST, ITEMS = 5000, 300, 300, 60  # rows wanted; where the families yield fewer, fewer are taken


def build(root: Path, seed: int = 0) -> dict[str, str]:
    """Write the data set, the suite and the regression rows to their places below `root`; about 10 s, 150 MB.

    Returns:
        The sha256 of every file written, by its path below `root`; also in the data set's digests.json.

    Raises:
        DataError: a family that is wrong.
        CheckFailed: a solution that fails its own checks.
    """
    out = root / FOLDER
    splits = split_families(read_families(FAMILIES), seed)
    chooser = Chooser(seed)
    suite = chooser.choose(splits["test"], ITEMS, last_wording=True)
    chooser.forget_answers()
    test = chooser.choose(splits["test"], TEST, last_wording=True)
    valid = chooser.choose(splits["valid"], VALID, last_wording=True)
    train = chooser.choose(splits["train"], TRAIN, last_wording=False)
    for samples in (train, valid, test):
        random.Random(f"{seed}:order").shuffle(samples)
    items = [
        {"id": f"python3-{n:03}", "family": s.task.family, "topic": s.task.topic, "prompt": s.prompt, "tests": s.tests}
        for n, s in enumerate(sorted(suite, key=lambda s: (s.task.topic, s.task.family, s.prompt)), 1)
    ]
    leaks = {s.prompt: fenced(s.task.python3) for s in suite}
    raw, labels = add_faults(
        train, [(item, leaks[str(item["prompt"])]) for item in items], random.Random(f"{seed}:raw")
    )

    write_jsonl(root / EVALS, items)
    files = {"train": train, "valid": valid, "test": test}
    for name, samples in files.items():
        write_jsonl(out / f"{name}.jsonl", (s.record() for s in samples))
    write_jsonl(out / "raw.jsonl", raw)
    write_jsonl(out / "raw.labels.jsonl", labels)
    regression = list(regression_rows(splits["train"], read_families(DIALOGUES), seed))
    write_jsonl(root / REGRESSION, regression)
    paths = [f"{FOLDER}/{name}.jsonl" for name in (*files, "raw", "raw.labels")]
    digests = record_digests(root, FOLDER, seed, [*paths, EVALS, REGRESSION])
    rows = {name: len(samples) for name, samples in files.items()}
    facts = {
        "seed": seed,
        "limit": LIMIT,
        "threshold": FilterPolicy().near_duplicates,
        "regression_rows": len(regression),
    }
    write_card(out / "README.md", rows, splits, labels, len(raw), digests, **facts)
    return digests


if __name__ == "__main__":
    raise SystemExit(rebuild.main(FOLDER, build, "Build the python3 data set from its families."))
