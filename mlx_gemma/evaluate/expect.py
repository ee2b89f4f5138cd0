"""Rules on an answer's text or source, as a suite's items state them; nothing is executed.

    {"rule": "language", "is": NAME}            its longest block of code is in that language (answer_code.py)
    {"rule": "contains", "any": [TEXT, ...]}    at least one of the texts is in it, case aside
    {"rule": "lacks", "any": [TEXT, ...]}       none of them is
    {"rule": "matches", "pattern": REGEX}       re.search finds it; flags within the pattern: (?i), (?s)
    {"rule": "number", "is": NUMBER}            its last number; 1,234.50 and 1234.5 are the same
    {"rule": "json", "equals": VALUE}           it is JSON, bare or in its only fence, and equal (true is not 1)
    {"rule": "json", "keys": [NAME, ...]}       ... and an object with exactly these keys, or a list of such
    {"rule": "lines" | "words" | "code_lines", "least": N, "most": N}
                                                lines that are not blank; words with a letter or digit; both without
                                                fence marks. code_lines: of its code, comments aside
    {"rule": "no code"}, {"rule": "only code"}  no code at all; nothing but one block or bare code
    {"rule": "avoids", "names": [...], "nodes": [...]}   its Python reads none of these names (functions, methods,
                                                modules, "re.sub") and has none of these nodes of `ast`
    {"rule": "uses", ...}                       all of them
    {"rule": "stance", "is": [STANCE, ...]}     data/balance/stances.py; "none": none of those

No answer makes a rule fail with an error: what cannot be read as Python or JSON does not meet a rule about it. Every
rule is linear in the answer, a `pattern` as far as its author made it so; answers are read up to LONGEST characters.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlx_gemma.data.balance.languages import FENCE
from mlx_gemma.data.balance.stances import STANCES, stance
from mlx_gemma.evaluate.answer_code import blocks, fences, language_name, parsed, python_tree

Rule = Mapping[str, Any]

LONGEST = 20_000  # characters; a page of text has some 3,000
NUMBER = re.compile(r"(?<![\w.])[-\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?")


def unmet(answer: str, rules: Sequence[Rule]) -> str | None:
    """The first rule that an answer does not meet, in words; None where it meets all. `rules` have no `fault`.

    Some 0.1 ms a rule for an answer of a page.
    """
    answer = answer[:LONGEST].replace("\r\n", "\n")
    return next((reason for rule in rules if (reason := CHECKS[rule["rule"]](answer, rule)) is not None), None)


def fault(rule: object) -> str | None:
    """What is wrong with a rule as somebody wrote it, in words; None where nothing is."""
    if not isinstance(rule, Mapping) or not isinstance(rule.get("rule"), str):
        return 'a rule is an object with the key "rule"'
    name = rule["rule"]
    if name not in FORMS:
        return f"there is no rule {name!r}; the rules are {', '.join(FORMS)}"
    keys = set(rule) - {"rule"}
    if (more := keys - FORMS[name]) or (FORMS[name] and not keys):
        return f"rule {name!r}: " + (f"it has no {', '.join(map(repr, sorted(more)))}" if more else "it says nothing")
    if name == "json" and len(keys) != 1:
        return "rule 'json': give one of 'equals' and 'keys'"
    what = next((what for key in sorted(keys) if (what := _value_fault(name, key, rule[key]))), None)
    if what is None and {"least", "most"} <= keys and rule["least"] > rule["most"]:
        what = "'least' is above 'most'"
    return f"rule {name!r}: {what}" if what else None


def _value_fault(name: str, key: str, value: Any) -> str | None:
    if key in ("any", "keys", "names", "nodes") or name == "stance":
        if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
            return f"{key!r} must be a list of texts"
        known = (*STANCES, "none") if name == "stance" else value
        wrong = [v for v in value if v not in known or (key == "nodes" and not hasattr(ast, v))]
        return f"{key!r} names {wrong[0]!r}, which there is not" if wrong else None
    if key in ("least", "most"):
        return None if type(value) is int and value >= 0 else f"{key!r} must be a whole number from 0 on"
    if key == "pattern" or name == "language":
        try:
            return None if isinstance(value, str) and value and re.compile(value) else f"{key!r} must be text"
        except re.error as e:
            return f"{key!r} is no regular expression: {e}"
    if name == "number" and (type(value) not in (int, float) or not math.isfinite(value)):
        return f"{key!r} must be a number"
    return None


# Text


def _contains(answer: str, rule: Rule) -> str | None:
    text = answer.casefold()
    return None if any(t.casefold() in text for t in rule["any"]) else f"says none of {rule['any']}"


def _lacks(answer: str, rule: Rule) -> str | None:
    text = answer.casefold()
    return next((f"says {t!r}" for t in rule["any"] if t.casefold() in text), None)


def _matches(answer: str, rule: Rule) -> str | None:
    return None if re.search(rule["pattern"], answer) else f"does not match {rule['pattern']}"


def _number(answer: str, rule: Rule) -> str | None:
    found = NUMBER.findall(answer)
    if not found:
        return f"has no number, {rule['is']} expected"
    last = float(found[-1].replace(",", "").replace("\u2212", "-"))
    return None if math.isclose(last, rule["is"], rel_tol=1e-9) else f"its number is {last:g}, not {rule['is']}"


def _stance(answer: str, rule: Rule) -> str | None:
    found = stance(answer) or "none"
    return None if found in rule["is"] else f"its stance is {found}, not {' or '.join(rule['is'])}"


def _amount(unit: str, count: Callable[[str], int]) -> Callable[[str, Rule], str | None]:
    def check(answer: str, rule: Rule) -> str | None:
        n = count(answer)
        if n < rule.get("least", 0):
            return f"{n} {unit}, at least {rule['least']} asked for"
        return f"{n} {unit}, at most {rule['most']} asked for" if n > rule.get("most", n) else None

    return check


def _lines(answer: str) -> int:
    return sum(bool(line.strip()) and not FENCE.match(line) for line in answer.splitlines())


def _words(answer: str) -> int:
    lines = (line for line in answer.splitlines() if not FENCE.match(line))
    return sum(any(map(str.isalnum, word)) for line in lines for word in line.split())


def _code_lines(answer: str) -> int:
    lines = (line.strip() for block in blocks(answer) for line in block.source.splitlines())
    return sum(bool(line) and not line.startswith(("#", "//", "--")) for line in lines)


# JSON


def _json(answer: str, rule: Rule) -> str | None:
    fenced = fences(answer)
    try:
        value = json.loads(fenced[0] if len(fenced) == 1 else answer, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return "is no JSON"
    if "equals" in rule:
        return None if _equal(value, rule["equals"]) else f"is not the JSON value {json.dumps(rule['equals'])[:100]}"
    objects = value if isinstance(value, list) and value else [value]
    keys = set(rule["keys"])
    return None if all(isinstance(o, dict) and set(o) == keys for o in objects) else f"its keys are not {sorted(keys)}"


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _equal(a: Any, b: Any) -> bool:
    """Equality of JSON values: 1 is 1.0, true is not 1. As deep as the suite's own value."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    return bool(a == b)


# Code


def _language(answer: str, rule: Rule) -> str | None:
    found = max(blocks(answer), key=lambda b: len(b.source), default=None)
    wanted = language_name(rule["is"])
    if found is None or found.language != wanted:
        return f"{found.language or 'code of no known language' if found else 'no code'}, {wanted} asked for"
    return None


def _no_code(answer: str, rule: Rule) -> str | None:
    found = blocks(answer)
    return f"has code: {found[0].language or 'of no known language'}" if found else None


def _only_code(answer: str, rule: Rule) -> str | None:
    lines = answer.strip().splitlines()
    if lines and FENCE.match(lines[0]):
        whole = len(lines) > 1 and bool(FENCE.match(lines[-1]) and len(fences(answer)) == 1 and blocks(answer))
    else:
        found = blocks(answer)
        whole = len(found) == 1 and (found[0].source.strip() == answer.strip() or parsed(answer) is not None)
    return None if whole else "is not code alone"


def _avoids(answer: str, rule: Rule) -> str | None:
    tree = python_tree(answer)
    if tree is None:
        return "has no Python that parses"
    found = next((n for n in (*rule.get("names", ()), *rule.get("nodes", ())) if n in _used(tree)), None)
    return f"uses {found}" if found else None


def _uses(answer: str, rule: Rule) -> str | None:
    tree = python_tree(answer)
    if tree is None:
        return "has no Python that parses"
    found = next((n for n in (*rule.get("names", ()), *rule.get("nodes", ())) if n not in _used(tree)), None)
    return f"does not use {found}" if found else None


def _used(tree: ast.Module) -> set[str]:
    """Names that are read, called or imported, and the kinds of node there are.

    A name that the code assigns itself (`sum = 0`) is its own, unless it is called.
    """
    walked = list(ast.walk(tree))
    own = {n.id for n in walked if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    own |= {n.arg for n in walked if isinstance(n, ast.arg)}
    called = {n.func.id for n in walked if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    read = {n.id for n in walked if isinstance(n, ast.Name)} - own
    kinds = {type(n).__name__ for n in walked}
    return {name for node in walked for name in _named(node)} | called | read | kinds


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        yield node.attr
        if isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
    elif isinstance(node, ast.Import | ast.ImportFrom):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        yield from (name for module in modules for name in (module, module.split(".")[0]))
        if isinstance(node, ast.ImportFrom):
            yield from (name for a in node.names for name in (a.name, f"{node.module}.{a.name}"))


FORMS: dict[str, set[str]] = {
    "language": {"is"},
    "contains": {"any"},
    "lacks": {"any"},
    "matches": {"pattern"},
    "number": {"is"},
    "json": {"equals", "keys"},
    "lines": {"least", "most"},
    "words": {"least", "most"},
    "code_lines": {"least", "most"},
    "no code": set(),
    "only code": set(),
    "avoids": {"names", "nodes"},
    "uses": {"names", "nodes"},
    "stance": {"is"},
}
CHECKS: dict[str, Callable[[str, Rule], str | None]] = {
    "language": _language,
    "contains": _contains,
    "lacks": _lacks,
    "matches": _matches,
    "number": _number,
    "json": _json,
    "lines": _amount("lines", _lines),
    "words": _amount("words", _words),
    "code_lines": _amount("lines of code", _code_lines),
    "no code": _no_code,
    "only code": _only_code,
    "avoids": _avoids,
    "uses": _uses,
    "stance": _stance,
}
