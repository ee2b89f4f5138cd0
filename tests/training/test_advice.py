"""Advice before training: each rule once where it speaks and once where it is silent, at E2B's and nano's shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma.gemma4 import lora
from mlx_gemma.gemma4.template import Example
from mlx_gemma.recipe import Resolved, read_recipe
from mlx_gemma.training.advice import advise
from mlx_gemma.training.prepare import Split, adapter_spec, prepare

ROOT = Path(__file__).parents[2]


def split(count: int = 400, length: int = 100, first: int = 0, **more: Any) -> Split:
    """Rows that all differ, numbered from `first`."""
    examples = [Example([i + first] + [0] * (length - 1), [False, *[True] * (length - 1)]) for i in range(count)]
    cut, dropped, lost = (more.get(k, 0) for k in ("cut", "dropped", "lost"))
    return Split(examples, [f"rows.jsonl:{i + 1}" for i in range(count)], cut, dropped, "", lost)


def told(
    tmp_path: Path,
    *overrides: str,
    train: Split | None = None,
    valid: Split | None = None,
    steps: int = 200,
    recipe: Path | None = None,
    leaks: Sequence[dict[str, Any]] = (),
) -> list[str]:
    """The advice on a recipe for E2B, whose arrays are never computed."""
    from mlx_lm.models.gemma4_text import Model, ModelArgs

    plain = tmp_path / "recipe.yaml"
    plain.write_text("model: {name: e2b}\ndata: {train: rows.jsonl}\ntrain: {epochs: 2}\noutput: run\n")
    resolved: Resolved = read_recipe(recipe or plain, overrides)
    model: Any = Model(ModelArgs())
    model.set_dtype(mx.bfloat16)
    spec = adapter_spec(resolved.recipe)
    if spec.kind == "lora":  # the others compute on the weights
        lora.attach(model, spec)
    gemma = SimpleNamespace(model=model, text=model)
    splits = {"rows": {"valid": 20}, "leaks": leaks, "listed": [{"where": "rows.jsonl:1", "message": "repeats it"}]}
    report = SimpleNamespace(whole={"splits": splits})
    ready: Any = SimpleNamespace(gemma=gemma, spec=spec, train=train or split(), valid=valid, report=report)
    return advise(resolved, ready, steps)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        # T6: k_proj and v_proj are targets, and the chosen layers hold few of them.
        (["adapter.layers=24"], "adapter.layers=24 reaches 4 of the 15 layers that have k_proj and v_proj"),
        (
            ["adapter.rank=300", "adapter.alpha=600"],
            "k_proj can use, whose matrix is 1536 x 256 and 23 other modules; set adapter.rank to",
        ),
        (
            ["adapter.rank=8", "adapter.alpha=160"],
            r"scale is 20, .* to about 16 \(to copy a scale from mlx-lm, set adapter.alpha = scale x rank\)",
        ),
        (["adapter.rank=64", "adapter.alpha=8"], "scale is 0.125"),
        (["adapter.rslora=true", "adapter.alpha=1000"], "scale is 177, where 0.25 to 22.6"),
        # T31: mlx-lm's default scale, which is no alpha.
        (["adapter.alpha=20"], "adapter.alpha=20 with rank 32 is a scale of 0.625; if the 20 is mlx-lm's scale"),
        (["adapter.kind=full", "adapter.rank=8", "train.lr=1e-5"], "adapter.rank means nothing in full training"),
        (["adapter.kind=full"], "train.lr=0.0002 is high for full; 5e-07 to 0.0001 is usual with adamw"),
        (["train.lr=0.02"], "train.lr=0.02 is high for lora"),
        (["train.lr=1e-7"], "train.lr=1e-07 is low for lora"),
        (["train.optimizer=sgd"], "train.lr=0.0002 is made for adamw; sgd wants about 0.1"),
        (["train.optimizer=lion"], "lion wants about 2e-05"),
        (["train.optimizer=adam", "train.weight_decay=0.1"], "train.weight_decay does nothing with adam; set"),
        (["train.optimizer=sgd", "train.lora_plus=16", "train.lr=0.1"], "train.lora_plus is derived for adamw's kind"),
        (["train.layout=packed", "train.length=4096"], "packed rows of 4096 tokens: .*; 1024 holds every row"),
        (["validation.patience=3"], "validation.patience does nothing without validation rows; give data.valid"),
        (["validation.every=9", "validation.keep=last"], "validation.every and validation.keep do nothing without"),
        (["train.warmup=0.6"], "train.warmup=0.6 is over half of the run"),
        (["checkpoint.every=200"], "checkpoint.every=200 makes none before the end of 200 updates"),
    ],
)
def test_an_odd_choice_is_one_line(tmp_path: Path, overrides: list[str], says: str) -> None:
    lines = told(tmp_path, *overrides)
    assert len(lines) == 1, lines
    assert re.search(says, lines[0]), lines[0]
    assert "\n" not in lines[0]


@pytest.mark.parametrize(
    "overrides",
    [
        ["adapter.layers=28"],  # most layers with k_proj and v_proj
        ["adapter.layers=8", "adapter.targets=[q_proj, o_proj]"],
        ["adapter.rank=256", "adapter.alpha=512"],
        ["adapter.rslora=true", "adapter.rank=64", "adapter.alpha=128"],
        ["adapter.kind=full", "train.lr=1e-5"],
        ["train.optimizer=sgd", "train.lr=1"],
        ["train.optimizer=adamw", "train.weight_decay=0.1"],
        ["train.optimizer=adam", "train.weight_decay=0"],
        ["validation.every=9", "validation.keep=last"],
        ["train.optimizer=adafactor", "train.lora_plus=16"],
        ["train.layout=packed"],
        ["train.length=8192"],  # padded rows are as long as they need to be
        ["checkpoint.every=50"],
    ],
)
def test_what_is_usual_is_not_commented_on(tmp_path: Path, overrides: list[str]) -> None:
    assert told(tmp_path, *overrides, valid=split(20, first=9000)) == []


def test_the_defaults_of_a_short_run_are_not_held_against_it(tmp_path: Path) -> None:
    assert told(tmp_path, steps=60) == []  # checkpoint.every is 100 by default
    assert told(tmp_path, steps=12) == [
        "only 12 updates, where 20 are few; raise train.epochs or lower train.accumulate"
    ]


def test_truncation_is_counted_in_supervised_tokens(tmp_path: Path) -> None:
    assert told(tmp_path, train=split(400, cut=4, lost=99)) == []  # 1 %
    (line,) = told(tmp_path, train=split(99, 101, cut=2, dropped=1, lost=1100))
    assert line.startswith("train.length=1024 cuts 2 of 100 rows and loses 1,100 supervised tokens (10 %)")


def test_validation_rows_that_are_trained_are_named(tmp_path: Path) -> None:
    exact, near, family = ({"how": how, "found": n} for how, n in (("exact", 7), ("near", 3), ("family", 1)))
    (line,) = told(tmp_path, valid=split(20, first=9000), leaks=[exact, near, family])
    assert line.startswith("10 of 20 validation rows are in data.train too (7 exact, 3 near), and 1 families of rows ")
    assert "; the first: rows.jsonl:1 repeats it: the validation loss will look better" in line
    (line,) = told(tmp_path, valid=split(20, first=9000), leaks=[family])
    assert line.startswith("1 families of rows are in both data.train and data.valid; the first: ")


def test_patience_that_outlasts_the_run(tmp_path: Path) -> None:
    overrides = ["data.valid=valid.jsonl", "validation.patience=3"]
    valid = split(20, first=9000)
    assert told(tmp_path, *overrides, valid=valid, steps=200) == []  # the fourth measurement may stop it
    (line,) = told(tmp_path, *overrides, valid=valid, steps=199)
    assert line.startswith("validation.patience=3 cannot stop this run: it has 3 measurements")


def test_packed_rows_longer_than_any_layout_should_have(tmp_path: Path) -> None:
    (line,) = told(tmp_path, "train.layout=packed", "train.length=4096", train=split(50, 3000))
    assert line.endswith("train.layout=padded costs less for rows as long as these")


FEW = ["model.name=nano", "data.train=datasets/python3/test.jsonl", "filter.contamination=[]"]  # their like, but quick


def test_nanos_recipe_gives_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    resolved = read_recipe(ROOT / "recipes" / "nano.yaml", FEW)
    assert advise(resolved, prepare(resolved.recipe), 200) == []


def test_e2bs_recipe_gives_no_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = ROOT / "recipes" / "python3.yaml"
    rows = prepare(read_recipe(recipe, FEW).recipe)  # E2B has nano's template
    assert told(tmp_path, recipe=recipe, train=rows.train, valid=rows.valid, steps=600) == []
