"""Loading and exporting at E2B's full shape: seconds and peak memory, with random bfloat16 weights (9 GB, one file).

    python benchmarks/interop.py FOLDER    # 10 GB of checkpoint and 9 GB for each form are written there, and removed

A row of benchmarks/interop.jsonl: load (text decoder in the backend's dtype: float32 on a CPU), and writing each form
that merges, with an adapter of rank 32 on all seven projections; and one whole export with its verification, as a user
runs it. Each runs in a process of its own, and its peak is the process's resident memory less what Python and the
libraries take before.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma import platform

platform.load_blas()

import mlx.core as mx
from mlx.utils import tree_flatten
from rich.console import Console
from training import commit

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import NANO, Checkpoint
from mlx_gemma.gemma4.load import load_model
from mlx_gemma.interop import gguf, hf, mlx_folder
from mlx_gemma.interop.export import Job, export
from mlx_gemma.interop.merge import read_adapter
from mlx_gemma.interop.stream import Entry, Group, write_safetensors

ROWS = 1024  # of random numbers, repeated: what they are changes no time
WRITERS = {
    "hf": (hf.write, {}),
    "mlx affine4": (mlx_folder.write, {"quantize": "affine4"}),
    "gguf Q8_0": (gguf.write, {"dtype": "Q8_0"}),
}
WHOLE = "hf, verified"
RUN, OUT = "run", "out"
RUNS = ("load", *WRITERS, WHOLE)
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make(folder: Path) -> None:
    """A multimodal checkpoint without its towers, in Google's names, and an adapter; nothing large in memory."""
    from mlx_lm.models.gemma4_text import Model, ModelArgs

    args = ModelArgs()  # E2B's
    model = Model(args)
    rng = np.random.default_rng(0)

    def group(name: str, shape: tuple[int, ...]) -> Group:
        def parts() -> Iterator[tuple[bytes, ...]]:
            rows, width = shape[0], int(np.prod(shape[1:], dtype=int))
            scale = 1.0 if len(shape) == 1 else width**-0.5
            some = np.ones(shape) if len(shape) == 1 else rng.normal(size=(min(ROWS, rows), width)) * scale
            data = np.asarray(mx.array(some.astype(np.float32)).astype(mx.bfloat16).view(mx.uint16))
            for first in range(0, rows, len(data)):
                yield (data[: rows - first].tobytes(),)

        return Group((Entry(name, "BF16", shape, 2 * int(np.prod(shape))),), parts)

    named = {f"model.language_model.{k.removeprefix('model.')}": v.shape for k, v in tree_flatten(model.parameters())}
    folder.mkdir(parents=True)
    write_safetensors(folder / "model.safetensors", [group(k, tuple(s)) for k, s in named.items()], {"format": "pt"})
    text = {k: v for k, v in vars(args).items() if not callable(v)} | {"model_type": "gemma4_text"}
    config = {
        "model_type": "gemma4",
        "architectures": ["Gemma4ForConditionalGeneration"],
        "vocab_size": args.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(config | {"text_config": text, "dtype": "bfloat16"}))
    for side in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(NANO / side, folder / side)
    tokenizer = json.loads((NANO / "tokenizer.json").read_text())  # nano's, with as many tokens as the model has rows
    tokens = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] |= {f"<row{i}>": i for i in range(max(tokens.values()) + 1, args.vocab_size)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    spec = lora.AdapterSpec(32, 64.0, 0.0, TARGETS)
    lora.attach(model, spec)
    arrays = lora.adapter_parameters(model, spec)
    arrays = {"language_model." + k: mx.random.normal(v.shape) * 0.01 for k, v in arrays.items()}
    run = folder.with_name(RUN)
    run.mkdir()
    mx.save_safetensors(str(run / lora.WEIGHTS), arrays)
    (run / lora.CONFIG).write_text(json.dumps(spec.mlx_lm_config() | {"model": str(folder)}))


def measure(what: str, folder: Path) -> dict[str, Any]:
    """In this process: seconds, and the peak above what lay there before."""
    source, run, out = Checkpoint(str(folder), folder), folder.with_name(RUN), folder.with_name(OUT)
    before = _resident()
    started = time.perf_counter()
    if what == "load":
        load_model(source)
    elif what == WHOLE:
        done = export(run, "hf", out)
        print(done.gap, f"{done.survived:.3f} of the effect", file=sys.stderr)
    else:
        write, options = WRITERS[what]
        out.mkdir()
        write(Job(run, source, read_adapter(run), **options), out)
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 1), "peak_bytes": _resident() - before}


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--one", choices=RUNS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.folder)))
        return
    folder, console, figures = args.folder / "e2b", Console(highlight=False), {}
    try:
        make(folder)
        size = (folder / "model.safetensors").stat().st_size
        for what in RUNS:
            command = [sys.executable, __file__, str(folder), "--one", what]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures[what] = json.loads(done.stdout)
            console.print(f"{what}: {figures[what]['seconds']} s, peak {figures[what]['peak_bytes'] / 1e9:.2f} GB")
            shutil.rmtree(folder.with_name(OUT), ignore_errors=True)
        adapter = (folder.with_name(RUN) / lora.WEIGHTS).stat().st_size
    finally:
        for name in ("e2b", RUN, OUT):
            shutil.rmtree(args.folder / name, ignore_errors=True)
    row = {"date": date.today().isoformat(), "bench": "interop", "shape": "E2B, random, text decoder alone"}
    row |= {"checkpoint_bytes": size, "adapter_bytes": adapter, "figures": figures}
    row |= {"machine": platform.describe(), "commit": commit()}
    with (Path(__file__).parent / "interop.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
