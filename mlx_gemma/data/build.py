"""Build datasets/python3 and evals/python3.jsonl from the task families: the same bytes from the same seed.

    python -m mlx_gemma.data.build [--seed 0] [--check]    # about 10 s on one core; --check compares and writes nothing

1. The families of every topic are split, about 80 / 10 / 10 %: no task is in two of train, valid and test.
2. Train rows use every wording of a family but its last; valid, test and eval prompts are asked in the last only.
3. A row is taken only if it is less than LIMIT similar to every row taken before it, so that no two clean rows are near
   duplicates for the audit, and if its solution passes its checks under the Python that runs this.
4. raw.jsonl is the train rows with labelled faults (faults.py); raw.labels.jsonl says which, and no filter sees it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
from pathlib import Path

from mlx_gemma.data.card import write_card
from mlx_gemma.data.families import read_families
from mlx_gemma.data.faults import add_faults
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.data.samples import LIMIT, Chooser, fenced, split_families
from mlx_gemma.data.write import write_jsonl
from mlx_gemma.errors import DataError
from mlx_gemma.run import write_json

ROOT = Path(__file__).parents[2]
FAMILIES = ROOT / "datasets" / "python3" / "families"
TRAIN, VALID, TEST, EVALS = 5000, 300, 300, 60  # rows wanted; where the families yield fewer, fewer are taken


def build(out: Path, evals: Path, families: Path = FAMILIES, seed: int = 0) -> dict[str, str]:
    """Write the data set into `out` and the suite to `evals`; about 10 s, 150 MB.

    Returns:
        The sha256 of every file written, by its name; also in `out`/digests.json.

    Raises:
        DataError: a family that is wrong.
        CheckFailed: a solution that fails its own checks.
    """
    splits = split_families(read_families(families), seed)
    chooser = Chooser(seed)
    suite = chooser.choose(splits["test"], EVALS, last_wording=True)
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

    write_jsonl(evals, items)
    files = {"train": train, "valid": valid, "test": test}
    for name, samples in files.items():
        write_jsonl(out / f"{name}.jsonl", (s.record() for s in samples))
    write_jsonl(out / "raw.jsonl", raw)
    write_jsonl(out / "raw.labels.jsonl", labels)
    paths = [*(out / f"{n}.jsonl" for n in ("train", "valid", "test", "raw", "raw.labels")), evals]
    digests = {p.name if p != evals else f"evals/{p.name}": _sha256(p) for p in paths}
    write_json(out / "digests.json", {"seed": seed, "sha256": digests})
    rows = {name: len(samples) for name, samples in files.items()}
    facts = {"seed": seed, "limit": LIMIT, "threshold": FilterPolicy().near_duplicates}
    write_card(out / "README.md", rows, splits, labels, len(raw), digests, **facts)
    return digests


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def changed_files(out: Path, evals: Path, families: Path = FAMILIES) -> list[str]:
    """The files whose contents differ from what a build with their seed gives; costs a build.

    Raises:
        DataError: there is no digests.json in `out`.
    """
    try:
        recorded = json.loads((out / "digests.json").read_text(encoding="utf8"))
    except (OSError, ValueError) as e:
        raise DataError("no readable digests.json", where=out, fix="run python -m mlx_gemma.data.build") from e
    with tempfile.TemporaryDirectory() as folder:
        digests = build(Path(folder), Path(folder) / "evals" / evals.name, families, recorded["seed"])
    found = {name: evals if name.startswith("evals/") else out / name for name in digests}
    return [n for n, path in found.items() if not path.exists() or _sha256(path) != digests[n]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the python3 data set from its families.")
    parser.add_argument("--out", type=Path, default=ROOT / "datasets" / "python3")
    parser.add_argument("--evals", type=Path, default=ROOT / "evals" / "python3.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare the files with a fresh build; write nothing")
    args = parser.parse_args()
    if args.check:
        changed = changed_files(args.out, args.evals)
        print("\n".join(f"changed: {name}" for name in changed) or "all files are as built")
        return 1 if changed else 0
    for name, digest in build(args.out, args.evals, seed=args.seed).items():
        print(f"{digest[:16]}  {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
