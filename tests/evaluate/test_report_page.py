"""The page of an evaluation: its numbers and data as a document, and the page in a real browser, offline, from a file.

An installed Chromium or Chrome, driven by playwright; without either of them, the browser's tests are skipped.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma.errors import UserError
from mlx_gemma.evaluate.perplexity import Perplexity
from mlx_gemma.evaluate.report import report
from mlx_gemma.evaluate.report.answers import UNIT, shown
from mlx_gemma.evaluate.report.tables import MEANINGS
from mlx_gemma.evaluate.results import Row
from mlx_gemma.evaluate.suite import VERDICTS, Checks, Header, Item, Sampled, Suite
from mlx_gemma.evaluate.summary import Side, columns, compared, confidences, counts, types
from mlx_gemma.tracing.render import heat

MACHINE = {"chip": "a test's", "cores": 2}
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    "\"'`&quot;&lt;{{data}}",
    "🎉é\N{COMBINING ACUTE ACCENT}",
    "a\u2028b\u2029c",
    "\N{RIGHT-TO-LEFT OVERRIDE}abc",
    "\ud800 half, \udfff half",
    "\x00\x07\x1b[31m",
    "\\u003c",
]
KINDS = ("plain", "typos", "terse")


def row(number: int, verdicts: tuple[str, ...] = (), **changes: Any) -> Row:
    """An answer of four tokens; each tenth one is of another type and all are of clusters of their own."""
    probabilities = (0.99, 0.9, 0.7, 0.2 + 0.006 * number)
    texts = ("```python\n", f"print({number}", ")", "\n```")
    rivals = [["xrange", math.log(0.05)], [" range", math.log(0.01)]]
    made = Row(
        suite="made",
        id=f"item-{number}",
        type=KINDS[number % 3],
        cluster=str(number),
        column="",
        route="",
        mode="greedy",
        temperature=0.0,
        seed=0,
        system=None,
        prompt=f"Print {number}.",
        text="".join(texts),
        verdicts=verdicts,
        reasons={v: f"because of {v}" for v in verdicts},
        bad=bool(verdicts) and verdicts != ("pushback",),
        finish="stop",
        prompt_tokens=9,
        seconds=0.25,
        logprob=sum(map(math.log, probabilities)) / 4,
        decision=min(probabilities),
        tokens=[[text, round(math.log(p), 4), rivals] for text, p in zip(texts, probabilities, strict=True)],
    )
    return replace(made, **changes)


def rows(bad: set[int], **changes: Any) -> list[Row]:
    """30 greedy answers, 20 of them once more sampled."""
    greedy = [row(n, ("python2", "wrong") if n in bad else (), **changes) for n in range(30)]
    return greedy + [replace(r, mode="sampled", temperature=0.7, seed=n) for n, r in enumerate(greedy[:20])]


def made_suite() -> Suite:
    items = [
        Item(
            id=f"item-{n}",
            type=KINDS[n % 3],
            messages=(
                {"role": "user", "content": "Hello."},
                {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": f"Print {n}."},
            ),
            tests=Checks((f"printed() == {n}",)),
            reference=f"print(int({n}))",
        )
        for n in range(30)
    ]
    return Suite(Header("made", 3, "What a test makes.", sampled=Sampled(0.7, 20)), tuple(items))


def one() -> Side:
    return Side("nano", rows(set(range(20))), {"model": "nano", "adapter": None, "fingerprint": "0123456789abcdef" * 4})


def two() -> list[Side]:
    """Of greedy answers 0 to 14 became good and 25 bad; another's text begins otherwise, from its second token on."""
    after = []
    for r in rows({*range(15, 20), 25}, system="Prefer Python 3."):
        tokens = [r.tokens[0], ["print", -0.1, []], *r.tokens[2:]] if r.id == "item-3" else r.tokens
        late: dict[str, Any] = {"verdicts": ("timeout",), "reasons": {}} if r.id == "item-25" else {}
        after.append(replace(r, tokens=tokens, text="".join(t for t, *_ in tokens), **late))
    settings = {"model": "nano", "adapter": "a"}
    return [one(), Side("nano with a", after, settings, Perplexity((9.0, 8.0), (10, 9)))]


def hostile(more: str = "") -> tuple[Suite, list[Side]]:
    """Everything that comes from outside is each of HOSTILE."""
    every = "".join(HOSTILE) + more
    made = [
        row(
            n,
            ("wrong",),
            type=text,
            column=text,
            system=text,
            prompt=text,
            text=every,
            reasons={"wrong": text},
            tokens=[[h, -0.5, [[h, -1.0], [text, -2.0]]] for h in [*HOSTILE, *([more] if more else [])]],
        )
        for n, text in enumerate(HOSTILE)
    ]
    items = [
        Item(
            f"item-{n}",
            t,
            ({"role": t, "content": t},),
            tests=Checks((t,), t, t, t),
            expect=({"rule": t},),
            reference=t,
        )
        for n, t in enumerate(HOSTILE[:-1])  # one is not in the suite
    ]
    sides = [Side(every, made, {every: every, "adapter": HOSTILE}), Side(every[::-1], made, {every: None})]
    return Suite(Header(every, about=every), tuple(items)), sides


def data_of(document: str) -> Any:
    return json.loads(document.split('type="application/json">')[1].split("</script>")[0])


def text_of(document: str) -> str:
    """What stands in the markup, tags left out."""
    return re.sub(r"<[^>]*>", " ", document.split("<body>")[1].split("<script")[0])


# ---- the document


def test_every_rate_is_that_of_the_rows() -> None:
    side = one()
    document = report(made_suite(), [side], MACHINE)
    said = " ".join(text_of(document).split())
    for column in columns(side.rows):
        assert column.name in said
        for rate in counts(column.rows).values():
            low, high = rate.interval
            assert f"{rate.value:.1%} {rate.count}/{rate.total} {low:.1%} to {high:.1%}" in said
        for cell in types(column.rows):
            note = "descriptive " if cell.descriptive else ""
            assert f"{cell.name} {note}{cell.rate.count}/{cell.rate.total}" in said
    for kind, calibration in confidences(side.rows).items():
        assert kind in said.lower()
        assert str(calibration) in said
    for known in ("made version 3", "What a test makes.", "seconds an answer 0.25", "cores 2", "model nano"):
        assert known in said
    assert said.count("0123456789abcdef") == 4  # only at the end, with everything


def test_two_sides_say_what_the_comparison_says() -> None:
    sides = two()
    said = " ".join(text_of(report(made_suite(), sides, MACHINE)).split())
    found = compared(sides[0].rows, sides[1].rows)
    assert {c.verdict for c in found.values()} == {"better", "cannot tell"}
    for comparison in found.values():
        words = str(comparison).partition("; ")[2].replace("<", "&lt;")
        assert f"{comparison.verdict} {words}" in said
        assert f"{comparison.difference * 100:+.1f} " in said
    assert "smallest difference that would have shown" in said
    assert "15 became good , 1 became bad" in said
    assert f"perplexity, held out nano : none nano with a : {sides[1].perplexity}" in said


def test_the_diagram_shows_the_bins() -> None:
    side = one()
    document = report(made_suite(), [side], MACHINE)
    drawn = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', document)
    bins = [b for of in confidences(side.rows).values() for b in of.equal_width.bins]
    assert [float(x) for x, _ in drawn] == pytest.approx([38 + 274 * b.confidence for b in bins], abs=0.051)
    assert [float(y) for _, y in drawn] == pytest.approx([22 + 220 * (1 - b.correct.value) for b in bins], abs=0.051)
    for b in bins:
        assert f"<td>{b.correct}</td>" in document


def unpacked(data: Any, answer: Any) -> list[list[Any]]:
    """[text, log-probability, rivals] of each token, as page.js reads them."""
    text, at, found = answer["text"].encode("utf-16-le", "surrogatepass"), 0, []
    for packed in filter(None, answer["tokens"].split(";")):
        length, nats, *rest = map(int, packed.split(","))
        rivals = [[data["rivals"][n], -value / UNIT] for n, value in zip(rest[::2], rest[1::2], strict=True)]
        found.append([text[at : at + 2 * length].decode("utf-16-le", "surrogatepass"), -nats / UNIT, rivals])
        at += 2 * length
    assert at == len(text)
    return found


def test_the_data_hold_every_token_and_rival() -> None:
    for suite, sides in ((made_suite(), two()), hostile()):
        data = data_of(report(suite, sides, MACHINE))
        for at, shown_ in enumerate(data["answers"]):
            for side, answer in zip(sides, shown_["sides"], strict=True):
                of = side.rows[at]
                assert (shown_["id"], answer["text"], answer["verdicts"]) == (of.id, of.text, list(of.verdicts))
                for (text, p, rivals), (t, q, others) in zip(unpacked(data, answer), of.tokens, strict=True):
                    assert text == t
                    assert p == pytest.approx(q, abs=1e-9)
                    assert [r for r, _ in rivals] == [r for r, _ in others]
                    assert [v for _, v in rivals] == pytest.approx([v for _, v in others], abs=0.51 / UNIT)


@pytest.mark.parametrize(
    ("texts", "text", "expected"),
    [
        (["a", "�", "�", " x"], "aé x", ["a", "é", "", " x"]),
        (["�", "�", ",", "�", "�", "�"], "é,日", ["é", "", ",", "日", "", ""]),
        (["a", "b"], "ab", ["a", "b"]),
        (["a", "b"], "something else", None),
        (["�", "b"], "something else", None),
        ([], "", []),
    ],
)
def test_tokens_make_up_the_text_or_are_not_shown(texts: list[str], text: str, expected: list[str] | None) -> None:
    assert shown(texts, text) == expected


def test_no_text_gets_out() -> None:
    document = report(*hostile(), MACHINE)
    document.encode("utf8")
    assert document.count("</script>") == 2
    assert "<!--<script>" not in document
    assert "<img" not in document
    assert not {"\u2028", "\u2029", "\x00", "\x1b", "\N{RIGHT-TO-LEFT OVERRIDE}"} & set(document)
    assert not re.search(r"\b(src|href)=|@import|url\(|https?:", report(made_suite(), two(), MACHINE))
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', document)[0]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_what_cannot_be_shown() -> None:
    side = one()
    for sides in ([], [Side("none", [], {})], [side, side, side]):
        with pytest.raises(UserError, match="one model or of two"):
            report(made_suite(), sides, MACHINE)
    with pytest.raises(UserError, match="other items"):
        report(made_suite(), [side, replace(side, rows=side.rows[1:])], MACHINE)
    for broken in (
        replace(side.rows[0], decision=math.nan),
        replace(side.rows[0], logprob=None),  # NaN, written and read
        replace(side.rows[0], tokens=[["a", -math.inf, []]]),
        replace(side.rows[0], tokens=[["a", -0.1, [["b", None]]]]),
    ):
        with pytest.raises(UserError, match=r"item-0: a probability is not a number"):
            report(made_suite(), [replace(side, rows=[broken])], MACHINE)


def test_every_verdict_is_explained() -> None:
    assert set(MEANINGS) == set(VERDICTS)


def test_no_types_where_every_column_has_one() -> None:
    divided = [replace(r, column=r.type) for r in one().rows]
    assert 'id="types"' not in report(made_suite(), [Side("nano", divided, {})], MACHINE)


# ---- in the browser


def texts(view: Any, selector: str) -> list[str]:
    return [" ".join(t.split()) for t in view.locator(selector).all_text_contents()]


def left(view: Any) -> list[str]:
    """ids of the answers shown."""
    return list(view.locator(".answer:not([hidden]) .id bdi").all_text_contents())


def opened(view: Any, number: int) -> Any:
    answer = view.locator(".answer").nth(number)
    answer.locator("> summary").click()
    answer.locator(".code").first.wait_for()
    return answer


def test_an_answer_is_drawn_when_it_is_opened(show: Any) -> None:
    side = one()
    view = show(report(made_suite(), [side], MACHINE))
    assert view.locator(".token").count() == 0
    answer, of = opened(view, 4), side.rows[4]
    assert texts(view, ".answer[open] .turn pre") == ["Hello.", "Yes?", "Print 4."]
    tokens = answer.locator(".token")
    assert tokens.all_text_contents() == [text for text, *_ in of.tokens]
    for i, (_, logprob, _) in enumerate(of.tokens):
        assert f"heat-{heat(math.exp(logprob))}" in (tokens.nth(i).get_attribute("class") or "")
    assert texts(view, ".answer[open] .reasons li") == ["python2: because of python2", "wrong: because of wrong"]
    answer.get_by_text("What it had to do").click()
    assert texts(view, ".answer[open] .must dd") == ["printed() == 4"]
    assert texts(view, ".answer[open] .good pre") == ["print(int(4))"]


def test_tokens_have_the_traces_colours(show: Any) -> None:
    chances = (0.001, 0.49, 0.51, 0.79, 0.81, 0.94, 0.96, 1.0)
    made = row(0, text="a" * len(chances), tokens=[["a", round(math.log(p), 4), []] for p in chances])
    answer = opened(show(report(made_suite(), [Side("nano", [made], {})], MACHINE)), 0)
    for i, p in enumerate(chances):
        assert f"heat-{heat(p)}" in (answer.locator(".token").nth(i).get_attribute("class") or "")


def test_a_token_shows_its_probability_and_rivals(show: Any) -> None:
    view = show(report(made_suite(), [one()], MACHINE))
    answer = opened(view, 4)
    token, card = answer.locator(".token"), view.locator("#card")
    token.nth(2).hover()
    assert texts(view, "#card .name") == [")", "xrange", "·range"]
    assert texts(view, "#card .number") == ["70.0 %", "5.0 %", "1.0 %"]
    assert "came" in texts(view, "#card li")[0]
    view.mouse.move(0, 0)
    assert card.is_hidden()
    # A click keeps it; Escape lets go. What came need not be the most probable.
    view.locator(".answer").nth(0).locator("summary").first.click()
    token = view.locator(".answer").nth(0).locator(".token")
    token.nth(3).click()
    view.mouse.move(0, 0)
    assert texts(view, "#card .name")[0] == "⏎```"
    view.keyboard.press("Escape")
    assert card.is_hidden()
    # Keys: Tab comes to the first token, arrows move, the least certain one is a button away.
    answer.get_by_role("button", name="least certain").click()
    assert view.evaluate("document.activeElement.textContent") == "\n```"
    assert texts(view, "#card .number")[0] == "22.4 %"
    view.keyboard.press("Home")
    assert texts(view, "#card .name")[0] == "```python⏎"
    view.keyboard.press("ArrowRight")
    view.keyboard.press("ArrowRight")
    assert texts(view, "#card .number")[0] == "70.0 %"
    view.keyboard.press("ArrowLeft")
    assert texts(view, "#card .number")[0] == "90.0 %"
    view.keyboard.press("ArrowUp")
    assert texts(view, "#card .number")[0] == "99.0 %"
    assert "rivals: xrange 5.0" in (token.nth(0).get_attribute("aria-label") or "")


def test_a_sampled_answer_says_that_the_probability_is_the_models_own(show: Any) -> None:
    view = show(report(made_suite(), [one()], MACHINE))
    opened(view, 35).locator(".token").first.hover()
    assert texts(view, "#card p") == ["the model's own; drawn at temperature 0.7"]


def test_the_keyboard_alone(show: Any) -> None:
    view = show(report(made_suite(), [one()], MACHINE))
    view.locator("#text").focus()
    view.keyboard.press("Tab")
    view.keyboard.press("Enter")
    view.locator(".answer[open] .code").wait_for()
    view.keyboard.press("Tab")  # what it had to do
    view.keyboard.press("Tab")
    assert texts(view, "#card .name")[0] == "```python⏎"


def test_filters(show: Any) -> None:
    sides = two()
    keys, pairs = [r.id for r in sides[0].rows], list(zip(sides[0].rows, sides[1].rows, strict=True))
    view = show(report(made_suite(), sides, MACHINE))
    count = view.locator("#count")

    def expect(fits: Any) -> None:
        wanted = [key for key, (a, b) in zip(keys, pairs, strict=True) if fits(a, b)]
        assert left(view) == wanted
        assert count.text_content() == f"{len(wanted)} of 50 answers"
        assert 0 < len(wanted) < 50

    view.locator("#change").select_option("better")
    expect(lambda a, b: a.bad and not b.bad)
    view.locator("#change").select_option("worse")
    expect(lambda a, b: b.bad and not a.bad)
    view.locator("#change").select_option("same")
    expect(lambda a, b: a.bad == b.bad)
    view.locator("#change").select_option("all")
    view.locator("#verdict").select_option("0 python2")
    expect(lambda a, b: "python2" in a.verdicts)
    view.locator("#verdict").select_option("1 good")
    expect(lambda a, b: not b.bad)
    view.locator("#type").select_option(label="terse")
    expect(lambda a, b: not b.bad and a.type == "terse")
    view.locator("#column").select_option(label="sampled at 0.7")
    expect(lambda a, b: not b.bad and a.type == "terse" and a.mode == "sampled")
    for name in ("verdict", "type", "column"):
        view.locator(f"#{name}").select_option("all")
    for text, fits in (
        ("PRINT(7", lambda a, b: "print(7" in a.text),
        ("because of python2", lambda a, b: "python2" in a.verdicts + b.verdicts),
        ("item-12", lambda a, b: a.id == "item-12"),
        ("Print 3.", lambda a, b: a.prompt == "Print 3."),
    ):
        view.locator("#text").fill(text)
        expect(fits)
    view.locator("#text").fill("")
    view.locator("#order").select_option("least certain first")
    assert left(view)[:2] == ["item-0", "item-0"]
    view.locator("#order").select_option("most certain first")
    assert left(view)[0] == "item-29"


def test_a_number_leads_to_its_answers(show: Any) -> None:
    side = one()
    view = show(report(made_suite(), [side], MACHINE))
    view.locator("#text").fill("something else")
    cell = view.locator("#verdicts tr", has_text="python2").locator("button").nth(1)
    assert cell.text_content() == "15/20" or cell.text_content() == "20/20"
    cell.click()
    assert left(view) == [r.id for r in side.rows if r.mode == "sampled" and "python2" in r.verdicts]
    assert view.evaluate("document.activeElement.textContent") == "Answers"
    view.locator("#types button", has_text="typos").first.click()
    assert left(view) == [r.id for r in side.rows if r.mode == "greedy" and r.type == "typos"]
    view.locator("#number button").first.click()
    assert left(view) == [r.id for r in side.rows if r.mode == "greedy" and r.bad]


def test_two_answers_beside_one_another(show: Any) -> None:
    view = show(report(made_suite(), two(), MACHINE), viewport={"width": 1200, "height": 800})
    answer = opened(view, 3)
    assert texts(view, ".answer[open] article h4 bdi") == ["nano", "nano with a"]
    assert [c.strip() for c in texts(view, ".answer[open] article h4 .chip")] == ["✗ python2", "✗ wrong", "✓ good"]
    a, b = (answer.locator("article").nth(i).bounding_box() for i in range(2))
    assert a["y"] == b["y"]
    assert a["x"] + a["width"] <= b["x"]
    assert answer.locator(".token.parts").all_text_contents() == ["print(3", ")"]
    assert texts(view, ".answer[open] article .turn pre") == ["(none)", "Prefer Python 3."]
    answer = opened(view, 4)
    assert answer.locator(".token.parts").count() == 0
    assert answer.get_by_text("Both answers have the same text.").count() == 1


def code(text: str) -> str:
    """As the page shows text in which something is hidden."""
    hidden = "[\x00-\x08\x0b-\x1f\u2028-\u202e\ud800-\udfff]"
    return re.sub(hidden, lambda m: f"⟨U+{ord(m[0]):04X}⟩", text)


def test_hostile_texts_are_text(show: Any) -> None:
    suite, sides = hostile()
    view = show(report(suite, sides, MACHINE))
    assert left(view) == [r.id for r in sides[0].rows]
    for n, text in enumerate(HOSTILE):
        answer = opened(view, n)
        assert answer.locator(".turn pre").all_text_contents() == [code(text)] * 2
        assert answer.locator(".code").all_text_contents() == [code("".join(HOSTILE))] * 2
        assert answer.locator(".reasons bdi").all_text_contents() == [code(text)] * 2
        answer.locator(".token").nth(n).hover()
        assert "60.7" in texts(view, "#card .number")[0]
        if "\ud800" not in text and "\x00" not in text:  # which no keyboard has
            view.locator("#text").fill(text)
            assert f"item-{n}" in left(view)
        view.locator("#text").fill("")
    view.locator("#type").select_option(index=3)
    assert len(left(view)) == 1
    assert view.locator("img").count() == 0
    assert view.locator("script").count() == 2


def test_an_answer_whose_tokens_do_not_make_it_up(show: Any) -> None:
    made = [row(0, text="other"), row(1, text="", tokens=[])]
    view = show(report(made_suite(), [Side("nano", made, {})], MACHINE))
    assert "are not shown" in (opened(view, 0).text_content() or "")
    assert texts(view, ".answer[open] .code") == ["other"]
    assert "(empty)" in (opened(view, 1).text_content() or "")


def light(colour: str) -> float:
    """Relative luminance (WCAG 2) of an `rgb(…)`."""
    parts = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast_and_a_second_cue(show: Any, scheme: str) -> None:
    # WCAG's contrast of all text is at least 4.5, computed from what the browser paints.
    view = show(report(made_suite(), two(), MACHINE), color_scheme=scheme)
    opened(view, 3).locator(".token").first.hover()
    paint = """all => all.filter(n => n.localName !== 'title').filter(n =>
          [...n.childNodes].some(c => c.nodeType === 3 && c.data.trim())).map(n => {
        const s = getComputedStyle(n);
        for (var at = n; getComputedStyle(at).backgroundColor === 'rgba(0, 0, 0, 0)' && at.parentElement;)
          at = at.parentElement;
        const ink = n instanceof SVGElement ? s.fill : s.color, paper = getComputedStyle(at).backgroundColor;
        return [ink, paper, n.className, s.textDecorationLine + s.textDecorationStyle] })"""
    found = view.locator("header *, main *, #card *").evaluate_all(paint)
    assert len(found) > 100
    for ink, paper, name, _ in found:
        lights = sorted((light(ink), light(paper)))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, (name, ink, paper)
    cues = {name: cue for _, _, name, cue in found if isinstance(name, str) and "heat-" in name}
    assert len(set(cues.values())) == len({re.findall(r"heat-\w+", name)[0] for name in cues}) == 4
    assert {"✓ better", "? cannot tell"} <= set(texts(view, ".badge"))


def test_phone_width(show: Any) -> None:
    view = show(report(made_suite(), two(), MACHINE), viewport={"width": 360, "height": 640}, has_touch=True)
    wide = "document.documentElement.scrollWidth"
    assert view.evaluate(wide) <= 360
    answer = opened(view, 3)
    assert view.evaluate(wide) <= 360
    a, b = (answer.locator("article").nth(i).bounding_box() for i in range(2))
    assert b["y"] >= a["y"] + a["height"]  # under one another
    token = answer.locator(".token").last
    token.tap()
    assert texts(view, "#card .number")[0] == "21.8 %"
    box, card = token.bounding_box(), view.locator("#card").bounding_box()
    assert box["y"] + box["height"] <= card["y"]
    assert card["y"] + card["height"] == pytest.approx(640, abs=1)
    assert view.evaluate(wide) <= 360


def test_many_long_answers_stay_small_and_open_at_once(show: Any) -> None:
    # 252 answers of 384 tokens: 97,000 tokens, each with two rivals.
    base = row(0)
    tokens = [
        [f" w{i % 97}", -0.0001 * (i * 37 % 20_000), [[f" r{i % 1000}", -1.2345], ["x", -9.8765]]] for i in range(384)
    ]
    long = [
        replace(base, id=f"item-{n}", cluster=str(n), tokens=tokens, text="".join(t for t, *_ in tokens))
        for n in range(252)
    ]
    document = report(made_suite(), [Side("nano", long, {})], MACHINE)
    assert len(document) < 4e6
    view = show(document)
    assert view.locator(".answer").count() == 252
    assert view.locator(".token").count() == 0
    took = "n => { const t = performance.now(); document.querySelectorAll('.answer')[n].open = true; return t }"
    start = view.evaluate(took, 100)
    view.locator(".answer").nth(100).locator(".code").wait_for()
    assert view.evaluate("performance.now()") - start < 3_000  # some 100 ms on an idle machine
    assert view.locator(".token").count() == 384


def test_from_a_models_answers(show: Any, tmp_path: Path) -> None:
    from mlx_gemma.evaluate.run import evaluate
    from mlx_gemma.evaluate.suite import read_suite
    from mlx_gemma.gemma4.load import load

    file = tmp_path / "small.jsonl"
    header = {"suite": "small", "bad": ["wrong"], "max_tokens": 24, "sampled": {"temperature": 0.9, "items": 1}}
    items = [
        {"id": str(n), "prompt": text, "expect": [{"rule": "contains", "any": ["print"]}]}
        for n, text in enumerate(("Print the numbers from 1 to 5, one per line.", "Say 日本 🎉."))
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in (header, *items)), encoding="utf8")
    suite = read_suite(file)
    found = evaluate(load("nano"), suite)
    view = show(report(suite, [Side("nano", found, {})], MACHINE))
    for n, r in enumerate(found):
        answer = opened(view, n)
        assert answer.locator(".code").text_content() == r.text
        assert answer.locator(".token").count() == len(r.tokens)
