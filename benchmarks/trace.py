"""What tracing costs: our decoding with K = 10 rivals a token, without, and mlx-lm's, on the same random model.

    python benchmarks/trace.py            # E2B's whole shape: 19 GB on a CPU, where it computes in float32
    python benchmarks/trace.py --layers 3 # the head's 262,144 tokens and next to nothing else: the worst case

Greedy, the same tokens on all sides, taking turns; seconds a token of decoding, medians. mlx-lm's own step takes the
log-probabilities of the whole vocabulary and hands out the array. A row of benchmarks/trace.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from mlx_gemma import platform

platform.load_blas()

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.generate import generate_step
from mlx_lm.models.gemma4_text import Model, ModelArgs
from rich.console import Console
from training import commit

from mlx_gemma.decode.generate import decode
from mlx_gemma.decode.sample import Sampling
from mlx_gemma.gemma4.checkpoint import NANO, Checkpoint
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.gemma4.template import ChatTemplate

TOP, PROMPT, TOKENS, TURNS = 10, 64, 24, 5


def model(layers: int | None) -> Gemma:
    """E2B's shape, or its last layers; random."""
    args = ModelArgs()
    if layers is not None:
        kinds = args.layer_types[-layers:]
        args = ModelArgs(num_hidden_layers=layers, layer_types=kinds, num_kv_shared_layers=0)
    mx.random.seed(0)
    text = Model(args)
    dtype = platform.compute_dtype() or mx.bfloat16
    text.update(tree_map(lambda v: v.astype(dtype), text.parameters()))
    mx.eval(text.parameters())
    text.eval()
    return Gemma(text, ChatTemplate(NANO), Checkpoint("random", NANO), frozenset(), 4096)


def sides(gemma: Gemma, prompt: list[int]) -> dict[str, Callable[[], Iterator[int]]]:
    return {
        "mlx-lm": lambda: (int(t) for t, _ in generate_step(mx.array(prompt), gemma.model, max_tokens=TOKENS)),
        "plain": lambda: (s.token for s in decode(gemma, prompt, Sampling(), TOKENS)),
        "traced": lambda: (s.token for s in decode(gemma, prompt, Sampling(), TOKENS, top=TOP)),
    }


def measure(tokens: Iterator[int]) -> tuple[list[int], float]:
    """The tokens, and seconds a token behind the first."""
    out = [next(tokens)]
    started = time.perf_counter()
    out += islice(tokens, TOKENS - 1)
    return out, (time.perf_counter() - started) / (TOKENS - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int)
    args = parser.parse_args()
    gemma = model(args.layers)
    size = sum(v.size for _, v in tree_flatten(gemma.model.parameters()))
    prompt = np.random.default_rng(0).integers(100, 200_000, PROMPT).tolist()
    found: dict[str, list[float]] = {}
    texts = []
    for turn in range(TURNS + 1):
        ways = list(sides(gemma, prompt).items())
        for name, way in ways if turn % 2 else ways[::-1]:
            tokens, seconds = measure(way())
            texts.append(tokens)
            if turn:  # the first warms up
                found.setdefault(name, []).append(seconds)
    medians = {name: statistics.median(values) for name, values in found.items()}
    row: dict[str, Any] = {"date": date.today().isoformat(), "bench": "trace", "layers": args.layers or 35}
    row |= {"parameters": size, "vocabulary": gemma.text.args.vocab_size, "top": TOP, "seconds_a_token": medians}
    row |= {
        name: medians["traced"] / medians[other] for name, other in (("over_mlx_lm", "mlx-lm"), ("over_plain", "plain"))
    }
    row |= {"same_tokens": all(t == texts[0] for t in texts), "all": found}
    row |= {"machine": platform.describe(), "commit": commit()}
    with (Path(__file__).parent / "trace.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")
    Console(highlight=False).print({k: row[k] for k in ("seconds_a_token", "over_mlx_lm", "over_plain", "same_tokens")})


if __name__ == "__main__":
    main()
