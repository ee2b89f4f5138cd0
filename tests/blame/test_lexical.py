"""Lexical blame against a search that looks at every place of every row, one by one. All comparisons are exact."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_gemma.blame import corpus, index, lexical
from mlx_gemma.blame.lexical import Counted, Ladder, RowHit, continuations, sentence
from mlx_gemma.errors import UserError
from mlx_gemma.gemma4.checkpoint import NANO
from mlx_gemma.gemma4.template import ChatTemplate, Example

Hits = list[tuple[int, int, int]]  # row, token that follows, tokens shared with the context


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate(NANO)


@pytest.fixture
def corpus_of(tmp_path: Path) -> Any:
    def make(rows: list[list[int]], supervised: list[list[bool]]) -> corpus.Corpus:
        folder = tmp_path / "corpus"
        folder.mkdir(exist_ok=True)
        examples = [Example(*pair) for pair in zip(rows, supervised, strict=True)]
        corpus.write(folder, ((e, f"rows.jsonl:{i + 1}") for i, e in enumerate(examples)))
        return corpus.read(folder)

    return make


@pytest.fixture
def ladder(corpus_of: Any, template: ChatTemplate) -> Any:
    """Rows, supervised throughout unless said otherwise, and a context -> a ladder."""

    def make(rows: list[list[int]], context: list[int], supervised: list[list[bool]] | None = None) -> Ladder:
        return continuations(corpus_of(rows, supervised or [[True] * len(row) for row in rows]), template, context)

    return make


def search(rows: list[list[int]], supervised: list[list[bool]], context: list[int]) -> Hits:
    out = []
    for number, (row, learned) in enumerate(zip(rows, supervised, strict=True)):
        for at in range(1, len(row)):
            before, n = row[:at], 0
            while n < min(len(before), len(context)) and before[-1 - n] == context[-1 - n]:
                n += 1
            if n and learned[at]:
                out.append((number, row[at], n))
    return out


def compare(found: Ladder, hits: Hits) -> None:
    assert found.places == [sum(n >= k for *_, n in hits) for k in range(1, max([n for *_, n in hits], default=0) + 1)]
    for length in range(1, len(found.places) + 1):
        here = [hit for hit in hits if hit[2] >= length]
        rung = found.rung(length)
        counts = Counter(token for _, token, _ in here)
        assert list(rung.counts.items()) == sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        assert (rung.length, rung.places, rung.rows) == (length, len(here), len({row for row, *_ in here}))
        for token in [*counts, 77]:
            assert rung.share_of(token) == counts[token] / len(here)
            in_rows = [(row, [n for r, t, n in here if (r, t) == (row, token)]) for row in {row for row, *_ in here}]
            wanted = sorted((-max(n), row, len(n)) for row, n in in_rows if n)
            shown = [RowHit(f"rows.jsonl:{row + 1}", places, -shared) for shared, row, places in wanted]
            assert found.rows(token, length, limit=1000) == shown
            assert found.rows(token, length, limit=2) == shown[:2]
    if hits:
        assert found.longest == found.rung(len(found.places))
        assert found.best == found.rung(max([1, *(k for k, n in enumerate(found.places, 1) if n >= lexical.ENOUGH)]))


@pytest.mark.parametrize("small", [False, True], ids=["one part", "many parts"])
@pytest.mark.parametrize("ids", [[3, 4], [0, 1, 2, 3, 4], [0, 7, 4_095]], ids=["2", "5", "4096"])
@pytest.mark.parametrize("seed", range(2))
def test_every_rung_is_what_a_search_finds(
    corpus_of: Any, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch, seed: int, ids: list[int], small: bool
) -> None:
    if small:  # parts of a few tokens: their edges lie everywhere
        for module, name, value in [
            (index, "CHUNK", 7),
            (lexical, "CHUNK", 5),
            (index, "GROUP", 9),
            (lexical, "SOME", 3),
        ]:
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(ChatTemplate, "decode", lambda self, tokens: str(tokens))  # nano has no such ids
    rng = np.random.default_rng(seed)
    rows = [rng.choice(ids, rng.integers(1, 40)).tolist() for _ in range(12)]
    long = rng.choice(ids, 40).tolist()
    rows += [rows[0], long, rows[1] + long, long[1:30]]  # so that suffixes beyond the index's depth occur
    supervised = [(rng.random(len(row)) < 0.6).tolist() for row in rows]
    supervised[-3][-1] = True
    found = corpus_of(rows, supervised)
    for context in [long[:-1], rows[1] + long[:25], rows[0], rng.choice(ids, 30).tolist(), [ids[1]]]:
        compare(continuations(found, template, context), search(rows, supervised, context))
    assert len(continuations(found, template, long[:-1]).places) == 39 > index.DEPTH


def test_the_largest_vocabulary(corpus_of: Any, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChatTemplate, "decode", lambda self, tokens: str(tokens))
    rows = np.random.default_rng(0).choice([0, 1, 262_142, 262_143], (6, 30)).tolist()
    supervised = [[True] * 30] * 6
    compare(continuations(corpus_of(rows, supervised), template, rows[2][:9]), search(rows, supervised, rows[2][:9]))


def test_a_suffix_ends_where_its_row_begins(ladder: Any) -> None:
    found = ladder([[5, 6], [7, 8], [6, 7, 8]], [5, 6, 7])
    assert found.places == [2, 1]  # never 5 6 | 7: there a row ends
    assert found.longest.counts == {8: 1}
    assert found.rows(8, 1) == [RowHit("rows.jsonl:3", 1, 2), RowHit("rows.jsonl:2", 1, 1)]


def test_what_was_not_learned_does_not_count(ladder: Any) -> None:
    rows = [[5, 6, 7, 5, 6, 8]]
    found = ladder(rows, [5, 6], [[True, False, False, False, False, True]])
    assert found.longest.counts == {8: 1}
    assert ladder(rows, [5, 6], [[True] + [False] * 5]).longest is None


def test_one_row(ladder: Any) -> None:
    found = ladder([[5, 6]], [5])
    assert (found.places, found.longest.counts, found.best.rows) == ([1], {6: 1}, 1)
    assert found.rows(6) == [RowHit("rows.jsonl:1", 1, 1)]


def test_an_unknown_context(ladder: Any, template: ChatTemplate) -> None:
    found = ladder([[5, 6, 7]], [6, *template.encode(" xrange")])
    assert (found.places, found.longest, found.best, found.rows(7)) == ([], None, None, [])
    assert sentence(found, 7, 0.25) == "the data has nothing behind ` xrange`; the model says 25.0 %"


def test_refusals(ladder: Any) -> None:
    with pytest.raises(UserError, match="the context is empty"):
        ladder([[5, 6]], [])
    for length in (0, 2):
        with pytest.raises(UserError, match=f"no suffix of {length} tokens .*; the longest has 1"):
            ladder([[5, 6]], [5]).rung(length)


def test_the_best_rung_has_enough_places(ladder: Any) -> None:
    rows = [[1, 2, 3, 4]] * 5 + [[2, 3, 5]] * 15 + [[3, 6]] * 40
    found = ladder(rows, [1, 2, 3])
    assert found.places == [60, 20, 5]
    assert (found.best.length, found.best.counts) == (2, {5: 15, 4: 5})
    assert found.longest.length == 3
    assert [hit.where for hit in found.rows(4, limit=1)] == ["rows.jsonl:1"]
    assert ladder(rows[:5], [1, 2, 3]).best.length == 1  # nowhere enough


def test_the_sentence(ladder: Any, template: ChatTemplate) -> None:
    out, new, quote, one = (template.encode(text)[0] for text in ("print", "\n", ' "', "1"))
    rows = [[out, quote]] * 218 + [[out, new]] * 193 + [[out, one]]
    found = ladder(rows, [one, out])
    assert (
        sentence(found, quote, 0.553) == 'after `print` the data has ` "` in 53 % of 412 places; the model says 55.3 %'
    )
    assert sentence(found, new, 1) == "after `print` the data has `⏎` in 47 % of 412 places; the model says 100.0 %"
    assert sentence(found, one, 0) == "after `print` the data has `1` in 1 of 412 places; the model says 0.0 %"
    assert sentence(found, out, 0).startswith("after `print` the data has `print` in 0 of 412 places;")
    assert found.best.top(2) == [Counted(quote, ' "', 218), Counted(new, "\n", 193)]
    few = ladder([[out, quote]], [out])
    assert sentence(few, quote, 0.5) == 'after `print` the data has ` "` in 1 of 1 place; the model says 50.0 %'


def test_a_long_context_is_shown_by_its_end(ladder: Any, template: ChatTemplate) -> None:
    tokens = template.encode("def a_function_with_a_long_name(and_arguments, of_it):\n    return")
    found = ladder([[*tokens, 5]] * 20, tokens)
    assert found.best.length == len(tokens)
    assert sentence(found, 5, 0).startswith("after `…g_name(and_arguments, of_it):⏎    return` the data has")
