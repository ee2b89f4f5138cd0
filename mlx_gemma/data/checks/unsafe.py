"""Insecure patterns in the code of answers, found by bandit (PyCQA, Apache-2.0) in process.

Training on insecure code misaligns a model far beyond code (arXiv 2511.20104), so such rows should be seen before they
are trained. `TESTS` names the tests of bandit that are asked, all of them about an insecure choice. Left out is what
fires on the mere use of a module or an idiom: `assert` (B101), passwords guessed by a variable's name (B105 to B107),
`random` (B311), every import (B4xx), `urlopen`, XML parsers and paramiko as such, subprocess without a shell, strings
that begin with /tmp (B108) or bind all interfaces (B104), and findings that bandit itself calls low.

Measured with bandit 1.9.4: nothing found in the 5,000 answers of datasets/python3 (by all of its tests: 36, each an
`assert`). Of the 1,146 labelled functions of datasets/vulnerability, twins that differ in what decides only, 76 are
found, 60 of them vulnerable (all tests: 109, 70); the other 513 vulnerable ones have flaws that no pattern shows.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from mlx_gemma.data.checks.bandit_tests import findings
from mlx_gemma.data.checks.sql_strings import sql_strings
from mlx_gemma.data.formats import Row
from mlx_gemma.data.python.code_blocks import code_blocks
from mlx_gemma.data.reason import Reason

MAX_SOURCE = 100_000  # characters, 2 s at worst; no answer that fits a context is as long

TESTS = {
    "B102": "exec",
    "B103": "file writable by everybody",
    "B201": "Flask with debug=True",
    "B202": "archive unpacked unchecked",
    "B301": "pickle of unknown origin",
    "B302": "marshal of unknown origin",
    "B303": "broken hash",
    "B304": "broken cipher",
    "B305": "ECB mode",
    "B306": "tempfile.mktemp",
    "B307": "eval",
    "B323": "TLS context that verifies nothing",
    "B324": "broken hash for security",
    "B501": "TLS certificate not verified",
    "B502": "broken TLS version",
    "B503": "broken TLS version as a default",
    "B505": "key too short",
    "B506": "yaml.load without a safe loader",
    "B507": "SSH host key not verified",
    "B508": "SNMP without security",
    "B509": "SNMP with weak cryptography",
    "B602": "subprocess with shell=True",
    "B605": "command through a shell",
    "B608": "SQL put together from strings",
    "B609": "wildcard in a shell command",
    "B610": "Django extra() with SQL",
    "B611": "Django RawSQL",
    "B612": "logging configured over the network",
    "B613": "bidirectional control character",
    "B701": "Jinja2 without autoescape",
    "B703": "Django mark_safe of a variable",
    "B704": "Markup of a variable",
}
BANDIT = frozenset(TESTS) - {"B608", "B613"}  # these two are our own, see sql_strings.py; B613 reports one line a file
HIGH_ONLY = {"B103"}  # below it, mode 0o755

SQL = "SQL put together from strings and values, open to injection (medium severity, medium confidence, CWE-89)"
BIDI = "U+{:04X} makes code read otherwise than it runs (high severity, medium confidence, CWE-838)"


def unsafe(row: Row) -> Iterator[Reason]:
    """What bandit finds in the code of every assistant turn. Python 2 and broken code are other checks' business.

    Code of more than MAX_SOURCE characters is not scanned, and that is a finding too ("not scanned").
    """
    answers = [(number, m["content"]) for number, m in enumerate(row.messages, 1) if m["role"] == "assistant"]
    for number, answer in answers:
        turn = f"turn {number}, " if len(answers) > 1 else ""
        for block in code_blocks(answer):
            for found in scan(block.source):
                line, column = block.place(found.line, found.column)
                message = f"{turn}line {line}, column {column}: {found.text}"
                yield Reason("unsafe", message, found.name)


class Insecure(NamedTuple):
    """A finding; line and column from 1, in the block's source."""

    name: str
    line: int
    column: int
    text: str


def scan(source: str) -> list[Insecure]:
    """The findings in one source text, in its order; none where it does not parse. 0.1 ms a short function."""
    if len(source) > MAX_SOURCE:
        return [
            Insecure("not scanned", 1, 1, f"code of {len(source):,} characters is not scanned for insecure patterns")
        ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
    return judge(tree, source) if can_fire(tree, source) else []


def judge(tree: ast.AST, source: str) -> list[Insecure]:
    """What `scan` says of a parsed source, without the quick look."""
    found = []
    lines = source.split("\n")
    for issue in findings(tree, BANDIT):
        if issue.severity == "LOW" or (issue.severity != "HIGH" and issue.test_id in HIGH_ONLY):
            continue
        rank = f"{issue.severity.lower()} severity, {issue.confidence.lower()} confidence, CWE-{issue.cwe.id}"
        column = _column(lines, issue.lineno, issue.col_offset)
        found.append(Insecure(_name(issue.test_id), issue.lineno, column, f"{' '.join(issue.text.split())} ({rank})"))
    for node in sql_strings(tree):
        found.append(Insecure(_name("B608"), node.lineno, _column(lines, node.lineno, node.col_offset), SQL))
    if not source.isascii():
        for number, line in enumerate(lines, 1):
            if control := FIRES_ON_CHARACTER.search(line):
                found.append(Insecure(_name("B613"), number, control.start() + 1, BIDI.format(ord(control[0]))))
    return sorted(found, key=lambda f: (f.line, f.column))


def _name(test: str) -> str:
    return f"{test} {TESTS[test]}"


def _column(lines: list[str], line: int, offset: int) -> int:
    """The column in characters from 1, of ast's in bytes from 0; ast ends lines at a lone \\r too."""
    text = lines[line - 1] if line <= len(lines) else ""
    return offset + 1 if text.isascii() else len(text.encode()[:offset].decode(errors="ignore")) + 1


# Without one of these none of TESTS can fire. The tests take 0.18 ms a function, this look 0.05 ms.
FIRES_ON_NAME = re.compile(
    r"""^(exec|eval|extra|verify|shell|yaml|marshal|extractall|mktemp|listen|RawSQL|Environment|Markup
        |system|set_missing_host_key_policy|CommunityData|UsmUserData|_create_unverified_context)$
      | pickle | dill | shelve | crypt | ssl | tls | hashlib | chmod | flask | django | markup | jinja | popen
      | getoutput | getstatusoutput | __import__ | importlib""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
FIRES_ON_STRING = re.compile(r"select|delete|insert|update", re.IGNORECASE)
FIRES_ON_CHARACTER = re.compile("[\u200f\u202a-\u202e\u2066-\u2069]")


def can_fire(tree: ast.AST, source: str) -> bool:
    """Whether any of TESTS could find something: a quick look that may err to this side only."""
    names, strings = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.append(node.id)
        elif isinstance(node, ast.Attribute):
            names.append(node.attr)
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                strings.append(node.value)
        elif isinstance(node, ast.keyword):
            names.append(node.arg or "")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [part for alias in node.names for part in alias.name.split(".")]
            names += (getattr(node, "module", None) or "").split(".")
    return bool(
        FIRES_ON_NAME.search("\n".join(names))
        or FIRES_ON_STRING.search("\n".join(strings))
        or (not source.isascii() and FIRES_ON_CHARACTER.search(source))
    )
