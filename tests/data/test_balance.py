"""Balance, drift, licences and the counter of frequent texts."""

from __future__ import annotations

import json
import pickle
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from mlx_gemma.data.balance import licences
from mlx_gemma.data.balance.counts import Balance
from mlx_gemma.data.balance.drift import drift, length_drift
from mlx_gemma.data.balance.frequent import TEXTS, Frequent
from mlx_gemma.data.formats import Row

CODE = "```python\ndef total(numbers):\n    return sum(numbers)\n```"


def row(n: int = 1, prompt: str = "", answer: str = CODE, system: str = "", **extra: Any) -> Row:
    said = [("user", prompt or f"Number {n} is what the function f{n}(x) returns, please."), ("assistant", answer)]
    turns = [("system", system)] * bool(system) + said
    return Row([{"role": role, "content": text} for role, text in turns], f"rows.jsonl:{n}", extra)


def balance(rows: list[Row]) -> Balance:
    counted = Balance()
    for r in rows:
        counted.add(r)
    return counted


def names(counted: Balance) -> set[str]:
    return {r.name for r in counted.findings()}


def test_tables() -> None:
    rows = [row(i, topic="a" if i % 4 else "b", source="web", license="mit") for i in range(1, 9)]
    result = balance([*rows, row(9, system="Be kind.", answer="Paris.", category=["c", "d"])]).result()
    assert result["rows"] == 9
    assert [(t["name"], t["rows"]) for t in result["tasks"]["most"]] == [("a", 6), ("b", 2), ("c", 1)]
    assert result["licences"] == {"distinct": 1, "missing": 1, "most": [{"name": "MIT", "rows": 8, "share": 0.8889}]}
    assert result["sources"]["missing"] == 1
    assert result["system_prompts"] == {
        "distinct": 1,
        "missing": 8,
        "most": [{"name": "Be kind.", "rows": 1, "share": 0.1111}],
    }
    assert result["code"] == {"python": 8, "none": 1}
    assert result["turns"] == {"1": 9}
    assert result["languages"] == {"en": 9}
    assert result["characters"]["answers"]["p100"] == len(CODE)
    assert json.loads(json.dumps(result)) == result


def test_merged_is_the_same() -> None:
    """However the rows are divided, also after a journey to another process."""
    rows = [row(i, topic=f"t{i % 7}", license=("mit", "cc-by-nc-4.0", "")[i % 3]) for i in range(60)]
    rows[30] = row(30, answer="I'm sorry, but I can't help with that.")
    whole, merged = balance(rows), Balance()
    for start in range(0, 60, 17):
        merged.merge(pickle.loads(pickle.dumps(balance(rows[start : start + 17]))))
    assert merged.result() == whole.result()
    assert list(merged.findings()) == list(whole.findings())
    assert (merged.lengths("answers") == whole.lengths("answers")).all()


def test_an_empty_set_has_no_findings() -> None:
    assert list(Balance().findings()) == []
    assert Balance().result()["rows"] == 0


def test_odd_values_are_no_trouble() -> None:
    odd: list[Any] = [None, [], {}, 0.5, " ", ["x"], [None], 3, True, "\0", "\ud7ff" * 500]
    assert balance([row(n, topic=v, license=v, source=v) for n, v in enumerate(odd)]).result()["rows"] == len(odd)


def test_no_pushback_is_a_finding() -> None:
    complies = [row(i, license="mit") for i in range(60)]
    assert names(balance(complies)) == {"no pushback"} | {"templated answers"}
    objects = "One correction first: print is a function in Python 3.\n" + CODE
    assert "no pushback" not in names(balance([*complies, row(61, answer=objects)]))
    assert "no pushback" not in names(balance(complies[:20]))


def test_answers_in_other_languages_are_not_judged() -> None:
    prompt = "Schreibe bitte eine Funktion, die alle Zahlen einer Liste zusammenzählt und das Ergebnis zurückgibt."
    counted = balance([row(i, prompt, license="mit") for i in range(60)])
    assert counted.result()["stances"]["judged"] == 0
    assert "no pushback" not in names(counted)


def test_many_refusals() -> None:
    refuses = [row(i, answer="I'm sorry, but I can't help with that." if i % 5 else CODE) for i in range(60)]
    found = [r for r in balance(refuses).findings() if r.name == "many refusals"]
    assert found[0].message == "48 of 60 rows (80.0%) refuse, as rows.jsonl:1, rows.jsonl:2, rows.jsonl:3"


def test_templates() -> None:
    same = [row(i, f"Write a function that returns {i}.", f"Answer {i} is {i * i} and {i}.") for i in range(60)]
    assert "templated prompts" in names(balance(same))
    assert "templated answers" not in names(balance(same))
    assert "templated prompts" not in names(balance([row(i) for i in range(60)]))


def test_licences_are_findings() -> None:
    given = ["mit", "", "cc-by-nc-4.0", "cc-by-sa-4.0", "my own", "llama3", "cc-by-nd-4.0"]
    found = {r.name: r.message for r in balance([row(i, license=name) for i, name in enumerate(given)]).findings()}
    assert found["no licence"] == "1 of 7 rows (14.3%) name no licence, as rows.jsonl:1"
    assert found["non-commercial licence"].endswith("forbids commercial use (CC-BY-NC-4.0), as rows.jsonl:2")
    kinds = {"share-alike", "unknown", "own terms", "no-derivatives"}
    assert {f"{kind} licence" for kind in kinds} | {"licence conflict"} <= set(found)


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("Apache License, Version 2.0", "Apache-2.0", "permissive"),
        ("apache-2.0", "Apache-2.0", "permissive"),
        ("The MIT License", "MIT", "permissive"),
        ("BSD", "BSD-3-Clause", "permissive"),
        ("Creative Commons Attribution 4.0 International", "CC-BY-4.0", "permissive"),
        ("CC BY-SA 3.0", "CC-BY-SA-3.0", "share-alike"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 3.0 Unported", "CC-BY-NC-SA-3.0", "non-commercial"),
        ("CC-BY-ND-4.0", "CC-BY-ND-4.0", "no-derivatives"),
        ("GPLv3", "GPL-3.0-only", "share-alike"),
        ("GNU General Public License v2.0 or later", "GPL-2.0-or-later", "share-alike"),
        ("MIT OR GPL-3.0-only", "MIT OR GPL-3.0-only", "permissive"),
        ("MIT AND CC-BY-NC-4.0", "MIT AND CC-BY-NC-4.0", "non-commercial"),
        ("llama3.1", "llama3.1", "own terms"),
        ("ask me", "ask me", "unknown"),
    ],
)
def test_licence_names(text: str, name: str, kind: str) -> None:
    assert licences.spdx(text) == name
    assert licences.kind(name) == kind


def test_no_licence_named() -> None:
    assert [licences.spdx(t) for t in ("", "unknown", "N/A", "other", "None")] == [None] * 5


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("Apache-2.0", "GPL-2.0-only", True),
        ("Apache-2.0", "GPL-3.0-only", False),
        ("CC-BY-SA-4.0", "GPL-3.0-only", False),
        ("CC-BY-SA-3.0", "GPL-3.0-only", True),
        ("CC-BY-SA-4.0", "CC-BY-NC-SA-4.0", True),
        ("CC-BY-SA-3.0", "CC-BY-SA-4.0", False),
        ("CC-BY-NC-4.0", "CC-BY-SA-4.0", True),
        ("GPL-2.0-only", "GPL-3.0-only", True),
        ("GPL-2.0-or-later", "GPL-3.0-only", False),
        ("MIT", "CC-BY-NC-SA-4.0", False),
    ],
)
def test_conflicts(one: str, other: str, conflict: bool) -> None:
    assert bool(list(licences.conflicts([one, other, one]))) is conflict


def test_frequent_texts_of_many() -> None:
    """Exact counts of every text above 1 in TEXTS, in memory that the rest hardly uses; however it was divided."""
    rng = random.Random(0)
    texts = [f"often {i % 50}" for i in range(20_000)] + [f"once {i}" for i in range(60_000)]
    rng.shuffle(texts)
    whole, merged = Frequent(), Frequent()
    for text in texts:
        whole.add(text)
    for start in range(0, len(texts), 30_000):
        part = Frequent()
        for text in texts[start : start + 30_000]:
            part.add(text)
        merged.merge(pickle.loads(pickle.dumps(part)))
    for counted in (whole, merged):
        assert counted.distinct() == 60_050
        assert counted.most() == sorted(((f"often {i}", 400) for i in range(50)), key=lambda e: e[0])
    assert whole.nbytes() < 60_050 * 12 + (TEXTS + 4 * TEXTS) * 140


def test_frequent_texts_of_few_are_all_known() -> None:
    counted, want = Frequent(), Counter("abracadabra" * 9)
    for text in "abracadabra" * 9:
        counted.add(text)
    assert counted.most() == sorted(want.items(), key=lambda e: (-e[1], e[0]))
    counted.add("x" * 300 + "1")
    counted.add("x" * 300 + "2")
    assert counted.distinct() == 7


def test_drift() -> None:
    rng = np.random.default_rng(0)
    one, other, longer = rng.poisson(100, 4000), rng.poisson(100, 400), rng.poisson(120, 400)
    same, differs = drift(one, other), drift(one, longer)
    assert not same.large
    assert abs(same.longer - 0.5) < 0.05
    assert differs.large
    assert differs.longer < 0.1
    assert drift(longer, one).longer == pytest.approx(1 - differs.longer)
    # Of 20 lengths and one, which all are less, one order in 21 is as extreme at that end: no finding.
    few = drift(np.arange(20) + 5, np.array([3]))
    assert (few.distance, few.large) == (1, False)
    assert few.p == pytest.approx(2 / 21)
    # a million rows make a difference of a hundredth significant, and still not worth a word
    tiny = drift(np.arange(10**6), np.arange(10**6) + 20_000)
    assert tiny.p < 1e-9
    assert not tiny.large


def test_drift_between_splits() -> None:
    train = balance([row(i, answer="x" * (i % 40)) for i in range(1, 200)])
    valid = balance([row(i, answer="x" * (i % 40 + 30)) for i in range(1, 200)])
    (found,) = length_drift({"train": train, "valid": valid, "none": Balance()})
    assert found.name == "answers drift"
    assert found.message.startswith("answers of train and valid differ in length: medians of 20 and 50 characters")
