"""Uploading: what is asked of the hub's library, on a stand-in; and what is told where it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from mlx_gemma.errors import UserError
from mlx_gemma.interop import hub


class Lost(Exception):
    """As the hub's client raises it: no OSError."""


class Api:
    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012
    refuses = ""
    error: Exception = OSError("no network")

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, kwargs | {"args": args}))
            if name == self.refuses:
                raise self.error
            return SimpleNamespace(commit_url="https://huggingface.co/me/mine/commit/1")

        return call


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> type[Api]:
    Api.calls, Api.refuses, Api.error = [], "", OSError("no network")
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return Api


def test_a_folder_and_a_file_go_to_a_private_repository(tmp_path: Path, api: type[Api]) -> None:
    (tmp_path / "model.gguf").write_text("x")
    for path, call in ((tmp_path, "upload_folder"), (tmp_path / "model.gguf", "create_commit")):
        api.calls.clear()
        assert hub.push(path, "me/mine").endswith("/commit/1")
        (made, first), (uploaded, second) = api.calls
        assert (made, first["private"], first["exist_ok"]) == ("create_repo", True, True)
        assert (uploaded, second["repo_id"]) == (call, "me/mine")
        if path.is_dir():
            assert second["folder_path"] == path
            assert second["delete_patterns"] == ["*.safetensors", "*.safetensors.index.json"], "no stale shard is left"
        else:
            assert [(o.path_in_repo, o.path_or_fileobj) for o in second["operations"]] == [("model.gguf", str(path))]


def test_a_file_with_its_card(tmp_path: Path, api: type[Api]) -> None:
    (tmp_path / "model.gguf").write_text("x")
    hub.push(tmp_path / "model.gguf", "me/mine", "# Mine, für alle\n")
    _, (_, commit) = api.calls
    file, card = commit["operations"]
    assert (file.path_in_repo, card.path_in_repo) == ("model.gguf", "README.md")
    assert card.path_or_fileobj == "# Mine, für alle\n".encode()


RECIPE = "# mine\n\n## Recipe\n\n```yaml\nmodel:\n  name: {}  # file\ndata:\n  contamination: [{}]  # file\n```\n"


def test_paths_of_this_machine(tmp_path: Path) -> None:
    """Told before they are public: the base of a PEFT adapter, the recipe of a card."""
    config, card = tmp_path / "adapter_config.json", tmp_path / "README.md"
    assert hub.warnings(tmp_path) == []
    config.write_text(json.dumps({"base_model_name_or_path": "google/gemma-4-E2B-it"}))
    card.write_text(RECIPE.format("google/gemma-4-E2B-it", "rows/a.jsonl, b.jsonl") + "\nMLX /home/x\n")
    assert hub.warnings(tmp_path) == []
    config.write_text(json.dumps({"base_model_name_or_path": "/Users/me/base"}))
    card.write_text(RECIPE.format("nano", "rows/a.jsonl, '/Users/me/rows.jsonl'"))
    assert hub.warnings(tmp_path) == [
        f"{config}: its base is named by a path of this machine: edit base_model_name_or_path",
        f"{card}: the recipe in it names paths of this machine",
    ]
    for name in ("/Users/me/base", "~/base"):
        found = hub.warnings(tmp_path / "model.gguf", RECIPE.format(name, ""))
        assert found == ["README.md: the recipe in it names paths of this machine"]
    assert hub.warnings(tmp_path / "model.gguf") == []


@pytest.mark.parametrize("name", ["mine", "me/mine/too", "me/mi ne", ""])
def test_what_is_no_repository(name: str, api: type[Api]) -> None:
    with pytest.raises(UserError, match="no name of a repository; give OWNER/NAME"):
        hub.check(name)
    assert not api.calls


def test_refusals_are_told(tmp_path: Path, api: type[Api]) -> None:
    hub.check("me/mine")
    api.refuses = "whoami"
    with pytest.raises(UserError, match="the hub does not let us in: no network; log in first: hf auth login"):
        hub.check("me/mine")
    api.refuses = "create_repo"
    with pytest.raises(UserError, match="me/mine: not uploaded: no network; the export is kept"):
        hub.push(tmp_path, "me/mine")


@pytest.mark.parametrize("error", [Lost("no route"), OSError("slow"), RuntimeError("broke off")])
def test_a_network_that_is_lost_half_way(tmp_path: Path, api: type[Api], error: Exception) -> None:
    (tmp_path / "model.gguf").write_text("x")
    api.error = error
    for api.refuses, path in (("upload_folder", tmp_path), ("create_commit", tmp_path / "model.gguf")):
        with pytest.raises(UserError, match=f"me/mine: not uploaded: {error}; the export is kept"):
            hub.push(path, "me/mine")
