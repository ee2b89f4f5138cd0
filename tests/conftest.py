"""What every test gets: small random Gemma 4 checkpoints, a browser, and no way out of its temporary folder."""

from __future__ import annotations

import os

# Before huggingface_hub is imported, which reads them once. A test that wants the cache fails instead of using yours.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = "/nonexistent/hf"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from mlx_gemma import platform

platform.load_blas()  # before any test module imports mlx; without it the tests would compute with the reference BLAS

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from screenshots import browser, executable
from tiny_gemma4 import make_checkpoint

from mlx_gemma.gemma4.checkpoint import NANO


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Home and working folder lie in the test's own temporary folder; the hub is never asked."""
    for name in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders of small checkpoints by name; made on first use, and not to be written to."""
    root = tmp_path_factory.mktemp("models")
    made: dict[str, Path] = {"nano": NANO}
    recipes: dict[str, dict[str, Any]] = {
        "e2b": {"kind": "e2b", "towers": True},
        "e2b-bf16": {"kind": "e2b", "towers": True, "dtype": "bfloat16"},
        "e2b-sharded": {"kind": "e2b", "towers": True, "dtype": "bfloat16", "max_shard_size": "300KB"},
        "e2b-text": {"kind": "e2b", "towers": False},
        "e4b": {"kind": "e4b", "towers": True},
        "e4b-text": {"kind": "e4b", "towers": False},
        "vocabulary": {"kind": "vocabulary", "towers": False},
        "wide": {"kind": "wide", "towers": False},
        "wide-bf16": {"kind": "wide", "towers": False, "dtype": "bfloat16"},
    }

    def get(name: str) -> Path:
        if name not in made:
            made[name] = make_checkpoint(root / name, **recipes[name])
        return made[name]

    return get


@pytest.fixture
def writable(models: Any, tmp_path: Path) -> Any:
    """A copy of a small checkpoint that the test may damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(models(name), tmp_path / f"copy-of-{name}"))

    return copy


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """An installed Chromium or Chrome; without one, or without playwright, the test is skipped."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    if executable() is None:
        pytest.skip("no Chromium or Chrome is installed")
    with browser() as opened:
        yield opened


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a document from a file, offline; at the end, no error, no dialog and no request but that file was seen."""
    contexts, wrong, asked, expected = [], [], [], []

    def open_(document: str, **options: Any) -> Any:
        context = chromium.new_context(offline=True, **options)
        contexts.append(context)
        view = context.new_page()
        view.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        view.on("pageerror", lambda e: wrong.append(str(e)))
        view.on("dialog", lambda d: (wrong.append(f"dialog {d.message}"), d.dismiss()))
        context.on("request", lambda r: asked.append(r.url))
        file = tmp_path / f"page-{len(contexts)}.html"
        file.write_text(document, encoding="utf8")
        expected.append(file.as_uri())
        view.goto(file.as_uri())
        return view

    yield open_
    assert wrong == []
    assert asked == expected
    for context in contexts:
        context.close()
