"""The dataset card: what it counts, that nothing in the data can break it, and that it notices every change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from mlx_gemma.data.card.digests import changed
from mlx_gemma.data.card.write import write_card
from mlx_gemma.errors import DataError, UserError
from mlx_gemma.gemma4.checkpoint import NANO
from mlx_gemma.gemma4.template import ChatTemplate

ROOT = Path(__file__).parents[2]


def row(n: int, **extra: Any) -> str:
    answer = f"```python\nprint({n})\n```"
    return json.dumps({"prompt": f"Print {n}.", "completion": answer} | extra) + "\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    train = [row(n, license="MIT", source="a|b\n`c`", task="print") for n in range(3)] + [row(9), "{}\n"]
    (folder / "train.jsonl").write_text("".join(train))
    table = {"prompt": ["Print 4."], "completion": ["4"], "licence": ["My-Own"]}
    pq.write_table(pa.table(table), folder / "validation.parquet")
    return folder


def test_a_card_says_what_is_in_the_files(data: Path) -> None:
    card = write_card(data, language="en")
    text, front = card.read_text(), DatasetCard.load(card).data.to_dict()
    for line in (
        "| train | 4 | 1 |",
        "| valid | 1 | 0 |",
        "| MIT | 3 |",
        "| My-Own | 1 |",
        "**No licence: 1 rows name none.**",
        "| a\\|b 'c' | 3 |",
        "| print | 3 |",
        "2 rows name none (keys looked for: task_type",
        "| python | 4 |",
    ):
        assert line in text, line
    assert front["configs"][0]["data_files"] == [
        {"split": "train", "path": "train.jsonl"},
        {"split": "validation", "path": "validation.parquet"},
    ]
    assert front["license"] == ["mit", "other"]
    assert front["license_name"] == "My-Own"
    assert (front["language"], front["pretty_name"], front["size_categories"]) == ("en", "mine", ["n<1K"])


def test_a_given_licence_stands_for_rows_without_one_and_is_kept(data: Path) -> None:
    (data / "validation.parquet").unlink()
    text = write_card(data, license="cc-by-4.0").read_text()
    assert "1 rows name none; whoever wrote this card said that theirs is cc-by-4.0." in text
    (data / "train.jsonl").write_text(row(1))
    first = write_card(data, license="cc-by-4.0").read_text()
    assert DatasetCard(first).data.license == "cc-by-4.0"
    assert write_card(data).read_text() == first


def test_tokens_are_the_models(data: Path) -> None:
    template = ChatTemplate(NANO)
    text = write_card(data, template=template).read_text()
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()[:4]]
    turns = (("user", "prompt"), ("assistant", "completion"))
    examples = [template.example([{"role": role, "content": r[key]} for role, key in turns]) for r in rows]
    lengths = sorted(len(e.tokens) for e in examples)
    cells = [4, 1, sum(lengths), sum(e.targets for e in examples), lengths[1], lengths[3], lengths[3]]
    assert f"| train | {' | '.join(map(str, cells))} |" in text


def test_an_audit_at_hand_is_summarised(data: Path) -> None:
    checks = [{"check": "python2", "rows": 2, "action": "reject", "example": "x"}]
    (data / "audit.json").write_text(json.dumps({"read": 5, "kept": 3, "rejected": 2, "checks": checks}))
    text = write_card(data).read_text()
    assert "5 rows read, 3 kept, 2 rejected" in text
    assert "| python2 | 2 | reject |" in text
    (data / "audit.json").write_text("[]")
    with pytest.raises(DataError, match=r"not an audit\.json"):
        write_card(data)


def test_every_change_is_named(data: Path) -> None:
    write_card(data)
    assert changed(data) == changed(data / "README.md") == []
    (data / "train.jsonl").write_text(row(1))
    (data / "validation.parquet").unlink()
    (data / "new.txt").write_text("x")
    (data / ".hidden").write_text("x")
    assert changed(data) == ["changed: train.jsonl", "missing: validation.parquet", "not on the card: new.txt"]


def test_one_file_has_a_card_beside_it(data: Path) -> None:
    card = write_card(data / "train.jsonl")
    assert card == data / "train.card.md"
    (data / "new.txt").write_text("x")
    assert changed(data / "train.jsonl") == []
    (data / "train.jsonl").write_text(row(1))
    assert changed(data / "train.jsonl") == ["changed: train.jsonl"]


def test_a_card_elsewhere_finds_its_files(data: Path, tmp_path: Path) -> None:
    card = write_card(data, out=tmp_path / "card.md")
    assert "  mine/train.jsonl\n" in card.read_text()
    assert changed(card) == []


def test_the_same_files_give_the_same_card_and_ones_own_text_stays(data: Path) -> None:
    card = write_card(data, name="Mine")
    first = card.read_text()
    assert write_card(data).read_text() == first
    card.write_text(
        first.replace("# Mine\n", "# Mine\n\nMade by hand.\n").replace("pretty_name", "tags: [a]\npretty_name")
    )
    again = write_card(data).read_text()
    assert "\n\nMade by hand.\n\n## Rows" in again
    assert DatasetCard(again).data.tags == ["a"]
    (data / "train.jsonl").write_text(row(1))
    assert "Made by hand." in write_card(data).read_text()
    assert changed(data) == []


def test_somebody_elses_readme_is_left_alone(data: Path) -> None:
    (data / "README.md").write_text("# My notes\n")
    with pytest.raises(UserError, match="was not written by mlx-gemma"):
        write_card(data)
    assert (data / "README.md").read_text() == "# My notes\n"


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data here"):
        write_card(tmp_path)
    with pytest.raises(DataError, match="no readable card"):
        changed(tmp_path)
    (tmp_path / "README.md").write_text("# x\n")
    with pytest.raises(DataError, match="no digests"):
        changed(tmp_path)


@pytest.mark.parametrize("name", ["python3", "vulnerability"])
def test_the_projects_own_cards_can_be_checked(name: str) -> None:
    assert changed(ROOT / "datasets" / name) == []
