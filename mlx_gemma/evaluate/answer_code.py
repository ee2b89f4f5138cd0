"""The code in an answer, of any language: its blocks, and the language of each.

A block is what stands between fences, or bare Python among prose, or a whole answer that is evidently code. Its
language is its label's, unless it evidently is Python under another language's label; without a label, the one it shows
by constructs of its own (EVIDENT; only the first 4,000 characters are looked at). What is data or text (a JSON object,
a poem in a fence) is no code.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

from mlx_gemma.data.balance.languages import FENCE, LABELS
from mlx_gemma.data.python.code_blocks import code_blocks

READ = 4_000  # characters of a block that its language is told by
LONGEST = 100_000  # characters of source that are parsed; what is longer is not read as Python

DIALECTS = {
    **dict.fromkeys(("sqlite", "sqlite3", "postgres", "postgresql", "pgsql", "psql", "mysql", "tsql", "plsql"), "sql"),
    **dict.fromkeys(("htm", "html5", "xhtml"), "html"),
    **dict.fromkeys(("ksh", "fish", "shellscript", "shell-session", "bash-session"), "shell"),
    **dict.fromkeys(("mjs", "es6", "ecmascript"), "javascript"),
    **dict.fromkeys(("kt", "kts"), "kotlin"),
    **dict.fromkeys(("hs",), "haskell"),
    **dict.fromkeys(("h", "c99", "c11", "c17"), "c"),
}
DATA = {"json", "jsonc", "json5", "yaml", "toml", "csv", "tsv", "xml", "text", "markdown", "latex", "tex", "diff"}
DATA |= {"plain", "output", "log", "math"}

EVIDENT = {  # constructs of a language alone, in the order in which they are asked for
    "html": r"<!doctype html"
    r"|^[ \t]*</?(?:html|head|body|div|p|ul|ol|li|table|tr|td|form|input|a|h[1-6]|img|label)\b[^<>]*>",
    "c++": r"^[ \t]*#include\s*<(?:iostream|vector|string|map|algorithm|memory)>|\bstd::\w",
    "c": r"^[ \t]*#include\s*[<\"]\w[\w/]*\.h[>\"]"
    r"|^[ \t]*(?:static\s+)?(?:int|void|char|double|size_t)\s+\**\w+\s*\([^()\n]*\)\s*\{",
    "rust": r"^[ \t]*(?:pub\s+)?fn\s+\w+[^\n]*\{|\blet\s+mut\b|\bprintln!\(",
    "go": r"^[ \t]*package\s+\w+\s*$|^[ \t]*func\s+(?:\(\w+\s+\*?\w+\)\s*)?\w+\([^\n]*\{|\bfmt\.Print",
    "c#": r"^[ \t]*using\s+System\b|\bConsole\.Write(?:Line)?\(",
    "java": r"\bSystem\.out\.print|^[ \t]*public\s+(?:static\s+|final\s+)*(?:class|int|void|String|boolean|double)\b",
    "kotlin": r"^[ \t]*(?:\w+\s+)?fun\s+(?:[\w<>.]+\.)?\w+\([^\n]*\)[^\n]*[{=]",
    "swift": r"^[ \t]*func\s+\w+\([^\n]*\)\s*(?:->\s*[\w?\[\]]+)?\s*\{",
    "typescript": r"^[ \t]*interface\s+\w+\s*\{|\b(?:const|let|function)\b[^\n]*:\s*(?:string|number|boolean)\b",
    "javascript": r"\bfunction\b\s*\w*\s*\([^)\n]*\)\s*\{|\bconsole\.log\("
    r"|^[ \t]*(?:const|let|var)\s+[\w${\[]|=>\s*[{(\w]",
    "php": r"<\?php|^[ \t]*\$\w+\s*=[^\n]*;\s*$",
    "ruby": r"^[ \t]*(?:puts\s|def\s+\w+[?!]?(?:\([^)\n]*\))?\s*$)|\bdo\s*\|\w+(?:,\s*\w+)*\|",
    "sql": r"(?i:^[ \t]*(?:with\s+\w+\s+as\s*\(|select\b[^;]{0,2000}?\bfrom\b|insert\s+into\b|update\s+\w+\s+set\b"
    r"|delete\s+from\b|create\s+(?:table|index|view)\b|alter\s+table\b))",
    "shell": r"^#!\s*/(?:usr/)?bin/(?:env\s+)?(?:ba|z|da)?sh"
    r"|^[ \t]*(?:for\s+\w+\s+in\b[^\n]*(?:;\s*do|$)|done|fi|esac)\s*$"
    r"|^[ \t]*(?:\$\s+)?(?:mv|cp|find|grep|sed|awk|ls|rm|mkdir|chmod|tar|curl|wc|sort|du|ps|tail|head|cat|xargs|rename"
    r"|sudo)\s+(?:-{1,2}\w|[.~/\"'$*]|\w+\.\w)|\$\{\w+[%#:/}]",
    "haskell": r"^\w+\s*::\s*\S[^\n]*->|^main\s*=\s*do\b",
    "lua": r"^[ \t]*local\s+(?:function\s+)?\w+[^\n]*$(?:[^\n]*\n)*?\s*end\b",
    "r": r"\w+\s*<-\s*function\(",
}
EVIDENCE = {name: re.compile(pattern, re.MULTILINE) for name, pattern in EVIDENT.items()}
STATEMENTS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.With, ast.Try)


@dataclass(frozen=True)
class Block:
    """Code of an answer; `language` is "" where nothing tells it."""

    source: str
    language: str


def language_name(label: str) -> str:
    """The usual name of a language: of `js`, `JavaScript` and `node` it is "javascript", of `bash` "shell"."""
    name = label.strip().lower()
    return DIALECTS.get(name) or LABELS.get(name, name)


def blocks(answer: str) -> list[Block]:
    """The blocks of an answer that are code, in order. Linear; parses what has no label, some 0.1 ms a short block."""
    fenced = list(_fenced(answer))
    if fenced:
        named = [Block(source, _language(source, label)) for label, source in fenced]
        return [b for b in named if b.source.strip() and b.language not in DATA and (b.language or _looks_like(b))]
    if bare := code_blocks(answer):
        return [Block(b.source, "python") for b in bare]
    evident = _evident(answer)
    return [Block(answer, evident)] if evident else []


def fences(answer: str) -> list[str]:
    """What stands between fences, whatever it is; an unclosed fence runs to the end."""
    return [source for _, source in _fenced(answer)]


def python_tree(answer: str) -> ast.Module | None:
    """The syntax tree of all of an answer's Python; None where there is none, or Python 3 does not parse it."""
    return parsed("\n\n".join(b.source for b in code_blocks(answer)))


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a source that says something; None where there is none."""
    if not source.strip() or len(source) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _fenced(answer: str) -> list[tuple[str, str]]:
    """(label, source) of every fence."""
    found, mark, label, held = list[tuple[str, str]](), "", "", list[str]()
    for line in answer.splitlines():
        fence = FENCE.match(line)
        if fence and not mark:
            mark, label, held = fence["mark"], fence["label"], []
        elif fence and fence["mark"].startswith(mark) and not fence["rest"].strip():
            found.append((label, "\n".join(held)))
            mark = ""
        elif mark:
            held.append(line)
    return [*found, (label, "\n".join(held))] if mark else found


def _language(source: str, label: str) -> str:
    tree = parsed(source)
    if tree is not None and any(isinstance(node, STATEMENTS) for node in tree.body):
        return "python"
    if label:
        return language_name(label)
    return "python" if code_blocks(f"```\n{source}\n```") else _evident(source)


def _evident(text: str) -> str:
    head = text[:READ]
    return next((name for name, pattern in EVIDENCE.items() if pattern.search(head)), "")


def _looks_like(block: Block) -> bool:
    """Whether a block of no known language is code all the same: most of its lines end or begin as code does."""
    lines = [line for line in block.source.splitlines() if line.strip()]
    signs = sum(bool(re.search(r"[;{}]\s*$|^\s*[{}#$@]|\w\(\S*\)", line[:300])) for line in lines)
    return 2 * signs > len(lines)
