"""The verdict on code, construct by construct, and on real code: the standard library is no Python 2."""

from __future__ import annotations

import random
import sysconfig
import tomllib
from pathlib import Path

import pytest

from mlx_gemma.data.python.source import classify, classify_source

CONSTRUCTS = tomllib.loads((Path(__file__).parent / "python2_constructs.toml").read_text(encoding="utf8"))


@pytest.mark.parametrize("construct", CONSTRUCTS["construct"], ids=lambda c: c["finds"])
def test_constructs(construct: dict[str, str]) -> None:
    """Every construct is found by its name, its twin in Python 3 is not called Python 2."""
    twin = classify_source(construct["python3"])
    assert twin.kind == "python3", twin
    verdict = classify_source(construct["python2"])
    if "skip" in construct:
        assert verdict.kind == "python3", construct["skip"]
        return
    assert verdict.kind == "python2", verdict
    assert construct["finds"] in {f.name for f in verdict.findings}
    assert all(f.message for f in verdict.findings)


@pytest.mark.parametrize("case", CONSTRUCTS["python3"], ids=lambda c: c["name"])
def test_no_python2(case: dict[str, str]) -> None:
    verdict = classify_source(case["source"])
    assert verdict.kind == "python3", verdict


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("Sure, here it is.", "none"),
        ("", "none"),
        ("For example: if you want this, import it from the menu.", "none"),
        ("```\nplain output: 3\n```", "none"),
        ("```bash\necho xrange(3)\n```", "none"),
        ("```python\n# only a comment\n```", "none"),
        ("```python\nprint(1)\n```", "python3"),
        ("Text.\n\n~~~py\nprint(1)\n~~~\nMore.", "python3"),
        ("    ```python\n    def f():\n        return 1\n    ```", "python3"),
        ("def f(x):\n    return x + 1", "python3"),
        ("Here:\n\ndef f(x):\n    return x + 1\n\nIt adds one.", "python3"),
        (">>> x = 3\n>>> x\n3\n>>> for i in [1]:\n...     print(i)\n1", "python3"),
        ("```python\n%matplotlib inline\n!pip install x\nx = 1\n```", "python3"),
        ("```python\nx = 1\n```\nor in Python 2\n```python\nprint x\n```", "python2"),
        ("print 'hello'", "python2"),
        (">>> print 'a'\na", "python2"),
        ("```python\ndef f(x:\n    return x\n```", "broken"),
        ("```python\ndef f(x):\nreturn x\n```", "broken"),
        ("```python\ndef f(x)\n    return x\n```", "broken"),
        ("```python\nx = f(1))\ny = 2\n```", "broken"),
        ("```python\nreturn 1\n```", "broken"),
        ("```python\nf(x) = 3\n```", "broken"),
        ("```python\n" + "(" * 5000 + ")" * 5000 + "\n```", "broken"),
        ("```python\nx = '\0'\n```", "broken"),
        ("```python\ndef f(x):\n    return x", "truncated"),
        ("```python\ndef f(x):\n    print", "truncated"),
        ("```python\ndef f(x):\n```", "truncated"),
        ("```python\ndef f(x):\n    return (x +\n```", "truncated"),
        ('```python\ns = """abc\ndef\n```', "truncated"),
        ("```python\nprint 1\nprint 2", "python2"),
    ],
)
def test_answers(answer: str, kind: str) -> None:
    assert classify(answer).kind == kind


def test_findings_have_their_place_in_the_answer() -> None:
    verdict = classify("Here it is:\n\n```python\ndef f(d):\n    return d.has_key(1) or xrange(2)\n```")
    assert [(f.line, f.column, f.name) for f in verdict.findings] == [(5, 12, ".has_key()"), (5, 28, "xrange")]
    assert str(verdict) == "line 5, column 12: .has_key(): Python 3 has `key in x` (and 1 more)"
    (finding,) = classify("```python\nx = 1\nif x:\n    print x\n```").findings
    assert (finding.line, finding.column, finding.name) == (4, 5, "print statement")


# Real Python 2 in the standard library: 2to3's own test data, and a skipped test that was never ported.
PYTHON2_FILES = {"lib2to3/tests/data", "ctypes/test/test_memfunctions.py", "test/test_ctypes/test_memfunctions.py"}


def standard_library() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    files = [f for f in sorted(root.rglob("*.py")) if "site-packages" not in f.parts]
    return [f for f in files if not any(name in f.as_posix() for name in PYTHON2_FILES)]


def called_python2(files: list[Path]) -> dict[str, str]:
    """Files the detector takes for Python 2, with the reason. All of the library (1,780 files) takes about 50 s."""
    found = {}
    for file in files:
        try:
            verdict = classify_source(file.read_text(encoding="utf8"))
        except UnicodeDecodeError:
            continue
        if verdict.kind == "python2":
            found[str(file)] = str(verdict)
    return found


def test_standard_library_sample() -> None:
    """`python -c "from test_python_source import *; print(called_python2(standard_library()))"` runs them all."""
    files = [f for f in standard_library() if 1000 < f.stat().st_size < 60_000]
    assert called_python2(random.Random(0).sample(files, 40)) == {}
