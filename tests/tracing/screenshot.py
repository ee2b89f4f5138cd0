"""docs/trace.png: `python tests/tracing/screenshot.py [PATH]` makes it again, with Chromium or Chrome."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PICTURE = Path(__file__).parents[2] / "docs" / "trace.png"
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
        opened = driver.chromium.launch(executable_path=executable())
        yield opened
        opened.close()


def main(picture: Path) -> None:
    from mlx_gemma.gemma4.load import load
    from mlx_gemma.tracing.branches import branches
    from mlx_gemma.tracing.page import page
    from mlx_gemma.tracing.record import trace

    nano = load("nano")
    found = trace(nano, PROMPT)
    with TemporaryDirectory() as folder, browser() as opened:
        file = Path(folder) / "trace.html"
        file.write_text(page(found, branches(nano, found)), encoding="utf8")
        view = opened.new_page(viewport={"width": 1200, "height": 800}, color_scheme="light")
        view.goto(file.as_uri())
        view.locator("#answer .token", has_text="range").first.click()
        view.locator("#panel button.candidate", has_text="xrange").click()
        view.screenshot(path=picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)
