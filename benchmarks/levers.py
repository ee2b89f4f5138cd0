"""What each memory lever costs and saves in training: peak memory and time over a plain run, same model and documents.

    python benchmarks/levers.py    # one thread, appended to benchmarks/levers.jsonl

The model is training.py's small one with widths that every quantisation divides; its embeddings are 38 % of its
weights, E2B's 59 %. Models take turns, an epoch each, and the best CPU time of each counts; peaks are MLX's count with
the model's weights in it, taken in an epoch of each alone.
"""

from __future__ import annotations

import gc
import json
import os
import time
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

from mlx_gemma import platform

platform.load_blas()

import mlx.core as mx
from mlx_lm.models.gemma4_text import Model, ModelArgs
from rich.console import Console
from rich.table import Table
from training import SMALL, commit, documents
from training_mlx import TARGETS, random_weights

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.quantise import quantise
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import TrainSection
from mlx_gemma.training.batches import stream, updates_in
from mlx_gemma.training.optimiser import Updater

VOCABULARY, COUNT, ROUNDS, PLAIN = 8192, 8, 2, "plain"
SHAPE = SMALL | {"hidden_size_per_layer_input": 64, "vocab_size": VOCABULARY, "vocab_size_per_layer_input": VOCABULARY}
LEVERS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "checkpointing": {"train": {"checkpointing": True}},
    "batch 1 x accumulate 4": {"train": {"batch": 1, "accumulate": 4}},
    "packed": {"train": {"layout": "packed", "length": 512, "batch": 2}},
    **{f"quantize {mode}": {"quantize": mode} for mode in ("affine8", "affine4", "nf4", "mxfp4", "nvfp4", "mxfp8")},
    **{f"embeddings {mode}": {"embeddings": mode} for mode in ("affine8", "affine4", "nf4")},
    "optimizer adafactor": {"train": {"optimizer": "adafactor"}},
    "optimizer lion": {"train": {"optimizer": "lion"}},
    "rank 8 for 32": {"rank": 8},
    "nf4, embeddings affine4, checkpointing": {
        "quantize": "nf4",
        "embeddings": "affine4",
        "train": {"checkpointing": True},
    },
}


class Run:
    """A model with one lever set, trained an epoch at a time."""

    def __init__(self, lever: dict[str, Any]) -> None:
        self.examples = [
            Example(tokens, [False] * prompt + [True] * (len(tokens) - prompt))
            for tokens, prompt in documents(COUNT, VOCABULARY, "40%")
        ]
        model = Model(ModelArgs(**SHAPE))
        random_weights(model, mx.float32)
        quantise(model, lever.get("quantize", "none"), lever.get("embeddings", "none"))
        rank = lever.get("rank", 32)
        lora.attach(model, lora.AdapterSpec(rank, 2.0 * rank, 0.0, TARGETS))
        mx.eval(model.parameters())
        model.train()
        self.train = TrainSection(epochs=1, **{"batch": 4, "length": 512} | lever.get("train", {}))
        self.updater = Updater(model, model, self.train, str)
        self.updates = updates_in(1, [len(e.tokens) for e in self.examples], self.train)

    def epoch(self) -> float:
        """CPU seconds."""
        started = time.process_time()
        for batches in islice(stream(self.examples, self.train), self.updates):
            self.updater(batches, 1e-5)
        return time.process_time() - started


def peak(name: str) -> int:
    """Of a second epoch, when the optimiser's moments exist; the model is made, measured and let go."""
    run = Run(LEVERS[name])
    run.epoch()
    gc.collect()
    mx.clear_cache()
    mx.reset_peak_memory()
    run.epoch()
    found = int(mx.get_peak_memory())
    del run
    gc.collect()
    mx.clear_cache()
    return found


def main() -> None:
    console = Console(highlight=False)
    with console.status("measuring") as status:
        peaks = {}
        for name in LEVERS:
            status.update(f"memory: {name}")
            peaks[name] = peak(name)
        runs = {name: Run(lever) for name, lever in LEVERS.items()}
        seconds: dict[str, list[float]] = {name: [] for name in LEVERS}
        for i in range(ROUNDS + 1):
            for name, run in runs.items():
                status.update(f"time, round {i} of {ROUNDS}: {name}")
                took = run.epoch()
                seconds[name] += [took] if i else []  # the first has everything to allocate
    best = {name: min(s) for name, s in seconds.items()}
    table = Table(box=None, header_style="bold")
    for column in ("lever", "peak MB", "of plain", "time of plain"):
        table.add_column(column, justify="left" if column == "lever" else "right")
    for name in LEVERS:
        ratios = (peaks[name] / peaks[PLAIN], best[name] / best[PLAIN])
        table.add_row(name, f"{peaks[name] / 1e6:.0f}", *(f"{r:.2f}" for r in ratios))
    console.print(table)
    figures = {name: {"peak_bytes": peaks[name], "cpu_s": round(best[name], 3)} for name in LEVERS}
    row = {"date": date.today().isoformat(), "bench": "levers", "shape": SHAPE, "documents": COUNT, "mix": "40%"}
    row |= {"threads": 1, "rounds": ROUNDS, "levers": figures, "machine": platform.describe(), "commit": commit()}
    with (Path(__file__).parent / "levers.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
