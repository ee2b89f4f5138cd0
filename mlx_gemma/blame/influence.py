"""`influence(gemma, run, context, answer)`: which training rows made a token what it is, and by how much.

f is log p(answer | context), or what it exceeds a rival's by. At every snapshot of the run, f's gradient by the
adapter's tensors, multiplied as AdamW multiplied the rows' gradients, is the direction whose product with a row's
negative gradient says how far training on that row moved f. Summed over the run this is TracIn (arXiv 2002.08484) with
the optimiser's preconditioning in it, whose lack is its largest error on models trained with AdamW (arXiv 2605.18814).

Scores are signed nats, to first order: of a row with +0.1, the run's passes over it raised f by about 0.1. Not
followed: that a row also changes AdamW's second moments, and the gradients of the rows that come after it.

Scores alone favour rows with large gradients, which move everything, f too; scores over the gradient's length, which is
relative influence (arXiv 2003.11630), favour rows that hardly move anything. Each finds planted rows where the other
does not, and their geometric mean, at the last snapshot, found both (exploratory: LOG.md): rows are ranked by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_gemma import run
from mlx_gemma.blame.corpus import Corpus
from mlx_gemma.blame.derivatives import continuation, decision_gradient, row_norms, set_parameters, token_derivatives
from mlx_gemma.blame.index import LEARNED, NO_TOKEN
from mlx_gemma.blame.trained import corpus_of_run
from mlx_gemma.blame.trajectory import Point, trajectory
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import Recipe, read_recipe
from mlx_gemma.training.snapshots import ADAM

CANDIDATES = 500  # rows of either sign that move f most at the last snapshot: those whose gradient's length is taken


@dataclass(frozen=True)
class Blamed:
    """A training row.

    Attributes:
        row: among the rows as they were trained, from 0.
        where: its place in the data, `file:line`.
        score: by how many nats the run's passes over it raised f, to first order: its targets' shares summed.
        culpability: what rows are ranked by: the last snapshot's part of the score, over the square root of the row's
            own gradient's length there, in the optimiser's metric; 0 of rows outside the `CANDIDATES`.
        token: which of its tokens, as they were trained, has the largest share on the score's side.
    """

    row: int
    where: str
    score: float
    culpability: float
    token: int


@dataclass(frozen=True)
class Influence:
    """What caused a token, or a token rather than its rival.

    Attributes:
        rows: those asked about, the most culpable first: rows at the end speak against the answer.
        total: their scores' sum; of all rows, what training changed f by, to first order.
        value: f of the run's adapter, in nats.
        preconditioned: whether the optimiser's scaling is in the scores, which it is for adam and adamw.
    """

    rows: list[Blamed]
    total: float
    value: float
    preconditioned: bool


def influence(
    gemma: Gemma,
    folder: Path,
    context: Sequence[int],
    answer: Sequence[int],
    rival: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
) -> Influence:
    """Score training rows by what they did to a decision.

    Args:
        gemma: the run's model with its adapter, quantised or not. Its tensors are the same afterwards.
        folder: the run folder, with snapshots.
        context: token ids of the rendered prompt and of the answer up to the decision.
        answer: token ids of what came, one or a few.
        rival: of what could have come; f is then log p(answer) - log p(rival).
        rows: which of the rows as they were trained to score; all if absent.

    Raises:
        UserError: the run is unfinished or kept no snapshots; its data has changed; the model has another adapter; no
            token ids, or ones that are none.

    Cost: for every snapshot, 2.3 forward passes over the rows and two backward passes over the context; then a forward
    and a backward pass over each of at most 2 * CANDIDATES rows.
    """
    recipe, corpus = run_recipe(folder), corpus_of_run(folder, gemma.template)
    first = _checked(gemma, context, answer)
    second = _checked(gemma, context, rival) if rival is not None else None
    chosen = list(range(len(corpus)) if rows is None else rows)
    examples = [example_at(corpus, r) for r in chosen]
    targets = int(np.count_nonzero(corpus.tokens >= LEARNED))
    shares = last = np.zeros(sum(e.targets for e in examples))
    own = lora.adapter_parameters(gemma.model)
    try:
        for point in trajectory(folder, recipe, targets):
            if {k: v.shape for k, v in point.parameters.items()} != {k: v.shape for k, v in own.items()}:
                fix = "load the run folder itself"
                raise UserError("the model has another adapter than this run's snapshots", where=folder, fix=fix)
            _, gradient = decision_gradient(gemma, point.parameters, first, second)
            direction = {k: point.preconditioner[k] * g for k, g in gradient.items()}
            last = -point.weight * token_derivatives(gemma, point.parameters, direction, examples)
            shares = shares + last
        ends = np.cumsum([e.targets for e in examples])[:-1]
        culpability = _culpability(gemma, point, np.array([part.sum() for part in np.split(last, ends)]), examples)
    finally:
        set_parameters(gemma.model, own)
    value, _ = decision_gradient(gemma, own, first, second)
    blamed = []
    for row, example, part, much in zip(chosen, examples, np.split(shares, ends), culpability, strict=True):
        blamed.append(Blamed(row, corpus.where(row), float(part.sum()), float(much), _strongest(part, example)))
    blamed.sort(key=lambda b: (-b.culpability, -b.score, b.row))
    return Influence(blamed, float(shares.sum()), value, recipe.train.optimizer in ADAM)


def _culpability(gemma: Gemma, point: Point, scores: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
    """[rows], from the rows' scores at this point; 0 but for the candidates."""
    order, out = np.argsort(-scores, kind="stable").tolist(), np.zeros(len(scores))
    some = sorted({*order[:CANDIDATES], *order[-CANDIDATES:]})
    lengths = row_norms(gemma, point.parameters, point.preconditioner, [examples[i] for i in some])
    out[some] = np.divide(scores[some], np.sqrt(lengths), out=np.zeros(len(some)), where=lengths > 0)
    return out


def example_at(corpus: Corpus, row: int) -> Example:
    """A corpus's row as it was trained."""
    ids = corpus.row(row)[1:]
    return Example((ids & NO_TOKEN).tolist(), [False, *(ids[:-1] >= LEARNED).tolist()])


def _strongest(shares: np.ndarray, example: Example) -> int:
    """The target with the largest share on the side of their sum."""
    side = 1 if shares.sum() >= 0 else -1
    return int(np.flatnonzero(example.supervised)[np.argmax(side * shares)])


def run_recipe(folder: Path) -> Recipe:
    """The resolved recipe of a finished run.

    Raises:
        UserError: there is no finished run, or its recipe is damaged.
    """
    run.read_manifest(folder)
    return read_recipe(folder / run.RECIPE).recipe


def _checked(gemma: Gemma, context: Sequence[int], answer: Sequence[int]) -> Example:
    vocabulary = int(gemma.text.args.vocab_size)
    for name, ids in (("context", context), ("answer", answer)):
        if not len(ids):
            raise UserError(f"the {name} is empty", fix="give at least one token")
        if wrong := [t for t in ids if not 0 <= t < vocabulary]:
            raise UserError(f"token {wrong[0]} is not in the vocabulary", fix=f"give ids from 0 to {vocabulary - 1}")
    if len(context) + len(answer) > gemma.context:
        what = f"context and answer have {len(context) + len(answer)} tokens, the model's context {gemma.context}"
        raise UserError(what, fix="shorten them")
    return continuation(context, answer)
