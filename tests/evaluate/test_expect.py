"""Each rule on answers that meet it and answers that do not; no answer breaks one."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from mlx_gemma.evaluate.answer_code import blocks
from mlx_gemma.evaluate.expect import CHECKS, FORMS, LONGEST, fault, unmet

JS = "```js\nconst f = (x) => x + 1;\n```"
PY = "```python\ndef f(x):\n    return x + 1\n```"
RULES: list[tuple[dict[str, Any], list[str], list[str]]] = [  # rule, answers that meet it, answers that do not
    (
        {"rule": "language", "is": "JavaScript"},
        [JS, "function f(x) {\n  return x;\n}", "```\nconsole.log(1)\n```", f"Run `npm i`:\n```sh\nnpm i\n```\n{JS}"],
        [PY, "Use JavaScript.", "", "```javascript\ndef f(x):\n    return x\n```", "```sql\nSELECT 1;\n```"],
    ),
    (
        {"rule": "language", "is": "bash"},
        ["```sh\nls\n```", "```\nfor f in *.txt; do\n  mv $f x\ndone\n```", "find . -name '*.py'", "```zsh\nls\n```"],
        [PY, "```c\nint main() {}\n```", "You can find . in the folder"],
    ),
    (
        {"rule": "language", "is": "sql"},
        ["```postgres\nSELECT 1\n```", "SELECT name FROM users;", "```\nselect a\nfrom b\n```"],
        [PY, "Select one from the list."[:10], "```python\nq = 'SELECT a FROM b'\n```"],
    ),
    ({"rule": "language", "is": "python"}, [PY, "def f(x):\n    return x", "```py3\nx = 1\n```"], [JS, "no"]),
    ({"rule": "language", "is": "rust"}, ['```\nfn main() {\n    println!("a");\n}\n```'], [JS, PY]),
    ({"rule": "language", "is": "c"}, ["```\n#include <stdio.h>\nint main(void) {\n}\n```"], [JS, PY]),
    ({"rule": "contains", "any": ["Straße", "b"]}, ["STRASSE", "ab"], ["a", ""]),
    ({"rule": "lacks", "any": ["sorry", "**"]}, ["fine", ""], ["Sorry!", "**a**"]),
    ({"rule": "matches", "pattern": r"(?i)\bpowers? of two\b"}, ["A Power of Two."], ["power of three", ""]),
    (
        {"rule": "number", "is": -1234.5},
        ["-1,234.50", "first 7, then \u22121234.5.", "x = -1.2345e3", "**-1234.5**"],
        ["1234.5", "-1234.5, or 7", "none", "", "-12345"],
    ),
    (
        {"rule": "number", "is": 42},
        ["42", "6 x 7 = 42.", "42 %", "$42", "2021-42", "a,42"],
        ["4 2", "v42", "42.1", "0.42"],
    ),
    (
        {"rule": "json", "equals": {"a": [1, True]}},
        ['{"a": [1.0, true]}', '```json\n{"a": [1, true]}\n```', 'Here:\n```\n{ "a":[1,true] }\n```'],
        ['{"a": [1, 1]}', '{"a": [true, true]}', "{'a': [1, True]}", 'It is {"a": [1, true]}', "", "NaN", "[" * 90_000],
    ),
    (
        {"rule": "json", "keys": ["a", "b"]},
        ['{"b": 1, "a": 2}', '[{"a": 1, "b": 2}]'],
        ['{"a": 1}', '{"a": 1, "b": 2, "c": 3}', "[]", "[1]", "7"],
    ),
    ({"rule": "lines", "least": 2, "most": 3}, ["a\n\nb", "```\na\nb\nc\n```"], ["a", "a\nb\nc\nd", "", "\n\n"]),
    ({"rule": "words", "most": 3}, ["one two - three", "", "* a\n* b"], ["a b c d"]),
    (
        {"rule": "code_lines", "most": 2},
        [PY, "prose\nand\nmore", f"a\n{PY}\nb\nc"],
        ["```python\na = 1\nb = 2\nc = 3\n```"],
    ),
    (
        {"rule": "no code"},
        ["Plain.", "", "42", "- a\n- b", '```json\n{"a": 1}\n```', "```\nroses are red\nviolets\n```", "Use `print`."],
        [PY, JS, "def f(x):\n    return x", "```\nx = [1]\nprint(x)\n```"],
    ),
    (
        {"rule": "only code"},
        [PY, f"\n{JS}\n", "def f(x):\n    return x\n"],
        [
            f"Here:\n{PY}",
            f"{PY}\nDone.",
            f"{PY}\n{PY}",
            "",
            "Plain.",
            "def f(x):\n    return x\n\nThat is all there is to say.",
        ],
    ),
    (
        {"rule": "avoids", "names": ["sorted", "re", "sort", "os.path"], "nodes": ["While"]},
        [PY, "```python\nsort = 1\nprint(sort)\n```", "```python\n# sorted\nx = 'sorted'\n```"],
        [
            "```python\nx = sorted(y)\n```",
            "```python\nxs.sort()\n```",
            "```python\nf = sorted\n```",
            "```python\nimport re\n```",
            "```python\nfrom re import sub\n```",
            "```python\nimport os.path\n```",
            "```python\nwhile x:\n    pass\n```",
            "```python\nsorted = sorted(x)\n```",
            "Plain.",
            "```python\nprint x\n```",
        ],
    ),
    (
        {"rule": "uses", "names": ["Counter"], "nodes": ["ListComp"]},
        ["```python\nfrom collections import Counter\n[x for x in Counter(a)]\n```"],
        ["```python\nCounter(a)\n```", "```python\n[x for x in a]\n```", "Counter", ""],
    ),
    ({"rule": "stance", "is": ["refusal"]}, ["I'm sorry, but I can't help with that."], ["Sure.", ""]),
    ({"rule": "stance", "is": ["none"]}, ["Sure.", PY], ["I'm sorry, but I can't help with that."]),
]


@pytest.mark.parametrize(
    ("rule", "met", "not_met"), RULES, ids=lambda v: json.dumps(v)[:50] if isinstance(v, dict) else ""
)
def test_rules(rule: dict[str, Any], met: list[str], not_met: list[str]) -> None:
    assert fault(rule) is None
    for answer in met:
        assert unmet(answer, [rule]) is None, answer
        assert unmet(answer.replace("\n", "\r\n"), [rule]) is None, answer
    for answer in not_met:
        assert unmet(answer, [rule]), answer[:100]


def test_all_rules_must_hold_and_the_first_that_does_not_is_told() -> None:
    assert set(CHECKS) == set(FORMS) == {rule["rule"] for rule, _, _ in RULES}
    rules = [{"rule": "contains", "any": ["a"]}, {"rule": "words", "most": 1}, {"rule": "lacks", "any": ["b"]}]
    assert unmet("a", rules) is None
    assert unmet("", []) is None
    assert unmet("a b", rules) == "2 words, at most 1 asked for"


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ("contains", "a rule is an object"),
        ({"any": ["a"]}, "a rule is an object"),
        ({"rule": "has", "any": ["a"]}, "there is no rule 'has'"),
        ({"rule": "contains"}, "it says nothing"),
        ({"rule": "contains", "all": ["a"]}, "it has no 'all'"),
        ({"rule": "contains", "any": "a"}, "must be a list of texts"),
        ({"rule": "contains", "any": []}, "must be a list of texts"),
        ({"rule": "matches", "pattern": "("}, "no regular expression"),
        ({"rule": "matches", "pattern": 3}, "must be text"),
        ({"rule": "number", "is": "42"}, "must be a number"),
        ({"rule": "number", "is": True}, "must be a number"),
        ({"rule": "number", "is": float("nan")}, "must be a number"),
        ({"rule": "words", "most": 1.5}, "whole number"),
        ({"rule": "words", "most": -1}, "whole number"),
        ({"rule": "json", "keys": ["a"], "equals": 1}, "one of 'equals' and 'keys'"),
        ({"rule": "avoids", "nodes": ["Loop"]}, "names 'Loop'"),
        ({"rule": "stance", "is": ["anger"]}, "names 'anger'"),
        ({"rule": "no code", "most": 1}, "it has no 'most'"),
        ({"rule": "language", "is": 3}, "must be text"),
    ],
)
def test_a_rule_that_is_none_is_told(rule: object, what: str) -> None:
    assert what in (fault(rule) or "")


def test_no_answer_breaks_a_rule() -> None:
    """Random pieces of what rules look for, and the worst of each kind, at full length: a second at most."""
    random.seed(7)
    pieces = [
        "```",
        "```python",
        "```js\n",
        "~~~",
        "\n",
        "def f(x):",
        "    ",
        "[",
        "{",
        '"',
        "1,000",
        "-",
        "e9",
        "\ud800",
    ]
    pieces += [
        "SELECT ",
        "function f(",
        "local x\n",
        "\x00",
        "\u2212",
        "sorry, ",
        "lambda: ",
        "'''",
        "\\",
        "é",
        "#include <",
    ]
    answers = ["".join(random.choices(pieces, k=40)) for _ in range(150)]
    for answer in answers:
        for rule, _, _ in RULES:
            unmet(answer, [rule])
    for piece in (
        "[",
        "-",
        "1,",
        "1",
        "a ",
        "\n",
        "`",
        "```\n",
        "local x\n",
        "select ",
        "lambda:",
        "(" * 99 + "\n",
        "x=1\n",
    ):
        long = piece * (LONGEST // len(piece))
        for rule, _, _ in RULES:
            began = time.process_time()
            unmet(long, [rule])
            assert time.process_time() - began < 1, (piece, rule)


def test_blocks_know_their_language() -> None:
    answer = f"First:\n```bash\npip install x\n```\n{PY}\nprints\n```text\n3\n```\nor\n```\n#include <stdio.h>\n```"
    assert [b.language for b in blocks(answer)] == ["shell", "python", "c"]
    assert [b.language for b in blocks("```\nlet s: string = 'a';\n```")] == ["typescript"]
    assert [b.language for b in blocks("```\nfoo(bar);\nbaz(1);\n```")] == [""]
    assert blocks("Nothing here, from one to another.") == []
