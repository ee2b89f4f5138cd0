"""An encoder that needs no model, and a gate that needs no run: what tests of routing and calibration stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from mlx_gemma.gate.build import write_gate
from mlx_gemma.gate.calibrated import Calibrated, write_calibrated
from mlx_gemma.gate.encoders import EncoderSpec, Floats, unit
from mlx_gemma.gate.index import KnownRow, Made

LIMIT = 100  # words read
PROMPTS = tuple(
    f"Write a function {verb}_{noun}({noun}) that {verb}s the {noun}."
    for verb in ("sort", "count", "reverse", "join")
    for noun in ("words", "numbers", "lines", "names", "keys", "values", "files")
)


@dataclass
class FakeEncoder:
    """Counts a text's three-letter pieces, hashed into `dimension` places: texts that share pieces are alike."""

    dimension: int = 256
    digest: str = "fake"
    calls: int = 0

    @property
    def spec(self) -> EncoderSpec:
        return EncoderSpec("model2vec", "fake", self.digest, self.dimension)

    def encode(self, texts: Sequence[str]) -> Floats:
        self.calls += 1
        counts = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(counts, texts, strict=True):
            read = " ".join(text.lower().split()[:LIMIT])
            for i in range(len(read) - 2):
                row[crc32(read[i : i + 3].encode("utf8")) % self.dimension] += 1
        return unit(counts)

    def cut(self, text: str) -> int | None:
        return LIMIT if len(text.split()) > LIMIT else None


def small_gate(
    folder: Path,
    prompts: Sequence[str] = PROMPTS,
    *,
    name: str = "python",
    encoder: FakeEncoder | None = None,
    run: str = "nowhere",
) -> Path:
    """An uncalibrated gate on prompts; its digests are the names of what they are of."""
    encoder = encoder or FakeEncoder()
    rows = [KnownRow(prompt, f"answer {i}", f"rows.jsonl:{i + 1}") for i, prompt in enumerate(prompts)]
    digests = {name: name for name in ("data", "adapter", "base", "template")} | {"encoder": encoder.digest}
    folder.mkdir(parents=True)
    write_gate(folder, rows, encoder, Made(name, run, encoder.spec, digests))
    return folder


def calibrate_as(
    folder: Path,
    *,
    score: str = "nearest",
    accept: float | None = 0.7,
    out: float | None = 0.3,
    digests: dict[str, str] | None = None,
    knots: tuple[tuple[float, float], ...] = ((0.0, 0.1), (1.0, 0.9)),
) -> None:
    """A gate.json as if calibration had found this."""
    names = ("data", "adapter", "base", "template")
    digests = digests or {name: name for name in names} | {"encoder": "fake"}
    made = Calibrated(score, accept, out, 0.1, 0.1, 0, knots, "made up", {"queries": 9}, (), digests)
    write_calibrated(folder, made)
