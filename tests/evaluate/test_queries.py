"""The suite of Python requests proves itself: references pass, wrong answers fail for their reason, mutants fail.

Answers are run through data/solutions.py, each in a process of its own with half a CPU second, forked from one that
has the module already (some 5 ms each).
"""

from __future__ import annotations

import ast
import copy
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlx_gemma.data import solutions
from mlx_gemma.data.checks.contamination import EvalPrompts
from mlx_gemma.data.formats import Row, read_rows
from mlx_gemma.data.python.code_blocks import code_blocks
from mlx_gemma.data.python.source import classify
from mlx_gemma.evaluate.expect import unmet
from mlx_gemma.evaluate.suite import Checks, Item, read_suite

ROOT = Path(__file__).parents[2]
SUITE = read_suite(ROOT / "evals" / "python3.jsonl")
KINDS = {"python2": "python2", "broken": "syntax", "truncated": "truncated"}

# One process that forks for every job, as starting an interpreter costs 50 ms.
DRIVER = """
import json, os, resource, runpy, signal, sys
run_checks = runpy.run_path(sys.argv[1])["run_checks"]
for job in json.load(sys.stdin):
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
        resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        signal.setitimer(signal.ITIMER_PROF, 0.5)
        sys.stdin = open(os.devnull)
        try:
            run_checks(**job)
            result = ""
        except BaseException as e:
            result = str(e) or type(e).__name__
        os.write(write, json.dumps(result[:300]).encode())
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    print(told or '"timeout"')
"""


def run(jobs: Sequence[tuple[Checks, str]], scratch: Path) -> list[str]:
    """Why each source fails its tests; "" where it passes."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", DRIVER, solutions.__file__],
        input=json.dumps([tests.job(source) for tests, source in jobs]),
        capture_output=True,
        text=True,
        cwd=scratch,
        env={},
        timeout=240,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def code_of(answer: str) -> str:
    return "\n\n".join(block.source for block in code_blocks(answer))


def verdicts(answers: Sequence[tuple[Item, str]], scratch: Path) -> list[set[str]]:
    """The verdicts on answers; an empty set is a good answer."""
    ran = iter(run([(item.tests, code_of(a)) for item, a in answers if item.tests and code_of(a)], scratch))
    found = []
    for item, answer in answers:
        kind = classify(answer).kind
        held = {KINDS[kind]} if kind in KINDS else set()
        if item.tests and not code_of(answer):
            held.add("no code")
        elif item.tests and (why := next(ran)):
            wrong = why.startswith(("not true:", "printed ", "AssertionError"))
            held.add("timeout" if why == "timeout" else "wrong" if wrong else "raises")
        if unmet(answer, item.expect):
            held.add("wrong")
        found.append(held)
    return found


def test_the_suite_is_23_types_of_3() -> None:
    assert SUITE.header.name == "python3"
    assert Counter(Counter(item.type for item in SUITE.items).values()) == {3: 23}
    assert len({item.prompt for item in SUITE.items}) == 69
    assert SUITE.header.sampled is not None
    assert SUITE.header.sampled.items + len(SUITE.items) == 134
    for item in SUITE.items:
        assert len(item.wrong) >= 2, item.id
        assert any(why == "python2" for _, why in item.wrong) or item.id.startswith("out-of"), item.id
        assert any(why != "python2" for _, why in item.wrong), item.id


def test_every_reference_is_good(tmp_path: Path) -> None:
    found = verdicts([(item, item.reference or "") for item in SUITE.items], tmp_path)
    assert {item.id: held for item, held in zip(SUITE.items, found, strict=True) if held} == {}


def test_every_wrong_answer_is_bad_for_its_reason(tmp_path: Path) -> None:
    wrong = [(item, answer, why) for item in SUITE.items for answer, why in item.wrong]
    assert len(wrong) > 140
    found = verdicts([(item, answer) for item, answer, _ in wrong], tmp_path)
    assert [
        (item.id, why, held, answer) for (item, answer, why), held in zip(wrong, found, strict=True) if why not in held
    ] == []


def test_no_training_row_gives_an_item_away() -> None:
    prompts = [(item.id, item.prompt) for item in SUITE.items]
    check = EvalPrompts(prompts, [(item.id, item.reference or "") for item in SUITE.items])
    files = [f for f in sorted((ROOT / "datasets").glob("*/*.jsonl")) if "labels" not in f.name]
    rows = [row for file in files for row in read_rows(file) if isinstance(row, Row)]
    assert len(rows) > 5000
    found = [(row.where, how) for row in rows if (how := check.find(row))]
    assert found == []


# Mutants of the references

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.FloorDiv,
    ast.FloorDiv: ast.Div,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(what was done, the new source): an operator swapped, a constant one more or less, a returned None, a statement
    less."""
    tree = ast.parse(source)
    for place, node in enumerate(ast.walk(tree)):
        for what, change in edits(node):
            other = copy.deepcopy(tree)
            change_at(other, place, change)
            mutant = ast.unparse(ast.fix_missing_locations(other))
            if mutant != ast.unparse(tree):
                yield f"line {getattr(node, 'lineno', 0)}: {what}", mutant


def edits(node: ast.AST) -> Iterator[tuple[str, tuple[str, int, object]]]:
    """(what, (field, index or -1, new value)) of every change to a node."""
    for name in ("op", "ops"):
        held = getattr(node, name, None)
        for i, operator in enumerate(held if isinstance(held, list) else [held]):
            if type(operator) in SWAPS:
                swap = SWAPS[type(operator)]
                yield f"{type(operator).__name__} to {swap.__name__}", (name, i if name == "ops" else -1, swap())
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for by in (1, -1):
            yield f"{node.value} to {node.value + by}", ("value", -1, node.value + by)
    if isinstance(node, ast.Return) and node.value is not None:
        yield "return None", ("value", -1, ast.Constant(None))
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if isinstance(body, list) and not isinstance(node, ast.Module):
            for i, statement in enumerate(body):
                if not isinstance(statement, ast.Pass) and not is_text(statement):
                    yield f"without {ast.unparse(statement).splitlines()[0]}", (name, i, ast.Pass())


def is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def change_at(tree: ast.AST, place: int, change: tuple[str, int, object]) -> None:
    name, index, value = change
    node = next(n for i, n in enumerate(ast.walk(tree)) if i == place)
    if index < 0:
        setattr(node, name, value)
    else:
        getattr(node, name)[index] = value


# Survivors that do the same as the reference, or differ where the request leaves it open.
EQUIVALENT = {
    "casual-2": {"line 4: Gt to GtE"},
    "class-design-3": {"line 10: without if name not in self._counts:", "line 11: without raise KeyError(name)"},
    "constraints-1": {"line 6: Gt to GtE"},
    "generator-3": {"line 8: without continue"},
    "text-files-3": {"line 4: 1 to 2"},
    "underspecified-3": {"line 3: return None"},
    "version-2": {"line 6: 0 to 1", "line 6: 0 to -1"},
}


def test_mutants_of_the_references_fail(tmp_path: Path) -> None:
    tried = [
        (item, what, f"```python\n{mutant}\n```")
        for item in SUITE.items
        if item.tests
        for what, mutant in mutants(code_of(item.reference or ""))
    ]
    assert len(tried) > 500
    found = verdicts([(item, answer) for item, _, answer in tried], tmp_path)
    survivors = {(item.id, what) for (item, what, _), held in zip(tried, found, strict=True) if not held}
    equivalent = {(id, what) for id, several in EQUIVALENT.items() for what in several}
    other = sorted(survivors - equivalent)
    assert other == []
    assert not equivalent - survivors
