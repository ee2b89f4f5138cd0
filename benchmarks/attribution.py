"""How well attribution predicts what training on other rows does to nano's decisions.

    python benchmarks/attribution.py FOLDER    # finished trainings and scores stay in FOLDER, to go on from

f is the log-probability of one token less that of another. Two measures, the methods side by side (a third, finding
rows that were planted, is planted.py):

- lds, the linear datamodelling score (arXiv 2303.14186): nano is trained on random halves of 400 rows, and f measured
  at the least certain token of an answer to each eval family. The score is Spearman's correlation, over the halves,
  between f and the sum of the half's scores; mean over the decisions, bootstrap over them.
- tail-patch: one AdamW update, from the finished adapter, on the 10 rows that a method ranks highest; f's change.

Methods: lexical counts in a row where the end of the context is followed by the token, less the rival; TracIn is the
product of gradients (arXiv 2002.08484), at the last snapshot alone or summed over all; ours has AdamW's scaling in it.
Gradients of whole rows are taken here, as they serve all decisions; a test has them equal to what `influence` takes.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma import platform, run

platform.load_blas()

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from scipy.stats import spearmanr
from training import commit

from mlx_gemma.blame.derivatives import continuation, decision_gradient, set_parameters
from mlx_gemma.blame.index import NO_TOKEN
from mlx_gemma.blame.influence import example_at, run_recipe
from mlx_gemma.blame.lexical import continuations
from mlx_gemma.blame.trained import corpus_of_run
from mlx_gemma.blame.trajectory import trajectory
from mlx_gemma.data.formats import read_rows
from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.checkpoint import NANO
from mlx_gemma.gemma4.layers import head
from mlx_gemma.gemma4.load import Gemma, load
from mlx_gemma.gemma4.template import ChatTemplate, Example
from mlx_gemma.platform import scalar
from mlx_gemma.recipe import read_recipe
from mlx_gemma.tracing.record import trace
from mlx_gemma.training import snapshots
from mlx_gemma.training.batches import collate
from mlx_gemma.training.loop import train
from mlx_gemma.training.loss import summed_loss

ROOT = Path(__file__).parents[1]
ROWS, LONGEST, HALVES = 400, 96, 40
BATCH = 24
PATCH_ROWS, PATCH_RATE = 10, 2e-4
RECIPE = """
model: {{name: nano}}
adapter: {{rank: 8, alpha: 16}}
data: {{train: {train}}}
filter: {{python2: keep, broken: keep, truncated: keep, exact_duplicates: keep, near_duplicates: keep}}
train: {{epochs: {epochs}, lr: 2e-3, batch: 8, length: 128}}
blame: {{snapshots: {snapshots}}}
output: {output}
"""


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    """Random rows of the raw data set, planted faults and all, of at most `LONGEST` tokens."""
    template = ChatTemplate(NANO)
    rows = [{"messages": r.messages} for r in read_rows(str(ROOT / "datasets/python3/raw.jsonl"))]
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    short = (rows[i] for i in order if len(template.example(rows[i]["messages"]).tokens) <= LONGEST)
    return [next(short) for _ in range(count)]


def train_on(rows: list[dict[str, Any]], folder: Path, *, epochs: float = 2, kept: int = 0) -> Path:
    """Train nano on these rows, unless that was done before."""
    if (folder / run.MANIFEST).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    data = folder.with_suffix(".jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(RECIPE.format(train=data, output=folder, epochs=epochs, snapshots=kept), encoding="utf8")
    return train(read_recipe(recipe))


def halves(count: int) -> list[list[int]]:
    return [sorted(np.random.default_rng([7, i]).permutation(count)[: count // 2].tolist()) for i in range(HALVES)]


def decisions(gemma: Gemma, path: Path) -> list[dict[str, Any]]:
    """The least certain token of the model's answer to the first prompt of each eval family, and its first rival."""
    if path.exists():
        return list(json.loads(path.read_text()))
    first: dict[str, str] = {}
    for line in (ROOT / "evals/tasks.jsonl").read_text(encoding="utf8").splitlines():
        item = json.loads(line)
        first.setdefault(item["family"], item["prompt"])
    found = []
    for prompt in first.values():
        traced = trace(gemma, prompt, max_tokens=80)
        at = min(traced.positions, key=lambda p: p.margin)
        context = [*traced.prompt_tokens, *(p.token for p in traced.positions[: at.index])]
        pair = [c.token for c in at.candidates[:2]]
        found.append({"context": context, "answer": pair[:1], "rival": pair[1:]})
    run.write_json(path, found)
    return found


def pair(decision: dict[str, Any]) -> tuple[Example, Example]:
    return continuation(decision["context"], decision["answer"]), continuation(decision["context"], decision["rival"])


def value(gemma: Gemma, decision: dict[str, Any]) -> float:
    """f of the adapter that is in the model."""
    losses = [summed_loss(gemma.text, collate([e], [[0]]), gradient=False) for e in pair(decision)]
    return scalar(losses[1]) - scalar(losses[0])


def measured(gemma: Gemma, asked: list[dict[str, Any]], folders: list[Path]) -> np.ndarray:
    """[runs, decisions]."""
    out = np.zeros((len(folders), len(asked)))
    for i, folder in enumerate(folders):
        set_parameters(gemma.model, mx.load(str(folder / lora.WEIGHTS)))
        out[i] = [value(gemma, d) for d in asked]
    return out


def flat(arrays: dict[str, mx.array]) -> np.ndarray:
    return np.concatenate([np.array(arrays[k]).ravel() for k in sorted(arrays)])


def row_gradients(
    gemma: Gemma, parameters: dict[str, mx.array], examples: list[Example]
) -> Iterator[tuple[list[int], np.ndarray]]:
    """(rows, [rows, parameters]): the gradient of each row's summed loss; LoRA alone.

    Every row of a batch has adapters of its own, which hold the same numbers: their gradient is that row's.
    """
    names, text = sorted(parameters), gemma.text
    order = sorted(range(len(examples)), key=lambda r: len(examples[r].tokens))
    for i in range(0, len(order), BATCH):
        rows = order[i : i + BATCH]
        tokens = np.zeros((len(rows), max(len(examples[r].tokens) for r in rows)), np.int32)
        targets = np.zeros(tokens.shape, bool)
        for k, r in enumerate(rows):
            tokens[k, : len(examples[r].tokens)] = examples[r].tokens
            targets[k, : len(examples[r].tokens)] = examples[r].supervised
        before = mx.array(np.flatnonzero(targets[:, 1:]).astype(np.int32))
        after = mx.array(tokens[:, 1:][targets[:, 1:]])

        def loss(values: list[mx.array], ids: mx.array, before: mx.array, after: mx.array) -> mx.array:
            set_parameters(gemma.model, dict(zip(names, values, strict=True)))
            hidden = text.model(ids)
            logits = head(text, mx.take(hidden.reshape(-1, hidden.shape[-1]), before, axis=0))
            return nn.losses.cross_entropy(logits, after).sum()

        own = [mx.broadcast_to(parameters[k], (len(rows), *parameters[k].shape)) for k in names]
        found = mx.grad(loss)(own, mx.array(tokens[:, :-1]), before, after)
        yield rows, np.concatenate([np.array(g).reshape(len(rows), -1) for g in found], axis=1)
    set_parameters(gemma.model, parameters)


def scored(gemma: Gemma, folder: Path, asked: list[dict[str, Any]], path: Path) -> np.ndarray:
    """[snapshots, 2, rows, decisions]: the terms of TracIn, and of ours."""
    if path.exists():
        return np.load(path)
    corpus = corpus_of_run(folder, gemma.template)
    examples = [example_at(corpus, r) for r in range(len(corpus))]
    recipe, targets = run_recipe(folder), sum(e.targets for e in examples)
    out = []
    for point in trajectory(folder, recipe, targets):
        plain = np.stack([flat(decision_gradient(gemma, point.parameters, *pair(d))[1]) for d in asked], axis=1)
        ours = plain * flat(point.preconditioner)[:, None]
        both = np.concatenate([plain, ours], axis=1)
        rows = np.zeros((len(examples), both.shape[1]))
        for chosen, gradients in row_gradients(gemma, point.parameters, examples):
            rows[chosen] = -point.weight * (gradients @ both)
        out.append(rows.reshape(len(rows), 2, len(asked)).transpose(1, 0, 2))
        print("snapshot", point.step, flush=True)
    found = np.stack(out)
    np.save(path, found)
    return found


def steps_of(folder: Path) -> list[int]:
    return [int(path.stem) for path in snapshots.found(folder)]


def lexical(gemma: Gemma, folder: Path, decision: dict[str, Any]) -> np.ndarray:
    """[rows]: places where the token follows, less those where the rival does, behind the longest suffix with 20."""
    corpus = corpus_of_run(folder, gemma.template)
    ladder = continuations(corpus, gemma.template, decision["context"])
    counts = np.zeros(len(corpus))
    if ladder.best is not None:
        at = ladder.best.at
        behind = corpus.tokens[at + 1] & np.uint32(NO_TOKEN)
        for token, sign in ((decision["answer"][0], 1), (decision["rival"][0], -1)):
            np.add.at(counts, corpus.row_of(at[behind == token]), sign)
    return counts


def methods(gemma: Gemma, folder: Path, asked: list[dict[str, Any]], path: Path) -> dict[str, np.ndarray]:
    """Scores [rows, decisions] of each method."""
    terms = scored(gemma, folder, asked, path)
    found = {"lexical": np.stack([lexical(gemma, folder, d) for d in asked], axis=1)}
    for name, i in (("TracIn", 0), ("ours", 1)):
        found[f"{name}, last snapshot"] = terms[-1, i]
        found[f"{name}, {len(terms)} snapshots"] = terms[:, i].sum(axis=0)
    return found


def lds(found: dict[str, np.ndarray], chosen: list[list[int]], f: np.ndarray) -> dict[str, Any]:
    """Mean over the decisions of Spearman's correlation over the halves; 95 % bootstrap interval over the decisions.

    (Halves drawn twice would be ties that any prediction gets right.)"""
    each = {}
    for name, scores in found.items():
        predicted = np.stack([scores[half].sum(axis=0) for half in chosen])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a constant prediction, which lexical's may be, predicts nothing
            each[name] = np.nan_to_num([spearmanr(predicted[:, k], f[:, k]).statistic for k in range(f.shape[1])])
    best = each[next(reversed(each))]
    return {
        name: _interval(r) | ({"ours less it": _interval(best - r)} if r is not best else {})
        for name, r in each.items()
    }


def _interval(values: np.ndarray) -> dict[str, Any]:
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"mean": round(float(values.mean()), 3), "interval": [round(float(low), 3), round(float(high), 3)]}


def patched(gemma: Gemma, folder: Path, examples: list[Example], chosen: list[int], decision: dict[str, Any]) -> float:
    """f's change by one AdamW update on these rows, from the finished adapter."""
    own: dict[str, mx.array] = mx.load(str(folder / lora.WEIGHTS))  # type: ignore[assignment]
    set_parameters(gemma.model, own)
    before = value(gemma, decision)
    grads: dict[str, mx.array] = {}
    for row in chosen:
        for k, g in decision_gradient(gemma, own, examples[row])[1].items():
            grads[k] = grads.get(k, mx.array(0.0)) - g / sum(examples[r].targets for r in chosen)
    set_parameters(
        gemma.model, optim.AdamW(PATCH_RATE, weight_decay=0, bias_correction=True).apply_gradients(grads, own)
    )
    return value(gemma, decision) - before


def tail_patch(gemma: Gemma, folder: Path, asked: list[dict[str, Any]], found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean change of f in nats over the decisions, and in how many it rose."""
    corpus = corpus_of_run(folder, gemma.template)
    examples = [example_at(corpus, r) for r in range(len(corpus))]
    out = {}
    random = np.random.default_rng(1).random((len(examples), len(asked)))
    for name, scores in {"random": random, **found}.items():
        top = np.argsort(-scores, axis=0, kind="stable")[:PATCH_ROWS]
        changes = [patched(gemma, folder, examples, top[:, k].tolist(), d) for k, d in enumerate(asked)]
        out[name] = {"mean": round(float(np.mean(changes)), 3), "rose": int(np.sum(np.array(changes) > 0))}
        print("tail-patch", name, out[name], flush=True)
    return out | {"decisions": len(asked), "rows": PATCH_ROWS, "rate": PATCH_RATE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    rows, chosen = rows_of(ROWS, seed=0), halves(ROWS)
    everything = train_on(rows, args.folder / "all", kept=4)
    parts = [train_on([rows[r] for r in half], args.folder / f"half-{i:02d}") for i, half in enumerate(chosen)]
    gemma = load(str(everything))
    asked = decisions(gemma, args.folder / "decisions.json")
    found = methods(gemma, everything, asked, args.folder / "scores.npy")
    f = measured(gemma, asked, parts)
    figures: dict[str, Any] = {"lds": lds(found, chosen, f)}
    figures["lds"] |= {"rows": ROWS, "halves": HALVES, "decisions": len(asked), "snapshots": steps_of(everything)}
    print(json.dumps(figures["lds"], indent=1), flush=True)
    figures["tail_patch"] = tail_patch(gemma, everything, asked, found)
    row = {"date": date.today().isoformat(), "bench": "attribution", "model": "nano", "figures": figures}
    row |= {"machine": platform.describe(), "commit": commit()}
    print(json.dumps(figures, indent=1))
    with (Path(__file__).parent / "attribution.jsonl").open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
