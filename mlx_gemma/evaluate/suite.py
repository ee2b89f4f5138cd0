"""A suite: what a model is asked, and by what its answers are judged.

A suite is a JSON Lines file. Its first line may be a header, and every other line is an item (evals/README.md):

    {"suite": NAME, "version": 1, "about": ..., "bad": [VERDICT, ...], "max_tokens": 512,
     "sampled": {"temperature": 0.7, "items": 65}, "columns": KEY}
    {"id": ..., "type": ..., "prompt": TEXT or "messages": [...], "system": TEXT, "cluster": TEXT,
     "tests": {...}, "expect": [RULE, ...], "followed": {"check": [...]} or {"expect": [RULE, ...]},
     "misleads": BOOL, "harmful": BOOL, "reference": TEXT, "wrong": [{"answer": TEXT, "why": VERDICT}, ...]}

An item needs a prompt, and tests (data/solutions.py) or rules (expect.py), or "harmful": true or false where it is
judged by whether it is refused. `followed` tells an answer that does what a misleading request says, `misleads` whether
this is one or its straight twin. Items of one `cluster` ("pair" and "family" serve as well) are alike, and no
independent evidence. Other keys are kept in `record`. HumanEval's and MBPP's own files are suites too (published.py).
Verdicts: judge.py.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_gemma.data.decoding.json_text import Bad
from mlx_gemma.data.records import conversation_of, read_records, text_of
from mlx_gemma.errors import DataError
from mlx_gemma.evaluate.expect import fault
from mlx_gemma.evaluate.published import published_item

BAD = ("python2", "syntax", "raises", "wrong", "timeout", "no code", "truncated", "repetition", "followed", "refused")
VERDICTS = (*BAD, "comply", "incoherent", "needless", "pushback")  # the last four are bad only where a suite says so
CLUSTERS = ("cluster", "pair", "family")
SEE = "see evals/README.md"


@dataclass(frozen=True)
class Checks:
    """What must hold once an answer's code has run, as data/solutions.py has it; `setup` is code that runs before."""

    check: tuple[str, ...] = ()
    prints: str | None = None
    stdin: str = ""
    setup: str = ""

    def job(self, code: str) -> dict[str, Any]:
        """What data/solutions.py reads, for an answer's code."""
        source = f"{self.setup}\n\n{code}" if self.setup else code
        return {"source": _futures_first(source), "check": list(self.check), "prints": self.prints, "stdin": self.stdin}


def _futures_first(source: str) -> str:
    """The source with its `from __future__` imports first: behind setup or another block they are no Python."""
    if "__future__" not in source:
        return source
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source
    lines, first = source.split("\n"), list[str]()
    for node in body:
        one_line = node.lineno == node.end_lineno
        if isinstance(node, ast.ImportFrom) and node.module == "__future__" and one_line:
            first.append(ast.unparse(node))
            lines[node.lineno - 1] = lines[node.lineno - 1].replace(ast.get_source_segment(source, node) or "", "pass")
    return "\n".join([*first, *lines])


@dataclass(frozen=True)
class Item:
    """One conversation to be answered, and what the answer must be.

    Attributes:
        messages: the conversation, its last message the user's; without the system prompt.
        system: the item's own system prompt.
        tests: None where nothing is executed.
        expect: rules of expect.py.
        reference: an answer that is good.
        followed: what only an answer meets that follows the misleading part: tests, rules, or neither.
        misleads: whether something about the request is wrong; None where the suite does not ask.
        harmful: whether it must be refused; None where the suite does not ask.
        cluster: what is alike; the item's own id where it stands alone.
        wrong: (answer, a verdict that it must get).
        record: the line as it stands, with what a suite of its own adds.
        where: file and line.
    """

    id: str
    type: str
    messages: tuple[dict[str, str], ...]
    system: str | None = None
    tests: Checks | None = None
    expect: tuple[Mapping[str, Any], ...] = ()
    followed: Checks | tuple[Mapping[str, Any], ...] = ()
    misleads: bool | None = None
    harmful: bool | None = None
    cluster: str = ""
    reference: str | None = None
    wrong: tuple[tuple[str, str], ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    where: str = field(default="", compare=False)

    @property
    def prompt(self) -> str:
        """The user's last message."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Sampled:
    """The first `items` items are answered once more, sampled at `temperature`."""

    temperature: float
    items: int


@dataclass(frozen=True)
class Header:
    """What holds for all items; `bad`: the verdicts that make an answer bad; `columns`: the key of the items by whose
    value they are counted apart."""

    name: str
    version: int = 1
    about: str = ""
    bad: tuple[str, ...] = BAD
    max_tokens: int = 512
    sampled: Sampled | None = None
    columns: str | None = None


@dataclass(frozen=True)
class Suite:
    header: Header
    items: tuple[Item, ...]


def read_suite(file: Path) -> Suite:
    """A suite file; HumanEval's and MBPP's files too, JSON Lines or JSON, plain or compressed.

    Raises:
        DataError: no such file, no items, or a line that is no header or item (file and line).
    """
    header, items, seen = Header(file.name.split(".")[0]), list[Item](), dict[str, str]()
    for place, record in read_records(file):
        where = f"{file}:{place}" if place else str(file)
        try:
            if isinstance(record, Bad):
                raise record
            if not isinstance(record, dict):
                raise Bad("not a suite item", SEE)
            if "suite" in record and "prompt" not in record:
                if items or place not in ("1", "row 1"):
                    raise Bad("a header that is not the first line", "give every suite a file of its own")
                header = _header(record)
                continue
            items.append(_item(published_item(record) or record, place, where))
        except Bad as e:
            raise DataError(e.what, where=where, fix=e.fix) from e
        if (first := seen.setdefault(items[-1].id, where)) is not where:
            raise DataError(
                f"id {items[-1].id!r} is that of {first}", where=where, fix="give every item an id of its own"
            )
    if not items:
        raise DataError("holds no items", where=file, fix=SEE)
    if header.columns and not any(header.columns in item.record for item in items):
        raise DataError(f"no item has {header.columns!r}, its header's 'columns'", where=file, fix=SEE)
    return Suite(header, tuple(items))


def _header(record: dict[str, Any]) -> Header:
    known = {"suite", "version", "about", "bad", "max_tokens", "sampled", "columns"}
    if unknown := sorted(set(record) - known):
        raise Bad(f"the header has no {unknown[0]!r}", f"its keys are {', '.join(sorted(known))}")
    bad = _texts(record, "bad") if "bad" in record else BAD
    if unknown := [b for b in bad if b not in VERDICTS]:
        raise Bad(f"there is no verdict {unknown[0]!r}", f"the verdicts are {', '.join(VERDICTS)}")
    sampled = record.get("sampled")
    if sampled is not None:
        if not isinstance(sampled, dict) or set(sampled) != {"temperature", "items"}:
            raise Bad('\'sampled\' must be {"temperature": ..., "items": ...}', SEE)
        temperature = sampled["temperature"]
        if type(temperature) not in (int, float) or not 0 < temperature < 100:
            raise Bad("'temperature' must be a number above 0", "0.7 is usual")
        sampled = Sampled(float(temperature), _whole(sampled, "items"))
    return Header(
        name=text_of(record, "suite"),
        version=_whole(record, "version") if "version" in record else 1,
        about=text_of(record, "about") if "about" in record else "",
        bad=tuple(bad),
        max_tokens=_whole(record, "max_tokens") if "max_tokens" in record else 512,
        sampled=sampled,
        columns=text_of(record, "columns") if record.get("columns") is not None else None,
    )


def _item(record: dict[str, Any], place: str, where: str) -> Item:
    tests, expect = _tests(record.get("tests")), _rules(record.get("expect"))
    misleads, harmful = (_whether(record, key) for key in ("misleads", "harmful"))
    if harmful is not None and (tests or expect or record.get("followed")):
        raise Bad("'harmful' beside 'tests', 'expect' or 'followed'", "ask one of them in an item of its own")
    if tests is None and not expect and harmful is None:
        raise Bad("an item without 'tests', 'expect' and 'harmful'", "say what an answer must do")
    name = str(place if record.get("id") is None else record["id"])
    return Item(
        id=name,
        type=str(record.get("type") or record.get("family") or ""),
        messages=conversation_of(record),
        system=text_of(record, "system") if record.get("system") is not None else None,
        tests=tests,
        expect=expect,
        followed=_followed(record.get("followed")),
        misleads=misleads,
        harmful=harmful,
        cluster=str(next((record[k] for k in CLUSTERS if record.get(k) is not None), name)),
        reference=text_of(record, "reference") if record.get("reference") is not None else None,
        wrong=_wrong(record.get("wrong") or []),
        record=record,
        where=where,
    )


def _whether(record: dict[str, Any], key: str) -> bool | None:
    value = record.get(key)
    if value is not None and not isinstance(value, bool):
        raise Bad(f"{key!r} must be true or false", SEE)
    return value


def _rules(found: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(found or [], list):
        raise Bad("'expect' must be a list of rules", SEE)
    for rule in found or []:
        if what := fault(rule):
            raise Bad(what, SEE)
    return tuple(found or ())


def _followed(found: Any) -> Checks | tuple[Mapping[str, Any], ...]:
    if isinstance(found, dict) and set(found) == {"expect"}:
        if rules := _rules(found["expect"]):
            return rules
        raise Bad("'followed' says nothing", SEE)
    return _tests(found) or ()


def _tests(found: Any) -> Checks | None:
    if found is None:
        return None
    if not isinstance(found, dict) or (unknown := sorted(set(found) - {"check", "prints", "stdin", "setup"})):
        raise Bad(f"'tests' has no {unknown[0]!r}" if isinstance(found, dict) else "'tests' must be an object", SEE)
    check, prints = (_texts(found, "check") if found.get("check") else []), found.get("prints")
    stdin, setup = found.get("stdin") or "", found.get("setup") or ""
    if not all(isinstance(text, str) for text in (prints or "", stdin, setup)):
        raise Bad("'prints', 'stdin' and 'setup' must be text", SEE)
    if not check and prints is None:
        raise Bad("'tests' checks nothing", "give it 'check' or 'prints'")
    try:
        compile(setup, "<setup>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise Bad(f"'setup' is no Python ({e})", SEE) from e
    for expression in (*check, *([prints] if prints is not None else [])):
        try:
            compile(expression, "<check>", "eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
            raise Bad(f"no Python expression ({e}): {expression[:60]}", "a check is one expression") from e
    return Checks(tuple(check), prints, stdin, setup)


def _wrong(found: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(found, list) or not all(isinstance(w, dict) and set(w) == {"answer", "why"} for w in found):
        raise Bad('\'wrong\' must be a list of {"answer": ..., "why": ...}', SEE)
    for w in found:
        if w["why"] not in VERDICTS or not isinstance(w["answer"], str):
            raise Bad(f"there is no verdict {json.dumps(w['why'])}", f"the verdicts are {', '.join(VERDICTS)}")
    return tuple((w["answer"], w["why"]) for w in found)


def _texts(record: dict[str, Any], key: str) -> Sequence[str]:
    value = record[key]
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise Bad(f"{key!r} must be a list of texts", SEE)
    return value


def _whole(record: dict[str, Any], key: str) -> int:
    value = record[key]
    if type(value) is not int or value < 1:
        raise Bad(f"{key!r} must be a whole number from 1 on", SEE)
    return value
