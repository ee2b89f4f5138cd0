"""Choices that are allowed and will probably not do what was meant, told in one line each before training.

What cannot work at all is refused elsewhere: a target that matches nothing (`lora.attach`), a run that does not fit
(`plan.check_memory`). Nothing here reads a weight; it takes about 0.1 s for 5,000 rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlx_gemma.gemma4 import lora
from mlx_gemma.recipe import Resolved
from mlx_gemma.training.prepare import Prepared

# Peak rates outside these are told. They are AdamW's: a factor of ten around QLoRA's 1e-4 to 2e-4 (arXiv 2305.14314)
# for adapters, less for whole weights. A model narrower than E2B bears more, in proportion (arXiv 2203.03466).
RATES = {"lora": (1e-5, 2e-3), "dora": (1e-5, 2e-3), "full": (5e-7, 1e-4)}
WIDTH = 1536
SCALES = (0.25, 4.0)  # alpha / rank; the usual 2 lies in the middle of it, by factors
FEW_UPDATES = 20  # an optimiser's moments and a warm-up need about as many
MLX_LM_SCALE = 20.0  # mlx-lm's default, which multiplies as it is (trap T31)
FUSED_LENGTH = 1024  # training attention keeps its scores: [heads, length, length] a row and layer


def advise(resolved: Resolved, ready: Prepared, steps: int) -> list[str]:
    """What to reconsider before training, most telling first; empty where nothing is odd.

    Args:
        resolved: the recipe; some choices are odd only where the user made them.
        ready: model with its adapter, and the rows. Only looked at.
        steps: updates of the whole run.
    """
    return [*_adapter(resolved, ready), *_rate(resolved, ready), *_rows(resolved, ready), *_length(resolved, steps)]


def _given(resolved: Resolved, key: str) -> bool:
    return resolved.sources.get(key, "default") != "default"


def _adapter(resolved: Resolved, ready: Prepared) -> Iterator[str]:
    a, args = resolved.recipe.adapter, ready.gemma.text.args
    if a.kind == "full":
        idle = [k for k in ("rank", "alpha", "rslora", "dropout", "targets") if _given(resolved, f"adapter.{k}")]
        if idle:
            yield f"adapter.{idle[0]} means nothing in full training; remove {', '.join(idle)}, or adapter.kind=full"
        return
    own = args.num_hidden_layers - args.num_kv_shared_layers
    first = 0 if a.layers == "all" else args.num_hidden_layers - a.layers
    if {"k_proj", "v_proj"} & set(a.targets) and own > 2 * (own - first):
        yield (
            f"adapter.layers={a.layers} reaches {max(0, own - first)} of the {own} layers that have k_proj and v_proj "
            "(later ones share theirs); raise it, or set adapter.layers=all"
        )
    yield from _rank(a.rank, ready)
    low, high = SCALES[0], SCALES[1] * (a.rank**0.5 if a.rslora else 1)
    scale = ready.spec.scale
    if not low <= scale <= high:
        yield (
            f"the adapter's scale is {scale:.3g}, where {low:g} to {high:.3g} is usual; set adapter.alpha to about "
            f"{2 * a.rank} (to copy a scale from mlx-lm, set adapter.alpha = scale x rank)"
        )
    elif a.alpha == MLX_LM_SCALE and _given(resolved, "adapter.alpha"):
        yield (
            f"adapter.alpha=20 with rank {a.rank} is a scale of {scale:.3g}; if the 20 is mlx-lm's scale, note that "
            f"mlx-lm does not divide it by the rank: about {2 * a.rank} is the usual alpha"
        )


def _rank(rank: int, ready: Prepared) -> Iterator[str]:
    arrays = lora.adapter_parameters(ready.gemma.model, ready.spec)
    names = [name.removesuffix(".lora_a") for name in arrays if name.endswith(".lora_a")]
    sides = {name: (arrays[f"{name}.lora_a"].shape[0], arrays[f"{name}.lora_b"].shape[1]) for name in names}
    low = [name for name in names if min(sides[name]) < rank]
    if low:
        name = min(low, key=lambda name: min(sides[name]))
        full = min(sides[name])
        others = f" and {len(low) - 1} other modules" if len(low) > 1 else ""
        yield (
            f"adapter.rank={rank} is more than {name} can use, whose matrix is {' x '.join(map(str, sides[name]))}"
            f"{others}; set adapter.rank to at most {full}"
        )


def _rate(resolved: Resolved, ready: Prepared) -> Iterator[str]:
    t, kind = resolved.recipe.train, resolved.recipe.adapter.kind
    low, high = RATES[kind]
    high *= max(1.0, WIDTH / ready.gemma.text.args.hidden_size)
    if t.optimizer in ("adamw", "adam", "adafactor"):
        if not low <= t.lr <= high:
            word = "high" if t.lr > high else "low"
            yield f"train.lr={t.lr:g} is {word} for {kind}; {low:g} to {high:.1g} is usual with {t.optimizer}"
    elif not _given(resolved, "train.lr"):
        better = {"lion": 2e-5, "muon": 2e-3, "sgd": 1e-1}[t.optimizer]
        yield f"train.lr={t.lr:g} is made for adamw; {t.optimizer} wants about {better:g}, set train.lr"
    if t.optimizer == "adam" and t.weight_decay:
        yield "train.weight_decay does nothing with adam; set train.optimizer=adamw"
    if t.lora_plus > 1 and t.optimizer in ("sgd", "muon"):
        yield f"train.lora_plus is derived for adamw's kind of step, not for {t.optimizer}'s; remove one of them"


def _rows(resolved: Resolved, ready: Prepared) -> Iterator[str]:
    t, v = resolved.recipe.train, resolved.recipe.validation
    split = ready.train
    if split.cut > 0.01 * (len(split.examples) + split.dropped):
        lost = 100 * split.lost / max(1, split.lost + split.targets)
        yield (
            f"train.length={t.length} cuts {split.cut} of {len(split.examples) + split.dropped} rows and loses "
            f"{split.lost:,} supervised tokens ({lost:.0f} %); raise train.length, or shorten the rows"
        )
    if t.layout == "packed" and t.length > FUSED_LENGTH:
        longest = int(split.lengths.max())
        hint = (
            f"{FUSED_LENGTH} holds every row (the longest has {longest} tokens)"
            if longest <= FUSED_LENGTH
            else "train.layout=padded costs less for rows as long as these"
        )
        yield f"packed rows of {t.length} tokens: attention's time and memory grow with the square of it; {hint}"
    if ready.valid is None:
        idle = [
            k
            for k in ("every", "keep", "patience")
            if getattr(v, k) is not None and _given(resolved, f"validation.{k}")
        ]
        if idle:
            names = " and ".join(f"validation.{k}" for k in idle)
            yield f"{names} {'do' if len(idle) > 1 else 'does'} nothing without validation rows; give data.valid"
        return
    yield from _shared(ready.report.whole["splits"])


def _shared(splits: dict[str, Any]) -> Iterator[str]:
    """Of what data/audit/held_out.py found."""
    found = {leak["how"]: leak["found"] for leak in splits["leaks"]}
    families = found.pop("family", 0)
    if not found and not families:
        return
    kinds, total = ", ".join(f"{n:,} {how}" for how, n in found.items()), splits["rows"]["valid"]
    told = [f"{sum(found.values()):,} of {total:,} validation rows are in data.train too ({kinds})"] if found else []
    told += [f"{families:,} families of rows are in both data.train and data.valid"] if families else []
    first = splits["listed"][0]
    yield (
        f"{', and '.join(told)}; the first: {first['where']} {first['message']}: the validation loss will look better "
        "than it is; take them out of data.train (audit.json lists them)"
    )


def _length(resolved: Resolved, steps: int) -> Iterator[str]:
    r = resolved.recipe
    t, v = r.train, r.validation
    if steps < FEW_UPDATES:
        yield f"only {steps} updates, where {FEW_UPDATES} are few; raise train.epochs or lower train.accumulate"
    if t.warmup > 0.5:
        yield f"train.warmup={t.warmup:g} is over half of the run, which hardly reaches its rate; 0.03 to 0.1 is usual"
    if r.data.valid and v.patience is not None and v.every * (v.patience + 1) > steps:
        yield (
            f"validation.patience={v.patience} cannot stop this run: it has {steps // v.every} measurements, one every "
            f"{v.every} of {steps} updates; lower validation.every"
        )
    if r.checkpoint.every >= steps and _given(resolved, "checkpoint.every"):
        yield f"checkpoint.every={r.checkpoint.every} makes none before the end of {steps} updates; lower it"
