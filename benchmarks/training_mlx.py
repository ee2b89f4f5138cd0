"""mlx-lm's trainer and ours in one process, on the same base weights and documents. Started by training.py.

mlx-lm's side is its own `train`, with its compiled step: it runs in a thread that waits between epochs, so that the
variants can take turns. Two things are given to it: where its batches come from, and a display that shows nothing.
Ours runs as the training loop does: batches made on the way, then Updater.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from mlx_gemma import platform

platform.load_blas()

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.gemma4_text import Model, ModelArgs
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset, ChatDataset
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import TrainSection
from mlx_gemma.training.batches import stream, updates_in
from mlx_gemma.training.optimiser import Updater

SHIPPED, MENDED = "mlx-lm", "mlx-lm mended"
OURS: dict[str, dict[str, Any]] = {
    "padded": {"layout": "padded"},
    "packed": {"layout": "packed"},
    "packed split": {"layout": "packed"},  # a row a forward pass, and so many passes an update
    "padded checkpointed": {"layout": "padded", "checkpointing": True},
    "packed checkpointed": {"layout": "packed", "checkpointing": True},
}
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RATE = 1e-5
LARGEST = 2**30  # elements drawn at once


def random_weights(model: Any, dtype: mx.Dtype) -> None:
    """Matrices of standard deviation 1 / sqrt(inputs), each made in its own dtype; vectors as the model has them."""
    mx.random.seed(0)
    for name, value in tree_flatten(model.parameters()):
        if value.ndim < 2:
            new = value.astype(dtype)
        else:
            rows = value.shape[0]
            part = max(d for d in range(1, rows + 1) if rows % d == 0 and (d == 1 or d * value.shape[1] <= LARGEST))
            new = mx.random.normal((part, *value.shape[1:]), dtype) * value.shape[-1] ** -0.5
            new = mx.tile(new, (rows // part, *[1] * (value.ndim - 1)))  # what rows hold changes no time
        mx.eval(new)
        model.load_weights([(name, new)], strict=False)


def models(setup: dict[str, Any]) -> tuple[Any, Any]:
    """mlx-lm's adapted model and ours: the same base arrays, adapters of the same values, in which B is not zero."""
    theirs, ours = (Model(ModelArgs(**setup["shape"])) for _ in range(2))
    random_weights(theirs, getattr(mx, setup["dtype"]))
    ours.update(theirs.parameters())
    theirs.freeze()
    keys = [lora.PLACES[t] for t in TARGETS]
    parameters = {"rank": setup["rank"], "scale": 2.0, "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(theirs, len(theirs.layers), parameters)
    for _, module in theirs.named_modules():
        if hasattr(module, "lora_b"):
            module.lora_b = 0.02 * mx.random.normal(module.lora_b.shape)
    lora.attach(ours, lora.AdapterSpec(setup["rank"], 2.0 * setup["rank"], 0.0, TARGETS))
    mx.eval(theirs.state, ours.state)  # all of it: an array that another thread has still to compute is an error
    ours.load_weights(tree_flatten(theirs.trainable_parameters()), strict=False)
    ours.train()
    return theirs, ours


class Rows(ChatDataset):
    """mlx-lm's data set of chat records with --mask-prompt, but for the template: the rows are token ids already."""

    def process(self, d: dict[str, Any]) -> tuple[list[int], int]:
        tokens, prompt = d["messages"]
        return tokens, prompt


class Silent:
    """In place of mlx-lm's progress display."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: Any) -> None: ...
    def advance(self) -> None: ...
    def report_train(self, *_: Any) -> None: ...


class MlxLm:
    """mlx_lm.tuner.trainer.train, stopped between epochs.

    Args:
        mended: sort by length, which as shipped sorts by the number of a record's keys, and do not train the pad token
            behind each row, as its loss takes `steps <= length`.
    """

    def __init__(self, model: Any, setup: dict[str, Any], mended: bool) -> None:
        records = [{"messages": d} for d in setup["documents"]]
        self.data = setup["documents"] if mended else CacheDataset(Rows(records, None, mask_prompt=True))
        self.model, self.setup, self.mended = model, setup, mended
        self.orders: queue.Queue[bool] = queue.Queue()
        self.done: queue.Queue[Any] = queue.Queue()
        self.facts: dict[str, Any] = {}
        threading.Thread(target=self._train, daemon=True).start()

    def epoch(self) -> tuple[float, float]:
        """CPU and wall seconds."""
        self.orders.put(True)
        found = self.done.get()
        if isinstance(found, Exception):
            raise found
        return found

    def _train(self) -> None:
        trainer.TrainUI = Silent
        with tempfile.TemporaryDirectory() as folder:
            args = trainer.TrainingArgs(
                batch_size=self.setup["batch"],
                iters=10**9,
                max_seq_length=self.setup["max_length"],
                steps_per_report=10**9,
                steps_per_save=10**9,
                adapter_file=Path(folder) / "adapters.safetensors",
            )
            try:
                adam = optim.Adam(learning_rate=RATE)
                trainer.train(self.model, adam, self.data, args=args, iterate_batches=self._batches)
            except Exception as e:
                self.done.put(e)

    def _batches(self, dataset: Any, batch_size: int, max_seq_length: int, **_: Any) -> Iterator[Any]:
        while self.orders.get():
            started = time.process_time(), time.perf_counter()
            np.random.seed(0)
            shapes, updates, positions = set(), 0, 0
            for batch, lengths in trainer.iterate_batches(dataset, batch_size, max_seq_length):
                shapes.add(batch.shape)
                updates, positions = updates + 1, positions + batch.size - len(batch)
                yield batch, lengths - mx.array([0, 1]) if self.mended else lengths
            seconds = time.process_time() - started[0], time.perf_counter() - started[1]
            self.facts = {"shapes": len(shapes), "updates": updates, "positions": positions, "targets": self._targets()}
            self.done.put(seconds)

    def _targets(self) -> int:
        """Supervised tokens of an epoch: rows behind the last whole batch are never seen."""
        documents = self.setup["documents"]
        kept = len(documents) // self.setup["batch"] * self.setup["batch"]
        if self.mended:
            documents = sorted(documents, key=lambda d: len(d[0]))
        return sum(len(tokens) - prompt for tokens, prompt in documents[:kept])


class Ours:
    def __init__(self, model: Any, setup: dict[str, Any], name: str) -> None:
        options = OURS[name] | {"batch": setup["batch"], "length": setup["max_length"]}
        if options["layout"] == "packed":
            options |= {"batch": setup["packed"]["rows"], "length": setup["packed"]["length"]}
        if name.endswith("split"):
            options |= {"batch": 1, "accumulate": options["batch"]}
        self.train = TrainSection(steps=1, lr=RATE, **options)
        self.examples = [Example(t, [False] * p + [True] * (len(t) - p)) for t, p in setup["documents"]]
        self.updates = updates_in(1, [len(e.tokens) for e in self.examples], self.train)
        self.update = Updater(model, model, self.train, str)
        self.facts: dict[str, Any] = {}

    def epoch(self) -> tuple[float, float]:
        """CPU and wall seconds."""
        started = time.process_time(), time.perf_counter()
        shapes, positions, targets = set(), 0, 0
        for batches in islice(stream(self.examples, self.train), self.updates):
            self.update(batches, RATE)
            shapes |= {tuple(a.shape for a in b.arrays) for b in batches}
            positions += sum(b.layout.tokens.size for b in batches)
            targets += sum(b.targets for b in batches)
        seconds = time.process_time() - started[0], time.perf_counter() - started[1]
        self.facts = {"shapes": len(shapes), "updates": self.updates, "positions": positions, "targets": targets}
        return seconds


def serve(orders: TextIO, answers: TextIO) -> None:
    setup = json.loads(orders.readline())
    theirs, ours = models(setup)
    made: dict[str, Any] = {}
    report: dict[str, Any] = {}
    for name in setup["variants"]:
        if name in (SHIPPED, MENDED):
            made[name] = MlxLm(theirs, setup, name == MENDED)
        elif name in OURS:
            made[name] = Ours(ours, setup, name)
        else:
            continue
        model = ours if name in OURS else theirs
        trained = sum(v.size for _, v in tree_flatten(model.trainable_parameters()))
        frozen = sum(v.size for _, v in tree_flatten(model.parameters())) - trained
        warm = made[name].epoch()[0]
        report[name] = made[name].facts | {"trained": trained, "frozen": frozen, "warm_s": warm}
        print(json.dumps({"warmed": name}), file=answers, flush=True)
    print(json.dumps({"ready": report, "machine": platform.describe()}), file=answers, flush=True)
    for line in orders:
        order = json.loads(line)
        gc.collect()
        mx.clear_cache()
        mx.reset_peak_memory()
        resident = mx.get_active_memory()
        cpu, wall = made[order["variant"]].epoch()
        answer = {"cpu_s": cpu, "wall_s": wall, "peak_bytes": platform.peak_memory_bytes() - resident}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the libraries' own prints go to stderr
    serve(sys.stdin, answers)
    answers.flush()
    os._exit(0)  # mlx-lm's threads still wait
