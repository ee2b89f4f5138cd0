"""Build datasets/python3, evals/tasks.jsonl and datasets/nano/regression.jsonl: the same bytes from the same seed.

    python -m mlx_gemma.data.build.python3 [--seed 0] [--check]    # some 10 s; --check compares and writes nothing

1. The families of every topic are split, about 80 / 10 / 10 %: no task is in two of train, valid and test.
2. Train rows use every wording of a family but its last; valid, test and eval prompts are asked in the last only.
3. A row is taken only if it is less than LIMIT similar to every row taken before it, so that no two clean rows are near
   duplicates for the audit, and if its solution passes its checks under the Python that runs this.
4. raw.jsonl is the train rows with labelled faults (faults.py); raw.labels.jsonl says which, and no filter sees it.
5. The regression rows are what nano should still be able to do after training (regression.py).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_gemma.data.build import rebuild
from mlx_gemma.data.build.adversarial import Adversarial, AdversarialSample, Answer
from mlx_gemma.data.build.families import Family, read_families
from mlx_gemma.data.build.faults import add_faults
from mlx_gemma.data.build.rebuild import ROOT, record_digests
from mlx_gemma.data.build.regression import regression_rows
from mlx_gemma.data.build.samples import LIMIT, Chooser, Sample, fenced, split_families
from mlx_gemma.data.card.python3 import write_card
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.data.write import write_jsonl

FOLDER, EVALS, REGRESSION = "datasets/python3", "evals/tasks.jsonl", "datasets/nano/regression.jsonl"
FAMILIES = Path(__file__).parent / "python3_families"  # in the package, as users build too
DIALOGUES = ROOT / "datasets" / "nano" / "dialogue.toml"
SPLITS = ("train", "valid", "test")
HEADER = {
    "suite": "tasks",
    "version": 1,
    "about": "Small programs of task families that the data set holds out, in a wording that no training row uses.",
    "max_tokens": 256,
    "sampled": {"temperature": 0.7, "items": 60},
}
TRAIN, VALID, TEST, ITEMS = 5000, 300, 300, 60  # rows wanted; where the families yield fewer, fewer are taken


@dataclass(frozen=True)
class Chosen:
    """The samples of every split and of the eval suite, and the families that they are of."""

    families: dict[str, list[Family]]
    suite: list[Sample]
    samples: dict[str, list[Sample]]

    def eval_file(self) -> list[dict[str, Any]]:
        """The lines of the suite's file."""
        return [HEADER, *self.eval_items()]

    def eval_items(self) -> list[dict[str, Any]]:
        suite = sorted(self.suite, key=lambda s: (s.task.topic, s.task.family, s.prompt))
        return [
            {
                "id": f"tasks-{n:03}",
                "family": s.task.family,
                "topic": s.task.topic,
                "prompt": s.prompt,
                "tests": s.tests,
            }
            for n, s in enumerate(suite, 1)
        ]

    def raw(self, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The train rows with faults, and their labels; adversarial rows go in among them, without faults."""
        answers = {s.prompt: fenced(s.task.python3) for s in self.suite}
        leaks = [(item, answers[str(item["prompt"])]) for item in self.eval_items()]
        plain = [s for s in self.samples["train"] if not isinstance(s, AdversarialSample)]
        others = [(s.record(), s.label()) for s in self.samples["train"] if isinstance(s, AdversarialSample)]
        return add_faults(plain, leaks, random.Random(f"{seed}:raw"), others)


def choose(seed: int, rows: int = TRAIN, pushback: float = 0, answer: Answer = "correct") -> Chosen:
    """Choose what becomes rows: about 10 s for 5,000.

    Args:
        rows: train rows at most; the families may yield fewer. Valid and test have as many as ever.
        pushback: the share of adversarial rows in every split, 0 <= pushback < 1.
        answer: of the adversarial rows.

    Raises:
        DataError: a family that is wrong.
        CheckFailed: a solution that fails its own checks.
        UserError: the families do not give so many adversarial rows.
    """
    families = split_families(read_families(FAMILIES), seed)
    chooser = Chooser(seed)
    suite = chooser.choose(families["test"], ITEMS, last_wording=True)
    chooser.forget_answers()
    wanted = {"test": TEST, "valid": VALID, "train": rows}
    samples: dict[str, list[Sample]] = {}
    for name, count in wanted.items():
        samples[name] = chooser.choose(families[name], count - round(count * pushback), last_wording=name != "train")
    for name in wanted if pushback else ():
        rule = Adversarial(families[name], seed, last_wording=name != "train", answer=answer)
        samples[name] += rule.choose(chooser, round(len(samples[name]) * pushback / (1 - pushback)))
    for name in SPLITS:
        random.Random(f"{seed}:order").shuffle(samples[name])
    return Chosen(families, suite, {name: samples[name] for name in SPLITS})


def build(root: Path, seed: int = 0) -> dict[str, str]:
    """Write the data set, the suite and the regression rows to their places below `root`; about 10 s, 150 MB.

    Returns:
        The sha256 of every file written, by its path below `root`; also in the data set's digests.json.

    Raises:
        DataError, CheckFailed: see `choose`.
    """
    out = root / FOLDER
    chosen = choose(seed)
    raw, labels = chosen.raw(seed)
    write_jsonl(root / EVALS, chosen.eval_file())
    for name, samples in chosen.samples.items():
        write_jsonl(out / f"{name}.jsonl", (s.record() for s in samples))
    write_jsonl(out / "raw.jsonl", raw)
    write_jsonl(out / "raw.labels.jsonl", labels)
    regression = list(regression_rows(chosen.families["train"], read_families(DIALOGUES), seed))
    write_jsonl(root / REGRESSION, regression)
    paths = [f"{FOLDER}/{name}.jsonl" for name in (*SPLITS, "raw", "raw.labels")]
    digests = record_digests(root, FOLDER, seed, [*paths, EVALS, REGRESSION])
    rows = {name: len(samples) for name, samples in chosen.samples.items()}
    facts = {
        "seed": seed,
        "limit": LIMIT,
        "threshold": FilterPolicy().near_duplicates,
        "regression_rows": len(regression),
    }
    write_card(out / "README.md", rows, chosen.families, labels, len(raw), digests, **facts)
    return digests


if __name__ == "__main__":
    raise SystemExit(rebuild.main(FOLDER, build, "Build the python3 data set from its families."))
