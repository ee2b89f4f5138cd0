"""The audit of large data: through a file, processes and columns, the result is that of comparing everything."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mlx_gemma.data.audit import Report, audit, spool, workers
from mlx_gemma.data.audit.columns import compare
from mlx_gemma.data.audit.findings import Findings, Found
from mlx_gemma.data.audit.scan import Scan
from mlx_gemma.data.checks.duplicates import Shingles, jaccard, normalised, row_shingles
from mlx_gemma.data.formats import BadRow, Row, scan_rows
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.data.reason import Reason
from mlx_gemma.errors import UserError

ROOT = Path(__file__).parents[2]
RAW, EVALS = ROOT / "datasets" / "python3" / "raw.jsonl", ROOT / "evals" / "tasks.jsonl"
POLICY = FilterPolicy(malformed="reject", contamination=(EVALS,))


def row(number: int, prompt: str, answer: str) -> Row:
    return Row([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], f"rows.jsonl:{number}")


@pytest.fixture
def spooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a few rows on, they wait on the disk, in many chunks."""
    monkeypatch.setattr(spool, "FEW", 1000)
    monkeypatch.setattr(spool, "CHUNK_ROWS", 50)


def told(report: Report) -> list[object]:
    return [report.kept, report.rejected, report.flagged, report.found(), report.names(), report.clusters()]


def test_a_file_and_processes_change_nothing(monkeypatch: pytest.MonkeyPatch, spooled: None) -> None:
    rows = list(islice(scan_rows(RAW), 700))
    rows[333] = BadRow("rows.jsonl:334", "invalid JSON", "mend it")
    by_file = audit(rows, POLICY, workers=1)
    by_processes = audit(rows, POLICY, workers=3)
    assert isinstance(by_processes.rows, spool.Spool)
    assert not by_processes.rows.path.exists()  # and still it is read
    monkeypatch.setattr(spool, "FEW", 1 << 30)
    in_memory = audit(rows, POLICY)
    assert isinstance(in_memory.rows, list)
    assert told(in_memory) == told(by_file) == told(by_processes)
    counts = in_memory.found()
    assert min(counts[c] for c in ("malformed", "python2", "contamination", "exact_duplicates", "near_duplicates")) > 0


def by_brute_force(rows: list[Row], threshold: float) -> dict[str, tuple[str, str, str]]:
    """where -> (check, of, similarity), each row compared with every row kept."""
    kept, found = list[tuple[str, list[str], Shingles]](), {}
    for one in rows:
        texts, shingles = [normalised(t) for t in (one.prompt, one.answer)], row_shingles(one)
        same = [where for where, others, _ in kept if texts == others]
        best = max(((jaccard(shingles, s), where) for where, _, s in kept), key=lambda n: n[0], default=(0.0, ""))
        if same:
            found[one.where] = ("exact_duplicates", same[0], "")
        elif best[0] >= threshold:
            found[one.where] = ("near_duplicates", best[1], f"{best[0]:.2f}")
        else:
            kept.append((one.where, texts, shingles))
    return found


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9, 1.0])
def test_columns_find_what_brute_force_finds(threshold: float) -> None:
    """300 rows at all distances from one another, equal ones among them. (LSH may miss one pair in 10,000.)"""
    draw, rows = random.Random(1), list[Row]()
    for number in range(300):
        words = [f"word{(number % 12) * 40 + i}" for i in range(40)]
        for _ in range(draw.choice([0, 0, 1, 2, 4, 8, 16])):
            words[draw.randrange(40)] = f"other{draw.randrange(1000)}"
        rows.append(row(number, " ".join(words[:20]), " ".join(words[20:])))
    scan = Scan(FilterPolicy(near_duplicates=threshold), ())
    found = compare(rows, scan.chunk(rows).traits, scan, lambda done: None)
    pairs = {f.where: r for f in found for r in f.reasons if r.check != "contradictions"}
    wanted = by_brute_force(rows, threshold)
    assert {w: (r.check, r.of) for w, r in pairs.items()} == {w: want[:2] for w, want in wanted.items()}
    assert all(r.message.startswith(wanted[w][2]) for w, r in pairs.items())
    assert {r.check for r in pairs.values()} == {"exact_duplicates"} | ({"near_duplicates"} if threshold < 1 else set())


def test_spooled_rows_are_the_rows(spooled: None) -> None:
    odd = {"at": datetime(2026, 1, 2), "raw": b"x", "sum": Decimal("1.5"), "huge": float("inf"), "half": "\ud800"}
    rows: list[Row | BadRow] = [row(i, f"Prompt {i} é \0 中", "x" * i) for i in range(1, 120)]
    rows[50] = BadRow("half\udcff.jsonl:1", "what \ud800", "fix")
    rows[51] = Row(rows[1].messages, "half\udcff.jsonl:2", odd, "conversations")  # type: ignore[union-attr]
    kept = spool.collect(rows, lambda done: None, stop=False)
    assert isinstance(kept, spool.Spool)
    assert kept.chunks == 3
    assert list(kept) == rows
    assert [kept[i] for i in range(len(rows))] == rows
    assert kept[40:60] == rows[40:60]
    assert kept[51].shape == "conversations"  # type: ignore[union-attr]
    with pytest.raises(IndexError):
        kept[len(rows)]


def test_rows_of_one_template_take_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,500 rows in the same 40 words, 10 others in each: no duplicates, all in the same buckets. Copies are found."""
    draw, frame = random.Random(2), " ".join(f"frame{i}" for i in range(40))
    rows = []
    for number in range(1500):
        if number % 10 == 9:  # a copy of one far before, a letter changed
            rows.append(row(number, rows[number // 2].prompt.replace("e39", "f39"), rows[number // 2].answer))
        else:
            rows.append(row(number, frame, " ".join(f"w{draw.randrange(10**6)}" for _ in range(10))))
    compared = Counter[str]()
    monkeypatch.setattr("mlx_gemma.data.audit.columns.jaccard", lambda a, b: compared.update("x") or jaccard(a, b))
    monkeypatch.setattr("mlx_gemma.data.audit.columns.BUCKET", 64)
    scan = Scan(FilterPolicy(), ())
    told = compare(rows, scan.chunk(rows).traits, scan, lambda done: None)
    found = {f.row for f in told if f.reasons[0].check == "near_duplicates"}
    copies = set(range(9, len(rows), 10))
    assert compared["x"] <= 64 * len(rows)
    assert len(found & copies) >= 0.98 * len(copies)
    assert len(found - copies) == 0


def test_a_bad_row_stops_before_anything_is_checked(spooled: None) -> None:
    rows = [*(row(i, "x" * 99, "y") for i in range(100)), BadRow("rows.jsonl:101", "invalid JSON", "mend it")]
    with pytest.raises(UserError, match=r"rows\.jsonl:101"):
        audit(rows)


def test_findings(tmp_path: Path) -> None:
    one, other = Reason("python2", "line 1", "xrange"), Reason("near_duplicates", "0.9", of="\udcff:1")
    alone = [Found(i, f"a:{i}", (one,)) for i in range(0, 10_000, 2)]
    among = [Found(i, f"a:{i}", (other,)) for i in range(0, 10_000, 5)]
    findings = Findings.merged(alone, among)
    wanted = {f.row: f.reasons for f in alone}
    for found in among:
        wanted[found.row] = wanted.get(found.row, ()) + found.reasons
    assert [(f.row, f.reasons) for f in findings] == sorted(wanted.items())
    findings.write(tmp_path / "f.arrow")
    assert list(Findings(tmp_path / "f.arrow")) == list(findings)
    assert list(Findings()) == []


def test_traits_are_small() -> None:
    """What the memory of a million rows is made of: the docstrings' figures."""
    assert Scan(FilterPolicy(), ()).traits.itemsize == 221
    assert Scan(FilterPolicy(near_duplicates="keep"), ()).traits.itemsize == 21


def test_keys_tell_prompt_from_answer() -> None:
    rows = [row(1, "a b", "c"), row(2, "a", "b c"), row(3, "a\0b", "c"), row(4, "a", "b\0c")]
    keys = Scan(FilterPolicy(near_duplicates="keep"), ()).chunk(rows).traits["row"]
    assert len(np.unique(keys)) == 4
    assert audit(rows, FilterPolicy(near_duplicates="keep")).kept == rows


def killed(row: Row) -> Iterator[Reason]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield Reason("python2", "never")


def faulty(row: Row) -> Iterator[Reason]:
    print("a library talks")
    if row.where.endswith(":77"):
        raise ZeroDivisionError
    yield Reason("python2", "found")


def test_what_becomes_of_a_process(spooled: None, capfd: pytest.CaptureFixture[str]) -> None:
    rows = spool.collect([row(i, "x" * 99, "y") for i in range(200)], lambda done: None, stop=False)
    with pytest.raises(UserError, match=r"was killed \(signal 9\)"):
        list(workers.scanned(rows, Scan(FilterPolicy(), (killed,)), 2))
    with pytest.raises(RuntimeError, match="status 1"):  # a check that raises is a defect
        list(workers.scanned(rows, Scan(FilterPolicy(), (faulty,)), 2))
    printed = capfd.readouterr()
    assert "ZeroDivisionError" in printed.err
    assert "a library talks" in printed.err  # not in the way of the answers


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    data, temporary = tmp_path / "rows.jsonl", tmp_path / "tmp"
    temporary.mkdir()
    lines = RAW.read_text().splitlines()[:2000]
    data.write_text("".join(line + "\n" for line in lines * 10))
    code = "from mlx_gemma.cli import main; main()"
    command = [sys.executable, "-c", code, "audit", str(data), "--write", str(tmp_path / "out" / "clean.jsonl")]
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(300):
        if any(temporary.iterdir()):
            break
        time.sleep(0.1)
    time.sleep(1.5)
    started.send_signal(signal.SIGINT)
    _, error = started.communicate(timeout=60)
    assert started.returncode == 130, error
    assert "interrupted" in error
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "out").exists()


def test_written_as_told(tmp_path: Path) -> None:
    report = audit(list(islice(scan_rows(RAW), 300)), FilterPolicy(personal="keep", contradictions="reject"))
    report.write_json(tmp_path / "audit.json")
    assert json.loads((tmp_path / "audit.json").read_text()) == json.loads(json.dumps(report.as_json()))
