"""What the form check finds in texts, and what it lets pass: other scripts, emoji, quotation."""

from __future__ import annotations

import pickle
import time

import pytest

from mlx_gemma.data.checks.form import Shapes, form
from mlx_gemma.data.checks.mojibake import MOJIBAKE
from mlx_gemma.data.formats import Row
from mlx_gemma.data.visible import one_line, visible


def row(answer: str, prompt: str = "Add.", **extra: object) -> Row:
    return Row([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], "rows.jsonl:1", extra)


def found(answer: str, prompt: str = "Add.") -> dict[str, str]:
    reasons = list(form(row(answer, prompt)))
    assert all(reason.check == "form" and reason.message.isprintable() for reason in reasons)
    assert len({reason.name for reason in reasons}) == len(reasons)
    return {reason.name: reason.message for reason in reasons}


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("a\x00b", "control character", "turn 2, line 1, column 2: control character U+0000"),
        (
            "a\nbc\x07\x07\n\x08",
            "control character",
            "turn 2, line 2, column 3: control character U+0007 and 1 more beside it (and 1 more)",
        ),
        ("\x7f", "control character", "turn 2, line 1, column 1: control character U+007F"),
        ("it\x92s", "control character", "turn 2, line 1, column 3: control character U+0092"),
        ("a\x1b[31mb", "escape sequence", "turn 2, line 1, column 2: escape sequence U+001B"),
        ("a\u200bb", "hidden character", "turn 2, line 1, column 2: hidden character U+200B (zero width space)"),
        ("a\u200db", "hidden character", "turn 2, line 1, column 2: hidden character U+200D (zero width joiner)"),
        ("a\u200eb", "hidden character", "turn 2, line 1, column 2: hidden character U+200E (left-to-right mark)"),
        (
            "a\ufeffb",
            "hidden character",
            "turn 2, line 1, column 2: hidden character U+FEFF (zero width no-break space)",
        ),
        (
            "a\U000e0041\U000e0042",
            "hidden character",
            "turn 2, line 1, column 2: hidden character U+E0041 (tag latin capital letter a) and 1 more beside it",
        ),
        (
            "x = '\u202e'",
            "bidirectional control",
            "turn 2, line 1, column 6: bidirectional control U+202E (right-to-left override)",
        ),
        (
            "a\ufffdb\ufffd",
            "replacement character",
            "turn 2, line 1, column 2: U+FFFD stands for what could not be decoded (and 1 more)",
        ),
        ("a\r\nb\r\nc\n", "mixed line ends", "turn 2, line 1, column 2: mixed line ends (1 '\\n', 2 '\\r\\n')"),
        ("a\r\nb", "carriage returns", "turn 2, line 1, column 2: lines end in '\\r\\n'"),
        ("100%\rdone", "carriage returns", "turn 2, line 1, column 5: lines end in '\\r'"),
        ("cafÃ©", "mojibake", "turn 2, line 1, column 4: UTF-8 that was read as another encoding: 'Ã©'"),
        ("```python\n\n```", "empty answer", "the answer is nothing but an empty code fence"),
        ("\u200b", "empty answer", "the answer is nothing but hidden characters"),
        ("    return a + b", "indented answer", "answer: the template strips the first line's indentation (4)"),
        (
            "\n\na + b\n\n",
            "white space at the ends",
            "answer: the template strips white space, 2 characters before and 2 behind",
        ),
        (
            "a + b ",
            "white space at the ends",
            "answer: the template strips white space, 0 characters before and 1 behind",
        ),
    ],
)
def test_found(text: str, name: str, message: str) -> None:
    assert found(text)[name] == message


def test_prompts_are_looked_at_too() -> None:
    assert found("b", "a\x1b[2J") == {"escape sequence": "turn 1, line 1, column 2: escape sequence U+001B"}


@pytest.mark.parametrize(
    "text",
    [
        "def f(a):\n\treturn a\n",
        "```python\nx = 1\n```",
        "```\n# only a comment\n```",
        "naïve café, Ärger, CAFÉ, ÀÇÉ, 漢字, Привет, Ελληνικά, ქართული",
        "voilà\xa0», «\xa0là\xa0», été\xa0: déjà\xa0!",
        "Straße… größer\u2013kleiner, “Ö”, “Ã”, «Â», NÃO”, SÃO…",
        "👨‍👩‍👧 👍🏽 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f ❤️ 1️⃣",
        "می‌خواهم क्‍ष",
        "שלום \u200ehello\u200f",
        "±5 °C, 3 \xd7 4 ÷ 2 = 6, ½, £5, €3, ©, →, ├── a, “quoted”, it\u2019s",
        "Å, Ä, ångström, Ångström, Łódź, I\u015f\u0131k, çağr\u0131, Đặng, Nguyễn",
    ],
)
def test_good_text(text: str) -> None:
    assert found(text, text) == {}


@pytest.mark.parametrize(
    "text",
    [
        "é",
        "è la",
        "ü",
        "ñ",
        "it\u2019s",
        "“x”",
        "a \u2013 b",
        "€",
        "→",
        "├──",
        "™",
        "…",
        "x°",
        "£5",
        "Привет",
        "Ελλάδα",
        "你好",
        "こんにちは",
        "🙂",
        "ął",
        "kąt",
        "şu",
        "ağ",
        "\ufeff",
        "\xa0",
        "שלום",
    ],
)
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_mojibake_of(text: str, encoding: str) -> None:
    """Read as Windows-1252 as browsers do: the five bytes it has nothing for are read as Latin-1."""
    wrong = "".join(
        bytes([b]).decode(encoding if b not in b"\x81\x8d\x8f\x90\x9d" else "latin-1") for b in text.encode()
    )
    assert MOJIBAKE.search(f"a {wrong} b"), wrong
    assert not MOJIBAKE.search(f"a {text} b")


def test_fields_that_are_not_rendered() -> None:
    fields = {"2": {"tool_calls": [1], "weight": 0}, "3": {"tool_calls": [1]}}
    reasons = list(form(row("b", turn_fields=fields, system="Be short.", tools=[], reasoning=None, id=3)))
    assert [(r.name, r.message) for r in reasons] == [
        ("turn field 'tool_calls'", "turn 2 has 'tool_calls', which is not rendered"),
        ("turn field 'weight'", "turn 2 has 'weight', which is not rendered"),
        ("row field 'system'", "the row has 'system', which is not rendered"),
    ]
    assert list(form(row("b", turn_fields="theirs, not ours"))) == []


def test_shapes() -> None:
    shapes = Shapes()
    for shape, file, count in (("messages", "a.jsonl", 2), ("prompt", "a.jsonl", 3), ("prompt", "b.jsonl", 1)):
        for i in range(count):
            shapes.add(Row([], f"{file}:{i}", {}, shape))
    assert shapes.by_file() == {"a.jsonl": {"prompt": 3, "messages": 2}, "b.jsonl": {"prompt": 1}}
    assert shapes.mixed() == ["a.jsonl: mixed shapes (3 prompt, 2 messages)"]


@pytest.mark.parametrize("piece", ["\x1b", "\x1b a", "\u200b", "\ufffd", "Ã©", "Ð", "à¤", "```  ", "\r", "\r\n\n", " "])
def test_linear(piece: str) -> None:
    """A quarter of a megabyte of the worst there is: a quadratic search would take minutes."""
    begun = time.process_time()
    list(form(row(piece * (2**18 // len(piece)))))
    assert time.process_time() - begun < 10


def test_visible() -> None:
    assert visible("a\x1b[31m\tb\n\r\u202e\U000e0041\x9b é漢🙂") == "a\\x1b[31m\tb\n\\r\\u202e\\U000e0041\\x9b é漢🙂"
    assert one_line("a\n  b\x07" + "c" * 300) == "a b\\x07" + "c" * 192 + "…"
    assert pickle.loads(pickle.dumps(form)) is form
