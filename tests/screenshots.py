"""docs/trace.png, audit.png, eval.png: `python tests/screenshots.py [FOLDER]` makes them, with Chromium or Chrome."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
PROMPT = "Print the numbers from 1 to 5, one per line."
CHROME_ON_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"


def executable() -> str | None:
    """An installed Chromium or Chrome; playwright's own browsers are never downloaded."""
    names = ("chromium", "chromium-browser", "google-chrome", CHROME_ON_MAC)
    return next((found for name in names if (found := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """Headless, by way of playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=executable())
        yield started
        started.close()


@contextmanager
def opened(document: str, width: int, height: int) -> Iterator[Any]:
    """A page of this size, from a file."""
    with TemporaryDirectory() as folder, browser() as started:
        file = Path(folder) / "page.html"
        file.write_text(document, encoding="utf8")
        view = started.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        view.goto(file.as_uri())
        yield view


def trace_picture(picture: Path) -> None:
    from mlx_gemma.gemma4.load import load
    from mlx_gemma.tracing.branches import branches
    from mlx_gemma.tracing.page import page
    from mlx_gemma.tracing.record import trace

    nano = load("nano")
    found = trace(nano, PROMPT)
    with opened(page(found, branches(nano, found)), 1200, 800) as view:
        view.locator("#answer .token", has_text="range").first.click()
        view.locator("#panel button.candidate", has_text="xrange").click()
        view.screenshot(path=picture)


def audit_picture(picture: Path) -> None:
    from mlx_gemma.data.audit.cache import audit_files
    from mlx_gemma.data.audit.page import page
    from mlx_gemma.data.audit.rendering import Rendering
    from mlx_gemma.recipe import read_recipe

    recipe = read_recipe(ROOT / "recipes" / "nano.yaml").recipe
    rendering = Rendering(recipe.model.name, recipe.model.revision, recipe.train.length, recipe.data.turns)
    report = audit_files(recipe.data.train, recipe.filter, rendering=rendering)
    with opened(page(report), 1200, 1340) as view:
        view.locator("#check-python2 > summary").click()
        view.locator("#check-python2 .example > summary", has_text="xrange").first.click()
        view.evaluate("scrollTo(0, 0)")
        view.screenshot(path=picture)


def eval_picture(picture: Path) -> None:
    """What a system prompt does to nano; types and reliability diagrams, which stand between, are left out."""
    from mlx_gemma.evaluate.report import report
    from mlx_gemma.evaluate.run import evaluate
    from mlx_gemma.evaluate.suite import read_suite
    from mlx_gemma.evaluate.summary import Side
    from mlx_gemma.gemma4.load import load
    from mlx_gemma.platform import describe

    suite, nano = read_suite(ROOT / "evals" / "tasks.jsonl"), load("nano")
    sides = [
        Side(name, evaluate(nano, suite, system=system, max_tokens=192), {"model": "nano", "system": system, "seed": 0})
        for name, system in (("nano", None), ("nano, prompted", "Prefer Python 3."))
    ]
    machine = {key: describe()[key] for key in ("chip", "backend", "mlx")}
    with opened(report(suite, sides, machine), 1200, 900) as view:
        view.evaluate("for (const id of ['types', 'calibration']) document.getElementById(id).hidden = true")
        view.locator("#change").select_option("better")
        view.locator("#text").fill("xrange")
        view.locator(".answer:not([hidden]) > summary").first.click()
        view.locator(".answer[open] .code").nth(1).wait_for()
        view.evaluate("scrollTo(0, 0)")
        height = view.evaluate("document.querySelector('.answer[open]').getBoundingClientRect().bottom")
        view.set_viewport_size({"width": 1200, "height": int(height) + 60})
        view.locator(".answer[open] .token", has_text="xrange").first.hover()
        view.screenshot(path=picture)


if __name__ == "__main__":
    os.chdir(ROOT)  # recipes name their files from here
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    trace_picture(folder / "trace.png")
    audit_picture(folder / "audit.png")
    eval_picture(folder / "eval.png")
