"""Every insecure pattern is found, its secure twin is not, bandit's own visitor agrees, and no text is too odd."""

from __future__ import annotations

import ast
import io
import json
import random
import sysconfig
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from bandit.core import config, metrics, node_visitor, test_set

from mlx_gemma.data.checks.bandit_tests import findings
from mlx_gemma.data.checks.unsafe import BANDIT, MAX_SOURCE, TESTS, can_fire, judge, scan, unsafe
from mlx_gemma.data.formats import Row
from mlx_gemma.data.python.code_blocks import code_blocks

# Test -> insecure sources, secure sources that are alike.
PLANTED: dict[str, tuple[list[str], list[str]]] = {
    "B102": (["exec(text)", "exec('x = ' + value)"], ["execute(text)", "job.exec(text)", "exec = 1"]),
    "B103": (
        ["import os\nos.chmod(path, 0o777)"],
        ["import os\nos.chmod(path, 0o600)", "import os\nos.chmod(path, 0o755)"],
    ),
    "B201": (
        ["from flask import Flask\napp = Flask(__name__)\napp.run(debug=True)"],
        ["from flask import Flask\napp = Flask(__name__)\napp.run()", "server.run(debug=True)"],
    ),
    "B202": (
        ["import tarfile\ntarfile.open(name).extractall(folder)"],
        ["import tarfile\ntarfile.open(name).extractall(folder, filter='data')"],
    ),
    "B301": (
        [
            "import pickle\npickle.loads(data)",
            "from pickle import load as read\nread(file)",
            "import shelve\nshelve.open(p)",
        ],
        ["import pickle\npickle.dumps(data)", "import json\njson.loads(data)"],
    ),
    "B302": (["import marshal\nmarshal.loads(data)"], ["import marshal\nmarshal.dumps(data)"]),
    "B303": (["from Crypto.Hash import MD5\nMD5.new()"], ["from Crypto.Hash import SHA256\nSHA256.new()"]),
    "B304": (
        ["from Crypto.Cipher import DES\nDES.new(key)"],
        ["from Crypto.Cipher import AES\nAES.new(key, AES.MODE_GCM)"],
    ),
    "B305": (
        ["from cryptography.hazmat.primitives.ciphers import modes\nmodes.ECB()"],
        ["from cryptography.hazmat.primitives.ciphers import modes\nmodes.GCM(iv)"],
    ),
    "B306": (["import tempfile\ntempfile.mktemp()"], ["import tempfile\ntempfile.mkstemp()"]),
    "B307": (["eval(text)", "x = [eval(t) for t in texts]"], ["import ast\nast.literal_eval(text)", "model.eval()"]),
    "B323": (["import ssl\nssl._create_unverified_context()"], ["import ssl\nssl.create_default_context()"]),
    "B324": (
        [
            "import hashlib\nhashlib.md5(data)",
            "from hashlib import sha1\nsha1(data)",
            "import hashlib\nhashlib.new('md5')",
        ],
        ["import hashlib\nhashlib.md5(data, usedforsecurity=False)", "import hashlib\nhashlib.sha256(data)"],
    ),
    "B501": (
        ["import requests\nrequests.get(url, verify=False)"],
        ["import requests\nrequests.get(url)", "check(url, verify=False)"],
    ),
    "B502": (
        ["import ssl\nssl.wrap_socket(ssl_version=ssl.PROTOCOL_SSLv3)"],
        ["import ssl\nssl.wrap_socket(ssl_version=ssl.PROTOCOL_TLS_CLIENT)"],
    ),
    "B503": (
        ["import ssl\ndef connect(version=ssl.PROTOCOL_SSLv2):\n    pass"],
        ["import ssl\ndef connect(version=ssl.PROTOCOL_TLS_CLIENT):\n    pass"],
    ),
    "B505": (
        ["from Crypto.PublicKey import RSA\nRSA.generate(1024)"],
        ["from Crypto.PublicKey import RSA\nRSA.generate(4096)"],
    ),
    "B506": (
        ["import yaml\nyaml.load(text)"],
        ["import yaml\nyaml.safe_load(text)", "import yaml\nyaml.load(t, yaml.SafeLoader)"],
    ),
    "B507": (
        ["import paramiko\nc = paramiko.SSHClient()\nc.set_missing_host_key_policy(paramiko.AutoAddPolicy)"],
        ["import paramiko\nc = paramiko.SSHClient()\nc.set_missing_host_key_policy(paramiko.RejectPolicy)"],
    ),
    "B508": (
        ["from pysnmp.hlapi import CommunityData\nCommunityData('public', mpModel=0)"],
        ["from pysnmp.hlapi import CommunityData\nCommunityData('public', mpModel=2)"],
    ),
    "B509": (
        ["from pysnmp.hlapi import UsmUserData\nUsmUserData('name')"],
        ["from pysnmp.hlapi import UsmUserData\nUsmUserData('name', 'auth', 'priv')"],
    ),
    "B602": (
        [
            "import subprocess\nsubprocess.run(command, shell=True)",
            "from subprocess import Popen as P\nP(c, shell=True)",
        ],
        [
            "import subprocess\nsubprocess.run(['ls', path])",
            "import subprocess\nsubprocess.run('df -h | tail', shell=True)",
        ],
    ),
    "B605": (["import os\nos.system('rm ' + name)", "import os\nos.popen(command)"], ["import os\nos.system('clear')"]),
    "B608": (
        [
            'db.execute("SELECT name FROM users WHERE id = %s" % number)',
            'db.execute("SELECT name FROM users WHERE id = " + number)',
            'db.execute(f"select name from users where id = {number}")',
            "query = \"DELETE FROM users WHERE name = '{}'\".format(name)",
            'q = ("INSERT INTO t (a) " "VALUES (" + value + ")")',
            'q = f"""\n    UPDATE t\n    SET a = {value}\n"""',
            'q = "SELECT a " + "FROM t " + f"WHERE b = {b}"',
        ],
        [
            'db.execute("SELECT name FROM users WHERE id = %s", (number,))',
            'q = "SELECT name " + "FROM users"',
            'q = f"SELECT name FROM users"',
            'print(f"Select a file from {folder}")',
            'print("select %d from the list below, or update %s" % (n, m))'.replace("select", "Please select"),
            'f"{a} from {b}"',
            'logging.info("update of %s: set aside", name)',
        ],
    ),
    "B609": (["import os\nos.system('/bin/tar xvzf *')"], ["import os\nos.system('/bin/tar xvzf a.tgz')"]),
    "B610": (
        ["User.objects.filter(a=1).extra(where=['%s' % x], tables=t)"],
        ["User.objects.filter(a=1).extra(where=['a = 1'])", "extra_fields(where=x)"],
    ),
    "B611": (
        ["from django.db.models.expressions import RawSQL\nRawSQL('select %s' % name, [])"],
        ["from django.db.models.expressions import RawSQL\nRawSQL('select 1', [])"],
    ),
    "B612": (
        ["import logging.config\nlogging.config.listen(9999)"],
        ["import logging.config\nlogging.config.listen(9999, verify=f)"],
    ),
    "B613": (["admin = False  # \u202eeurt\u202c"], ["name = 'שלום'", "# naïve"]),
    "B701": (
        [
            "import jinja2\njinja2.Environment(autoescape=False)",
            "from jinja2 import Environment\nEnvironment(loader=l)",
        ],
        ["import jinja2\njinja2.Environment(autoescape=True)"],
    ),
    "B703": (
        ["from django.utils import safestring\ndef f(name):\n    return safestring.mark_safe(name)"],
        ["from django.utils import safestring\nsafestring.mark_safe('<b>')"],
    ),
    "B704": (
        ["from markupsafe import Markup\nMarkup(f'<b>{name}</b>')"],
        ["from markupsafe import Markup\nMarkup('<b>x</b>')"],
    ),
}


def row(*turns: str) -> Row:
    return Row([{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)], "rows.jsonl:1")


def ids(source: str) -> set[str]:
    return {found.name.split()[0] for found in scan(source)}


@pytest.mark.parametrize("test", TESTS)
def test_the_insecure_is_found_and_its_twin_is_not(test: str) -> None:
    insecure, secure = PLANTED[test]
    assert [source for source in insecure if test not in ids(source)] == []
    assert [source for source in secure if ids(source)] == []


def test_place_name_and_severity() -> None:
    line = "    é = 'é', subprocess.run(é, shell=True)"
    answer = f"Like this:\n\n  ```python\n  import subprocess\n  def f():\n  {line}\n  ```\nDone."
    (reason,) = unsafe(row("Run a command: eval(x)", answer))
    assert (reason.check, reason.name) == ("unsafe", "B602 subprocess with shell=True")
    assert reason.message.startswith(
        f"line 6, column {2 + line.index('subprocess') + 1}: subprocess call with shell=True"
    )
    assert reason.message.endswith("(high severity, high confidence, CWE-78)")


def test_every_assistant_turn_and_no_other() -> None:
    reasons = list(unsafe(row("`eval(a)`", "```python\nx = 1\n```", "eval(b)", ">>> 1\n>>> eval(c)\n3\n")))
    assert [r.message.split(":")[0] for r in reasons] == ["turn 4, line 2, column 5"]


def test_nosec_makes_nothing_safe() -> None:
    assert ids("eval(text)  # nosec") == {"B307"}


@pytest.mark.parametrize(
    "answer",
    [
        "print 'eval', eval(x)",
        "def f(:\n  eval(x)",
        "```python\neval(x\n```",
        "No code here.",
        "eval(\0)",
        "```\n```",
        "\f\reval(x)\r",
    ],
)
def test_python2_broken_and_no_code_raise_nothing(answer: str) -> None:
    list(unsafe(row("?", answer)))


def their_findings(source: str) -> set[tuple[str, int, int, str]]:
    """Bandit's own visitor, with the same tests."""
    counts = metrics.Metrics()
    counts.begin("a.py")
    tests = test_set.BanditTestSet(config.BanditConfig(), {"include": sorted(BANDIT)})
    visitor = node_visitor.BanditNodeVisitor("a.py", io.BytesIO(source.encode()), None, tests, False, {}, counts)
    visitor.process(source)
    return {(i.test_id, i.lineno, i.col_offset, i.severity) for i in visitor.tester.results}


def sources() -> Iterator[str]:
    """What was planted, 60 files of the standard library, and the functions of the vulnerability data set."""
    yield from (source for pair in PLANTED.values() for which in pair for source in which)
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(f for f in root.rglob("*.py") if "site-packages" not in f.parts and f.stat().st_size < 30_000)
    yield from (f.read_text(errors="replace") for f in random.Random(2).sample(files, 60))
    with (Path(__file__).parents[2] / "datasets/vulnerability/valid.jsonl").open() as lines:
        for line in lines:
            yield from (block.source for block in code_blocks(json.loads(line)["messages"][-2]["content"]))


def test_bandits_own_visitor_agrees_and_the_quick_look_loses_nothing() -> None:
    something = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for source in sources():
            try:
                tree = ast.parse(source)
            except SyntaxError:
                continue
            ours = {(i.test_id, i.lineno, i.col_offset, i.severity) for i in findings(tree, BANDIT)}
            assert ours == their_findings(source), source
            full = judge(tree, source)
            assert scan(source) == full
            assert can_fire(tree, source) or not full
            something += bool(full)
    assert something > 40


def test_the_answers_of_python3_hold_nothing_unsafe_and_take_no_time() -> None:
    with (Path(__file__).parents[2] / "datasets/python3/raw.jsonl").open() as lines:
        rows = [Row(json.loads(line)["messages"], "raw") for _, line in zip(range(1500), lines, strict=False)]
    list(unsafe(row("?", "eval(x)")))  # bandit is imported
    began = time.process_time()
    assert [r for one in rows for r in unsafe(one)] == []
    assert time.process_time() - began < 1.5  # 1 ms a row; 0.15 measured


HOSTILE = [
    "\0",
    "x = '\\d \\x00'",
    "eval(" * 150 + "1" + ")" * 150,
    "x = " + "[" * 10_000 + "]" * 10_000,
    "eval(a" + ".b" * 900 + ")",
    "eval(a" + ".b()" * 800 + ")",
    "if a:\n  eval(b)\n" + "elif a:\n  eval(b)\n" * 2000,
    "eval(1" + "+1" * 900 + ")",
    "y = '" + "select " * 14_000 + "' % z",
    "x = " + "+".join(["'select a'"] * 900) + "+b\n",
    "x = f'''eval\n" + "{a}\n" * 24_000 + "'''\neval(x)",
    "x={" + "'eval':1,\n" * 9000 + "}\neval(x)",
    "".join(f"import a{i}\n" for i in range(3000)) + "import ssl\n" + "f()\n" * 12_000,
    "".join(f"import a{i}\nf()\n" for i in range(6000)) + "import ssl",
    "eval(x);" * 12_000,
    "x = 1\n" * MAX_SOURCE,
    "a" * 2**20,
    "def f():\n" * 5000,
    "(" * 2**20,
    "lambda: " * 10_000 + "eval(x)",
    "not " * 20_000 + "eval(x)",
    "x = " + "`" * 2**20,
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_no_code_takes_long_or_raises(number: int) -> None:
    began = time.process_time()
    found = list(unsafe(row("?", "```python\n" + HOSTILE[number] + "\n```")))
    assert time.process_time() - began < 10  # 0.0 to 1.5 s; bandit's visitor takes 118 s for one of them
    if len(HOSTILE[number]) > MAX_SOURCE:
        assert [f.name for f in found] == ["not scanned"]


def test_random_code_raises_nothing() -> None:
    rng = random.Random(4)
    whole = [source for pair in PLANTED.values() for which in pair for source in which]
    for _ in range(2000):
        text = rng.choice(whole)
        cut = rng.randrange(len(text) + 1)
        odd = rng.choice(["", "\0", "\r", "\f", "\n", " ", "é", "(", "\\", "'", "\u2028", "{", "```", ">>> "])
        list(unsafe(row("?", text[:cut] + odd + text[cut + rng.randrange(2) :])))
