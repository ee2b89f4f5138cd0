"""Where a model comes from: `nano`, a folder, or a hub id, resolved to a folder and to what identifies it.

Only safetensors and JSON are ever read; nothing in a checkpoint is executed but its chat template, in jinja2's sandbox.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlx_gemma.digest import digest_files
from mlx_gemma.errors import ModelError

NANO = Path(__file__).parents[1] / "nano"
MODEL_TYPES = ("gemma4", "gemma4_text")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WANTED = ["*.json", "*.jinja", "*.safetensors"]


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds a Gemma 4 model. `name` is what the user asked for, `revision` the hub commit, if any."""

    name: str
    folder: Path
    revision: str | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json as it stands, checked to be of a Gemma 4 model.

        Raises:
            ModelError: no config.json, not JSON, or another model type.
        """
        path = self.folder / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf8"))
            model_type = config["model_type"]
        except FileNotFoundError:
            raise ModelError(
                "no config.json, so this is no model folder", where=self.folder, fix="give a Gemma 4 checkpoint"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise ModelError(f"unreadable config.json: {e!r}", where=path, fix="download the checkpoint again") from e
        if model_type not in MODEL_TYPES:
            raise ModelError(
                f"model type {model_type!r} is not Gemma 4",
                where=path,
                fix=f"give a model of type {' or '.join(MODEL_TYPES)}",
            )
        return dict(config)

    @property
    def text_config(self) -> dict[str, Any]:
        """The text decoder's configuration, wherever the class keeps it."""
        return dict(self.config.get("text_config", self.config))

    @cached_property
    def digest(self) -> str:
        """sha256 over config, weights and tokenizer; reads every byte (about 10 s for E2B in bf16 on an SSD)."""
        return digest_files(sorted(p for pattern in WANTED for p in self.folder.glob(pattern)))


def find(name: str, revision: str | None = None) -> Checkpoint:
    """Resolve a model's name to a folder on this machine, downloading from the hub if it is a hub id.

    Raises:
        ModelError: nothing of this name, or the hub refuses or cannot be reached.
    """
    if name == "nano":
        return Checkpoint(name, NANO)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Checkpoint(name, folder)
    if folder.exists():
        raise ModelError("a file, not a model folder", where=name, fix="give the folder that holds config.json")
    if not HUB_ID.fullmatch(name) or name.count("/") != 1:
        raise ModelError(
            "no such folder, and not a hub id",
            where=name,
            fix="give nano, a folder, or an id such as google/gemma-4-E2B-it",
        )
    return Checkpoint(name, *_download(name, revision))


def _download(name: str, revision: str | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
    except GatedRepoError as e:
        raise ModelError(
            "the hub wants you to accept this model's licence",
            where=name,
            fix="do so on its page, then run: hf auth login",
        ) from e
    except RepositoryNotFoundError as e:
        raise ModelError(
            "the hub has no such model", where=name, fix="check the spelling, or log in: hf auth login"
        ) from e
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as e:
        raise ModelError(
            "not in the local cache, and the hub cannot be reached", where=name, fix="go online once, or give a folder"
        ) from e
    return folder, folder.name
