"""Uploading: what is asked of the hub's library, on a stand-in; and what is told where it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from mlx_gemma.errors import UserError
from mlx_gemma.interop import hub


class Api:
    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012
    refuses = ""

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, kwargs | {"args": args}))
            if name == self.refuses:
                raise OSError("no network")
            return SimpleNamespace(commit_url="https://huggingface.co/me/mine/commit/1")

        return call


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> type[Api]:
    Api.calls, Api.refuses = [], ""
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return Api


def test_a_folder_and_a_file_go_to_a_private_repository(tmp_path: Path, api: type[Api]) -> None:
    (tmp_path / "model.gguf").write_text("x")
    for path, call in ((tmp_path, "upload_folder"), (tmp_path / "model.gguf", "upload_file")):
        api.calls.clear()
        assert hub.push(path, "me/mine").endswith("/commit/1")
        (made, first), (uploaded, second) = api.calls
        assert (made, first["private"], first["exist_ok"]) == ("create_repo", True, True)
        assert (uploaded, second["repo_id"]) == (call, "me/mine")
        assert path in second.values()


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
