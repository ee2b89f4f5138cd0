"""What base and specialist answer to the calibration suites: one base in memory, every answer kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_gemma import run
from mlx_gemma.digest import digest_files, digest_json
from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.results import Row
from mlx_gemma.evaluate.run import evaluate
from mlx_gemma.evaluate.sandbox import Wall
from mlx_gemma.evaluate.suite import Suite, read_suite
from mlx_gemma.gate.route import Gate

FOLDER = "answers"  # in the gate's
FIRST = 8  # tokens of an answer by which its model's uncertainty is measured

Progress = Callable[[str, int, int], None]  # what is under way, answers given, of so many


@dataclass(frozen=True)
class Source:
    """A suite; `name` is its file's, without the ending."""

    name: str
    digest: str
    suite: Suite


def read_sources(files: Sequence[Path]) -> list[Source]:
    """Raises UserError: no suite, one that cannot be read, or two of one name."""
    if not files:
        raise UserError("no suites to calibrate on", fix="give --suite, once or more")
    found: dict[str, Source] = {}
    for file in files:
        name = file.name.split(".")[0]
        if name in found:
            raise UserError(f"two suites named {name}", where=file, fix="give each once, under names of their own")
        suite = read_suite(file)
        found[name] = Source(name, digest_files([file]), suite)
    return list(found.values())


def answers(
    gate: Gate, sources: Sequence[Source], wall: Wall | None, progress: Progress
) -> tuple[list[Row], list[Row]]:
    """Greedy answers of base and specialist to all suites, in order; one base in memory.

    Raises:
        UserError: no run folder, or see `evaluate`.
    """
    from mlx_gemma.gemma4 import lora
    from mlx_gemma.gemma4.load import load

    adapter = gate.folder / gate.index.made.run
    if not lora.is_run(adapter):
        raise UserError("the run that this gate was built from is not there", where=adapter, fix="put it back")
    name, revision = lora.base_of(adapter)
    gemma = load(name, revision=revision, **lora.quantization_of(adapter))
    lora.check_base(adapter, gemma.checkpoint)
    kept = gate.folder / FOLDER
    with run.disk_errors(kept):
        kept.mkdir(exist_ok=True)
    sides: list[list[Row]] = []
    for side, parts in (("base", ("base", "template")), ("specialist", ("base", "template", "adapter"))):
        if side == "specialist":
            lora.load_adapter(gemma.model, adapter)
        rows: list[Row] = []
        for source in sources:
            model = digest_json([source.digest, *(gate.index.digests[part] for part in parts)])
            rows += evaluate(
                gemma,
                source.suite,
                sampled=False,
                file=kept / f"{side}-{source.name}-{model[:12]}.jsonl",
                wall=wall,
                progress=lambda done, of, what=f"{side}, {source.name}": progress(what, done, of),  # type: ignore[misc]
            )
        sides.append(rows)
    return sides[0], sides[1]


def uncertainty(row: Row) -> float:
    """Mean log-probability of an answer's first tokens, in nats; of an empty answer, the stop token's."""
    found = [float(token[1]) for token in row.tokens[:FIRST]]
    return sum(found) / len(found) if found else row.logprob
