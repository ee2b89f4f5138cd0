"""From a recipe to what will be trained: rows read, audited, rendered, cut to length; the model with its adapter.

Rows whose supervised part was cut off are dropped and counted, never trained as zero tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_gemma import digest
from mlx_gemma.data.audit import Report, audit
from mlx_gemma.data.audit.held_out import Again
from mlx_gemma.data.formats import Row, read_rows, scan_rows
from mlx_gemma.errors import DataError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.forward import check_supported
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.template import ChatTemplate, Example
from mlx_gemma.recipe import Recipe


@dataclass
class Split:
    """Rendered examples of one data set, with where each came from."""

    examples: list[Example]
    where: list[str]
    cut: int  # rows shortened to the recipe's length
    dropped: int  # rows left with nothing to train by that
    digest: str  # of the rows' messages, in order
    lost: int = 0  # supervised tokens that were cut off

    @property
    def targets(self) -> int:
        return sum(e.targets for e in self.examples)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(e.tokens) for e in self.examples])


@dataclass
class Prepared:
    gemma: Gemma
    spec: lora.AdapterSpec
    attached: lora.Attached
    report: Report
    train: Split
    valid: Split | None
    valid_rejected: int  # validation rows that the filter left out
    regression: Split | None = None  # rows of what must not be lost, unfiltered


def adapter_spec(recipe: Recipe) -> lora.AdapterSpec:
    a = recipe.adapter
    layers = None if a.layers == "all" else a.layers
    return lora.AdapterSpec(a.rank, a.alpha, a.dropout, tuple(a.targets), layers, kind=a.kind, rslora=a.rslora)


def prepare(recipe: Recipe) -> Prepared:
    """Everything before the first update.

    Raises:
        UserError: whatever is wrong with data, model or adapter.
    """
    held_out = {"valid": Again(recipe.data.valid, "valid")} if recipe.data.valid else None
    report = audit(scan_rows(recipe.data.train), recipe.filter, held_out=held_out, balance=False)
    if breaches := report.breaches():
        fix = "mend the data, or raise filter.limits"
        raise DataError(f"beyond a limit: {'; '.join(breaches)}", where=recipe.data.train, fix=fix)
    kept = limited(report.kept, recipe.data.limit, recipe.train.seed)
    valid_report = (
        audit(scan_rows(recipe.data.valid, "valid"), recipe.filter, balance=False) if recipe.data.valid else None
    )
    m = recipe.model
    gemma = load(m.name, revision=m.revision, quantize=m.quantize, quantize_embeddings=m.quantize_embeddings)
    check_supported(gemma.text, gemma.checkpoint.name)
    mx.random.seed(recipe.train.seed)
    spec = adapter_spec(recipe)
    attached = lora.attach(gemma.model, spec)
    train = render(kept, gemma.template, recipe, recipe.data.train)
    valid = render(valid_report.kept, gemma.template, recipe, str(recipe.data.valid)) if valid_report else None
    rejected = valid_report.rejected_count if valid_report else 0
    regression = None
    if recipe.data.regression:
        regression = render(list(read_rows(recipe.data.regression)), gemma.template, recipe, recipe.data.regression)
    return Prepared(gemma, spec, attached, report, train, valid, rejected, regression)


def limited(rows: list[Row], limit: int | None, seed: int) -> list[Row]:
    if limit is None or limit >= len(rows):
        return rows
    chosen = np.random.default_rng(seed).permutation(len(rows))[:limit]
    return [rows[i] for i in sorted(chosen)]


def render(rows: Sequence[Row], template: ChatTemplate, recipe: Recipe, name: str) -> Split:
    """Render rows with the model's template and cut them to `train.length`.

    Raises:
        DataError: a row the template refuses (file and line), or nothing left to train.
    """
    examples, where, cut, dropped, lost = [], [], 0, 0, 0
    for row in rows:
        try:
            example = template.example(row.messages, turns=recipe.data.turns)
        except DataError as e:
            raise DataError(e.what, where=row.where, fix=e.fix) from e
        if len(example.tokens) > recipe.train.length:
            lost += sum(example.supervised[recipe.train.length :])
            example = Example(example.tokens[: recipe.train.length], example.supervised[: recipe.train.length])
            cut += 1
        if example.targets == 0:
            dropped += 1
            continue
        examples.append(example)
        where.append(row.where)
    if not examples:
        raise DataError("no row is left to train on", where=Path(name), fix="raise train.length or loosen filter")
    return Split(examples, where, cut, dropped, digest.digest_json([r.messages for r in rows]), lost)
