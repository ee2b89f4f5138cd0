"""An audit of files is kept, as long as it is that of these files, this policy and these checks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mlx_gemma.data.audit import cache
from mlx_gemma.data.audit.cache import audit_files
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.errors import DataError

POLICY = FilterPolicy(malformed="reject")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Write {i}.", "completion": f"```python\nprint({i})\n```"} for i in range(5)]
    rows[2]["completion"] = "```python\nprint 2\n```"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*rows, rows[0]]) + "not json\n")
    return path


def entries(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "home" / "mlx-gemma" / "audits").iterdir())  # XDG_CACHE_HOME, by conftest.py


def test_the_second_time_it_is_answered_from_the_cache(data: Path, tmp_path: Path) -> None:
    first, second = (audit_files(str(data), POLICY) for _ in range(2))
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.as_json() == second.as_json()
    assert (first.kept, first.rejected) == (second.kept, second.rejected)
    for report, name in ((first, "a"), (second, "b")):
        report.write(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.rejected.jsonl")
        report.write_json(tmp_path / f"{name}.json")
    for name in ("jsonl", "rejected.jsonl", "json"):
        assert (tmp_path / f"a.{name}").read_bytes() == (tmp_path / f"b.{name}").read_bytes()
    assert not audit_files(str(data), POLICY, use_cache=False).from_cache


def test_what_makes_it_another_audit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evals = tmp_path / "evals.jsonl"
    evals.write_text('{"prompt": "Say it."}\n')
    audit_files(str(data), POLICY, [evals])
    assert audit_files(str(data), POLICY, [evals]).from_cache
    assert not audit_files(str(data), POLICY).from_cache
    assert not audit_files(str(data), POLICY.model_copy(update={"limits": {"python2": 0.5}}), [evals]).from_cache
    evals.write_text('{"prompt": "Say that."}\n')
    assert not audit_files(str(data), POLICY, [evals]).from_cache
    data.write_text(data.read_text().replace("print 2", "print 3"))  # as long as before
    assert not audit_files(str(data), POLICY, [evals]).from_cache
    shutil.copy(data, tmp_path / "other.jsonl")  # another name, which findings hold
    assert not audit_files(str(tmp_path / "other.jsonl"), POLICY, [evals]).from_cache
    monkeypatch.setattr(cache, "_source", lambda: "another version of the checks")
    assert not audit_files(str(data), POLICY, [evals]).from_cache


def test_the_page_is_no_part_of_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(Path(cache.__file__).parents[1], tmp_path / "data")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "data" / "audit" / "cache.py"))
    monkeypatch.setattr(cache, "PAGE", tmp_path / "data" / "audit" / "page")
    before = cache._source()
    (tmp_path / "data" / "audit" / "page" / "plots.py").write_text("x = 1\n")
    assert cache._source() == before
    (tmp_path / "data" / "reason.py").write_text("x = 1\n")
    assert cache._source() != before


def test_data_that_change_after_the_audit(data: Path, tmp_path: Path) -> None:
    audit_files(str(data), POLICY)
    report = audit_files(str(data), POLICY)
    data.write_text("\n" + data.read_text())
    with pytest.raises(DataError, match="has changed since it was audited"):
        report.write(tmp_path / "clean.jsonl", tmp_path / "rejected.jsonl")
    assert not (tmp_path / "clean.jsonl").exists()
    data.write_text(data.read_text().strip() + '\n{"prompt": "More.", "completion": "More."}\n')
    with pytest.raises(DataError, match="has changed"):
        list(report.judged())


@pytest.mark.parametrize("name", [cache.META, cache.FINDINGS])
@pytest.mark.parametrize("text", [None, "", "{}", "ARROW1\0\0"])
def test_a_damaged_entry_is_none(data: Path, tmp_path: Path, name: str, text: str | None) -> None:
    wanted = audit_files(str(data), POLICY).found()
    (entry,) = entries(tmp_path)
    if text is None:
        (entry / name).unlink()
    else:
        (entry / name).write_text(text)
    report = audit_files(str(data), POLICY)
    assert (report.from_cache, report.found()) == (False, wanted)
    assert audit_files(str(data), POLICY).from_cache


def test_the_cache_does_not_grow(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ENTRIES", 3)
    for share in (0.1, 0.2, 0.3, 0.4, 0.5):
        audit_files(str(data), POLICY.model_copy(update={"limits": {"python2": share}}))
    assert len(entries(tmp_path)) == 3
    assert audit_files(str(data), POLICY.model_copy(update={"limits": {"python2": 0.5}})).from_cache


def test_no_cache_folder_is_no_obstacle(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [audit_files(str(data), POLICY).from_cache for _ in range(2)] == [False, False]


def test_what_was_read_is_told(data: Path) -> None:
    inputs = audit_files(str(data), POLICY).as_json()["inputs"]
    assert inputs["evals"] == []
    (file,) = inputs["data"]
    assert (file["file"], file["bytes"], len(file["blake2b"])) == (str(data), data.stat().st_size, 128)
    with pytest.raises(DataError, match="no such file"):
        audit_files("none.jsonl", POLICY)
    with pytest.raises(DataError, match=r"none\.jsonl"):
        audit_files(str(data), POLICY, [Path("none.jsonl")])
