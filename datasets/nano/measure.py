"""What `nano` can do on wordings it never saw: how often its greedy answer passes the family's checks.

    python datasets/nano/measure.py [--tasks 182] [--out datasets/nano/measured.json]

Each family is asked once, in its held-out wording, with no version named, with Python 3 and with Python 2 named. Some
ten seconds a hundred answers on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from mlx_gemma import load, platform
from mlx_gemma.data.build.families import read_families
from mlx_gemma.evaluate.run import evaluate
from mlx_gemma.evaluate.suite import Checks, Header, Item, Suite
from mlx_gemma.evaluate.summary import counts

FAMILIES = Path(__file__).parents[1] / "python3" / "families"
ASKED = {"no version named": "", "Python 3 named": " Use Python 3.", "Python 2 named": " Use Python 2."}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--tasks", type=int, default=182)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng = random.Random(7)
    families = rng.sample(read_families(FAMILIES), args.tasks)
    tasks = [f.task(rng.randrange(f.combinations)) for f in families]
    gemma = load(args.model)
    found = {}
    for name, suffix in ASKED.items():
        items = [
            Item(
                t.family,
                "",
                ({"role": "user", "content": t.ask[-1] + suffix},),
                tests=Checks(t.check, t.prints, t.stdin),
            )
            for t in tasks
        ]
        rates = counts(evaluate(gemma, Suite(Header("families", max_tokens=192), tuple(items))))
        found[name] = {verdict: str(rate) for verdict, rate in rates.items()}
        print(name, found[name], flush=True)
    if args.out:
        args.out.write_text(json.dumps({"verdicts": found, "machine": platform.describe()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
