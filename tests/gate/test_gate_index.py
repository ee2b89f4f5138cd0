"""The index: what is written is found again, the search is right, and whatever is damaged is refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from gate_stand_ins import PROMPTS, FakeEncoder, small_gate
from safetensors.numpy import load_file, save_file

from mlx_gemma.errors import UserError
from mlx_gemma.gate import index as index_module
from mlx_gemma.gate.index import FILE, open_index
from mlx_gemma.gemma4 import headers


def unit_rows(rows: int, dimension: int, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_rows_and_digests_come_back(tmp_path: Path) -> None:
    found = open_index(small_gate(tmp_path / "g", ["naïve ☃ prompt", "a\u2028b\0c d", *PROMPTS]))
    assert len(found) == len(PROMPTS) + 2
    assert found.row(0) == ("naïve ☃ prompt", "answer 0", "rows.jsonl:1")
    assert found.row(1).prompt == "a\u2028b\0c d"
    assert found.row(29).prompt == PROMPTS[-1]
    assert found.digests["encoder"] == "fake"
    assert found.encoder == FakeEncoder().spec
    assert found.made.name == "python"
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        found.embeddings[0, 0] = 1


def test_search_is_that_of_a_full_sort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_gate(tmp_path / "g", [f"prompt {i % 40} of many" for i in range(100)])  # every one at least twice
    found = open_index(folder)
    queries = unit_rows(7, 256)
    for products in (1 << 25, 250):  # all at once, then two queries at a time
        monkeypatch.setattr(index_module, "PRODUCTS", products)
        similarities, rows = found.search(queries, 10)
        cosines = queries @ found.embeddings.T
        for i in range(7):
            order = np.lexsort((np.arange(100), -cosines[i]))[:10]
            np.testing.assert_allclose(similarities[i], cosines[i][order], atol=1e-6)
            assert len(set(rows[i])) == 10
    same = found.embeddings[3]
    similarities, rows = found.search(same[None], 3)
    assert rows[0].tolist() == [3, 43, 83]  # equal rows by number
    np.testing.assert_allclose(similarities[0], 1, atol=1e-6)


def test_one_row(tmp_path: Path) -> None:
    found = open_index(small_gate(tmp_path / "g", ["the only prompt"]))
    similarities, rows = found.search(FakeEncoder().encode(["the only prompt", "another"]), 20)
    assert similarities.shape == rows.shape == (2, 1)
    assert similarities[0, 0] == pytest.approx(1)


def test_the_graph_beyond_exact_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("usearch", reason="usearch is not installed")
    prompts = [f"prompt number {i} of {i * 37 % 101}" for i in range(400)]
    exact = open_index(small_gate(tmp_path / "exact", prompts))
    monkeypatch.setattr(index_module, "EXACT_ROWS", 100)
    graph = open_index(small_gate(tmp_path / "graph", prompts))
    assert (tmp_path / "graph" / "graph.usearch").is_file()
    queries = unit_rows(20, 256, seed=1)
    by_graph, rows = graph.search(queries, 5)
    with monkeypatch.context() as m:
        m.setattr(index_module, "EXACT_ROWS", 10**6)
        wanted, right = exact.search(queries, 5)
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(rows, right, strict=True)])
    assert recall > 0.9
    chosen = np.take_along_axis(queries @ graph.embeddings.T, rows, axis=1)
    np.testing.assert_allclose(by_graph, chosen, atol=1e-6)  # of whatever is proposed, the cosine is exact
    assert (by_graph <= wanted + 1e-6).all()


@pytest.mark.parametrize("content", [None, b"", b"rubbish" * 99, "other"])
def test_a_graph_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | str | None) -> None:
    pytest.importorskip("usearch", reason="usearch is not installed")
    monkeypatch.setattr(index_module, "EXACT_ROWS", 10)
    graph = small_gate(tmp_path / "g") / "graph.usearch"
    other = small_gate(tmp_path / "other", PROMPTS[1:]) / "graph.usearch"
    graph.unlink()
    if content is not None:
        graph.write_bytes(content if isinstance(content, bytes) else other.read_bytes())
    with pytest.raises(UserError, match="approximate index cannot be read"):
        open_index(tmp_path / "g").search(unit_rows(1, 256), 3)
    os.fstat(0)  # standard input is still open: usearch closes it where it cannot map a file


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.99])
def test_a_file_that_is_cut_off(tmp_path: Path, kept: float) -> None:
    path = small_gate(tmp_path / "g") / FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    with pytest.raises(UserError, match="damaged index") as caught:
        open_index(tmp_path / "g")
    assert "gate build" in str(caught.value)


def damaged(folder: Path, **changes: np.ndarray | str | None) -> None:
    """Write an index again with tensors or metadata changed, or left out."""
    about = headers.metadata(folder / FILE) or {}
    tensors = load_file(folder / FILE)
    for name, value in changes.items():
        if isinstance(value, str):
            about[name] = value
        elif value is None:
            tensors.pop(name)
        else:
            tensors[name] = value
    save_file(tensors, folder / FILE, about)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"embeddings": np.zeros((28, 32), np.float32)}, "32 dimensions, where its encoder has 256"),
        ({"embeddings": np.zeros((27, 256), np.float32)}, "rows and texts do not fit"),
        ({"embeddings": np.zeros((0, 256), np.float32)}, "rows and texts do not fit"),
        ({"embeddings": np.zeros(256, np.float32)}, "unpack"),
        ({"embeddings": np.zeros((28, 256), np.float64)}, "F64"),
        ({"text": np.zeros(3, np.uint8)}, "rows and texts do not fit"),
        ({"pca_mean": None}, "pca_mean"),
        ({"pca_components": np.zeros((1, 256), np.float32)}, "components do not fit"),
        ({"format": "0"}, "no index of this version"),
        ({"made": "{}"}, "encoder"),
        ({"made": "no JSON"}, "Expecting value"),
    ],
)
def test_a_file_that_does_not_fit_together(tmp_path: Path, changes: dict[str, np.ndarray], says: str) -> None:
    folder = small_gate(tmp_path / "g")
    damaged(folder, **changes)
    with pytest.raises(UserError, match=says) as caught:
        open_index(folder)
    assert "\n" not in str(caught.value)


def test_a_row_that_is_damaged(tmp_path: Path) -> None:
    folder = small_gate(tmp_path / "g")
    damaged(folder, text=np.zeros_like(load_file(folder / FILE)["text"]))
    with pytest.raises(UserError, match="row 2 is damaged"):
        open_index(folder).row(2)


def test_a_foreign_file(tmp_path: Path) -> None:
    for nowhere in (tmp_path, tmp_path / "nowhere", Path("x" * 5000), Path("a\0b")):
        with pytest.raises(UserError, match="no gate here") as caught:
            open_index(nowhere)
        assert caught.value.fix == "make one: mlx-gemma gate build RUN"
    small_gate(tmp_path / "run" / "gate")
    with pytest.raises(UserError, match="no gate here") as caught:  # the run instead of its gate
        open_index(tmp_path / "run")
    assert caught.value.fix == f"give {tmp_path / 'run' / 'gate'}"
    save_file({"weight": np.zeros((2, 2), np.float32)}, tmp_path / FILE)
    with pytest.raises(UserError, match="no index of this version"):
        open_index(tmp_path)
    (tmp_path / FILE).write_text(json.dumps({"no": "tensors"}))
    with pytest.raises(UserError, match="damaged index"):
        open_index(tmp_path)
