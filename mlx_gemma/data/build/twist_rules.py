"""Six ways in which a task can be specified wrongly, each made by rule from a family, its code and its checks.

    false_claim       a false statement about the language: "In Python 3, print is a statement."
    python2_advice    advice that is Python 2's: "use xrange, it is faster"
    wrong_example     a call with a result that the description does not give
    wrong_docstring   a stub whose text describes another family's function
    impossible        a condition that no code can meet, or not together with the description
    wrong_signature   an example and a description that differ in a name, a type or the number of arguments

A rule proposes; `twists.holds` decides. "In one line, without loops, comprehensions or built-in functions" is not among
the conditions: a recursive lambda meets it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mlx_gemma.data.build.families import Task
from mlx_gemma.data.build.signatures import Example, Signature, signature
from mlx_gemma.data.build.twist_code import KINDS_OF_VALUE, at_start, kind_of, literal, near, renamed, with_case
from mlx_gemma.data.build.twists import Twist

COUNTS = ("no argument", "one argument", "two arguments", "three arguments", "four arguments", "five arguments")
LONGEST, SHORT = 60, 5  # characters: of a value in a sentence, of an output that is too short to be one

Statement = Mapping[str, Any]


@dataclass(frozen=True)
class Described:
    """Another task, with the sentence that says what its function returns."""

    task: Task
    signature: Signature
    sentence: str


def false_claims(task: Task, statements: Sequence[Statement]) -> Iterator[Twist]:
    for s in statements:
        if re.search(s["about"], task.python3):
            code = task.python3
            for pattern, replacement in s["replace"]:
                code = re.sub(pattern, replacement, code)
            if code != task.python3:
                yield Twist("false_claim", s["name"], s["say"], s["truth"], {}, code, (s["refuted"],))


def python2_advice(task: Task, statements: Sequence[Statement]) -> Iterator[Twist]:
    """One piece of advice, or two, about what the family's Python 2 program has."""
    if task.python2 is None:
        return
    found = [s for s in statements if re.search(s["about"], task.python2)]
    for s in found:
        yield Twist("python2_advice", s["name"], s["say"], s["truth"], {}, task.python2, (s["refuted"],))
    for one, other in pairwise(found):
        yield Twist(
            "python2_advice",
            f"{one['name']}+{other['name']}",
            [f"{a} and {b}" for a in one["say"] for b in other["say"]],
            [f"{a} {b}" for a in one["truth"] for b in other["truth"]],
            {},
            task.python2,
            (one["refuted"], other["refuted"]),
        )


def wrong_examples(task: Task, section: Statement) -> Iterator[Twist]:
    """A true example with another result: another example's, or one near it."""
    sig = signature(task)
    if sig is None:
        return
    for example in sig.examples:
        others = [e.value for e in sig.examples if type(e.value) is type(example.value)]
        plausible = (v for v in near(example.value, others) if v != example.value)
        for wrong in dict.fromkeys(literal(v, example.result) for v in plausible):
            if len(wrong) > LONGEST:
                continue
            fields = _fields(example) | {"wrong_value": wrong}
            claim = f"{example.call} == {wrong}"
            code = with_case(task.python3, sig, example, wrong)
            if code is not None:
                yield Twist(
                    "wrong_example",
                    "result",
                    section["say"],
                    section["truth"],
                    fields,
                    code,
                    (f"not {claim}",),
                    (claim,),
                )


def wrong_docstrings(task: Task, section: Statement, described: Sequence[Described]) -> Iterator[Twist]:
    """A stub with this task's signature and the text of a function that takes the same kind of argument."""
    sig = signature(task)
    if sig is None or not sig.examples:
        return
    for other in described:
        theirs = other.signature
        alike = len(theirs.parameters) == len(sig.parameters) and all(
            type(a) is type(b) for a, b in zip(theirs.examples[0].values, sig.examples[0].values, strict=True)
        )
        if not alike or other.task.family == task.family:
            continue
        names = dict(zip((theirs.name, *theirs.parameters), (sig.name, *sig.parameters), strict=True))
        fields = {"fn": sig.name, "args": ", ".join(sig.parameters), "other": renamed(other.sentence, names)}
        follows = renamed(other.task.python3, names)
        keeps = tuple(renamed(check, {theirs.name: sig.name}) for check in other.task.check)
        yield Twist(
            "wrong_docstring",
            other.task.family,
            section["docstring"],
            section["truth"],
            fields,
            follows,
            keeps=keeps,
        )


def impossible(task: Task, statements: Sequence[Statement]) -> Iterator[Twist]:
    """Conditions that contradict the examples, or the language itself."""
    by_name = {s["name"]: s for s in statements}

    def twist(name: str, fields: Mapping[str, str], follows: str, *refuted: str) -> Twist:
        return Twist("impossible", name, by_name[name]["say"], by_name[name]["truth"], fields, follows, refuted)

    if task.prints is not None or all(c.startswith("printed(") for c in task.check):
        yield twist("silent", {}, re.sub(r"(?m)^(\s*)print\(.*\)$", r"\1pass", task.python3))
    if task.prints is not None and len(text := str(eval(task.prints, {}))) > SHORT:  # the project's own families only
        fields = {"most": str(SHORT), "long": str(len(text))}
        yield twist("short_output", fields, f"print({text[:SHORT]!r}, end='')", f"len({task.prints}) == {len(text)}")
    sig = signature(task)
    if sig is None:
        return
    head = f"def {sig.name}({', '.join(sig.parameters)}):\n    "
    for one, two in pairwise(sig.examples):
        if one.value != two.value:
            fields = {"fn": sig.name, "call2": two.call, "value2": two.result} | _fields(one)
            for name in ("constant_body", "same_result"):
                yield twist(name, fields, f"{head}return {one.result}", f"{one.call} != {two.call}")
    for example in sig.examples[:2]:
        fields = {"fn": sig.name} | _fields(example)
        if sig.parameters:
            constants = zip(sig.parameters, example.arguments, strict=True)
            lines = "".join(f"{name} = {value}\n" for name, value in constants)
            code = at_start(task.python3, sig.name, lines)
            if code is not None:
                yield twist("no_parameters", fields, re.sub(rf"(?m)^(def {sig.name})\(.*\):$", r"\1():", code))
        if example.value is not None:
            code = re.sub(r"\breturn\b ?(.*)", r"print(\1)", task.python3)
            yield twist("no_return", fields, code, f"{example.call} is not None")
        if type(example.value) in (int, list, str, dict):
            mine = type(example.value).__name__
            for other_name in sorted({"int", "list", "str", "dict"} - {mine}):
                code = re.sub(r"(?m)\breturn (.+)$", rf"return {other_name}(\1)", task.python3)
                refuted = f"raises(TypeError, type, 'Both', ({mine}, {other_name}), {{}})"
                yield twist("two_types", fields | {"type": mine, "other_type": other_name}, code, refuted)


def wrong_signatures(task: Task, statements: Sequence[Statement], names: Sequence[str]) -> Iterator[Twist]:
    """An example that is true but for one detail, or a true one beside a sentence that it contradicts.

    Args:
        names: what else the family's function may be called.
    """
    by_name = {s["name"]: s for s in statements}
    sig = signature(task)

    def twist(name: str, fields: Mapping[str, str], follows: str, *refuted: str) -> Twist:
        return Twist("wrong_signature", name, by_name[name]["say"], by_name[name]["truth"], fields, follows, refuted)

    if sig is None or not sig.parameters:
        return
    for example in sig.examples[:2]:
        fields = {"fn": sig.name, "arg": sig.parameters[0]} | _fields(example)
        for other in names:
            if other != sig.name and all(re.search(rf"\b{sig.name}\b", ask) for ask in task.ask):
                more = {"other": other, "other_call": renamed(example.call, {sig.name: other})}
                code = renamed(task.python3, {sig.name: other})
                yield twist("wrong_name", fields | more, code, f"raises(NameError, lambda: {more['other_call']})")
        kind = kind_of(example.values[0])
        for type_, other in KINDS_OF_VALUE.items():
            if kind is not None and type_ is not float and other not in map(kind_of, example.values):
                test = f"if not isinstance({sig.parameters[0]}, {type_.__name__}):\n    raise TypeError('wrong type')\n"
                refuses = at_start(task.python3, sig.name, test)
                if refuses is not None:
                    wrong = f"not isinstance({example.arguments[0]}, {type_.__name__})"
                    yield twist("wrong_type", fields | {"type": kind, "other_type": other}, refuses, wrong)
        count = len(sig.parameters)
        more = {"count": COUNTS[count], "wrong_count": COUNTS[count + 1].split()[0]}
        code = re.sub(rf"(?m)^(def {sig.name}\(.*)\):$", r"\1, extra):", task.python3)
        yield twist("wrong_count", fields | more, code, f"{example.call} == {example.result}")


def _fields(example: Example) -> dict[str, str]:
    return {"call": example.call, "value": example.result}
