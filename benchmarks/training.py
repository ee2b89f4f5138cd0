"""Time and peak memory per supervised token: mlx-lm's trainer, ours, and transformers + PEFT + TRL, on the same rows.

    python benchmarks/training.py --quick              # does it work: two minutes, nothing saved
    python benchmarks/training.py --threads 1 2        # the tables, appended to benchmarks/training.jsonl
    python benchmarks/training.py --shape e2b          # on a GPU or a Mac: E2B's real shape, random bfloat16 weights

TRL needs `pip install -c constraints.txt -e '.[bench]'`, and is left out on GPUs. Two processes, as MLX's BLAS slows
torch; they take turns, epoch by epoch, so what else runs on the machine falls on all alike. Each variant's first epoch
compiles and is given apart; of the others the best counts. With one thread on a CPU it is CPU time that is compared,
otherwise wall time. Peaks are what tensors took above what lay there before: MLX's own count, and torch's allocation
events, read in an epoch that is not timed.

The small shape is E2B's in its proportions: 3 layers with their own keys and values, 4 that share them, twice as wide.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
LOG = Path(tempfile.gettempdir()) / "mlx-gemma-bench-training.log"  # what the libraries print
MIXES = {  # (shortest, longest) prompt, uniform; (shortest, longest) completion, log-uniform
    "40%": ((60, 200), (30, 300)),
    "prompt-heavy": ((300, 700), (30, 150)),
    "completion-only": ((1, 4), (30, 300)),
}
SMALL = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 7,
    "layer_types": [{"s": "sliding_attention", "f": "full_attention"}[c] for c in "ssfsssf"],
    "num_kv_shared_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "global_head_dim": 64,
    "hidden_size_per_layer_input": 32,
    "sliding_window": 512,
    "final_logit_softcapping": 30.0,
    "use_double_wide_mlp": True,
}
SHIPPED, MENDED = "mlx-lm", "mlx-lm mended"
VARIANTS = (SHIPPED, MENDED, "padded", "packed", "packed split", "trl", "trl sorted", "trl padding-free", "trl packed")
MORE = ("padded checkpointed", "packed checkpointed")


def documents(count: int, vocabulary: int, mix: str) -> list[tuple[list[int], int]]:
    """(token ids, length of the prompt) of each."""
    (p0, p1), (c0, c1) = MIXES[mix]
    rng = np.random.default_rng(3)
    made = []
    for _ in range(count):
        prompt = int(rng.integers(p0, p1 + 1))
        completion = int(np.exp(rng.uniform(np.log(c0), np.log(c1))))
        made.append((rng.integers(3, vocabulary, prompt + completion).tolist(), prompt))
    return made


def packed_rows(rows: list[tuple[list[int], int]], batch: int) -> dict[str, int]:
    """Packed rows for about `batch` documents a forward pass, of the least multiple of 512 that fits every document."""
    lengths = [len(tokens) for tokens, _ in rows]
    length = 512 * -(-max(lengths) // 512)
    return {"length": length, "rows": max(1, round(batch * float(np.mean(lengths)) / length))}


class Side:
    """A worker process: one JSON line each way."""

    def __init__(self, script: str, setup: dict[str, Any], log: Any) -> None:
        threads = {f"{k}_NUM_THREADS": str(setup["threads"]) for k in ("OMP", "OPENBLAS", "MKL")}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | threads | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        self.say(setup)

    def say(self, order: dict[str, Any]) -> None:
        assert self.process.stdin
        print(json.dumps(order), file=self.process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended; what it said is in {LOG}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def measure(setup: dict[str, Any], rounds: int, console: Console) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures by variant, and the machine. The workers are started, warmed, and then asked in turn."""
    figures: dict[str, Any] = {}
    owner: dict[str, Side] = {}
    machine: dict[str, str] = {}
    with LOG.open("w") as log:
        scripts = ["training_mlx.py"] + ["training_trl.py"] * any(v.startswith("trl") for v in setup["variants"])
        sides = []
        for script in scripts:
            sides.append(side := Side(script, setup, log))
            while "ready" not in (heard := side.hear()):
                console.print(f"  warmed {heard['warmed']}", style="dim")
            figures |= heard["ready"]
            owner |= dict.fromkeys(heard["ready"], side)
            machine = heard["machine"] | machine
        for number in range(rounds):
            names = list(figures)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                owner[name].say({"variant": name, "what": "time"})
                for key, value in owner[name].hear().items():
                    figures[name].setdefault(key, []).append(value)
        for name in figures:
            if "peak_bytes" not in figures[name]:
                owner[name].say({"variant": name, "what": "memory"})
                figures[name]["peak_bytes"] = [owner[name].hear()["peak_bytes"]]
        for side in sides:
            side.close()
    return figures, machine


def summarise(figures: dict[str, Any], clock: str) -> None:
    """Add microseconds per supervised token, MiB, and both over mlx-lm's as shipped and mended."""
    for f in figures.values():
        f["us_per_token"] = min(f[clock]) / f["targets"] * 1e6
        f["peak_mib"] = max(f["peak_bytes"]) / 2**20
        f["warm_s"] -= min(f["cpu_s"])  # a first epoch's compilation and allocation
    for f in figures.values():
        for key, rival in (("over_shipped", SHIPPED), ("over_mended", MENDED)):
            if rival in figures:
                f[key] = {
                    "time": f["us_per_token"] / figures[rival]["us_per_token"],
                    "memory": f["peak_mib"] / figures[rival]["peak_mib"],
                }
        trl = [g["us_per_token"] for name, g in figures.items() if name.startswith("trl")]
        if trl:
            f["over_trl"] = {"time": f["us_per_token"] / min(trl)}


def show(figures: dict[str, Any], title: str, console: Console) -> None:
    table = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    names = ("", "us/token", "over mlx-lm", "over mended", "over trl", "peak MiB", "over mlx-lm", "over mended")
    for column in (*names, "updates", "positions", "shapes", "warm s"):
        table.add_column(column, justify="right" if column else "left")

    def ratio(f: dict[str, Any], over: str, what: str) -> str:
        return f"{f[over][what]:.2f}" if what in f.get(over, {}) else "-"

    for name, f in figures.items():
        table.add_row(
            name,
            f"{f['us_per_token']:.0f}",
            *(ratio(f, over, "time") for over in ("over_shipped", "over_mended", "over_trl")),
            f"{f['peak_mib']:.0f}",
            *(ratio(f, over, "memory") for over in ("over_shipped", "over_mended")),
            *(str(f.get(k, "-")) for k in ("updates", "positions", "shapes")),
            f"{f['warm_s']:.1f}",
        )
    console.print(table)


def commit() -> str:
    """HEAD, marked where the package or this benchmark differ from it."""
    git = ["git", "-C", str(HERE)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    paths = [str(HERE.parent / "mlx_gemma"), *map(str, HERE.glob("*.py"))]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *paths], check=False).returncode
    return head.strip() + ("+changes" if changed else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, nargs="+", default=[8192, 65536, 262144], help="of the small shape")
    parser.add_argument("--mix", nargs="+", choices=MIXES, default=list(MIXES))
    parser.add_argument("--shape", choices=("small", "e2b"), default="small")
    parser.add_argument("--override", type=json.loads, default={}, help="JSON of sizes that replace the shape's")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of BLAS and torch; 1 2 for both tables")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS + MORE, default=VARIANTS)
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4, help="rows in an update, of all variants")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="timed epochs of each variant")
    parser.add_argument("--quick", action="store_true", help="8 documents, one round, one table, not saved")
    parser.add_argument("--save", type=Path, default=HERE / "training.jsonl")
    args = parser.parse_args()
    if args.quick:
        args.vocab, args.mix, args.threads = args.vocab[:1], args.mix[:1], args.threads[:1]
        args.documents, args.rounds = 8, 1
    console = Console(width=None if sys.stdout.isatty() else 160)
    if args.shape == "e2b" or find_spec("trl") is None:
        args.variants = [v for v in args.variants if not v.startswith("trl")]
        console.print("without TRL: it is not installed, or this is no CPU's shape", style="dim")
    vocabularies = [args.override.get("vocab_size", 262144)] if args.shape == "e2b" else args.vocab
    for threads in args.threads:
        for vocabulary in vocabularies:
            for mix in args.mix:
                run(args, vocabulary, mix, threads, console)


def run(args: argparse.Namespace, vocabulary: int, mix: str, threads: int, console: Console) -> None:
    rows = documents(args.documents, vocabulary, mix)
    tokens, supervised = sum(len(t) for t, _ in rows), sum(len(t) - p for t, p in rows)
    sizes = {"vocab_size": vocabulary, "vocab_size_per_layer_input": vocabulary} | args.override
    setup = {
        "shape": (SMALL if args.shape == "small" else {}) | sizes,
        "dtype": "float32" if args.shape == "small" else "bfloat16",
        "rank": args.rank,
        "documents": rows,
        "batch": args.batch,
        "threads": threads,
        "variants": list(args.variants),
        "max_length": 2048,
        "packed": packed_rows(rows, args.batch),
    }
    title = f"{args.shape}, V = {vocabulary:,}, {mix}: {tokens:,} tokens, {supervised / tokens:.0%} supervised"
    console.print(f"{title}, {threads} thread{'s' * (threads > 1)}", style="bold")
    figures, machine = measure(setup, args.rounds, console)
    clock = "cpu_s" if machine["backend"] == "cpu" and threads == 1 else "wall_s"
    summarise(figures, clock)
    sizes_seen = {(f["trained"], f["frozen"]) for f in figures.values()}
    if len(sizes_seen) > 1:
        console.print(f"the models differ in size: {sizes_seen}", style="red")
    show(figures, f"{'CPU' if clock == 'cpu_s' else 'wall'} time per supervised token", console)
    if args.quick:
        return
    del setup["documents"]
    row = {"date": date.today().isoformat(), "bench": "training", "mix": mix, "tokens": tokens, **setup, "clock": clock}
    row |= {"rounds": args.rounds, "variants": figures, "machine": machine, "commit": commit()}
    with args.save.open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
