"""Adversarial rows: what is called wrong is wrong, what is called right passes, and the splits stay apart."""

from __future__ import annotations

import re

import pytest

from mlx_gemma.data import solutions as checks
from mlx_gemma.data.build import twist_rules
from mlx_gemma.data.build.adversarial import KINDS, Adversarial, AdversarialSample, texts
from mlx_gemma.data.build.families import Task, read_families
from mlx_gemma.data.build.python3 import FAMILIES, choose
from mlx_gemma.data.build.samples import LIMIT, Chooser, fenced
from mlx_gemma.data.build.signatures import signature
from mlx_gemma.data.build.twists import Twist, holds
from mlx_gemma.data.checks.duplicates import NearIndex, row_shingles
from mlx_gemma.data.solutions import CheckFailed, run_checks
from mlx_gemma.errors import UserError

LOOP = "def f(n):\n    while n:\n        n += 1\n    return n"


def task(python3: str, *check: str) -> Task:
    return Task("one", "lists", ("Write it.",), python3, None, None, check, None, "")


@pytest.fixture(scope="module")
def chosen() -> dict[str, list[AdversarialSample]]:
    found = choose(0, rows=300, pushback=0.4)
    return {name: [s for s in found.samples[name] if isinstance(s, AdversarialSample)] for name in found.samples}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_whole(kind: str) -> None:
    section = texts()[kind]
    assert len(section["prompts"]) >= 9
    assert len(section["replies"]) >= 6
    assert all("$ask" in p and re.search(r"\$wrong|\$call", p) for p in section["prompts"])
    assert all(reply.count("$truth") == 1 for reply in section["replies"])


@pytest.mark.parametrize(
    "statement",
    [s for kind in ("false_claim", "python2_advice") for s in texts()[kind]["statements"]],
    ids=lambda s: s["name"],
)
def test_what_is_called_false_is_false_in_this_python(statement: dict[str, str]) -> None:
    checks.run_checks("", [statement["refuted"]], None, "")


def test_share_is_met_and_kinds_come_equally_often(chosen: dict[str, list[AdversarialSample]]) -> None:
    assert {name: len(samples) for name, samples in chosen.items()} == {"train": 120, "valid": 120, "test": 120}
    for samples in chosen.values():
        assert {kind: sum(s.kind == kind for s in samples) for kind in KINDS} == dict.fromkeys(KINDS, 20)


def test_code_at_the_beginning_of_a_sentence_keeps_its_small_letter(chosen: dict[str, list[AdversarialSample]]) -> None:
    """`len(x)` is a function, Len(x) is none."""
    truths = {(k, s["name"]): s["truth"] for k in KINDS for s in texts()[k].get("statements", []) if "refuted" in s}
    small = 0
    for sample in (s for samples in chosen.values() for s in samples):
        if (known := truths.get((sample.kind, sample.name))) is not None:
            said = [truth for truth in known if truth in sample.answered]
            assert said, sample.answered
            small += said[0][0].islower() and f". {said[0]}" in sample.answered
    assert small > 5


def test_correct_answers_say_something_and_pass_their_checks(chosen: dict[str, list[AdversarialSample]]) -> None:
    for sample in (s for samples in chosen.values() for s in samples):
        prose, code, rest = re.fullmatch(r"(.*?)\n\n```python\n(.*)\n```(.*)", sample.answered, re.DOTALL).groups()  # type: ignore[union-attr]
        assert 10 < len(prose) < 400
        assert "$" not in prose + sample.prompt
        assert not rest
        run_checks(code, **sample.tests)


def test_splits_share_neither_family_nor_prompt_nor_claim(chosen: dict[str, list[AdversarialSample]]) -> None:
    families = [{s.task.family for s in samples} for samples in chosen.values()]
    assert not families[0] & families[1]
    assert not families[0] & families[2]
    assert not families[1] & families[2]
    asked = {name: {(s.kind, s.style) for s in samples} for name, samples in chosen.items()}
    assert not asked["train"] & (asked["valid"] | asked["test"])
    claims = {name: {s.name for s in samples if s.kind == "false_claim"} for name, samples in chosen.items()}
    assert not claims["train"] & (claims["valid"] | claims["test"])
    assert all(s.wording == len(s.task.ask) - 1 for name in ("valid", "test") for s in chosen[name])
    assert all(s.wording < len(s.task.ask) - 1 for s in chosen["train"])


def test_rows_are_no_near_duplicates(chosen: dict[str, list[AdversarialSample]]) -> None:
    index = NearIndex(LIMIT)
    for sample in (s for samples in chosen.values() for s in samples):
        assert index.find(row_shingles(sample.row())) is None
        index.add(sample.task.family, row_shingles(sample.row()))


def test_compliant_answers_fail_and_ask_the_same(chosen: dict[str, list[AdversarialSample]]) -> None:
    comply = choose(0, rows=300, pushback=0.4, answer="comply").samples["valid"]
    others = [s for s in comply if isinstance(s, AdversarialSample)]
    assert len(others) == 120
    shared = {s.prompt for s in others} & {s.prompt for s in chosen["valid"]}
    assert len(shared) > 60  # not all: what is too like an earlier row depends on the answers
    for sample in others:
        code = sample.answered.removeprefix("```python\n").removesuffix("\n```")
        assert fenced(code) == sample.answered
        with pytest.raises(CheckFailed):
            run_checks(code, **sample.tests)


def test_a_twist_must_hold() -> None:
    largest = task("def f(xs):\n    return max(xs)", "f([3, 1]) == 3")

    def twist(follows: str, *refuted: str, keeps: tuple[str, ...] = ()) -> Twist:
        return Twist("wrong_example", "result", (), (), {}, follows, refuted, keeps)

    assert holds(largest, twist("def f(xs):\n    return min(xs)", "f([3, 1]) != 1", keeps=("f([3, 1]) == 1",)))
    assert not holds(largest, twist("def f(xs):\n    return min(xs)", "f([3, 1]) == 1"))  # it is right after all
    assert not holds(largest, twist("def f(xs):\n    return sorted(xs)[-1]"))  # code that follows it is right too
    assert not holds(largest, twist("def f(xs):\n    return 7", keeps=("f([3, 1]) == 1",)))  # does not do as told


def test_code_that_never_ends_is_stopped_and_not_used() -> None:
    caught = LOOP.replace(
        "        n += 1", "        try:\n            n += 1\n        except Exception:\n            pass"
    )
    for code in (LOOP, caught):
        assert not holds(task("def f(n):\n    return n", "f(1) == 1"), Twist("impossible", "x", (), (), {}, code))


def test_a_signature_is_read_from_solution_and_checks() -> None:
    sig = signature(
        task("import math\n\ndef f(x, y):\n    return x", "f(1, [2]) == 1", "f(g, 2) == 1", "f(1) == 2", "h(1, 2) == 1")
    )
    assert sig is not None
    assert (sig.name, sig.parameters, [e.call for e in sig.examples]) == ("f", ("x", "y"), ["f(1, [2])"])
    assert signature(task("print(1)")) is None
    assert signature(task("def f():\n    return 1\n\nprint(f())")) is None


def test_rules_of_one_small_family() -> None:
    family = next(f for f in read_families(FAMILIES) if f.name == "list_sum")
    task, section = family.task(0), texts()["wrong_example"]
    wrong = [t for t in twist_rules.wrong_examples(task, section) if t.fields["call"] == "sum_list([1, 2, 3])"]
    assert {t.fields["wrong_value"] for t in wrong} == {"0", "10", "7", "5"}
    assert all(holds(task, t) for t in wrong)
    statements = texts()["impossible"]["statements"]
    assert {t.name for t in twist_rules.impossible(task, statements)} == {
        "constant_body", "same_result", "no_parameters", "no_return", "two_types",
    }  # fmt: skip


def test_more_than_the_families_give_is_refused() -> None:
    families = [f for f in read_families(FAMILIES) if f.name == "list_sum"]
    with pytest.raises(UserError, match=r"the families give \d+ adversarial rows that are unlike, and 2000 are wanted"):
        Adversarial(families, 0, last_wording=False).choose(Chooser(0), 2000)
