"""Which part of an answer is Python: fences, prompts, notebooks, HTML, bare code among prose; and what is not."""

from __future__ import annotations

import json
import time

import pytest

from mlx_gemma.data.python.code_blocks import code_blocks
from mlx_gemma.data.python.source import classify

OLD = "for i in xrange(3):\n    print i"  # found where it is taken for code, and for nothing else

FOUND = {
    "fence": f"Here:\n\n```python\n{OLD}\n```\n",
    "py": f"```py\n{OLD}\n```",
    "Python": f"```Python\n{OLD}\n```",
    "python 2": f"```python2\n{OLD}\n```",
    "attributes": f"```{{.python .numberLines}}\n{OLD}\n```",
    "directive": f"```{{code-cell}} ipython3\n{OLD}\n```",
    "title": f'```python title="a.py"\n{OLD}\n```',
    "file name": f"```src/main.py\n{OLD}\n```",
    "tildes": f"~~~python\n{OLD}\n~~~",
    "four backticks": f"````python\n{OLD}\n````",
    "no label": f"```\n{OLD}\n```",
    "in a list": "1. Loop:\n   ```python\n   for i in xrange(3):\n       print i\n   ```\n2. Done.",
    "second block": f"```python\nx = 1\n```\nand\n```python\n{OLD}\n```",
    "pycon": "```pycon\n>>> for i in xrange(3):\n...     print i\n...\n0\n1\n```",
    "console": "```console\n$ python\n>>> print 'a'\na\n```",
    "text": "```text\n>>> print 'a'\na\n```",
    "bare": OLD,
    "bare among prose": f"You can loop like this:\n\n{OLD}\n\nIt prints three numbers, one per line.",
    "two bare parts": f"First define it:\n\ndef f(x):\n    return x\n\nThen call it in a loop:\n\n{OLD}\n",
    "Markdown's indent": "Use this:\n\n    for i in xrange(3):\n        print i\n\nThat is all there is to it.",
    "bare prompts": "In the shell:\n\n>>> x = 3\n>>> print x\n3\n",
    "IPython": "In [1]: x = 3\n\nIn [2]: print x\n3",
    "magics": "```python\n%matplotlib inline\n!pip install x\nprint 'a'\n```",
    "HTML": '<p>So:</p>\n<pre><code class="language-python">if a &lt; 3:\n    print a\n</code></pre>\n',
    "HTML, one line": "<pre>print 'a' if a &lt;&gt; b else 'b'</pre>",
    "docstring with prose": 'def f(x):\n    """Print it.\n\nThe value is printed as it is.\n"""\n    print x, 1\n',
    "a comment first": "# prints three numbers\nimport sys\n" + OLD,
    "carriage returns": "Here:\r\n```python\r\nprint 'a'\r\n```\r\n",
}


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    verdict = classify(FOUND[name])
    assert verdict.kind == "python2", verdict


NOT_PYTHON = {
    "prose": "You loop over the numbers, print it, and import it from the menu.",
    "prose with a colon": "for those in a hurry:\nuse the menu.",
    "English print": "Open the file and\nprint it",
    "arithmetic": "x = 5 apples\ny = 2x + 3\nSo x + y = 18.",
    "arithmetic with L": "Answer:\nvolume = 10L\nmass = 5kg",
    "arithmetic with zeros": "code = 007 is the agent",
    "other label": f"```bash\n{OLD}\n```",
    "diff": f"```diff\n-{OLD}\n+for i in range(3):\n```",
    "diff without a label": "```\n def f(x):\n-    print x\n+    print(x)\n```",
    "inline code": "Use `print x` or `d.has_key(k)` here.",
    "three backticks in a line": "Use ```print x``` here.",
    "output": "```\nplain output: 3\n```",
    "output of a program": "```python\nprint(1)\n```\nprints\n```\ntotal = 15 items\n```",
    "JSON": json.dumps({"a": [1, 2, {"b": None}], "print": "print x"}, indent=2),
    "JSON in a fence": '```\n{"a": 1,\n "b": true}\n```',
    "YAML": "name: test\nsteps:\n  - run: print x\n  - uses: a(b)",
    "TOML": '[tool.ruff]\nline-length = 120\nselect = ["E"]',
    "shell": "export A=3\nfor i in 1 2 3; do\n  echo $i\ndone",
    "shell without a label": "```\n$ python a.py\n$ print x\n```",
    "JavaScript": "function f(x) {\n  return x + 1;\n}\nconst a = f(3);\nconsole.log(a);",
    "JavaScript, import": "import React from 'react'\nlet a = 3\nprint(a)",
    "Java": "import java.util.List;\npublic class A {\n  int x = 5;\n}",
    "Kotlin": "import java.util.Date\nfun f(x: Int): Int {\n    return x + 1\n}",
    "Swift": "import Foundation\nlet x = 5\nfunc f() {\n    print(x)\n}",
    "Ruby": "def f(x)\n  puts x\nend",
    "Scala": "def f(x: Int): Int = {\n  val y = x\n  y + 1\n}",
    "Lua": "local x = 5\nprint(x)\nfunction f()\nend",
    "C": "#include <stdio.h>\nint main() {\n  int x = 5;\n  return 0;\n}",
    "Go": 'package main\nimport "fmt"\nfunc main() {\n  x := 5\n  fmt.Println(x)\n}',
    "SQL": "SELECT a FROM t WHERE b = 3;",
    "Haskell": "import Data.List\nf :: Int -> Int\nf x = x + 1",
    "HTML": "<html>\n<body>\nx = 3 y\n</body>\n</html>",
    "a bash cell": "```python\n%%bash\necho xrange(3)\n```",
    "name error shown": ">>> xrange(3)\nTraceback (most recent call last):\nNameError: name 'xrange' is not defined\n",
    "list of words": "[apple, banana]",
    "words in brackets": "Paris (France)",
    "empty": "```python\n```",
    "empty, never labelled": "<pre></pre>",
    "comment": "```python\n# only a comment\n```",
}


@pytest.mark.parametrize("name", NOT_PYTHON)
def test_not_python(name: str) -> None:
    verdict = classify(NOT_PYTHON[name])
    assert verdict.kind == ("python3" if name == "output of a program" else "none"), verdict


PYTHON3 = {
    "prose, code, prose": "Here:\n\ndef f(x):\n    return x + 1\n\nIt adds one.",
    "a list around it": "- first:\n\nimport os\nprint(os.name)\n\n- then done",
    "expression": "sorted(d.items(), key=lambda item: (item[1], item[0]))[::-1]",
    "comprehension": "[x * x for x in xs if x]",
    "magics": "```python\n%matplotlib inline\n!pip install x\nif a:\n    !ls\ndf.head?\nx = 1\n```",
    "a timed cell": "```python\n%%time\nx = 1\n```",
    "percent is no magic": "```python\nprint('%s and %s'\n      %(a, b))\n```",
    "a name from an earlier block": "```python\nfrom functools import reduce\n```\nNow:\n```python\nreduce(f, xs)\n```",
    "own names from an earlier block": "```python\ndef cmp(a, b):\n    pass\n```\n```python\ncmp(1, 2)\n```",
    "prompts with output": "```\n>>> x = {'a': 1}\n>>> x\n{'a': 1}\n>>> for k in x:\n...     print(k)\na\n```",
    "shown to fail": "```pycon\n>>> print 'a'\nSyntaxError: Missing parentheses\n>>> print('a')\na\n```",
    "code and its output": "```python\nprint('a')\n```\nOutput:\n```\nprint 'a'\n```",
    "HTML": "<pre>\nif a &lt; 3 and b:\n    f(a)\n</pre>",
    "text in quotes": 'import re\ntext = """\nthe old way of printing\nprint x\n"""\nprint(text)',
}


@pytest.mark.parametrize("name", PYTHON3)
def test_python3(name: str) -> None:
    verdict = classify(PYTHON3[name])
    if name == "code and its output":  # a print statement is Python's own, whoever printed it
        assert verdict.kind == "python2"
    else:
        assert verdict.kind == "python3", verdict


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("```python\nx = 1\nprint xrange(3)\n```", (3, 1, "print")),
        ("1. So:\n   ```python\n   if x:\n       xrange(3)\n   ```", (4, 8, "xrange")),
        ("Text.\n\n    x = 1\n    xrange(x)\n", (4, 5, "xrange")),
        (">>> x = 1\n>>> xrange(x)\n", (2, 5, "xrange")),
        (">>> for i in y:\n...     xrange(i)\n", (2, 9, "xrange")),
        ("```python\ns = 'äöü€😀'; xrange(3)\n```", (2, 14, "xrange")),
        ("```python\ns = 'äöü€😀'; print xrange(3)\n```", (2, 14, "print")),
        ("```python\ns = 'äöü'\nclass A:\n    'ä'; return 1\n```", (4, 10, "return")),
        ("<pre>x = a &lt; xrange(a)</pre>", (1, 17, "xrange")),
        ("<p>\n<pre><code>a = '&amp;&lt;&gt;'\nb = a &lt; xrange(3)\n</code></pre>", (3, 12, "xrange")),
    ],
)
def test_places(answer: str, place: tuple[int, int, str]) -> None:
    """The first finding's line and column are those of its text in the answer."""
    finding = classify(answer).findings[0]
    assert (finding.line, finding.column) == place[:2]
    assert answer.split("\n")[finding.line - 1][finding.column - 1 :].startswith(place[2])


def test_blocks() -> None:
    text = "a\r\n```python\nx = 1\n```\nb\n```\nimport os"
    blocks = code_blocks(text)
    assert [(b.source, b.first_line, b.closed) for b in blocks] == [("x = 1", 3, True), ("import os", 7, False)]
    assert code_blocks("```python\nprint(1)") != []
    assert [b.fenced for b in code_blocks("import os\nos.getcwd()")] == [False]


HOSTILE = ["`", "`\n", "```\n", "<pre>", "<pre\n", "&amp;", '"""', "'\"", "x?", "a'", ">>>\n", "x=", "the fox ", "("]
HOSTILE += [
    "def ",
    "def f(): pass\n",
    "print (",
    "for a in ",
    "from a import ",
    "lambda (",
    "[",
    "a.",
    "\\\n",
    "\t",
    "@a",
]


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("before", ["", "```python\n"])
def test_time_is_linear(unit: str, before: str) -> None:
    """50,000 characters of anything take less than 5 s of CPU time; fissix takes the most, 20 to 40 us a token."""
    began = time.process_time()
    classify(before + unit * (50_000 // len(unit)))
    assert time.process_time() - began < 5


@pytest.mark.parametrize("unit", ["`", " ", "the fox ", "<pre>", "a'", "f(", "x = "])
def test_a_megabyte(unit: str) -> None:
    """1,000,000 characters in one line, less than 15 s of CPU time."""
    began = time.process_time()
    classify(unit * (1_000_000 // len(unit)))
    assert time.process_time() - began < 15


@pytest.mark.parametrize(
    "source",
    [
        "x = 1" + " + 1" * 900,  # deeper than a recursive visitor reaches, and Python compiles it
        "x = a" + ".b" * 900,
        "if a:\n    pass\n" + "elif b:\n    pass\n" * 500,
        "x = " + "1 if a else " * 500 + "2",
    ],
)
def test_deep_is_not_broken(source: str) -> None:
    compile(source, "<test>", "exec")
    assert classify(f"```python\n{source}\n```").kind == "python3"


@pytest.mark.parametrize(
    "source", ["(" * 190, "[" * 5000, "f(" * 150, "{1: " * 150, "-" * 99_999 + "1", "lambda: " * 5000]
)
def test_nested(source: str) -> None:
    """Nests that Python refuses, or fails to build a tree of, are refused too, soon and without an exception."""
    began = time.process_time()
    assert classify(f"```python\nx = {source}\n```").kind in ("broken", "truncated")
    assert classify(f"```python\nprint x, {source}\n```").kind in ("broken", "truncated", "python2")
    assert time.process_time() - began < 20


@pytest.mark.parametrize("fence", ["```python", "```", "~~~py"])
def test_doctest_in_docstring(fence: str) -> None:
    """A doctest in a docstring does not make a session of the code around it."""
    code = f'def f(x):\n    """Twice x.\n\n    >>> f(2)\n    4\n    """\n    return 2 * x\n\n{OLD}'
    [block] = code_blocks(f"{fence}\n{code}\n{fence[:3]}")
    assert block.source == code
    assert classify(f"{fence}\n{code}\n{fence[:3]}").kind == "python2"
