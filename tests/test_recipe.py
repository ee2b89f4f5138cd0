"""Recipes: what is read, what is refused, and how it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mlx_gemma.errors import RecipeError
from mlx_gemma.recipe import known_keys, read_recipe
from mlx_gemma.training.record import recipe_text

SMALL = """\
model: {name: nano}
data: {train: rows.jsonl}
train: {steps: 3, lr: 1e-4}
output: runs/x
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(SMALL)
    return path


def test_values_and_their_sources(recipe: Path) -> None:
    resolved = read_recipe(recipe, ["train.lr=2e-5", "adapter.targets=[q_proj, v_proj]"])
    assert resolved.recipe.train.lr == 2e-5
    assert resolved.recipe.adapter.targets == ("q_proj", "v_proj")
    rows = {key: (value, source) for key, value, source in resolved.rows()}
    assert rows["train.lr"] == ("2.0e-05", "--set")
    assert rows["train.steps"] == ("3", "file")
    assert rows["adapter.rank"] == ("32", "default")


def test_a_length_on_the_command_line_replaces_the_files(recipe: Path) -> None:
    train = read_recipe(recipe, ["train.epochs=2"]).recipe.train
    assert (train.epochs, train.steps) == (2, None)
    with pytest.raises(RecipeError, match=r"either train\.epochs or train\.steps"):
        read_recipe(recipe, ["train.epochs=2", "train.steps=3"])


def test_every_key_has_a_consequence() -> None:
    assert [name for name, key in known_keys().items() if not key.consequence] == []


@pytest.mark.parametrize(
    ("name", "default", "allowed"),
    [
        ("model.name", None, "text"),
        ("model.quantize", "none", "none, affine4, affine6, affine8, mxfp4, nvfp4, mxfp8 or nf4"),
        ("adapter.rank", "32", "a whole number from 1 to 65536"),
        ("adapter.dropout", "0.0", "a number from 0 to under 1"),
        ("adapter.layers", "all", "a whole number from 1 to 1e9, or all"),
        ("data.valid", "null", "text, or null"),
        ("filter.near_duplicates", "0.9", "a number from 0.5 to 1, or keep"),
        ("filter.contamination", "[]", "a list of paths"),
        ("train.lr", "0.0002", "a number over 0"),
        ("train.clip", "1.0", "a number over 0, at most 1e9"),
        ("train.checkpointing", "false", "true or false"),
        ("train.seed", "0", "a whole number from 0 to under 2^64"),
    ],
)
def test_a_keys_default_and_what_it_may_be(name: str, default: str | None, allowed: str) -> None:
    key = known_keys()[name]
    assert (key.default, key.allowed) == (default, allowed)


def test_the_targets_that_are_allowed_are_named() -> None:
    assert known_keys()["adapter.targets"].allowed.startswith("a list of q_proj, k_proj, ")


def test_the_written_recipe_runs_again_as_it_was(recipe: Path, tmp_path: Path) -> None:
    resolved = read_recipe(recipe, ["filter.contamination=[evals/a.jsonl]", "adapter.layers=4"])
    again = tmp_path / "again.yaml"
    again.write_text(recipe_text(resolved))
    assert read_recipe(again).recipe == resolved.recipe


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("output=2026-11-21", "2026-11-21"),
        ("output=007", "007"),
        ("model.revision=7e10", "7e10"),
        ("model.revision=2026-13-45", "2026-13-45"),
        ("model.revision=on", "on"),
        ("model.revision=null", None),
        ("model.revision='null'", "null"),
        ("output=~/runs/x", "{home}/runs/x"),
        ("output=~nobody_of_this_name/x", "~nobody_of_this_name/x"),
        ("filter.contamination=[~/evals.jsonl]", (Path("{home}/evals.jsonl"),)),
        ("train.lr=1e-4", 1e-4),
        ("train.steps=010", 10),
        ("train.checkpointing=true", True),
        ("adapter.layers=3", 3),
    ],
)
def test_the_schema_says_what_a_value_is(recipe: Path, tmp_path: Path, override: str, value: Any) -> None:
    """Whatever YAML 1.1 would make of it; the same in the file, whose form is that of the written recipe."""
    resolved = read_recipe(recipe, [override])
    again = tmp_path / "again.yaml"
    again.write_text(recipe_text(resolved))
    section, _, key = override.partition("=")[0].rpartition(".")
    for r in (resolved.recipe, read_recipe(again).recipe):
        found = getattr(getattr(r, section) if section else r, key)
        home = str(tmp_path / "home")
        assert str(found) == str(value).replace("{home}", home)
        assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.lrr=1", "did you mean train.lr?"),
        ("adpater.rank=8", "did you mean adapter.rank?"),
        ("rank=8", "did you mean adapter.rank?"),
        ("adapter.rank=0", "adapter.rank"),
        ("adapter.rank=many", "adapter.rank"),
        ("adapter.alpha=-1", "adapter.alpha"),
        ("adapter.alpha=.inf", "adapter.alpha"),
        ("adapter.dropout=1.0", "adapter.dropout"),
        ("adapter.targets=[]", "at least one target"),
        ("adapter.targets=[q_proj, q_proj]", "each once"),
        ("adapter.targets=[qproj]", "q_proj"),
        ("adapter.layers=0", "adapter.layers cannot be '0'"),
        ("adapter.layers=some", "adapter.layers cannot be 'some'"),
        ("adapter.rank=true", "adapter.rank"),
        ("adapter.rank=3000000000", "adapter.rank"),
        ("train.lr=true", "train.lr"),
        ("train.seed=1e22", "train.seed"),
        ("train.epochs=1e308", "train.epochs"),
        ("train.steps=1000000000000", "train.steps"),
        ("model.name=" + "[" * 5000, "nested too deeply"),
        ("adapter={rank: 1, rank: 2}", "key 'rank' occurs twice"),
        ("data.turns=first", "data.turns"),
        ("data.limit=0", "data.limit"),
        ("filter.python2=maybe", "filter.python2"),
        ("filter.near_duplicates=2", "filter.near_duplicates"),
        ("filter.pyton2=reject", "did you mean filter.python2?"),
        ("train.length=1", "train.length"),
        ("train.batch=0", "train.batch"),
        ("train.batch=2.5", "train.batch"),
        ("train.accumulate=0", "train.accumulate"),
        ("train.lr=0", "train.lr"),
        ("train.lr=.nan", "train.lr"),
        ("train.schedule=triangle", "train.schedule"),
        ("train.steps=null", "either train.epochs or train.steps"),
        ("train.steps=-5", "train.steps"),
        ("train.seed=-1", "train.seed"),
        ("validation.every=0", "validation.every"),
        ("model.name=null", "model.name"),
        ("train=3", "train"),
        ("train.lr.x=3", "no section"),
        ("train.lr", "has no value"),
        ("train.lr=[1", "not YAML"),
    ],
)
def test_wrong_values_are_told_in_one_line(recipe: Path, override: str, says: str) -> None:
    with pytest.raises(RecipeError) as raised:
        read_recipe(recipe, [override])
    line = str(raised.value)
    assert says in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("adapter.rank=many", "adapter.rank cannot be 'many'; give a whole number from 1 to 65536"),
        ("adapter.kind=lor", "adapter.kind cannot be 'lor'; give lora, dora or full"),
        ("adapter.layers=0", "adapter.layers cannot be '0'; give a whole number from 1 to 1e9, or all"),
        ("adapter.targets=[]", "adapter.targets cannot be []; give at least one target, each once"),
        ("model.name=null", "model.name cannot be null; give text"),
        ("train=3", "train cannot be '3'; it is a section of keys, see mlx-gemma lora --keys"),
        ("train.lrr=1", "unknown key train.lrr; did you mean train.lr?"),
        (
            "adapter.rank=8,16,32",
            "adapter.rank cannot be '8,16,32'; give a whole number from 1 to 65536; to compare several values use "
            "mlx-gemma sweep",
        ),
    ],
)
def test_a_wrong_value_is_told_where_it_was_given_with_what_is_allowed(
    recipe: Path, tmp_path: Path, override: str, line: str
) -> None:
    with pytest.raises(RecipeError) as raised:
        read_recipe(recipe, [override, "data.turns=last"])
    assert str(raised.value) == f"--set: {line}"
    key, _, value = override.partition("=")
    if "." in key:  # the same in the file, which has no sweep
        section, _, last = key.partition(".")
        tree = yaml.safe_load(SMALL)
        tree.setdefault(section, {})[last] = "VALUE"
        recipe.write_text(yaml.safe_dump(tree).replace("VALUE", value))
        with pytest.raises(RecipeError) as raised:
            read_recipe(recipe, ["data.turns=last"])
        assert str(raised.value) == f"{recipe}: {line.partition('; to compare')[0]}"


def test_a_list_that_is_none_is_no_sweep(recipe: Path) -> None:
    with pytest.raises(RecipeError) as raised:
        read_recipe(recipe, ["adapter.targets=q_proj,v_proj"])
    assert "give a list of q_proj, " in str(raised.value)
    assert "sweep" not in str(raised.value)


def test_what_is_missing_is_described(recipe: Path) -> None:
    recipe.write_text(SMALL.replace("{name: nano}", "{quantize: nf4}"))
    with pytest.raises(RecipeError) as raised:
        read_recipe(recipe)
    assert str(raised.value) == f"{recipe}: model.name is missing; {known_keys()['model.name'].consequence}"


def test_dropout_and_checkpointing_go_together(recipe: Path) -> None:
    # mlx-lm's recomputation draws other masks; ours has the same key, so nothing is to be chosen.
    read = read_recipe(recipe, ["adapter.dropout=0.1", "train.checkpointing=true"]).recipe
    assert (read.adapter.dropout, read.train.checkpointing) == (0.1, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a mapping of sections"),
        ("- a\n- b\n", "a mapping of sections"),
        ("model: {name: nano\n", "not YAML"),
        ("model: {name: nano}\n", "data is missing"),
        (SMALL + "train: {steps: 5}\n", "bad.yaml:5: not YAML: key 'train' occurs twice"),
        (SMALL + "filter: &a {python2: *a}\n", "not YAML"),
        (SMALL + "? [a]\n: 1\n", "not YAML"),
        ("model: " + "[" * 5000, "nested too deeply"),
        (SMALL.replace("lr: 1e-4", "lora_plus: 16") + "adapter: {kind: dora}\n", "needs adapter.kind lora"),
        (SMALL.replace("nano}", "nano, quantize: nf4}") + "adapter: {kind: full}\n", "choose one"),
        (SMALL.replace("output: runs/x", ""), "output is missing"),
        (SMALL.replace("train: {steps: 3, lr: 1e-4}", "train: {lr: 1e-4}"), "either train.epochs or train.steps"),
    ],
)
def test_wrong_files_are_told_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as raised:
        read_recipe(path)
    assert says in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_missing_or_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "binary.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path)


def test_recipes_in_the_repository_are_valid() -> None:
    recipes = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        assert read_recipe(path).recipe.output.startswith("runs/")
        header = path.read_text().split("\nmodel:")[0]
        assert f"mlx-gemma lora recipes/{path.name}" in header, "the header has the run command"
        assert yaml.safe_load(path.read_text())
