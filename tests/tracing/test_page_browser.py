"""The page of a trace in a real browser, offline and from a file.

An installed Chromium or Chrome, driven by playwright; without either of them, these tests are skipped.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from screenshots import PROMPT
from test_page import HOSTILE, hostile, position

from mlx_gemma.decode.sample import Sampling
from mlx_gemma.gemma4.load import Gemma
from mlx_gemma.tracing.branches import Branch
from mlx_gemma.tracing.page import page
from mlx_gemma.tracing.pieces import pieces
from mlx_gemma.tracing.record import Position, Trace, trace
from mlx_gemma.tracing.render import heat


def texts(view: Any, selector: str) -> list[str]:
    return [t.replace("\xa0", " ") for t in view.locator(selector).all_text_contents()]


def percent(probability: float) -> str:
    """One decimal, or two digits where that is less than 0.1 % (JavaScript's toPrecision)."""
    value = 100 * probability
    mantissa, exponent = f"{value:.1e}".split("e")
    if value >= 0.1:
        return f"{value:.1f} %"
    return f"{value:.{1 - int(exponent)}f} %" if int(exponent) >= -6 else f"{mantissa}e{int(exponent)} %"


def panel_shows(view: Any, p: Position) -> None:
    keys, values = texts(view, "#panel dt"), texts(view, "#panel dd")
    numbers = dict(zip(keys, values, strict=True))
    assert numbers["position"] == str(p.index)
    assert numbers["id"] == str(p.token)
    assert numbers["probability"] == percent(p.probability)
    assert numbers["log, nats"] == f"{p.logprob:.3f}"
    assert numbers["rank from 0"] == str(p.rank)
    assert numbers["entropy, nats"] == f"{p.entropy:.3f}"
    assert numbers["margin"] == percent(p.margin)
    names = [t.replace("·", " ").replace("⏎", "\n") for t in texts(view, "#panel .candidate .name")]
    assert names == [c.text for c in p.candidates]
    for number, c in zip(texts(view, "#panel .candidate .number"), p.candidates, strict=True):
        assert number.startswith(percent(c.probability))
    (came,) = [i for i, t in enumerate(texts(view, "#panel .candidate")) if "came" in t]
    assert p.candidates[came].chosen


def test_hover_shows_the_rivals(show: Any, found: Trace, forks: list[Branch]) -> None:
    view = show(page(found, forks))
    assert "".join(texts(view, "#answer")) == found.text
    panel_shows(view, min(found.positions, key=lambda p: p.logprob))  # what is shown first
    for index in (4, 6, 12, 0):
        view.locator("#answer .token").nth(index).hover()
        panel_shows(view, found.positions[index])
    assert view.locator("#answer .token.heat-red").count() == sum(heat(p.probability) == "red" for p in found.positions)
    # A click keeps a token while the pointer wanders; a second one lets go.
    view.locator("#answer .token").nth(6).click()
    view.locator("#answer .token").nth(4).hover()
    panel_shows(view, found.positions[6])
    view.locator("#answer .token").nth(6).click()
    view.locator("#answer .token").nth(4).hover()
    panel_shows(view, found.positions[4])


def test_a_sampled_token_shows_what_it_was_drawn_with(show: Any, nano: Gemma) -> None:
    hot = trace(nano, PROMPT, sampling=Sampling(2.0, seed=3), max_tokens=8, top=4)
    view = show(page(hot))
    assert "temperature 2, seed 3" in texts(view, "#totals")[0]
    view.locator("#answer .token").nth(4).hover()
    panel_shows(view, hot.positions[4])
    drawn = hot.positions[4].drawn
    assert drawn is not None
    assert texts(view, "#panel dd")[-1] == percent(drawn)


def test_an_alternative_opens_its_continuation(show: Any, found: Trace, forks: list[Branch]) -> None:
    view = show(page(found, forks))
    for branch in forks:
        view.locator("#answer .token").nth(branch.position).click()
        view.locator("#panel button.candidate").filter(
            has=view.get_by_text(branch.alternative.text.replace(" ", "·"), exact=True)
        ).click()
        before = found.text[: sum(len(p.text) for p in found.positions[: branch.position])]
        original, other = texts(view, "#compare pre")
        tail = "\n".join(before.split("\n")[-3:])
        assert other.removeprefix("…\n") == tail + branch.text
        assert original.removeprefix("…\n") == tail + found.text[len(before) :]
        heading = texts(view, "#compare h2")[1]
        assert percent(math.exp(branch.alternative.logprob + branch.logprob)) in heading
    # Only computed continuations can be opened.
    view.locator("#answer .token").nth(6).click()
    assert view.locator("#panel button.candidate").count() == sum(b.position == 6 for b in forks)
    assert view.locator("#panel .candidate").count() == len(found.positions[6].candidates)
    assert view.locator("#answer .token.fork").count() == len({b.position for b in forks})


def test_the_entropy_filter(show: Any, found: Trace, forks: list[Branch]) -> None:
    view = show(page(found, forks))
    slider = view.locator("#entropy")
    assert float(slider.get_attribute("max")) >= max(p.entropy for p in found.positions)
    for least in (0.3, 0.05):
        slider.fill(str(least))
        dim = view.locator("#answer .token").evaluate_all("all => all.map(n => n.classList.contains('dim'))")
        assert dim == [p.entropy < least for p in found.positions]
        assert f"{dim.count(False)} of {len(dim)} tokens" in texts(view, "#above")[0]
        assert 0 < dim.count(False) < len(dim)
    opacity = "n => Number(getComputedStyle(n).opacity)"
    assert view.locator("#answer .token.dim").first.evaluate(opacity) < 0.5
    # The arrow keys then move among what is left.
    view.locator("#answer .token").nth(4).focus()
    view.keyboard.press("ArrowRight")
    following = next(p for p in found.positions[5:] if p.entropy >= 0.05)
    panel_shows(view, following)


@pytest.mark.parametrize("unit", ["word", "line"])
def test_units(show: Any, nano: Gemma, unit: str) -> None:
    found = trace(nano, PROMPT, force="for fahrenheit_degrees in xrange(12345):\n    print fahrenheit_degrees\n")
    view = show(page(found))
    view.get_by_label(unit, exact=True).check()
    joined = pieces(found.positions, unit)
    assert texts(view, "#answer .token") == [p.text for p in joined]
    longest = max(range(len(joined)), key=lambda i: len(joined[i].positions))
    view.locator("#answer .token").nth(longest).hover()
    piece = joined[longest]
    assert len(piece.positions) > 1
    assert (
        f"{len(piece.positions)} tokens: joint probability {percent(piece.probability)}" in texts(view, "#panel h2")[0]
    )
    assert view.locator("#panel .parts button").count() == len(piece.positions)
    panel_shows(view, piece.least)
    view.locator("#panel .parts button").first.click()
    panel_shows(view, piece.positions[0])
    view.get_by_label("token", exact=True).check()
    assert texts(view, "#answer .token") == [p.text for p in found.positions]


def test_the_keyboard_alone(show: Any, found: Trace, forks: list[Branch]) -> None:
    view = show(page(found, forks))
    view.locator("#entropy").focus()
    view.keyboard.press("Tab")  # the prompt, closed
    view.keyboard.press("Tab")
    panel_shows(view, found.positions[0])
    for key, index in (("ArrowRight", 1), ("ArrowDown", 4), ("End", 24), ("Home", 0), ("ArrowLeft", 0)):
        view.keyboard.press(key)
        panel_shows(view, found.positions[index])
    for _ in range(6):
        view.keyboard.press("ArrowRight")
    view.keyboard.press("Enter")  # into the panel
    view.keyboard.press("Enter")  # its first alternative
    assert " xrange(" in texts(view, "#compare pre")[1]
    view.keyboard.press("Escape")
    assert view.evaluate("document.activeElement.textContent") == " range"


def test_the_prompts_tokens(show: Any, found: Trace) -> None:
    view = show(page(found))
    view.locator("#before summary").click()
    assert texts(view, "#prompt .token") == [p.text for p in found.prompt]
    view.locator("#prompt .token").nth(7).hover()
    panel_shows(view, found.prompt[7])
    assert show(page(replace(found, prompt=[]))).locator("#before").is_hidden()


def test_hostile_texts_are_text(show: Any) -> None:
    view = show(page(*hostile()))
    assert texts(view, "#answer .token") == HOSTILE
    assert view.title().startswith(HOSTILE[0])
    assert texts(view, "h1") == [f"{''.join(HOSTILE)} with adapter {''.join(HOSTILE)}"]
    assert texts(view, "#messages p") == [f"{h}: {h}" for h in HOSTILE]
    view.locator("#answer .token").nth(1).click()
    assert "⟨U+202E⟩abc" in texts(view, "#panel .name")
    view.locator("#panel button.candidate").click()
    assert "".join(HOSTILE) in texts(view, "#compare pre")[1]
    assert view.locator("img").count() == 0
    assert view.locator("script").count() == 2


def test_the_policy_holds_in_the_browser(chromium: Any, show: Any, tmp_path: Path) -> None:
    file = tmp_path / "trace.html"
    file.write_text(page(*hostile()), encoding="utf8")
    view = chromium.new_page()
    view.goto(file.as_uri())
    refused = "new Promise(r => {addEventListener('securitypolicyviolation', e => r(e.effectiveDirective)); %s})"
    script = "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)"
    assert view.evaluate(refused % script) == "script-src-elem"
    assert view.evaluate("window.ran") is None
    assert view.evaluate(refused % "fetch('https://example.org/').catch(() => 0)") == "connect-src"
    assert view.evaluate(refused % "new Image().src = 'https://example.org/x.png'") == "img-src"
    view.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast_and_a_second_cue(show: Any, scheme: str) -> None:
    # WCAG's contrast of text on each heat colour is at least 4.5, computed from what the browser paints.
    answer = [position(i, f"word{i} ", p) for i, p in enumerate((0.3, 0.6, 0.9, 0.99))]
    made = Trace([1], answer, "".join(p.text for p in answer))
    view = show(page(made), color_scheme=scheme)
    paint = """n => { const s = getComputedStyle(n), b = getComputedStyle(n.closest('.block'));
        return [s.color, s.backgroundColor, b.backgroundColor, s.textDecorationLine + s.textDecorationStyle] }"""
    cues = set()
    for i in range(4):
        ink, paper, block, cue = view.locator("#answer .token").nth(i).evaluate(paint)
        lights = sorted(light(c) for c in (ink, block if paper == "rgba(0, 0, 0, 0)" else paper))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5
        cues.add(cue)
    assert len(cues) == 4


def light(colour: str) -> float:
    """Relative luminance (WCAG 2) of an `rgb(…)`."""
    parts = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_phone_width(show: Any, found: Trace, forks: list[Branch]) -> None:
    view = show(page(found, forks), viewport={"width": 360, "height": 640}, has_touch=True)
    view.locator("#answer .token").nth(6).tap()
    panel_shows(view, found.positions[6])
    view.locator("#panel button.candidate").first.tap()
    assert view.locator("#panel button[aria-pressed=true]").count() == 1
    covered = "document.elementFromPoint(...['left', 'bottom'].map(k => document.querySelector('article:last-child')"
    covered += ".getBoundingClientRect()[k] + (k === 'left' ? 20 : -5))).closest('#panel')"
    assert view.evaluate(covered) is None
    assert view.evaluate("document.documentElement.scrollWidth") <= 360
