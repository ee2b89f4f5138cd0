"""No file takes the reader down: what is wrong is told with file and line, and the rest is still read."""

from __future__ import annotations

import bz2
import decimal
import gzip
import io
import json
import os
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlx_gemma.data.decoding.json_records import json_records
from mlx_gemma.data.decoding.json_text import MAX_DEPTH, Bad
from mlx_gemma.data.decoding.json_values import CHUNK
from mlx_gemma.data.formats import BadRow, Row, read_rows, scan_rows
from mlx_gemma.data.records import MAX_LINE, read_eval_items
from mlx_gemma.errors import DataError

GOOD = {"prompt": "Add two numbers.", "completion": "a + b"}
LINE = json.dumps(GOOD).encode() + b"\n"


def scan(path: Path) -> tuple[list[str], dict[str, str]]:
    """Where good rows are, and what is wrong with the bad ones; places as in messages, without the folder."""
    rows = list(scan_rows(path))
    assert all("\n" not in row.what and row.what.isprintable() for row in rows if isinstance(row, BadRow))
    good = [Path(row.where).name for row in rows if isinstance(row, Row)]
    return good, {Path(row.where).name: row.what for row in rows if isinstance(row, BadRow)}


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# JSON Lines.


class Zeros(io.RawIOBase):
    """A file of zeros, with a good line before and behind them."""

    def __init__(self, size: int) -> None:
        self.left, self.ends = size, [LINE, b"\n" + LINE]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.left and len(self.ends) == 1:
            count = min(len(buffer), self.left)
            self.left -= count
            buffer[:count] = bytes(count)
            return count
        if not self.ends:
            return 0
        line = self.ends.pop(0)
        buffer[: len(line)] = line
        return len(line)


def test_two_gigabytes_in_one_line() -> None:
    """Read in pieces: the line is not held, only as much of it as shows that it is too long."""
    tracemalloc.start()
    records = list(json_records(io.BufferedReader(Zeros(2 * 2**30), 2**18)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (_, first), (place, bad), (_, last) = records
    assert first == last == GOOD
    assert place == "2"
    assert isinstance(bad, Bad)
    assert bad.what == "a line longer than 16 MiB"
    assert peak < 3 * MAX_LINE


def test_a_sparse_file(tmp_path: Path) -> None:
    file = put(tmp_path / "rows.jsonl", LINE)
    with file.open("r+b") as stream:
        stream.seek(4 * MAX_LINE)
        stream.write(b"\n" + LINE)
    good, bad = scan(file)
    assert good == ["rows.jsonl:1", "rows.jsonl:3"]
    assert bad == {"rows.jsonl:2": "a line longer than 16 MiB"}


def test_the_wrong_type_at_line_19999(tmp_path: Path) -> None:
    file = put(tmp_path / "rows.jsonl", LINE * 19_998 + b'["a", "b"]\n' + LINE)
    good, bad = scan(file)
    assert bad == {"rows.jsonl:19999": "a row must be a JSON object, not array"}
    assert len(good) == 19_999
    assert good[-1] == "rows.jsonl:20000"


def test_all_faults_in_one_file(tmp_path: Path) -> None:
    """Every second line is good, and comes out."""
    faults = [
        (b'{"prompt": "\xc3(", "completion": "x"}', "invalid UTF-8 at byte 13"),
        (b'{"prompt": "a", "completion": "b", "extra": {"k": 1, "k": 2}}', "key 'k' occurs twice"),
        (b'{"\\u001b[31m": 1, "\\u001b[31m": 2}', "key '\\x1b[31m' occurs twice"),
        (b'{"prompt": "a", "completion": "b", "score": NaN}', "NaN is not JSON"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"prompt": "a\x00", "completion": "b"}', "invalid JSON: Invalid control character at at column 14"),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', "turn 1 has the unknown role 'tool'"),
        (b'{"messages": [{"role": "\\u001b[2J", "content": "x"}]}', "turn 1 has the unknown role '\\x1b[2J'"),
        (b'{"\\u001b[2J": 1}', "no known shape (keys: '\\x1b[2J')"),
        (b"\x1f\x8b\x08\x00", "invalid UTF-8 at byte 2"),
    ]
    file = put(tmp_path / "rows.jsonl", b"".join(LINE + line + b"\n" for line, _ in faults) + LINE)
    good, bad = scan(file)
    assert list(bad.items()) == [(f"rows.jsonl:{2 * i + 2}", what) for i, (_, what) in enumerate(faults)]
    assert good == [f"rows.jsonl:{2 * i + 1}" for i in range(len(faults) + 1)]


def test_depth_that_is_kept(tmp_path: Path) -> None:
    """As deep as is allowed, and many brackets side by side are no depth."""
    deep = json.dumps(GOOD | {"extra": json.loads("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))}).encode()
    wide = json.dumps(GOOD | {"extra": [[]] * 1000}).encode()
    deeper = deep.replace(b"[", b"[[", 1).replace(b"]", b"]]", 1)
    good, bad = scan(put(tmp_path / "rows.jsonl", deep + b"\n" + wide + b"\n" + deeper + b"\n"))
    assert good == ["rows.jsonl:1", "rows.jsonl:2"]
    assert bad == {"rows.jsonl:3": "nested too deeply"}


def test_many_keys_one_twice(tmp_path: Path) -> None:
    """Linear: looked up one by one it would take minutes."""
    keys = b",".join(b'"%d":1' % i for i in range(200_000))
    _, bad = scan(put(tmp_path / "rows.jsonl", LINE + b"{" + keys + b',"199999":2}\n'))
    assert bad == {"rows.jsonl:2": "key '199999' occurs twice"}


@pytest.mark.parametrize(
    "data",
    [
        LINE.replace(b"\n", b"\r\n") * 2,
        b"\xef\xbb\xbf" + LINE * 2,
        b"\r\n\r\n" + LINE * 2 + b"\r\n",
        LINE * 2 + b"\x0c\n",
    ],
)
def test_line_ends_and_byte_order_mark(tmp_path: Path, data: bytes) -> None:
    assert [row.prompt for row in read_rows(put(tmp_path / "rows.jsonl", data))] == [GOOD["prompt"]] * 2


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (LINE.decode().encode("utf-16"), "is UTF-16, not UTF-8"),
        (LINE.decode().encode("utf-16-le"), "is UTF-16, not UTF-8"),
        (LINE.decode().encode("utf-16-be"), "is UTF-16, not UTF-8"),
        (LINE.decode().encode("utf-32"), "is UTF-16, not UTF-8"),
        (b"PAR1\x15\x04\nPAR1", "is Parquet, not JSON Lines"),
        (b"PK\x03\x04rows\n", "is a zip archive, not JSON Lines"),
        (bz2.compress(LINE), "is bzip2, not JSON Lines"),
        (b"", "holds no rows"),
        (b"\n \n\t\n", "holds no rows"),
    ],
)
def test_no_json_lines_at_all(tmp_path: Path, data: bytes, what: str) -> None:
    """One line for the file, not one for each of its lines; beside other files it is a bad row."""
    file = put(tmp_path / "train-00000.jsonl", data)
    with pytest.raises(DataError, match=what) as error:
        list(scan_rows(file))
    assert str(error.value).startswith(f"{file}: ")
    put(tmp_path / "train-00001.jsonl", LINE)
    good, bad = scan(tmp_path)
    assert good == ["train-00001.jsonl:1"]
    assert bad == {"train-00000.jsonl": what}


# Compressed.


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst", "rows.jsonl", "train.json.gz"])
def test_compressed(tmp_path: Path, pack: Any, name: str) -> None:
    """Known by its bytes, whatever the name says."""
    file = put(tmp_path / name, pack(LINE * 3) + pack(LINE))
    assert [row.where for row in read_rows(file)] == [f"{file}:{i}" for i in range(1, 5)]


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_compressed_and_cut_off(tmp_path: Path, pack: Any) -> None:
    lines = b"".join(json.dumps(GOOD | {"id": os.urandom(50).hex()}).encode() + b"\n" for _ in range(4000))
    packed = pack(lines)
    good, bad = scan(put(tmp_path / "rows.jsonl.gz", packed[: len(packed) * 2 // 3]))
    assert 1000 < len(good) < 3000
    assert list(bad.items()) == [
        ("rows.jsonl.gz", f"cannot be read: Truncated compressed stream, behind line {len(good)}")
    ]


def test_a_folder_of_compressed_files(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / "data" / f"train-0000{i}-of-00002.jsonl.gz", gzip.compress(LINE))
    put(tmp_path / "data" / "train-labels.jsonl", b"no shard\n")
    assert len(list(read_rows(tmp_path))) == 2


# JSON over several lines.


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_an_array_of_rows(tmp_path: Path, indent: int | None, name: str) -> None:
    rows = [GOOD | {"id": i, "é": "[{"} for i in range(3000)]
    file = put(tmp_path / name, json.dumps(rows, indent=indent, ensure_ascii=False).encode())
    assert file.stat().st_size > 2 * CHUNK, "the file is read in several pieces"
    read = list(read_rows(file))
    assert [row.extra for row in read] == [{"id": i, "é": "[{"} for i in range(3000)]
    lines = file.read_text().split("\n")
    for row in read[::100] if indent else []:
        assert lines[int(row.where.rpartition(":")[2]) - 1].strip() == "{", "the line that the row begins at"


def test_objects_one_after_another(tmp_path: Path) -> None:
    text = "\n".join(json.dumps(GOOD | {"id": i}, indent=4) for i in range(3))
    file = put(tmp_path / "rows.json", b"\xef\xbb\xbf" + text.encode())
    assert [row.where for row in read_rows(file)] == [f"{file}:{line}" for line in (1, 6, 11)]


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (b'"completion": oh', "invalid JSON: Expecting value at line 8, column 19"),
        (b'"completion": "b" "c": 1', "invalid JSON: Expecting ',' delimiter at line 8, column 23"),
        (b'"completion": "b", "prompt": "c"', "key 'prompt' occurs twice"),
        (b'"completion": "b", "score": NaN', "NaN is not JSON"),
        (b'"completion": "\xff\xfe"', "invalid UTF-8 in line 8"),
        (b'"completion": "b", "c": ' + b"[" * 5000, "nested too deeply"),
        (b'"completion": "b", "c": "' + b"x" * (MAX_LINE + 2**20) + b'"', "a row longer than 16 MiB"),
        (b'"completion": 3', "'completion' must be text, not int"),
    ],
)
def test_a_broken_row_in_an_array(tmp_path: Path, fault: bytes, what: str) -> None:
    good = json.dumps([GOOD], indent=2).encode()[2:-2]
    broken = b'  {\n    "prompt": "a",\n    ' + fault + b"\n  }"
    file = put(tmp_path / "rows.json", b"[\n" + b",\n".join([good, broken, good, good]) + b"\n]\n")
    rows, bad = scan(file)
    assert bad == {"rows.json:6": what}
    assert rows == ["rows.json:2", "rows.json:10", "rows.json:14"]


def test_a_broken_row_in_an_array_of_one_line(tmp_path: Path) -> None:
    data = b"[" + b", ".join([LINE.strip(), b'{"prompt": oh}', LINE.strip()]) + b"]\n" + LINE
    rows, bad = scan(put(tmp_path / "rows.json", data))
    assert rows == ["rows.json:1", "rows.json:2"]
    assert bad["rows.json:1"].startswith("invalid JSON: Expecting value at line 1, column")
    assert bad["rows.json:1"].endswith("the rest of its line is not read")


# Parquet.


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_odd_columns(tmp_path: Path) -> None:
    """Whatever columns there are beside the texts; texts of every type of Arrow's."""
    prompts, answers = ["Add.", "Add.", "Add."], ["a + b", "b + a", None]
    file = parquet(
        tmp_path / "rows.parquet",
        {
            "prompt": pa.array(prompts).dictionary_encode(),
            "completion": pa.array(answers, pa.large_string()),
            "price": pa.array([decimal.Decimal("1.50")] * 3),
            "at": pa.array([1_700_000_000_000_000_001] * 3, pa.timestamp("ns")),
            "when": pa.array([2**60] * 3, pa.timestamp("ms")),
            "took": pa.array([1] * 3, pa.duration("ns")),
            "blob": pa.array([b"\xff", None, b""]),
            "nothing": pa.nulls(3),
            "half": pa.array([1.5, float("nan"), None], pa.float16()),
            "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
            "deep": pa.array([{"a": [{"b": [1]}]}] * 3),
            "view": pa.array(["x"] * 3, pa.string_view()),
        },
    )
    first, second, third = scan_rows(file)
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert isinstance(third, BadRow)
    assert [(r.prompt, r.answer) for r in (first, second)] == [("Add.", "a + b"), ("Add.", "b + a")]
    assert "completion" in third.what
    assert first.extra["price"] == decimal.Decimal("1.50")
    assert str(first.extra["at"]).startswith("2023-11-14")
    assert first.extra["deep"] == {"a": [{"b": [1]}]}
    assert "nothing" not in first.extra


def test_messages_as_structs(tmp_path: Path) -> None:
    """As data sets on the hub have them: every turn has every field, most of them null."""
    turn = pa.struct([("content", pa.string()), ("role", pa.string()), ("tool_calls", pa.list_(pa.string()))])
    talk = [
        {"role": "user", "content": "Add.", "tool_calls": None},
        {"role": "assistant", "content": "a + b", "tool_calls": []},
    ]
    calls = [talk[0], talk[1] | {"tool_calls": ["add(1, 2)"]}]
    null = [talk[0], talk[1] | {"content": None}]
    file = parquet(tmp_path / "rows.parquet", {"messages": pa.array([talk, calls, null, None, []], pa.list_(turn))})
    rows = list(scan_rows(file))
    assert [row.extra for row in rows if isinstance(row, Row)] == [
        {},
        {"turn_fields": {"2": {"tool_calls": ["add(1, 2)"]}}},
    ]
    assert [row.what for row in rows if isinstance(row, BadRow)] == [
        "turn 2: 'content' must be text, not NoneType",
        "no known shape (keys: none)",
        "'messages' must be a non-empty list of turns",
    ]


def test_text_that_is_no_utf8(tmp_path: Path) -> None:
    prompts = pa.Array.from_buffers(
        pa.string(), 3, pa.array([b"Add.", b"A\xffd.", b"Add."]).buffers()
    )  # Arrow does not look
    file = parquet(tmp_path / "rows.parquet", {"prompt": prompts, "completion": ["a", "b", "c"]})
    good, bad = scan(file)
    assert good == ["rows.parquet:row 1", "rows.parquet:row 3"]
    assert bad == {"rows.parquet:row 2": "column 'prompt': invalid UTF-8 at byte 2"}


def test_a_column_twice(tmp_path: Path) -> None:
    table = pa.table([["a"], ["b"], ["c"]], names=["prompt", "completion", "prompt"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="column 'prompt' occurs twice"):
        list(scan_rows(tmp_path / "rows.parquet"))


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-20], lambda d: d[:-8] + b"\xff\xff\xff\x7fPAR1", lambda d: b"", lambda d: LINE]
)
def test_corrupt_footer(tmp_path: Path, damage: Any) -> None:
    file = parquet(tmp_path / "train-00000.parquet", {"prompt": ["a"], "completion": ["b"]})
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match="not a readable Parquet file") as error:
        list(read_rows(file))
    assert "\n" not in str(error.value)
    parquet(tmp_path / "train-00001.parquet", {"prompt": ["a"], "completion": ["b"]})
    good, bad = scan(tmp_path)
    assert good == ["train-00001.parquet:row 1"]
    assert list(bad) == ["train-00000.parquet"]


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_corrupt_page(tmp_path: Path, compression: str) -> None:
    """A page in the second of three row groups: the rows before it and the third group are read."""
    answers = [os.urandom(100).hex() for _ in range(6000)]
    file = parquet(
        tmp_path / "rows.parquet",
        {"prompt": ["Add."] * 6000, "completion": answers},
        row_group_size=2000,
        data_page_size=4096,
        compression=compression,
        use_dictionary=False,
        write_page_checksum=True,
    )
    column = pq.ParquetFile(file).metadata.row_group(1).column(1)
    data = bytearray(file.read_bytes())
    at = column.data_page_offset + column.total_compressed_size // 2
    data[at : at + 64] = bytes(64)
    file.write_bytes(data)
    good, bad = scan(file)
    numbers = [int(where.rpartition(" ")[2]) for where in good]
    first = len([n for n in numbers if n <= 4000]) + 1
    assert numbers == [*range(1, first), *range(4001, 6001)]
    assert 2000 < first < 4000
    ((where, what),) = bad.items()
    assert where == f"rows.parquet:row {first}"
    assert what.startswith("not readable as far as row 4000: ")


def test_large_values_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MB of text in 64 rows are not read as one batch."""
    monkeypatch.setattr("mlx_gemma.data.decoding.parquet_records.BATCH_BYTES", 2**20)
    columns = {"prompt": ["p"] * 64, "completion": [chr(65 + i) * 2**18 for i in range(64)]}
    file = parquet(tmp_path / "rows.parquet", columns, use_dictionary=False, write_batch_size=1)
    before, most = pa.total_allocated_bytes(), 0
    for row in scan_rows(file):
        assert isinstance(row, Row)
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 4 * 2**20


# Damage anywhere.


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_damaged_anywhere(tmp_path: Path, name: str) -> None:
    """Whatever bytes are changed, lost or put in: rows, bad rows, or one clear line."""
    records = [GOOD | {"id": i, "nested": {"é": [1, None]}} for i in range(40)]
    file = tmp_path / name
    if name == "rows.parquet":
        pq.write_table(pa.Table.from_pylist(records), file, row_group_size=10, data_page_size=256)
    else:
        put(file, json.dumps(records, indent=1).encode() if name == "rows.json" else LINE * 40)
    whole, draw = file.read_bytes(), random.Random(6)
    outcomes, refusals = [], []
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 2, 10])):
            at = draw.randrange(len(data))
            data[at : at + draw.randrange(20)] = bytes(draw.choices(b'{}[]",:\\\n\x00\xff', k=draw.randrange(5)))
        file.write_bytes(data)
        try:
            good, bad = scan(file)
        except DataError as e:
            refusals.append(str(e))
        else:
            outcomes.append((len(good), len(bad)))
    assert all(text.startswith(str(file)) and text.isprintable() for text in refusals)
    if name != "rows.parquet":
        assert len(outcomes) == 60
        assert sum(good for good, _ in outcomes) > 60 * 10
    assert any(bad for _, bad in outcomes)


# What is no file.


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").mkdir()
    with pytest.raises(DataError, match="no 'train' data here"):
        list(scan_rows(tmp_path))
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no such file"):
        list(scan_rows(tmp_path / "gone.jsonl"))
    with pytest.raises(DataError, match=r"unknown kind of file '\.gz'"):
        list(scan_rows(put(tmp_path / "rows.csv.gz", b"")))


def test_eval_items_name_the_file(tmp_path: Path) -> None:
    items = list(read_eval_items(put(tmp_path / "evals.json", json.dumps([{"prompt": "a"}, {"prompt": "b"}]).encode())))
    assert [item.prompt for item in items] == ["a", "b"]
    for data in (b"", LINE.decode().encode("utf-16")):
        with pytest.raises(DataError, match=rf"^{tmp_path}/evals.json: "):
            list(read_eval_items(put(tmp_path / "evals.json", data)))
    with pytest.raises(DataError, match=rf"^{tmp_path}/none.json: cannot be read"):
        list(read_eval_items(tmp_path / "none.json"))
