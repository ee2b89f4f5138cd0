"""Splits proposed, leakage between given ones, and semantic duplicates."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mlx_gemma.data.build.splits import NEAR, SPLITS, Splitter
from mlx_gemma.data.build.splits import clusters as near_clusters
from mlx_gemma.data.checks.duplicates import jaccard, prompt_shingles
from mlx_gemma.data.checks.leakage import leaks
from mlx_gemma.data.checks.semantic import Twin, clusters, lsa, semantic_duplicates
from mlx_gemma.data.formats import Row, read_rows
from mlx_gemma.errors import UserError

FOLDER = Path(__file__).parents[2] / "datasets" / "python3"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [r for name in ("valid", "test") for r in read_rows(FOLDER / f"{name}.jsonl")]


def made(n: int, prompt: str, answer: str = "Yes.", **extra: str) -> Row:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return Row(turns, f"rows.jsonl:{n}", dict(extra))


def proposed(rows: list[Row], splitter: Splitter) -> dict[str, list[Row]]:
    for row in rows:
        splitter.add(row)
    names = splitter.propose()
    return {split: [r for r, name in zip(rows, names, strict=True) if name == split] for split in SPLITS}


def test_families_stay_whole() -> None:
    rows = list(read_rows(FOLDER / "train.jsonl"))
    splits = proposed(rows, Splitter())
    families = {name: {r.extra["family"] for r in part} for name, part in splits.items()}
    assert not any(families[a] & families[b] for a, b in combinations(SPLITS, 2))
    assert [round(len(splits[s]) / len(rows), 2) for s in SPLITS] == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    topics = Counter(r.extra["topic"] for r in rows)
    for split in ("valid", "test"):  # 36 rows a family: each of nine topics has one or two of them
        assert set(Counter(r.extra["topic"] for r in splits[split])) == set(topics)
    assert not [leak for leak in leaks(splits) if leak.reason.name == "family"]


def test_same_rows_and_seed_same_splits(rows: list[Row]) -> None:
    one, again, other = (proposed(rows, Splitter(seed=seed)) for seed in (0, 0, 1))
    assert one == again
    assert one != other


def test_near_prompts_stay_together(rows: list[Row]) -> None:
    splits = proposed(rows, Splitter("prompts"))
    assert {leak.reason.name for leak in leaks(splits)} <= {"family"}
    assert min(map(len, splits.values())) > 20


def test_clusters_are_those_of_brute_force(rows: list[Row]) -> None:
    """Single linkage over all pairs at least NEAR similar, as by comparing every two."""
    sets = [prompt_shingles(r.prompt) for r in rows[:200]]
    parent = list(range(len(sets)))
    for i, j in combinations(range(len(sets)), 2):
        if jaccard(sets[i], sets[j]) >= NEAR:
            old, new = parent[j], parent[i]
            parent = [new if p == old else p for p in parent]
    want = {frozenset(i for i, p in enumerate(parent) if p == group) for group in parent}
    found = near_clusters(sets)
    assert {frozenset(i for i, p in enumerate(found) if p == group) for group in found} == want
    assert 1 < len(want) < 200


def test_what_cannot_be_split() -> None:
    with pytest.raises(UserError, match="9 rows: valid stays empty"):
        proposed([made(n, f"Question {n}", family="one") for n in range(9)], Splitter())
    with pytest.raises(UserError, match="has no 'family' to be grouped by"):
        Splitter().add(made(1, "Why?", topic="x"))
    with pytest.raises(UserError, match="add up to 1"):
        Splitter(shares=(0.5, 0.1, 0.1))


def test_no_test_split_wanted() -> None:
    splits = proposed([made(n, f"Question {n}", family=str(n)) for n in range(20)], Splitter(shares=(0.9, 0.1, 0)))
    assert {name: len(part) for name, part in splits.items()} == {"train": 18, "valid": 2, "test": 0}


def test_leaks() -> None:
    ask = "Write a function total(numbers) that returns the sum of a list of numbers."
    train = [made(1, ask, family="sum"), made(2, "Sort a list of words by length, longest first.", family="sort")]
    test = [
        made(11, "  " + ask),
        made(12, ask, "No."),
        made(13, ask.upper()[:-1] + "!"),
        made(14, ask.replace("returns", "retunrs")),
        made(15, "Name the capital of France.", family="sort"),
        made(16, "Reverse a string."),
    ]
    found = list(leaks({"train": train, "valid": [made(21, "Reverse a string.", "Maybe.")], "test": test}))
    assert [(leak.where, leak.of_split, leak.reason.name, leak.reason.of) for leak in found] == [
        ("rows.jsonl:11", "train", "exact", "rows.jsonl:1"),
        ("rows.jsonl:12", "train", "prompt", "rows.jsonl:1"),
        ("rows.jsonl:13", "train", "normalised", "rows.jsonl:1"),
        ("rows.jsonl:14", "train", "near", "rows.jsonl:1"),
        ("rows.jsonl:16", "valid", "prompt", "rows.jsonl:21"),
        ("rows.jsonl:15", "train", "family", "rows.jsonl:2"),
    ]
    assert found[0].reason.message == "repeats rows.jsonl:1 in train"
    assert found[-1].reason.message == "family 'sort' is in train too (rows.jsonl:2), with 1 rows of test"
    assert list(leaks({})) == []


def test_committed_splits_do_not_leak() -> None:
    assert list(leaks({s: read_rows(FOLDER / f"{s}.jsonl") for s in SPLITS})) == []


def test_semantic_duplicates_are_of_one_family(rows: list[Row]) -> None:
    """By families as the truth: measured 0.99 and more of the twins at the default threshold."""
    prompts = [r.prompt for r in rows]
    twins = list(semantic_duplicates(prompts))
    right = [t for t in twins if rows[t.row].extra["family"] == rows[t.of].extra["family"]]
    assert len(twins) > 100
    assert len(right) >= 0.98 * len(twins)
    assert twins == list(semantic_duplicates(prompts))
    of = {t.row for t in twins}
    assert not of & set(clusters(twins))  # only rows that were kept have twins


def test_semantic_search_is_that_of_brute_force(monkeypatch: pytest.MonkeyPatch, rows: list[Row]) -> None:
    monkeypatch.setattr("mlx_gemma.data.checks.semantic.BLOCK", 7)
    prompts = [r.prompt for r in rows[:150]]
    vectors, kept, want = lsa(prompts)(prompts), list[int](), {}
    for i, vector in enumerate(vectors):
        similar = vectors[kept] @ vector if kept else np.empty(0)
        if similar.size and similar.max() >= 0.6:
            want[i] = (kept[int(similar.argmax())], pytest.approx(float(similar.max()), abs=1e-5))
        else:
            kept.append(i)
    assert {t.row: (t.of, t.similarity) for t in semantic_duplicates(prompts, 0.6)} == want


def test_semantic_duplicates_of_few_texts() -> None:
    prompts = ["Reverse a string.", "Please reverse the string.", "Name the capital of France.", "Reverse a string."]
    twins = list(semantic_duplicates(prompts, 0.5))
    assert [(t.row, t.of) for t in twins] == [(1, 0), (3, 0)]
    assert twins[1].similarity == pytest.approx(1)
    assert Twin(1, 0, 0.755).reason("a:1").message == "asks the same as a:1 in other words (0.76)"
    assert list(semantic_duplicates([])) == []
    assert list(semantic_duplicates([" ", "x"])) == []


def test_a_sentence_model_from_a_folder(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["reverse", "flip", "string", "capital", "?"]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = np.array([[1, 0, 0], [0.9, 0.1, 0], [0.5, 0.5, 0], [0, 0, 1], [0, 0, 0]], np.float32)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)]).save(str(tmp_path / "model"))
    found = list(semantic_duplicates(["reverse string", "flip string", "capital"], 0.9, str(tmp_path / "model")))
    assert [(t.row, t.of) for t in found] == [(1, 0)]


def test_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="no embedding model can be loaded") as error:
        list(semantic_duplicates(["a", "b"], model=str(tmp_path / "none")))
    assert "\n" not in str(error.value)


def test_shuffled_prompts_hold_no_surprise() -> None:
    rng = random.Random(0)
    texts = ["".join(chr(rng.choice([*range(1, 400), 0x1F600, 0x4E00])) for _ in range(30)) for _ in range(40)]
    list(semantic_duplicates(texts))
    near_clusters([prompt_shingles(t) for t in texts])
