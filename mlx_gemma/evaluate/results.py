"""One answer with its verdicts, as a line of results.jsonl: read, and appended so that a killed run loses little.

The lines of a batch are appended together. A line that a killed run left half-written is dropped when the file is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mlx_gemma.data.write import json_line
from mlx_gemma.errors import DataError
from mlx_gemma.run import disk_errors

Mode = Literal["greedy", "sampled"]
NAME = "results.jsonl"


@dataclass(frozen=True)
class Row:
    """One answer.

    Attributes:
        route: who answered, by the gate; "" without one.
        mode, temperature, seed: how it was decoded; greedy has temperature 0.
        cluster: what is no independent evidence: items that are alike, and answers to one item.
        column: the part of the suite that it is counted with; "" where the suite is not divided.
        verdicts: that hold (judge.py), and `reasons` why; `bad`: one of them is bad in the suite's eyes.
        finish: "stop", or "length" where its tokens ran out.
        seconds: its share of its batch's: prefill, decoding and judging, over the batch's answers.
        logprob: mean over its tokens, the stop token included; nats.
        decision: probability of its least certain token.
        tokens: [text, log-probability, [[rival, log-probability], ...]] of each; the model's own, before temperature.
    """

    suite: str
    id: str
    type: str
    cluster: str
    column: str
    route: str
    mode: Mode
    temperature: float
    seed: int
    system: str | None
    prompt: str
    text: str
    verdicts: tuple[str, ...]
    reasons: dict[str, str]
    bad: bool
    finish: str
    prompt_tokens: int
    seconds: float
    logprob: float
    decision: float
    tokens: list[Any]

    @property
    def key(self) -> tuple[str, str]:
        """What one run has once."""
        return self.mode, self.id

    @property
    def reason(self) -> str:
        """The first verdict's reason, or its name."""
        return next((self.reasons.get(v) or v for v in self.verdicts), "")


def read_rows(file: Path) -> list[Row]:
    """The rows of a results file; [] where there is none.

    Raises:
        DataError: a line that is no result, before the last.
    """
    if not file.exists():
        return []
    found, lines = [], file.read_bytes().split(b"\n")
    names = {f.name for f in fields(Row)}
    for number, line in enumerate(lines[:-1], 1):  # behind the last line end is nothing, or half a line
        try:
            record = json.loads(line)
            found.append(Row(**{**record, "verdicts": tuple(record["verdicts"])}))
            if set(record) != names:
                raise ValueError("other keys")
        except (ValueError, TypeError, KeyError) as e:
            raise DataError(f"no result of this version ({e})", where=f"{file}:{number}", fix="add --fresh") from e
    return found


def append_rows(file: Path, rows: Sequence[Row]) -> None:
    """Add rows behind the last whole line."""
    with disk_errors(file.parent), file.open("rb+" if file.exists() else "wb+") as out:
        out.truncate(out.read().rfind(b"\n") + 1)
        out.seek(0, os.SEEK_END)
        out.write("".join(json_line(asdict(row)) + "\n" for row in rows).encode())
        out.flush()
        os.fsync(out.fileno())
