"""Lengths and samples are those of training: the same tokens, the same cut, the same rows dropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mlx_gemma.data.formats import Row
from mlx_gemma.data.lengths import BATCH_ROWS, BINS, OTHERS, TYPES, Histogram, Lengths
from mlx_gemma.data.rendered import SHOWN, examples, rendered_samples
from mlx_gemma.errors import DataError
from mlx_gemma.gemma4.checkpoint import NANO
from mlx_gemma.gemma4.template import ChatTemplate, Example


@pytest.fixture(scope="module")
def chat() -> ChatTemplate:
    return ChatTemplate(NANO)


def row(number: int, answer: str, prompt: str = "Add.", turns: int = 1, **extra: object) -> Row:
    talk = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return Row(talk * turns, f"rows.jsonl:{number}", dict(extra))


ROWS = [row(i, "x = 1\n" * (1 + i % 40), "Say é. " * (1 + i % 7), 1 + i % 3, topic=f"t{i % 4}") for i in range(300)]


@pytest.mark.parametrize("turns", ["all", "last"])
def test_examples_are_those_of_the_template(chat: ChatTemplate, turns: str) -> None:
    assert examples(chat, ROWS, turns=turns) == [chat.example(r.messages, turns=turns) for r in ROWS]


def test_a_refused_row(chat: ChatTemplate) -> None:
    first, second, third = examples(chat, [ROWS[0], row(7, "a<turn|>"), ROWS[1]])
    assert isinstance(second, DataError)
    assert str(second).startswith("rows.jsonl:7: the assistant message contains the control token <turn|>")
    assert [first, third] == examples(chat, ROWS[:2])


def test_adds_up_as_training_counts(chat: ChatTemplate) -> None:
    """Against a plain count of the rendered rows, cut at a length that some rows lose all they have to train to."""
    length = 60
    rendered = [chat.example(r.messages) for r in ROWS]
    lengths = Lengths(chat, length)
    assert len(ROWS) > BATCH_ROWS
    lengths.add(iter(ROWS[:100]))
    lengths.add([*ROWS[100:], row(301, "<|turn>")])
    found = lengths.as_json()
    long = [e for e in rendered if len(e.tokens) > length]
    assert found["all"]["rows"] == 300
    assert found["all"]["cut"] == len(long) > 0
    assert found["all"]["trained"] == sum(e.targets for e in rendered)
    assert found["all"]["lost"] == sum(sum(e.supervised[length:]) for e in long)
    assert found["all"]["untrainable"] == sum(not any(e.supervised[:length]) for e in rendered)
    assert (found["refused"], found["template_digest"]) == (1, chat.digest)
    assert lengths.refusal is not None
    whole = found["all"]["tokens"]["whole"]
    sizes = [len(e.tokens) for e in rendered]
    assert [whole[k] for k in ("min", "p50", "p95", "max")] == [
        np.percentile(sizes, q, method="inverted_cdf") for q in (0, 50, 95, 100)
    ]
    assert whole["mean"] == pytest.approx(np.mean(sizes), rel=1e-12)
    assert set(found["types"]) == {"t0", "t1", "t2", "t3"}
    for key in ("rows", "cut", "untrainable", "trained", "lost"):
        assert found["all"][key] == sum(group[key] for group in found["types"].values())


def test_rows_left_with_nothing(chat: ChatTemplate) -> None:
    lengths = Lengths(chat, 30)
    lengths.add([row(1, "a", "Say it. " * 30), row(2, "a")])
    assert (lengths.all.cut, lengths.all.untrainable, lengths.all.lost) == (1, 1, 2)


def test_as_many_types_as_one_can_read(chat: ChatTemplate) -> None:
    lengths = Lengths(chat, 30)
    lengths.add(row(i, "a", task=f"unique {i}") for i in range(TYPES + 5))
    lengths.add([row(1, "a", topic=3, category="c"), row(2, "a")])
    assert len(lengths.types) == TYPES + 1
    assert lengths.types[OTHERS].rows == 6


def test_percentiles() -> None:
    histogram = Histogram()
    assert histogram.percentiles() == {}
    numbers = np.random.default_rng(0).geometric(0.01, 2000)
    histogram.counts.update(numbers.tolist())
    found = histogram.percentiles()
    for p in (1, 5, 25, 50, 75, 95, 99):
        assert found[f"p{p}"] == np.percentile(numbers, p, method="inverted_cdf")


@pytest.mark.parametrize("numbers", [[7] * 5, [1, 2, 40, 90_000], np.random.default_rng(0).geometric(0.01, 2000)])
def test_bins_hold_every_row_once(numbers: Sequence[int]) -> None:
    histogram = Histogram()
    assert histogram.bins() == []
    histogram.counts.update(map(int, numbers))
    bins = histogram.bins()
    assert len(bins) <= BINS + 1
    assert [first for first, _, _ in bins[1:]] == [last + 1 for _, last, _ in bins[:-1]]
    assert bins[0][0] == 0
    for first, last, rows in bins:
        assert rows == sum(first <= n <= last for n in numbers)
    assert sum(rows for *_, rows in bins) == len(numbers)


def test_samples(chat: ChatTemplate) -> None:
    """The runs are the row's tokens in order; what is trained, and what is cut off, is the example's."""
    talk = row(1, "été = '\x1b[31m'\nx = 1", turns=2)
    (example,) = examples(chat, [talk])
    assert isinstance(example, Example)
    length = len(example.tokens) - 4
    (sample,) = rendered_samples(chat, [talk, row(2, "<|turn>")][:1], length)
    assert [t for run in sample.runs for t in run.tokens] == example.tokens
    assert [run.trained for run in sample.runs for _ in run.tokens] == example.supervised
    assert [run.cut for run in sample.runs for _ in run.tokens] == [i >= length for i in range(len(example.tokens))]
    assert (sample.tokens, sample.trained) == (len(example.tokens), example.targets)
    assert sample.lost == sum(example.supervised[length:]) > 0
    marked = sample.marked()
    assert marked.count("⟦") == 3, "two turns, the second in two parts"
    assert "\x1b" not in marked
    assert "⟦été = '\\x1b[31m'\nx = 1<turn|>⟧\n<|turn>user" in marked
    assert marked.count("✂") == 1
    plain = marked.replace("⟦", "").replace("⟧", "").replace("✂", "").replace("\\x1b", "\x1b")
    assert plain == chat.decode(example.tokens)


def test_samples_of_long_rows_are_cut_and_refused_ones_left_out(chat: ChatTemplate) -> None:
    samples = rendered_samples(chat, [row(1, "x = 1\n" * SHOWN), row(2, "<|turn>")], 10)
    assert [sample.where for sample in samples] == ["rows.jsonl:1"]
    assert sum(len(run.tokens) for run in samples[0].runs) == SHOWN < samples[0].tokens
