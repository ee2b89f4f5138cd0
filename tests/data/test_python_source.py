"""The verdict on code, construct by construct, and on real code: the standard library is no Python 2."""

from __future__ import annotations

import random
import sysconfig
from pathlib import Path

import pytest

from mlx_gemma.data.code_blocks import code_blocks
from mlx_gemma.data.python_source import classify, classify_source

PYTHON2_GRAMMAR = {
    "print statement": "print 'hello'",
    "print a name": "for x in y:\n    print x, x + 1",
    "print with %": 'print "%d" % 3',
    "print >> with a name": "import sys\nprint >>sys.stderr, 'a' 'b', x",
    "exec statement": "exec 'x = 1' in scope",
    "except X, e": "try:\n    f()\nexcept ValueError, e:\n    pass",
    "raise X, value": "raise ValueError, 'bad'",
    "backquotes": "s = `x`",
    "<>": "if a <> b:\n    pass",
    "long literal": "n = 10L",
    "hex long": "n = 0xFFL",
    "old octal literal": "os.chmod(f, 0755)",
    "ur string": "s = ur'x'",
    "tuple parameter": "def f(a, (b, c)):\n    return a",
    "tuple lambda": "sorted(d.items(), key=lambda (k, v): v)",
    "bare tuple in a comprehension": "[x for x in 1, 2, 3]",
    "async as a name": "f(async=True)",
    "tabs among spaces": "if x:\n        a = 1\n\tb = 2",
    "print_function": "from __future__ import print_function\ntry:\n    print(1, file=f)\nexcept E, e:\n    f()",
}
PYTHON2_NAMES = {
    "xrange": "for i in xrange(3):\n    f(i)",
    "raw_input": "name = raw_input('? ')",
    "unicode": "isinstance(x, unicode)",
    "long": "isinstance(x, (int, long))",
    "basestring": "def f(x):\n    return isinstance(x, basestring)",
    "unichr": "unichr(65)",
    "reduce": "reduce(lambda a, b: a + b, xs)",
    "cmp": "cmp(a, b)",
    "apply": "apply(f, args)",
    "execfile": "execfile('a.py')",
    "file": "file('a.txt').read()",
    "reload": "import sys\nreload(sys)",
    "StandardError": "class E(StandardError):\n    pass",
    ".has_key()": "if d.has_key('a'):\n    pass",
    ".iteritems()": "for k, v in d.iteritems():\n    pass",
    ".itervalues()": "sum(d.itervalues())",
    ".next()": "line = reader.next()",
    "def next": "class C:\n    def __iter__(self):\n        return self\n    def next(self):\n        return 1",
    "__nonzero__": "class C:\n    def __nonzero__(self):\n        return True",
    "__cmp__": "class C:\n    def __cmp__(self, other):\n        return 0",
    "__unicode__": "class C:\n    def __unicode__(self):\n        return u''",
    "__div__": "class C:\n    def __div__(self, other):\n        return self",
    "__metaclass__": "class C:\n    __metaclass__ = M",
    ".func_name": "f.func_name",
    ".im_self": "f.im_self",
    "string.join": "import string\nstring.join(words, '')",
    "string.letters": "from string import letters",
    "sys.maxint": "import sys\nn = sys.maxint",
    "os.getcwdu": "import os\nos.getcwdu()",
    "urllib.urlopen": "import urllib\nurllib.urlopen(u)",
    "itertools.izip": "from itertools import izip",
    "itertools as": "import itertools as it\nit.imap(f, x)",
    "types.StringType": "import types\ntypes.StringType",
    "import urllib2": "import urllib2",
    "import StringIO": "from StringIO import StringIO",
    "import ConfigParser": "import os, ConfigParser",
    "import Tkinter": "from Tkinter import *",
    "import Queue": "import Queue",
    "import cPickle": "import cPickle as pickle",
    "import __builtin__": "import __builtin__",
    ".encode('hex')": "'ab'.encode('hex')",
}
PYTHON2_IDIOMS = {
    "cmp=": "xs.sort(cmp=f)",
    "sorted cmp=": "sorted(xs, cmp=lambda a, b: 1)",
    "sort(lambda)": "xs.sort(lambda a, b: a - b)",
    "sorted(x, f)": "sorted(xs, compare)",
    "keys().sort()": "d.keys().sort()",
    "keys, then sort": "def f(d):\n    keys = d.keys()\n    keys.sort()\n    return keys",
    "len(filter)": "len(filter(f, xs))",
    "map()[0]": "map(f, xs)[0]",
    "keys()[0]": "d.keys()[0]",
    "items() + items()": "dict(a.items() + b.items())",
    "index n / 2": "def f(xs):\n    return xs[len(xs) / 2]",
    "index, via a variable": "def f(xs):\n    mid = len(xs) / 2\n    return xs[mid:]",
    "range(n / 2)": "range(1, n / 2 + 1)",
    "digits": "while n > 0:\n    s += n % 10\n    n /= 10",
    "digits, spelt out": "while n:\n    s += n % 2\n    n = n / 2",
    "deleting while looping": "for k in d.keys():\n    if k:\n        del d[k]",
    "print >>": "import sys\nprint >>sys.stderr, 'x'",
    "bare print": "print",
    "print (...) % x": "print ('%d') % 3",
    "print (...), x": "print ('a'), b",
}


@pytest.mark.parametrize("source", [*PYTHON2_GRAMMAR.values(), *PYTHON2_NAMES.values(), *PYTHON2_IDIOMS.values()])
def test_python2(source: str) -> None:
    verdict = classify_source(source)
    assert verdict.kind == "python2", verdict
    assert verdict.findings[0].message


PYTHON3 = {
    "own function": "def long(x):\n    return x\nlong(3)",
    "own parameter": "def f(unicode):\n    return unicode + 1",
    "own variable in a loop": "for file in files:\n    file(1)",
    "own import": "from functools import reduce\nreduce(f, xs)",
    "own class with next": "class Node:\n    def next(self):\n        return 1\nNode().next()",
    "both next": "class C:\n    def __iter__(self):\n        return self\n    def __next__(self):\n        return 1\n"
    "    next = __next__",
    "own has_key": "class D(dict):\n    def has_key(self, k):\n        return k in self\nD().has_key(1)",
    "guarded builtin": "try:\n    input = raw_input\nexcept NameError:\n    pass",
    "guarded import": "try:\n    import cPickle as pickle\nexcept ImportError:\n    import pickle",
    "guarded by version": "import sys\nif sys.version_info[0] < 3:\n    text = unicode\nelse:\n    text = str",
    "defined where missing": "try:\n    unicode\nexcept NameError:\n    unicode = str\nunicode(1)",
    "argument called string": "def f(string):\n    return string.split(',') + [string.upper()]",
    "string constants": "import string\nstring.ascii_letters + string.digits",
    "both comparisons": "class C:\n    def __cmp__(self, o):\n        pass\n    def __lt__(self, o):\n        pass",
    "path": "from pathlib import Path\np = Path('a') / 'b'\nd[p]",
    "division": "def mean(xs):\n    half = sum(xs) / 2\n    return half",
    "map returned": "def f(xs):\n    return map(str, xs)",
    "list(keys)": "keys = list(d.keys())\nkeys.sort()\nkeys[0]",
    "keys given or taken": "def f(keys, d):\n    if keys is None:\n        keys = d.keys()\n    return keys[0]",
    "deleting, then out": "for k in d.keys():\n    if k:\n        del d[k]\n        break",
    "text": "s = 'print x; xrange(3)'  # print x",
    "next attribute": "node = node.next",
    "own attribute": "class C:\n    @property\n    def func_name(self):\n        return 'x'\nC().func_name",
    "kept by a library": "import curses, tarfile\ncurses.has_key(3)\ntarfile.open('x').next()",
    "expected failure": "with pytest.raises(NameError):\n    xrange(3)",
    "walrus": "if (n := len(a)) > 10:\n    print(f'{n!r:>{width}}')",
    "match": "match x:\n    case [a, *rest]:\n        pass",
    "groups": "try:\n    f()\nexcept* ValueError as e:\n    pass",
    "await at top level": "await f()",
    "curses": "import curses\ncurses.has_key(3)",
    "print to file": "print('a', file=f, end='')",
}


@pytest.mark.parametrize("name", PYTHON3)
def test_python3(name: str) -> None:
    verdict = classify_source(PYTHON3[name])
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


def test_blocks_keep_their_lines() -> None:
    text = "a\r\n```python\nx = 1\n```\nb\n```\ny = 2"
    assert [(b.source, b.first_line, b.closed) for b in code_blocks(text)] == [("x = 1", 3, True), ("y = 2", 7, False)]


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
